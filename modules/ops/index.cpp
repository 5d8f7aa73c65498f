// Bodies of qorus.ops:index.
module;
#include "kernels/kernels.h"
module qorus.ops;
import qorus.std;
import :rules;
import :loops;
import :places;

namespace qorus {
namespace {

struct TakeSaved {
  GradRef x;
  TakenRows rows;
};

// An index tensor and a dense tensor that it points into, along one axis.
struct Pointing {
  const std::int32_t* index;
  Shape shape;   // of the index
  Layout other;  // of the tensor that is pointed into
  int axis;
};

// Runs f(position in the index, place pointed at) over the index's rows [first, last): all its extents but the last count as rows.
template <class F>
void for_pointed(const Pointing& p, std::size_t first, std::size_t last, const F& f) noexcept {
  const int rank = p.shape.rank();
  const auto inner = static_cast<std::size_t>(p.shape[-1]), extent = static_cast<std::size_t>(p.other.shape[p.axis]);
  const std::int64_t along = p.other.stride[p.axis], step = p.axis == rank - 1 ? 0 : p.other.stride[rank - 1];
  for (std::size_t row = first; row < last; ++row) {
    std::int64_t base = 0;
    std::size_t rest = row;
    for (int d = rank - 2; d >= 0; --d) {
      const auto size = static_cast<std::size_t>(p.shape[d]);
      if (d != p.axis) base += static_cast<std::int64_t>(rest % size) * p.other.stride[d];
      rest /= size;
    }
    for (std::size_t i = 0; i < inner; ++i) {
      const std::size_t at = row * inner + i;
      const auto pointed = static_cast<std::int64_t>(from_front(p.index[at], extent)) * along;
      f(at, static_cast<std::size_t>(base + static_cast<std::int64_t>(i) * step + pointed));
    }
  }
}

std::size_t pointing_rows(const Pointing& p) noexcept {
  return p.shape.numel() ? p.shape.numel() / static_cast<std::size_t>(p.shape[-1]) : 0;
}

// y[at] (+)= x[pointed at]
void gather_into(const Context& context, const Pointing& p, const float* x, const Into& y) noexcept {
  const std::size_t rows = pointing_rows(p);
  if (rows == 0) return;
  parallel_chunks(context, rows, row_grain(p.shape.numel() / rows), [&](std::size_t first, std::size_t last) {
    for_pointed(p, first, last, [&](std::size_t at, std::size_t place) {
      y.data[at] = y.accumulate ? y.data[at] + x[place] : x[place];
    });
  });
}

// out[pointed at] += x[at]. Places meet along the axis only: indices of the outermost extent are independent unless it is the axis.
void scatter_into(const Context& context, const Pointing& p, const float* x, float* out) noexcept {
  const std::size_t rows = pointing_rows(p);
  if (rows == 0) return;
  const bool apart = p.axis != 0;
  const std::size_t slabs = apart ? static_cast<std::size_t>(p.shape[0]) : 1;
  parallel_chunks(context, slabs, row_grain(p.shape.numel() / slabs), [&](std::size_t first, std::size_t last) {
    for_pointed(p, first * (rows / slabs), last * (rows / slabs),
                [&](std::size_t at, std::size_t place) { out[place] += x[at]; });
  });
}

struct PointSaved {
  GradRef x, source;
  Pointing pointing;
};

// What gather and scatter_add ask of their shapes.
Result<Pointing> pointing_of(const char* op, const Operand& x, const Operand& index, int axis) noexcept {
  auto at = normal_axis(axis, x->rank(), op);
  if (!at) return fail(at.error());
  bool fits = index->rank() == x->rank();
  for (int d = 0; d < x->rank() && fits; ++d) fits = d == *at || index->dim(d) <= x->dim(d);
  if (!fits) {
    return fail(Errc::invalid_size, op, "the index's extents are at most the tensor's, but along the axis",
                x->shape().dims(), index->shape().dims());
  }
  return Pointing{.index = nullptr, .shape = index->shape(), .other = Layout::dense(x->shape()), .axis = *at};
}

void zero(const Context& context, float* data, std::size_t n) noexcept {
  parallel_elements(context, n, [&](std::size_t begin, std::size_t end) {
    std::memset(data + begin, 0, (end - begin) * sizeof(float));
  });
}

}  // namespace

Result<Tensor> checked_index(const char* op, const Operand& index, std::int64_t extent, Context& context) noexcept {
  if (auto ok = index->check(DType::i32, op); !ok) return fail(ok.error());
  auto dense = ops::contiguous(placed(index, context));
  if (!dense || context.planning) return dense;
  bool good = true;
  for (const std::int32_t i : std::span(dense->i32(), dense->numel())) good = good && i >= -extent && i < extent;
  if (!good) {
    return fail(Errc::invalid_argument, op, "an index is out of the second's range", index->shape().dims(),
                Shape{extent}.dims());
  }
  return dense;
}

void take_rows(const Context& context, const TakenRows& rows, std::size_t bytes, const std::byte* x,
               std::byte* y) noexcept {
  parallel_rows(context, rows.outer * rows.count, bytes, [&](std::size_t row, std::size_t begin, std::size_t end) {
    const std::size_t from = row / rows.count * rows.extent + from_front(rows.index[row % rows.count], rows.extent);
    std::memcpy(y + row * bytes + begin, x + from * bytes + begin, end - begin);
  });
}

void add_taken(const Context& context, const TakenRows& s, const float* dy, const Into& dx) noexcept {
  if (s.extent == 0) return;
  const std::size_t wanted = (s.extent * s.inner + k_grain - 1) / k_grain;
  const std::size_t ranges = std::clamp<std::size_t>(wanted, 1, 16), rows = (s.extent + ranges - 1) / ranges;
  const std::size_t used = (s.extent + rows - 1) / rows;
  parallel_chunks(context, s.outer * used, 1, [&](std::size_t piece, std::size_t) {
    const std::size_t o = piece / used, first = piece % used * rows, last = std::min(first + rows, s.extent);
    float* to = dx.data + o * s.extent * s.inner;
    const float* from = dy + o * s.count * s.inner;
    if (!dx.accumulate) std::memset(to + first * s.inner, 0, (last - first) * s.inner * sizeof(float));
    for (std::size_t i = 0; i < s.count; ++i) {
      const std::size_t row = from_front(s.index[i], s.extent);
      if (row >= first && row < last) kernels::active().axpy(1, from + i * s.inner, to + row * s.inner, s.inner);
    }
  });
}

void rules::take(const void* saved, Grads& grads) noexcept {
  const auto& s = *static_cast<const TakeSaved*>(saved);
  if (const Into dx = grads.into(s.x)) add_taken(grads.context(), s.rows, grads.out(), dx);
}

void rules::gather(const void* saved, Grads& grads) noexcept {
  const auto& s = *static_cast<const PointSaved*>(saved);
  const Into dx = grads.into(s.x);
  if (!dx) return;
  if (!dx.accumulate) zero(grads.context(), dx.data, s.x.numel);
  scatter_into(grads.context(), s.pointing, grads.out(), dx.data);
}

void rules::scatter_add(const void* saved, Grads& grads) noexcept {
  const auto& s = *static_cast<const PointSaved*>(saved);
  if (const Into source = grads.into(s.source)) gather_into(grads.context(), s.pointing, grads.out(), source);
  grads.pass(s.x);
}

namespace ops {

Result<Tensor> take(const Operand& x, const Operand& index, int axis, bool transient) noexcept {
  auto context = common_context("take", {&x, &index});
  if (!context) return fail(context.error());
  auto at = normal_axis(axis, x->rank(), "take");
  if (!at) return fail(at.error());
  std::array<std::int64_t, 2 * k_max_rank> extents{};
  std::size_t rank = 0;
  TakenRows rows{nullptr, 1, static_cast<std::size_t>(x->dim(*at)), index->numel(), 1};
  for (int d = 0; d < x->rank(); ++d) {
    if (d != *at) (d < *at ? rows.outer : rows.inner) *= static_cast<std::size_t>(x->dim(d));
    if (d != *at) extents[rank++] = x->dim(d);
    for (int i = 0; d == *at && i < index->rank(); ++i) extents[rank++] = index->dim(i);
  }
  const Shape shape(std::span<const std::int64_t>(extents.data(), rank));
  if (!shape.valid())
    return fail(Errc::invalid_size, "take", "the result would have no valid shape", x->shape().dims(),
                index->shape().dims());
  if (is_block(x->dtype()) && *at + 1 == x->rank())
    return fail(Errc::invalid_dtype, "take", "whole rows of a block format; ops::cast to f32", x->shape().dims());
  auto places = checked_index("take", index, x->dim(*at), **context);
  if (!places) return places;
  auto dense = contiguous(placed(x, **context));
  if (!dense) return dense;
  auto y = transient && x->dtype() == DType::f32 ? Fresh::make_transient(**context, shape, true)
                                                 : Fresh::make(**context, shape, x->dtype());
  if (!y) return fail(y.error());
  rows.index = places->i32();
  take_rows(**context, rows, row_bytes(x->dtype(), rows.inner), dense->data(), y->data());
  return std::move(*y).freeze(rule(RuleId::take), {&*dense, &*places}, TakeSaved{dense->grad_ref(), rows});
}

Result<Tensor> gather(const Operand& x, const Operand& index, int axis) noexcept {
  auto context = common_context("gather", {&x, &index});
  if (!context) return fail(context.error());
  if (auto ok = x->check(DType::f32, "gather"); !ok) return fail(ok.error());
  auto pointing = pointing_of("gather", x, index, axis);
  if (!pointing) return fail(pointing.error());
  auto places = checked_index("gather", index, x->dim(pointing->axis), **context);
  if (!places) return places;
  auto y = Fresh::make(**context, index->shape());
  if (!y) return fail(y.error());
  pointing->index = places->i32();
  const PointSaved saved{.x = x->grad_ref(), .pointing = *pointing};
  pointing->other = x->layout();
  gather_into(**context, *pointing, x->f32(), {y->f32(), false});
  return std::move(*y).freeze(rule(RuleId::gather), {&*x, &*places}, saved);
}

Result<Tensor> scatter_add(const Operand& x, const Operand& index, const Operand& source, int axis) noexcept {
  auto context = common_context("scatter_add", {&x, &index, &source});
  if (!context) return fail(context.error());
  for (const Operand* operand : {&x, &source}) {
    if (auto ok = (*operand)->check(DType::f32, "scatter_add"); !ok) return fail(ok.error());
  }
  if (index->shape() != source->shape()) {
    return fail(Errc::invalid_size, "scatter_add", "index and source are of one shape", index->shape().dims(),
                source->shape().dims());
  }
  auto pointing = pointing_of("scatter_add", x, index, axis);
  if (!pointing) return fail(pointing.error());
  auto places = checked_index("scatter_add", index, x->dim(pointing->axis), **context);
  if (!places) return places;
  auto added = contiguous(placed(source, **context));
  if (!added) return added;
  auto y = Fresh::make(**context, x->shape());
  if (!y) return fail(y.error());
  copy_dense(**context, *x, y->f32());
  pointing->index = places->i32();
  scatter_into(**context, *pointing, added->f32(), y->f32());
  const PointSaved saved{x->grad_ref(), added->grad_ref(), *pointing};
  return std::move(*y).freeze(rule(RuleId::scatter_add), {&*x, &*places, &*added}, saved);
}

Result<Tensor> one_hot(const Operand& index, std::int64_t classes, float on, float off, int axis) noexcept {
  auto context = common_context("one_hot", {&index});
  if (!context) return fail(context.error());
  auto at = normal_axis(axis, index->rank() + 1, "one_hot");
  if (!at) return fail(at.error());
  if (classes < 0)
    return fail(Errc::invalid_argument, "one_hot", "the number of classes is a count", index->shape().dims());
  auto places = checked_index("one_hot", index, classes, **context);
  if (!places) return places;
  auto y = Fresh::make(**context, index->shape().inserted(*at, classes));
  if (!y) return fail(y.error());
  std::size_t inner = 1;
  for (int d = *at; d < index->rank(); ++d) inner *= static_cast<std::size_t>(index->dim(d));
  const auto extent = static_cast<std::size_t>(classes);
  const std::size_t outer = inner ? places->numel() / inner : 0;
  parallel_chunks(**context, outer, row_grain(extent * inner), [&](std::size_t first, std::size_t last) {
    std::fill(y->f32() + first * extent * inner, y->f32() + last * extent * inner, off);
    for (std::size_t i = first * inner; i < last * inner; ++i) {
      y->f32()[(i / inner * extent + from_front(places->i32()[i], extent)) * inner + i % inner] = on;
    }
  });
  return std::move(*y).freeze();
}

}  // namespace ops
}  // namespace qorus
