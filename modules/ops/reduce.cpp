// Bodies of qorus.ops:reduce.
module;
#include "kernels/kernels.h"
module qorus.ops;
import qorus.std;
import :rules;
import :loops;
import :joint;

namespace qorus {
namespace {

// Which axes are reduced, as a bit each, and the result's shapes.
struct ReducePlan {
  unsigned reduced = 0;
  Shape kept;      // with extents of 1
  Shape squeezed;  // without them
  std::size_t count = 1;
};

Result<ReducePlan> plan_axes(const char* op, const Shape& shape, const ops::Axes& axes) noexcept {
  ReducePlan plan;
  if (axes.count > shape.rank()) return fail(Errc::invalid_argument, op, "more axes than the tensor has", shape.dims());
  for (int i = 0; i < axes.count; ++i) {
    auto axis = normal_axis(axes.axis[i], shape.rank(), op);
    if (!axis) return fail(axis.error());
    if (plan.reduced >> *axis & 1) return fail(Errc::invalid_argument, op, "an axis is named twice", shape.dims());
    plan.reduced |= 1u << *axis;
  }
  if (axes.count == 0) plan.reduced = (1u << shape.rank()) - 1;
  plan.kept = plan.squeezed = shape;
  for (int d = shape.rank() - 1; d >= 0; --d) {
    if (!(plan.reduced >> d & 1)) continue;
    plan.count *= static_cast<std::size_t>(shape[d]);
    plan.kept = plan.kept.with(d, 1);
    plan.squeezed = plan.squeezed.without(d);
  }
  return plan;
}

struct ReduceSaved {
  GradRef x;
  const float* input;
  const float* output;
  Shape shape, kept;
  std::size_t count;
  Reduction reduction;
};

// The reduction from the inside out, one run of neighbouring axes after the other; `from` is dense.
Status reduce_axes(Context& context, Reduction reduction, const float* from, Shape shape, unsigned reduced,
                   float* out) noexcept {
  const std::size_t mark = context.scratch->mark();
  const bool add = reduction == Reduction::sum_abs || reduction == Reduction::sum_square;
  while (reduced) {
    int last = shape.rank() - 1;
    while (!(reduced >> last & 1)) --last;
    int first = last;
    while (first > 0 && reduced >> (first - 1) & 1) --first;
    ReduceSizes sizes;
    for (int d = 0; d < shape.rank(); ++d) {
      std::size_t& part = d < first ? sizes.outer : d <= last ? sizes.reduced : sizes.inner;
      part *= static_cast<std::size_t>(shape[d]);
    }
    for (int d = first; d <= last; ++d) {
      shape = shape.with(d, 1);
      reduced &= ~(1u << d);
    }
    auto scratch =
        context.scratch->take((sizes.outer * sizes.inner * (reduced ? 1 : 0) + reduce_scratch(sizes)) * sizeof(float));
    if (!scratch) return fail(scratch.error());
    auto* place = reinterpret_cast<float*>(scratch->data);
    float* to = reduced ? place + reduce_scratch(sizes) : out;
    reduce_dense(context, reduction, from, to, sizes, place);
    from = to;
    if (add) reduction = Reduction::sum;
  }
  context.scratch->shrink_to(mark);
  return {};
}

Result<Tensor> reduce(Reduction reduction, const char* op, const Operand& operand, const ops::Axes& axes,
                      bool keep) noexcept {
  auto context = float_context(op, {&operand});
  if (!context) return fail(context.error());
  auto plan = plan_axes(op, operand->shape(), axes);
  if (!plan) return fail(plan.error());
  auto x = ops::contiguous(operand);
  if (!x) return x;
  auto y = Fresh::make(**context, keep ? plan->kept : plan->squeezed);
  if (!y) return fail(y.error());
  if (plan->reduced == 0) {  // a scalar: its own sum; sum_abs and sum_square still have their formula
    reduce_dense(**context, reduction, x->f32(), y->f32(), {.outer = x->numel()}, nullptr);
  } else if (auto done = reduce_axes(**context, reduction, x->f32(), x->shape(), plan->reduced, y->f32()); !done) {
    return fail(done.error());
  }
  const ReduceSaved saved{x->grad_ref(), x->f32(), y->f32(), x->shape(), plan->kept, plan->count, reduction};
  const bool extreme = reduction == Reduction::max || reduction == Reduction::min;
  return std::move(*y).freeze(rule(extreme ? RuleId::extreme : RuleId::reduce), {&*x}, saved);
}

Result<Tensor> arg_reduce(bool largest, const char* op, const Operand& operand, int axis, bool keep) noexcept {
  auto context = float_context(op, {&operand});
  if (!context) return fail(context.error());
  auto at = normal_axis(axis, operand->rank(), op);
  if (!at) return fail(at.error());
  if (operand->dim(*at) == 0) return fail(Errc::invalid_size, op, "the axis has no elements", operand->shape().dims());
  auto x = ops::contiguous(operand);
  if (!x) return x;
  ReduceSizes sizes{.reduced = static_cast<std::size_t>(x->dim(*at))};
  for (int d = 0; d < x->rank(); ++d) {
    if (d != *at) (d < *at ? sizes.outer : sizes.inner) *= static_cast<std::size_t>(x->dim(d));
  }
  auto y = Fresh::make(**context, keep ? x->shape().with(*at, 1) : x->shape().without(*at), DType::i32);
  if (!y) return fail(y.error());
  parallel_chunks(
      **context, sizes.outer, row_grain(sizes.reduced * sizes.inner), [&](std::size_t begin, std::size_t end) {
        kernels::active().arg_reduce(largest, x->f32() + begin * sizes.reduced * sizes.inner,
                                     y->i32() + begin * sizes.inner, end - begin, sizes.reduced, sizes.inner);
      });
  return std::move(*y).freeze();
}

// Walks the reduced tensor with its output repeated: f(flat index in x, index in y).
template <class F>
void for_each_pair(const Shape& shape, const Shape& kept, const F& f) noexcept {
  Layout y = Layout::dense(kept);
  std::array<std::int64_t, k_max_rank> index{};
  std::int64_t at = 0;
  for (int d = 0; d < shape.rank(); ++d) {
    if (kept[d] == 1) y.stride[d] = 0;
  }
  for (std::size_t i = 0; i < shape.numel(); ++i) {
    f(i, static_cast<std::size_t>(at));
    for (int d = shape.rank() - 1; d >= 0; --d) {
      at += y.stride[d];
      if (++index[d] < shape[d]) break;
      at -= y.stride[d] * shape[d];
      index[d] = 0;
    }
  }
}

// The largest (or smallest) elements of a group share its gradient equally.
void give_extreme(const ReduceSaved& s, Grads& grads, const Into& dx) noexcept {
  float* ties = grads.temporary(s.kept.numel());
  if (!ties) return;
  parallel(grads.context(), 1, [&](std::uint32_t, int) {
    std::fill_n(ties, s.kept.numel(), 0.0f);
    for_each_pair(s.shape, s.kept, [&](std::size_t i, std::size_t o) { ties[o] += s.input[i] == s.output[o]; });
    for_each_pair(s.shape, s.kept, [&](std::size_t i, std::size_t o) {
      const float g = s.input[i] == s.output[o] ? grads.out()[o] / ties[o] : 0;
      dx.data[i] = dx.accumulate ? dx.data[i] + g : g;
    });
  });
}

// d prod / dx = product of the others, also where x is 0: with one zero in a group only that element has a gradient.
void give_product(const ReduceSaved& s, Grads& grads, const Into& dx) noexcept {
  const std::size_t groups = s.kept.numel();
  float* others = grads.temporary(2 * groups);
  if (!others) return;
  float* zeros = others + groups;
  parallel(grads.context(), 1, [&](std::uint32_t, int) {
    std::fill_n(others, groups, 1.0f);
    std::fill_n(zeros, groups, 0.0f);
    for_each_pair(s.shape, s.kept, [&](std::size_t i, std::size_t o) {
      if (s.input[i] == 0) {
        zeros[o] += 1;
      } else {
        others[o] *= s.input[i];
      }
    });
    for_each_pair(s.shape, s.kept, [&](std::size_t i, std::size_t o) {
      const float x = s.input[i];
      const float rest = zeros[o] == 0 ? others[o] / x : zeros[o] == 1 && x == 0 ? others[o] : 0;
      const float g = grads.out()[o] * rest;
      dx.data[i] = dx.accumulate ? dx.data[i] + g : g;
    });
  });
}

// dx (+)= dy repeated, times a factor that the reduction has for each element.
void give_repeated(const ReduceSaved& s, Grads& grads, const Into& dx) noexcept {
  Layout layout = Layout::dense(s.kept);
  for (int d = 0; d < s.shape.rank(); ++d) {
    if (s.kept[d] == 1) layout.stride[d] = 0;
  }
  layout.shape = s.shape;
  const Joint<1> joint = join<1>({layout});
  const std::size_t inner = joint.inner();
  const float* dy = grads.out();
  if (s.shape.numel() == 0) return;
  parallel_chunks(grads.context(), s.shape.numel() / inner, row_grain(inner), [&](std::size_t begin, std::size_t end) {
    for (std::size_t row = begin; row < end; ++row) {
      const float* g = dy + joint.offsets(row)[0];
      const std::size_t step = joint.step(0);
      float* to = dx.data + row * inner;
      const float* x = s.input + row * inner;
      for (std::size_t i = 0; i < inner; ++i) {
        float value = g[i * step];
        if (s.reduction == Reduction::sum_square) value *= 2 * x[i];
        if (s.reduction == Reduction::sum_abs) value = x[i] == 0 ? 0 : std::copysign(value, value * x[i]);
        to[i] = dx.accumulate ? to[i] + value : value;
      }
    }
  });
}

}  // namespace

void rules::reduce(const void* saved, Grads& grads) noexcept {
  const auto& s = *static_cast<const ReduceSaved*>(saved);
  const Into dx = grads.into(s.x);
  if (!dx) return;
  switch (s.reduction) {
    case Reduction::max:
    case Reduction::min: return give_extreme(s, grads, dx);
    case Reduction::prod: return give_product(s, grads, dx);
    case Reduction::sum:
    case Reduction::sum_abs:
    case Reduction::sum_square: return give_repeated(s, grads, dx);
  }
}

namespace ops {

Axes::Axes(std::span<const int> list) noexcept {
  count = list.size() > k_max_rank ? k_max_rank + 1 : static_cast<int>(list.size());
  for (std::size_t i = 0; i < list.size() && i < k_max_rank; ++i) axis[i] = list[i];
}

Result<Tensor> sum(const Operand& x, const Axes& axes, bool keep) noexcept {
  return reduce(Reduction::sum, "sum", x, axes, keep);
}
Result<Tensor> max(const Operand& x, const Axes& axes, bool keep) noexcept {
  return reduce(Reduction::max, "max", x, axes, keep);
}
Result<Tensor> min(const Operand& x, const Axes& axes, bool keep) noexcept {
  return reduce(Reduction::min, "min", x, axes, keep);
}
Result<Tensor> prod(const Operand& x, const Axes& axes, bool keep) noexcept {
  return reduce(Reduction::prod, "prod", x, axes, keep);
}
Result<Tensor> sum_abs(const Operand& x, const Axes& axes, bool keep) noexcept {
  return reduce(Reduction::sum_abs, "sum_abs", x, axes, keep);
}
Result<Tensor> sum_square(const Operand& x, const Axes& axes, bool keep) noexcept {
  return reduce(Reduction::sum_square, "sum_square", x, axes, keep);
}

Result<Tensor> mean(const Operand& x, const Axes& axes, bool keep) noexcept {
  auto total = reduce(Reduction::sum, "mean", x, axes, keep);
  if (!total) return total;
  const auto count = static_cast<float>(x->numel()) / static_cast<float>(total->numel());
  return div(total, x->numel() ? count : 0.0f);
}

Result<Tensor> variance(const Operand& x, const Axes& axes, int correction, bool keep) noexcept {
  auto centre = mean(x, axes, true);
  auto squares = sum_square(sub(x, centre), axes, keep);
  if (!squares) return squares;
  const auto count = static_cast<float>(x->numel()) / static_cast<float>(std::max<std::size_t>(squares->numel(), 1));
  return mul(squares, 1 / (count - static_cast<float>(correction)));
}

Result<Tensor> argmax(const Operand& x, int axis, bool keep) noexcept {
  return arg_reduce(true, "argmax", x, axis, keep);
}
Result<Tensor> argmin(const Operand& x, int axis, bool keep) noexcept {
  return arg_reduce(false, "argmin", x, axis, keep);
}

}  // namespace ops
}  // namespace qorus
