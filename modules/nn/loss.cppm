// Losses: small values that name the formula and its options; bound to a target they end a pipe.
module;
#include <cstdint>
#include <utility>
export module qorus.nn:loss;
import qorus.ops;

export namespace qorus {

// Which loss, with its options. `loss(prediction, target)` gives a scalar on the tape.
struct Loss {
  enum class Kind : std::uint8_t { cross_entropy };
  Kind kind = Kind::cross_entropy;
  ops::CrossEntropyOptions cross_entropy = {};

  // Errors: those of the operation behind it.
  [[nodiscard]] Result<Tensor> operator()(const Operand& prediction, const Operand& target) const noexcept;
};

// A loss and its target: what `prediction | loss::cross_entropy(y)` applies.
struct BoundLoss {
  Loss loss;
  Result<Tensor> target;
  [[nodiscard]] Result<Tensor> operator()(const Tensor& prediction) const noexcept { return loss(prediction, target); }
};

namespace loss {

// mean over rows of -log softmax(logits)[class]; logits: […, classes], targets: […] i32
[[nodiscard]] inline Loss cross_entropy(const ops::CrossEntropyOptions& options = {}) noexcept {
  return {.kind = Loss::Kind::cross_entropy, .cross_entropy = options};
}
[[nodiscard]] inline BoundLoss cross_entropy(Result<Tensor> target, const ops::CrossEntropyOptions& options = {}) noexcept {
  return {cross_entropy(options), std::move(target)};
}

}  // namespace loss
}  // namespace qorus
