// One row or one column that stands for a vector: dot products along k, six rows of the matrix at a time. Included by one
// instruction set's gemm.cpp after gemm_blocks.h's tiles; everything has internal linkage.
//
// A dot product: lane l of one vector is the chain of fused multiply-adds of the elements k with k mod k_lanes = l, in order;
// then the lanes are added, halves upon halves. It starts at 0; c and the bias come last. Which rows go together, or to which
// task, cannot be seen in it.
#pragma once
#include <cstddef>
#include <cstdint>

namespace qorus::kernels {
namespace {

constexpr std::size_t k_dots = 6;  // rows at a time
// Floats that each of them is fetched ahead, in matrices of up to k_ahead_most; on Zen 3, with vectors of half a line, it takes time wherever
// they lie.
constexpr bool k_dots_ahead = k_lanes > 8;
constexpr std::size_t k_dot_ahead = 64;
constexpr std::size_t k_dot_work = 1u << 17;  // multiply-adds of a task: half a megabyte to read

inline bool is_dots(const Gemm& g) noexcept {
  return g.vector && !g.b_packed && g.a_col == 1 && g.b_row == 1 && (g.m == 1 || g.n == 1);
}

// out[r] = sum over k of x[k] rows[r * step + k], r < count; past the last one: again the last one. t_ahead: fetched k_dot_ahead ahead.
template <bool t_ahead>
[[gnu::noinline]] void dot_rows(const float* x, const float* rows, std::ptrdiff_t step, std::size_t count,
                                std::size_t k, float* out) noexcept {
  constexpr std::size_t R = k_dots;
  F32 acc[R];
  const float* row[R];
#pragma unroll
  for (std::size_t r = 0; r < R; ++r) {
    acc[r] = set(0.0f);
    row[r] = rows + static_cast<std::ptrdiff_t>(smaller(r, count - 1)) * step;
    own_register(row[r]);
  }
  std::size_t i = 0;
  for (; i + k_lanes <= k; i += k_lanes) {
    const F32 v = load(x + i);
#pragma unroll
    for (std::size_t r = 0; r < R; ++r) {
      if (t_ahead) _mm_prefetch(reinterpret_cast<const char*>(row[r] + i + k_dot_ahead), _MM_HINT_T0);
      acc[r] = fma(v, load(row[r] + i), acc[r]);
    }
  }
  if (i < k) {
    const Some part = first_lanes(k - i);
    const F32 v = load(x + i, part);
#pragma unroll
    for (std::size_t r = 0; r < R; ++r) acc[r] = fma(v, load(row[r] + i, part), acc[r]);
  }
#pragma unroll
  for (std::size_t r = 0; r < R; ++r) out[r] = sum(acc[r]);
}

inline GemmPlan plan_dots(const Gemm& g) noexcept {
  const std::size_t count = g.m == 1 ? g.n : g.m;
  const std::size_t each = larger(k_dots, round_up(k_dot_work / larger(g.k, 1), k_dots));
  GemmPlan p;
  p.phases = 1;
  p.tasks[0] = static_cast<std::uint32_t>(ceil_div(count, each));
  p.detail[0] = each;
  return p;
}

inline void dot_task(const Gemm& g, std::size_t each, std::size_t index) noexcept {
  const bool row = g.m == 1;  // of c; its elements are the columns of B
  const std::size_t end = smaller(row ? g.n : g.m, (index + 1) * each);
  const float *x = row ? g.a : g.b, *matrix = row ? g.b : g.a;
  const std::ptrdiff_t step = row ? g.b_col : g.a_row;
  const bool near = k_dots_ahead && g.m * g.n * g.k <= k_ahead_most;
  for (std::size_t j = index * each; j < end; j += k_dots) {
    const std::size_t count = smaller(k_dots, end - j);
    const float* const rows = matrix + static_cast<std::ptrdiff_t>(j) * step;
    float sums[k_dots];
    (near ? dot_rows<k_dots_ahead> : dot_rows<false>)(x, rows, step, count, g.k, sums);
    alignas(64) float tile[k_dots * k_tile_cols];
    const std::size_t i = row ? 0 : j, rows_of_c = row ? 1 : count, col = row ? j : 0, cols = row ? count : 1;
    read_tile(g, tile, i, rows_of_c, col, cols, g.accumulate, true);
    for (std::size_t r = 0; r < count; ++r) tile[row ? r : r * k_tile_cols] += sums[r];
    write_tile(g, tile, i, rows_of_c, col, cols, true);
  }
}

}  // namespace
}  // namespace qorus::kernels
