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

template <class F>
QORUS_INLINE void map(const float* x, float* y, std::size_t n, F f) {
  put(y, n, x != y, [&](std::size_t i, auto part) { return f(load(x + i, part)); });
}

void unary(Unary op, const float* x, float* y, std::size_t n, float parameter) noexcept {
  const F32 a = set(parameter), one = set(1.0f), zero = set(0.0f);
  switch (op) {
    case Unary::neg: return map(x, y, n, [=](F32 v) { return -v; });
    case Unary::abs: return map(x, y, n, [=](F32 v) { return abs(v); });
    case Unary::sign: return map(x, y, n, [=](F32 v) { return sign(v); });
    case Unary::sqrt: return map(x, y, n, [=](F32 v) { return sqrt(v); });
    case Unary::square: return map(x, y, n, [=](F32 v) { return v * v; });
    case Unary::reciprocal: return map(x, y, n, [=](F32 v) { return one / v; });
    case Unary::exp: return map(x, y, n, [=](F32 v) { return exp(v); });
    case Unary::log: return map(x, y, n, [=](F32 v) { return log(v); });
    case Unary::sin: return map(x, y, n, [=](F32 v) { return sine<0>(v); });
    case Unary::cos: return map(x, y, n, [=](F32 v) { return sine<1>(v); });
    case Unary::erf: return map(x, y, n, [=](F32 v) { return erf(v); });
    case Unary::floor: return map(x, y, n, [=](F32 v) { return floor(v); });
    case Unary::ceil: return map(x, y, n, [=](F32 v) { return ceil(v); });
    case Unary::round: return map(x, y, n, [=](F32 v) { return round(v); });
    case Unary::relu: return map(x, y, n, [=](F32 v) { return max(zero, v); });
    case Unary::leaky_relu: return map(x, y, n, [=](F32 v) { return select(v > zero, v, a * v); });
    case Unary::elu: return map(x, y, n, [=](F32 v) { return select(v > zero, v, a * expm1(min(zero, v))); });
    case Unary::gelu: return map(x, y, n, [=](F32 v) { return gelu(v); });
    case Unary::gelu_tanh: return map(x, y, n, [=](F32 v) { return gelu_tanh(v); });
    case Unary::silu: return map(x, y, n, [=](F32 v) { return silu(v); });
    case Unary::sigmoid: return map(x, y, n, [=](F32 v) { return sigmoid(v); });
    case Unary::tanh: return map(x, y, n, [=](F32 v) { return tanh(v); });
    case Unary::softplus: return map(x, y, n, [=](F32 v) { return softplus(v); });
    case Unary::pow:
      if (parameter == 2) return map(x, y, n, [=](F32 v) { return v * v; });
      return map(x, y, n, [=](F32 v) { return pow(v, a); });
    case Unary::add: return map(x, y, n, [=](F32 v) { return v + a; });
    case Unary::mul: return map(x, y, n, [=](F32 v) { return v * a; });
    case Unary::rsub: return map(x, y, n, [=](F32 v) { return a - v; });
    case Unary::rdiv: return map(x, y, n, [=](F32 v) { return a / v; });
    case Unary::rpow: return map(x, y, n, [=](F32 v) { return pow(a, v); });
    case Unary::max: return map(x, y, n, [=](F32 v) { return larger(v, a); });
    case Unary::min: return map(x, y, n, [=](F32 v) { return smaller(v, a); });
    case Unary::count_: return;
  }
}

// dx (+)= product(dy, v), v from `from`.
template <class F>
QORUS_INLINE void map_bwd(const float* from, const float* dy, float* dx, std::size_t n, bool accumulate, F product) {
  if (accumulate)
    each(n, [&](std::size_t i, auto part) {
      store(dx + i, load(dx + i, part) + product(load(dy + i, part), load(from + i, part)), part);
    });
  else
    put(dx, n, dx != dy && dx != from,
        [&](std::size_t i, auto part) { return product(load(dy + i, part), load(from + i, part)); });
}

// The derivatives that read nothing but dy.
void constant_bwd(const float* dy, float* dx, std::size_t n, float slope, bool accumulate) noexcept {
  map_bwd(dy, dy, dx, n, accumulate, [=](F32 d, F32) { return d * set(slope); });
}

void zero_bwd(float* dx, std::size_t n, bool accumulate) noexcept {
  if (!accumulate) each(n, [&](std::size_t i, auto part) { store(dx + i, set(0.0f), part); });
}

void pow_bwd(const float* x, const float* dy, float* dx, std::size_t n, float a, bool accumulate) noexcept {
  if (a == 0) return zero_bwd(dx, n, accumulate);
  if (a == 2) return map_bwd(x, dy, dx, n, accumulate, [=](F32 d, F32 v) { return d * (v + v); });
  // a - 1 in f64 need not be an f32; x^a / x would lose x = 0, so the exponent is rounded instead.
  map_bwd(x, dy, dx, n, accumulate, [=](F32 d, F32 v) { return d * (set(a) * pow(v, set(a - 1))); });
}

void unary_bwd(Unary op, const float* x, const float* y, const float* dy, float* dx, std::size_t n, float parameter,
               bool accumulate) noexcept {
  const F32 a = set(parameter), one = set(1.0f), zero = set(0.0f);
#define QORUS_FROM(v, formula) map_bwd(v, dy, dx, n, accumulate, [=](F32 d, F32 v) { return d * (formula); })
  switch (op) {
    case Unary::neg: return constant_bwd(dy, dx, n, -1, accumulate);
    case Unary::abs: return QORUS_FROM(x, sign(x));
    case Unary::sqrt: return QORUS_FROM(y, set(0.5f) / y);
    case Unary::square: return QORUS_FROM(x, x + x);
    case Unary::reciprocal: return QORUS_FROM(y, -(y * y));
    case Unary::exp: return QORUS_FROM(y, y);
    case Unary::log: return QORUS_FROM(x, one / x);
    case Unary::sin: return QORUS_FROM(x, sine<1>(x));
    case Unary::cos: return QORUS_FROM(x, -sine<0>(x));
    case Unary::erf: return QORUS_FROM(x, set(1.12837917f) * exp_below(-(x * x)));
    case Unary::sign:
    case Unary::floor:
    case Unary::ceil:
    case Unary::round: return zero_bwd(dx, n, accumulate);
    case Unary::relu: return QORUS_FROM(x, where(one, x > zero));
    case Unary::leaky_relu: return QORUS_FROM(x, select(x > zero, one, a));
    case Unary::elu: return QORUS_FROM(x, select(x > zero, one, a * exp_below(min(zero, x))));
    case Unary::gelu: return QORUS_FROM(x, gelu_slope(x));
    case Unary::gelu_tanh: return QORUS_FROM(x, gelu_tanh_slope(x));
    case Unary::silu: return QORUS_FROM(x, silu_slope(x));
    case Unary::sigmoid: return QORUS_FROM(y, y * (one - y));
    case Unary::tanh: return QORUS_FROM(y, fnma(y, y, one));
    case Unary::softplus: return QORUS_FROM(x, sigmoid(x));
    case Unary::pow: return pow_bwd(x, dy, dx, n, parameter, accumulate);
    case Unary::add: return constant_bwd(dy, dx, n, 1, accumulate);
    case Unary::mul: return constant_bwd(dy, dx, n, parameter, accumulate);
    case Unary::rsub: return constant_bwd(dy, dx, n, -1, accumulate);
    case Unary::rdiv: return QORUS_FROM(x, -a / (x * x));
    case Unary::rpow: {
      const F32 log_a = set(float(__builtin_log(double(parameter))));
      if (parameter == 0) return QORUS_FROM(x, where(log_a, x < zero));
      return QORUS_FROM(x, pow(a, x) * log_a);
    }
    case Unary::max: return QORUS_FROM(x, select(x == a, set(0.5f), where(one, x > a)));
    case Unary::min: return QORUS_FROM(x, select(x == a, set(0.5f), where(one, x < a)));
    case Unary::count_: return;
  }
#undef QORUS_FROM
}

}  // namespace
}  // namespace qorus::kernels
