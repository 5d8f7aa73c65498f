// Convolutions, pools, resizing and the norms of channels against their definitions.
#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <limits>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "tests/testing.h"

import qorus.ops;
import qorus.test.ops;

using namespace qorus;
using namespace qorus_test;

namespace {

using Tensors = std::span<const Tensor>;
using Arrays = std::vector<Array>;

// A form of a window, with lists by axis.
struct Form {
  Extents x, weight;  // weight: [out, in / groups, taps…]
  Extents stride, pads_before, pads_after, dilation;
  std::int64_t groups = 1;
  bool bias = true;
  Activation activation = Activation::none;
};
PerAxis per_axis(const Extents& list) { return PerAxis(std::span<const std::int64_t>(list)); }
ops::ConvOptions options(const Form& f) {
  return {.stride = per_axis(f.stride),
          .padding = Pads(per_axis(f.pads_before), per_axis(f.pads_after)),
          .dilation = per_axis(f.dilation),
          .groups = f.groups,
          .activation = f.activation};
}

// One output after the other.
Array convolved(const Form& f, const Arrays& in) {
  const Array &x = in[0], &w = in[1];
  const std::size_t axes = f.x.size() - 2;
  Extents dims = {x.dim(0), w.dim(0)}, taps;
  for (std::size_t d = 0; d < axes; ++d) {
    const std::int64_t reach = (w.dims[2 + d] - 1) * f.dilation[d] + 1;
    dims.push_back((x.dims[2 + d] + f.pads_before[d] + f.pads_after[d] - reach) / f.stride[d] + 1);
    taps.push_back(w.dims[2 + d]);
  }
  const std::int64_t ins = w.dim(1), outs = w.dim(0) / f.groups;
  return build(dims, [&](const Extents& at) {
    double sum = f.bias ? in[2].at({at[1]}) : 0;
    for (std::int64_t i = 0; i < ins; ++i)
      each_index(taps, [&](const Extents& t) {
        Extents from = {at[0], at[1] / outs * ins + i}, weight = {at[1], i};
        bool inside = true;
        for (std::size_t d = 0; d < axes; ++d) {
          const std::int64_t q = at[2 + d] * f.stride[d] + t[d] * f.dilation[d] - f.pads_before[d];
          inside = inside && q >= 0 && q < x.dims[2 + d];
          from.push_back(q);
          weight.push_back(t[d]);
        }
        if (inside) sum += x.at(from) * w.at(weight);
      });
    return f.activation == Activation::relu ? std::max(sum, 0.0) : sum;
  });
}

const std::vector<Form>& forms() {
  static const std::vector<Form> list = {
      {{2, 3, 5, 6}, {4, 3, 3, 3}, {1, 1}, {1, 1}, {1, 1}, {1, 1}},
      {{1, 1, 1, 1}, {1, 1, 1, 1}, {1, 1}, {0, 0}, {0, 0}, {1, 1}},
      {{2, 2, 7, 7}, {3, 2, 2, 3}, {2, 2}, {0, 1}, {1, 0}, {1, 1}, 1, false},
      {{1, 4, 7, 5}, {6, 2, 3, 3}, {2, 1}, {1, 2}, {1, 2}, {1, 2}, 2},
      {{2, 5, 4, 4}, {5, 1, 3, 3}, {1, 1}, {1, 1}, {1, 1}, {1, 1}, 5, true, Activation::relu},
      {{1, 2, 11}, {3, 2, 3}, {3}, {2}, {0}, {2}},
      {{1, 2, 4, 3, 5}, {2, 2, 2, 2, 3}, {1, 2, 2}, {1, 0, 1}, {0, 1, 1}, {1, 1, 1}},
      {{2, 3, 5, 5}, {4, 3, 1, 1}, {2, 2}, {0, 0}, {0, 0}, {1, 1}},  // places that no tap reaches
      {{0, 3, 5, 5}, {4, 3, 3, 3}, {1, 1}, {1, 1}, {1, 1}, {1, 1}},
      {{1, 1, 2, 33}, {2, 1, 2, 3}, {1, 1}, {0, 1}, {0, 1}, {1, 1}},
  };
  return list;
}

std::vector<Input> inputs(const Form& f) {
  std::vector<Input> list = {{f.x}, {f.weight}};
  if (f.bias) list.push_back({{f.weight[0]}});
  return list;
}

TEST(Conv, EveryForm) {
  for (const Form& f : forms()) {
    if (f.weight.empty()) continue;
    const Case test{
        "conv", inputs(f),
        [&](Tensors t) { return f.bias ? ops::conv(t[0], t[1], t[2], options(f)) : ops::conv(t[0], t[1], options(f)); },
        [&](const Arrays& a) { return convolved(f, a); }};
    EXPECT_EQ("", &f == forms().data() || f.groups > 1 ? check(test) : check_values(test))
        << f.x.back() << " of " << f.weight[0];
  }
}

// The transposed convolution is the one linear map with <conv(x), y> = <x, conv_transpose(y)>: it is defined by scattering.
Array scattered(const Form& f, const Extents& more, const Arrays& in) {
  const Array &x = in[0], &w = in[1];
  const std::size_t axes = f.x.size() - 2;
  const std::int64_t ins = w.dim(0) / f.groups, outs = w.dim(1);
  Extents dims = {x.dim(0), outs * f.groups}, taps;
  for (std::size_t d = 0; d < axes; ++d) {
    dims.push_back((x.dims[2 + d] - 1) * f.stride[d] - f.pads_before[d] - f.pads_after[d] +
                   (w.dims[2 + d] - 1) * f.dilation[d] + 1 + more[d]);
    taps.push_back(w.dims[2 + d]);
  }
  Array y = build(dims, [&](const Extents& at) { return f.bias ? in[2].at({at[1]}) : 0; });
  each_index(x.dims, [&](const Extents& at) {
    for (std::int64_t o = 0; o < outs; ++o)
      each_index(taps, [&](const Extents& t) {
        Extents to = {at[0], at[1] / ins * outs + o}, weight = {at[1], o};
        bool inside = true;
        for (std::size_t d = 0; d < axes; ++d) {
          const std::int64_t q = at[2 + d] * f.stride[d] + t[d] * f.dilation[d] - f.pads_before[d];
          inside = inside && q >= 0 && q < dims[2 + d];
          to.push_back(q);
          weight.push_back(t[d]);
        }
        if (inside) y.at(to) += x.at(at) * w.at(weight);
      });
  });
  return y;
}

TEST(Conv, Transposed) {
  const Extents none = {0, 0}, one = {1, 1};
  const std::pair<Form, Extents> list[] = {
      {{{2, 3, 4, 3}, {3, 4, 3, 3}, one, none, none, one}, none},
      {{{1, 2, 3, 5}, {2, 3, 3, 2}, {2, 3}, one, {0, 1}, one}, {1, 2}},
      {{{2, 4, 3, 3}, {4, 2, 2, 3}, {2, 1}, one, one, {1, 2}, 2, false}, none},
      {{{1, 2, 5}, {2, 3, 4}, {2}, {1}, {1}, {1}}, {0}},
      {{{0, 2, 5}, {2, 3, 4}, {2}, {1}, {1}, {1}}, {0}},
      {{{1, 1, 2, 2}, {1, 1, 1, 1}, {3, 3}, none, none, one}, {2, 1}},  // gaps
      {{{1, 2, 3, 4}, {2, 3, 1, 1}, one, none, none, {2, 3}}, {1, 2}},  // single taps, and more places after
  };
  for (const auto& [f, more] : list) {
    std::vector<Input> in = {{f.x}, {f.weight}};
    if (f.bias) in.push_back({{f.weight[1] * f.groups}});
    const ops::ConvTransposeOptions o{.stride = per_axis(f.stride),
                                      .padding = Pads(per_axis(f.pads_before), per_axis(f.pads_after)),
                                      .dilation = per_axis(f.dilation),
                                      .output_padding = per_axis(more),
                                      .groups = f.groups};
    const auto run = [&](Tensors t) {
      return f.bias ? ops::conv_transpose(t[0], t[1], t[2], o) : ops::conv_transpose(t[0], t[1], o);
    };
    EXPECT_EQ("", check({"conv_transpose", in, run, [&](const Arrays& a) { return scattered(f, more, a); }}));
  }
}

// Shapes that reach the kernels' other paths: rows read where they stand, packed tiles, bands, depths, many channels.
TEST(Conv, LargeOnesDoNotDependOnWorkers) {
  const std::pair<Extents, Extents> list[] = {{{2, 16, 32, 32}, {16, 16, 3, 3}},
                                              {{3, 64, 8, 8}, {64, 64, 3, 3}},
                                              {{1, 48, 8, 8}, {40, 48, 3, 3}},
                                              {{1, 17, 14, 14}, {31, 17, 3, 3}},
                                              {{2, 3, 40, 40}, {16, 3, 7, 7}}};
  for (const auto& [x, w] : list)
    for (const std::int64_t stride : {1, 2}) {
      const ops::ConvOptions o{.stride = stride, .padding = 1};
      EXPECT_EQ("", check_bits({"conv", {{x}, {w}}, [&](Tensors t) { return ops::conv(t[0], t[1], o); }, {}}));
      Form f{x, w, {stride, stride}, {1, 1}, {1, 1}, {1, 1}, 1, false};
      EXPECT_EQ("", check_values({"conv", inputs(f), [&](Tensors t) { return ops::conv(t[0], t[1], o); },
                                  [&](const Arrays& a) { return convolved(f, a); }, false, false, 4}));
    }
}

TEST(Conv, Errors) {
  Workspace& ws = workspace(1);
  auto frame = ws.frame();
  const auto x = Owned::zeros({1, 4, 5, 5}), w = Owned::zeros({6, 4, 3, 3}), flat = Owned::zeros({4, 5}),
             b = Owned::zeros({5});
  const auto in = frame.input(*x), weight = frame.input(*w), matrix = frame.input(*flat), bias = frame.input(*b);
  EXPECT_FAILS_SAYING(ops::conv(in, weight, {.groups = 2}), "[1,4,5,5] and [6,4,3,3]");
  EXPECT_FAILS(ops::conv(matrix, weight), Errc::invalid_size);
  EXPECT_FAILS_SAYING(ops::conv(in, weight, bias), "[5] and [6,4,3,3]");
  EXPECT_FAILS(ops::conv(in, weight, {.stride = 0}), Errc::invalid_argument);
  EXPECT_FAILS(ops::conv(in, weight, {.padding = -1}), Errc::invalid_argument);
  EXPECT_FAILS(ops::conv(in, weight, {.dilation = 3}), Errc::invalid_size);
  EXPECT_FAILS(ops::conv(in, weight, {.dilation = {1, 2, 3}}), Errc::invalid_argument);
  EXPECT_FAILS(ops::conv(in, weight, {.padding = 2000000000}), Errc::invalid_size);
  EXPECT_FAILS(ops::conv_transpose(in, weight), Errc::invalid_size);
  EXPECT_FAILS(ops::max_pool(in, 2, {.padding = 2}), Errc::invalid_argument);
  EXPECT_FAILS(ops::max_pool(matrix, 2), Errc::invalid_size);
  EXPECT_FAILS(ops::avg_pool(in, 6), Errc::invalid_size);
  EXPECT_FAILS(ops::adaptive_avg_pool(in, 0), Errc::invalid_size);
  EXPECT_FAILS(ops::resize(in, {3, 0}), Errc::invalid_size);
  EXPECT_FAILS(ops::group_norm(in, bias, bias), Errc::invalid_size);
}

// The elements of output place i of each axis, by PyTorch's rules.
struct PoolForm {
  Extents x, kernel, stride, pads, dilation;
  bool ceil = false, count_pads = true;
};
Array pooled(const PoolForm& f, bool max, const Array& x) {
  const std::size_t axes = f.x.size() - 2;
  Extents dims = {x.dim(0), x.dim(1)};
  for (std::size_t d = 0; d < axes; ++d) {
    const std::int64_t room = x.dims[2 + d] + 2 * f.pads[d] - (f.kernel[d] - 1) * f.dilation[d] - 1;
    std::int64_t out = (room + (f.ceil ? f.stride[d] - 1 : 0)) / f.stride[d] + 1;
    if (f.ceil && (out - 1) * f.stride[d] >= x.dims[2 + d] + f.pads[d]) --out;
    dims.push_back(out);
  }
  return build(dims, [&](const Extents& at) {
    double sum = 0, best = -std::numeric_limits<double>::infinity();
    std::int64_t inside_count = 0, padded_count = 0;
    each_index(f.kernel, [&](const Extents& t) {
      Extents from = {at[0], at[1]};
      bool inside = true, padded = true;
      for (std::size_t d = 0; d < axes; ++d) {
        const std::int64_t q = at[2 + d] * f.stride[d] + t[d] * f.dilation[d] - f.pads[d];
        inside = inside && q >= 0 && q < x.dims[2 + d];
        padded = padded && q < x.dims[2 + d] + f.pads[d];
        from.push_back(q);
      }
      padded_count += padded;
      inside_count += inside;
      if (inside) sum += x.at(from), best = std::max(best, x.at(from));
    });
    return max ? best : sum / static_cast<double>(f.count_pads ? padded_count : inside_count);
  });
}

TEST(Pool, EveryForm) {
  const PoolForm list[] = {
      {{2, 3, 6, 8}, {2, 2}, {2, 2}, {0, 0}, {1, 1}},
      {{1, 2, 5, 7}, {2, 2}, {2, 2}, {0, 0}, {1, 1}},
      {{1, 2, 5, 37}, {3, 2}, {2, 2}, {1, 0}, {1, 1}},
      {{1, 2, 7, 7}, {3, 3}, {2, 2}, {1, 1}, {1, 1}, true},
      {{1, 2, 7, 6}, {3, 2}, {1, 3}, {1, 1}, {1, 2}, true, false},
      {{2, 1, 9}, {3}, {2}, {1}, {2}},
      {{1, 2, 3, 4, 5}, {2, 2, 3}, {1, 2, 2}, {1, 0, 1}, {1, 1, 1}, false, false},
      {{0, 2, 4}, {2}, {2}, {0}, {1}},
      {{1, 1, 1, 1}, {1, 1}, {1, 1}, {0, 0}, {1, 1}},
  };
  for (const PoolForm& f : list) {
    const ops::PoolOptions o{.stride = per_axis(f.stride),
                             .padding = Pads(per_axis(f.pads), per_axis(f.pads)),
                             .dilation = per_axis(f.dilation),
                             .ceil = f.ceil,
                             .count_include_pad = f.count_pads};
    EXPECT_EQ("", check({"max_pool",
                         {{f.x}},
                         [&](Tensors t) { return ops::max_pool(t[0], per_axis(f.kernel), o); },
                         [&](const Arrays& a) { return pooled(f, true, a[0]); },
                         true,
                         true}));
    EXPECT_EQ("", check({"avg_pool",
                         {{f.x}},
                         [&](Tensors t) { return ops::avg_pool(t[0], per_axis(f.kernel), o); },
                         [&](const Arrays& a) { return pooled(f, false, a[0]); }}));
  }
}

std::vector<float> elements(const Tensor& tensor) { return {tensor.f32(), tensor.f32() + tensor.numel()}; }

// More planes than one piece of work takes: the mean spreads its gradient, the largest has it alone.
TEST(Pool, GradientsOfManyPlanes) {
  const std::int64_t planes = 60, side = 32, half = side / 2;
  const Owned a = random_owned({2, planes / 2, side, side}), d = random_owned({2, planes / 2, half, half});
  const auto x = elements(a), given = elements(d);
  for (const bool mean : {true, false}) {
    auto tape = workspace(1).record();
    auto watched = tape.watch(a);
    auto y = mean ? ops::avg_pool(watched, 2) : ops::max_pool(watched, 2);
    ASSERT_OK(y);
    const auto largest = elements(*y);
    const auto dx = elements(backward_from(*y, d).value().of(*watched).value());
    for (std::size_t i = 0; i < dx.size(); ++i) {
      const std::size_t row = i / side, out = row / 2 * half + i % side / 2;
      ASSERT_EQ(dx[i], mean ? given[out] / 4 : x[i] == largest[out] ? given[out] : 0) << i;
    }
  }
}

TEST(Pool, ATieGoesToTheFirstAndANanGoesThrough) {
  Workspace& ws = workspace(1);
  const float nan = std::numeric_limits<float>::quiet_NaN();
  const std::vector<float> values = {1, 1, 2, 3, 1, 1, 3, 3, 5, nan, 0, 0, 6, 7, 0, 0};
  auto tape = ws.record();
  auto x = tape.watch(Tensor::borrow(std::span<const float>(values), {1, 1, 4, 4}));
  auto y = ops::max_pool(x, 2);
  ASSERT_OK(y);
  const auto out = *y->to_vector();
  EXPECT_EQ(out[0], 1);
  EXPECT_EQ(out[1], 3);
  EXPECT_TRUE(std::isnan(out[2]));
  EXPECT_EQ(out[3], 0);
  EXPECT_EQ(*ops::max_pool_indices(x, 2)->to_vector<std::int32_t>(), (std::vector<std::int32_t>{0, 3, 9, 10}));
  auto grads = ops::sum(y).and_then(backward);
  ASSERT_OK(grads);
  EXPECT_EQ(*grads->of(*x)->to_vector(), (std::vector<float>{1, 0, 0, 1, 0, 0, 0, 0, 0, 1, 1, 0, 0, 0, 0, 0}));
}

TEST(Pool, Adaptive) {
  for (const auto& [dims, out] : {std::pair<Extents, Extents>{{2, 3, 5, 7}, {1, 1}},
                                  {{1, 2, 5, 7}, {3, 4}},
                                  {{1, 2, 2, 3}, {3, 5}},
                                  {{1, 2, 9}, {4}}}) {
    const auto reference = [&](bool max, const Array& x) {
      Extents to = {x.dim(0), x.dim(1)};
      to.insert(to.end(), out.begin(), out.end());
      return build(to, [&](const Extents& at) {
        double sum = 0, best = -1e30;
        int count = 0;
        each_index(Extents(x.dims.begin() + 2, x.dims.end()), [&](const Extents& p) {
          Extents from = {at[0], at[1]};
          for (std::size_t d = 0; d < p.size(); ++d) {
            const std::int64_t n = x.dims[2 + d], i = at[2 + d];
            if (p[d] < i * n / out[d] || p[d] >= ((i + 1) * n + out[d] - 1) / out[d]) return;
            from.push_back(p[d]);
          }
          sum += x.at(from), best = std::max(best, x.at(from)), ++count;
        });
        return max ? best : sum / count;
      });
    };
    EXPECT_EQ("", check({"adaptive_avg_pool",
                         {{dims}},
                         [&](Tensors t) { return ops::adaptive_avg_pool(t[0], per_axis(out)); },
                         [&](const Arrays& a) { return reference(false, a[0]); }}));
    EXPECT_EQ("", check_values({"adaptive_max_pool",
                                {{dims}},
                                [&](Tensors t) { return ops::adaptive_max_pool(t[0], per_axis(out)); },
                                [&](const Arrays& a) { return reference(true, a[0]); },
                                true,
                                true}));
  }
}

TEST(Resize, NearestAndLinear) {
  struct Sizes {
    Extents x, out;
  };
  for (const Sizes& s : {Sizes{{1, 2, 3, 4}, {6, 5}},
                         {{2, 1, 4, 3}, {2, 3}},
                         {{1, 2, 5}, {8}},
                         {{1, 1, 2, 3, 2}, {3, 2, 4}},
                         {{1, 1, 1, 1}, {2, 3}}}) {
    for (const bool corners : {false, true}) {
      const auto linear = [&](const Array& x) {
        Array y = x;
        for (std::size_t d = 0; d < s.out.size(); ++d) {
          const Array from = y;
          Extents dims = from.dims;
          const std::int64_t n = dims[2 + d], m = s.out[d];
          dims[2 + d] = m;
          y = build(dims, [&](const Extents& at) {
            const double i = static_cast<double>(at[2 + d]),
                         scale = corners ? (m > 1 ? double(n - 1) / double(m - 1) : 0) : double(n) / double(m);
            const double place = std::min(std::max(corners ? i * scale : (i + 0.5) * scale - 0.5, 0.0), double(n - 1));
            Extents low = at, high = at;
            low[2 + d] = static_cast<std::int64_t>(place);
            high[2 + d] = std::min(low[2 + d] + 1, n - 1);
            const double part = place - std::floor(place);
            return from.at(low) * (1 - part) + from.at(high) * part;
          });
        }
        return y;
      };
      EXPECT_EQ(
          "", check({"linear",
                     {{s.x}},
                     [&](Tensors t) { return ops::resize(t[0], per_axis(s.out), {ops::ResizeMode::linear, corners}); },
                     [&](const Arrays& a) { return linear(a[0]); }}));
    }
    EXPECT_EQ("", check({"nearest",
                         {{s.x}},
                         [&](Tensors t) { return ops::resize(t[0], per_axis(s.out)); },
                         [&](const Arrays& a) {
                           Extents dims = {s.x[0], s.x[1]};
                           dims.insert(dims.end(), s.out.begin(), s.out.end());
                           return build(dims, [&](const Extents& at) {
                             Extents from = at;
                             for (std::size_t d = 2; d < from.size(); ++d) from[d] = at[d] * s.x[d] / dims[d];
                             return a[0].at(from);
                           });
                         }}));
  }
}

// (x - mean) / sqrt(var + eps) w + b where `population(index)` names whose statistics an element shares.
Array normed(const Arrays& in, const std::function<std::int64_t(const Extents&)>& population, double eps, bool relu) {
  const Array& x = in[0];
  std::vector<double> sum(64), square(64), count(64);
  each_index(x.dims, [&](const Extents& at) {
    const auto p = static_cast<std::size_t>(population(at));
    sum[p] += x.at(at), count[p] += 1;
  });
  each_index(x.dims, [&](const Extents& at) {
    const auto p = static_cast<std::size_t>(population(at));
    const double d = x.at(at) - sum[p] / count[p];
    square[p] += d * d;
  });
  return build(x.dims, [&](const Extents& at) {
    const auto p = static_cast<std::size_t>(population(at));
    const double y =
        (x.at(at) - sum[p] / count[p]) / std::sqrt(square[p] / count[p] + eps) * in[1].at({at[1]}) + in[2].at({at[1]});
    return relu ? std::max(y, 0.0) : y;
  });
}

TEST(ChannelNorm, GroupsAndInstances) {
  for (const auto& [dims, groups] : {std::pair<Extents, std::int64_t>{{2, 6, 3, 5}, 3},
                                     {{3, 4, 7}, 1},
                                     {{2, 3, 4, 4}, 3},
                                     {{2, 4}, 2},
                                     {{0, 4, 3}, 2}})
    for (const Activation a : {Activation::none, Activation::relu}) {
      const std::int64_t each = dims[1] / groups;
      const ops::GroupNormOptions o{.groups = groups, .eps = 1e-3f, .activation = a};
      EXPECT_EQ("", check({"group_norm",
                           {{dims}, {{dims[1]}}, {{dims[1]}}},
                           [&](Tensors t) { return ops::group_norm(t[0], t[1], t[2], o); },
                           [&](const Arrays& in) {
                             return normed(
                                 in, [&](const Extents& at) { return at[0] * groups + at[1] / each; },
                                 static_cast<double>(o.eps), a == Activation::relu);
                           },
                           true,
                           true}));
    }
}

TEST(ChannelNorm, BatchesInTrainingAndFrozen) {
  for (const Extents& dims : {Extents{2, 3, 4, 5}, {5, 4}, {2, 2, 17}})
    for (const Activation a : {Activation::none, Activation::relu}) {
      const Extents c = {dims[1]};
      const ops::BatchNormOptions o{.eps = 1e-3f, .frozen = true, .activation = a};
      EXPECT_EQ(
          "",
          check(
              {"batch_norm frozen",
               {{dims}, {c}, {c}, {.dims = c, .constant = true}, {.dims = c, .low = 0.5, .high = 2, .constant = true}},
               [&](Tensors t) { return ops::batch_norm(t[0], t[1], t[2], t[3], t[4], o); },
               [&](const Arrays& in) {
                 Array y = build(dims, [&](const Extents& at) {
                   const Extents k = {at[1]};
                   return (in[0].at(at) - in[3].at(k)) / std::sqrt(in[4].at(k) + static_cast<double>(o.eps)) *
                              in[1].at(k) +
                          in[2].at(k);
                 });
                 return a == Activation::relu ? map(y, [](double v) { return std::max(v, 0.0); }) : y;
               }}));
    }
}

// In training: against the composition of the same tape, with the gradients of all operands; and the order to change the statistics.
TEST(ChannelNorm, BatchesInTraining) {
  Workspace& ws = workspace(2);
  const std::int64_t channels = 5;
  const auto x = random_owned({3, channels, 4, 3}, 1), w = random_owned({channels}, 2), b = random_owned({channels}, 3),
             mean = random_owned({channels}, 4), var = random_owned({channels}, 5, 0.5f, 2);
  for (const bool relu : {false, true}) {
    const auto run = [&](bool fused) {
      auto tape = ws.record();
      auto xs = tape.watch(x), gain = tape.watch(w), shift = tape.watch(b);
      const auto wide = [&](const Operand& t) { return ops::reshape(t, {1, channels, 1, 1}); };
      const ops::Axes axes{0, 2, 3};
      auto y =
          fused ? ops::batch_norm(xs, gain, shift, tape.input(mean), tape.input(var),
                                  {.activation = relu ? Activation::relu : Activation::none})
                : (xs - ops::mean(xs, axes, true)) / ops::sqrt(ops::variance(xs, axes, 0, true) + 1e-5f) * wide(gain) +
                      wide(shift);
      if (relu && !fused) y = ops::relu(y);
      EXPECT_OK(y);
      auto values = *y->to_vector();
      auto grads = ops::sum(ops::square(y) + y * xs).and_then(backward);
      EXPECT_OK(grads);
      for (const auto& leaf : {xs, gain, shift}) {
        const auto g = *grads->of(*leaf)->to_vector();
        values.insert(values.end(), g.begin(), g.end());
      }
      const StateUpdate* first = grads->state_updates();
      EXPECT_EQ(first != nullptr, fused);
      if (first) {
        EXPECT_EQ(first->count, 5u);
        EXPECT_FLOAT_EQ(first->keep, 0.9f);
        EXPECT_FLOAT_EQ(first->next ? first->next->add : first->add, 0.1f);
      }
      return values;
    };
    const auto one = run(true), two = run(false);
    ASSERT_EQ(one.size(), two.size());
    for (std::size_t i = 0; i < one.size(); ++i) ASSERT_NEAR(one[i], two[i], 2e-5 * (1 + std::abs(two[i]))) << i;
  }
  auto frame = ws.record();
  const auto single = random_owned({1, channels}, 1);
  EXPECT_FAILS(
      ops::batch_norm(frame.input(single), frame.input(w), frame.input(b), frame.input(mean), frame.input(var)),
      Errc::invalid_size);
}

}  // namespace
