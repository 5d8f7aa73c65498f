// The definition of the two-argument element-wise kernels.
#include <cmath>
#include <cstddef>
#include <cstdint>

#include "kernels/parts.h"

namespace qorus::kernels {
namespace {

template <class Y, class F>
void zip(const float* a, std::size_t sa, const float* b, std::size_t sb, Y* y, std::size_t n, F f) {
  for (std::size_t i = 0; i < n; ++i) y[i] = Y(f(a[i * sa], b[i * sb]));
}

void binary(Binary op, const float* a, std::size_t sa, const float* b, std::size_t sb, float* y,
            std::size_t n) noexcept {
  const auto each = [&](auto f) { zip(a, sa, b, sb, y, n, f); };
  switch (op) {
    case Binary::add: return each([](float u, float v) { return u + v; });
    case Binary::sub: return each([](float u, float v) { return u - v; });
    case Binary::mul: return each([](float u, float v) { return u * v; });
    case Binary::div: return each([](float u, float v) { return u / v; });
    case Binary::pow: return each([](float u, float v) { return std::pow(double(u), double(v)); });
    case Binary::max: return each([](float u, float v) { return u > v || std::isnan(u) ? u : v; });
    case Binary::min: return each([](float u, float v) { return u < v || std::isnan(u) ? u : v; });
    case Binary::count_: return;
  }
}

void compare(Compare op, const float* a, std::size_t sa, const float* b, std::size_t sb, std::uint8_t* y,
             std::size_t n) noexcept {
  const auto each = [&](auto f) { zip(a, sa, b, sb, y, n, f); };
  switch (op) {
    case Compare::eq: return each([](float u, float v) { return u == v; });
    case Compare::ne: return each([](float u, float v) { return u != v; });
    case Compare::lt: return each([](float u, float v) { return u < v; });
    case Compare::le: return each([](float u, float v) { return u <= v; });
    case Compare::gt: return each([](float u, float v) { return u > v; });
    case Compare::ge: return each([](float u, float v) { return u >= v; });
    case Compare::count_: return;
  }
}

void select(const std::uint8_t* mask, std::size_t sm, const float* a, std::size_t sa, const float* b, std::size_t sb,
            float* y, std::size_t n) noexcept {
  for (std::size_t i = 0; i < n; ++i) y[i] = mask[i * sm] ? a[i * sa] : b[i * sb];
}

void axpy(float alpha, const float* x, float* y, std::size_t n) noexcept {
  for (std::size_t i = 0; i < n; ++i) y[i] = float(y[i] + double(alpha) * x[i]);
}

void fma(const float* a, const float* b, float* y, std::size_t n) noexcept {
  for (std::size_t i = 0; i < n; ++i) y[i] = float(y[i] + double(a[i]) * b[i]);
}

void clamp(const float* x, float* y, std::size_t n, float low, float high) noexcept {
  for (std::size_t i = 0; i < n; ++i) {
    const float v = x[i] < low ? low : x[i];
    y[i] = v > high ? high : v;
  }
}

}  // namespace

extern constinit const BinaryPart binary_scalar{binary, compare, select, axpy, fma, clamp};

}  // namespace qorus::kernels
