// Philox 4x32-10 over the vector type, one counter a lane: bit for bit what scalar/random.cpp defines. Include a vec.h
// first.
#pragma once
#include <cstddef>
#include <cstdint>
#include "kernels/parts.h"
#include "kernels/simd/each.h"

namespace qorus::kernels {
namespace {

constexpr std::size_t k_batch = 4 * k_lanes;  // numbers that one round of the generator makes

// The k_batch numbers whose counters start at `counter`, in order.
QORUS_INLINE void philox(std::uint64_t counter, std::uint64_t key, std::uint32_t* out) {
  const I32 start = set(std::int32_t(std::uint32_t(counter)));
  I32 c0 = start + lane_numbers(), c1 = set(std::int32_t(std::uint32_t(counter >> 32)));
  c1 = select(less_unsigned(c0, start), c1 + set(1), c1);  // carry
  I32 c2 = set(0), c3 = set(0);
  std::uint32_t k0 = std::uint32_t(key), k1 = std::uint32_t(key >> 32);
  for (int round = 0; round < 10; ++round) {
    I32 high0, low0, high1, low1;
    multiply_wide(c0, 0xD2511F53u, high0, low0);
    multiply_wide(c2, 0xCD9E8D57u, high1, low1);
    c0 = high1 ^ c1 ^ set(std::int32_t(k0));
    c2 = high0 ^ c3 ^ set(std::int32_t(k1));
    c1 = low1;
    c3 = low0;
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
  store_interleaved(out, c0, c1, c2, c3);
}

// use(i, bits, count) for runs of consecutive numbers: bits[j] belongs to element i + j. Runs end where the generator's
// batches do, so that what an element gets does not depend on where the array begins.
template <class F>
QORUS_INLINE void random_runs(std::size_t n, std::uint64_t key, std::uint64_t first_number, F use) {
  alignas(64) std::uint32_t bits[k_batch + k_lanes] = {};  // room for a whole vector at any place
  std::size_t skip = first_number % 4;
  std::uint64_t counter = first_number / 4;
  for (std::size_t i = 0; i < n; counter += k_lanes) {
    philox(counter, key, bits);
    const std::size_t left = n - i, count = left < k_batch - skip ? left : k_batch - skip;
    if (count == k_batch)
      use(i, bits, k_batch);
    else
      use(i, bits + skip, count);
    i += count;
    skip = 0;
  }
}

// Numbers in [0, 1) in steps of 2^-24.
QORUS_INLINE F32 uniform(const std::uint32_t* bits) {
  return to_float(shift_right<8>(load(reinterpret_cast<const std::int32_t*>(bits)))) * set(0x1p-24f);
}

void random_bits(std::uint32_t* y, std::size_t n, std::uint64_t key, std::uint64_t first_number) noexcept {
  random_runs(n, key, first_number, [&](std::size_t i, const std::uint32_t* bits, std::size_t count) {
    each(count, [&](std::size_t j, auto part) {
      store(reinterpret_cast<std::int32_t*>(y) + i + j, load(reinterpret_cast<const std::int32_t*>(bits) + j), part);
    });
  });
}

void random_uniform(float* y, std::size_t n, std::uint64_t key, std::uint64_t first_number) noexcept {
  random_runs(n, key, first_number, [&](std::size_t i, const std::uint32_t* bits, std::size_t count) {
    each(count, [&](std::size_t j, auto part) { store(y + i + j, uniform(bits + j), part); });
  });
}

template <class Put>
QORUS_INLINE void dropout_with(const float* x, std::size_t n, float p, std::uint64_t key, std::uint64_t first_number,
                               Put put) {
  const F32 threshold = set(p), scale = set(1 / (1 - p));
  random_runs(n, key, first_number, [&](std::size_t i, const std::uint32_t* bits, std::size_t count) {
    each(count, [&](std::size_t j, auto part) {
      put(i + j, where(load(x + i + j, part) * scale, threshold <= uniform(bits + j)), part);
    });
  });
}

void dropout(const float* x, float* y, std::size_t n, float p, std::uint64_t key, std::uint64_t first_number,
             bool accumulate) noexcept {
  if (accumulate)
    dropout_with(x, n, p, key, first_number,
                 [&](std::size_t i, F32 v, auto part) { store(y + i, load(y + i, part) + v, part); });
  else
    dropout_with(x, n, p, key, first_number, [&](std::size_t i, F32 v, auto part) { store(y + i, v, part); });
}

}  // namespace
}  // namespace qorus::kernels
