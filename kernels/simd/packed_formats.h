// What packed weights are made of, over the vector type: for each packing its scales and whole numbers, and how they are unpacked.
// scalar/packed.cpp defines them. Part of simd/packed.h.
#pragma once
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "kernels/packing.h"

namespace qorus::kernels {
namespace {

using Bytes = const std::uint8_t*;

constexpr std::size_t k_vectors = k_panel / k_lanes;  // of f32 in a panel's row

QORUS_INLINE I32 bytes_and(I32 x, int mask) { return x & set(mask * 0x01010101); }
QORUS_INLINE F32 halves_at(Bytes p, std::size_t lane) {
  return load_f16(reinterpret_cast<const std::uint16_t*>(p) + lane, All{});
}

// --- packings: superblocks of a panel, of which k_blocks blocks of 32 elements ---
//   scales    writes, for each block, k_groups vectors of scales and k_leasts of minima; gives where they are
//   quants    block b: w[i] holds elements 4 i to 4 i + 3 of k, counted from the packing's offset
//   k_size    bytes of a quant
//   k_words   how many products of pairs of bytes 16 bits hold
//   k_wide    whether there are quants above 127
//   k_unroll  how many kinds of blocks take turns, their bits lying differently, where code of its own for each of them pays
template <Packing P, int Groups, int Leasts, int Words, bool Wide = false, int Unroll = 1>
struct Format {
  static constexpr std::size_t k_bytes = packing_block(P).bytes * k_panel, k_blocks = packing_block(P).elements / 32;
  static constexpr std::size_t k_scale_step = k_lanes;
  static constexpr int k_groups = Groups, k_leasts = Leasts, k_size = 1, k_words = k_adds_words ? Words : 1;
  static constexpr bool k_wide = Wide, k_split = false;
  static constexpr int k_unroll = Unroll;
};

// Numbers of 4 bits, 16 bytes: the first half in their lower bits, the second in the upper ones.
QORUS_INLINE void put_nibbles(Bytes p, I32 (&w)[8]) {
#pragma unroll
  for (std::size_t i = 0; i < 4; ++i) {
    const I32 both = load_quads(p + 64 * i);
    w[i] = bytes_and(both, 15);
    w[i + 4] = bytes_and(shift_right<4>(both), 15);
  }
}

// Bit 4 of 32 bytes, from 32 bits: of four, each byte takes its own, and what that stands for from a table.
alignas(16) constexpr std::uint8_t k_spread[] = {0, 0, 0, 0, 4, 4, 4, 4, 8, 8, 8, 8, 12, 12, 12, 12},
                                   k_fifth[] = {0, 16, 16, 0, 16, 0, 0, 0, 16, 0, 0, 0, 0, 0, 0, 0};
QORUS_INLINE void add_fifths(Bytes p, I32 (&w)[8]) {
  const I32 spread = repeated(k_spread), fifth = repeated(k_fifth);
  I32 bits = load_quads(p);
#pragma unroll
  for (I32& quads : w) {
    quads = quads ^ look_up(fifth, look_up(bits, spread) & set(0x08040201));
    bits = shift_right<4>(bits);
  }
}

QORUS_INLINE void values_of_iq4(I32 (&w)[8]) {
  const I32 values = repeated(k_iq4_bytes);
#pragma unroll
  for (I32& quads : w) quads = look_up(values, quads);
}

struct Q40 : Format<Packing::q4_0, 1, 0, 8> {
  QORUS_INLINE static const float* scales(Bytes p, std::size_t lane, float* out) {
    store(out, halves_at(p, lane));
    return out;
  }
  QORUS_INLINE static void quants(Bytes p, std::size_t lane, std::size_t, I32 (&w)[8]) {
    put_nibbles(p + 32 + 4 * lane, w);
  }
};

struct Q41 : Format<Packing::q4_1, 1, 1, 8> {
  QORUS_INLINE static const float* scales(Bytes p, std::size_t lane, float* out) {
    store(out, halves_at(p, lane));
    store(out + k_lanes, -halves_at(p + 32, lane));
    return out;
  }
  QORUS_INLINE static void quants(Bytes p, std::size_t lane, std::size_t, I32 (&w)[8]) {
    put_nibbles(p + 64 + 4 * lane, w);
  }
};

struct Q50 : Format<Packing::q5_0, 1, 0, 4> {
  QORUS_INLINE static const float* scales(Bytes p, std::size_t lane, float* out) { return Q40::scales(p, lane, out); }
  QORUS_INLINE static void quants(Bytes p, std::size_t lane, std::size_t, I32 (&w)[8]) {
    put_nibbles(p + 96 + 4 * lane, w);
    add_fifths(p + 32 + 4 * lane, w);
  }
};

struct Q51 : Format<Packing::q5_1, 1, 1, 4> {
  QORUS_INLINE static const float* scales(Bytes p, std::size_t lane, float* out) { return Q41::scales(p, lane, out); }
  QORUS_INLINE static void quants(Bytes p, std::size_t lane, std::size_t, I32 (&w)[8]) {
    put_nibbles(p + 128 + 4 * lane, w);
    add_fifths(p + 64 + 4 * lane, w);
  }
};

struct Q80 : Format<Packing::q8_0, 1, 0, 1, true> {
  QORUS_INLINE static const float* scales(Bytes p, std::size_t lane, float* out) { return Q40::scales(p, lane, out); }
  QORUS_INLINE static void quants(Bytes p, std::size_t lane, std::size_t, I32 (&w)[8]) {
#pragma unroll
    for (std::size_t i = 0; i < 8; ++i) w[i] = load_quads(p + 32 + 64 * i + 4 * lane);
  }
};

// Four numbers of a byte, which belong to two blocks' halves, times a unit; v: vectors of a block.
QORUS_INLINE void put_four(I32 four, std::int32_t offset, F32 unit, std::size_t v, float* out) {
#pragma unroll
  for (std::size_t i = 0; i < 4; ++i) {
    store(out + (i / 2 * v + i % 2) * k_lanes, to_float((four & set(255)) - set(offset)) * unit);
    four = shift_right<8>(four);
  }
}

struct Q2K : Format<Packing::q2_k, 2, 2, 4, false, 4> {
  QORUS_INLINE static const float* scales(Bytes p, std::size_t lane, float* out) {
    const F32 unit = halves_at(p, lane), least_unit = halves_at(p + 32, lane);
    for (std::size_t i = 0; i < 4; ++i) {
      const I32 four = load_quads(p + 64 + 64 * i + 4 * lane);
      put_four(bytes_and(four, 15), 0, unit, 4, out + 8 * i * k_lanes);
      put_four(bytes_and(shift_right<4>(four), 15), 0, least_unit, 4, out + (8 * i + 2) * k_lanes);
    }
    return out;
  }
  QORUS_INLINE static void quants(Bytes p, std::size_t lane, std::size_t b, I32 (&w)[8]) {
    Bytes lower = p + 320 + 512 * (b / 4) + 4 * lane;
#pragma unroll
    for (std::size_t i = 0; i < 8; ++i) w[i] = bytes_and(shift_right_by(load_quads(lower + 64 * i), 2 * (b % 4)), 3);
  }
};

struct Q3K : Format<Packing::q3_k, 2, 0, 4, false, 4> {
  QORUS_INLINE static const float* scales(Bytes p, std::size_t lane, float* out) {
    const F32 unit = halves_at(p, lane);
    Bytes lower = p + 1568 + 4 * lane;
    const I32 upper = load_quads(lower + 128);
    for (std::size_t i = 0; i < 4; ++i) {  // 6 bits, counted from -32
      const I32 low = bytes_and(shift_right_by(load_quads(lower + 64 * (i % 2)), 4 * (i / 2)), 15);
      const I32 high = bytes_and(shift_right_by(upper, 2 * i), 3);
      put_four(low ^ shift_left<4>(high), 32, unit, 2, out + 4 * i * k_lanes);
    }
    return out;
  }
  QORUS_INLINE static void quants(Bytes p, std::size_t lane, std::size_t b, I32 (&w)[8]) {
    Bytes third = p + 32 + 4 * lane, lower = p + 544 + 512 * (b / 4) + 4 * lane;
#pragma unroll
    for (std::size_t i = 0; i < 8; ++i)
      w[i] = bytes_and(shift_right_by(load_quads(lower + 64 * i), 2 * (b % 4)), 3) ^
             bits_of_bytes<1, 2>(load_quads(third + 64 * i), b);
  }
};

struct Q4K : Format<Packing::q4_k, 1, 1, 8, false, 2> {
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
      w[i] = bytes_and(shift_right_by(load_quads(p + 256 + 512 * (b / 2) + 64 * i + 4 * lane), 4 * (b % 2)), 15);
  }
};

struct Q5K : Format<Packing::q5_k, 1, 1, 4, false, 2> {
  QORUS_INLINE static const float* scales(Bytes p, std::size_t lane, float* out) { return Q4K::scales(p, lane, out); }
  QORUS_INLINE static void quants(Bytes p, std::size_t lane, std::size_t b, I32 (&w)[8]) {
    Bytes upper = p + 256 + 4 * lane, lower = p + 768 + 512 * (b / 2) + 4 * lane;
#pragma unroll
    for (std::size_t i = 0; i < 8; ++i)
      w[i] = bytes_and(shift_right_by(load_quads(lower + 64 * i), 4 * (b % 2)), 15) ^
             bits_of_bytes<1, 4>(load_quads(upper + 64 * i), b);
  }
};

struct Q6K : Format<Packing::q6_k, 2, 0, 2, false, 4> {
  QORUS_INLINE static const float* scales(Bytes p, std::size_t lane, float* out) {
    const F32 unit = halves_at(p, lane);
#pragma unroll  // one row from memory then takes two thirds of the time
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
    Bytes half = p + 288 + 1536 * (b / 4) + 4 * lane, lower = half + 1024 * (b % 2), upper = half + 512;
#pragma unroll
    for (std::size_t i = 0; i < 8; ++i)
      w[i] = bytes_and(shift_right_by(load_quads(lower + 64 * i), b % 4 / 2 * 4), 15) ^
             bits_of_bytes<3, 4>(load_quads(upper + 64 * i), 2 * (b % 4));
  }
};

struct Iq4Nl : Format<Packing::iq4_nl, 1, 0, 1, true> {
  QORUS_INLINE static const float* scales(Bytes p, std::size_t lane, float* out) { return Q40::scales(p, lane, out); }
  QORUS_INLINE static void quants(Bytes p, std::size_t lane, std::size_t, I32 (&w)[8]) {
    put_nibbles(p + 32 + 4 * lane, w);
    values_of_iq4(w);
  }
};

struct Iq4Xs : Format<Packing::iq4_xs, 1, 0, 1, true> {
  QORUS_INLINE static const float* scales(Bytes p, std::size_t lane, float* out) {
    const F32 unit = halves_at(p, lane);
    I32 upper = load_u16(reinterpret_cast<const std::uint16_t*>(p + 32) + lane, All{}),
        lower = load_quads(p + 64 + 4 * lane);
    for (std::size_t b = 0; b < 8; ++b) {  // 6 bits, counted from -32
      const I32 both = (lower & set(15)) ^ shift_left<4>(upper & set(3));
      store(out + b * k_lanes, to_float(both - set(32)) * unit);
      lower = shift_right<4>(lower);
      upper = shift_right<2>(upper);
    }
    return out;
  }
  QORUS_INLINE static void quants(Bytes p, std::size_t lane, std::size_t b, I32 (&w)[8]) {
    put_nibbles(p + 128 + 256 * b + 4 * lane, w);
    values_of_iq4(w);
  }
};

// f16 and bf16, as numbers of 14 bits: w[i] holds elements 2 i and 2 i + 1.
struct WholeNumbers : Format<Packing::f16, 1, 0, 1> {
  static constexpr int k_size = 2;
  QORUS_INLINE static const float* scales(Bytes p, std::size_t lane, float* out) {
    store(out, from_bits(shift_left<16>(load_u16(reinterpret_cast<const std::uint16_t*>(p) + lane, All{}))));
    return out;
  }
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

// --- unpacked ---

// A block as `unpack` leaves it, a panel's row after the other: 8 of quads of bytes (split: of the lower 4 bits, then 8 of the upper ones), or 16
// of pairs, then one for each kind of scales and minima.
template <int Size, int Groups, int Leasts, int Words, bool Split>
struct Unpacked {
  static constexpr int k_groups = Groups, k_leasts = Leasts, k_size = Size, k_words = Words;
  static constexpr bool k_wide = false, k_split = Split;
  static constexpr int k_quads = Split ? 16 : 8 * Size;
  static constexpr std::size_t k_bytes = (k_quads + Groups + Leasts) * 4 * k_panel, k_scale_step = k_panel;
  QORUS_INLINE static const float* scales(Bytes p, std::size_t lane) {
    return reinterpret_cast<const float*>(p + 4 * k_panel * k_quads) + lane;
  }
  QORUS_INLINE static I32 quad(Bytes p, std::size_t lane, int i) {
    return load_quads(p + 4 * (k_panel * std::size_t(i) + lane));
  }
};
template <class F, bool Split = F::k_wide && k_adds_words>
using UnpackedOf = Unpacked<F::k_size, F::k_groups, F::k_leasts, Split ? 8 : F::k_words, Split>;

template <class F>
void unpack(Bytes panel, std::size_t blocks, std::uint8_t* out) noexcept {
  using Block = UnpackedOf<F>;
  for (; blocks > 0; blocks -= F::k_blocks, panel += F::k_bytes, out += F::k_blocks * Block::k_bytes)
    for (std::size_t lane = 0; lane < k_panel; lane += k_lanes) {
      alignas(64) float room[F::k_blocks * (F::k_groups + F::k_leasts) * k_lanes];
      const float* scales = F::scales(panel, lane, room);
      std::uint8_t* to = out + 4 * lane;
      for (std::size_t b = 0; b < F::k_blocks; ++b) {
        I32 w[8 * F::k_size];
        F::quants(panel, lane, b, w);
#pragma unroll
        for (int i = 0; i < Block::k_quads; ++i) {
          I32 quads = w[i % (8 * F::k_size)];
          if (Block::k_split) quads = bytes_and(i < 8 ? quads : shift_right<4>(quads), 15);
          store(reinterpret_cast<std::int32_t*>(to), quads, All{});
          to += 4 * k_panel;
        }
#pragma unroll
        for (int i = 0; i < F::k_groups + F::k_leasts; ++i) {
          store(reinterpret_cast<float*>(to), load(scales));
          scales += k_lanes;
          to += 4 * k_panel;
        }
      }
    }
}

}  // namespace
}  // namespace qorus::kernels
