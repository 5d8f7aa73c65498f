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

}  // namespace qorus
