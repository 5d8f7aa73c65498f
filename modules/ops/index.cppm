// Elements chosen by index tensors (i32). An index counts from the front, or from the end when it is negative: it lies in [-n, n) of
// its axis; that is checked before anything is read. Errors of all: an operand's own, stale_tensor, no_workspace, invalid_dtype,
// invalid_size (both shapes named), invalid_argument (no such axis; an index out of range), out_of_memory.
export module qorus.ops:index;
import qorus.std;
import qorus.tensor;
import :operand;

export namespace qorus::ops {

// y[…, i…, …] = x[…, index[i…], …]: index's extents stand where the axis was. With axis 0 and x a table of rows it is an embedding.
// x of any type (a block format: rows, so not along its last axis), differentiable where it is f32; the gradients of an index that occurs twice are added in order.
// transient: no rule reads y, so that f32 may be gone once with_transients ends.
[[nodiscard]] Result<Tensor> take(const Operand& x, const Operand& index, int axis = 0,
                                  bool transient = false) noexcept;

// y[i, j, …] = x[i, index[i, j, …], …] (for axis 1): y has index's shape, whose extents are at most x's but along the axis. f32.
[[nodiscard]] Result<Tensor> gather(const Operand& x, const Operand& index, int axis) noexcept;

// A copy of x with source[i, j, …] added at [i, index[i, j, …], …] (for axis 1), in the order of the source. f32.
[[nodiscard]] Result<Tensor> scatter_add(const Operand& x, const Operand& index, const Operand& source,
                                         int axis) noexcept;

// `on` where the new axis' position is the index, `off` elsewhere; the new axis of extent `classes` stands before `axis` (-1: last).
[[nodiscard]] Result<Tensor> one_hot(const Operand& index, std::int64_t classes, float on = 1, float off = 0,
                                     int axis = -1) noexcept;

}  // namespace qorus::ops
