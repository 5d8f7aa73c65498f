// Losses: small values that name the formula and its options; bound to a target they end a pipe.
export module qorus.nn:loss;
import qorus.std;
import qorus.ops;

export namespace qorus {

// Which loss, with its options. `loss(prediction, target)` gives a scalar on the tape.
struct Loss {
  enum class Kind : std::uint8_t { cross_entropy, nll, mse, l1, huber, bce_with_logits };
  Kind kind = Kind::cross_entropy;
  ops::CrossEntropyOptions cross_entropy = {};
  float number = 1;  // huber's delta, bce_with_logits' weight of the positives

  // Errors: those of the operation behind it.
  [[nodiscard]] Result<Tensor> operator()(const Operand& prediction, const Operand& target) const noexcept;
};

// A loss and its target: what `prediction | loss::cross_entropy(y)` applies, and `model | loss::cross_entropy(y)` ends in.
struct BoundLoss {
  Loss loss;
  Result<Tensor> target;
  [[nodiscard]] Result<Tensor> operator()(const Tensor& prediction) const noexcept { return loss(prediction, target); }
};

namespace nn {

// loss(layer(x)). A layer whose result is large knows a way to it without the whole result: a member `loss(x, bound)`.
template <class L>
[[nodiscard]] Result<Tensor> loss_of(const L& layer, const Tensor& x, const BoundLoss& loss) noexcept {
  if constexpr (requires { layer.loss(x, loss); }) {
    return layer.loss(x, loss);
  } else {
    auto y = layer(x);
    return y ? loss(*y) : y;
  }
}
// The same of x weight^T: a cross-entropy goes by ops::linear_cross_entropy.
[[nodiscard]] Result<Tensor> head_loss(const Tensor& x, const Result<Tensor>& weight, const BoundLoss& loss) noexcept;

}  // namespace nn

// Each comes alone, for train::fit, and bound to a target, for the end of a pipe. Means over all elements (rows that count).
namespace loss {

// -log softmax(logits)[class]; logits: […, classes], targets: […] i32. Label smoothing and an index to ignore in the options.
[[nodiscard]] inline Loss cross_entropy(const ops::CrossEntropyOptions& options = {}) noexcept {
  return {.kind = Loss::Kind::cross_entropy, .cross_entropy = options};
}
[[nodiscard]] inline BoundLoss cross_entropy(Result<Tensor> target,
                                             const ops::CrossEntropyOptions& options = {}) noexcept {
  return {cross_entropy(options), std::move(target)};
}
// -x[class] of log-probabilities x: […, classes]; targets: […] i32
[[nodiscard]] inline Loss nll() noexcept { return {.kind = Loss::Kind::nll}; }
[[nodiscard]] inline BoundLoss nll(Result<Tensor> target) noexcept { return {nll(), std::move(target)}; }
// (x - t)^2
[[nodiscard]] inline Loss mse() noexcept { return {.kind = Loss::Kind::mse}; }
[[nodiscard]] inline BoundLoss mse(Result<Tensor> target) noexcept { return {mse(), std::move(target)}; }
// |x - t|
[[nodiscard]] inline Loss l1() noexcept { return {.kind = Loss::Kind::l1}; }
[[nodiscard]] inline BoundLoss l1(Result<Tensor> target) noexcept { return {l1(), std::move(target)}; }
// d^2/2 where |d| <= delta, else delta (|d| - delta/2)
[[nodiscard]] inline Loss huber(float delta = 1) noexcept { return {.kind = Loss::Kind::huber, .number = delta}; }
[[nodiscard]] inline BoundLoss huber(Result<Tensor> target, float delta = 1) noexcept {
  return {huber(delta), std::move(target)};
}
// -(w t log s + (1-t) log(1-s)), s = sigmoid(x)
[[nodiscard]] inline Loss bce_with_logits(float positive_weight = 1) noexcept {
  return {.kind = Loss::Kind::bce_with_logits, .number = positive_weight};
}
[[nodiscard]] inline BoundLoss bce_with_logits(Result<Tensor> target, float positive_weight = 1) noexcept {
  return {bce_with_logits(positive_weight), std::move(target)};
}

}  // namespace loss
}  // namespace qorus
