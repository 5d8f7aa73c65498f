// The same elements seen another way. Views copy nothing; only reshape (where the order of the elements does not allow it) and
// contiguous do. All are differentiable; elements of any type. Namespace qorus::ops, as all operations.
export module qorus.ops:view;
import qorus.std;
import qorus.tensor;
import :operand;

export namespace qorus::ops {

// The elements in row-major order under another shape of the same element count; one extent may be -1. Errors: invalid_size.
[[nodiscard]] Result<Tensor> reshape(const Operand& x, std::span<const std::int64_t> extents) noexcept;
[[nodiscard]] inline Result<Tensor> reshape(const Operand& x, std::initializer_list<std::int64_t> extents) noexcept {
  return reshape(x, std::span(extents.begin(), extents.size()));
}
// [d0, …, d(first-1), d(first) … d(last) multiplied, …]; the whole by default.
[[nodiscard]] Result<Tensor> flatten(const Operand& x, int first = 0, int last = -1) noexcept;
// y[…, i, …, j, …] = x[…, j, …, i, …]
[[nodiscard]] Result<Tensor> transpose(const Operand& x, int axis_a = -2, int axis_b = -1) noexcept;
// y's axis d is x's axis axes[d].
[[nodiscard]] Result<Tensor> permute(const Operand& x, std::span<const int> axes) noexcept;
[[nodiscard]] inline Result<Tensor> permute(const Operand& x, std::initializer_list<int> axes) noexcept {
  return permute(x, std::span(axes.begin(), axes.size()));
}
// Indices begin, begin + step, … below end of one axis; begin and end count from the end when negative. step >= 1.
[[nodiscard]] Result<Tensor> slice(const Operand& x, int axis, std::int64_t begin, std::int64_t end,
                                   std::int64_t step = 1) noexcept;
// One index of an axis, which disappears.
[[nodiscard]] Result<Tensor> select(const Operand& x, int axis, std::int64_t index) noexcept;
// Extents of 1 repeated, new ones in front, as in all element-wise operations.
[[nodiscard]] Result<Tensor> broadcast_to(const Operand& x, const Shape& shape) noexcept;
// An extent of 1 put in before `axis`, or taken away.
[[nodiscard]] Result<Tensor> unsqueeze(const Operand& x, int axis) noexcept;
[[nodiscard]] Result<Tensor> squeeze(const Operand& x, int axis) noexcept;
// The tensor itself if it is row-major without gaps, else such a copy.
[[nodiscard]] Result<Tensor> contiguous(const Operand& x) noexcept;
// The same values, from which no gradient flows back.
[[nodiscard]] Result<Tensor> detach(const Operand& x) noexcept;

}  // namespace qorus::ops
