// One-argument element-wise kernels and their derivatives over the vector type. Include a vec.h first.
#pragma once
#include <cstddef>
#include "kernels/parts.h"
#include "kernels/simd/each.h"
#include "kernels/simd/math.h"

namespace qorus::kernels {
namespace {

QORUS_INLINE F32 sign(F32 x) { return where(set(1.0f), x > set(0.0f)) - where(set(1.0f), x < set(0.0f)); }
QORUS_INLINE F32 larger(F32 x, F32 a) { return select(is_nan(x), x, max(x, a)); }  // NaN if either is
QORUS_INLINE F32 smaller(F32 x, F32 a) { return select(is_nan(x), x, min(x, a)); }

// A case of a switch: the loop over vectors of y = formula of x and the parameter a. The type's name is there for tools/asm.
#define QORUS_MAP(name, formula)                                                                     \
  case Unary::name: {                                                                                \
    struct name##_of {                                                                               \
      QORUS_INLINE F32 operator()(F32 x, F32, [[maybe_unused]] F32 a, F32) const { return formula; } \
    };                                                                                               \
    return walk_vectors<name##_of>;                                                                  \
  }

WalkFunction unary_walk(Unary op) noexcept {
  switch (op) {
    QORUS_MAP(neg, -x)
    QORUS_MAP(abs, abs(x))
    QORUS_MAP(sign, sign(x))
    QORUS_MAP(sqrt, sqrt(x))
    QORUS_MAP(square, x * x)
    QORUS_MAP(reciprocal, set(1.0f) / x)
    QORUS_MAP(exp, exp(x))
    QORUS_MAP(log, log(x))
    QORUS_MAP(sin, sine<0>(x))
    QORUS_MAP(cos, sine<1>(x))
    QORUS_MAP(erf, erf(x))
    QORUS_MAP(floor, floor(x))
    QORUS_MAP(ceil, ceil(x))
    QORUS_MAP(round, round(x))
    QORUS_MAP(relu, max(set(0.0f), x))
    QORUS_MAP(leaky_relu, select(x > set(0.0f), x, a * x))
    QORUS_MAP(elu, select(x > set(0.0f), x, a * expm1(min(set(0.0f), x))))
    QORUS_MAP(gelu, gelu(x))
    QORUS_MAP(gelu_tanh, gelu_tanh(x))
    QORUS_MAP(silu, silu(x))
    QORUS_MAP(sigmoid, sigmoid(x))
    QORUS_MAP(tanh, tanh(x))
    QORUS_MAP(softplus, softplus(x))
    QORUS_MAP(pow, pow(x, a))
    QORUS_MAP(add, x + a)
    QORUS_MAP(mul, x * a)
    QORUS_MAP(rsub, a - x)
    QORUS_MAP(rdiv, a / x)
    QORUS_MAP(rpow, pow(a, x))
    QORUS_MAP(max, larger(x, a))
    QORUS_MAP(min, smaller(x, a))
    case Unary::count_: break;
  }
  return nullptr;
}

void unary(Unary op, const float* x, float* y, std::size_t n, float parameter) noexcept {
  if (op == Unary::pow && parameter == 2) op = Unary::square;
  walk(unary_walk(op), {x, x, k_lanes, k_lanes, y, n, how_to_write(n, x != y), parameter, 0});
}

// The same for dx (+)= d formula, the slope from x or y, the parameter a and a second one.
#define QORUS_SLOPE(name, from, formula)                                                    \
  case Unary::name: {                                                                       \
    struct name##_slope_of {                                                                \
      QORUS_INLINE F32 operator()(F32 d, [[maybe_unused]] F32 from, [[maybe_unused]] F32 a, \
                                  [[maybe_unused]] F32 b) const {                           \
        return d * (formula);                                                               \
      }                                                                                     \
    };                                                                                      \
    return walk_vectors<name##_slope_of>;                                                   \
  }

WalkFunction slope_walk(Unary op) noexcept {
  switch (op) {
    case Unary::neg:
    case Unary::add:
    case Unary::rsub:
      QORUS_SLOPE(mul, x, a)
      QORUS_SLOPE(abs, x, sign(x))
      QORUS_SLOPE(sqrt, y, set(0.5f) / y)
      QORUS_SLOPE(square, x, x + x)
      QORUS_SLOPE(reciprocal, y, -(y * y))
      QORUS_SLOPE(exp, y, y)
      QORUS_SLOPE(log, x, set(1.0f) / x)
      QORUS_SLOPE(sin, x, sine<1>(x))
      QORUS_SLOPE(cos, x, -sine<0>(x))
      QORUS_SLOPE(erf, x, set(1.12837917f) * exp_below(-(x * x)))
      QORUS_SLOPE(relu, x, where(set(1.0f), x > set(0.0f)))
      QORUS_SLOPE(leaky_relu, x, select(x > set(0.0f), set(1.0f), a))
      QORUS_SLOPE(elu, x, select(x > set(0.0f), set(1.0f), a * exp_below(min(set(0.0f), x))))
      QORUS_SLOPE(gelu, x, gelu_slope(x))
      QORUS_SLOPE(gelu_tanh, x, gelu_tanh_slope(x))
      QORUS_SLOPE(silu, x, silu_slope(x))
      QORUS_SLOPE(sigmoid, y, y * (set(1.0f) - y))
      QORUS_SLOPE(tanh, y, fnma(y, y, set(1.0f)))
      QORUS_SLOPE(softplus, x, sigmoid(x))
      QORUS_SLOPE(pow, x, a * pow(x, b))
      QORUS_SLOPE(rdiv, x, -a / (x * x))
      QORUS_SLOPE(rpow, x, where(pow(a, x) * b, !(a == set(0.0f)) | x < set(0.0f)))
      QORUS_SLOPE(max, x, select(x == a, set(0.5f), where(set(1.0f), x > a)))
      QORUS_SLOPE(min, x, select(x == a, set(0.5f), where(set(1.0f), x < a)))
    case Unary::sign:
    case Unary::floor:
    case Unary::ceil:
    case Unary::round:
    case Unary::count_: break;
  }
  return nullptr;  // 0 everywhere
}

void unary_bwd(Unary op, const float* x, const float* y, const float* dy, float* dx, std::size_t n, float a,
               bool accumulate) noexcept {
  if (op == Unary::pow && a == 2) op = Unary::square;
  const WalkFunction run = op == Unary::pow && a == 0 ? nullptr : slope_walk(op);
  if (!run) {
    if (!accumulate) each(n, [&](std::size_t i, auto part) { store(dx + i, set(0.0f), part); });
    return;
  }
  const float* from = x;
  float b = 0;
  switch (op) {
    case Unary::sqrt:
    case Unary::reciprocal:
    case Unary::exp:
    case Unary::sigmoid:
    case Unary::tanh: from = y; break;
    case Unary::neg:
    case Unary::rsub: from = dy, a = -1; break;
    case Unary::add: from = dy, a = 1; break;
    case Unary::mul: from = dy; break;
    // a - 1 in f64 need not be an f32; x^a / x would lose x = 0, so the exponent is rounded instead.
    case Unary::pow: b = a - 1; break;
    case Unary::rpow: b = float(__builtin_log(double(a))); break;
    default: break;
  }
  const Write how = accumulate ? Write::add : how_to_write(n, dx != dy && dx != from);
  walk(run, {dy, from, k_lanes, k_lanes, dx, n, how, a, b});
}

#undef QORUS_MAP
#undef QORUS_SLOPE

}  // namespace
}  // namespace qorus::kernels
