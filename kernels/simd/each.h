// How a kernel walks an array: whole vectors, then one part of a vector through the same code, so that an element's
// result never depends on where it stands. Include a vec.h first.
#pragma once

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

// y[i] = value(i, part) for all i, past the caches. The first and last elements go by ordinary stores.
template <class Value>
QORUS_INLINE void stream_each(float* y, std::size_t n, Value value) {
  const std::size_t misaligned = reinterpret_cast<std::uintptr_t>(y) / sizeof(float) % k_lanes;
  std::size_t i = 0;
  if (misaligned != 0) {
    i = k_lanes - misaligned < n ? k_lanes - misaligned : n;
    store(y, value(0, first_lanes(i)), first_lanes(i));
  }
  for (; i + k_lanes <= n; i += k_lanes) stream(y + i, value(i, All{}));
  if (i < n) store(y + i, value(i, first_lanes(n - i)), first_lanes(n - i));
}
// Before another thread may be told of what was streamed.
QORUS_INLINE void end_stream() { _mm_sfence(); }

// y[i] = value(i, part) for all i. `fresh`: y is none of the arrays that value reads.
template <class Value>
QORUS_INLINE void put(float* y, std::size_t n, bool fresh, Value value) {
  if (fresh && n >= k_past_caches) {
    stream_each(y, n, value);
    end_stream();
  } else {
    each4(n, [&](std::size_t i, auto part) { store(y + i, value(i, part), part); });
  }
}
// One row of a larger array, streamed or not; the caller ends the stream.
template <class Value>
QORUS_INLINE void put_row(float* y, std::size_t n, bool streamed, Value value) {
  if (streamed)
    stream_each(y, n, value);
  else
    each4(n, [&](std::size_t i, auto part) { store(y + i, value(i, part), part); });
}

// An array, or one number for all: what a stride of 1 or 0 means.
struct Stream {
  const float* p;
  template <class Part>
  QORUS_INLINE F32 at(std::size_t i, Part part) const {
    return load(p + i, part);
  }
};
struct Constant {
  F32 value;
  template <class Part>
  QORUS_INLINE F32 at(std::size_t, Part) const {
    return value;
  }
};

// use(a, b) with each of the two as what its stride says.
template <class F>
QORUS_INLINE void with_strides(const float* a, std::size_t sa, const float* b, std::size_t sb, F use) {
  if (sa && sb) return use(Stream{a}, Stream{b});
  if (sa) return use(Stream{a}, Constant{set(*b)});
  if (sb) return use(Constant{set(*a)}, Stream{b});
  use(Constant{set(*a)}, Constant{set(*b)});
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
