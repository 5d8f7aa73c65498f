// The definition of a convolution and of its weights' gradient: one output at a time, the sum in the order of channels and taps
// (gradient: of images and places), in double.
#include <cstddef>
#include <cstdint>

#include "kernels/parts.h"

namespace qorus::kernels {
namespace {

std::size_t places(const Conv& c) { return c.axis[0].out * c.axis[1].out * c.axis[2].out; }
std::size_t taps(const Conv& c) { return c.axis[0].taps * c.axis[1].taps * c.axis[2].taps; }

// The three indices of place (or tap) i of the given extents.
struct Index {
  std::size_t at[3];
};
Index index(std::size_t i, std::size_t extent1, std::size_t extent2) {
  return {{i / extent2 / extent1, i / extent2 % extent1, i % extent2}};
}

// The element of x that output place p meets at tap t, or null outside x.
const float* met(const Conv& c, const float* plane, const Index& p, const Index& t) {
  std::size_t at = 0;
  for (int d = 0; d < 3; ++d) {
    const ConvAxis& a = c.axis[d];
    const auto q = std::ptrdiff_t(p.at[d] * a.step) + a.first + std::ptrdiff_t(t.at[d]) * a.tap_step;
    if (q < 0 || q >= std::ptrdiff_t(a.in)) return nullptr;
    at = at * a.in + std::size_t(q);
  }
  return plane + at;
}
std::ptrdiff_t weight_at(const Conv& c, std::size_t g, std::size_t o, std::size_t i, const Index& t) {
  std::ptrdiff_t at = std::ptrdiff_t(g) * c.w_group + std::ptrdiff_t(o) * c.w_out + std::ptrdiff_t(i) * c.w_in;
  for (int d = 0; d < 3; ++d) at += std::ptrdiff_t(t.at[d]) * c.axis[d].w_tap;
  return at;
}
std::ptrdiff_t output_at(const Conv& c, std::size_t n, std::size_t channel, const Index& p) {
  std::ptrdiff_t at = std::ptrdiff_t(n) * c.y_image + std::ptrdiff_t(channel) * c.y_channel;
  for (int d = 0; d < 3; ++d) at += std::ptrdiff_t(p.at[d]) * c.axis[d].y_step;
  return at;
}
const float* plane_of(const Conv& c, std::size_t n, std::size_t g, std::size_t i) {
  return c.x + ((n * c.groups + g) * c.ins + i) * c.axis[0].in * c.axis[1].in * c.axis[2].in;
}

GemmPlan plan(const Conv& c) noexcept {
  GemmPlan p;
  p.phases = 1;
  p.tasks[0] = std::uint32_t(c.images * c.groups);
  return p;
}

void task(const Conv& c, const GemmPlan&, std::uint32_t, std::uint32_t index_of_task, void*, void*) noexcept {
  const std::size_t n = index_of_task / c.groups, g = index_of_task % c.groups;
  for (std::size_t o = 0; o < c.outs; ++o)
    for (std::size_t place = 0; place < places(c); ++place) {
      const Index p = index(place, c.axis[1].out, c.axis[2].out);
      double sum = c.bias ? c.bias[g * c.outs + o] : 0;
      for (std::size_t i = 0; i < c.ins; ++i)
        for (std::size_t tap = 0; tap < taps(c); ++tap) {
          const Index t = index(tap, c.axis[1].taps, c.axis[2].taps);
          if (const float* x = met(c, plane_of(c, n, g, i), p, t)) sum += double(c.w[weight_at(c, g, o, i, t)]) * *x;
        }
      float& y = c.y[output_at(c, n, g * c.outs + o, p)];
      if (c.accumulate) sum += y;
      y = float(c.relu && sum < 0 ? 0 : sum);
    }
}

GemmPlan weight_plan(const Conv& c) noexcept {
  GemmPlan p;
  p.phases = 1;
  p.tasks[0] = std::uint32_t(c.groups * c.outs);
  return p;
}

void weight_task(const Conv& c, float* dw, const GemmPlan&, std::uint32_t, std::uint32_t index_of_task, void*,
                 void*) noexcept {
  const std::size_t g = index_of_task / c.outs, o = index_of_task % c.outs;
  for (std::size_t i = 0; i < c.ins; ++i)
    for (std::size_t tap = 0; tap < taps(c); ++tap) {
      const Index t = index(tap, c.axis[1].taps, c.axis[2].taps);
      double sum = 0;
      for (std::size_t n = 0; n < c.images; ++n)
        for (std::size_t place = 0; place < places(c); ++place) {
          const Index p = index(place, c.axis[1].out, c.axis[2].out);
          if (const float* x = met(c, plane_of(c, n, g, i), p, t))
            sum += double(c.y[output_at(c, n, g * c.outs + o, p)]) * *x;
        }
      float& out = dw[weight_at(c, g, o, i, t)];
      out = float(c.accumulate ? out + sum : sum);
    }
}

}  // namespace

extern constinit const ConvPart conv_scalar{plan, task};
extern constinit const ConvTraining conv_training_scalar{weight_plan, weight_task};

}  // namespace qorus::kernels
