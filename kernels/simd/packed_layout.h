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

// Vectors of a block's pairs, in the bits that they take: k_full_pairs of them.
void store_whole_numbers(const std::uint8_t (&pairs)[k_pairs][4 * k_panel], std::size_t lane,
                         std::uint8_t* to) noexcept {
  const auto pair = [&](std::size_t i) __attribute__((always_inline)) { return load_quads(pairs[i] + 4 * lane); };
#pragma unroll
  for (std::size_t shared = 0; shared < k_pairs - k_full_pairs; ++shared) {
    I32 bits = pair(k_full_pairs + shared);
#pragma unroll
    for (std::size_t i = k_sharing_pairs; i-- > 0; bits = shift_right<2>(bits)) {
      const std::size_t at = shared * k_sharing_pairs + i;
      const I32 both = shift_left<2>(pair(at) & set(0x3fff3fff)) ^ (bits & set(0x00030003));
      store(reinterpret_cast<std::int32_t*>(to + 4 * k_panel * at) + lane, both, All{});
    }
  }
}

// A panel of `count` rows of f16 or bf16.
void pack_whole_numbers(Packing packing, const std::uint16_t* from, std::size_t k, std::size_t count,
                        std::uint8_t* to) noexcept {
  for (std::size_t b = 0; b < k / 32; ++b, to += WholeNumbers::k_bytes) {
    alignas(64) std::uint8_t quants[k_panel][64] = {};
    std::uint16_t scales[k_panel] = {};
    for (std::size_t r = 0; r < count; ++r) {
      F32 v[k_block_vectors];
#pragma unroll
      for (std::size_t i = 0; i < k_block_vectors; ++i) {
        const std::uint16_t* part = from + r * k + 32 * b + i * k_lanes;
        v[i] = packing == Packing::f16 ? load_f16(part, All{}) : from_bits(shift_left<16>(load_u16(part, All{})));
      }
      const float most = magnitude_of(v);
      if (!(most >= 0)) scales[r] = 0x7fc0;
      if (!(most > 0)) continue;
      scales[r] = std::uint16_t((std::uint32_t(bits_of(most / k_whole_most)) + 0xffff) >> 16);
      quantise_pairs(v, 1 / float_of(std::int32_t(std::uint32_t(scales[r]) << 16)), quants[r]);
    }
    std::memcpy(to, scales, sizeof scales);
    alignas(64) std::uint8_t pairs[k_pairs][4 * k_panel];
    for (std::size_t i = 0; i < k_pairs; ++i)
      for (std::size_t r = 0; r < k_panel; ++r) std::memcpy(pairs[i] + 4 * r, quants[r] + 4 * i, 4);
    for (std::size_t lane = 0; lane < k_panel; lane += k_lanes) store_whole_numbers(pairs, lane, to + 32);
  }
}

// --- weights ---

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
  const std::size_t panel_bytes = packed_panel_bytes(packing, k);
  auto* to = static_cast<std::uint8_t*>(packed) + first * panel_bytes;
  for (std::size_t panel = first; panel < last; ++panel, to += panel_bytes) {
    const std::size_t count = n - panel * k_panel < k_panel ? n - panel * k_panel : k_panel;
    const auto* halves = static_cast<const std::uint16_t*>(rows) + panel * k_panel * k;
    if (packing >= Packing::f16) {
      pack_whole_numbers(packing, halves, k, count, to);
    } else if (count == k_panel) {
      Bytes from = static_cast<Bytes>(rows) + panel * panel_bytes;
      const std::size_t row = panel_bytes / k_panel;
      pack_panel(packing, from, row, fetched, to);
    } else {
      packed_scalar.pack_weights(packing, rows, packed, n, k, panel, panel + 1, fetched);
    }
  }
}

}  // namespace
}  // namespace qorus::kernels
