// Tensors put together, cut apart and filled up. Elements of any type, all operands of the same; differentiable where they are f32.
// Errors of all: an operand's own, stale_tensor, no_workspace, invalid_dtype, invalid_size (both shapes named), invalid_argument (an
// axis that is not there), out_of_memory.
export module qorus.ops:join;
import qorus.std;
import qorus.tensor;
import :operand;
import :view;

export namespace qorus::ops {

// The parts one after the other along an axis; their other extents agree. At least one part. `concat({a, b | f}, 1)`.
[[nodiscard]] Result<Tensor> concat(std::initializer_list<Operand> parts, int axis = 0) noexcept;
[[nodiscard]] Result<Tensor> concat(std::span<const Tensor> parts, int axis = 0) noexcept;
// Parts of one shape, along a new axis: result.dim(axis) is their number.
[[nodiscard]] Result<Tensor> stack(std::initializer_list<Operand> parts, int axis = 0) noexcept;
[[nodiscard]] Result<Tensor> stack(std::span<const Tensor> parts, int axis = 0) noexcept;

// Views of consecutive pieces along an axis, of the given sizes, which add up to the extent. Nothing is copied.
// Errors: also invalid_size (as many sizes as parts, none negative).
[[nodiscard]] Status split(const Operand& x, int axis, std::span<const std::int64_t> sizes,
                           std::span<Tensor> parts) noexcept;
// `auto parts = ops::split(x, -1, {2, 3, 5});`
template <std::size_t N>
[[nodiscard]] Result<std::array<Tensor, N>> split(const Operand& x, int axis, const std::int64_t (&sizes)[N]) noexcept {
  std::array<Tensor, N> parts;
  if (auto done = split(x, axis, std::span<const std::int64_t>(sizes), std::span<Tensor>(parts)); !done)
    return fail(done.error());
  return parts;
}
// N equal pieces. `auto qkv = ops::split<3>(x, -1);`
template <std::size_t N>
[[nodiscard]] Result<std::array<Tensor, N>> split(const Operand& x, int axis) noexcept {
  std::array<Tensor, N> parts;
  std::array<std::int64_t, N> sizes{};
  if (x.ok() && x->alive()) {
    if (auto at = normal_axis(axis, x->rank(), "split")) sizes.fill(x->dim(*at) / static_cast<std::int64_t>(N));
  }
  if (auto done = split(x, axis, sizes, std::span<Tensor>(parts)); !done) return fail(done.error());
  return parts;
}

enum class PadMode : std::uint8_t {
  constant,  // a value
  edge,      // the outermost element repeated
  reflect,   // mirrored at the outermost element, which is not repeated; less than the extent
  wrap,      // from the other end
};
// So many elements more on either side of an axis. Both counts are at least 0.
struct Padding {
  int axis = 0;
  std::int64_t before = 0, after = 0;
};
// Errors: also invalid_argument (a negative count; an axis named twice; more than there is to reflect). `value` is for f32 only.
[[nodiscard]] Result<Tensor> pad(const Operand& x, std::span<const Padding> paddings, PadMode mode = PadMode::constant,
                                 float value = 0) noexcept;
[[nodiscard]] inline Result<Tensor> pad(const Operand& x, std::initializer_list<Padding> paddings,
                                        PadMode mode = PadMode::constant, float value = 0) noexcept {
  return pad(x, std::span(paddings.begin(), paddings.size()), mode, value);
}

// The whole repeated along each axis: result.dim(d) = repeats[d] x.dim(d). As many repeats as axes; 0 gives no elements.
[[nodiscard]] Result<Tensor> tile(const Operand& x, std::span<const std::int64_t> repeats) noexcept;
[[nodiscard]] inline Result<Tensor> tile(const Operand& x, std::initializer_list<std::int64_t> repeats) noexcept {
  return tile(x, std::span(repeats.begin(), repeats.size()));
}
// Each index of an axis repeated `count` times in its place.
[[nodiscard]] Result<Tensor> repeat(const Operand& x, std::int64_t count, int axis) noexcept;

}  // namespace qorus::ops
