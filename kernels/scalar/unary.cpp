// The definition of every one-argument function and of its derivative: each element is worked out in double and rounded
// once, so that what stands here is the formula and nothing else. The fast tables are measured against it.
#include <cmath>
#include <cstddef>
#include <limits>
#include <numbers>

#include "kernels/parts.h"

namespace qorus::kernels {
namespace {

constexpr double k_sqrt_half = 1 / std::numbers::sqrt2;
constexpr double k_inv_sqrt_2pi = std::numbers::inv_sqrtpi * k_sqrt_half;
constexpr double k_gelu_scale = 2 * k_inv_sqrt_2pi;  // sqrt(2 / pi)
constexpr double k_gelu_cubic = 0.044715;

double sigmoid(double x) { return 1 / (1 + std::exp(-x)); }
double normal_cdf(double x) { return 0.5 * std::erfc(-x * k_sqrt_half); }
double gelu_inner(double x) { return k_gelu_scale * (x + k_gelu_cubic * x * x * x); }
double sign(double x) { return double(x > 0) - double(x < 0); }
double softplus(double x) { return (x > 0 ? x : 0) + std::log1p(std::exp(-std::fabs(x))); }
double larger(double x, double a) { return x > a || std::isnan(x) ? x : a; }  // NaN if either is
double smaller(double x, double a) { return x < a || std::isnan(x) ? x : a; }
// x f(x) for an f that tends to 0 faster than 1/x at minus infinity.
double gated(double x, double f) { return f == 0 ? -0.0 * f : x * f; }

template <class F>
void map(const float* x, float* y, std::size_t n, F f) {
  for (std::size_t i = 0; i < n; ++i) y[i] = float(f(double(x[i])));
}

void unary(Unary op, const float* x, float* y, std::size_t n, float a) noexcept {
  switch (op) {
    case Unary::neg: return map(x, y, n, [](double v) { return -v; });
    case Unary::abs: return map(x, y, n, [](double v) { return std::fabs(v); });
    case Unary::sign: return map(x, y, n, [](double v) { return sign(v); });
    case Unary::sqrt: return map(x, y, n, [](double v) { return std::sqrt(v); });
    case Unary::square: return map(x, y, n, [](double v) { return v * v; });
    case Unary::reciprocal: return map(x, y, n, [](double v) { return 1 / v; });
    case Unary::exp: return map(x, y, n, [](double v) { return std::exp(v); });
    case Unary::log: return map(x, y, n, [](double v) { return std::log(v); });
    case Unary::sin: return map(x, y, n, [](double v) { return std::sin(v); });
    case Unary::cos: return map(x, y, n, [](double v) { return std::cos(v); });
    case Unary::erf: return map(x, y, n, [](double v) { return std::erf(v); });
    case Unary::floor: return map(x, y, n, [](double v) { return std::floor(v); });
    case Unary::ceil: return map(x, y, n, [](double v) { return std::ceil(v); });
    case Unary::round: return map(x, y, n, [](double v) { return std::nearbyint(v); });
    case Unary::relu: return map(x, y, n, [](double v) { return larger(v, 0); });
    case Unary::leaky_relu: return map(x, y, n, [=](double v) { return v > 0 ? v : a * v; });
    case Unary::elu: return map(x, y, n, [=](double v) { return v > 0 ? v : a * std::expm1(v); });
    case Unary::gelu: return map(x, y, n, [](double v) { return gated(v, normal_cdf(v)); });
    case Unary::gelu_tanh: return map(x, y, n, [](double v) { return gated(v, sigmoid(2 * gelu_inner(v))); });
    case Unary::silu: return map(x, y, n, [](double v) { return gated(v, sigmoid(v)); });
    case Unary::sigmoid: return map(x, y, n, [](double v) { return sigmoid(v); });
    case Unary::tanh: return map(x, y, n, [](double v) { return std::tanh(v); });
    case Unary::softplus: return map(x, y, n, [](double v) { return softplus(v); });
    case Unary::pow: return map(x, y, n, [=](double v) { return std::pow(v, double(a)); });
    case Unary::add: return map(x, y, n, [=](double v) { return v + a; });
    case Unary::mul: return map(x, y, n, [=](double v) { return v * a; });
    case Unary::rsub: return map(x, y, n, [=](double v) { return a - v; });
    case Unary::rdiv: return map(x, y, n, [=](double v) { return a / v; });
    case Unary::rpow: return map(x, y, n, [=](double v) { return std::pow(double(a), v); });
    case Unary::max: return map(x, y, n, [=](double v) { return larger(v, a); });
    case Unary::min: return map(x, y, n, [=](double v) { return smaller(v, a); });
    case Unary::count_: return;
  }
}

// f'(x), from x or from y = f(x) as the table says.
double gelu_slope(double x) { return normal_cdf(x) + gated(x, k_inv_sqrt_2pi * std::exp(-0.5 * x * x)); }
double gelu_tanh_slope(double x) {  // s = sigmoid(2 inner): y = x s, y' = s + x s (1-s) 2 inner'
  const double s = sigmoid(2 * gelu_inner(x));
  const double inner_slope = k_gelu_scale * (1 + 3 * k_gelu_cubic * x * x);
  return s + (s * sigmoid(-2 * gelu_inner(x)) == 0 ? 0 : x * s * sigmoid(-2 * gelu_inner(x)) * 2 * inner_slope);
}
double silu_slope(double x) { return sigmoid(x) + gated(x, sigmoid(x) * sigmoid(-x)); }
double pow_slope(double x, double a) { return a == 0 ? 0 : a * std::pow(x, a - 1); }
double rpow_slope(double x, double a) { return a == 0 && x >= 0 ? 0 : std::pow(a, x) * std::log(a); }
double tie_slope(bool picked, bool tie) { return tie ? 0.5 : double(picked); }

template <class F>
void map_bwd(const float* from, const float* dy, float* dx, std::size_t n, bool accumulate, F slope) {
  for (std::size_t i = 0; i < n; ++i) {
    const double d = dy[i] * slope(double(from[i]));
    dx[i] = float(accumulate ? dx[i] + d : d);
  }
}

void unary_bwd(Unary op, const float* x, const float* y, const float* dy, float* dx, std::size_t n, float a,
               bool accumulate) noexcept {
  const auto from_x = [&](auto slope) { map_bwd(x, dy, dx, n, accumulate, slope); };
  const auto from_y = [&](auto slope) { map_bwd(y, dy, dx, n, accumulate, slope); };
  const auto constant = [&](double slope) { map_bwd(dy, dy, dx, n, accumulate, [=](double) { return slope; }); };
  const auto zero = [&] {
    if (!accumulate) map(dx, dx, n, [](double) { return 0.0; });
  };
  switch (op) {
    case Unary::neg: return constant(-1);
    case Unary::abs: return from_x([](double v) { return sign(v); });
    case Unary::sign: return zero();
    case Unary::sqrt: return from_y([](double v) { return 0.5 / v; });
    case Unary::square: return from_x([](double v) { return 2 * v; });
    case Unary::reciprocal: return from_y([](double v) { return -v * v; });
    case Unary::exp: return from_y([](double v) { return v; });
    case Unary::log: return from_x([](double v) { return 1 / v; });
    case Unary::sin: return from_x([](double v) { return std::cos(v); });
    case Unary::cos: return from_x([](double v) { return -std::sin(v); });
    case Unary::erf: return from_x([](double v) { return 2 * std::numbers::inv_sqrtpi * std::exp(-v * v); });
    case Unary::floor: return zero();
    case Unary::ceil: return zero();
    case Unary::round: return zero();
    case Unary::relu: return from_x([](double v) { return double(v > 0); });
    case Unary::leaky_relu: return from_x([=](double v) { return v > 0 ? 1 : double(a); });
    case Unary::elu: return from_x([=](double v) { return v > 0 ? 1 : a * std::exp(v); });
    case Unary::gelu: return from_x(gelu_slope);
    case Unary::gelu_tanh: return from_x(gelu_tanh_slope);
    case Unary::silu: return from_x(silu_slope);
    case Unary::sigmoid: return from_y([](double v) { return v * (1 - v); });
    case Unary::tanh: return from_y([](double v) { return 1 - v * v; });
    case Unary::softplus: return from_x(sigmoid);
    case Unary::pow: return from_x([=](double v) { return pow_slope(v, a); });
    case Unary::add: return constant(1);
    case Unary::mul: return constant(a);
    case Unary::rsub: return constant(-1);
    case Unary::rdiv: return from_x([=](double v) { return -a / (v * v); });
    case Unary::rpow: return from_x([=](double v) { return rpow_slope(v, a); });
    case Unary::max: return from_x([=](double v) { return tie_slope(v > a, v == a); });
    case Unary::min: return from_x([=](double v) { return tie_slope(v < a, v == a); });
    case Unary::count_: return;
  }
}

}  // namespace

extern constinit const UnaryPart unary_scalar{unary};
extern constinit const UnaryTraining unary_training_scalar{unary_bwd};

}  // namespace qorus::kernels
