// Products with packed weights over the vector type; scalar/packed.cpp defines them. Included by one instruction set's packed.cpp after its
// vec.h and what that file says of sums of byte products; everything has internal linkage.
//
//   one row        weights go from memory to the sums by way of registers alone, panel by panel
//   more rows      a panel's next k_depth elements are unpacked to bytes or pairs of them and f32 scales, then all runs of rows go over them. Both are read
//                  from the second-level cache, from end to end; c, whose rows may share a few sets of the caches, once in k_depth
#pragma once
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "kernels/parts.h"
#include "kernels/simd/packed_formats.h"

namespace qorus::kernels {
namespace {

constexpr std::size_t k_depth = 4096;  // elements of k that are unpacked at a time, at most
constexpr std::size_t k_run = 16;      // rows of x that are packed together, at most

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

// --- tiles: rows of one run, R at a time, by one vector of columns ---

struct PackedTile {
  Bytes weights;
  std::size_t lane;            // of the panel, where this vector begins
  Bytes quants, scales, sums;  // of the first row
  std::size_t rows;            // at most k_run, a multiple of R
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
  constexpr std::size_t vectors = S::k_groups + S::k_leasts;
  constexpr bool wide = S::k_wide && k_wide_differs, corrected = S::k_size == 1 && S::k_leasts == 0 && !wide,
                 adds_words = S::k_words > 1 && k_adds_words;
  constexpr int quads = 8 * S::k_size, row_bytes = 32 * S::k_size;
  // Where the scale is one, the whole block is one sum: in two chains if there is no other row to wait for.
  constexpr int half = S::k_groups == 2 || S::k_size == 2 || R == 1;
  const Some some = first_lanes(t.cols);
  alignas(64) float kept[R == 1 ? k_lanes : k_run * k_lanes];  // of several rows, the chains stand in memory
  F32 chain{};
  for (std::size_t i = 0; i < t.rows; ++i) {
    const float* c = t.c + static_cast<std::ptrdiff_t>(i) * t.c_row;
    chain = t.from_c ? load(c, some) : set(0.0f);
    if (t.bias) chain = t.from_c ? chain + load(t.bias, some) : load(t.bias, some);
    if (R > 1) store(kept + i * k_lanes, chain);
  }
  Bytes weights = t.weights, quants = t.quants, row_scales = t.scales, row_sums = t.sums;
  for (std::size_t left = t.blocks; left > 0; left -= S::k_blocks, weights += S::k_bytes) {
    alignas(64) float room[S::k_blocks * vectors * k_lanes];
    const float* scales = S::scales(weights, t.lane, room);
#pragma unroll(S::k_unroll)
    for (std::size_t b = 0; b < S::k_blocks; ++b) {
      I32 w[quads];
      S::quants(weights, t.lane, b, w);
      const F32 scale = load(scales), second = load(scales + (S::k_groups - 1) * k_lanes),
                least = load(scales + (vectors - (S::k_leasts == 2 ? 2 : 1)) * k_lanes),
                second_least = load(scales + (vectors - 1) * k_lanes);
      for (std::size_t first = 0; first < (R == 1 ? 1 : t.rows); first += R) {
        Bytes own = quants + row_bytes * first, sums = row_sums + 8 * first, factors = row_scales + 4 * first;
        I32 sum[R][2];
#pragma unroll
        for (int r = 0; r < R; ++r) {
          sum[r][0] = corrected ? set(word_at(sums + 8 * r)) : set(0);
          sum[r][1] = corrected && S::k_groups == 2 ? set(word_at(sums + 8 * r + 4)) : set(0);
        }
        [[maybe_unused]] I32 words[R];
#pragma unroll
        for (int i = 0; i < quads; ++i)
#pragma unroll
          for (int r = 0; r < R; ++r) {  // by turns: none waits for its sum
            I32& part = sum[r][i / (quads / 2) * half];
            Bytes x = own + row_bytes * r + 4 * i;
            if constexpr (S::k_size == 2) {
              part = dot_pairs(part, w[i], x);
            } else if constexpr (adds_words) {
              words[r] = i % S::k_words == 0 ? word_products(w[i], x) : add_words(words[r], word_products(w[i], x));
              if (i % S::k_words == S::k_words - 1) part = add_pairs(part, words[r]);
            } else {
              part = dot<wide>(part, w[i], x);
            }
          }
#pragma unroll
        for (int r = 0; r < R; ++r) {
          if constexpr (half && S::k_groups == 1 && S::k_size == 1) sum[r][0] = sum[r][0] + sum[r][1];
          F32 value = to_float(sum[r][0]);
          if constexpr (S::k_size == 2) value = value + to_float(sum[r][1]);
          value = value * scale;
          if constexpr (S::k_groups == 2) value = fma(second, to_float(sum[r][1]), value);
          if constexpr (S::k_leasts > 0) value = fma(least, set(float_at(sums + 8 * r)), value);
          if constexpr (S::k_leasts > 1) value = fma(second_least, set(float_at(sums + 8 * r + 4)), value);
          const F32 factor = set(float_at(factors + 4 * r));
          float* to = kept + (first + std::size_t(r)) * k_lanes;
          if constexpr (R == 1)
            chain = fma(value, factor, chain);
          else
            store(to, fma(value, factor, load(to)));
        }
      }
      scales += vectors * k_lanes;
      quants += t.step;
      row_scales += t.step;
      row_sums += t.step;
    }
  }
  for (std::size_t i = 0; i < t.rows; ++i)
    store(t.c + static_cast<std::ptrdiff_t>(i) * t.c_row, R == 1 ? chain : load(kept + i * k_lanes), some);
}

constexpr std::size_t run_of(std::size_t left) {
  return left >= k_run ? k_run : left >= 8 ? 8 : left >= 4 ? 4 : left >= 2 ? 2 : 1;
}

// All rows over `blocks` blocks of k from block `begin` on, of one vector of columns.
template <class S>
void all_rows(const PackedProduct& p, PackedTile t, std::size_t begin) noexcept {
  constexpr std::size_t quants = 32 * S::k_size, block = quants + (S::k_size == 1 ? 12 : 4);
  float* const c = t.c;
  for (std::size_t i = 0; i < p.m;) {
    const std::size_t rows = run_of(p.m - i);
    Bytes run = static_cast<Bytes>(p.rows) + i * (p.k / 32) * block + begin * rows * block;
    t.step = rows * block;
    const bool four = rows >= 4;
    t.rows = four ? rows : 1;
    for (std::size_t r = 0; r < rows; r += t.rows, i += t.rows) {
      t.quants = run + quants * r;
      t.scales = run + quants * rows + 4 * r;
      t.sums = run + (quants + 4) * rows + 8 * r;
      t.c = c + static_cast<std::ptrdiff_t>(i) * p.c_row;
      four ? tile<S, 4>(t) : tile<S, 1>(t);
    }
  }
}

// One vector of columns, from block `begin` of k on; its weights too.
QORUS_INLINE PackedTile tile_of(const PackedProduct& p, std::size_t v, std::size_t begin, Bytes weights) {
  const std::size_t j = v * k_lanes;
  PackedTile t;
  t.lane = j % k_panel;
  t.weights = weights;
  t.c = p.c + j;
  t.c_row = p.c_row;
  t.cols = p.n - j < k_lanes ? p.n - j : k_lanes;
  t.from_c = p.accumulate || begin > 0;
  t.bias = p.bias && begin == 0 ? p.bias + j : nullptr;
  return t;
}

// One row.
template <class F>
void run_row(const PackedProduct& p, std::size_t first, std::size_t last) noexcept {
  constexpr std::size_t quants = 32 * F::k_size;
  const std::size_t panel_bytes = p.k / 32 / F::k_blocks * F::k_bytes;
  for (std::size_t v = first * k_vectors; v < last * k_vectors && v * k_lanes < p.n; ++v) {
    PackedTile t = tile_of(p, v, 0, static_cast<Bytes>(p.weights) + v / k_vectors * panel_bytes);
    t.quants = static_cast<Bytes>(p.rows);
    t.scales = t.quants + quants;
    t.sums = t.scales + 4;
    t.rows = 1;
    t.step = quants + (F::k_size == 1 ? 12 : 4);
    t.blocks = p.k / 32;
    tile<F, 1>(t);
  }
}

// Several rows: how a packing is unpacked, and what goes over that. Once, for all packings.
[[gnu::noinline]] void run_rows(const PackedProduct& p, std::size_t first, std::size_t last,
                                void (*unpack)(Bytes panel, std::size_t lane, std::size_t blocks,
                                               std::uint8_t* out) noexcept,
                                void (*all_rows)(const PackedProduct& p, PackedTile t,
                                                 std::size_t begin) noexcept) noexcept {
  constexpr std::size_t depth = k_depth / 32, most = 8;  // blocks in a superblock
  const std::size_t blocks = p.k / 32, parts = (blocks + depth - 1) / depth;
  const std::size_t step = parts <= 1 ? blocks : (blocks + parts * most - 1) / (parts * most) * most;
  const std::size_t panel_bytes = packed_panel_bytes(p.packing, p.k);
  for (std::size_t begin = 0; begin < blocks; begin += step) {
    Bytes weights = static_cast<Bytes>(p.weights) + packed_panel_bytes(p.packing, begin * 32);
    for (std::size_t v = first * k_vectors; v < last * k_vectors && v * k_lanes < p.n; ++v) {
      constexpr std::size_t largest = (8 * 2 + 1) * k_quad_bytes;  // of the unpacked blocks
      alignas(64) std::uint8_t room[depth * largest];
      PackedTile t = tile_of(p, v, begin, weights + v / k_vectors * panel_bytes);
      t.blocks = blocks - begin < step ? blocks - begin : step;
      unpack(t.weights, t.lane, t.blocks, room);
      t.weights = room;
      all_rows(p, t, begin);
    }
  }
}

template <class F>
void run_format(const PackedProduct& p, std::size_t first, std::size_t last) noexcept {
  if (p.m == 1) return run_row<F>(p, first, last);
  run_rows(p, first, last, unpack<F>, all_rows<UnpackedOf<F>>);
}

void packed_product(const PackedProduct& p, std::size_t first, std::size_t last) noexcept {
  switch (p.packing) {
    case Packing::q4_0: return run_format<Q40>(p, first, last);
    case Packing::q4_1: return run_format<Q41>(p, first, last);
    case Packing::q5_0: return run_format<Q50>(p, first, last);
    case Packing::q5_1: return run_format<Q51>(p, first, last);
    case Packing::q8_0: return run_format<Q80>(p, first, last);
    case Packing::q2_k: return run_format<Q2K>(p, first, last);
    case Packing::q3_k: return run_format<Q3K>(p, first, last);
    case Packing::q4_k: return run_format<Q4K>(p, first, last);
    case Packing::q5_k: return run_format<Q5K>(p, first, last);
    case Packing::q6_k: return run_format<Q6K>(p, first, last);
    case Packing::iq4_nl: return run_format<Iq4Nl>(p, first, last);
    case Packing::iq4_xs: return run_format<Iq4Xs>(p, first, last);
    default: return run_format<WholeNumbers>(p, first, last);
  }
}

}  // namespace
}  // namespace qorus::kernels
