// Copies that change an array's order or its format, over the vector type. Include a vec.h first.
#pragma once
#include <cstddef>
#include <cstdint>
#include "kernels/parts.h"
#include "kernels/simd/each.h"

namespace qorus::kernels {
namespace {

// One square of lanes, or the part of it that has `height` rows and `width` columns in x.
QORUS_INLINE void transpose_tile(const float* x, std::size_t x_row, float* y, std::size_t y_row) {
  F32 square[k_lanes];
  for (std::size_t r = 0; r < k_lanes; ++r) square[r] = load(x + r * x_row);
  transpose_square(square);
  for (std::size_t c = 0; c < k_lanes; ++c) store(y + c * y_row, square[c]);
}
void transpose_edge(const float* x, std::size_t x_row, float* y, std::size_t y_row, std::size_t height,
                    std::size_t width) noexcept {
  F32 square[k_lanes];
  const Some across = first_lanes(width), down = first_lanes(height);
  for (std::size_t r = 0; r < k_lanes; ++r) square[r] = r < height ? load(x + r * x_row, across) : set(0.0f);
  transpose_square(square);
  for (std::size_t c = 0; c < width; ++c) store(y + c * y_row, square[c], down);
}

// In blocks of 8 by 8 tiles: few enough pages at a time for the first table of translations to hold.
void transpose(const float* x, std::size_t x_row, float* y, std::size_t y_row, std::size_t rows,
               std::size_t cols) noexcept {
  constexpr std::size_t block = 8 * k_lanes;
  const auto least = [](std::size_t a, std::size_t b) { return a < b ? a : b; };
  for (std::size_t r0 = 0; r0 < rows; r0 += block)
    for (std::size_t c0 = 0; c0 < cols; c0 += block)
      for (std::size_t c = c0; c < least(c0 + block, cols); c += k_lanes)
        for (std::size_t r = r0; r < least(r0 + block, rows); r += k_lanes) {
          const std::size_t height = least(rows - r, k_lanes), width = least(cols - c, k_lanes);
          const float* from = x + r * x_row + c;
          float* to = y + c * y_row + r;
          if (height == k_lanes && width == k_lanes)
            transpose_tile(from, x_row, to, y_row);
          else
            transpose_edge(from, x_row, to, y_row, height, width);
        }
}

void f16_to_f32(const std::uint16_t* x, float* y, std::size_t n) noexcept {
  each4(n, [&](std::size_t i, auto part) { store(y + i, load_f16(x + i, part), part); });
}

void f32_to_f16(const float* x, std::uint16_t* y, std::size_t n) noexcept {
  each4(n, [&](std::size_t i, auto part) { store_f16(y + i, load(x + i, part), part); });
}

void bf16_to_f32(const std::uint16_t* x, float* y, std::size_t n) noexcept {
  each4(n, [&](std::size_t i, auto part) { store(y + i, from_bits(shift_left<16>(load_u16(x + i, part))), part); });
}

// bfloat16 is the upper half of an f32. Adding half a unit (less one when the kept part is even) rounds to nearest
// even.
void f32_to_bf16(const float* x, std::uint16_t* y, std::size_t n) noexcept {
  each4(n, [&](std::size_t i, auto part) {
    const F32 value = load(x + i, part);
    const I32 word = bits(value);
    const I32 rounded = word + set(0x7fff) + (shift_right<16>(word) & set(1));
    const I32 quiet = (word & set(~0x400000)) + set(0x400000);
    store_u16(y + i, shift_right<16>(select(is_nan(value), quiet, rounded)), part);
  });
}

void u8_to_f32(const std::uint8_t* x, float* y, std::size_t n, float scale, float shift) noexcept {
  each4(n, [&](std::size_t i, auto part) { store(y + i, fma(load_u8(x + i, part), set(scale), set(shift)), part); });
}

}  // namespace
}  // namespace qorus::kernels
