// Softmax and what is built on it. Rows are the last axis unless another is named.
// Errors of all: an operand's own, stale_tensor, no_workspace, invalid_dtype, invalid_size, invalid_argument, out_of_memory.
export module qorus.ops:softmax;
import qorus.std;
import qorus.tensor;
import :operand;

export namespace qorus::ops {

[[nodiscard]] Result<Tensor> softmax(const Operand& x, int axis = -1) noexcept;      // exp(x) / sum exp(x)
[[nodiscard]] Result<Tensor> log_softmax(const Operand& x, int axis = -1) noexcept;  // x - log sum exp(x)

enum class Reduce : std::uint8_t { mean, sum, none };

struct CrossEntropyOptions {
  float label_smoothing = 0;         // the target is (1-s) onehot + s/classes
  std::int32_t ignore_index = -100;  // rows with this target count nothing
  Reduce reduce = Reduce::mean;      // mean: over the rows that count; 0/0 is 0
};
// -log softmax(x)[target], fused with its gradient. x: […, classes]; target: […] i32. Result: a scalar, or […] for Reduce::none.
// Agrees with the composition log_softmax, gather, mean. Errors: also invalid_argument if a target is neither ignored nor below classes.
[[nodiscard]] Result<Tensor> cross_entropy(const Operand& x, const Operand& target,
                                           const CrossEntropyOptions& options = {}) noexcept;

// cross_entropy(linear(x, weight), target) without the scores of all rows in memory: they exist for some rows at a time, 8 MiB of them or
// 64 rows, and while a tape records the gradients are made on the way, as large as x and the weight. x: […, in], weight: [classes, in],
// target: […] i32. Agrees with that composition (the weight's gradient up to the order of its sum), and is it for Reduce::none and for
// weights that are not f32. Errors: those of both.
[[nodiscard]] Result<Tensor> linear_cross_entropy(const Operand& x, const Operand& weight, const Operand& target,
                                                  const CrossEntropyOptions& options = {}) noexcept;

}  // namespace qorus::ops

// Within the module only.
namespace qorus {

// Targets of a cross-entropy, dense, and the factor of each row's loss in the result.
struct Targets {
  Tensor labels;
  float factor;
};
// Checks the targets of logits of this shape, and the options.
[[nodiscard]] Result<Targets> targets_of(Context& context, const Shape& logits, const Operand& target,
                                         const ops::CrossEntropyOptions& options) noexcept;

}  // namespace qorus
