// Convolutions, their weights' gradient, pools and maps of channels: vector code against the definition, over sizes about the
// vectors' lengths, with guard zones around what is read and written.
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <random>
#include <vector>

#include "tests/kernels_common.h"

using namespace qorus::kernels;
using namespace qorus_test;

namespace {

void fill(float* x, std::size_t n, unsigned seed) {
  std::mt19937 random(seed);
  for (std::size_t i = 0; i < n; ++i) x[i] = float(random() % 2001) / 1000 - 1;
}

// A phase after the other, tasks in reverse: their order must not matter.
template <class Task>
void run_plan(const GemmPlan& plan, Task task) {
  Guarded<float> shared(plan.shared_bytes / 4 + 1), worker(plan.worker_bytes / 4 + 1);
  std::memset(static_cast<void*>(worker.data()), 0x7f, plan.worker_bytes);  // what an earlier task may have left
  for (std::uint32_t phase = 0; phase < plan.phases; ++phase)
    for (std::uint32_t i = plan.tasks[phase]; i-- > 0;) task(phase, i, shared.data(), worker.data());
}

struct Shape {
  std::size_t images, groups, ins, outs;
  ConvAxis axis[3];
  bool bias = false, relu = false, accumulate = false;
};
ConvAxis along(std::size_t in, std::size_t taps, std::size_t step, std::ptrdiff_t pad, std::ptrdiff_t dilation) {
  const auto room = std::ptrdiff_t(in) + 2 * pad - std::ptrdiff_t(taps - 1) * dilation - 1;
  return {
      .in = in, .out = std::size_t(room) / step + 1, .taps = taps, .step = step, .first = -pad, .tap_step = dilation};
}
// Three taps backwards, as in the input's gradient.
ConvAxis turned(std::size_t in, std::ptrdiff_t pad) {
  ConvAxis axis = along(in, 3, 1, pad, 1);
  axis.first = 2 - pad;
  axis.tap_step = -1;
  return axis;
}
const std::vector<Shape>& shapes() {
  static const std::vector<Shape> all = [] {
    std::vector<Shape> s = {
        {2, 1, 17, 15, {{}, along(5, 3, 1, 1, 1), along(16, 3, 1, 1, 1)}, true, true, false},
        {1, 1, 16, 16, {{}, along(6, 3, 1, 1, 1), along(32, 3, 1, 1, 1)}, false, false, true},
        {2, 1, 32, 33, {{}, along(7, 3, 2, 1, 1), along(9, 3, 2, 1, 1)}, true, false, false},
        {1, 2, 3, 5, {{}, along(9, 2, 2, 0, 2), along(37, 5, 3, 2, 2)}, false, true, true},
        {2, 19, 1, 1, {{}, along(8, 3, 1, 1, 1), along(8, 3, 1, 1, 1)}, true, false, false},
        {1, 1, 4, 6, {along(4, 2, 1, 1, 1), along(5, 3, 2, 0, 1), along(6, 2, 1, 0, 2)}, false, false, false},
        {3, 1, 40, 20, {{}, {}, along(48, 1, 1, 0, 1)}, true, true, false},
        {1, 1, 65, 3, {{}, along(4, 3, 1, 0, 1), along(15, 3, 1, 0, 1)}, false, false, false},
    };
    for (const std::size_t width : {4, 5, 7, 8, 9, 12, 14, 15, 16, 19, 31, 33, 40}) {  // 3 x 3 taps of many channels
      s.push_back({2, 1, 16, 13, {{}, along(width / 2 + 3, 3, 1, 1, 1), along(width, 3, 1, 1, 1)}, true, true, false});
      s.push_back({1, 2, 35, 9, {{}, turned(5, 1), turned(width, 2)}, false, false, true});
    }
    s.push_back({1, 1, 64, 64, {{}, along(8, 3, 1, 1, 1), along(8, 3, 1, 1, 1)}, false, false, false});
    for (std::size_t width = 1; width <= 35; ++width)
      s.push_back({1, 1, 2, 3, {{}, along(2, 2, 1, 1, 1), along(width, 3, 1, 1, 1)}, false, false, false});
    return s;
  }();
  return all;
}

// The same convolution over dense arrays.
struct Arrays {
  std::size_t x, w, y, channels;
  Conv conv;
};
Arrays arrays(const Shape& s) {
  Conv c{
      .images = s.images, .groups = s.groups, .ins = s.ins, .outs = s.outs, .relu = s.relu, .accumulate = s.accumulate};
  std::size_t in = 1, out = 1, taps = 1;
  for (int d = 2; d >= 0; --d) {
    c.axis[d] = s.axis[d];
    c.axis[d].w_tap = std::ptrdiff_t(taps);
    c.axis[d].y_step = std::ptrdiff_t(out);
    in *= s.axis[d].in, out *= s.axis[d].out, taps *= s.axis[d].taps;
  }
  c.w_in = std::ptrdiff_t(taps);
  c.w_out = std::ptrdiff_t(s.ins * taps);
  c.w_group = std::ptrdiff_t(s.outs * s.ins * taps);
  c.y_channel = std::ptrdiff_t(out);
  c.y_image = std::ptrdiff_t(s.groups * s.outs * out);
  return {s.images * s.groups * s.ins * in, s.groups * s.outs * s.ins * taps, s.images * s.groups * s.outs * out,
          s.groups * s.outs, c};
}

TEST(ConvKernels, ForwardAgreesWithTheDefinition) {
  for (const Shape& s : shapes()) {
    const Arrays a = arrays(s);
    Guarded<float> x(a.x, 1), w(a.w, 3), bias(a.channels, 1);
    fill(x.data(), a.x, 1), fill(w.data(), a.w, 2), fill(bias.data(), a.channels, 3);
    std::vector<float> expected;
    for (const Table* table : tables()) {
      Guarded<float> y(a.y, 1);
      fill(y.data(), a.y, 4);
      Conv c = a.conv;
      c.x = x.data(), c.w = w.data(), c.y = y.data(), c.bias = s.bias ? bias.data() : nullptr;
      const GemmPlan plan = table->conv_plan(c);
      run_plan(plan, [&](std::uint32_t phase, std::uint32_t i, void* shared, void* worker) {
        table->conv_task(c, plan, phase, i, shared, worker);
      });
      if (expected.empty()) expected.assign(y.data(), y.data() + a.y);
      const std::size_t k = s.ins * std::size_t(c.w_in);
      for (std::size_t i = 0; i < a.y; ++i)
        ASSERT_NEAR(y.data()[i], expected[i], gemm_error(k + 2, double(k) + 2))
            << table->isa << " " << i << " of " << s.ins << " x " << s.axis[2].in;
    }
  }
}

TEST(ConvKernels, WeightGradientAgreesWithTheDefinition) {
  for (const Shape& s : shapes()) {
    const Arrays a = arrays(s);
    Guarded<float> x(a.x, 1), dy(a.y, 1);
    fill(x.data(), a.x, 1), fill(dy.data(), a.y, 2);
    std::vector<float> expected;
    for (const Table* table : tables()) {
      Guarded<float> dw(a.w, 1);
      fill(dw.data(), a.w, 4);
      Conv c = a.conv;
      c.x = x.data(), c.y = dy.data();
      const Training& training = qorus::kernels::training(*table);
      const GemmPlan plan = training.conv_weight_plan(c);
      run_plan(plan, [&](std::uint32_t phase, std::uint32_t i, void* shared, void* worker) {
        training.conv_weight_task(c, dw.data(), plan, phase, i, shared, worker);
      });
      if (expected.empty()) expected.assign(dw.data(), dw.data() + a.w);
      const std::size_t n = s.images * std::size_t(c.y_channel);
      for (std::size_t i = 0; i < a.w; ++i)
        ASSERT_NEAR(dw.data()[i], expected[i], gemm_error(n + 8, double(n) + 2))
            << table->isa << " " << i << " of " << s.ins << " x " << s.axis[2].in;
    }
  }
}

TEST(PoolKernels, AgreeWithTheDefinition) {
  for (std::size_t width : sizes()) {
    for (const int stride : {1, 2}) {
      if (width < 2) continue;
      const std::size_t rows = 5, out_rows = 2, out = (width - 2) / std::size_t(stride) + 1, planes = 2;
      std::vector<std::int32_t> one = {0, 1}, begin(out), end(out), row_begin = {0, 2}, row_end = {2, 5},
                                row_count = {2, 3}, two(out, 2);
      for (std::size_t i = 0; i < out; ++i) begin[i] = int(i) * stride, end[i] = begin[i] + 2;
      Pool pool;
      pool.axis[0] = {.begin = one.data(), .end = one.data() + 1, .count = one.data() + 1};
      pool.axis[1] = {
          .in = rows, .out = out_rows, .begin = row_begin.data(), .end = row_end.data(), .count = row_count.data()};
      pool.axis[2] = {
          .in = width, .out = out, .begin = begin.data(), .end = end.data(), .count = two.data(), .pairs = stride == 2};
      Guarded<float> x(planes * rows * width, 1), dy(planes * out_rows * out, 3);
      fill(x.data(), planes * rows * width, 1), fill(dy.data(), planes * out_rows * out, 2);
      std::vector<float> expected[4];
      for (const Table* table : tables()) {
        const Training& training = qorus::kernels::training(*table);
        Guarded<float> most(planes * out_rows * out, 1), mean(planes * out_rows * out), dx(planes * rows * width, 2),
            dx_mean(planes * rows * width);
        Guarded<std::int32_t> index(planes * out_rows * out);
        table->max_pool(pool, x.data(), most.data(), nullptr, planes);
        table->avg_pool(pool, x.data(), mean.data(), planes);
        training.max_pool_bwd(pool, x.data(), most.data(), dy.data(), dx.data(), planes, true);
        training.max_pool_bwd(pool, x.data(), most.data(), dy.data(), dx.data(), planes, false);
        training.avg_pool_bwd(pool, dy.data(), dx_mean.data(), planes, false);
        const Guarded<float>* got[4] = {&most, &mean, &dx, &dx_mean};
        const std::size_t outs = planes * out_rows * out, ins = planes * rows * width;
        for (int i = 0; i < 4; ++i) {
          const float* values = const_cast<Guarded<float>*>(got[i])->data();
          const std::size_t n = i < 2 ? outs : ins;
          if (expected[i].empty()) expected[i].assign(values, values + n);
          for (std::size_t j = 0; j < n; ++j)
            ASSERT_NEAR(values[j], expected[i][j], 1e-6) << table->isa << " " << i << " " << j << " of " << width;
        }
        table->max_pool(pool, x.data(), mean.data(), index.data(), planes);
        for (std::size_t j = 0; j < outs; ++j)
          ASSERT_EQ(most.data()[j], x.data()[std::size_t(index.data()[j]) + j / (out_rows * out) * rows * width]);
      }
    }
  }
}

TEST(ChannelKernels, AgreeWithTheDefinition) {
  for (const std::size_t n : sizes()) {
    if (n == 0) continue;
    const std::size_t segments = 3, step = n + 5;
    Guarded<float> x(segments * step, 1), dy(segments * step, 2), gate(segments * step, 3);
    fill(x.data(), segments * step, 1), fill(dy.data(), segments * step, 2), fill(gate.data(), segments * step, 3);
    std::vector<double> expected;
    for (const Table* table : tables()) {
      const Training& training = qorus::kernels::training(*table);
      float numbers[6];
      table->moments(x.data(), segments, n, step, numbers, numbers + 1);
      training.affine_sums(x.data(), dy.data(), gate.data(), segments, n, step, 0.25f, numbers + 2, numbers + 3);
      training.affine_sums(x.data(), dy.data(), nullptr, segments, n, step, 0.25f, numbers + 4, numbers + 5);
      std::vector<double> got(numbers, numbers + 6);
      Guarded<float> y(n, 1), dx(n, 1);
      table->affine(x.data(), y.data(), n, 0.5f, 2, -0.25f, n % 2 == 0);
      training.affine_bwd(x.data(), dy.data(), gate.data(), dx.data(), n, 0.5f, 2, -0.5f, 0.125f, false);
      training.affine_bwd(x.data(), dy.data(), nullptr, dx.data(), n, 0.5f, 2, -0.5f, 0.125f, true);
      got.insert(got.end(), y.data(), y.data() + n);
      got.insert(got.end(), dx.data(), dx.data() + n);
      if (expected.empty()) expected = got;
      for (std::size_t i = 0; i < got.size(); ++i)
        ASSERT_NEAR(got[i], expected[i], 1e-5 * (1 + std::fabs(expected[i]))) << table->isa << " " << i << " of " << n;
    }
  }
}

}  // namespace
