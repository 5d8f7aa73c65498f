// Every tolerance of the tests, each with its reason. u is half a unit in the last place of 1: 2^-24 in f32. ULP:
// units of f32's last place at the exact value.
#pragma once
#include <cmath>
#include <cstddef>

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

inline constexpr double k_epsilon = 2 * k_u;

// --- element-wise, in ULP ---

// One operation, rounded once.
inline constexpr double k_rounded = 0.5;
// sin, cos, pow, fused products: computed in f64, or with one rounding, to 2^-40 and rounded once.
inline constexpr double k_by_f64_ulp = 0.501;
// Half from the last sum, a quarter from the reduced argument; for log, from the sum with k ln 2.
inline constexpr double k_exp_ulp = 1;
inline constexpr double k_log_ulp = 1;
// exp, a sum, a quotient that is below 1/2.
inline constexpr double k_tanh_ulp = 2;
// exp and a quotient; what the sum's rounding loses is mended.
inline constexpr double k_sigmoid_ulp = 2;
// One polynomial, or 1 less at most a fifth that has a few units of error.
inline constexpr double k_erf_ulp = 2;
inline constexpr double k_softplus_ulp = 2;
// exp - 1, and a product.
inline constexpr double k_elu_ulp = 2.5;
// exp, a sum, a quotient, a product; from -87 up: below, exp(x) is denormal and has fewer digits.
inline constexpr double k_silu_ulp = 3;
// exp, two polynomials, a quotient, two products: in the lower tail nothing larger hides their errors.
inline constexpr double k_gelu_ulp = 6;
// From -2 up; below, exp(2u) multiplies the rounding of u by 2u (6 at -2, 170 at the last, -10).
inline constexpr double k_gelu_tanh_ulp = 7;

// Derivatives, relative to the largest of dy, the result and what it is added to: six rounded steps.
inline constexpr double k_slope = 6 * k_epsilon;
// Central differences in f64, step h = 1e-6: the truncation is h^2 times the third derivative, the cancellation 1e-16 f
// / h.
inline constexpr double k_central_difference = 1e-8;

// --- reductions, relative to the sum of the absolute terms ---

// A term meets n/64 additions in its accumulator (n/8 across rows) and some ten more on the way to the total.
constexpr double sum_error(std::size_t n) { return k_u * (12 + double(n) / 8); }
// Every factor may round.
constexpr double prod_error(std::size_t n) { return k_u * (1 + double(n)); }
// Runs of 4096 in f32: 64 additions of like terms, their errors partly cancelling.
inline constexpr double k_long_sum = 24 * k_epsilon;
// Across a million rows: 125,000 additions in f32, all of which may round one way.
inline constexpr double k_long_sum_across = 1e-3;

// --- rows ---

// Relative: exp, its sum, a quotient. For log-softmax relative to |x| <= 12.
inline constexpr double k_softmax = 8 * k_epsilon;
// Of slopes below 1.5: the row's dot product and p, each 1e-7, and x's own rounding.
inline constexpr double k_softmax_slope = 4e-6;
// The sum of dy over the row times p.
inline double k_log_softmax_slope(std::size_t cols) { return 2e-6 * (2 + std::sqrt(double(cols))); }
// Relative to 1 + |y|: mean, deviation and product, a few epsilon each.
inline constexpr double k_norm = 1e-6;
// The row's two means, over a deviation that may be a tenth.
inline constexpr double k_norm_slope = 2e-5;

// --- optimizers and recurrent cells, absolute, of numbers near 1 ---

inline constexpr double k_state = 4 * k_epsilon;

// --- operations, relative to the element's size plus the array's mean size ---

// Every forward is a kernel within a few ULP, or a sum of at most some hundred terms of one size: 100 roundings.
inline constexpr double k_op_forward = 100 * k_u;
// A gradient is a product of up to three such results. The references differentiate by central differences in double precision,
// step 1e-6: their truncation and cancellation, about 1e-9, do not count beside it.
inline constexpr double k_op_gradient = 300 * k_u;
// Below it nothing is relative: cancelled sums of numbers near 1, and the differences' own error.
inline constexpr double k_op_floor = 1e-6;

}  // namespace qorus_test
