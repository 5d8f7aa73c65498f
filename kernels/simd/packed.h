// Products with packed weights over the vector type; scalar/packed.cpp defines them. Included by one instruction set's packed.cpp after its
// vec.h and what that file says of sums of byte products; everything has internal linkage.
//
//   one row        weights go from memory to the sums by way of registers alone, panel by panel
//   a few rows     the same by one row after the other; or (k_goes_over_few) a block's weights stay in registers while all rows go over them
//   more rows      a panel's next k_depth elements are unpacked to bytes or pairs of them and f32 scales, then all runs of rows go over them, four rows at
//                  a time. Both are read from the second-level cache, from end to end; c, whose rows may share a few sets of the caches, once in k_depth
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
constexpr int k_least_unpacked = 4;    // rows that go over unpacked weights at a time: none are unpacked for fewer
// Whether several rows go over weights as they stand together. In the formats that models mostly come in: 2 KB of code each.
template <class F>
constexpr bool k_goes_over_few =
    (k_unpacked_from > k_least_unpacked) && (__is_same(F, Q40) || __is_same(F, Q80) || __is_same(F, Q4K) ||
                                             __is_same(F, Q5K) || __is_same(F, Q6K) || __is_same(F, WholeNumbers));

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

// --- tiles: rows of one run by one panel of columns ---

struct PackedTile {
  Bytes weights;               // of the panel
  Bytes quants, scales, sums;  // of the first row
  std::size_t rows;            // at most k_run
  std::size_t step;            // bytes from block to block of the rows
  std::size_t blocks;          // of 32 elements
  float* c;
  std::ptrdiff_t c_row;
  std::size_t cols;   // of this panel, at most k_panel
  const float* bias;  // of this panel, or null
  bool from_c;
  Bytes fetch;  // what one row fetches meanwhile, and how much of it with each vector of a block
  std::size_t fetch_step;
};

// Asks for what lies at `from`, `step` bytes with each turn: processors forget what they are asked for faster than they can read. 3: into
// the first-level cache, 2: the second.
template <int t_level>
struct Fetch {
  Bytes from;
  std::size_t step, due = 0, asked = 0;
  QORUS_INLINE void turn() {
    for (; asked < due + step; asked += 64) __builtin_prefetch(from + asked, 0, t_level);
    due += step;
  }
};

// Chains stand in memory, a panel's row after the other: where they start, and where they go.
[[gnu::noinline]] void start_chains(const PackedTile& t, float* chains) noexcept {
  for (std::size_t i = 0; i < t.rows; ++i) __builtin_prefetch(t.c + static_cast<std::ptrdiff_t>(i) * t.c_row, 1);
  for (std::size_t lane = 0; lane < k_panel; lane += k_lanes) {
    const Some some = first_lanes(t.cols < lane ? 0 : t.cols - lane);
    const F32 bias = t.bias ? load(t.bias + lane, some) : set(0.0f);
    for (std::size_t i = 0; i < t.rows && !t.from_c; ++i) store(chains + i * k_panel + lane, bias);
    for (std::size_t i = 0; i < t.rows && t.from_c; ++i) {
      const F32 chain = load(t.c + static_cast<std::ptrdiff_t>(i) * t.c_row + lane, some);
      store(chains + i * k_panel + lane, t.bias ? chain + bias : chain);
    }
  }
}
[[gnu::noinline]] void put_chains(const PackedTile& t, const float* chains) noexcept {
  for (std::size_t i = 0; i < t.rows; ++i, chains += k_panel) {
    float* const c = t.c + static_cast<std::ptrdiff_t>(i) * t.c_row;
    for (std::size_t lane = 0; lane < k_panel; lane += k_lanes) {
      const F32 chain = load(chains + lane);
      if (t.cols == k_panel)  // a store of some lanes takes longer
        store(c + lane, chain);
      else
        store(c + lane, chain, first_lanes(t.cols < lane ? 0 : t.cols - lane));
    }
  }
}

// What a block adds to a chain: its sum of products, or one for each half, times the weights' scales, less what minima make of the row's own
// sums, times the row's scale. `scales`: of one vector; a block's others are k_scale_step apart.
template <class S>
struct BlockValue {
  static constexpr int k_halves = S::k_groups == 2 || S::k_size == 2 ? 2 : 1;
  F32 value;

  QORUS_INLINE void add(I32 sum, int half, const float* scales) {
    const F32 part = to_float(sum);
    if (half == 0)
      value = S::k_size == 2 ? part : part * load(scales);
    else if (S::k_size == 2)
      value = (value + part) * load(scales);
    else
      value = fma(load(scales + S::k_scale_step), part, value);
  }
  QORUS_INLINE F32 added_to(F32 chain, const float* scales, Bytes sums, Bytes factor) {
    if constexpr (S::k_leasts > 0)
      value = fma(load(scales + S::k_groups * S::k_scale_step), set(float_at(sums)), value);
    if constexpr (S::k_leasts > 1)
      value = fma(load(scales + (S::k_groups + 1) * S::k_scale_step), set(float_at(sums + 4)), value);
    return fma(value, set(float_at(factor)), chain);
  }
};

// The sum of products of a block, or of a part of it, of one row and one vector of weights.
template <class S, class Sum = I32>
struct QuadSum {
  // Whether a product is one step and its sum another: where there are several rows, those products come first that nothing waits for.
  static constexpr bool k_in_two = S::k_words > 2 || (S::k_size == 2 && k_adds_words);
  Sum sum, words;

  // The product of a quad of weights (or of two pairs) with that of x, if that is a step of its own; otherwise the weights.
  QORUS_INLINE static Sum product(Sum w, Sum x) {
    if constexpr (k_in_two) w = S::k_size == 2 ? pair_products(w, x) : word_products(w, x);
    return w;
  }
  QORUS_INLINE static Sum product(Sum w, Bytes x) {
    if constexpr (k_in_two) w = product(w, set(word_at(x)));
    return w;
  }

  // Adds the i-th of `count` of them. start: what the sum begins with, or null. Where 16 bits hold several sums, they meet in `words` first.
  QORUS_INLINE void add(Sum product, Bytes x, int i, int count, Bytes start) {
    const auto begin = [&] { return start ? set(word_at(start)) : set(0); };
    if constexpr (S::k_words > 1) {
      if constexpr (!k_in_two) product = word_products(product, set(word_at(x)));
      const int run = S::k_words < count ? S::k_words : count;
      words = i % run == 0 ? product : add_words(words, product);
      in_order(words);
      if (i % run == run - 1) sum = add_pairs(i < run ? begin() : sum, words, S::k_split && i >= 8 ? 16 : 1);
    } else {
      if (i == 0) sum = begin();
      constexpr bool wide = S::k_wide && k_wide_differs;
      if constexpr (k_in_two)
        sum = sum + product;
      else if constexpr (S::k_size == 2)
        sum = dot_pairs(sum, product, x);
      else
        sum = dot<wide>(sum, product, x);
      in_order(sum);
    }
  }
};

// A block of one vector of weights times that of one row, added to a chain. row: the quants; sums, factor: of the row.
template <class S>
QORUS_INLINE F32 add_block(F32 chain, const I32 (&w)[8 * S::k_size], Bytes row, Bytes sums, Bytes factor,
                           const float* scales) {
  using Value = BlockValue<S>;
  constexpr bool corrected = S::k_size == 1 && S::k_leasts == 0 && !(S::k_wide && k_wide_differs);
  // Two chains even where a block is one sum, unless that is of words: there may be no other row to wait for.
  constexpr int quads = 8 * S::k_size, parts = Value::k_halves == 2 || S::k_words < quads ? 2 : 1,
                count = quads / parts;
  QuadSum<S> sum[2];
#pragma unroll
  for (int i = 0; i < quads; ++i) {
    const int part = i / count;
    Bytes x = row + 4 * i;
    sum[part].add(QuadSum<S>::product(w[i], x), x, i % count, count,
                  corrected && part < Value::k_halves ? sums + 4 * part : nullptr);
  }
  if (Value::k_halves < parts) sum[0].sum = sum[0].sum + sum[1].sum;
  Value value;
#pragma unroll
  for (int half = 0; half < Value::k_halves; ++half) value.add(sum[half].sum, half, scales);
  return value.added_to(chain, scales, sums, factor);
}

// One row, with weights as they stand.
template <class S>
[[gnu::noinline]] void tile_of_row(const PackedTile& t) noexcept {
  alignas(64) float chains[k_panel];
  start_chains(t, chains);
  F32 chain[k_vectors];
#pragma unroll
  for (std::size_t v = 0; v < k_vectors; ++v) chain[v] = load(chains + v * k_lanes);
  Bytes weights = t.weights, quants = t.quants;
  constexpr std::size_t own_step = S::k_bytes / (k_vectors * S::k_blocks);
  Bytes ahead = weights + k_fetched_ahead;
  Fetch<3> fetch{t.fetch, t.fetch_step};
  for (std::size_t left = t.blocks; left > 0; left -= S::k_blocks) {
#pragma unroll(S::k_blocks == 1 ? k_vectors : 1)
    for (std::size_t lane = 0; lane < k_panel; lane += k_lanes) {
      alignas(64) float room[S::k_blocks * (S::k_groups + S::k_leasts) * k_lanes];
      const float* scales = S::scales(weights, lane, room);
      F32 own = chain[lane / k_lanes];
      Bytes row = quants;
#pragma unroll(S::k_unroll)
      for (std::size_t b = 0; b < S::k_blocks; ++b, row += t.step) {
        Bytes factor = row + (t.scales - t.quants), sums = row + (t.sums - t.quants);
        if (t.fetch)
          fetch.turn();
        else if (k_fetched_ahead > 0)
          for (std::size_t i = 0; i < own_step; i += 64) __builtin_prefetch(ahead + i);
        ahead += own_step;
        I32 w[8 * S::k_size];
        S::quants(weights, lane, b, w);
        own = add_block<S>(own, w, row, sums, factor, scales);
        scales += (S::k_groups + S::k_leasts) * k_lanes;
      }
      chain[lane / k_lanes] = own;
    }
    weights += S::k_bytes;
    quants += S::k_blocks * t.step;
  }
#pragma unroll
  for (std::size_t v = 0; v < k_vectors; ++v) store(chains + v * k_lanes, chain[v]);
  put_chains(t, chains);
}

// A few rows, with weights as they stand: a block's are in registers while all rows go over them. From four rows on that takes longer than
// processors read ahead for, so what comes is asked for.
template <class S>
[[gnu::noinline]] void tile_of_few(const PackedTile& t) noexcept {
  alignas(64) float chains[k_run * k_panel];
  start_chains(t, chains);
  Bytes weights = t.weights, quants = t.quants;
  constexpr std::size_t k_few_ahead = 3072, own_step = S::k_bytes / (k_vectors * S::k_blocks);
  const std::size_t asked = t.rows < 4 ? 0 : own_step;
  Bytes ahead = weights + k_few_ahead;
  for (std::size_t left = t.blocks; left > 0; left -= S::k_blocks, weights += S::k_bytes) {
    for (std::size_t lane = 0; lane < k_panel; lane += k_lanes) {
      alignas(64) float room[S::k_blocks * (S::k_groups + S::k_leasts) * k_lanes];
      const float* scales = S::scales(weights, lane, room);
      Bytes block = quants;
#pragma unroll(S::k_unroll)
      for (std::size_t b = 0; b < S::k_blocks; ++b, block += t.step) {
        for (std::size_t i = 0; i < asked; i += 64) __builtin_prefetch(ahead + i);
        ahead += own_step;
        I32 w[8 * S::k_size];
        S::quants(weights, lane, b, w);
        Bytes row = block, factor = block + (t.scales - t.quants), sums = block + (t.sums - t.quants);
        float* chain = chains + lane;
        for (std::size_t r = 0; r < t.rows; ++r, chain += k_panel) {
          store(chain, add_block<S>(load(chain), w, row, sums, factor, scales));
          row += 32 * S::k_size, sums += 8, factor += 4;
        }
        scales += (S::k_groups + S::k_leasts) * k_lanes;
      }
    }
    quants += S::k_blocks * t.step;
  }
  put_chains(t, chains);
}

// Several rows, R at a time by turns, with unpacked weights: a quad of x that is loaded meets all vectors of the panel.
template <class S>
[[gnu::noinline]] void tile_of_rows(const PackedTile& t, Bytes weights) noexcept {
  using Value = BlockValue<S>;
  constexpr int R = k_least_unpacked, k_rows_in_turn = 2;
  constexpr int quads = S::k_quads / Value::k_halves, row_bytes = 32 * S::k_size;
  constexpr bool corrected = S::k_size == 1 && S::k_leasts == 0;
  alignas(64) float chains[k_run * k_panel];
  start_chains(t, chains);
  Bytes quants = t.quants, row_scales = t.scales, row_sums = t.sums;
  for (std::size_t b = 0; b < t.blocks; ++b, weights += S::k_bytes) {
    for (std::size_t first = 0; first < t.rows; first += R) {
      Bytes own = quants + row_bytes * first, sums = row_sums + 8 * first, factors = row_scales + 4 * first;
      Value value[R][k_vectors];
#pragma unroll
      for (int half = 0; half < Value::k_halves; ++half) {
        QuadSum<S> sum[R][k_vectors];
#pragma unroll
        for (int i = half * quads; i < (half + 1) * quads; ++i) {
          I32 w[k_vectors];
#pragma unroll
          for (std::size_t v = 0; v < k_vectors; ++v) w[v] = S::quad(weights, v * k_lanes, i);
#pragma unroll
          for (int r = 0; r < R; r += k_rows_in_turn) {  // by turns: no sum waits for its product or the sum before it
            I32 products[k_rows_in_turn][k_vectors];
            Bytes x[k_rows_in_turn];
#pragma unroll
            for (int j = 0; j < k_rows_in_turn; ++j) {
              x[j] = own + row_bytes * (r + j) + 4 * i % row_bytes;
              const I32 quad = set(word_at(x[j]));
#pragma unroll
              for (std::size_t v = 0; v < k_vectors; ++v) {
                products[j][v] = QuadSum<S>::product(w[v], quad);
                if (QuadSum<S>::k_in_two) made_before_next(products[j][v]);
              }
            }
#pragma unroll
            for (int j = 0; j < k_rows_in_turn; ++j)
#pragma unroll
              for (std::size_t v = 0; v < k_vectors; ++v)
                sum[r + j][v].add(products[j][v], x[j], i - half * quads, quads,
                                  corrected ? sums + 8 * (r + j) + 4 * half : nullptr);
          }
          quad_ends();
        }
#pragma unroll
        for (int r = 0; r < R; ++r)
#pragma unroll
          for (std::size_t v = 0; v < k_vectors; ++v)
            value[r][v].add(sum[r][v].sum, half, S::scales(weights, v * k_lanes));
      }
#pragma unroll
      for (int r = 0; r < R; ++r)
#pragma unroll
        for (std::size_t v = 0; v < k_vectors; ++v) {
          float* const chain = chains + (first + std::size_t(r)) * k_panel + v * k_lanes;
          store(chain,
                value[r][v].added_to(load(chain), S::scales(weights, v * k_lanes), sums + 8 * r, factors + 4 * r));
        }
    }
    quants += t.step;
    row_scales += t.step;
    row_sums += t.step;
  }
  put_chains(t, chains);
}

constexpr std::size_t run_of(std::size_t left) {
  return left >= k_run ? k_run : left >= 8 ? 8 : left >= 4 ? 4 : left >= 2 ? 2 : 1;
}

// All rows over t.blocks blocks of k from block `begin` on, of one panel: fours and more of them over what was unpacked, if it was, the others
// over the weights as they stand, together or one by one.
template <class F>
void all_rows(const PackedProduct& p, PackedTile t, Bytes unpacked, std::size_t begin) noexcept {
  using S = UnpackedOf<F>;
  constexpr std::size_t quants = 32 * S::k_size, block = quants + (S::k_size == 1 ? 12 : 4);
  float* const c = t.c;
  for (std::size_t i = 0; i < p.m;) {
    const std::size_t rows = run_of(p.m - i);
    Bytes run = static_cast<Bytes>(p.rows) + (i * (p.k / 32) + begin * rows) * block;
    t.step = rows * block;
    const bool by_fours = unpacked && rows >= k_least_unpacked, few = k_goes_over_few<F> && !by_fours && rows > 1;
    t.rows = by_fours || few ? rows : 1;
    for (std::size_t r = 0; r < rows; r += t.rows, i += t.rows) {
      t.quants = run + quants * r;
      t.scales = run + quants * rows + 4 * r;
      t.sums = run + (quants + 4) * rows + 8 * r;
      t.c = c + static_cast<std::ptrdiff_t>(i) * p.c_row;
      if (by_fours)
        tile_of_rows<S>(t, unpacked);
      else if constexpr (k_goes_over_few<F>)
        few ? tile_of_few<F>(t) : tile_of_row<F>(t);
      else
        tile_of_row<F>(t);
    }
  }
}

// One panel, from block `begin` of k on; its weights too.
QORUS_INLINE PackedTile tile_of(const PackedProduct& p, std::size_t panel, std::size_t begin, Bytes weights) {
  const std::size_t j = panel * k_panel;
  PackedTile t;
  t.weights = weights;
  t.c = p.c + j;
  t.c_row = p.c_row;
  t.cols = p.n - j < k_panel ? p.n - j : k_panel;
  t.from_c = p.accumulate || begin > 0;
  t.bias = p.bias && begin == 0 ? p.bias + j : nullptr;
  t.fetch = static_cast<Bytes>(p.fetch);
  t.fetch_step = p.fetch ? p.fetch_bytes / (p.k / 32 * k_vectors) : 0;
  return t;
}

// How a packing is unpacked, and what goes over that. Once, for all packings.
[[gnu::noinline]] void run_panels(const PackedProduct& p, std::size_t first, std::size_t last,
                                  std::size_t unpacked_from,
                                  void (*unpack)(Bytes panel, std::size_t blocks, std::uint8_t* out) noexcept,
                                  void (*all_rows)(const PackedProduct& p, PackedTile t, Bytes unpacked,
                                                   std::size_t begin) noexcept) noexcept {
  constexpr std::size_t depth = k_depth / 32, most = 8;  // blocks in a superblock
  const bool unpacks = p.m >= unpacked_from;
  const std::size_t blocks = p.k / 32, parts = unpacks ? (blocks + depth - 1) / depth : 1;
  const std::size_t step = parts == 1 ? blocks : (blocks + parts * most - 1) / (parts * most) * most;
  const std::size_t panel_bytes = packed_panel_bytes(p.packing, p.k);
  for (std::size_t begin = 0; begin < blocks; begin += step) {
    Bytes weights = static_cast<Bytes>(p.weights) + packed_panel_bytes(p.packing, begin * 32);
    for (std::size_t panel = first; panel < last; ++panel) {
      constexpr std::size_t largest = (8 * 2 + 1) * 4 * k_panel;  // of the unpacked blocks
      alignas(64) std::uint8_t room[depth * largest];
      PackedTile t = tile_of(p, panel, begin, weights + panel * panel_bytes);
      t.blocks = blocks - begin < step ? blocks - begin : step;
      if (unpacks) unpack(t.weights, t.blocks, room);
      all_rows(p, t, unpacks ? room : nullptr, begin);
    }
  }
}

template <class F>
void run_format(const PackedProduct& p, std::size_t first, std::size_t last) noexcept {
  run_panels(p, first, last, k_goes_over_few<F> ? k_unpacked_from : k_least_unpacked, unpack<F>, all_rows<F>);
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
