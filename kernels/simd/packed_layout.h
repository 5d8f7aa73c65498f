// How rows of x and of weights are laid out for packed products, over the vector type; scalar/packed.cpp defines it. Included by one
// instruction set's packed.cpp after simd/packed.h; everything has internal linkage.
#pragma once
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "kernels/simd/packed.h"

namespace qorus::kernels {
namespace {

// --- rows ---

constexpr int k_block_vectors = 32 / int(k_lanes);

// 32 elements; their largest magnitude: NaN if one is not finite, 0 if all are next to nothing.
QORUS_INLINE float magnitude_of(const F32 (&v)[k_block_vectors]) {
  I32 largest = set(0);
#pragma unroll
  for (const F32& x : v)
    largest = max(largest, bits(abs(x)));  // as whole numbers, a NaN is above infinity, that above the rest
  const float most = float_of(largest_of(largest));
  if (most < 1e-30f) return 0;
  return most <= 3.4028235e38f ? most : float_of(0x7fc00000);
}

// Quants of a byte, the scale, and the sums of the quants of both halves.
QORUS_INLINE void quantise(const float* x, std::uint8_t* quants, float& scale, std::int32_t (&sums)[2]) {
  F32 v[k_block_vectors];
#pragma unroll
  for (std::size_t i = 0; i < k_block_vectors; ++i) v[i] = load(x + i * k_lanes);
  const float most = magnitude_of(v);
  if (!(most > 0)) {
    std::memset(quants, 0, 32);
    sums[0] = sums[1] = 0;
    scale = most;
    return;
  }
  const F32 inverse = set(127.0f / most);
  const auto digits = std::uint32_t(bits_of(most / 127.0f));  // 11 of them, to nearest
  scale = float_of(std::int32_t((digits + 0xfff + (digits >> 13 & 1)) & ~0x1fffu));
#pragma unroll
  for (int h = 0; h < 2; ++h) {
    I32 sum = set(0);
#pragma unroll
    for (int i = h * k_block_vectors / 2; i < (h + 1) * k_block_vectors / 2; ++i) {
      const I32 q = to_whole(v[i] * inverse);
      store_narrow(quants + std::size_t(i) * k_lanes, q);
      sum = sum + q;
    }
    sums[h] = sum_of(sum);
  }
}

constexpr float k_whole_most = 8191;

// Quants of two bytes.
QORUS_INLINE void quantise_pairs(const F32 (&v)[k_block_vectors], float inverse, std::uint8_t* quants) {
#pragma unroll
  for (std::size_t i = 0; i < k_block_vectors; ++i) {
    const I32 q = to_whole(v[i] * set(inverse)) & set(0xffff);
    store_u16(reinterpret_cast<std::uint16_t*>(quants) + i * k_lanes, q, All{});
  }
}
void quantise_row_pairs(const float* x, std::uint8_t* quants, std::uint8_t* scale) noexcept {
  F32 v[k_block_vectors];
#pragma unroll
  for (std::size_t i = 0; i < k_block_vectors; ++i) v[i] = load(x + i * k_lanes);
  const float most = magnitude_of(v), own = most / k_whole_most;
  std::memcpy(scale, &own, 4);
  if (most > 0)
    quantise_pairs(v, k_whole_most / most, quants);
  else
    std::memset(quants, 0, 64);
}

void pack_rows(Packing packing, const float* x, std::ptrdiff_t x_row, void* packed, std::size_t, std::size_t k,
               std::size_t first, std::size_t last) noexcept {
  const std::size_t bytes = packed_row_bytes(packing, k);
  const PackingRows kind = k_packing_rows[int(packing)];
  const std::int32_t offset = kind.offset;
  for (std::size_t i = first; i < last;) {
    const std::size_t rows = run_of(last - i);
    auto* to = static_cast<std::uint8_t*>(packed) + i * bytes;
    const float* from = x + static_cast<std::ptrdiff_t>(i) * x_row;
    i += rows;
    for (std::size_t r = 0; r < rows; ++r, from += x_row)
      for (std::size_t b = 0; b < k / 32; ++b) {
        if (kind.wide) {
          std::uint8_t* place = to + b * rows * 68;
          quantise_row_pairs(from + 32 * b, place + 64 * r, place + 64 * rows + 4 * r);
          continue;
        }
        std::uint8_t* block = to + b * rows * 44;
        float scale = 0;
        std::int32_t sums[2];
        quantise(from + 32 * b, block + 32 * r, scale, sums);
        std::memcpy(block + 32 * rows + 4 * r, &scale, 4);
        if (!kind.halves) sums[0] += sums[1], sums[1] = 0;
        std::int32_t words[2];
        for (int h = 0; h < 2; ++h) words[h] = offset ? -offset * sums[h] : bits_of(float(-sums[h]));
        std::memcpy(block + 36 * rows + 8 * r, words, 8);
      }
  }
}

// --- weights ---

// Vectors of a block's pairs, in the bits that they take: k_full_pairs of them.
QORUS_INLINE void store_whole_numbers(const I32 (&pairs)[k_pairs], std::uint8_t* to) {
#pragma unroll
  for (std::size_t shared = 0; shared < k_pairs - k_full_pairs; ++shared) {
    I32 bits = pairs[k_full_pairs + shared];
#pragma unroll
    for (std::size_t i = k_sharing_pairs; i-- > 0; bits = shift_right<2>(bits)) {
      const std::size_t at = shared * k_sharing_pairs + i;
      const I32 both = shift_left<2>(pairs[at] & set(0x3fff3fff)) ^ (bits & set(0x00030003));
      store(reinterpret_cast<std::int32_t*>(to + 4 * k_panel * at), both, All{});
    }
  }
}

// A block of as many rows as there are lanes, each lane one of them: pairs of f16, or of bf16, to pairs of whole numbers. Gives their scales.
template <bool t_f16>
QORUS_INLINE I32 whole_numbers(I32 (&pairs)[k_pairs]) {
  const auto number = [](I32 half) __attribute__((always_inline)) {
    return t_f16 ? from_f16(half) : from_bits(shift_left<16>(half));
  };
  I32 low = set(0),
      high = set(0);  // the largest magnitudes, as whole numbers: a NaN is above infinity, that above the rest
#pragma unroll
  for (const I32& pair : pairs) {
    low = max(low, pair & set(0x7fff));
    high = max(high, pair & set(0x7fffffff));
  }
  const F32 most = number(max(low, shift_right<16>(high)));
  const Mask finite = most <= set(3.4028235e38f), good = finite & (set(1e-30f) <= most);
  const I32 rounded_up = shift_right<16>(bits(most / set(k_whole_most)) + set(0xffff));
  const F32 inverse = select(good, set(1.0f) / from_bits(shift_left<16>(rounded_up)), set(0.0f));
#pragma unroll
  for (I32& pair : pairs) {  // what is not finite becomes a whole number whose lowest 14 bits are 0
    const I32 first = to_whole(number(pair & set(0xffff)) * inverse),
              second = to_whole(number(shift_right<16>(pair)) * inverse);
    pair = shift_left<16>(second) ^ (first & set(0x3fff));
  }
  return select(good, rounded_up, select(finite, set(0), set(0x7fc0)));
}

// A whole panel of f16 or bf16, `row` bytes from row to row.
template <bool t_f16>
[[gnu::noinline]] void pack_whole_numbers(Bytes from, std::size_t row, std::size_t fetched, std::uint8_t* to) noexcept {
  constexpr std::size_t block = 64;
  Bytes fours[4];  // rows 0, 4, 8, 12
  for (std::size_t i = 0; i < 4; ++i) fours[i] = from + 4 * i * row;
  Fetch<2> next{from + k_panel * row + fetched, (k_panel * row - fetched) / (row / block)};
  for (std::size_t at = 0; at < row; at += block, to += WholeNumbers::k_bytes) {
    next.turn();
    for (std::size_t lane = 0; lane < k_panel; lane += k_lanes) {
      I32 pairs[k_pairs];
#pragma unroll
      for (std::size_t i = 0; i < k_pairs; i += 4) {
        I32 four[4];
        load_pieces(fours + lane / 4, at + 4 * i, row, four);
#pragma unroll
        for (std::size_t j = 0; j < 4; ++j) pairs[i + j] = four[j];
      }
      store_u16(reinterpret_cast<std::uint16_t*>(to) + lane, whole_numbers<t_f16>(pairs), All{});
      store_whole_numbers(pairs, to + 32 + 4 * lane);
    }
  }
}

// A whole panel of a block format, each of whose rows has `row` bytes. Four pieces of every row at a time are transposed in registers.
// Rows are read side by side, which no hardware fetches ahead: the next panel's are, as they lie, while this one's move.
QORUS_INLINE void pack_panel_as(const PackingPieces& pieces, const PackingSteps& steps, std::size_t bytes, Bytes from,
                                std::size_t row, std::size_t fetched, std::uint8_t* to) {
  const I32 flip = set(std::int32_t(pieces.flip));
  Bytes fours[4];  // rows 0, 4, 8, 12: others lie a few steps from these
  for (std::size_t i = 0; i < 4; ++i) fours[i] = from + 4 * i * row;
  const std::size_t piece_bytes = k_panel * (bytes - 2 * pieces.half_count), panel = k_panel * row;
  Fetch<2> next{from + panel + fetched, (panel - fetched) / (row / bytes)};
  for (std::size_t at = 0; at < row; at += bytes, to += piece_bytes) {
    next.turn();
    for (int h = 0; h < pieces.half_count; ++h, to += 2 * k_panel) {
      const std::size_t half = at + pieces.halves[h];
#pragma unroll
      for (std::size_t r = 0; r < k_panel; ++r) std::memcpy(to + 2 * r, fours[r / 4] + half + r % 4 * row, 2);
    }
    for (int i = 0; i < steps.count; ++i) {
      std::uint8_t* const place = to + 4 * k_panel * steps.steps[i].to;
#pragma unroll
      for (std::size_t lane = 0; lane < k_panel; lane += k_lanes) {
        I32 four[4];
        load_pieces(fours + lane / 4, at + steps.steps[i].from, row, four);
#pragma unroll
        for (std::size_t p = 0; p < 4; ++p)
          store(reinterpret_cast<std::int32_t*>(place + 4 * k_panel * p) + lane, four[p] ^ flip, All{});
      }
    }
  }
}

void pack_panel(Packing packing, Bytes from, std::size_t row, std::size_t fetched, std::uint8_t* to) noexcept {
  constexpr auto shortest =
      int(Packing::q4_0);  // 18 bytes: reading what a table says of them takes as long as moving them
  if (packing == Packing::q4_0 || packing == Packing::iq4_nl)
    return pack_panel_as(k_packing_pieces[shortest], k_packing_steps.of[shortest], packing_block(Packing::q4_0).bytes,
                         from, row, fetched, to);
  pack_panel_as(k_packing_pieces[int(packing)], k_packing_steps.of[int(packing)], packing_block(packing).bytes, from,
                row, fetched, to);
}

void pack_weights(Packing packing, const void* rows, void* packed, std::size_t n, std::size_t k, std::size_t first,
                  std::size_t last, std::size_t fetched) noexcept {
  const bool wide = packing >= Packing::f16;
  const std::size_t panel_bytes = packed_panel_bytes(packing, k), row = wide ? 2 * k : panel_bytes / k_panel;
  auto* to = static_cast<std::uint8_t*>(packed) + first * panel_bytes;
  for (std::size_t panel = first; panel < last; ++panel, to += panel_bytes) {
    Bytes from = static_cast<Bytes>(rows) + panel * k_panel * row;
    if (n - panel * k_panel < k_panel)
      packed_scalar.pack_weights(packing, rows, packed, n, k, panel, panel + 1, fetched);
    else if (wide)
      (packing == Packing::f16 ? pack_whole_numbers<true> : pack_whole_numbers<false>)(from, row, fetched, to);
    else
      pack_panel(packing, from, row, fetched, to);
  }
}

}  // namespace
}  // namespace qorus::kernels
