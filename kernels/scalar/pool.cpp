// The definition of the pools: window by window, in the order of places.
#include <cstddef>
#include <cstdint>

#include "kernels/parts.h"

namespace qorus::kernels {
namespace {

// Calls f(place in the plane) for every place of the window of output (i0, i1, i2).
template <class F>
void window(const Pool& pool, std::size_t i0, std::size_t i1, std::size_t i2, F f) {
  const PoolAxis &a = pool.axis[0], &b = pool.axis[1], &c = pool.axis[2];
  for (auto p0 = std::size_t(a.begin[i0]); p0 < std::size_t(a.end[i0]); p0 += a.step)
    for (auto p1 = std::size_t(b.begin[i1]); p1 < std::size_t(b.end[i1]); p1 += b.step)
      for (auto p2 = std::size_t(c.begin[i2]); p2 < std::size_t(c.end[i2]); p2 += c.step)
        f((p0 * b.in + p1) * c.in + p2);
}
// Calls f(output, i0, i1, i2) for every output of a plane.
template <class F>
void outputs(const Pool& pool, F f) {
  std::size_t out = 0;
  for (std::size_t i0 = 0; i0 < pool.axis[0].out; ++i0)
    for (std::size_t i1 = 0; i1 < pool.axis[1].out; ++i1)
      for (std::size_t i2 = 0; i2 < pool.axis[2].out; ++i2) f(out++, i0, i1, i2);
}
std::size_t inputs_of(const Pool& p) { return p.axis[0].in * p.axis[1].in * p.axis[2].in; }
std::size_t outputs_of(const Pool& p) { return p.axis[0].out * p.axis[1].out * p.axis[2].out; }
double count(const Pool& p, std::size_t i0, std::size_t i1, std::size_t i2) {
  return double(p.axis[0].count[i0]) * p.axis[1].count[i1] * p.axis[2].count[i2];
}

void max_pool(const Pool& pool, const float* x, float* y, std::int32_t* index, std::size_t planes) noexcept {
  const std::size_t in = inputs_of(pool), out = outputs_of(pool);
  for (std::size_t n = 0; n < planes; ++n, x += in, y += out)
    outputs(pool, [&](std::size_t o, std::size_t i0, std::size_t i1, std::size_t i2) {
      bool first = true;
      std::size_t best = 0;
      window(pool, i0, i1, i2, [&](std::size_t at) {
        if (first || x[at] > x[best] || (x[at] != x[at] && x[best] == x[best])) best = at;
        first = false;
      });
      y[o] = x[best];
      if (index) index[n * out + o] = std::int32_t(best);
    });
}

void avg_pool(const Pool& pool, const float* x, float* y, std::size_t planes) noexcept {
  const std::size_t in = inputs_of(pool), out = outputs_of(pool);
  for (std::size_t n = 0; n < planes; ++n, x += in, y += out)
    outputs(pool, [&](std::size_t o, std::size_t i0, std::size_t i1, std::size_t i2) {
      double sum = 0;
      window(pool, i0, i1, i2, [&](std::size_t at) { sum += x[at]; });
      y[o] = float(sum / count(pool, i0, i1, i2));
    });
}

void clear(float* x, std::size_t n, bool accumulate) {
  for (std::size_t i = 0; i < n && !accumulate; ++i) x[i] = 0;
}

void max_pool_bwd(const Pool& pool, const float* x, const float* y, const float* dy, float* dx, std::size_t planes,
                  bool accumulate) noexcept {
  const std::size_t in = inputs_of(pool), out = outputs_of(pool);
  for (std::size_t n = 0; n < planes; ++n, x += in, dx += in, y += out, dy += out) {
    clear(dx, in, accumulate);
    outputs(pool, [&](std::size_t o, std::size_t i0, std::size_t i1, std::size_t i2) {
      bool found = false;
      window(pool, i0, i1, i2, [&](std::size_t at) {
        if (!found && (x[at] == y[o] || x[at] != x[at])) dx[at] += dy[o], found = true;
      });
    });
  }
}

void avg_pool_bwd(const Pool& pool, const float* dy, float* dx, std::size_t planes, bool accumulate) noexcept {
  const std::size_t in = inputs_of(pool), out = outputs_of(pool);
  for (std::size_t n = 0; n < planes; ++n, dx += in, dy += out) {
    clear(dx, in, accumulate);
    outputs(pool, [&](std::size_t o, std::size_t i0, std::size_t i1, std::size_t i2) {
      const auto share = float(dy[o] / count(pool, i0, i1, i2));
      window(pool, i0, i1, i2, [&](std::size_t at) { dx[at] += share; });
    });
  }
}

}  // namespace

extern constinit const PoolPart pool_scalar{max_pool, avg_pool};
extern constinit const PoolTraining pool_training_scalar{max_pool_bwd, avg_pool_bwd};

}  // namespace qorus::kernels
