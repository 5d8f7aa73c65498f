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

}  // namespace qorus::ops
