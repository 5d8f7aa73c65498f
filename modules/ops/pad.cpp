// The other bodies of qorus.ops:join: pad, tile, repeat. All but padding with a value is built of views and of take.
module qorus.ops;
import qorus.std;
import :rules;
import :loops;

namespace qorus {
namespace {

// x lies in y as the layout says (y's strides and the place of its first element, x's shape).
struct PadSaved {
  GradRef x;
  Layout inside;
};

using Paddings = std::array<ops::Padding, k_max_rank>;  // by axis

Result<Paddings> paddings_by_axis(const Tensor& x, std::span<const ops::Padding> list, ops::PadMode mode) noexcept {
  Paddings paddings{};
  unsigned seen = 0;
  for (const ops::Padding& padding : list) {
    auto axis = normal_axis(padding.axis, x.rank(), "pad");
    if (!axis) return fail(axis.error());
    if (seen >> *axis & 1) return fail(Errc::invalid_argument, "pad", "an axis is named twice", x.shape().dims());
    seen |= 1u << *axis;
    const std::int64_t most = std::max(padding.before, padding.after), extent = x.dim(*axis);
    if (std::min(padding.before, padding.after) < 0 || most >= std::int64_t{1} << 47) {
      return fail(Errc::invalid_argument, "pad", "the counts are at least 0", x.shape().dims());
    }
    if (most > 0 &&
        ((mode == ops::PadMode::reflect && most >= extent) || (mode != ops::PadMode::constant && extent == 0))) {
      return fail(Errc::invalid_argument, "pad", "there are not enough elements to fill up from", x.shape().dims());
    }
    paddings[*axis] = padding;
  }
  return paddings;
}

// Writes the value around, and x's rows in between: f32, x dense.
void fill_around(const Context& context, const Tensor& x, const Layout& inside, const Shape& shape, float value,
                 float* y) noexcept {
  parallel_elements(context, shape.numel(),
                    [&](std::size_t begin, std::size_t end) { std::fill(y + begin, y + end, value); });
  add_strided(context, inside, x.f32(), Into{y, false}, x.numel());  // overwrites: "all" elements are those that x has
}

Result<Tensor> pad_constant(const Tensor& x, const Paddings& paddings, float value, Context& context) noexcept {
  if (auto ok = x.check(DType::f32, "pad"); !ok) return fail(ok.error());
  std::array<std::int64_t, k_max_rank> extents{};
  for (int d = 0; d < x.rank(); ++d) extents[d] = x.dim(d) + paddings[d].before + paddings[d].after;
  const Shape shape(std::span<const std::int64_t>(extents.data(), static_cast<std::size_t>(x.rank())));
  if (!shape.valid()) return fail(Errc::invalid_size, "pad", "the result would be too large", x.shape().dims());
  auto dense = ops::contiguous(x);
  if (!dense) return dense;
  Layout inside = Layout::dense(shape);
  for (int d = 0; d < x.rank(); ++d) inside.offset += x.dim(d) ? paddings[d].before * inside.stride[d] : 0;
  inside.shape = x.shape();
  auto y = Fresh::make(context, shape);
  if (!y) return fail(y.error());
  fill_around(context, *dense, inside, shape, value, y->f32());
  return std::move(*y).freeze(rule(RuleId::pad), {&*dense}, PadSaved{dense->grad_ref(), inside});
}

// Where element i of a padded axis comes from.
std::int64_t source_of(std::int64_t i, std::int64_t extent, ops::PadMode mode) noexcept {
  switch (mode) {
    case ops::PadMode::edge: return std::clamp<std::int64_t>(i, 0, extent - 1);
    case ops::PadMode::reflect: return i < 0 ? -i : i >= extent ? 2 * (extent - 1) - i : i;
    case ops::PadMode::wrap: return (i % extent + extent) % extent;
    case ops::PadMode::constant: break;
  }
  return i;
}

Result<Tensor> pad_axis(const Tensor& x, int axis, const ops::Padding& padding, ops::PadMode mode,
                        Context& context) noexcept {
  const std::int64_t extent = x.dim(axis), padded = extent + padding.before + padding.after;
  auto index = Fresh::make(context, Shape{padded}, DType::i32);
  if (!index) return fail(index.error());
  parallel(context, 1, [&](std::uint32_t, int) {
    for (std::int64_t i = 0; i < padded; ++i)
      index->i32()[i] = static_cast<std::int32_t>(source_of(i - padding.before, extent, mode));
  });
  return ops::take(x, std::move(*index).freeze(), axis);
}

// [outer, n] seen as [outer, count, n], of which the middle is a repetition; then given its shape.
Result<Tensor> repeat_middle(const Operand& x, std::size_t outer, std::int64_t count, const Shape& shape) noexcept {
  const auto rows = static_cast<std::int64_t>(outer);
  const auto n = static_cast<std::int64_t>(outer ? x->numel() / outer : 0);
  auto whole = ops::broadcast_to(ops::reshape(x, {rows, 1, n}), Shape{rows, count, n});
  return ops::reshape(whole, shape.extents());
}

}  // namespace

void rules::pad(const void* saved, Grads& grads) noexcept {
  const auto& s = *static_cast<const PadSaved*>(saved);
  const Into dx = grads.into(s.x);
  if (!dx) return;
  const Tensor inside(reinterpret_cast<const std::byte*>(grads.out()), DType::f32, s.inside, {});
  if (!dx.accumulate) return copy_dense(grads.context(), inside, dx.data);
  float* copy = grads.temporary(s.x.numel);
  if (!copy) return;
  copy_dense(grads.context(), inside, copy);
  add_rows(grads.context(), copy, s.x.numel, dx, s.x.numel, 1, s.x.numel);
}

namespace ops {

Result<Tensor> pad(const Operand& x, std::span<const Padding> list, PadMode mode, float value) noexcept {
  auto context = common_context("pad", {&x});
  if (!context) return fail(context.error());
  auto paddings = paddings_by_axis(*x, list, mode);
  if (!paddings) return fail(paddings.error());
  if (mode == PadMode::constant) return pad_constant(*x, *paddings, value, **context);
  Result<Tensor> y = *x;
  for (int d = 0; d < x->rank() && y; ++d) {
    const Padding& padding = (*paddings)[d];
    if (padding.before || padding.after) y = pad_axis(*y, d, padding, mode, **context);
  }
  return y;
}

Result<Tensor> tile(const Operand& x, std::span<const std::int64_t> repeats) noexcept {
  auto context = common_context("tile", {&x});
  if (!context) return fail(context.error());
  if (static_cast<int>(repeats.size()) != x->rank()) {
    return fail(Errc::invalid_size, "tile", "one repeat for each extent", x->shape().dims(), Shape(repeats).dims());
  }
  Result<Tensor> y = *x;
  std::size_t outer = x->numel();
  for (int d = x->rank() - 1; d >= 0 && y; --d) {  // from the inside: then what lies further out is not yet repeated
    std::int64_t extent = 0;
    if (repeats[d] < 0 || __builtin_mul_overflow(x->dim(d), repeats[d], &extent) ||
        !y->shape().with(d, extent).valid()) {
      return fail(Errc::invalid_size, "tile", "repeats are counts, and the result must fit", x->shape().dims(),
                  Shape(repeats).dims());
    }
    outer = 1;
    for (int i = 0; i < d; ++i) outer *= static_cast<std::size_t>(x->dim(i));
    if (repeats[d] != 1) y = repeat_middle(y, outer, repeats[d], y->shape().with(d, extent));
  }
  return y;
}

Result<Tensor> repeat(const Operand& x, std::int64_t count, int axis) noexcept {
  auto context = common_context("repeat", {&x});
  if (!context) return fail(context.error());
  auto at = normal_axis(axis, x->rank(), "repeat");
  if (!at) return fail(at.error());
  std::int64_t extent = 0;
  if (count < 0 || __builtin_mul_overflow(x->dim(*at), count, &extent) || !x->shape().with(*at, extent).valid()) {
    return fail(Errc::invalid_size, "repeat", "the count is at least 0, and the result must fit", x->shape().dims());
  }
  std::size_t outer = 1;
  for (int d = 0; d <= *at; ++d) outer *= static_cast<std::size_t>(x->dim(d));
  return repeat_middle(x, outer, count, x->shape().with(*at, extent));
}

}  // namespace ops
}  // namespace qorus
