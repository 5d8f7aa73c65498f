// The matrix product as its definition reads. Every other instruction set's product must agree with this one to within
// rounding. No blocking, no packing: use it to check, not to wait for.
#include "kernels/parts.h"

#include <cstddef>
#include <cstdint>

namespace qorus::kernels {
namespace {

constexpr std::size_t k_rows_per_task = 16;

// As unary.cpp defines it: what is fused has the bits of what is not.
float activate(Act act, float x) noexcept {
  constexpr Unary k_same[] = {Unary::count_, Unary::relu,    Unary::gelu, Unary::gelu_tanh,
                              Unary::silu,   Unary::sigmoid, Unary::tanh};
  static_assert(sizeof k_same / sizeof *k_same == std::size_t(Act::count_));
  if (act != Act::none) unary_scalar.unary(k_same[std::size_t(act)], &x, &x, 1, 0);
  return x;
}

// plan   one phase; a task is a run of whole rows of c. No scratch.
GemmPlan plan(const Gemm& g) noexcept {
  GemmPlan p;
  if (g.m == 0 || g.n == 0) return p;
  p.phases = 1;
  p.tasks[0] = static_cast<std::uint32_t>((g.m + k_rows_per_task - 1) / k_rows_per_task);
  return p;
}

// c[i,j] = act( sum over k of a[i,k] b[k,j] (+ c[i,j]) + bias[j] ) + residual[i,j], summed in the order of k.
void task(const Gemm& g, const GemmPlan&, std::uint32_t, std::uint32_t index, void*, void*) noexcept {
  const float* b = g.b_packed ? g.b_packed : g.b;
  const std::ptrdiff_t b_row = g.b_packed ? static_cast<std::ptrdiff_t>(g.n) : g.b_row;
  const std::ptrdiff_t b_col = g.b_packed ? 1 : g.b_col;
  const std::size_t first = index * k_rows_per_task;
  const std::size_t last = first + k_rows_per_task < g.m ? first + k_rows_per_task : g.m;
  for (auto i = static_cast<std::ptrdiff_t>(first); i < static_cast<std::ptrdiff_t>(last); ++i)
    for (std::ptrdiff_t j = 0; j < static_cast<std::ptrdiff_t>(g.n); ++j) {
      float* c = g.c + i * g.c_row + j;
      float sum = g.accumulate ? *c : 0.0f;
      for (std::ptrdiff_t k = 0; k < static_cast<std::ptrdiff_t>(g.k); ++k)
        sum += g.a[i * g.a_row + k * g.a_col] * b[k * b_row + j * b_col];
      if (g.bias) sum += g.bias[j];
      if (g.pre) g.pre[i * g.pre_row + j] = sum;
      sum = activate(g.act, sum);
      *c = g.residual ? sum + g.residual[i * g.residual_row + j] : sum;
    }
}

// packed   [k, n], row-major.
std::size_t packed_size(std::size_t n, std::size_t k) noexcept { return n * k; }

void pack(const Gemm& g, float* packed) noexcept {
  for (std::ptrdiff_t k = 0; k < static_cast<std::ptrdiff_t>(g.k); ++k)
    for (std::ptrdiff_t j = 0; j < static_cast<std::ptrdiff_t>(g.n); ++j) *packed++ = g.b[k * g.b_row + j * g.b_col];
}

}  // namespace

constinit const GemmPart gemm_scalar = {plan, task, packed_size, pack};

}  // namespace qorus::kernels
