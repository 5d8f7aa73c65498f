// Bodies of qorus.nn:loss.
module qorus.nn;
import qorus.std;

namespace qorus {

Result<Tensor> Loss::operator()(const Operand& prediction, const Operand& target) const noexcept {
  switch (kind) {
    case Kind::cross_entropy: return ops::cross_entropy(prediction, target, cross_entropy);
    case Kind::nll: return ops::nll(prediction, target);
    case Kind::mse: return ops::mse(prediction, target);
    case Kind::l1: return ops::l1(prediction, target);
    case Kind::huber: return ops::huber(prediction, target, number);
    case Kind::bce_with_logits: return ops::bce_with_logits(prediction, target, number);
  }
  return fail(Errc::invalid_argument, "loss", "no such loss");
}

// Here, and not beside their layers, so that a program which never asks for a loss links none of it.
namespace nn {

Result<Tensor> head_loss(const Tensor& x, const Result<Tensor>& weight, const BoundLoss& loss) noexcept {
  if (loss.loss.kind != Loss::Kind::cross_entropy) return loss.loss(ops::linear(x, weight), loss.target);
  return ops::linear_cross_entropy(x, weight, loss.target, loss.loss.cross_entropy);
}

Result<Tensor> Linear::loss(const Tensor& x, const BoundLoss& loss) const noexcept {
  if (!has_bias && x.rank() > 0) return head_loss(x, use(weight, Shape{out_features, x.dim(-1)}, x, "linear"), loss);
  auto y = (*this)(x);
  return y ? loss(*y) : y;
}

Result<Tensor> Embedding::logits_loss(const Tensor& x, const BoundLoss& loss) const noexcept {
  return head_loss(x, use(weight, Shape{vocab, d_model}, x, k_name.data()), loss);
}

Result<Tensor> LanguageModel::loss(const Tensor& ids, const BoundLoss& loss) const noexcept {
  auto x = embedded(ids).and_then([&](const Tensor& t) { return decoder.before_norm(t); });
  if (!x) return x;
  const auto score = [&](const Tensor& t) { return tied ? tokens.logits_loss(t, loss) : head.loss(t, loss); };
  // No rule reads what the last block made but that of this norm.
  const auto normed = [&](const Tensor& t) { return decoder.norm.run(t, true); };
  return decoder.normed ? rematerialize(*x, normed, score) : score(*x);
}

}  // namespace nn
}  // namespace qorus
