// Two-argument element-wise kernels over the vector type. Include a vec.h first.
#pragma once
#include <cstddef>
#include <cstdint>
#include "kernels/parts.h"
#include "kernels/simd/each.h"
#include "kernels/simd/math.h"

namespace qorus::kernels {
namespace {

#define QORUS_ZIP(name, formula)                                                    \
  case Binary::name: {                                                              \
    struct name##_of {                                                              \
      QORUS_INLINE F32 operator()(F32 u, F32 v, F32, F32) const { return formula; } \
    };                                                                              \
    return walk_vectors<name##_of>;                                                 \
  }

WalkFunction binary_walk(Binary op) noexcept {
  switch (op) {
    QORUS_ZIP(add, u + v)
    QORUS_ZIP(sub, u - v)
    QORUS_ZIP(mul, u * v)
    QORUS_ZIP(div, u / v)
    QORUS_ZIP(pow, pow(u, v))
    QORUS_ZIP(max, select(is_nan(u), u, max(u, v)))
    QORUS_ZIP(min, select(is_nan(u), u, min(u, v)))
    case Binary::count_: break;
  }
  return nullptr;
}
#undef QORUS_ZIP

void binary(Binary op, const float* a, std::size_t sa, const float* b, std::size_t sb, float* y,
            std::size_t n) noexcept {
  if (n == 0) return;  // a lone number may then not be there either
  const Spread left(a, sa), right(b, sb);
  walk(binary_walk(op), {left.p, right.p, left.step(), right.step(), y, n, how_to_write(n, y != a && y != b), 0, 0});
}

template <class F>
QORUS_INLINE void zip_truth(const Spread& a, const Spread& b, std::uint8_t* y, std::size_t n, F f) {
  each(n, [&](std::size_t i, auto part) { store_truth(y + i, f(a.at(i, part), b.at(i, part)), part); });
}

void compare(Compare op, const float* a, std::size_t sa, const float* b, std::size_t sb, std::uint8_t* y,
             std::size_t n) noexcept {
  if (n == 0) return;
  const Spread left(a, sa), right(b, sb);
  switch (op) {
    case Compare::eq: return zip_truth(left, right, y, n, [](F32 u, F32 v) { return u == v; });
    case Compare::ne: return zip_truth(left, right, y, n, [](F32 u, F32 v) { return !(u == v); });
    case Compare::lt: return zip_truth(left, right, y, n, [](F32 u, F32 v) { return u < v; });
    case Compare::le: return zip_truth(left, right, y, n, [](F32 u, F32 v) { return u <= v; });
    case Compare::gt: return zip_truth(left, right, y, n, [](F32 u, F32 v) { return v < u; });
    case Compare::ge: return zip_truth(left, right, y, n, [](F32 u, F32 v) { return v <= u; });
    case Compare::count_: return;
  }
}

void choose(const std::uint8_t* mask, std::size_t sm, const float* a, std::size_t sa, const float* b, std::size_t sb,
            float* y, std::size_t n) noexcept {
  if (n == 0) return;
  const Spread left(a, sa), right(b, sb);
  if (sm == 0) {  // one answer for all: a copy
    const Spread& from = *mask ? left : right;
    each(n, [&](std::size_t i, auto part) { store(y + i, from.at(i, part), part); });
    return;
  }
  each(n, [&](std::size_t i, auto part) {
    store(y + i, select(load_truth(mask + i, part), left.at(i, part), right.at(i, part)), part);
  });
}

void axpy(float alpha, const float* x, float* y, std::size_t n) noexcept {
  const F32 factor = set(alpha);
  each4(n, [&](std::size_t i, auto part) { store(y + i, fma(factor, load(x + i, part), load(y + i, part)), part); });
}

void fma_into(const float* a, const float* b, float* y, std::size_t n) noexcept {
  each4(n, [&](std::size_t i, auto part) {
    store(y + i, fma(load(a + i, part), load(b + i, part), load(y + i, part)), part);
  });
}

void clamp(const float* x, float* y, std::size_t n, float low, float high) noexcept {
  const F32 bottom = set(low), top = set(high);
  each4(n, [&](std::size_t i, auto part) { store(y + i, min(top, max(bottom, load(x + i, part))), part); });
}

}  // namespace
}  // namespace qorus::kernels
