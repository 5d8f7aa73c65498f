// How a kernel walks an array: whole vectors, then one part of a vector through the same code, so that an element's
// result never depends on where it stands. Include a vec.h first.
#pragma once
#include <cstddef>
#include <cstdint>

namespace qorus::kernels {
namespace {

// f(i, All) for each whole vector from i on, f(i, Some) for what is left.
template <class F>
QORUS_INLINE void each(std::size_t n, F f) {
  std::size_t i = 0;
  for (; i + k_lanes <= n; i += k_lanes) f(i, All{});
  if (i < n) f(i, first_lanes(n - i));
}

// The same, four vectors a turn: for bodies of a few instructions.
template <class F>
QORUS_INLINE void each4(std::size_t n, F f) {
  std::size_t i = 0;
  for (; i + 4 * k_lanes <= n; i += 4 * k_lanes) {
    f(i, All{});
    f(i + k_lanes, All{});
    f(i + 2 * k_lanes, All{});
    f(i + 3 * k_lanes, All{});
  }
  for (; i + k_lanes <= n; i += k_lanes) f(i, All{});
  if (i < n) f(i, first_lanes(n - i));
}

// From this many elements a call's output goes past the caches: 8 MiB that would push out what is there and be read into the
// cache first only to be overwritten. Measured (bench/NOTES.md): below, writing through the caches is as fast, and leaves the
// result where the next operation finds it; above, up to twice as slow.
constexpr std::size_t k_past_caches = std::size_t(1) << 21;

// Before another thread may be told of what was streamed.
QORUS_INLINE void end_stream() { _mm_sfence(); }
// The elements of y before the first whole vector that a stream may write.
QORUS_INLINE std::size_t before_stream(const float* y, std::size_t n) {
  const std::size_t past = reinterpret_cast<std::uintptr_t>(y) / sizeof(float) % k_lanes;
  return past == 0 ? 0 : k_lanes - past < n ? k_lanes - past : n;
}

// How an output is written: over what was there, the same past the caches, or added to it.
enum class Write { plain, streamed, add };
QORUS_INLINE Write how_to_write(std::size_t n, bool fresh) {  // fresh: the output is none of the arrays that are read
  return fresh && n >= k_past_caches ? Write::streamed : Write::plain;
}

// y[i] (+)= value(i, part) for all i, one row of a larger array; the caller ends the stream. The parts of a vector at both
// ends share one copy of the code.
template <class Value>
QORUS_INLINE void put_row(float* y, std::size_t n, Write how, Value value) {
  std::size_t i = 0, rest = how == Write::streamed ? before_stream(y, n) : 0;
  while (true) {
    if (rest != 0) {
      const Some part = first_lanes(rest);
      const F32 v = value(i, part);
      store(y + i, how == Write::add ? load(y + i, part) + v : v, part);
      i += rest;
    }
    for (; i + k_lanes <= n; i += k_lanes) {
      const F32 v = value(i, All{});
      if (how == Write::streamed)
        stream(y + i, v);
      else
        store(y + i, how == Write::add ? load(y + i) + v : v);
    }
    if (i >= n) return;
    rest = n - i;
  }
}

// An array, or one number for all: what a stride of 1 or 0 means.
struct Spread {
  alignas(64) float number[k_lanes];
  const float* p;
  std::size_t moves;  // all bits set, or none
  QORUS_INLINE Spread(const float* from, std::size_t stride)
      : p(stride ? from : number), moves(stride ? ~std::size_t{0} : 0) {
    if (stride == 0) store(number, set(*from));
  }
  Spread(const Spread&) = delete;
  Spread& operator=(const Spread&) = delete;
  template <class Part>
  QORUS_INLINE F32 at(std::size_t i, Part part) const {
    return load(p + (i & moves), part);
  }
  QORUS_INLINE std::size_t step() const { return k_lanes & moves; }
};

// A walk over arrays of which the body is compiled once, for whole vectors: y[i] (+)= f(a[i], b[i], p, q).
struct Walk {
  const float *a, *b;
  std::size_t a_step, b_step;  // k_lanes, or 0 for one vector over and over
  float* y;
  std::size_t n;  // a multiple of k_lanes
  Write how;
  float p, q;
};
using WalkFunction = void (*)(const Walk&) noexcept;

template <class F>
void walk_vectors(const Walk& w) noexcept {
  const float *a = w.a, *b = w.b;
  const std::size_t a_step = w.a_step, b_step = w.b_step;
  float* y = w.y;
  const Write how = w.how;
  const F32 p = set(w.p), q = set(w.q);
  for (float* const end = y + w.n; y != end; y += k_lanes, a += a_step, b += b_step) {
    F32 v = F{}(load(a), load(b), p, q);
    if (how == Write::add) v = load(y) + v;
    if (how == Write::streamed)
      stream(y, v);
    else
      store(y, v);
  }
}

// The first `n` < k_lanes elements of a walk, by way of whole vectors beside it.
inline void walk_part(WalkFunction run, Walk w, std::size_t n) noexcept {
  alignas(64) float a[k_lanes], b[k_lanes], y[k_lanes];
  const Some part = first_lanes(n);
  float* const to = w.y;
  if (w.a_step) store(a, load(w.a, part)), w.a = a;
  if (w.b_step) store(b, load(w.b, part)), w.b = b;
  if (w.how == Write::add)
    store(y, load(to, part));
  else
    w.how = Write::plain;
  w.y = y;
  w.n = k_lanes;
  run(w);
  store(to, load(y), part);
}

// A walk of any length.
inline void walk(WalkFunction run, Walk w) noexcept {
  std::size_t left = w.n, part = w.how == Write::streamed ? before_stream(w.y, w.n) : 0;
  while (left != 0) {
    w.n = part ? part : left / k_lanes * k_lanes;
    if (part)
      walk_part(run, w, part);
    else
      run(w);
    left -= w.n;
    w.y += w.n;
    if (w.a_step) w.a += w.n;
    if (w.b_step) w.b += w.n;
    part = left < k_lanes ? left : 0;
  }
  if (w.how == Write::streamed) end_stream();
}
// Two sums that are formed in one walk.
struct Pair {
  F32 a, b;
};
QORUS_INLINE Pair operator+(Pair x, Pair y) { return {x.a + y.a, x.b + y.b}; }
QORUS_INLINE Pair pad(Pair x, Pair fill, Some s) { return {pad(x.a, fill.a, s), pad(x.b, fill.b, s)}; }

// combine over all i of value(i, part), in four accumulators (vector j goes to accumulator j mod 4) that are combined
// as (0 with 1) with (2 with 3); lanes past the end hold `start`, the neutral element.
template <class T, class Value, class Combine>
QORUS_INLINE T fold(std::size_t n, T start, Value value, Combine combine) {
  T t0 = start, t1 = start, t2 = start, t3 = start;
  std::size_t i = 0;
  for (; i + 4 * k_lanes <= n; i += 4 * k_lanes) {
    t0 = combine(t0, value(i, All{}));
    t1 = combine(t1, value(i + k_lanes, All{}));
    t2 = combine(t2, value(i + 2 * k_lanes, All{}));
    t3 = combine(t3, value(i + 3 * k_lanes, All{}));
  }
  if (i + k_lanes <= n) t0 = combine(t0, value(i, All{})), i += k_lanes;
  if (i + k_lanes <= n) t1 = combine(t1, value(i, All{})), i += k_lanes;
  if (i + k_lanes <= n) t2 = combine(t2, value(i, All{})), i += k_lanes;
  if (i < n) {
    const Some part = first_lanes(n - i);
    t3 = combine(t3, pad(value(i, part), start, part));
  }
  return combine(combine(t0, t1), combine(t2, t3));
}

// The sum of value(i, part) over an array of any length: runs of 4096 in f32 accumulators, their totals in f64.
template <class Value>
QORUS_INLINE double total(std::size_t n, Value value) {
  constexpr std::size_t run = 4096;
  double all = 0;
  for (std::size_t from = 0; from < n; from += run) {
    const std::size_t count = n - from < run ? n - from : run;
    all += sum(fold(
        count, set(0.0f), [&](std::size_t i, auto part) { return value(from + i, part); },
        [](F32 a, F32 b) { return a + b; }));
  }
  return all;
}

}  // namespace
}  // namespace qorus::kernels
