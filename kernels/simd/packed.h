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

#include "kernels/packing.h"
#include "kernels/parts.h"

namespace qorus::kernels {
namespace {

using Bytes = const std::uint8_t*;

constexpr std::size_t k_vectors = k_panel / k_lanes;  // of f32 in a panel's row
constexpr std::size_t k_quad_bytes = 4 * k_lanes;     // of 4-byte pieces for as many rows
constexpr std::size_t k_depth = 4096;                 // elements of k that are unpacked at a time, at most

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
//   k_size   bytes of a quant
//   k_words  how many products of pairs of bytes 16 bits hold
//   k_forms  how many kinds of blocks take turns, their bits lying differently: quants<0>, quants<1>, …

struct Q40 {
  static constexpr std::size_t k_bytes = 18 * k_panel, k_blocks = 1, k_forms = 1;
  static constexpr int k_groups = 1, k_size = 1, k_words = 4;
  static constexpr bool k_least = false, k_wide = false;
  QORUS_INLINE static const float* scales(Bytes p, std::size_t lane, float* out) {
    store(out, halves_at(p, lane));
    return out;
  }
  template <int Form>
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
  static constexpr std::size_t k_bytes = 34 * k_panel, k_blocks = 1, k_forms = 1;
  static constexpr int k_groups = 1, k_size = 1, k_words = 1;
  static constexpr bool k_least = false, k_wide = true;
  QORUS_INLINE static const float* scales(Bytes p, std::size_t lane, float* out) { return Q40::scales(p, lane, out); }
  template <int Form>
  QORUS_INLINE static void quants(Bytes p, std::size_t lane, std::size_t, I32 (&w)[8]) {
#pragma unroll
    for (std::size_t i = 0; i < 8; ++i) w[i] = load_quads(p + 32 + 64 * i + 4 * lane);
  }
};

struct Q4K {
  static constexpr std::size_t k_bytes = 144 * k_panel, k_blocks = 8, k_forms = 2;
  static constexpr int k_groups = 1, k_size = 1, k_words = 4;
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
  template <int Form>
  QORUS_INLINE static void quants(Bytes p, std::size_t lane, std::size_t b, I32 (&w)[8]) {
#pragma unroll
    for (std::size_t i = 0; i < 8; ++i)
      w[i] = bytes_and(shift_right<4 * Form>(load_quads(p + 256 + 512 * (b / 2) + 64 * i + 4 * lane)), 15);
  }
};

struct Q5K {
  static constexpr std::size_t k_bytes = 176 * k_panel, k_blocks = 8, k_forms = 2;
  static constexpr int k_groups = 1, k_size = 1, k_words = 4;
  static constexpr bool k_least = true, k_wide = false;
  QORUS_INLINE static const float* scales(Bytes p, std::size_t lane, float* out) { return Q4K::scales(p, lane, out); }
  template <int Form>
  QORUS_INLINE static void quants(Bytes p, std::size_t lane, std::size_t b, I32 (&w)[8]) {
    Bytes upper = p + 256 + 4 * lane, lower = p + 768 + 512 * (b / 2) + 4 * lane;
#pragma unroll
    for (std::size_t i = 0; i < 8; ++i) {  // bit b of the upper part becomes bit 4
      const I32 high = bytes_and(shift_right_by(load_quads(upper + 64 * i), b), 1);
      w[i] = bytes_and(shift_right<4 * Form>(load_quads(lower + 64 * i)), 15) ^ shift_left<4>(high);
    }
  }
};

struct Q6K {
  static constexpr std::size_t k_bytes = 210 * k_panel, k_blocks = 8, k_forms = 4;
  static constexpr int k_groups = 2, k_size = 1, k_words = 2;
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
  template <int Form>
  QORUS_INLINE static void quants(Bytes p, std::size_t lane, std::size_t b, I32 (&w)[8]) {
    Bytes half = p + 288 + 1536 * (b / 4) + 4 * lane, lower = half + 1024 * (Form % 2), upper = half + 512;
#pragma unroll
    for (std::size_t i = 0; i < 8; ++i) {  // bits 2 Form and 2 Form + 1 of the upper part become bits 4 and 5
      const I32 both = load_quads(upper + 64 * i), low = load_quads(lower + 64 * i);
      const I32 high = Form < 2 ? shift_left<4 - 2 * (Form % 2)>(both) : Form == 2 ? both : shift_right<2>(both);
      w[i] = bytes_and(Form < 2 ? low : shift_right<4>(low), 15) ^ bytes_and(high, 48);
    }
  }
};

// f16 and bf16, as numbers of 14 bits: w[i] holds elements 2 i and 2 i + 1.
struct WholeNumbers {
  static constexpr std::size_t k_bytes = 58 * k_panel, k_blocks = 1, k_forms = 1;
  static constexpr int k_groups = 1, k_size = 2, k_words = 1;
  static constexpr bool k_least = false, k_wide = false;
  QORUS_INLINE static const float* scales(Bytes p, std::size_t lane, float* out) {
    store(out, from_bits(shift_left<16>(load_u16(reinterpret_cast<const std::uint16_t*>(p) + lane, All{}))));
    return out;
  }
  template <int Form>
  QORUS_INLINE static void quants(Bytes p, std::size_t lane, std::size_t, I32 (&w)[16]) {
#pragma unroll
    for (std::size_t pair = k_full_pairs; pair < k_pairs; ++pair) {
      I32 bits = set(0);
#pragma unroll
      for (std::size_t i = 0; i < k_sharing_pairs; ++i) {
        const std::size_t from = (pair - k_full_pairs) * k_sharing_pairs + i;
        const I32 both = load_quads(p + 32 + 64 * from + 4 * lane);
        bits = shift_left<2>(bits) ^ (both & set(0x00030003));
        w[from] = pairs_over_4(both);
      }
      w[pair] = pairs_over_4(shift_left<2>(bits));
    }
  }
};

template <int N>
struct Form {
  static constexpr int value = N;
};
// Calls use(block, Form) for all blocks of a superblock of S.
template <class S, class Use>
QORUS_INLINE void each_block(const Use& use) {
  for (std::size_t b = 0; b < S::k_blocks; b += S::k_forms) {
    use(b, Form<0>{});
    if constexpr (S::k_forms > 1) use(b + 1, Form<1>{});
    if constexpr (S::k_forms > 2) use(b + 2, Form<2>{}), use(b + 3, Form<3>{});
  }
}

// A block as `unpack` leaves it: 8 vectors of quants of one byte, or 16 of two, then those of scales and minima.
template <int Size, int Groups, bool Least, bool Wide, int Words>
struct Unpacked {
  static constexpr std::size_t k_bytes = (8 * Size + Groups + Least) * k_quad_bytes, k_blocks = 1, k_forms = 1;
  static constexpr int k_groups = Groups, k_size = Size, k_words = Words;
  static constexpr bool k_least = Least, k_wide = Wide;
  QORUS_INLINE static const float* scales(Bytes p, std::size_t, float*) {
    return reinterpret_cast<const float*>(p + 8 * Size * k_quad_bytes);
  }
  template <int Form>
  QORUS_INLINE static void quants(Bytes p, std::size_t, std::size_t, I32 (&w)[8 * Size]) {
#pragma unroll
    for (std::size_t i = 0; i < 8 * Size; ++i) w[i] = load_quads(p + k_quad_bytes * i);
  }
};
// Whether 8-bit quants need sums of their own is the instruction set's affair, and whether sums of few bits pay.
template <class F>
using UnpackedOf =
    Unpacked<F::k_size, F::k_groups, F::k_least, F::k_wide && k_wide_differs, k_adds_words ? F::k_words : 1>;

template <class F>
void unpack(Bytes panel, std::size_t lane, std::size_t blocks, std::uint8_t* out) noexcept {
  constexpr std::size_t vectors = F::k_groups + F::k_least;
  for (; blocks > 0; blocks -= F::k_blocks, panel += F::k_bytes) {
    alignas(64) float room[F::k_blocks * vectors * k_lanes];
    const float* scales = F::scales(panel, lane, room);
    each_block<F>([&](std::size_t b, auto form) __attribute__((always_inline)) {
      I32 w[8 * F::k_size];
      F::template quants<form.value>(panel, lane, b, w);
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
      scales += vectors * k_lanes;
    });
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
  constexpr bool wide = S::k_wide && k_wide_differs, corrected = S::k_size == 1 && !S::k_least && !wide,
                 adds_words = S::k_words > 1 && k_adds_words;
  constexpr int quads = 8 * S::k_size, row_bytes = 32 * S::k_size;
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
    each_block<S>([&](std::size_t b, auto form) __attribute__((always_inline)) {
      I32 w[quads];
      S::template quants<form.value>(weights, t.lane, b, w);
      const F32 scale = load(scales), second = load(scales + (S::k_groups - 1) * k_lanes),
                least = load(scales + (vectors - 1) * k_lanes);
#pragma unroll
      for (int r = 0; r < R; r += k_together) {
        constexpr int G = R < k_together ? R : k_together;
        // Where the scale is one, the whole block is one sum: in two chains if there is no other row to wait for.
        constexpr int half = S::k_groups == 2 || S::k_size == 2 || R == 1;
        I32 sum[G][2];
#pragma unroll
        for (int g = 0; g < G; ++g) {
          sum[g][0] = corrected ? set(word_at(sums + 8 * (r + g))) : set(0);
          sum[g][1] = corrected && S::k_groups == 2 ? set(word_at(sums + 8 * (r + g) + 4)) : set(0);
        }
        [[maybe_unused]] I32 words[G];
#pragma unroll
        for (int i = 0; i < quads; ++i)
#pragma unroll
          for (int g = 0; g < G; ++g) {
            I32& part = sum[g][i / (quads / 2) * half];
            Bytes x = quants + row_bytes * (r + g) + 4 * i;
            if constexpr (S::k_size == 2) {
              part = dot_pairs(part, w[i], x);
            } else if constexpr (adds_words) {
              words[g] = i % S::k_words == 0 ? word_products(w[i], x) : add_words(words[g], word_products(w[i], x));
              if (i % S::k_words == S::k_words - 1) part = add_pairs(part, words[g]);
            } else {
              part = dot<wide>(part, w[i], x);
            }
          }
#pragma unroll
        for (int g = 0; g < G; ++g) {
          if constexpr (half && S::k_groups == 1 && S::k_size == 1) sum[g][0] = sum[g][0] + sum[g][1];
          F32 value = to_float(sum[g][0]);
          if constexpr (S::k_size == 2) value = value + to_float(sum[g][1]);
          value = value * scale;
          if constexpr (S::k_groups == 2) value = fma(second, to_float(sum[g][1]), value);
          if constexpr (S::k_least) value = fma(least, set(float_at(sums + 8 * (r + g))), value);
          chain[r + g] = fma(value, set(float_at(row_scales + 4 * (r + g))), chain[r + g]);
        }
      }
      scales += vectors * k_lanes;
      quants += t.step;
      row_scales += t.step;
      sums += t.step;
    });
  }
#pragma unroll
  for (int r = 0; r < R; ++r) store(t.c + r * t.c_row, chain[r], some);
}

constexpr std::size_t run_of(std::size_t left) {
  return left >= 16 ? 16 : left >= 8 ? 8 : left >= 4 ? 4 : left >= 2 ? 2 : 1;
}

// Rows of a tile at most: 16-bit quants take twice the registers where they are kept for one row after the other.
template <class S>
constexpr std::size_t k_rows_of = k_together > 1 ? k_most_rows : k_most_rows / S::k_size;

template <class S>
void tile_rows(const PackedTile& t, std::size_t rows) noexcept {
  if constexpr (k_rows_of<S> >= 16)
    if (rows == 16) return tile<S, 16>(t);
  if constexpr (k_rows_of<S> >= 8)
    if (rows == 8) return tile<S, 8>(t);
  if constexpr (k_rows_of<S> >= 4)
    if (rows == 4) return tile<S, 4>(t);
  if (rows == 2) return tile<S, 2>(t);
  tile<S, 1>(t);
}

// All rows over `blocks` blocks of k from block `begin` on, of one vector of columns.
template <class S>
void all_rows(const PackedProduct& p, PackedTile t, std::size_t begin) noexcept {
  constexpr std::size_t quants = 32 * S::k_size, block = quants + (S::k_size == 1 ? 12 : 4);
  float* const c = t.c;
  for (std::size_t i = 0; i < p.m;) {
    const std::size_t rows = run_of(p.m - i), part = rows < k_rows_of<S> ? rows : k_rows_of<S>;
    Bytes run = static_cast<Bytes>(p.rows) + i * (p.k / 32) * block + begin * rows * block;
    t.step = rows * block;
    for (std::size_t r = 0; r < rows; r += part, i += part) {
      t.quants = run + quants * r;
      t.scales = run + quants * rows + 4 * r;
      t.sums = run + (quants + 4) * rows + 8 * r;
      t.c = c + static_cast<std::ptrdiff_t>(i) * p.c_row;
      tile_rows<S>(t, part);
    }
  }
}

template <class F>
void product_of(const PackedProduct& p, std::size_t first, std::size_t last) noexcept {
  const std::size_t panel_bytes = packed_panel_bytes(p.packing, p.k), blocks = p.k / 32;
  constexpr std::size_t depth = k_depth / 32, most = 8;  // blocks in a superblock
  const std::size_t parts = p.m == 1 ? 1 : (blocks + depth - 1) / depth;
  const std::size_t step = parts == 1 ? blocks : (blocks + parts * most - 1) / (parts * most) * most;
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
        t.step = packed_row_bytes(p.packing, 32);
        t.quants = static_cast<Bytes>(p.rows);
        t.scales = t.quants + 32 * F::k_size;
        t.sums = t.scales + 4;
        tile<F, 1>(t);
      } else {
        alignas(64) std::uint8_t room[depth * UnpackedOf<F>::k_bytes];
        unpack<F>(t.weights, t.lane, t.blocks, room);
        t.weights = room;
        all_rows<UnpackedOf<F>>(p, t, begin);
      }
    }
}

void packed_product(const PackedProduct& p, std::size_t first, std::size_t last) noexcept {
  switch (p.packing) {
    case Packing::q4_0: return product_of<Q40>(p, first, last);
    case Packing::q8_0: return product_of<Q80>(p, first, last);
    case Packing::q4_k: return product_of<Q4K>(p, first, last);
    case Packing::q6_k: return product_of<Q6K>(p, first, last);
    case Packing::q5_k: return product_of<Q5K>(p, first, last);
    default: return product_of<WholeNumbers>(p, first, last);
  }
}

}  // namespace
}  // namespace qorus::kernels
