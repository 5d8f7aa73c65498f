// Few rows times weights given as [n, k]: the product turned over, transposed(c) = b transposed(a). The weights are read as they stand, one
// broadcast element after another, and the lanes run over the rows of c; so nothing of B is copied or transposed, only A, which is small, and
// the tiles on their way to c. Every element is the same chain as ever. Included by one instruction set's gemm.cpp after gemm_blocks.h; everything
// has internal linkage.
#pragma once
#include <cstddef>
#include <cstdint>

namespace qorus::kernels {
namespace {

constexpr std::size_t k_turn_depth =
    512;  // steps of k at a time: of the weights of a tile, what the first-level cache keeps
constexpr std::size_t k_turn_panels = larger(1, ceil_div(k_turn_most, k_tile_cols));

inline bool is_turned(const Gemm& g) noexcept {
  constexpr int k_ways = 8;  // of the first cache: more rows of B than that must not fall into one set
  if (g.b_packed || g.b_row != 1 || g.b_col == 1 || (k_tile_rows > k_ways && pages_apart(g.b_col))) return false;
  const bool fills = round_up(g.m, k_lanes) * k_turn_fill <= g.m * 16;
  return fills && g.m > k_turn_after && g.m <= k_turn_most && g.k >= k_turn_least && g.m * g.n * g.k > k_tiny_work;
}

// A as the turned product's B.
inline Gemm turned(const Gemm& g) noexcept {
  return {.m = g.n, .n = g.m, .k = g.k, .b = g.a, .b_row = g.a_col, .b_col = g.a_row};
}

// Phase 0 copies panels of A, one a task; phase 1 takes runs of columns of c.
inline GemmPlan plan_turned(const Gemm& g) noexcept {
  const std::size_t each = round_up(larger(k_task_work / (g.m * g.k), 1), k_tile_rows);
  GemmPlan p;
  p.phases = 2;
  p.tasks[0] = static_cast<std::uint32_t>(ceil_div(g.m, k_tile_cols));
  p.tasks[1] = static_cast<std::uint32_t>(ceil_div(g.n, each));
  p.detail[0] = each;
  p.shared_bytes = packed_size(g.m, g.k) * sizeof(float);
  return p;
}

// A column of c: one lane for each of `count` rows, `row` apart.
inline F32 gather(const float* from, std::ptrdiff_t row, std::size_t count) noexcept {
  alignas(64) float lanes[k_lanes] = {};
  for (std::size_t l = 0; l < count; ++l) lanes[l] = from[static_cast<std::ptrdiff_t>(l) * row];
  return load(lanes);
}
inline void scatter(float* to, std::ptrdiff_t row, std::size_t count, F32 x) noexcept {
  alignas(64) float lanes[k_lanes];
  store(lanes, x);
  for (std::size_t l = 0; l < count; ++l) to[static_cast<std::ptrdiff_t>(l) * row] = lanes[l];
}

// tile[c][r], c < cols, r < rows: where the chains of rows i ... and columns j ... of c begin.
inline void begin_turned(const Gemm& g, float* tile, std::size_t i, std::size_t rows, std::size_t j,
                         std::size_t cols) noexcept {
  for (std::size_t c = 0; c < cols; ++c)
    for (std::size_t r = 0; r < k_tile_cols; r += k_lanes) {
      F32 x = set(0.0f);
      if (g.accumulate && r < rows)
        x = gather(g.c + static_cast<std::ptrdiff_t>(i + r) * g.c_row + j + c, g.c_row, smaller(rows - r, k_lanes));
      if (g.bias) x = g.accumulate ? x + set(g.bias[j + c]) : set(g.bias[j + c]);
      store(tile + c * k_tile_cols + r, x);
    }
}
inline void end_turned(const Gemm& g, float* tile, std::size_t i, std::size_t rows, std::size_t j,
                       std::size_t cols) noexcept {
  const auto each = [&](const auto& f) __attribute__((always_inline)) {
    for (std::size_t r = 0; r < rows; r += k_lanes)
      for (std::size_t c = 0; c < cols; ++c)
        f(static_cast<std::ptrdiff_t>(i + r), j + c, smaller(rows - r, k_lanes), load(tile + c * k_tile_cols + r));
  };
  if (g.pre)
    each([&](std::ptrdiff_t row, std::size_t col, std::size_t count, F32 x) {
      scatter(g.pre + row * g.pre_row + col, g.pre_row, count, x);
    });
  activate_tile(g.act, tile, cols);
  each([&](std::ptrdiff_t row, std::size_t col, std::size_t count, F32 x) {
    if (g.residual) x = x + gather(g.residual + row * g.residual_row + col, g.residual_row, count);
    scatter(g.c + row * g.c_row + col, g.c_row, count, x);
  });
}

// Columns j ... of c, all its rows.
inline void run_turned(const Gemm& g, const float* panels, std::size_t j, std::size_t cols) noexcept {
  alignas(64) float tiles[k_turn_panels][k_tile_rows * k_tile_cols];
  for (std::size_t i = 0; i < g.m; i += k_tile_cols)
    begin_turned(g, tiles[i / k_tile_cols], i, smaller(g.m - i, k_tile_cols), j, cols);
  Tile t{};
  t.a_row = g.b_col, t.a_col = 1;
  t.b_row = t.c_row = k_tile_cols;
  t.from_c = true;
  for (std::size_t k0 = 0; k0 < g.k; k0 += k_turn_depth) {
    t.k = smaller(k_turn_depth, g.k - k0);
    t.a = g.b + static_cast<std::ptrdiff_t>(j) * g.b_col + k0;
    for (std::size_t i = 0; i < g.m; i += k_tile_cols) {
      t.b = panels + i * g.k + k0 * k_tile_cols;
      t.c = tiles[i / k_tile_cols];
      k_tile_rows_table.at[g.m - i > k_lanes][cols - 1](t);
    }
  }
  for (std::size_t i = 0; i < g.m; i += k_tile_cols)
    end_turned(g, tiles[i / k_tile_cols], i, smaller(g.m - i, k_tile_cols), j, cols);
}

inline void turned_task(const Gemm& g, std::size_t each, std::uint32_t phase, std::size_t index,
                        float* panels) noexcept {
  if (phase == 0) {
    const std::size_t i = index * k_tile_cols;
    return pack_b(turned(g), i, smaller(g.m - i, k_tile_cols), 0, g.k, panels + i * g.k);
  }
  const std::size_t end = smaller(g.n, (index + 1) * each);
  for (std::size_t j = index * each; j < end; j += k_tile_rows) run_turned(g, panels, j, smaller(k_tile_rows, end - j));
}

}  // namespace
}  // namespace qorus::kernels
