// One-argument element-wise kernels and their derivatives over the vector type. Include a vec.h first.
#pragma once
#include "kernels/parts.h"
#include "kernels/simd/each.h"
#include "kernels/simd/math.h"

namespace qorus::kernels {
namespace {

QORUS_INLINE F32 sign(F32 x) { return where(set(1.0f), x > set(0.0f)) - where(set(1.0f), x < set(0.0f)); }
QORUS_INLINE F32 larger(F32 x, F32 a) { return select(is_nan(x), x, max(x, a)); }  // NaN if either is
QORUS_INLINE F32 smaller(F32 x, F32 a) { return select(is_nan(x), x, min(x, a)); }

// A loop over vectors of y = formula of x and the parameter a.
#define QORUS_MAP(formula) \
  walk_vectors<decltype([](F32 x, F32, [[maybe_unused]] F32 a, F32) __attribute__((always_inline)) { return formula; })>

WalkFunction unary_walk(Unary op) noexcept {
  switch (op) {
    case Unary::neg: return QORUS_MAP(-x);
    case Unary::abs: return QORUS_MAP(abs(x));
    case Unary::sign: return QORUS_MAP(sign(x));
    case Unary::sqrt: return QORUS_MAP(sqrt(x));
    case Unary::square: return QORUS_MAP(x * x);
    case Unary::reciprocal: return QORUS_MAP(set(1.0f) / x);
    case Unary::exp: return QORUS_MAP(exp(x));
    case Unary::log: return QORUS_MAP(log(x));
    case Unary::sin: return QORUS_MAP(sine<0>(x));
    case Unary::cos: return QORUS_MAP(sine<1>(x));
    case Unary::erf: return QORUS_MAP(erf(x));
    case Unary::floor: return QORUS_MAP(floor(x));
    case Unary::ceil: return QORUS_MAP(ceil(x));
    case Unary::round: return QORUS_MAP(round(x));
    case Unary::relu: return QORUS_MAP(max(set(0.0f), x));
    case Unary::leaky_relu: return QORUS_MAP(select(x > set(0.0f), x, a * x));
    case Unary::elu: return QORUS_MAP(select(x > set(0.0f), x, a * expm1(min(set(0.0f), x))));
    case Unary::gelu: return QORUS_MAP(gelu(x));
    case Unary::gelu_tanh: return QORUS_MAP(gelu_tanh(x));
    case Unary::silu: return QORUS_MAP(silu(x));
    case Unary::sigmoid: return QORUS_MAP(sigmoid(x));
    case Unary::tanh: return QORUS_MAP(tanh(x));
    case Unary::softplus: return QORUS_MAP(softplus(x));
    case Unary::pow: return QORUS_MAP(pow(x, a));
    case Unary::add: return QORUS_MAP(x + a);
    case Unary::mul: return QORUS_MAP(x * a);
    case Unary::rsub: return QORUS_MAP(a - x);
    case Unary::rdiv: return QORUS_MAP(a / x);
    case Unary::rpow: return QORUS_MAP(pow(a, x));
    case Unary::max: return QORUS_MAP(larger(x, a));
    case Unary::min: return QORUS_MAP(smaller(x, a));
    case Unary::count_: break;
  }
  return nullptr;
}

void unary(Unary op, const float* x, float* y, std::size_t n, float parameter) noexcept {
  if (op == Unary::pow && parameter == 2) op = Unary::square;
  walk(unary_walk(op), {x, x, k_lanes, k_lanes, y, n, how_to_write(n, x != y), parameter, 0});
}

// A loop over vectors of dx (+)= d formula, the slope from x or y, and of two parameters.
#define QORUS_SLOPE(from, formula)                                                                           \
  walk_vectors<decltype([](F32 d, [[maybe_unused]] F32 from, [[maybe_unused]] F32 a, [[maybe_unused]] F32 b) \
                            __attribute__((always_inline)) { return d * (formula); })>

WalkFunction slope_walk(Unary op) noexcept {
  switch (op) {
    case Unary::neg:
    case Unary::add:
    case Unary::mul:
    case Unary::rsub: return QORUS_SLOPE(x, a);
    case Unary::abs: return QORUS_SLOPE(x, sign(x));
    case Unary::sqrt: return QORUS_SLOPE(y, set(0.5f) / y);
    case Unary::square: return QORUS_SLOPE(x, x + x);
    case Unary::reciprocal: return QORUS_SLOPE(y, -(y * y));
    case Unary::exp: return QORUS_SLOPE(y, y);
    case Unary::log: return QORUS_SLOPE(x, set(1.0f) / x);
    case Unary::sin: return QORUS_SLOPE(x, sine<1>(x));
    case Unary::cos: return QORUS_SLOPE(x, -sine<0>(x));
    case Unary::erf: return QORUS_SLOPE(x, set(1.12837917f) * exp_below(-(x * x)));
    case Unary::relu: return QORUS_SLOPE(x, where(set(1.0f), x > set(0.0f)));
    case Unary::leaky_relu: return QORUS_SLOPE(x, select(x > set(0.0f), set(1.0f), a));
    case Unary::elu: return QORUS_SLOPE(x, select(x > set(0.0f), set(1.0f), a * exp_below(min(set(0.0f), x))));
    case Unary::gelu: return QORUS_SLOPE(x, gelu_slope(x));
    case Unary::gelu_tanh: return QORUS_SLOPE(x, gelu_tanh_slope(x));
    case Unary::silu: return QORUS_SLOPE(x, silu_slope(x));
    case Unary::sigmoid: return QORUS_SLOPE(y, y * (set(1.0f) - y));
    case Unary::tanh: return QORUS_SLOPE(y, fnma(y, y, set(1.0f)));
    case Unary::softplus: return QORUS_SLOPE(x, sigmoid(x));
    case Unary::pow: return QORUS_SLOPE(x, a * pow(x, b));
    case Unary::rdiv: return QORUS_SLOPE(x, -a / (x * x));
    case Unary::rpow: return QORUS_SLOPE(x, where(pow(a, x) * b, !(a == set(0.0f)) | x < set(0.0f)));
    case Unary::max: return QORUS_SLOPE(x, select(x == a, set(0.5f), where(set(1.0f), x > a)));
    case Unary::min: return QORUS_SLOPE(x, select(x == a, set(0.5f), where(set(1.0f), x < a)));
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
