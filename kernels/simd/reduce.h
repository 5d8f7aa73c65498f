// Reductions over the vector type. Include a vec.h first.
// Along the last axis: the lanes of four accumulators, runs of 4096 added in f64 (each.h). Across rows: eight rows as a
// tree, their sum added to the result, so that the error grows with reduced / 8.
#pragma once
#include <cstddef>
#include <cstdint>
#include "kernels/parts.h"
#include "kernels/simd/each.h"
#include "kernels/simd/math.h"

namespace qorus::kernels {
namespace {

struct Sum {
  static constexpr float start = 0;
  QORUS_INLINE static F32 prepare(F32 x) { return x; }
  QORUS_INLINE static F32 combine(F32 a, F32 b) { return a + b; }
};
struct SumAbs : Sum {
  QORUS_INLINE static F32 prepare(F32 x) { return abs(x); }
};
struct SumSquare : Sum {
  QORUS_INLINE static F32 prepare(F32 x) { return x * x; }
};
struct Prod {
  static constexpr float start = 1;
  QORUS_INLINE static F32 prepare(F32 x) { return x; }
  QORUS_INLINE static F32 combine(F32 a, F32 b) { return a * b; }
};
struct Max {
  static constexpr float start = -k_infinity;
  QORUS_INLINE static F32 prepare(F32 x) { return x; }
  QORUS_INLINE static F32 combine(F32 a, F32 b) { return select(is_nan(a), a, max(a, b)); }
};
struct Min {
  static constexpr float start = k_infinity;
  QORUS_INLINE static F32 prepare(F32 x) { return x; }
  QORUS_INLINE static F32 combine(F32 a, F32 b) { return select(is_nan(a), a, min(a, b)); }
};

// Across the lanes of one vector, halves upon halves.
template <class Op>
QORUS_INLINE float across_lanes(F32 x) {
  alignas(64) float lane[2 * k_lanes];
  store(lane, x);
  store(lane + k_lanes, set(Op::start));
  for (std::size_t half = k_lanes / 2; half > 0; half /= 2) store(lane, Op::combine(load(lane), load(lane + half)));
  return lane[0];
}

template <class Op>
float reduce_run(const float* x, std::size_t n) noexcept {
  const auto value = [&](std::size_t i, auto part) { return Op::prepare(load(x + i, part)); };
  if constexpr (Op::start == 0)
    return float(total(n, value));
  else
    return across_lanes<Op>(fold(n, set(Op::start), value, [](F32 a, F32 b) { return Op::combine(a, b); }));
}

// y[i] = y[i] with the count rows x[r * inner + i].
template <class Op, std::size_t count>
QORUS_INLINE void take_rows(const float* x, float* y, std::size_t inner) {
  each(inner, [&](std::size_t i, auto part) {
    F32 v[count];
    for (std::size_t r = 0; r < count; ++r) v[r] = Op::prepare(load(x + r * inner + i, part));
    for (std::size_t step = 1; step < count; step *= 2)
      for (std::size_t r = 0; r + step < count; r += 2 * step) v[r] = Op::combine(v[r], v[r + step]);
    store(y + i, Op::combine(load(y + i, part), v[0]), part);
  });
}

template <class Op>
void reduce_rows(const float* x, float* y, std::size_t reduced, std::size_t inner) noexcept {
  each(inner, [&](std::size_t i, auto part) { store(y + i, set(Op::start), part); });
  std::size_t r = 0;
  for (; r + 8 <= reduced; r += 8) take_rows<Op, 8>(x + r * inner, y, inner);
  for (; r < reduced; ++r) take_rows<Op, 1>(x + r * inner, y, inner);
}

template <class Op>
void reduce_with(const float* x, float* y, std::size_t outer, std::size_t reduced, std::size_t inner) noexcept {
  for (std::size_t o = 0; o < outer; ++o) {
    if (inner == 1)
      y[o] = reduce_run<Op>(x + o * reduced, reduced);
    else
      reduce_rows<Op>(x + o * reduced * inner, y + o * inner, reduced, inner);
  }
}

void reduce(Reduce op, const float* x, float* y, std::size_t outer, std::size_t reduced, std::size_t inner) noexcept {
  switch (op) {
    case Reduce::sum: return reduce_with<Sum>(x, y, outer, reduced, inner);
    case Reduce::sum_abs: return reduce_with<SumAbs>(x, y, outer, reduced, inner);
    case Reduce::sum_square: return reduce_with<SumSquare>(x, y, outer, reduced, inner);
    case Reduce::max: return reduce_with<Max>(x, y, outer, reduced, inner);
    case Reduce::min: return reduce_with<Min>(x, y, outer, reduced, inner);
    case Reduce::prod: return reduce_with<Prod>(x, y, outer, reduced, inner);
    case Reduce::count_: return;
  }
}

// The extreme value first, then where it stands first: the second pass stops there.
template <class Op>
std::int32_t find_first(const float* x, std::size_t n) noexcept {
  const float extreme = reduce_run<Op>(x, n);
  const F32 wanted = set(extreme);
  const bool nan = extreme != extreme;
  std::size_t found = n;
  for (std::size_t i = 0; i < n && found == n; i += k_lanes) {
    const auto look = [&](auto part) {
      const F32 v = load(x + i, part);
      const unsigned hits = lane_bits(among(nan ? is_nan(v) : v == wanted, part));
      if (hits) found = i + std::size_t(__builtin_ctz(hits));
    };
    if (i + k_lanes <= n)
      look(All{});
    else
      look(first_lanes(n - i));
  }
  return std::int32_t(found);
}

// Down the rows: best value and its row, lane by lane. A later one must beat the best; a NaN beats all but a NaN.
template <class Beats>
void arg_rows(const float* x, std::int32_t* y, std::size_t reduced, std::size_t inner, Beats beats) noexcept {
  each(inner, [&](std::size_t i, auto part) {
    F32 best = load(x + i, part);
    I32 at = set(std::int32_t(0));
    for (std::size_t r = 1; r < reduced; ++r) {
      const F32 v = load(x + r * inner + i, part);
      const Mask better = !is_nan(best) & (is_nan(v) | beats(v, best));
      best = select(better, v, best);
      at = select(better, set(std::int32_t(r)), at);
    }
    store(y + i, at, part);
  });
}

void arg_reduce(bool largest, const float* x, std::int32_t* y, std::size_t outer, std::size_t reduced,
                std::size_t inner) noexcept {
  for (std::size_t o = 0; o < outer; ++o) {
    const float* from = x + o * reduced * inner;
    if (inner == 1)
      y[o] = largest ? find_first<Max>(from, reduced) : find_first<Min>(from, reduced);
    else if (largest)
      arg_rows(from, y + o * inner, reduced, inner, [](F32 v, F32 best) { return v > best; });
    else
      arg_rows(from, y + o * inner, reduced, inner, [](F32 v, F32 best) { return v < best; });
  }
}

}  // namespace
}  // namespace qorus::kernels
