// binary16 for the scalar kernels: what its bits mean and how a float is rounded to it.
#pragma once
#include <bit>
#include <cmath>
#include <cstdint>

namespace qorus::kernels {
namespace {

// IEEE 754 binary16: sign 1, exponent 5 (bias 15), fraction 10.
[[maybe_unused]] float half_value(std::uint16_t h) {
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

[[maybe_unused]] std::uint16_t half_bits(float x) {
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

}  // namespace
}  // namespace qorus::kernels
