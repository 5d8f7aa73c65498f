// Phase 0 of a product: A and B copied, once for all tasks, in the order in which the register tiles read them. Included by one instruction
// set's gemm.cpp after gemm_pack.h; everything has internal linkage.
//
// What comes from memory comes as fast as it can only where it is read in the order of its addresses, by loads: parts of rows, 512 bytes each,
// come at a fifth of that rate, and asking for them ahead changes nothing, as a core forgets what it is asked for. And a copy that the caches
// cannot keep until it is multiplied goes past them: each of its lines would have to be fetched, and taken from the other workers that read
// the last one, only to be overwritten.
#pragma once
#include <cstddef>

namespace qorus::kernels {
namespace {

// A: as it stands, contiguous along k; as it stands, contiguous along the rows; packed by each task; packed in phase 0.
enum class Left : std::size_t { rows, cols, packed, shared };
// B: its rows as they stand; its columns, transposed on the way; packed by each task; packed in phase 0; packed ahead by
// the caller.
enum class Right : std::size_t { direct, stream, packed, shared, ahead };

constexpr std::size_t smaller(std::size_t a, std::size_t b) noexcept { return a < b ? a : b; }
constexpr std::size_t larger(std::size_t a, std::size_t b) noexcept { return a > b ? a : b; }

// The runs of rows: as even as they can be, the first ones longer by one.
struct Runs {
  std::size_t count, length, longer;
  explicit Runs(std::size_t m) noexcept : count(ceil_div(m, k_tile_rows)), length(m / count), longer(m % count) {}
  std::size_t begin(std::size_t run) const noexcept { return run * length + smaller(run, longer); }
};

constexpr std::size_t k_line_floats = k_line / sizeof(float);
constexpr std::size_t k_copy_task = std::size_t{1} << 14;  // floats that one task copies at least
constexpr std::size_t k_copy_strip = 64;                   // columns of a transposed B that one task copies
constexpr std::size_t k_copy_steps = 64;                   // of k, on their way past the caches, in the first one

// Whether copies of A have its rows as they are, which costs no more than reading them; the tiles that transpose B on the way want a step's
// elements side by side.
inline bool keeps_rows(const Gemm& g, Right right) noexcept {
  return g.a_col == 1 && g.a_row != 1 && right != Right::stream;
}

struct Copies {
  std::size_t a_tasks = 0, b_tasks = 0;
  std::size_t a_steps = 0;  // of k, from one run of A to the next: each begins with a line
  std::size_t b_at = 0, floats = 0;
  bool far = false, a_keeps_rows = false, b_by_rows = false;
};
inline Copies copies_of(const Gemm& g, Left left, Right right) noexcept {
  Copies c;
  if (left == Left::shared) {
    c.a_steps = round_up(g.k, k_line_floats);
    const std::size_t most = g.a_row == 1 ? c.a_steps / k_line_floats : ceil_div(g.m, k_tile_rows);
    c.a_tasks = smaller(most, ceil_div(g.m * g.k, k_copy_task));
    c.b_at = g.m * c.a_steps;
  }
  c.floats = c.b_at + (right == Right::shared ? packed_size(g.n, g.k) : 0);
  c.far = c.floats * sizeof(float) > cache_sizes().l2 / 2;
  c.a_keeps_rows = keeps_rows(g, right);
  c.b_by_rows = c.far && g.b_col == 1;
  if (right == Right::shared)
    c.b_tasks = c.b_by_rows ? smaller(g.k, ceil_div(g.n * g.k, k_copy_task))
                            : ceil_div(g.n, k_copy_strip) * ceil_div(g.k, depth_of(g.k));
  return c;
}

// Loads a float of every line.
inline void touch(const float* from, std::size_t floats) noexcept {
  for (std::size_t i = 0; i < floats; i += k_line_floats) {
    const float x = from[i];
    __asm__ volatile("" : : "x"(x));
  }
}
inline void touch(const float* from, std::ptrdiff_t row, std::size_t rows, std::size_t floats) noexcept {
  for (std::size_t r = 0; r < rows; ++r) touch(from + static_cast<std::ptrdiff_t>(r) * row, floats);
}

// Whole lines; what stands after the last float is copied as well.
inline void stream_lines(const float* from, std::size_t floats, float* to) noexcept {
  for (std::size_t i = 0; i < floats; i += k_line_floats)
    for (std::size_t v = 0; v < k_line_floats; v += k_lanes) stream(to + i + v, load(from + i + v));
}

// to[:] = from[0 ... depth-1], then zeros up to a whole vector.
inline void copy_row(const float* from, std::size_t depth, bool far, float* to) noexcept {
  const std::size_t whole = depth / k_lanes * k_lanes;
  if (far)
    for (std::size_t t = 0; t < whole; t += k_lanes) stream(to + t, load(from + t));
  else
    for (std::size_t t = 0; t < whole; t += k_lanes) store(to + t, load(from + t));
  if (whole < depth) store(to + whole, load(from + whole, first_lanes(depth - whole)));
}
// Rows i ... of A: a block of depth_of(k) steps after the other, in each the rows, whole vectors apart.
inline void copy_rows(const Gemm& g, std::size_t i, std::size_t rows, bool far, float* to) noexcept {
  for (std::size_t r = 0; r < rows; ++r)
    for (std::size_t k0 = 0, depth; k0 < g.k; k0 += depth) {
      depth = smaller(depth_of(g.k), g.k - k0);
      copy_row(g.a + static_cast<std::ptrdiff_t>(i + r) * g.a_row + k0, depth, far,
               to + k0 * rows + r * round_up(depth, k_lanes));
    }
}

// The same of one block, or of one that does not keep its rows: for the task that needs it.
inline void pack_run(const Gemm& g, Right right, std::size_t i, std::size_t rows, std::size_t k0, std::size_t depth,
                     float* to) noexcept {
  if (!keeps_rows(g, right)) return pack_a(g, i, rows, k0, depth, to);
  for (std::size_t r = 0; r < rows; ++r)
    copy_row(g.a + static_cast<std::ptrdiff_t>(i + r) * g.a_row + k0, depth, false, to + r * round_up(depth, k_lanes));
}

// Rows i ... of A, steps `begin` to `end` of k, the first one at `to`: a step's elements side by side.
inline void copy_run(const Gemm& g, std::size_t i, std::size_t rows, std::size_t begin, std::size_t end, bool far,
                     float* to) noexcept {
  if (!far) return pack_a(g, i, rows, begin, end - begin, to);
  alignas(k_line) float lines[k_copy_steps * k_tile_rows] = {};
  for (std::size_t k = begin; k < end; k += k_copy_steps, to += k_copy_steps * rows) {
    const std::size_t steps = smaller(k_copy_steps, end - k);
    pack_a(g, i, rows, k, steps, lines);
    stream_lines(lines, steps * rows, to);
  }
}

// Part `index` of A: some runs of rows, or, where A is contiguous along the rows, some steps of k of all of them.
inline void copy_a(const Gemm& g, const Copies& c, std::size_t index, float* to) noexcept {
  const Runs runs(g.m);
  if (g.a_row == 1) {
    const std::size_t each = round_up(ceil_div(g.k, c.a_tasks), k_line_floats), begin = smaller(g.k, index * each),
                      end = smaller(g.k, begin + each);
    if (c.far) touch(g.a + static_cast<std::ptrdiff_t>(begin) * g.a_col, g.a_col, end - begin, g.m);
    for (std::size_t run = 0; run < runs.count; ++run) {
      const std::size_t i = runs.begin(run), rows = runs.begin(run + 1) - i;
      copy_run(g, i, rows, begin, end, c.far, to + i * c.a_steps + begin * rows);
    }
    return;
  }
  const std::size_t each = ceil_div(runs.count, c.a_tasks), end = smaller(runs.count, (index + 1) * each);
  for (std::size_t run = index * each; run < end; ++run) {
    const std::size_t i = runs.begin(run), rows = runs.begin(run + 1) - i;
    float* const at = to + i * c.a_steps;
    if (c.a_keeps_rows)
      copy_rows(g, i, rows, c.far, at);
    else
      copy_run(g, i, rows, 0, g.k, c.far, at);
  }
}

// Rows `begin` to `end` of B, past the caches.
inline void copy_b_rows(const Gemm& g, std::size_t begin, std::size_t end, float* to) noexcept {
  for (std::size_t k = begin, next; k < end; k = next) {
    const std::size_t block = k / depth_of(g.k) * depth_of(g.k), depth = smaller(depth_of(g.k), g.k - block);
    next = smaller(end, block + depth);
    const RowsOfB from = {g.b + static_cast<std::ptrdiff_t>(k) * g.b_row, g.b_row, next - k, g.n};
    float* const panels = to + packed_offset(g.n, block, depth, 0) + (k - block) * k_tile_cols;
    pack_rows(from, g.n, panels, depth * k_tile_cols, [](float* p, F32 x) { stream(p, x); });
  }
}
// Columns j ... of B, those of a panel, rows k0 ... of it.
inline void copy_b_panel(const Gemm& g, std::size_t j, std::size_t cols, std::size_t k0, std::size_t depth, bool far,
                         float* to) noexcept {
  if (!far) return pack_b(g, j, cols, k0, depth, to);
  alignas(k_line) float lines[k_copy_steps * k_tile_cols];
  for (std::size_t k = 0; k < depth; k += k_copy_steps, to += k_copy_steps * k_tile_cols) {
    const std::size_t steps = smaller(k_copy_steps, depth - k);
    pack_b(g, j, cols, k0 + k, steps, lines);
    stream_lines(lines, steps * k_tile_cols, to);
  }
}
// Part `index` of B: some rows, or k_copy_strip columns of one block of rows.
inline void copy_b(const Gemm& g, const Copies& c, std::size_t index, float* to) noexcept {
  if (c.b_by_rows) {
    const std::size_t each = ceil_div(g.k, c.b_tasks);
    return copy_b_rows(g, smaller(g.k, index * each), smaller(g.k, (index + 1) * each), to);
  }
  const std::size_t strips = ceil_div(g.n, k_copy_strip), depth = depth_of(g.k);
  const std::size_t begin = index % strips * k_copy_strip, end = smaller(g.n, begin + k_copy_strip);
  const std::size_t k0 = index / strips * depth, rows = smaller(depth, g.k - k0);
  for (std::size_t j = begin; j < end; j += k_tile_cols)
    copy_b_panel(g, j, smaller(k_tile_cols, end - j), k0, rows, c.far, to + packed_offset(g.n, k0, rows, j));
}

// Task `index` of phase 0. A's parts lie evenly among B's: workers that take neighbours copy of A about what they multiply.
inline void copy_task(const Gemm& g, const Copies& c, std::size_t index, float* to) noexcept {
  const std::size_t all = c.a_tasks + c.b_tasks, part = index * c.a_tasks / all, next = (index + 1) * c.a_tasks / all;
  if (part == next)
    copy_b(g, c, index - part, to + c.b_at);
  else
    copy_a(g, c, part, to);
  if (c.far) end_stream();
}

}  // namespace
}  // namespace qorus::kernels
