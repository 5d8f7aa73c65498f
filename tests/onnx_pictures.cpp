// ONNX' operators of pictures: convolutions, pools, and what is made of them; the same on whole numbers with scales.
module;
#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <initializer_list>
#include <map>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "tests/onnx_case.h"
module qorus.test.onnx;

namespace qorus_test {

using qorus::DType;
using qorus::Operand;
using qorus::Pads;
using qorus::PerAxis;
using qorus::Result;
using qorus::Tensor;
namespace ops = qorus::ops;

namespace {

using R = Result<Tensor>;
using Numbers = std::vector<std::int64_t>;

R shaped(const Operand& x, const Numbers& dims) { return ops::reshape(x, std::span<const std::int64_t>(dims)); }
PerAxis per_axis(const Numbers& list) { return PerAxis(std::span<const std::int64_t>(list)); }

// A list attribute, or so many of a number.
Numbers listed(Call& call, const std::string& name, std::size_t count, std::int64_t otherwise) {
  Numbers list = call.c.integers(name);
  return list.empty() ? Numbers(count, otherwise) : list;
}

// The window that the attributes describe, over the axes of input `x` after the first two.
struct Window {
  Numbers kernel, stride, dilation, before, after;
  std::string auto_pad;
  bool ceil = false;

  [[nodiscard]] Pads pads() const {
    if (auto_pad == "SAME_UPPER") return Pads::same();
    if (auto_pad == "SAME_LOWER") return Pads::same_lower();
    return Pads(per_axis(before), per_axis(after));
  }
};
Window window_of(Call& call, const Numbers& kernel) {
  const std::size_t axes = kernel.size();
  const Numbers pads = listed(call, "pads", 2 * axes, 0);
  return {kernel,
          listed(call, "strides", axes, 1),
          listed(call, "dilations", axes, 1),
          Numbers(pads.begin(), pads.begin() + static_cast<std::ptrdiff_t>(axes)),
          Numbers(pads.begin() + static_cast<std::ptrdiff_t>(axes), pads.end()),
          call.c.text("auto_pad", "NOTSET"),
          call.c.integer("ceil_mode", 0) != 0};
}
Numbers taps(Call& call, std::size_t weight) { return {call.dims(weight).begin() + 2, call.dims(weight).end()}; }

R convolve(Call& call, const Operand& x, const Operand& w, std::size_t weight) {
  const Window window = window_of(call, taps(call, weight));
  return ops::conv(x, w,
                   {.stride = per_axis(window.stride),
                    .padding = window.pads(),
                    .dilation = per_axis(window.dilation),
                    .groups = call.c.integer("group", 1)});
}

// [channels] as [1, channels, 1, …], to go with x; a single number as it is.
R along_channels(const Operand& values, int rank) {
  if (!values.ok() || values->numel() == 1) return ops::reshape(values, {1});
  Numbers dims(static_cast<std::size_t>(rank), 1);
  dims[1] = -1;
  return shaped(values, dims);
}

Outputs conv(Call& call) {
  auto y = convolve(call, call.in(0), call.in(1), 1);
  return {call.c.has_input(2) ? ops::add(y, along_channels(call.in(2), call.rank(0))) : y};
}

Outputs conv_transpose(Call& call) {
  const Window window = window_of(call, taps(call, 1));
  const std::size_t axes = window.kernel.size();
  Numbers more = listed(call, "output_padding", axes, 0);
  Pads pads = window.pads();
  if (const Numbers wanted = call.c.integers("output_shape"); !wanted.empty()) {
    Numbers before(axes), after(axes);
    for (std::size_t d = 0; d < axes; ++d) {
      const std::int64_t in = call.dims(0)[2 + d], reach = (window.kernel[d] - 1) * window.dilation[d] + 1;
      const std::int64_t all = window.stride[d] * (in - 1) + more[d] + reach - wanted[wanted.size() - axes + d];
      const std::int64_t cut = std::max<std::int64_t>(all, 0);
      more[d] += cut - all;
      before[d] = window.auto_pad == "SAME_UPPER" ? cut / 2 : cut - cut / 2;
      after[d] = cut - before[d];
    }
    pads = Pads(per_axis(before), per_axis(after));
  }
  const ops::ConvTransposeOptions options{.stride = per_axis(window.stride),
                                          .padding = pads,
                                          .dilation = per_axis(window.dilation),
                                          .output_padding = per_axis(more),
                                          .groups = call.c.integer("group", 1)};
  return {call.c.has_input(2) ? ops::conv_transpose(call.in(0), call.in(1), call.in(2), options)
                              : ops::conv_transpose(call.in(0), call.in(1), options)};
}

ops::PoolOptions pool_options(Call& call, const Window& window, bool count_pads) {
  return {.stride = per_axis(window.stride),
          .padding = window.pads(),
          .dilation = per_axis(window.dilation),
          .ceil = window.ceil,
          .count_include_pad = call.c.integer("count_include_pad", count_pads ? 1 : 0) != 0};
}

Outputs average_pool(Call& call) {
  const Window window = window_of(call, call.c.integers("kernel_shape"));
  return {ops::avg_pool(call.in(0), per_axis(window.kernel), pool_options(call, window, false))};
}

// Indices count through the whole tensor; within a plane by columns if storage_order says so.
Outputs max_pool(Call& call) {
  const Window window = window_of(call, call.c.integers("kernel_shape"));
  const ops::PoolOptions options = pool_options(call, window, false);
  auto x = call.in(0);
  auto y = ops::max_pool(x, per_axis(window.kernel), options);
  auto index = ops::max_pool_indices(x, per_axis(window.kernel), options);
  if (!index) return {y, index};
  const auto places = *index->to_vector<std::int32_t>();
  std::vector<double> at(places.begin(), places.end());
  std::int64_t in = 1, out = 1;
  for (int d = 2; d < x->rank(); ++d) in *= x->dim(d), out *= index->dim(d);
  const bool by_columns = call.c.integer("storage_order", 0) != 0 && x->rank() == 4;
  for (std::size_t i = 0; i < at.size(); ++i) {
    const std::int64_t place = places[i], width = x->dim(-1);
    const std::int64_t within = by_columns ? place % width * x->dim(2) + place / width : place;
    at[i] = static_cast<double>(static_cast<std::int64_t>(i) / out * in + within);
  }
  const Numbers dims(index->shape().extents().begin(), index->shape().extents().end());
  return {y, call.make(dims, at, DType::i32)};
}

// Sums over windows: a convolution of each channel alone with ones. A window that goes beyond the end meets zeros there.
R window_sums(Call& call, const Operand& x, const Window& window) {
  if (!x.ok()) return x.error().code == qorus::Errc::ok ? R(Tensor()) : R(qorus::fail(x.error()));
  Window w = window;
  const std::int64_t channels = x->dim(1);
  for (std::size_t d = 0; d < w.kernel.size() && w.ceil; ++d) {
    const std::int64_t reach = (w.kernel[d] - 1) * w.dilation[d] + 1, in = x->dim(static_cast<int>(2 + d));
    const std::int64_t rest = (in + w.before[d] + w.after[d] - reach) % w.stride[d];
    if (rest) w.after[d] += w.stride[d] - rest;
  }
  Numbers dims = {channels, 1};
  dims.insert(dims.end(), w.kernel.begin(), w.kernel.end());
  std::size_t count = 1;
  for (const std::int64_t d : dims) count *= static_cast<std::size_t>(d);
  return ops::conv(
      x, call.make(dims, std::vector<double>(count, 1)),
      {.stride = per_axis(w.stride), .padding = w.pads(), .dilation = per_axis(w.dilation), .groups = channels});
}

Outputs lp_pool(Call& call) {
  const auto p = static_cast<float>(call.c.number("p", 2));
  auto power = ops::pow(ops::abs(call.in(0)), p);
  return {ops::pow(window_sums(call, power, window_of(call, call.c.integers("kernel_shape"))), 1 / p)};
}
Outputs global_lp_pool(Call& call) {
  const auto p = static_cast<float>(call.c.number("p", 2));
  Numbers axes;
  for (int d = 2; d < call.rank(0); ++d) axes.push_back(d);
  std::vector<int> list(axes.begin(), axes.end());
  return {ops::pow(ops::sum(ops::pow(ops::abs(call.in(0)), p), ops::Axes(std::span<const int>(list)), true), 1 / p)};
}

Outputs lrn(Call& call) {
  const std::int64_t size = call.c.integer("size", 1);
  auto x = call.in(0);
  if (!x) return {x};
  auto square = ops::reshape(ops::square(x), {x->dim(0), 1, x->dim(1), -1});
  auto sums =
      window_sums(call, square, {{size, 1}, {1, 1}, {1, 1}, {(size - 1) / 2, 0}, {size / 2, 0}, "NOTSET", false});
  const auto alpha = static_cast<float>(call.c.number("alpha", 1e-4) / static_cast<double>(size));
  auto scale = ops::add(ops::mul(shaped(sums, call.dims(0)), alpha), static_cast<float>(call.c.number("bias", 1)));
  return {ops::div(x, ops::pow(scale, static_cast<float>(call.c.number("beta", 0.75))))};
}

// --- norms of channels by the fused operations ---

Outputs batch_normalization(Call& call) {
  const auto eps = static_cast<float>(call.c.number("epsilon", 1e-5));
  auto x = call.in(0);
  if (!call.c.integer("training_mode", 0))
    return {ops::batch_norm(x, call.in(1), call.in(2), call.in(3), call.in(4), {.eps = eps, .frozen = true})};
  std::vector<int> list = {0};
  for (int d = 2; d < call.rank(0); ++d) list.push_back(d);
  const ops::Axes axes{std::span<const int>(list)};
  const auto momentum = static_cast<float>(call.c.number("momentum", 0.9));
  auto mean = ops::mean(x, axes), var = ops::variance(x, axes);
  const auto blend = [&](const R& running, const R& batch) {
    return ops::mul(running, momentum) + ops::mul(batch, 1 - momentum);
  };
  return {ops::batch_norm(x, call.in(1), call.in(2), mean, var, {.eps = eps, .frozen = true}), blend(call.in(3), mean),
          blend(call.in(4), var)};
}
Outputs instance_normalization(Call& call) {
  auto x = call.in(0);
  if (!x) return {x};
  return {ops::group_norm(x, call.in(1), call.in(2),
                          {.groups = x->dim(1), .eps = static_cast<float>(call.c.number("epsilon", 1e-5))})};
}

// --- whole numbers with scales and zero points ---

// Rounded and kept within an integer type.
R saturated(const Operand& x, const std::string& type) {
  static const std::map<std::string, std::pair<float, float>> ranges = {
      {"uint8", {0, 255}}, {"int8", {-128, 127}}, {"uint16", {0, 65535}}, {"int16", {-32768, 32767}},
      {"uint4", {0, 15}},  {"int4", {-8, 7}},     {"uint2", {0, 3}},      {"int2", {-2, 1}}};
  const auto range = ranges.find(type);
  if (range == ranges.end()) return qorus::fail(qorus::Errc::unsupported, "onnx", "numbers of this type");
  return ops::clamp(ops::round(x), range->second.first, range->second.second);
}

R zero_or(Call& call, std::size_t i) { return call.c.has_input(i) ? call.in(i) : call.make({1}, {0}); }

// A scale or zero point beside x: one number; one for each index of the axis; or one for each block along it.
R spread(Call& call, const Operand& values, const Tensor& x) {
  if (!values.ok() || values->numel() == 1) return ops::reshape(values, {1});
  auto axis = static_cast<int>(call.c.integer("axis", 1));
  axis += axis < 0 ? x.rank() : 0;
  if (const std::int64_t block = call.c.integer("block_size", 0); block > 0)
    return ops::slice(ops::repeat(values, block, axis), axis, 0, x.dim(axis));
  Numbers dims(static_cast<std::size_t>(x.rank()), 1);
  dims[static_cast<std::size_t>(axis)] = -1;
  return shaped(values, dims);
}

Outputs quantize(Call& call) {
  auto x = call.in(0);
  if (!x) return {x};
  auto scaled = ops::round(ops::div(x, spread(call, call.in(1), *x)));
  if (call.c.has_input(2)) scaled = ops::add(scaled, spread(call, call.in(2), *x));
  return {saturated(scaled, call.c.outputs[0].dtype)};
}
Outputs dequantize(Call& call) {
  auto x = call.in(0);
  if (!x) return {x};
  auto centred = call.c.has_input(2) ? ops::sub(x, spread(call, call.in(2), *x)) : x;
  return {ops::mul(centred, spread(call, call.in(1), *x))};
}
Outputs dynamic_quantize(Call& call) {
  auto x = ops::flatten(call.in(0));
  auto high = ops::maximum(ops::max(x, 0, true), 0.0f), low = ops::minimum(ops::min(x, 0, true), 0.0f);
  auto scale = ops::div(ops::sub(high, low), 255.0f);
  auto zero = saturated(ops::neg(ops::div(low, scale)), "uint8");
  auto y = saturated(ops::add(ops::round(ops::div(call.in(0), scale)), zero), "uint8");
  return {y, ops::reshape(scale, std::initializer_list<std::int64_t>{}),
          ops::reshape(zero, std::initializer_list<std::int64_t>{})};
}

// Sums of whole numbers below 2^24 are exact.
Outputs conv_integer(Call& call) {
  auto w = ops::sub(call.in(1), [&] {
    auto zero = zero_or(call, 3);
    Numbers dims(static_cast<std::size_t>(call.rank(1)), 1);
    dims[0] = -1;
    return shaped(zero, dims);
  }());
  return {convolve(call, ops::sub(call.in(0), zero_or(call, 2)), w, 1)};
}
Outputs qlinear_conv(Call& call) {
  const auto by_output = [&](const R& t) {
    if (!t || t->numel() == 1) return ops::reshape(t, {1});
    Numbers dims(static_cast<std::size_t>(call.rank(3)), 1);
    dims[0] = -1;
    return shaped(t, dims);
  };
  auto w = ops::sub(call.in(3), by_output(call.in(5)));
  auto y = convolve(call, ops::sub(call.in(0), call.in(2)), w, 3);
  if (call.c.has_input(8)) y = ops::add(y, along_channels(call.in(8), call.rank(0)));
  auto scale = ops::div(ops::mul(call.in(1), along_channels(call.in(4), call.rank(0))), call.in(6));
  return {saturated(ops::add(ops::round(ops::mul(y, scale)), call.in(7)), call.c.outputs[0].dtype)};
}
Outputs matmul_integer(Call& call) {
  auto a_zero = zero_or(call, 2);
  if (a_zero && a_zero->numel() > 1) a_zero = ops::reshape(a_zero, {-1, 1});
  return {ops::matmul(ops::sub(call.in(0), a_zero), ops::sub(call.in(1), zero_or(call, 3)))};
}
Outputs qlinear_matmul(Call& call) {
  auto y = ops::matmul(ops::sub(call.in(0), call.in(2)), ops::sub(call.in(3), call.in(5)));
  auto scale = ops::div(ops::mul(call.in(1), call.in(4)), call.in(6));
  return {saturated(ops::add(ops::round(ops::mul(y, scale)), call.in(7)), call.c.outputs[0].dtype)};
}

}  // namespace

void add_pictures(OnnxTable& table) {
  table["Conv"] = conv;
  table["ConvTranspose"] = conv_transpose;
  table["AveragePool"] = average_pool;
  table["MaxPool"] = max_pool;
  table["LpPool"] = lp_pool;
  table["GlobalLpPool"] = global_lp_pool;
  table["LRN"] = lrn;
  table["BatchNormalization"] = batch_normalization;
  table["InstanceNormalization"] = instance_normalization;
  table["QuantizeLinear"] = quantize;
  table["DequantizeLinear"] = dequantize;
  table["DynamicQuantizeLinear"] = dynamic_quantize;
  table["ConvInteger"] = conv_integer;
  table["QLinearConv"] = qlinear_conv;
  table["MatMulInteger"] = matmul_integer;
  table["QLinearMatMul"] = qlinear_matmul;
}

}  // namespace qorus_test
