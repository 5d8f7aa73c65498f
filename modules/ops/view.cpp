// Bodies of qorus.ops:view.
module qorus.ops;
import qorus.std;
import :rules;
import :loops;

namespace qorus {
namespace {

// A view's gradient goes back through the same view of a dense tensor of x's shape.
struct ViewSaved {
  GradRef x;
  Layout layout;
};

// A node for a view of x. Where no tape records, or x is not tracked, it costs nothing.
Result<Tensor> record_view(const Tensor& x, const Layout& seen, const Layout& seen_dense) noexcept {
  if (!whole_blocks(x.dtype(), seen))
    return fail(Errc::invalid_dtype, "view", "a block format is seen by whole rows; ops::cast to f32",
                x.shape().dims());
  const Tensor view = x.seen_as(seen);
  Context* context = x.context();
  // A parameter outside of any workspace: its gradient finds the way through a reshape only.
  if (x.tracked() && !context) {
    if (seen_dense.offset == 0 && seen_dense.is_dense() && seen_dense.shape.numel() == x.numel())
      return view.with_slot(x.grad_ref().slot);
    return fail(Errc::no_workspace, "view", "a parameter is seen another way as tape.input(parameter) only",
                x.shape().dims());
  }
  if (!x.tracked() || !context->record) return view;
  Node node{.rule = rule(RuleId::view), .out_numel = view.numel()};
  const Lifetime life = x.unread().lifetime();
  if (life.block && !context->holds(life)) node.reads[node.read_count++] = life;
  const ViewSaved saved{x.grad_ref(), seen_dense};
  auto slot = context->record(*context, node, &saved, sizeof saved);
  if (!slot) return fail(slot.error());
  if (x.of_parameters()) context->note_read(*context, x);
  return view.with_slot(*slot);
}

// x seen through a change of layout, which is applied to its own layout and to the dense one that its gradient has.
template <class Change>
Result<Tensor> view_of(const char* op, const Operand& x, const Change& change) noexcept {
  if (!x.ok()) return fail(x.error());
  if (auto ok = x->check(op); !ok) return fail(ok.error());
  auto seen = change(x->layout());
  if (!seen) return fail(seen.error());
  auto seen_dense = change(Layout::dense(x->shape()));
  if (!seen_dense) return fail(seen_dense.error());
  return record_view(*x, *seen, *seen_dense);
}

// The shape with repeated extents (stride 0) as 1.
Shape unrepeated(const Layout& layout) noexcept {
  Shape shape = layout.shape;
  for (int d = 0; d < shape.rank(); ++d) {
    if (layout.stride[d] == 0 && shape[d] > 1) shape = shape.with(d, 1);
  }
  return shape;
}

struct CopySaved {
  GradRef x;
};

}  // namespace

void rules::view(const void* saved, Grads& grads) noexcept {
  const auto& s = *static_cast<const ViewSaved*>(saved);
  if (s.layout.is_dense() && s.layout.offset == 0 && s.layout.shape.numel() == s.x.numel) return grads.pass(s.x);
  const Into dx = grads.into(s.x);
  if (!dx) return;
  const Shape once = unrepeated(s.layout);
  if (once != s.layout.shape)
    return sum_to(grads, grads.out(), s.layout.shape, once, dx);  // a broadcast: any number of workers can add
  add_strided(grads.context(), s.layout, grads.out(), dx, s.x.numel);
}

void rules::copy(const void* saved, Grads& grads) noexcept { grads.pass(static_cast<const CopySaved*>(saved)->x); }

namespace ops {

Result<Tensor> contiguous(const Operand& x) noexcept {
  if (!x.ok()) return fail(x.error());
  if (auto ok = x->check("contiguous"); !ok) return fail(ok.error());
  if (x->contiguous()) return *x;
  auto context = common_context("contiguous", {&x});
  if (!context) return fail(context.error());
  auto y = Fresh::make(**context, x->shape(), x->dtype());
  if (!y) return fail(y.error());
  if (x->dtype() == DType::f32) {
    copy_dense(**context, *x, y->f32());
  } else {
    parallel(**context, 1, [&](std::uint32_t, int) { x->copy_elements(y->data()); });
  }
  return std::move(*y).freeze(rule(RuleId::copy), {&*x}, CopySaved{x->grad_ref()});
}

Result<Tensor> reshape(const Operand& x, std::span<const std::int64_t> extents) noexcept {
  if (!x.ok()) return fail(x.error());
  if (auto ok = x->check("reshape"); !ok) return fail(ok.error());
  auto shape = infer_extent(extents, x->numel(), "reshape");
  if (!shape) return fail(shape.error());
  Layout seen;
  if (!x->layout().reshaped(*shape, seen))
    return contiguous(x).and_then([&](const Tensor& copy) { return reshape(copy, extents); });
  return record_view(*x, seen, Layout::dense(*shape));
}

Result<Tensor> flatten(const Operand& x, int first, int last) noexcept {
  if (!x.ok()) return fail(x.error());
  if (auto ok = x->check("flatten"); !ok) return fail(ok.error());
  if (x->rank() == 0) return reshape(x, {1});
  auto from = normal_axis(first, x->rank(), "flatten");
  auto to = normal_axis(last, x->rank(), "flatten");
  if (!from) return fail(from.error());
  if (!to) return fail(to.error());
  if (*to < *from)
    return fail(Errc::invalid_argument, "flatten", "the last axis comes before the first", x->shape().dims());
  std::array<std::int64_t, k_max_rank> extents{};
  std::size_t count = 0;
  for (int d = 0; d < x->rank(); ++d) {
    if (d > *from && d <= *to) {
      extents[count - 1] *= x->dim(d);
    } else {
      extents[count++] = x->dim(d);
    }
  }
  return reshape(x, std::span<const std::int64_t>(extents.data(), count));
}

Result<Tensor> permute(const Operand& x, std::span<const int> axes) noexcept {
  return view_of("permute", x, [&](const Layout& layout) { return layout.permuted(axes); });
}

Result<Tensor> transpose(const Operand& x, int axis_a, int axis_b) noexcept {
  return view_of("transpose", x, [&](const Layout& layout) -> Result<Layout> {
    auto a = normal_axis(axis_a, layout.shape.rank(), "transpose");
    auto b = normal_axis(axis_b, layout.shape.rank(), "transpose");
    if (!a) return fail(a.error());
    if (!b) return fail(b.error());
    std::array<int, k_max_rank> axes{0, 1, 2, 3, 4, 5};
    std::swap(axes[*a], axes[*b]);
    return layout.permuted(std::span<const int>(axes.data(), static_cast<std::size_t>(layout.shape.rank())));
  });
}

Result<Tensor> slice(const Operand& x, int axis, std::int64_t begin, std::int64_t end, std::int64_t step) noexcept {
  return view_of("slice", x, [&](const Layout& layout) { return layout.sliced(axis, begin, end, step); });
}

Result<Tensor> select(const Operand& x, int axis, std::int64_t index) noexcept {
  return view_of("select", x, [&](const Layout& layout) -> Result<Layout> {
    auto at = normal_axis(axis, layout.shape.rank(), "select");
    if (!at) return fail(at.error());
    const std::int64_t i = index < 0 ? index + layout.shape[*at] : index;
    if (i < 0 || i >= layout.shape[*at])
      return fail(Errc::invalid_argument, "select", "the index is out of range", layout.shape.dims());
    Layout seen{.shape = layout.shape.without(*at), .offset = layout.offset + i * layout.stride[*at]};
    for (int d = 0, to = 0; d < layout.shape.rank(); ++d) {
      if (d != *at) seen.stride[to++] = layout.stride[d];
    }
    return seen;
  });
}

Result<Tensor> broadcast_to(const Operand& x, const Shape& shape) noexcept {
  return view_of("broadcast_to", x, [&](const Layout& layout) { return layout.broadcast_to(shape); });
}

Result<Tensor> unsqueeze(const Operand& x, int axis) noexcept {
  return view_of("unsqueeze", x, [&](const Layout& layout) -> Result<Layout> {
    auto at = normal_axis(axis, layout.shape.rank() + 1, "unsqueeze");
    if (!at) return fail(at.error());
    Layout seen{.shape = layout.shape.inserted(*at, 1), .offset = layout.offset};
    if (!seen.shape.valid()) return fail(Errc::invalid_size, "unsqueeze", "at most six extents", layout.shape.dims());
    for (int d = 0, from = 0; d < seen.shape.rank(); ++d) seen.stride[d] = d == *at ? 0 : layout.stride[from++];
    return seen;
  });
}

Result<Tensor> squeeze(const Operand& x, int axis) noexcept {
  return view_of("squeeze", x, [&](const Layout& layout) -> Result<Layout> {
    auto at = normal_axis(axis, layout.shape.rank(), "squeeze");
    if (!at) return fail(at.error());
    if (layout.shape[*at] != 1)
      return fail(Errc::invalid_size, "squeeze", "only an extent of 1 can go", layout.shape.dims());
    Layout seen{.shape = layout.shape.without(*at), .offset = layout.offset};
    for (int d = 0, to = 0; d < layout.shape.rank(); ++d) {
      if (d != *at) seen.stride[to++] = layout.stride[d];
    }
    return seen;
  });
}

Result<Tensor> detach(const Operand& x) noexcept {
  if (!x.ok()) return fail(x.error());
  if (auto ok = x->check("detach"); !ok) return fail(ok.error());
  return x->with_slot(0);
}

}  // namespace ops
}  // namespace qorus
