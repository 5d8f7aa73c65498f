// Products with packed weights over the vector type; scalar/packed.cpp defines them. Included by one instruction set's packed.cpp after its
// vec.h and what that file says of sums of byte products; everything has internal linkage.
//
//   one row        weights go from memory to the sums by way of registers alone, panel by panel
//   more rows      a panel's next k_depth elements are unpacked to bytes and f32 scales, then all runs of rows go over them
#pragma once
#include <cstring>

#include "kernels/parts.h"

namespace qorus::kernels {
namespace {

using Bytes = const std::uint8_t*;

constexpr std::size_t k_vectors = k_panel / k_lanes;  // of f32 in a panel's row
constexpr std::size_t k_quad_bytes = 4 * k_lanes;     // of 4-byte pieces for as many rows
constexpr std::size_t k_depth = 512;                  // elements of k that are unpacked at a time

QORUS_INLINE I32 bytes_and(I32 x, int mask) { return x & set(mask * 0x01010101); }
QORUS_INLINE std::int32_t word_at(Bytes p) {
  std::int32_t word;
  std::memcpy(&word, p, 4);
  return word;
}
QORUS_INLINE float float_at(Bytes p) {
  float value;
  std::memcpy(&value, p, 4);
  return value;
}
QORUS_INLINE F32 halves_at(Bytes p, std::size_t lane) {
  return load_f16(reinterpret_cast<const std::uint16_t*>(p) + lane, All{});
}

// --- formats: superblocks of a panel, of which k_blocks blocks of 32 elements ---
//   scales   writes, for each block, k_groups vectors of scales and, if k_least, one of minima; gives where they are
//   quants   block b: w[i] holds elements 4 i to 4 i + 3 of k, counted from the format's offset

struct Q40 {
  static constexpr std::size_t k_bytes = 18 * k_panel, k_blocks = 1;
  static constexpr int k_groups = 1;
  static constexpr bool k_least = false, k_wide = false;
  QORUS_INLINE static const float* scales(Bytes p, std::size_t lane, float* out) {
    store(out, halves_at(p, lane));
    return out;
  }
  QORUS_INLINE static void quants(Bytes p, std::size_t lane, std::size_t, I32 (&w)[8]) {
#pragma unroll
    for (std::size_t i = 0; i < 4; ++i) {
      const I32 both = load_quads(p + 32 + 64 * i + 4 * lane);
      w[i] = bytes_and(both, 15);
      w[i + 4] = bytes_and(shift_right<4>(both), 15);
    }
  }
};

struct Q80 {
  static constexpr std::size_t k_bytes = 34 * k_panel, k_blocks = 1;
  static constexpr int k_groups = 1;
  static constexpr bool k_least = false, k_wide = true;
  QORUS_INLINE static const float* scales(Bytes p, std::size_t lane, float* out) { return Q40::scales(p, lane, out); }
  QORUS_INLINE static void quants(Bytes p, std::size_t lane, std::size_t, I32 (&w)[8]) {
#pragma unroll
    for (std::size_t i = 0; i < 8; ++i) w[i] = load_quads(p + 32 + 64 * i + 4 * lane);
  }
};

struct Q4K {
  static constexpr std::size_t k_bytes = 144 * k_panel, k_blocks = 8;
  static constexpr int k_groups = 1;
  static constexpr bool k_least = true, k_wide = false;
  QORUS_INLINE static const float* scales(Bytes p, std::size_t lane, float* out) {
    const F32 unit[2] = {halves_at(p, lane), halves_at(p + 32, lane)};
    const I32 upper = load_quads(p + 64 + 128 + 4 * lane);
#pragma unroll
    for (int i = 0; i < 2; ++i) {  // scales, then minima: 6 bits, of the later four blocks in two parts
      const I32 lower = load_quads(p + 64 + 64 * i + 4 * lane);
      I32 early = bytes_and(lower, 63);
      I32 late = bytes_and(i ? shift_right<4>(upper) : upper, 15) ^ bytes_and(shift_right<2>(lower), 48);
#pragma unroll
      for (std::size_t b = 0; b < 4; ++b) {
        store(out + (2 * b + i) * k_lanes, to_float(early & set(255)) * unit[i]);
        store(out + (2 * b + 8 + i) * k_lanes, to_float(late & set(255)) * unit[i]);
        early = shift_right<8>(early);
        late = shift_right<8>(late);
      }
    }
    return out;
  }
  QORUS_INLINE static void quants(Bytes p, std::size_t lane, std::size_t b, I32 (&w)[8]) {
#pragma unroll
    for (std::size_t i = 0; i < 8; ++i)
      w[i] = bytes_and(shift_right_by(load_quads(p + 256 + 512 * (b / 2) + 64 * i + 4 * lane), int(b % 2 * 4)), 15);
  }
};

struct Q6K {
  static constexpr std::size_t k_bytes = 210 * k_panel, k_blocks = 8;
  static constexpr int k_groups = 2;
  static constexpr bool k_least = false, k_wide = false;
  QORUS_INLINE static const float* scales(Bytes p, std::size_t lane, float* out) {
    const F32 unit = halves_at(p, lane);
#pragma unroll
    for (std::size_t i = 0; i < 4; ++i) {
      const I32 four = load_quads(p + 32 + 64 * i + 4 * lane);
      float* to = out + 4 * i * k_lanes;
      store(to, to_float(shift_right_signed<24>(shift_left<24>(four))) * unit);
      store(to + k_lanes, to_float(shift_right_signed<24>(shift_left<16>(four))) * unit);
      store(to + 2 * k_lanes, to_float(shift_right_signed<24>(shift_left<8>(four))) * unit);
      store(to + 3 * k_lanes, to_float(shift_right_signed<24>(four)) * unit);
    }
    return out;
  }
  QORUS_INLINE static void quants(Bytes p, std::size_t lane, std::size_t b, I32 (&w)[8]) {
    Bytes lower = p + 288 + 1024 * (b / 4) + 512 * (b % 2) + 4 * lane,
          upper = p + 288 + 2048 + 512 * (b / 4) + 4 * lane;
#pragma unroll
    for (std::size_t i = 0; i < 8; ++i) {
      const I32 high = bytes_and(shift_right_by(load_quads(upper + 64 * i), int(b % 4 * 2)), 3);
      w[i] = bytes_and(shift_right_by(load_quads(lower + 64 * i), int(b % 4 / 2 * 4)), 15) ^ shift_left<4>(high);
    }
  }
};

// A block as `unpack` leaves it: 8 vectors of quants, then those of scales and minima.
template <int Groups, bool Least, bool Wide>
struct Unpacked {
  static constexpr std::size_t k_bytes = (8 + Groups + Least) * k_quad_bytes, k_blocks = 1;
  static constexpr int k_groups = Groups;
  static constexpr bool k_least = Least, k_wide = Wide;
  QORUS_INLINE static const float* scales(Bytes p, std::size_t, float*) {
    return reinterpret_cast<const float*>(p + 8 * k_quad_bytes);
  }
  QORUS_INLINE static void quants(Bytes p, std::size_t, std::size_t, I32 (&w)[8]) {
#pragma unroll
    for (std::size_t i = 0; i < 8; ++i) w[i] = load_quads(p + k_quad_bytes * i);
  }
};
// Whether 8-bit quants need sums of their own is the instruction set's affair.
template <class F>
using UnpackedOf = Unpacked<F::k_groups, F::k_least, F::k_wide && k_wide_differs>;

template <class F>
void unpack(Bytes panel, std::size_t lane, std::size_t blocks, std::uint8_t* out) noexcept {
  constexpr std::size_t vectors = F::k_groups + F::k_least;
  for (; blocks > 0; blocks -= F::k_blocks, panel += F::k_bytes) {
    alignas(64) float room[F::k_blocks * vectors * k_lanes];
    const float* scales = F::scales(panel, lane, room);
    for (std::size_t b = 0; b < F::k_blocks; ++b, scales += vectors * k_lanes) {
      I32 w[8];
      F::quants(panel, lane, b, w);
#pragma unroll
      for (const I32& quads : w) {
        store(reinterpret_cast<std::int32_t*>(out), quads, All{});
        out += k_quad_bytes;
      }
#pragma unroll
      for (std::size_t v = 0; v < vectors; ++v) {
        store(reinterpret_cast<float*>(out), load(scales + v * k_lanes));
        out += k_quad_bytes;
      }
    }
  }
}

// --- tiles: R rows of one run by one vector of columns ---

struct PackedTile {
  Bytes weights;
  std::size_t lane;            // of the panel, where this vector begins
  Bytes quants, scales, sums;  // of the first row
  std::size_t step;            // bytes from block to block of the rows
  std::size_t blocks;          // of 32 elements
  float* c;
  std::ptrdiff_t c_row;
  std::size_t cols;   // of this vector, at most k_lanes
  const float* bias;  // of this vector, or null
  bool from_c;
};

template <class S, int R>
void tile(const PackedTile& t) noexcept {
  constexpr std::size_t vectors = S::k_groups + S::k_least;
  constexpr bool wide = S::k_wide && k_wide_differs, corrected = !S::k_least && !wide;
  const Some some = first_lanes(t.cols);
  F32 chain[R];
#pragma unroll
  for (int r = 0; r < R; ++r) {
    chain[r] = t.from_c ? load(t.c + r * t.c_row, some) : set(0.0f);
    if (t.bias) chain[r] = t.from_c ? chain[r] + load(t.bias, some) : load(t.bias, some);
  }
  Bytes weights = t.weights, quants = t.quants, row_scales = t.scales, sums = t.sums;
  for (std::size_t left = t.blocks; left > 0; left -= S::k_blocks, weights += S::k_bytes) {
    alignas(64) float room[S::k_blocks * vectors * k_lanes];
    const float* scales = S::scales(weights, t.lane, room);
    for (std::size_t b = 0; b < S::k_blocks; ++b, scales += vectors * k_lanes) {
      if constexpr (R == 1) fetch(weights + (b * S::k_bytes) / S::k_blocks + k_fetch_ahead, S::k_bytes / S::k_blocks);
      I32 w[8];
      S::quants(weights, t.lane, b, w);
      const F32 scale = load(scales), second = load(scales + (S::k_groups - 1) * k_lanes),
                least = load(scales + (vectors - 1) * k_lanes);
#pragma unroll
      for (int r = 0; r < R; ++r) {
        I32 sum[2] = {corrected ? set(word_at(sums + 8 * r)) : set(0),
                      corrected && S::k_groups == 2 ? set(word_at(sums + 8 * r + 4)) : set(0)};
        // Where the scale is one, the whole block is one sum: in two chains if there is no other row to wait for.
        constexpr int half = S::k_groups == 2 || R == 1;
#pragma unroll
        for (int i = 0; i < 8; ++i) sum[i / 4 * half] = dot<wide>(sum[i / 4 * half], w[i], quants + 32 * r + 4 * i);
        if constexpr (half && S::k_groups == 1) sum[0] = sum[0] + sum[1];
        F32 value = to_float(sum[0]) * scale;
        if constexpr (S::k_groups == 2) value = fma(second, to_float(sum[1]), value);
        if constexpr (S::k_least) value = fma(least, set(float_at(sums + 8 * r)), value);
        chain[r] = fma(value, set(float_at(row_scales + 4 * r)), chain[r]);
      }
      quants += t.step;
      row_scales += t.step;
      sums += t.step;
    }
  }
#pragma unroll
  for (int r = 0; r < R; ++r) store(t.c + r * t.c_row, chain[r], some);
}

constexpr std::size_t run_of(std::size_t left) {
  return left >= 16 ? 16 : left >= 8 ? 8 : left >= 4 ? 4 : left >= 2 ? 2 : 1;
}

template <class S>
void tile_rows(const PackedTile& t, std::size_t rows) noexcept {
  if constexpr (k_most_rows >= 16)
    if (rows == 16) return tile<S, 16>(t);
  if constexpr (k_most_rows >= 8)
    if (rows == 8) return tile<S, 8>(t);
  if (rows == 4) return tile<S, 4>(t);
  if (rows == 2) return tile<S, 2>(t);
  tile<S, 1>(t);
}

// All rows over `blocks` blocks of k from block `begin` on, of one vector of columns.
template <class S>
void all_rows(const PackedProduct& p, PackedTile t, std::size_t begin) noexcept {
  const std::size_t row_bytes = packed_row_bytes(p.packing, p.k);
  float* const c = t.c;
  for (std::size_t i = 0; i < p.m;) {
    const std::size_t rows = run_of(p.m - i), part = rows < k_most_rows ? rows : k_most_rows;
    Bytes run = static_cast<Bytes>(p.rows) + i * row_bytes + begin * rows * 44;
    t.step = rows * 44;
    for (std::size_t r = 0; r < rows; r += part, i += part) {
      t.quants = run + 32 * r;
      t.scales = run + 32 * rows + 4 * r;
      t.sums = run + 36 * rows + 8 * r;
      t.c = c + static_cast<std::ptrdiff_t>(i) * p.c_row;
      tile_rows<S>(t, part);
    }
  }
}

template <class F>
void product_of(const PackedProduct& p, std::size_t first, std::size_t last) noexcept {
  const std::size_t panel_bytes = packed_panel_bytes(p.packing, p.k), blocks = p.k / 32;
  constexpr std::size_t depth = k_depth / 32;
  const std::size_t step = p.m == 1 ? blocks : depth;
  for (std::size_t begin = 0; begin < blocks; begin += step)
    for (std::size_t v = first * k_vectors; v < last * k_vectors && v * k_lanes < p.n; ++v) {
      const std::size_t j = v * k_lanes;
      PackedTile t{};
      t.lane = j % k_panel;
      t.weights = static_cast<Bytes>(p.weights) + v / k_vectors * panel_bytes + begin / F::k_blocks * F::k_bytes;
      t.blocks = blocks - begin < step ? blocks - begin : step;
      t.c = p.c + j;
      t.c_row = p.c_row;
      t.cols = p.n - j < k_lanes ? p.n - j : k_lanes;
      t.from_c = p.accumulate || begin > 0;
      t.bias = p.bias && begin == 0 ? p.bias + j : nullptr;
      if (p.m == 1) {
        t.step = 44;
        t.quants = static_cast<Bytes>(p.rows);
        t.scales = t.quants + 32;
        t.sums = t.quants + 36;
        tile<F, 1>(t);
        continue;
      }
      alignas(64) std::uint8_t room[depth * UnpackedOf<F>::k_bytes];
      unpack<F>(t.weights, t.lane, t.blocks, room);
      t.weights = room;
      all_rows<UnpackedOf<F>>(p, t, begin);
    }
}

// --- f16 and bf16: R rows by P panels of one vector each ---

template <bool Brain>
QORUS_INLINE F32 weights_at(Bytes p) {
  const auto* words = reinterpret_cast<const std::uint16_t*>(p);
  if constexpr (Brain) return from_bits(shift_left<16>(load_u16(words, All{})));
  return load_f16(words, All{});
}

struct HalfTile {
  Bytes weights;
  std::size_t panel;  // bytes from panel to panel
  const float* rows;
  std::size_t step, k;  // floats from element to element of k; elements
  float* c;
  std::ptrdiff_t c_row;
  std::size_t cols;  // of the last vector
  const float* bias;
  bool from_c;
};

template <bool Brain, int R, int P>
void half_tile(const HalfTile& t) noexcept {
  F32 chain[R][P];
  const Some some = first_lanes(t.cols), full = first_lanes(k_lanes);
#pragma unroll
  for (int v = 0; v < P; ++v) {
    const Some part = v + 1 < P ? full : some;
    const float* bias = t.bias ? t.bias + v * k_panel : nullptr;
#pragma unroll
    for (int r = 0; r < R; ++r) {
      F32& x = chain[r][v];
      x = t.from_c ? load(t.c + r * t.c_row + v * k_panel, part) : set(0.0f);
      if (bias) x = t.from_c ? x + load(bias, part) : load(bias, part);
    }
  }
  Bytes weights = t.weights;
  const float* x = t.rows;
  for (std::size_t k = 0; k < t.k; ++k, weights += 2 * k_panel, x += t.step) {
    F32 w[P];
#pragma unroll
    for (int v = 0; v < P; ++v) w[v] = weights_at<Brain>(weights + v * t.panel);
#pragma unroll
    for (int r = 0; r < R; ++r)
#pragma unroll
      for (int v = 0; v < P; ++v) chain[r][v] = fma(set(x[r]), w[v], chain[r][v]);
  }
#pragma unroll
  for (int v = 0; v < P; ++v)
#pragma unroll
    for (int r = 0; r < R; ++r) store(t.c + r * t.c_row + v * k_panel, chain[r][v], v + 1 < P ? full : some);
}

template <bool Brain>
void half_rows(const HalfTile& t, std::size_t rows) noexcept {
  if constexpr (k_most_rows >= 16)
    if (rows == 16) return half_tile<Brain, 16, 1>(t);
  if (rows == 8) return half_tile<Brain, 8, 1>(t);
  if (rows == 4) return half_tile<Brain, 4, 1>(t);
  if (rows == 2) return half_tile<Brain, 2, 1>(t);
  half_tile<Brain, 1, 1>(t);
}

template <bool Brain>
void half_product(const PackedProduct& p, std::size_t first, std::size_t last) noexcept {
  const std::size_t panel_bytes = packed_panel_bytes(p.packing, p.k), step = p.m == 1 ? p.k : k_depth;
  constexpr std::size_t most = k_most_rows >= 16 ? 16 : 8;
  for (std::size_t begin = 0; begin < p.k; begin += step)
    for (std::size_t v = first * k_vectors; v < last * k_vectors && v * k_lanes < p.n; ++v) {
      const std::size_t j = v * k_lanes;
      HalfTile t{};
      t.panel = panel_bytes;
      t.weights = static_cast<Bytes>(p.weights) + v / k_vectors * panel_bytes + begin * 2 * k_panel + j % k_panel * 2;
      t.k = p.k - begin < step ? p.k - begin : step;
      t.c_row = p.c_row;
      t.from_c = p.accumulate || begin > 0;
      t.bias = p.bias && begin == 0 ? p.bias + j : nullptr;
      t.cols = p.n - j < k_lanes ? p.n - j : k_lanes;
      const auto* rows = static_cast<const float*>(p.rows);
      if (p.m == 1 && k_vectors == 1 && v + 4 <= last && j + 3 * k_panel < p.n) {  // four panels side by side
        t.cols = p.n - j - 3 * k_panel < k_lanes ? p.n - j - 3 * k_panel : k_lanes;
        t.rows = rows;
        t.step = 1;
        t.c = p.c + j;
        half_tile<Brain, 1, 4>(t);
        v += 3;
        continue;
      }
      for (std::size_t i = 0; i < p.m;) {
        const std::size_t run = run_of(p.m - i), part = run < most ? run : most;
        t.step = run;
        for (std::size_t r = 0; r < run; r += part, i += part) {
          t.rows = rows + (i - r) * p.k + begin * run + r;
          t.c = p.c + static_cast<std::ptrdiff_t>(i) * p.c_row + j;
          half_rows<Brain>(t, part);
        }
      }
    }
}

void packed_product(const PackedProduct& p, std::size_t first, std::size_t last) noexcept {
  switch (p.packing) {
    case Packing::q4_0: return product_of<Q40>(p, first, last);
    case Packing::q8_0: return product_of<Q80>(p, first, last);
    case Packing::q4_k: return product_of<Q4K>(p, first, last);
    case Packing::q6_k: return product_of<Q6K>(p, first, last);
    case Packing::f16: return half_product<false>(p, first, last);
    default: return half_product<true>(p, first, last);
  }
}

// --- rows ---

// 32 elements: quants, the scale, and the sums of the quants of both halves.
QORUS_INLINE void quantise(const float* x, std::uint8_t* quants, float& scale, std::int32_t (&sums)[2]) {
  constexpr int n = 32 / int(k_lanes);
  F32 v[n];
  I32 largest = set(0);
#pragma unroll
  for (int i = 0; i < n; ++i) {
    v[i] = load(x + std::size_t(i) * k_lanes);
    largest = max(largest, bits(abs(v[i])));  // as whole numbers, a NaN is larger than infinity, that than the rest
  }
  const float most = float_of(largest_of(largest));
  if (!(most >= 1e-30f && most <= 3.4028235e38f)) {
    std::memset(quants, 0, 32);
    sums[0] = sums[1] = 0;
    scale = most < 1e-30f ? 0 : float_of(0x7fc00000);
    return;
  }
  const F32 inverse = set(127.0f / most);
  const auto digits = std::uint32_t(bits_of(most / 127.0f));  // 11 of them, to nearest
  scale = float_of(std::int32_t((digits + 0xfff + (digits >> 13 & 1)) & ~0x1fffu));
#pragma unroll
  for (int h = 0; h < 2; ++h) {
    I32 sum = set(0);
#pragma unroll
    for (int i = h * n / 2; i < (h + 1) * n / 2; ++i) {
      const I32 q = to_whole(v[i] * inverse);
      store_narrow(quants + std::size_t(i) * k_lanes, q);
      sum = sum + q;
    }
    sums[h] = sum_of(sum);
  }
}

// x: rows of k floats, x_row apart, as to[k][rows].
void interleave(const float* x, std::ptrdiff_t x_row, std::size_t rows, std::size_t k, float* to) noexcept {
  if (rows == 1) {
    std::memcpy(to, x, k * sizeof(float));
    return;
  }
  std::size_t done = 0;
  if (rows == k_lanes || rows == 2 * k_lanes)
    for (; done + k_lanes <= k; done += k_lanes)
      for (std::size_t r = 0; r < rows; r += k_lanes) {
        F32 square[k_lanes];
#pragma unroll
        for (std::size_t i = 0; i < k_lanes; ++i) square[i] = load(x + std::ptrdiff_t(r + i) * x_row + done);
        transpose_square(square);
#pragma unroll
        for (std::size_t i = 0; i < k_lanes; ++i) store(to + (done + i) * rows + r, square[i]);
      }
  for (; done < k; ++done)
    for (std::size_t r = 0; r < rows; ++r) to[done * rows + r] = x[std::ptrdiff_t(r) * x_row + std::ptrdiff_t(done)];
}

void pack_rows(Packing packing, const float* x, std::ptrdiff_t x_row, void* packed, std::size_t, std::size_t k,
               std::size_t first, std::size_t last) noexcept {
  const std::size_t bytes = packed_row_bytes(packing, k);
  const std::int32_t offset = packing == Packing::q4_0 ? 8 : packing == Packing::q8_0 ? 128 : 32;
  for (std::size_t i = first; i < last;) {
    const std::size_t rows = run_of(last - i);
    auto* to = static_cast<std::uint8_t*>(packed) + i * bytes;
    const float* from = x + static_cast<std::ptrdiff_t>(i) * x_row;
    i += rows;
    if (packing >= Packing::f16) {
      interleave(from, x_row, rows, k, reinterpret_cast<float*>(to));
      continue;
    }
    for (std::size_t r = 0; r < rows; ++r, from += x_row)
      for (std::size_t b = 0; b < k / 32; ++b) {
        std::uint8_t* block = to + b * rows * 44;
        float scale = 0;
        std::int32_t sums[2];
        quantise(from + 32 * b, block + 32 * r, scale, sums);
        std::memcpy(block + 32 * rows + 4 * r, &scale, 4);
        std::int32_t words[2] = {-offset * (sums[0] + sums[1]), 0};
        if (packing == Packing::q6_k) words[0] = -offset * sums[0], words[1] = -offset * sums[1];
        const float negative = float(-(sums[0] + sums[1]));
        if (packing == Packing::q4_k) std::memcpy(words, &negative, 4);
        std::memcpy(block + 36 * rows + 8 * r, words, 8);
      }
  }
}

void pack_weights(Packing packing, const void* rows, void* packed, std::size_t n, std::size_t k, std::size_t first,
                  std::size_t last) noexcept {
  packed_scalar.pack_weights(packing, rows, packed, n, k, first, last);
}

}  // namespace
}  // namespace qorus::kernels
