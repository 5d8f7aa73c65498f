// The definition of the copies that change an array's order or its format.
#include <bit>
#include <cmath>

#include "kernels/parts.h"

namespace qorus::kernels {
namespace {

void transpose(const float* x, std::size_t x_row, float* y, std::size_t y_row, std::size_t rows,
               std::size_t cols) noexcept {
  for (std::size_t r = 0; r < rows; ++r)
    for (std::size_t c = 0; c < cols; ++c) y[c * y_row + r] = x[r * x_row + c];
}

// IEEE 754 binary16: sign 1, exponent 5 (bias 15), fraction 10.
float half_value(std::uint16_t h) {
  const float sign = h & 0x8000 ? -1.0f : 1.0f;
  const int exponent = h >> 10 & 31;
  const int fraction = h & 1023;
  if (exponent == 31)
    return fraction
               ? std::bit_cast<float>(std::uint32_t(h & 0x8000) << 16 | 0x7fc00000u | std::uint32_t(fraction) << 13)
               : sign * HUGE_VALF;
  if (exponent == 0) return sign * std::ldexp(float(fraction), -24);
  return sign * std::ldexp(float(1024 + fraction), exponent - 25);
}

std::uint16_t half_bits(float x) {
  const auto bits = std::bit_cast<std::uint32_t>(x);
  const std::uint32_t sign = bits >> 16 & 0x8000;
  if (std::isnan(x))
    return std::uint16_t(sign | 0x7e00 | (bits >> 13 & 1023));  // quiet, as much of the payload as fits
  const float size = std::fabs(x);
  if (size >= 65520.0f) return std::uint16_t(sign | 0x7c00);  // half way from the largest, 65504, to 2^16
  // In units of the last place: 2^-24 below 2^-14, else 2^(exponent - 10). A carry into the exponent is right by
  // itself.
  int exponent = 0;
  std::frexp(size, &exponent);  // size in [2^(exponent-1), 2^exponent)
  const int unit = size < 0x1p-14f ? -24 : exponent - 11;
  const auto count = std::uint32_t(std::nearbyint(std::ldexp(size, -unit)));
  return std::uint16_t(sign | ((std::uint32_t(unit + 24) << 10) + count));
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
