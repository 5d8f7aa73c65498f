// Bodies of qorus.ops:pooling.
module;
#include "kernels/kernels.h"
module qorus.ops;
import qorus.std;
import :rules;
import :loops;
import :window;

namespace qorus {
namespace {

using kernels::Pool;
using kernels::PoolAxis;

struct PoolSaved {
  GradRef x;
  const float *input, *output;  // null for averages
  Pool pool;
  std::size_t planes;
};

enum class Kind : std::uint8_t { max, index, avg };

// Where an axis' windows begin and end, and what an average divides by.
struct Ranges {
  std::int32_t *begin, *end, *count;
};
void fill(const WindowAxis& a, bool with_pads, const Ranges& to) noexcept {
  for (std::int64_t i = 0; i < a.out; ++i) {
    const std::int64_t start = i * a.stride - a.before, stop = start + a.reach();
    const std::int64_t skipped = start < 0 ? (-start + a.dilation - 1) / a.dilation : 0;
    const std::int64_t first = start + skipped * a.dilation, last = std::min(stop, a.in);
    to.begin[i] = static_cast<std::int32_t>(first);
    to.end[i] = static_cast<std::int32_t>(std::max(last, first));
    const std::int64_t end = with_pads ? std::min(stop, a.in + a.after) : last, from = with_pads ? start : first;
    to.count[i] = static_cast<std::int32_t>(std::max<std::int64_t>((end - from + a.dilation - 1) / a.dilation, 1));
  }
}
void fill_evenly(const WindowAxis& a, const Ranges& to) noexcept {
  for (std::int64_t i = 0; i < a.out; ++i) {
    to.begin[i] = static_cast<std::int32_t>(i * a.in / a.out);
    to.end[i] = static_cast<std::int32_t>(((i + 1) * a.in + a.out - 1) / a.out);
    to.count[i] = to.end[i] - to.begin[i];
  }
}

// The kernels' form of the windows, with its tables in the frame.
Result<Pool> pool_of(const Windows& windows, bool evenly, bool with_pads, Context& context) noexcept {
  Pool pool;
  for (std::size_t d = 0; d < 3; ++d) {
    const WindowAxis& a = windows[d];
    auto table = Fresh::make(context, Shape{3, a.out}, DType::i32);
    if (!table) return fail(table.error());
    const Ranges ranges{table->i32(), table->i32() + a.out, table->i32() + 2 * a.out};
    if (!context.planning) evenly ? fill_evenly(a, ranges) : fill(a, with_pads, ranges);
    PoolAxis& to = pool.axis[d];
    to = {.in = static_cast<std::size_t>(a.in),
          .out = static_cast<std::size_t>(a.out),
          .step = evenly ? 1 : static_cast<std::size_t>(a.dilation),
          .begin = ranges.begin,
          .end = ranges.end,
          .count = ranges.count};
    to.pairs = !context.planning && to.step == 1;
    for (std::int64_t i = 0; i < a.out && to.pairs; ++i)
      to.pairs = ranges.begin[i] == 2 * i && ranges.end[i] == 2 * i + 2 && ranges.count[i] == 2;
  }
  return pool;
}

Result<Tensor> run(const Operand& operand, Kind kind, const Windows& windows, bool evenly, bool with_pads,
                   Context& context, const char* op) noexcept {
  auto x = ops::contiguous(operand);
  if (!x) return x;
  auto shape = window_result(op, x->shape(), x->dim(1), windows);
  if (!shape) return fail(shape.error());
  auto pool = pool_of(windows, evenly, with_pads, context);
  if (!pool) return fail(pool.error());
  auto y = Fresh::make(context, *shape);
  if (!y) return fail(y.error());
  auto index = Fresh::make(context, kind == Kind::index ? *shape : Shape{0}, DType::i32);
  if (!index) return fail(index.error());
  const auto in = static_cast<std::size_t>(windows[0].in * windows[1].in * windows[2].in);
  const auto out = static_cast<std::size_t>(windows[0].out * windows[1].out * windows[2].out);
  const auto planes = static_cast<std::size_t>(x->dim(0) * x->dim(1));
  const kernels::Table& table = kernels::active();
  parallel_chunks(context, out ? planes : 0, row_grain(in), [&](std::size_t begin, std::size_t end) {
    const float* from = x->f32() + begin * in;
    float* to = y->f32() + begin * out;
    std::int32_t* at = kind == Kind::index ? index->i32() + begin * out : nullptr;
    kind == Kind::avg ? table.avg_pool(*pool, from, to, end - begin) : table.max_pool(*pool, from, to, at, end - begin);
  });
  if (kind == Kind::index) return std::move(*index).freeze();
  const bool max = kind == Kind::max;
  const PoolSaved saved{x->grad_ref(), max ? x->f32() : nullptr, max ? y->f32() : nullptr, *pool, planes};
  return std::move(*y).freeze(rule(max ? RuleId::max_pool : RuleId::avg_pool), {&*x}, saved);
}

Result<Tensor> run_windows(const char* op, const Operand& x, Kind kind, const PerAxis& kernel,
                           const ops::PoolOptions& o) noexcept {
  auto context = float_context(op, {&x});
  if (!context) return fail(context.error());
  auto windows = windows_of(op, x->shape(),
                            {.kernel = kernel,
                             .stride = o.stride.fits(1) && o.stride[0] == 0 ? kernel : o.stride,
                             .dilation = o.dilation,
                             .padding = o.padding,
                             .ceil = o.ceil});
  if (!windows) return fail(windows.error());
  for (const WindowAxis& a : *windows) {
    if (a.in + a.before + a.after >= std::int64_t{1} << 31)
      return fail(Errc::invalid_size, op, "an axis is too long", x->shape().dims());
    // A window all of padding has no largest element; an average over nothing counts as 0.
    const bool begins = a.before <= (a.kernel - 1) * a.dilation, ends = (a.out - 1) * a.stride - a.before < a.in;
    if (kind != Kind::avg && a.out > 0 && (a.in == 0 || !begins || !ends))
      return fail(Errc::invalid_argument, op, "a window would hold nothing but padding", x->shape().dims());
  }
  return run(x, kind, *windows, false, o.count_include_pad, **context, op);
}

Result<Tensor> run_adaptive(const char* op, const Operand& x, Kind kind, const PerAxis& out) noexcept {
  auto context = float_context(op, {&x});
  if (!context) return fail(context.error());
  auto windows = windows_of(op, x->shape(), {.kernel = 1, .stride = 1, .dilation = 1, .padding = 0, .ceil = false});
  if (!windows) return fail(windows.error());
  const int axes = x->rank() - 2;
  if (!out.fits(axes)) return fail(Errc::invalid_argument, op, "one extent for all axes, or one for each");
  for (int d = 0; d < axes; ++d) {
    WindowAxis& a = (*windows)[static_cast<std::size_t>(3 - axes) + static_cast<std::size_t>(d)];
    a.out = out[d];
    if (a.out < 1 || a.out >= std::int64_t{1} << 31 || a.in >= std::int64_t{1} << 31)
      return fail(Errc::invalid_size, op, "needs at least one place on each axis, before and after", x->shape().dims());
  }
  return run(x, kind, *windows, true, false, **context, op);
}

template <class Run>
void pool_rule(const PoolSaved& s, Grads& grads, const Run& run) noexcept {
  const Into dx = grads.into(s.x);
  if (!dx) return;
  const PoolAxis* a = s.pool.axis;
  const std::size_t in = a[0].in * a[1].in * a[2].in, out = a[0].out * a[1].out * a[2].out;
  parallel_chunks(grads.context(), s.planes, row_grain(in), [&](std::size_t begin, std::size_t end) {
    run(begin * in, grads.out() + begin * out, dx.data + begin * in, begin * out, end - begin, dx.accumulate);
  });
}

}  // namespace

void rules::max_pool(const void* saved, Grads& grads) noexcept {
  const auto& s = *static_cast<const PoolSaved*>(saved);
  pool_rule(s, grads, [&](std::size_t in, const float* dy, float* dx, std::size_t out, std::size_t planes, bool add) {
    kernels::training().max_pool_bwd(s.pool, s.input + in, s.output + out, dy, dx, planes, add);
  });
}

void rules::avg_pool(const void* saved, Grads& grads) noexcept {
  const auto& s = *static_cast<const PoolSaved*>(saved);
  pool_rule(s, grads, [&](std::size_t, const float* dy, float* dx, std::size_t, std::size_t planes, bool add) {
    kernels::training().avg_pool_bwd(s.pool, dy, dx, planes, add);
  });
}

namespace ops {

Result<Tensor> max_pool(const Operand& x, const PerAxis& kernel, const PoolOptions& options) noexcept {
  return run_windows("max_pool", x, Kind::max, kernel, options);
}
Result<Tensor> max_pool_indices(const Operand& x, const PerAxis& kernel, const PoolOptions& options) noexcept {
  return run_windows("max_pool_indices", x, Kind::index, kernel, options);
}
Result<Tensor> avg_pool(const Operand& x, const PerAxis& kernel, const PoolOptions& options) noexcept {
  return run_windows("avg_pool", x, Kind::avg, kernel, options);
}
Result<Tensor> adaptive_avg_pool(const Operand& x, const PerAxis& out) noexcept {
  return run_adaptive("adaptive_avg_pool", x, Kind::avg, out);
}
Result<Tensor> adaptive_max_pool(const Operand& x, const PerAxis& out) noexcept {
  return run_adaptive("adaptive_max_pool", x, Kind::max, out);
}

}  // namespace ops
}  // namespace qorus
