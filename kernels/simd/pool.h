// Pools over the vector type: windows of two neighbours along a row (the usual ones) go by whole vectors, all others place by place.
// Include a vec.h first.
#pragma once
#include <cstddef>
#include <cstdint>
#include "kernels/parts.h"
#include "kernels/simd/each.h"

namespace qorus::kernels {
namespace {

// What an output row looks at: rows of x from every slice and row of its windows.
template <class F>
QORUS_INLINE void pool_rows(const Pool& pool, std::size_t i0, std::size_t i1, F f) {
  const PoolAxis &a = pool.axis[0], &b = pool.axis[1];
  for (auto p0 = std::size_t(a.begin[i0]); p0 < std::size_t(a.end[i0]); p0 += a.step)
    for (auto p1 = std::size_t(b.begin[i1]); p1 < std::size_t(b.end[i1]); p1 += b.step)
      f((p0 * b.in + p1) * pool.axis[2].in);
}
// f(plane, first output of the row, i0, i1) for every row of outputs.
template <class F>
QORUS_INLINE void pool_outputs(const Pool& pool, std::size_t planes, F f) {
  std::size_t row = 0;
  for (std::size_t n = 0; n < planes; ++n)
    for (std::size_t i0 = 0; i0 < pool.axis[0].out; ++i0)
      for (std::size_t i1 = 0; i1 < pool.axis[1].out; ++i1) f(n, pool.axis[2].out * row++, i0, i1);
}
inline std::size_t pool_inputs(const Pool& p) { return p.axis[0].in * p.axis[1].in * p.axis[2].in; }

// The pairs x[2 i], x[2 i + 1] of a row, apart.
template <class Part>
QORUS_INLINE void load_pairs(const float* x, std::size_t i, std::size_t n, Part, F32& a, F32& b) {
  const std::size_t left = 2 * (n - i);
  const F32 low = left >= k_lanes ? load(x + 2 * i) : load(x + 2 * i, first_lanes(left));
  const F32 high = left >= 2 * k_lanes ? load(x + 2 * i + k_lanes)
                                       : load(x + 2 * i + k_lanes, first_lanes(left > k_lanes ? left - k_lanes : 0));
  a = even(low, high);
  b = odd(low, high);
}
QORUS_INLINE F32 larger_or_nan(F32 best, F32 x) { return select(is_nan(x), x, max(x, best)); }

void max_pool(const Pool& pool, const float* x, float* y, std::int32_t* index, std::size_t planes) noexcept {
  const std::size_t in = pool_inputs(pool);
  const PoolAxis& c = pool.axis[2];
  pool_outputs(pool, planes, [&](std::size_t n, std::size_t out, std::size_t i0, std::size_t i1) {
    const float* plane = x + n * in;
    if (c.pairs && !index) {
      each(c.out, [&](std::size_t i, auto part) {
        F32 best = set(-__builtin_inff());
        pool_rows(pool, i0, i1, [&](std::size_t row) {
          F32 a, b;
          load_pairs(plane + row, i, c.out, part, a, b);
          best = larger_or_nan(larger_or_nan(best, a), b);
        });
        store(y + out + i, best, part);
      });
      return;
    }
    for (std::size_t i = 0; i < c.out; ++i) {
      bool first = true;
      std::size_t best = 0;
      pool_rows(pool, i0, i1, [&](std::size_t row) {
        for (auto p = row + std::size_t(c.begin[i]); p < row + std::size_t(c.end[i]); p += c.step) {
          if (first || plane[p] > plane[best] || (plane[p] != plane[p] && plane[best] == plane[best])) best = p;
          first = false;
        }
      });
      y[out + i] = plane[best];
      if (index) index[out + i] = std::int32_t(best);
    }
  });
}

inline float pool_count(const Pool& pool, std::size_t i0, std::size_t i1) {
  return float(pool.axis[0].count[i0]) * float(pool.axis[1].count[i1]);
}

void avg_pool(const Pool& pool, const float* x, float* y, std::size_t planes) noexcept {
  const std::size_t in = pool_inputs(pool);
  const PoolAxis& c = pool.axis[2];
  pool_outputs(pool, planes, [&](std::size_t n, std::size_t out, std::size_t i0, std::size_t i1) {
    const float* plane = x + n * in;
    const float rows = pool_count(pool, i0, i1);
    if (c.pairs && c.count[0] == 2) {
      each(c.out, [&](std::size_t i, auto part) {
        F32 sum = set(0.0f);
        pool_rows(pool, i0, i1, [&](std::size_t row) {
          F32 a, b;
          load_pairs(plane + row, i, c.out, part, a, b);
          sum = sum + (a + b);
        });
        store(y + out + i, sum / set(2 * rows), part);
      });
      return;
    }
    for (std::size_t i = 0; i < c.out; ++i) {
      double sum = 0;
      pool_rows(pool, i0, i1, [&](std::size_t row) {
        if (c.step == 1) {
          const auto begin = std::size_t(c.begin[i]);
          sum += total(std::size_t(c.end[i]) - begin,
                       [&](std::size_t p, auto part) { return load(plane + row + begin + p, part); });
          return;
        }
        for (auto p = row + std::size_t(c.begin[i]); p < row + std::size_t(c.end[i]); p += c.step) sum += plane[p];
      });
      y[out + i] = float(sum / double(rows * float(c.count[i])));
    }
  });
}

QORUS_INLINE void pool_clear(float* dx, std::size_t n, bool accumulate) {
  if (!accumulate) each4(n, [&](std::size_t i, auto part) { store(dx + i, set(0.0f), part); });
}

// dx's pairs += a, b.
template <class Part>
QORUS_INLINE void add_pairs(float* dx, std::size_t i, std::size_t n, Part, F32 a, F32 b) {
  const std::size_t left = 2 * (n - i);
  F32 low, high;
  interleave(a, b, low, high);
  const auto add = [](float* to, F32 v, std::size_t count) {
    if (count >= k_lanes)
      store(to, load(to) + v);
    else
      store(to, load(to, first_lanes(count)) + v, first_lanes(count));
  };
  add(dx + 2 * i, low, left);
  if (left > k_lanes) add(dx + 2 * i + k_lanes, high, left - k_lanes);
}

void max_pool_bwd(const Pool& pool, const float* x, const float* y, const float* dy, float* dx, std::size_t planes,
                  bool accumulate) noexcept {
  const std::size_t in = pool_inputs(pool);
  const PoolAxis& c = pool.axis[2];
  pool_outputs(pool, planes, [&](std::size_t n, std::size_t out, std::size_t i0, std::size_t i1) {
    const float* plane = x + n * in;
    float* to = dx + n * in;
    if (i0 == 0 && i1 == 0) pool_clear(to, in, accumulate);
    if (c.pairs) {
      each(c.out, [&](std::size_t i, auto part) {
        const F32 best = load(y + out + i, part), slope = load(dy + out + i, part);
        Mask open = !no_lane();
        const auto taken = [&](F32 v) {
          const Mask hit = (v == best) | is_nan(v), mine = hit & open;
          open = open & !hit;
          return where(slope, mine);
        };
        pool_rows(pool, i0, i1, [&](std::size_t row) {
          F32 a, b;
          load_pairs(plane + row, i, c.out, part, a, b);
          const F32 da = taken(a), db = taken(b);
          add_pairs(to + row, i, c.out, part, da, db);
        });
      });
      return;
    }
    for (std::size_t i = 0; i < c.out; ++i) {
      bool found = false;
      pool_rows(pool, i0, i1, [&](std::size_t row) {
        for (auto p = row + std::size_t(c.begin[i]); !found && p < row + std::size_t(c.end[i]); p += c.step)
          if (plane[p] == y[out + i] || plane[p] != plane[p]) to[p] += dy[out + i], found = true;
      });
    }
  });
}

void avg_pool_bwd(const Pool& pool, const float* dy, float* dx, std::size_t planes, bool accumulate) noexcept {
  const std::size_t in = pool_inputs(pool);
  const PoolAxis& c = pool.axis[2];
  pool_outputs(pool, planes, [&](std::size_t n, std::size_t out, std::size_t i0, std::size_t i1) {
    float* to = dx + n * in;
    if (i0 == 0 && i1 == 0) pool_clear(to, in, accumulate);
    const float rows = pool_count(pool, i0, i1);
    for (std::size_t i = 0; i < c.out; ++i) {
      const float share = dy[out + i] / (rows * float(c.count[i]));
      pool_rows(pool, i0, i1, [&](std::size_t row) {
        if (c.step == 1) {
          const auto begin = std::size_t(c.begin[i]);
          each(std::size_t(c.end[i]) - begin, [&](std::size_t p, auto part) {
            float* at = to + row + begin + p;
            store(at, load(at, part) + set(share), part);
          });
          return;
        }
        for (auto p = row + std::size_t(c.begin[i]); p < row + std::size_t(c.end[i]); p += c.step) to[p] += share;
      });
    }
  });
}

}  // namespace
}  // namespace qorus::kernels
