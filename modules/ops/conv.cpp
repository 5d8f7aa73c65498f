// Bodies of qorus.ops:conv. A convolution's geometry serves all of its products: forward, the input's gradient (which is also a
// transposed convolution's forward), the weights' gradient.
module;
#include "kernels/kernels.h"
module qorus.ops;
import qorus.std;
import :rules;
import :loops;
import :window;
import :product;

namespace qorus {
namespace {

using kernels::Conv;
using kernels::ConvAxis;
using kernels::GemmPlan;

// As of the convolution that goes from `ins` to `outs` channels (of each group), whichever way it is run.
struct Geometry {
  std::size_t images = 0, groups = 1, ins = 0, outs = 0;
  Windows axis;

  [[nodiscard]] std::ptrdiff_t taps() const noexcept { return axis[0].kernel * axis[1].kernel * axis[2].kernel; }
  [[nodiscard]] std::int64_t in_places() const noexcept { return axis[0].in * axis[1].in * axis[2].in; }
  [[nodiscard]] std::int64_t out_places() const noexcept { return axis[0].out * axis[1].out * axis[2].out; }
};

std::array<std::ptrdiff_t, 3> row_major(std::int64_t extent1, std::int64_t extent2) noexcept {
  return {extent1 * extent2, extent2, 1};
}

// A phase of work as the kernels plan it: scratch from the arena, given back at the end. packed: what the first phase would write.
template <class Task>
Status run_phases(Context& context, const GemmPlan& plan, Task&& task, const float* packed = nullptr) noexcept {
  const std::size_t mark = context.scratch->mark(), shared = packed ? 0 : align_up(plan.shared_bytes),
                    each = align_up(plan.worker_bytes);
  auto scratch = context.scratch->take(shared + each * static_cast<std::size_t>(context.executor.width));
  if (!scratch) return fail(scratch.error());
  std::byte* own = scratch->data + shared;
  void* common = packed ? const_cast<float*>(packed) : static_cast<void*>(scratch->data);  // then only read
  for (std::uint32_t phase = packed ? 1 : 0; phase < plan.phases; ++phase) {
    parallel(context, plan.tasks[phase], [&](std::uint32_t index, int worker) {
      task(phase, index, common, own + each * static_cast<std::size_t>(worker));
    });
  }
  context.scratch->shrink_to(mark);
  return {};
}

Status run_conv(Context& context, const Conv& conv, const float* packed = nullptr) noexcept {
  const kernels::Table& table = kernels::active();
  const GemmPlan plan = table.conv_plan(conv);
  return run_phases(
      context, plan,
      [&](std::uint32_t phase, std::uint32_t index, void* shared, void* worker) {
        table.conv_task(conv, plan, phase, index, shared, worker);
      },
      plan.weights_first ? packed : nullptr);
}

// The axes of the forward product: windows over x, one result after the other.
Conv forward_conv(const Geometry& g) noexcept {
  Conv conv{.images = g.images, .groups = g.groups, .ins = g.ins, .outs = g.outs};
  const auto w = row_major(g.axis[1].kernel, g.axis[2].kernel), y = row_major(g.axis[1].out, g.axis[2].out);
  bool pointwise = true;  // single taps that stand still: the places are one axis
  for (std::size_t d = 0; d < 3; ++d) {
    const WindowAxis& a = g.axis[d];
    conv.axis[d] = {.in = static_cast<std::size_t>(a.in),
                    .out = static_cast<std::size_t>(a.out),
                    .taps = static_cast<std::size_t>(a.kernel),
                    .step = static_cast<std::size_t>(a.stride),
                    .first = -a.before,
                    .tap_step = a.dilation,
                    .w_tap = w[d],
                    .y_step = y[d]};
    pointwise = pointwise && a.kernel == 1 && a.stride == 1 && a.before == 0 && a.after == 0 && a.in == a.out;
  }
  if (pointwise) {
    const auto places = static_cast<std::size_t>(g.in_places());
    conv.axis[0] = conv.axis[1] = ConvAxis{};
    conv.axis[2].in = conv.axis[2].out = places;
  }
  conv.w_out = static_cast<std::ptrdiff_t>(g.ins) * g.taps();
  conv.w_group = static_cast<std::ptrdiff_t>(g.outs) * conv.w_out;
  conv.w_in = g.taps();
  conv.y_channel = g.out_places();
  conv.y_image = static_cast<std::ptrdiff_t>(g.groups * g.outs) * conv.y_channel;
  return conv;
}

struct Ends {  // what a product may add on its way out
  const float* bias = nullptr;
  bool relu = false, accumulate = false;
  const float* packed = nullptr;  // the weights as pack_conv lays them out
};

// y = the windows of x.
Status run_forward(Context& context, const Geometry& g, const float* x, const float* w, const Ends& ends,
                   float* y) noexcept {
  Conv conv = forward_conv(g);
  conv.x = x;
  conv.w = w;
  conv.bias = ends.bias;
  conv.relu = ends.relu;
  conv.accumulate = ends.accumulate;
  conv.y = y;
  return run_conv(context, conv, ends.packed);
}

// The least convolution of one group that reads such weights: what its first phase writes is their packed form.
Conv packing_conv(const Shape& weight) noexcept {
  if (weight.rank() != 4 || weight[2] != 3 || weight[3] != 3) return {};
  const WindowAxis axis{.in = 6, .out = 4, .kernel = 3};
  return forward_conv({.images = 1,
                       .ins = static_cast<std::size_t>(weight[1]),
                       .outs = static_cast<std::size_t>(weight[0]),
                       .axis = {WindowAxis{}, axis, axis}});
}

// Every stride-th place of x along an axis, from `phase` on: which taps put something there, and from where in y.
struct PhaseAxis {
  ConvAxis axis;
  std::ptrdiff_t w_first = 0, x_first = 0;
};
PhaseAxis phase_axis(const WindowAxis& a, std::int64_t phase, std::ptrdiff_t w_tap, std::ptrdiff_t x_step) noexcept {
  PhaseAxis p;
  p.x_first = phase * x_step;
  p.axis.in = static_cast<std::size_t>(a.out);
  p.axis.out = static_cast<std::size_t>((a.in - phase + a.stride - 1) / a.stride);
  p.axis.y_step = a.stride * x_step;
  const std::int64_t every = a.stride / std::gcd(a.stride, a.dilation);
  std::int64_t first = 0;
  while (first < std::min(every, a.kernel) && (phase + a.before - first * a.dilation) % a.stride != 0) ++first;
  if (first >= std::min(every, a.kernel)) {
    p.axis.taps = 0;
    return p;
  }
  p.axis.taps = static_cast<std::size_t>((a.kernel - first + every - 1) / every);
  p.axis.first = (phase + a.before - first * a.dilation) / a.stride;
  p.axis.tap_step = -(every * a.dilation / a.stride);
  p.axis.w_tap = every * w_tap;
  p.w_first = first * w_tap;
  return p;
}

// x = every window of y put back where it came from: for each phase of the strides a convolution of y.
Status run_backward(Context& context, const Geometry& g, const float* y, const float* w, const Ends& ends,
                    float* x) noexcept {
  const auto w_step = row_major(g.axis[1].kernel, g.axis[2].kernel), x_step = row_major(g.axis[1].in, g.axis[2].in);
  const auto phases = [&](std::size_t d) { return std::min(g.axis[d].stride, g.axis[d].in); };
  const std::int64_t all = phases(0) * phases(1) * phases(2);
  for (std::int64_t i = 0; i < all; ++i) {
    const std::int64_t at[3] = {i / phases(2) / phases(1), i / phases(2) % phases(1), i % phases(2)};
    Conv conv{.images = g.images, .groups = g.groups, .ins = g.outs, .outs = g.ins, .x = y, .w = w, .y = x};
    bool empty = false;
    for (std::size_t d = 0; d < 3; ++d) {
      const PhaseAxis p = phase_axis(g.axis[d], at[d], w_step[d], x_step[d]);
      conv.axis[d] = p.axis;
      if (w) conv.w += p.w_first;  // null in a run over shapes only
      conv.y += p.x_first;
      empty = empty || p.axis.taps == 0;
    }
    if (empty) {  // sums of nothing
      conv.ins = 0;
      for (ConvAxis& axis : conv.axis) axis.taps = 1, axis.first = 0;
    }
    conv.w_in = static_cast<std::ptrdiff_t>(g.ins) * g.taps();
    conv.w_group = static_cast<std::ptrdiff_t>(g.outs) * conv.w_in;
    conv.w_out = g.taps();
    conv.y_channel = g.in_places();
    conv.y_image = static_cast<std::ptrdiff_t>(g.groups * g.ins) * conv.y_channel;
    conv.bias = ends.bias;
    conv.relu = ends.relu;
    conv.accumulate = ends.accumulate;
    if (auto done = run_conv(context, conv); !done) return done;
  }
  return {};
}

// dw from x and dL/dy.
Status run_weights(Context& context, const Geometry& g, const float* x, const float* dy, const Into& dw) noexcept {
  Conv conv = forward_conv(g);
  conv.x = x;
  conv.y = const_cast<float*>(dy);
  conv.accumulate = dw.accumulate;
  const kernels::Training& table = kernels::training();
  const GemmPlan plan = table.conv_weight_plan(conv);
  return run_phases(context, plan, [&](std::uint32_t phase, std::uint32_t index, void* shared, void* worker) {
    table.conv_weight_task(conv, dw.data, plan, phase, index, shared, worker);
  });
}

struct ConvSaved {
  GradRef x, weight, bias;
  const float *input, *weights, *output;
  Geometry geometry;
  bool relu;
};

Status check_bias(const char* op, const Tensor& bias, std::int64_t out, const Tensor& weight) noexcept {
  if (bias.shape() != Shape{out})
    return fail(Errc::invalid_size, op, "bias: one for each output channel", bias.shape().dims(),
                weight.shape().dims());
  return {};
}

// Contiguous operands in one workspace.
struct Operands {
  Tensor x, weight, bias;
  bool has_bias = false;
};
Result<Operands> dense_operands(const Operand& x, const Operand& weight, const Operand* bias,
                                Context& context) noexcept {
  auto in = ops::contiguous(placed(x, context));
  if (!in) return fail(in.error());
  auto w = ops::contiguous(placed(weight, context));
  if (!w) return fail(w.error());
  Operands result{.x = *in, .weight = *w, .has_bias = bias != nullptr};
  if (!bias) return result;
  auto b = ops::contiguous(placed(*bias, context));
  if (!b) return fail(b.error());
  result.bias = *b;
  return result;
}

ConvSaved saved_of(const Operands& in, const Geometry& geometry, const float* y, bool relu) noexcept {
  return {in.x.grad_ref(),
          in.weight.grad_ref(),
          in.has_bias ? in.bias.grad_ref() : GradRef{},
          in.x.f32(),
          in.weight.f32(),
          y,
          geometry,
          relu};
}

Result<Tensor> run(const Operand& x, const Operand& weight, const Operand* bias, const ops::ConvOptions& o) noexcept {
  constexpr const char* op = "conv";
  auto context = bias ? float_context(op, {&x, &weight, bias}) : float_context(op, {&x, &weight});
  if (!context) return fail(context.error());
  const Shape &in = x->shape(), &w = weight->shape();
  if (w.rank() != in.rank() || w.rank() < 3 || o.groups < 1 || w[1] * o.groups != in[1] || w[0] % o.groups != 0) {
    return fail(Errc::invalid_size, op, "x: [batch, in, …] and weight: [out, in / groups, taps…] must agree", in.dims(),
                w.dims());
  }
  auto windows = windows_of(op, in,
                            {.kernel = PerAxis(w.extents().subspan(2)),
                             .stride = o.stride,
                             .dilation = o.dilation,
                             .padding = o.padding,
                             .ceil = false});
  if (!windows) return fail(windows.error());
  if (bias) {
    if (auto ok = check_bias(op, **bias, w[0], *weight); !ok) return fail(ok.error());
  }
  auto shape = window_result(op, in, w[0], *windows);
  if (auto fits = padded_fits(op, in, *windows); !fits) shape = fail(fits.error());
  if (!shape) return fail(shape.error());
  auto operands = dense_operands(x, weight, bias, **context);
  if (!operands) return fail(operands.error());
  auto y = Fresh::make(**context, *shape);
  if (!y) return fail(y.error());
  const Geometry geometry{static_cast<std::size_t>(in[0]), static_cast<std::size_t>(o.groups),
                          static_cast<std::size_t>(w[1]), static_cast<std::size_t>(w[0] / o.groups), *windows};
  const bool relu = o.activation == Activation::relu;
  const auto packed = packed_of(op, **context, o.packed, *weight);
  if (!packed) return fail(packed.error());
  const Ends ends{
      .bias = bias ? operands->bias.f32() : nullptr, .relu = relu, .packed = o.groups == 1 ? *packed : nullptr};
  if (auto done = run_forward(**context, geometry, operands->x.f32(), operands->weight.f32(), ends, y->f32()); !done)
    return fail(done.error());
  const ConvSaved saved = saved_of(*operands, geometry, y->f32(), relu);
  return ops::activate(
      std::move(*y).freeze(rule(RuleId::conv), {&operands->x, &operands->weight, &operands->bias}, saved),
      relu ? Activation::none : o.activation);
}

// The windows of the convolution whose input is the result: what is `in` for the transposed one is its `out`.
Result<Windows> transposed_windows(const Shape& x, const Shape& w, const ops::ConvTransposeOptions& o) noexcept {
  constexpr const char* op = "conv_transpose";
  const int axes = x.rank() - 2;
  if (!o.output_padding.fits(axes))
    return fail(Errc::invalid_argument, op, "one number for all axes, or one for each", x.dims());
  Pads pads = o.padding;
  pads.kind = Pads::Kind::given;
  // Checks all but sizes and padding, which are another way round.
  auto windows = windows_of(op, x,
                            {.kernel = PerAxis(w.extents().subspan(2)),
                             .stride = o.stride,
                             .dilation = o.dilation,
                             .padding = Pads::same(),
                             .ceil = false});
  if (!windows) return windows;
  for (int d = 0; d < axes; ++d) {
    const int axis = 3 - axes + d;
    WindowAxis& a = (*windows)[static_cast<std::size_t>(axis)];
    const std::int64_t more = o.output_padding[d];
    a.out = x[2 + d];
    a.before = pads.before[d];
    a.after = pads.after[d];
    if (more < 0 || more >= std::max(a.stride, a.dilation) || a.before < 0 || a.after < 0 || a.before >= 1 << 30 ||
        a.after >= 1 << 30) {
      return fail(Errc::invalid_argument, op, "padding is at least 0, output_padding below stride or dilation",
                  x.dims());
    }
    const std::int64_t whole = (a.out - 1) * a.stride + a.reach() + more;
    if (o.padding.kind != Pads::Kind::given) {
      const std::int64_t cut = whole - a.out * a.stride;
      a.before = std::max<std::int64_t>(o.padding.kind == Pads::Kind::same ? cut / 2 : cut - cut / 2, 0);
      a.after = cut - a.before;
    }
    a.in = whole - a.before - a.after;
    if (a.out == 0 || a.in < 1)
      return fail(Errc::invalid_size, op, "the result would have no places", x.dims(), w.dims());
  }
  return windows;
}

Result<Tensor> run_transposed(const Operand& x, const Operand& weight, const Operand* bias,
                              const ops::ConvTransposeOptions& o) noexcept {
  constexpr const char* op = "conv_transpose";
  auto context = bias ? float_context(op, {&x, &weight, bias}) : float_context(op, {&x, &weight});
  if (!context) return fail(context.error());
  const Shape &in = x->shape(), &w = weight->shape();
  if (w.rank() != in.rank() || w.rank() < 3 || w.rank() > 5 || o.groups < 1 || w[0] != in[1] || in[1] % o.groups != 0) {
    return fail(Errc::invalid_size, op, "x: [batch, in, …] and weight: [in, out / groups, taps…] must agree", in.dims(),
                w.dims());
  }
  auto windows = transposed_windows(in, w, o);
  if (!windows) return fail(windows.error());
  const std::int64_t out = w[1] * o.groups;
  if (bias) {
    if (auto ok = check_bias(op, **bias, out, *weight); !ok) return fail(ok.error());
  }
  Windows result = *windows;
  for (WindowAxis& a : result) a.out = a.in;
  auto shape = window_result(op, in, out, result);
  if (shape) shape = padded_fits(op, *shape, *windows);
  if (!shape) return fail(shape.error());
  auto operands = dense_operands(x, weight, bias, **context);
  if (!operands) return fail(operands.error());
  auto y = Fresh::make(**context, *shape);
  if (!y) return fail(y.error());
  const Geometry geometry{static_cast<std::size_t>(in[0]), static_cast<std::size_t>(o.groups),
                          static_cast<std::size_t>(w[1]), static_cast<std::size_t>(w[0] / o.groups), *windows};
  const Ends ends{.bias = bias ? operands->bias.f32() : nullptr};
  if (auto done = run_backward(**context, geometry, operands->x.f32(), operands->weight.f32(), ends, y->f32()); !done)
    return fail(done.error());
  const ConvSaved saved = saved_of(*operands, geometry, y->f32(), false);
  return std::move(*y).freeze(rule(RuleId::conv_transpose), {&operands->x, &operands->weight, &operands->bias}, saved);
}

void add_bias_gradient(const ConvSaved& s, Grads& grads, std::size_t channels, std::int64_t places) noexcept {
  const Into db = grads.into(s.bias);
  if (!db) return;
  const auto c = static_cast<std::int64_t>(channels);
  sum_to(grads, grads.out(), Shape{static_cast<std::int64_t>(s.geometry.images), c, places}, Shape{c, 1}, db);
}

}  // namespace

std::size_t packed_conv_size(const Shape& weight) noexcept {
  const GemmPlan plan = kernels::active().conv_plan(packing_conv(weight));
  return plan.weights_first ? plan.shared_bytes / sizeof(float) : 0;
}

void pack_conv(const Tensor& weight, float* packed) noexcept {
  Conv conv = packing_conv(weight.shape());
  conv.w = weight.f32();
  const GemmPlan plan = kernels::active().conv_plan(conv);
  for (std::uint32_t task = 0; plan.weights_first && task < plan.tasks[0]; ++task)
    kernels::active().conv_task(conv, plan, 0, task, packed, nullptr);
}

// dz = dy relu'; dbias = sum over images and places of dz; dweight and dx by their products.
void rules::conv(const void* saved, Grads& grads) noexcept {
  const auto& s = *static_cast<const ConvSaved*>(saved);
  const Geometry& g = s.geometry;
  const std::size_t channels = g.groups * g.outs, n = g.images * channels * static_cast<std::size_t>(g.out_places());
  if (s.relu && !pass_relu(grads, s.output, n)) return;
  add_bias_gradient(s, grads, channels, g.out_places());
  if (const Into dw = grads.into(s.weight)) grads.settle(run_weights(grads.context(), g, s.input, grads.out(), dw));
  if (const Into dx = grads.into(s.x))
    grads.settle(run_backward(grads.context(), g, grads.out(), s.weights, {.accumulate = dx.accumulate}, dx.data));
}

void rules::conv_transpose(const void* saved, Grads& grads) noexcept {
  const auto& s = *static_cast<const ConvSaved*>(saved);
  const Geometry& g = s.geometry;
  add_bias_gradient(s, grads, g.groups * g.ins, g.in_places());
  if (const Into dw = grads.into(s.weight)) grads.settle(run_weights(grads.context(), g, grads.out(), s.input, dw));
  if (const Into dx = grads.into(s.x))
    grads.settle(run_forward(grads.context(), g, grads.out(), s.weights, {.accumulate = dx.accumulate}, dx.data));
}

namespace ops {

Result<Tensor> conv(const Operand& x, const Operand& weight, const Operand& bias, const ConvOptions& options) noexcept {
  return run(x, weight, &bias, options);
}
Result<Tensor> conv(const Operand& x, const Operand& weight, const ConvOptions& options) noexcept {
  return run(x, weight, nullptr, options);
}
Result<Tensor> conv_transpose(const Operand& x, const Operand& weight, const Operand& bias,
                              const ConvTransposeOptions& options) noexcept {
  return run_transposed(x, weight, &bias, options);
}
Result<Tensor> conv_transpose(const Operand& x, const Operand& weight, const ConvTransposeOptions& options) noexcept {
  return run_transposed(x, weight, nullptr, options);
}

}  // namespace ops
}  // namespace qorus
