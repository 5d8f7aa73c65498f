// Losses, each one node with its gradient. Reduce says what becomes of the elements' losses: mean divides by their count (and 0/0 is
// 0), sum adds them, none keeps them. Cross-entropy stands in :softmax.
// Errors of all: an operand's own, stale_tensor, no_workspace, invalid_dtype, invalid_size (both shapes named), invalid_argument,
// out_of_memory.
export module qorus.ops:loss;
import qorus.std;
import qorus.tensor;
import :operand;
import :softmax;

export namespace qorus::ops {

// Prediction and target are f32, of one shape; both get a gradient where they are tracked.
// (x - t)^2; the gradient keeps its 2.
[[nodiscard]] Result<Tensor> mse(const Operand& x, const Operand& target, Reduce reduce = Reduce::mean) noexcept;
// |x - t|
[[nodiscard]] Result<Tensor> l1(const Operand& x, const Operand& target, Reduce reduce = Reduce::mean) noexcept;
// d^2/2 where |d| <= delta, else delta (|d| - delta/2), for d = x - t. delta > 0.
[[nodiscard]] Result<Tensor> huber(const Operand& x, const Operand& target, float delta = 1,
                                   Reduce reduce = Reduce::mean) noexcept;
// -(w t log s + (1-t) log(1-s)) for s = sigmoid(x) and w = positive_weight, without overflow for any x.
// Agrees with (1-t) x + (1 + (w-1) t) softplus(-x).
[[nodiscard]] Result<Tensor> bce_with_logits(const Operand& x, const Operand& target, float positive_weight = 1,
                                             Reduce reduce = Reduce::mean) noexcept;

struct NllOptions {
  std::int32_t ignore_index = -100;  // rows with this target count nothing
  Reduce reduce = Reduce::mean;      // mean: over the rows that count, by their weight; 0/0 is 0
};
// -weight[target] x[target] for log-probabilities x: […, classes], target: […] i32, weight: [classes], a constant (no gradient) and 1
// if not given. Result: a scalar, or […] for Reduce::none.
// Errors: also invalid_argument if a target is neither ignored nor below classes.
[[nodiscard]] Result<Tensor> nll(const Operand& x, const Operand& target, const NllOptions& options = {}) noexcept;
[[nodiscard]] Result<Tensor> nll(const Operand& x, const Operand& target, const Operand& weight,
                                 const NllOptions& options = {}) noexcept;

}  // namespace qorus::ops
