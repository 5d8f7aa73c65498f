// Every tolerance of the tests, each with its reason. u is half a unit in the last place of 1: 2^-24 in f32.
#pragma once
#include <cmath>
#include <cstddef>

namespace qorus_test {

constexpr double k_u = 0x1p-24;

// A sum of k products, c and a bias in f32, in any order, fused or not: at most k + 3 roundings lie on an element's way, each
// of at most u times the sum of the absolute values (`size`). A bound, not an estimate: a missing or doubled term breaks it.
inline double gemm_error(std::size_t k, double size) { return (static_cast<double>(k) + 3) * k_u * 1.01 * size + 1e-38; }

// The same after an activation and a residual. No activation is steeper than 1.13 (gelu); the vector functions are within 4 ULP
// of a value at most 1.13 |x|, and the residual adds one rounding. `y` is the expected result.
inline double gemm_act_error(double error, double y) { return 1.13 * error + 16 * k_u * (std::abs(y) + 1); }

}  // namespace qorus_test
