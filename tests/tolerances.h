// Every tolerance of the tests, each with its reason. u is half a unit in the last place of 1: 2^-24 in f32. ULP:
// units of f32's last place at the exact value.
#pragma once
#include <cmath>
#include <cstddef>
#include <limits>

namespace qorus_test {

constexpr double k_u = 0x1p-24;

// --- matrix products ---

// A sum of k products, c and a bias in f32, in any order, fused or not: at most k + 3 roundings lie on an element's
// way, each of at most u times the sum of the absolute values (`size`). A bound, not an estimate: a missing or doubled
// term breaks it.
inline double gemm_error(std::size_t k, double size) {
  return (static_cast<double>(k) + 3) * k_u * 1.01 * size + 1e-38;
}

// The same after an activation and a residual. No activation is steeper than 1.13 (gelu); the vector functions are
// within 4 ULP of a value at most 1.13 |x|, and the residual adds one rounding. `y` is the expected result.
inline double gemm_act_error(double error, double y) { return 1.13 * error + 16 * k_u * (std::abs(y) + 1); }

inline constexpr double k_epsilon = std::numeric_limits<float>::epsilon();  // 2^-23

// --- element-wise, in ULP ---
inline constexpr double k_rounded = 0.5;       // one operation, rounded once
inline constexpr double k_fused = 1.0;         // scalar rounds the product's sum twice, vectors once: half a unit each
inline constexpr double k_exp_ulp = 1.0;       // half from the last sum, a quarter from the reduced argument
inline constexpr double k_log_ulp = 1.0;       // the same, for the sum with k ln 2
inline constexpr double k_tanh_ulp = 2.0;      // exp, a sum, a quotient; halved where the quotient is below 1/2
inline constexpr double k_sigmoid_ulp = 2.0;   // exp, a quotient; the sum's rounding is mended
inline constexpr double k_erf_ulp = 2.0;       // one polynomial, or 1 less a fifth with a few units of its own
inline constexpr double k_softplus_ulp = 2.0;  // exp into log
inline constexpr double k_elu_ulp = 2.5;       // exp - 1 and a product
inline constexpr double k_silu_ulp = 3.0;      // exp, a sum, a quotient, a product
inline constexpr double k_gelu_ulp =
    6.0;  // exp, two polynomials, a quotient, two products: the lower tail has no larger term
inline constexpr double k_gelu_tanh_ulp =
    7.0;  // x >= -2; below, exp of 2u multiplies u's rounding by 2u (6 at -2, 24 at -10)
inline constexpr double k_by_f64_ulp = 0.501;  // sin, cos, pow: computed in f64 to 2^-40 and rounded once

// Derivatives: relative to the largest of dy, the result and what it is added to. A slope takes up to six rounded
// steps.
inline constexpr double k_slope = 6 * k_epsilon;
// Central differences in f64, step 1e-6: the truncation is 1e-12 f''', the cancellation 1e-16 f / 1e-6.
inline constexpr double k_central_difference = 1e-8;

// --- reductions, relative to the sum of the absolute terms ---
// ------------------------------------------------------------------------- A term meets at most n/64 additions in its
// accumulator and some ten more on the way to the total, each half an epsilon.
constexpr double sum_error(std::size_t n) { return k_epsilon / 2 * (12 + double(n) / 8); }  // n/8: across rows
constexpr double prod_error(std::size_t n) { return k_epsilon / 2 * (1 + double(n)); }      // every factor may round
inline constexpr double k_long_sum =
    24 * k_epsilon;  // runs of 4096 in f32: 64 additions of like terms, their errors partly cancelling
inline constexpr double k_long_sum_across =
    1e-3;  // across a million rows: 125,000 additions in f32, all rounding one way

// --- rows ---
inline constexpr double k_softmax =
    8 * k_epsilon;  // relative: exp, its sum, a quotient; log-softmax relative to |x| <= 12
inline constexpr double k_softmax_slope =
    4e-6;  // of slopes below 1.5: the row's dot product and p, each 1e-7, and x's rounding
constexpr double k_log_softmax_slope(std::size_t cols) {
  return 2e-6 * (2 + std::sqrt(double(cols)));
}  // times the sum of dy
inline constexpr double k_norm = 1e-6;        // relative to 1 + |y|: mean, deviation and product, a few epsilon each
inline constexpr double k_norm_slope = 2e-5;  // the row's two means, and a deviation that may be a tenth: 100 epsilon

// --- optimizers, absolute, of numbers near 1 ---
inline constexpr double k_state = 4 * k_epsilon;

}  // namespace qorus_test
