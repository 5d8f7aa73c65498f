// Random tensors, from the workspace's counter-based generator: element i of a draw is a function of the seed and of its number alone,
// so results do not depend on workers, and Workspace::set_draws repeats them. Each call moves the generator on.
export module qorus.ops:random;
import qorus.std;
import qorus.tensor;
import :operand;

export namespace qorus::ops {

// While a tape records: each element 0 with probability p, else x / (1 - p). Otherwise x itself. f32.
// Errors: the operand's own, stale_tensor, no_workspace, invalid_dtype, invalid_argument (not 0 <= p < 1), out_of_memory.
[[nodiscard]] Result<Tensor> dropout(const Operand& x, float p) noexcept;

// `ops::uniform(frame.context(), {2, 3})`: [low, high), f32. Errors: invalid_size, out_of_memory.
[[nodiscard]] Result<Tensor> uniform(Context& context, const Shape& shape, float low = 0, float high = 1) noexcept;
// Normal with this mean and standard deviation; never further out than 6 deviations. Errors: invalid_size, out_of_memory.
[[nodiscard]] Result<Tensor> normal(Context& context, const Shape& shape, float mean = 0, float deviation = 1) noexcept;

}  // namespace qorus::ops
