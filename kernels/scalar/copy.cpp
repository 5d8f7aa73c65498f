// The definition of the copies that change an array's order or its format.
#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>

#include "kernels/parts.h"
#include "kernels/scalar/half.h"

namespace qorus::kernels {
namespace {

void transpose(const float* x, std::size_t x_row, float* y, std::size_t y_row, std::size_t rows,
               std::size_t cols) noexcept {
  for (std::size_t r = 0; r < rows; ++r)
    for (std::size_t c = 0; c < cols; ++c) y[c * y_row + r] = x[r * x_row + c];
}

void f16_to_f32(const std::uint16_t* x, float* y, std::size_t n) noexcept {
  for (std::size_t i = 0; i < n; ++i) y[i] = half_value(x[i]);
}

void f32_to_f16(const float* x, std::uint16_t* y, std::size_t n) noexcept {
  for (std::size_t i = 0; i < n; ++i) y[i] = half_bits(x[i]);
}

void bf16_to_f32(const std::uint16_t* x, float* y, std::size_t n) noexcept {
  for (std::size_t i = 0; i < n; ++i) y[i] = std::bit_cast<float>(std::uint32_t(x[i]) << 16);
}

// bfloat16 is the upper half of an f32. Adding half a unit (less one when the kept part is even) rounds to nearest
// even.
void f32_to_bf16(const float* x, std::uint16_t* y, std::size_t n) noexcept {
  for (std::size_t i = 0; i < n; ++i) {
    const auto bits = std::bit_cast<std::uint32_t>(x[i]);
    y[i] = std::uint16_t((std::isnan(x[i]) ? bits | 0x400000u : bits + 0x7fffu + (bits >> 16 & 1)) >> 16);
  }
}

void u8_to_f32(const std::uint8_t* x, float* y, std::size_t n, float scale, float shift) noexcept {
  for (std::size_t i = 0; i < n; ++i) y[i] = float(double(scale) * x[i] + shift);
}

}  // namespace

extern constinit const CopyPart copy_scalar{transpose, f16_to_f32, f32_to_f16, bf16_to_f32, f32_to_bf16, u8_to_f32};

}  // namespace qorus::kernels
