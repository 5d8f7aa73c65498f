// How a product is cut and carried out: the plan, and a task's walk over blocks of B that stay in the second-level
// cache. Included by one instruction set's gemm.cpp after gemm_tile.h and gemm_pack.h; everything has internal linkage.
//
//   phase 0         A is copied, if it cannot be read as it stands (only where it is very large, each task copies what it
//                   needs); so is B, where several tasks read the same part of it
//   task                  some runs of rows x cols_per_task columns of c, all of k
//    columns        runs of `cols` columns, so that depth x cols of B fit half of the second-level cache
//     k             runs of `depth`; B's run is packed here, unless it is read as it stands
//      rows         runs of at most k_tile_rows, as even as they can be
//       panels      one register tile each
#pragma once
#include <cstddef>
#include <cstdint>

namespace qorus::kernels {
namespace {

struct Cut {  // what GemmPlan::detail holds
  std::size_t cols_per_task, runs_per_task, col_tasks;
  std::size_t cols, depth;
  Left left;
  Right right;
  std::size_t a_at, residual_at;  // in the worker's scratch, in floats; residual_at is 0 for no copy
};

constexpr std::size_t k_stack_depth = 128;         // products without scratch pack this much of k at a time
constexpr std::size_t k_tiny_work = 64 * 64 * 64;  // m n k up to which a product is one task without scratch
constexpr std::size_t k_task_work = std::size_t{1}
                                    << 20;  // m n k of a task where tasks read the same part of A or copy B
constexpr std::size_t k_least_work = std::size_t{1} << 17;  // m n k that repays handing a task to another worker
constexpr std::size_t k_half_work = std::size_t{3} << 16;  // m n k from which on a product of one task is better halved

constexpr std::size_t k_shared_most = std::size_t{16} << 20;  // floats of A, and of B, that phase 0 copies at most
constexpr std::size_t k_shared_rows = 1024;                // rows from which on B is better copied once, for all tasks
constexpr std::size_t k_cut_rows = 192, k_few_cols = 512;  // and also from so many on where the columns make few tasks
constexpr std::size_t k_stream_depth = 1024;  // rows of B that a run of rows goes through at a time when it streams
// Rows up to which transposing B for each run of rows costs less than copying it; of a B that the second-level cache holds: fewer.
constexpr std::size_t k_stream_most = k_stream_rows == k_tile_rows ? 64 : k_stream_rows;
constexpr std::size_t k_stream_near = smaller(k_stream_most, 3 * k_tile_rows);
constexpr std::size_t k_near_b = std::size_t{1} << 15;  // floats of such a B
// Floats of B up to which few rows gain by fetching them ahead: on Zen 4 it helps from L2 and L3 and hinders from memory.
constexpr std::size_t k_ahead_most = std::size_t{1} << 22;
constexpr std::size_t k_copy_cols =
    512;  // columns of c from which on copying a large A pays although it could be read as it stands

// Few rows and B contiguous along k: its columns are transposed on the way, once for each run of rows.
inline bool streams(const Gemm& g) noexcept {
  return !g.b_packed && g.b_row == 1 && g.b_col != 1 && g.m <= (g.n * g.k <= k_near_b ? k_stream_near : k_stream_most);
}

// Rows so far apart lie pages apart, so that those of a tile all want the same few lines of the first cache.
constexpr bool pages_apart(std::ptrdiff_t row) noexcept { return row % std::ptrdiff_t{4096 / sizeof(float)} == 0; }
inline bool collides(const Gemm& g) noexcept { return g.m >= 64 && g.n >= 4 * k_tile_cols && pages_apart(g.a_row); }

// So few rows that the second-level cache keeps them for all columns, while B comes from further away. Packed ahead, it is taken panel by panel,
// the next one fetched while all rows go over this one. A single run of rows leaves no time for that where B is in memory.
inline bool few_rows(const Gemm& g) noexcept {
  const std::size_t l2 = cache_sizes().l2 / sizeof(float), weights = g.n * g.k;
  return g.m > 1 && g.m * g.k <= l2 / 2 && weights > l2 && (g.m > k_tile_rows || weights <= k_ahead_most);
}

inline Left left_of(const Gemm& g) noexcept {
  // What the second-level cache holds gains nothing by being copied.
  const bool near = g.m * g.k * sizeof(float) <= cache_sizes().l2 && !pages_apart(g.a_row),
             as_it_stands = (near || g.n < k_copy_cols) && !streams(g) && !collides(g);
  if (g.m == 1 || (g.a_row == 1 && g.m * g.k <= 8192) || (g.a_row == 1 && g.n <= k_tile_cols)) return Left::cols;
  if (g.a_col == 1 && as_it_stands) return Left::rows;
  return g.m * g.k <= k_shared_most ? Left::shared : Left::packed;
}

inline Right right_of(const Gemm& g) noexcept {
  if (g.b_packed) return Right::ahead;
  if (streams(g)) return Right::stream;
  if (g.b_col == 1 && (g.m <= k_tile_rows || g.n * g.k <= 16384)) return Right::direct;
  const bool rows_are_cut = g.m >= k_shared_rows || (g.m >= k_cut_rows && g.n <= k_few_cols);
  return rows_are_cut && g.n * g.k <= k_shared_most ? Right::shared : Right::packed;
}

inline bool finishes(const Gemm& g) noexcept { return g.act != Act::none || g.pre || g.residual; }

// The residual that is c itself, where c also holds the sums between two runs of k: it must be saved first.
inline bool saves_residual(const Gemm& g, std::size_t depth) noexcept {
  return g.residual == g.c && g.residual && g.k > depth;
}

inline Cut read(const GemmPlan& p) noexcept {
  const std::size_t* d = p.detail;
  return {d[0], d[1], d[2], d[3], d[4], static_cast<Left>(d[5] & 3), static_cast<Right>(d[5] >> 2), d[6], d[7]};
}

// Tasks are cut from the columns first, as these share no part of B; then from the rows, if the columns do not give
// enough tasks for sixteen workers and the rows are so many that packing B for each part again costs little.
inline void cut_tasks(const Gemm& g, Cut& cut) noexcept {
  // A product of few rows costs the reading of B rather than the arithmetic: as much as eight rows.
  const std::size_t work = larger(g.m, 8) * g.n * larger(g.k, 1);
  const std::size_t wanted = ceil_div(work, k_task_work), panels = ceil_div(g.n, k_tile_cols);
  std::size_t per_task = larger(1, panels / smaller(wanted, 64));
  if (g.m > 64) {
    const std::size_t least = (g.m > 1024 ? 256 : g.m > 256 ? 128 : 64) / k_tile_cols;
    per_task = larger(larger(1, least), smaller(panels / 8, 256 / k_tile_cols));
  }
  cut.cols_per_task = even_part(panels, per_task, 1) * k_tile_cols;
  cut.col_tasks = ceil_div(g.n, cut.cols_per_task);
  const std::size_t runs = ceil_div(g.m, k_tile_rows), row_tasks_most = ceil_div(16, cut.col_tasks);
  std::size_t row_tasks =
      smaller(ceil_div(smaller(wanted, 16), cut.col_tasks), larger(1, g.m / (cut.right == Right::packed ? 512 : 128)));
  if (cut.right == Right::direct) row_tasks = smaller(row_tasks_most, larger(1, work / cut.col_tasks / k_least_work));
  cut.runs_per_task = ceil_div(runs, smaller(runs, row_tasks));
}

bool is_dots(const Gemm& g) noexcept;  // gemm_dot.h
GemmPlan plan_dots(const Gemm& g) noexcept;
void dot_task(const Gemm& g, std::size_t each, std::size_t index) noexcept;
bool is_turned(const Gemm& g) noexcept;  // gemm_turned.h
GemmPlan plan_turned(const Gemm& g) noexcept;
void turned_task(const Gemm& g, std::size_t each, std::uint32_t phase, std::size_t index, float* panels) noexcept;

GemmPlan plan(const Gemm& g) noexcept {
  GemmPlan p;
  if (g.m == 0 || g.n == 0) return p;
  if (is_dots(g)) return plan_dots(g);
  if (is_turned(g)) return plan_turned(g);
  Cut cut{};
  cut.left = left_of(g);
  cut.right = right_of(g);
  const bool tiny = g.m * g.n * g.k <= k_tiny_work;
  if (tiny && cut.right == Right::shared) cut.right = Right::packed;
  if (tiny && cut.left == Left::shared) cut.left = Left::packed;
  const std::size_t runs = ceil_div(g.m, k_tile_rows);
  if (tiny) {
    const std::size_t halves = g.m * g.n * g.k > k_half_work ? 2 : 1;
    cut.cols_per_task = round_up(ceil_div(g.n, halves), k_tile_cols), cut.runs_per_task = runs;
    cut.col_tasks = ceil_div(g.n, cut.cols_per_task);
  } else {
    cut_tasks(g, cut);
  }
  const Copies copies = copies_of(g, cut.left, cut.right);
  if (copies.floats > 0) {
    p.tasks[p.phases++] = static_cast<std::uint32_t>(copies.a_tasks + copies.b_tasks);
    p.shared_bytes = copies.floats * sizeof(float);
  }
  p.tasks[p.phases++] = static_cast<std::uint32_t>(cut.col_tasks * ceil_div(runs, cut.runs_per_task));
  cut.depth = depth_of(g.k);
  if (cut.right == Right::stream) cut.depth = even_part(g.k, k_stream_depth, 16);
  const bool panels = cut.right == Right::ahead && few_rows(g),
             wide = !panels && (g.m > 4 * k_tile_rows || g.b_col == 1 || cut.right >= Right::shared);
  const std::size_t most_cols = smaller(512, larger(64, cache_sizes().l2 / 2 / sizeof(float) / cut.depth));
  cut.cols = wide ? even_part(cut.cols_per_task, most_cols / k_tile_cols * k_tile_cols, k_tile_cols) : k_tile_cols;

  const bool packs_tail = (cut.right == Right::direct || cut.right == Right::stream) && g.n % k_tile_cols != 0;
  if (tiny && (cut.right == Right::packed || packs_tail || cut.left == Left::packed) && cut.right != Right::ahead) {
    cut.depth = smaller(cut.depth, k_stack_depth);
    cut.cols = k_tile_cols;
  }
  std::size_t floats = 0;
  if (!tiny || cut.right == Right::ahead) {
    if (cut.right == Right::packed) floats = cut.depth * cut.cols;
    if (packs_tail) floats = cut.depth * k_tile_cols;
    cut.a_at = floats;
    if (cut.left == Left::packed) floats += round_up(cut.depth, 16) * k_tile_rows;
  }
  if (saves_residual(g, cut.depth)) {
    floats = round_up(floats, 16) + 16;  // never 0
    cut.residual_at = floats;
    floats += cut.runs_per_task * k_tile_rows * smaller(cut.cols_per_task, g.n);
  }
  p.worker_bytes = floats * sizeof(float);
  const std::size_t detail[8] = {
      cut.cols_per_task, cut.runs_per_task,
      cut.col_tasks,     cut.cols,
      cut.depth,         static_cast<std::size_t>(cut.left) | static_cast<std::size_t>(cut.right) << 2,
      cut.a_at,          cut.residual_at};
  for (int i = 0; i < 8; ++i) p.detail[i] = detail[i];
  return p;
}

template <class F>
QORUS_INLINE void map_tile(float* tile, std::size_t rows, F f) noexcept {
  for (float* const end = tile + rows * k_tile_cols; tile != end; tile += k_lanes) store(tile, f(load(tile)));
}
// A tile's values through the function, all vectors in a row: chosen once, and nothing else between them.
[[gnu::noinline]] inline void activate_tile(Act act, float* tile, std::size_t rows) noexcept {
  switch (act) {
    case Act::relu: return map_tile(tile, rows, [](F32 x) { return max(set(0.0f), x); });
    case Act::gelu: return map_tile(tile, rows, [](F32 x) { return gelu(x); });
    case Act::gelu_tanh: return map_tile(tile, rows, [](F32 x) { return gelu_tanh(x); });
    case Act::silu: return map_tile(tile, rows, [](F32 x) { return silu(x); });
    case Act::sigmoid: return map_tile(tile, rows, [](F32 x) { return sigmoid(x); });
    case Act::tanh: return map_tile(tile, rows, [](F32 x) { return tanh(x); });
    case Act::none:
    case Act::count_: return;
  }
}

// to[r, :] = tile[r, :] + residual[r, :], if there is one.
template <class Part>
QORUS_INLINE void put_tile(const float* tile, std::size_t rows, float* to, std::ptrdiff_t to_row, const float* residual,
                           std::ptrdiff_t residual_row, Part part) noexcept {
  for (std::size_t r = 0; r < rows; ++r, tile += k_tile_cols, to += to_row, residual += residual ? residual_row : 0) {
    const F32 x = load(tile);
    store(to, residual ? x + load(residual, part) : x, part);
  }
}
// v = act(v + ...) of the tile's rows, from `tile` [rows, k_tile_cols] to c: what stands in for bias, pre, act and
// residual.
inline void write_tile(const Gemm& g, float* tile, std::size_t i, std::size_t rows, std::size_t j, std::size_t cols,
                       bool last) noexcept {
  const auto row = static_cast<std::ptrdiff_t>(i);
  const auto put = [&](float* to, std::ptrdiff_t to_row, const float* residual) __attribute__((always_inline)) {
    for (std::size_t v = 0; v < cols; v += k_lanes) {
      const float* const more = residual ? residual + row * g.residual_row + j + v : nullptr;
      float* const at = to + row * to_row + j + v;
      if (cols - v >= k_lanes)
        put_tile(tile + v, rows, at, to_row, more, g.residual_row, All{});
      else
        put_tile(tile + v, rows, at, to_row, more, g.residual_row, first_lanes(cols - v));
    }
  };
  if (last && g.pre) put(g.pre, g.pre_row, nullptr);
  if (last) activate_tile(g.act, tile, cols > k_tile_cols ? cols / k_tile_cols : rows);  // of one row, several panels
  put(g.c, g.c_row, last ? g.residual : nullptr);
}

inline void read_tile(const Gemm& g, float* tile, std::size_t i, std::size_t rows, std::size_t j, std::size_t cols,
                      bool from_c, bool first) noexcept {
  for (std::size_t r = 0; r < rows; ++r)
    for (std::size_t v = 0; v < cols; v += k_lanes) {
      const std::size_t count = smaller(cols - v, k_lanes);
      F32 x = from_c ? load(g.c + static_cast<std::ptrdiff_t>(i + r) * g.c_row + j + v, first_lanes(count)) : set(0.0f);
      if (first && g.bias) {
        const F32 bias = load(g.bias + j + v, first_lanes(count));
        x = from_c ? x + bias : bias;
      }
      store(tile + r * k_tile_cols + v, x);
    }
}

// More than the second-level cache holds: stores would wait for lines from further away, two for every row of a tile, and the processor for them.
inline bool is_far_c(const Gemm& g) noexcept { return g.m * g.n * sizeof(float) > cache_sizes().l2; }

// One register tile: straight into c where it is whole and needs nothing after the sum, else by way of a copy.
inline void run_tile(const Gemm& g, TileFunction run, Tile& t, std::size_t i, std::size_t rows, std::size_t j,
                     std::size_t cols, bool first, bool last) noexcept {
  t.from_c = !first || g.accumulate;
  t.bias = nullptr;
  if (last && is_far_c(g))
    for (std::size_t r = 0; r < rows; ++r)
      for (std::size_t v = 0; v < cols; v += k_line / sizeof(float))
        __builtin_prefetch(g.c + static_cast<std::ptrdiff_t>(i + r) * g.c_row + j + v, 1);
  if (cols % k_lanes == 0 && !(last && finishes(g))) {
    t.c = g.c + static_cast<std::ptrdiff_t>(i) * g.c_row + j;
    t.c_row = g.c_row;
    if (first && g.bias) t.bias = g.bias + j;
    run(t);
    return;
  }
  alignas(64) float tile[k_tile_rows * k_tile_cols];
  read_tile(g, tile, i, rows, j, cols, t.from_c, first);
  t.from_c = true;
  t.c = tile;
  t.c_row = k_tile_cols;
  run(t);
  write_tile(g, tile, i, rows, j, cols, last);
}

struct Block {  // columns j ... j+cols-1, rows of k from k0 on, `depth` of them; b: their packed copy, if there is one
  std::size_t j, cols, k0, depth;
  const float* b;
  const float* tail;  // the packed copy of the last panel, where the others are read as they stand
  const float* next;  // what of B packed ahead comes after it, to be fetched meanwhile
};

// What the tiles of one run of rows fetch meanwhile, `bytes` each.
struct Ahead {
  const char* at;
  std::size_t bytes;
  std::size_t row_bytes;  // before each tile, of every row of the next run; 0 for none
};
inline Ahead ahead_of(const Gemm& g, const Cut& cut, const Block& block, const Runs& runs, std::size_t run,
                      const float* a, std::ptrdiff_t a_row) noexcept {
  const std::size_t rows = runs.begin(run + 1) - runs.begin(run), tiles = ceil_div(block.cols, k_tile_cols);
  if (block.next) {
    const std::size_t bytes = block.depth * k_tile_cols * sizeof(float) / runs.count;
    return {reinterpret_cast<const char*>(block.next) + bytes * run, bytes, 0};
  }
  if (run + 1 == runs.count) return {};
  // The next run's part of A: it comes from the third level or from memory.
  if (cut.left == Left::shared) {
    const std::size_t next_rows = runs.begin(run + 2) - runs.begin(run + 1);
    const float* const next = a + rows * (round_up(g.k, k_line_floats) - block.k0) + block.k0 * next_rows;
    return {reinterpret_cast<const char*>(next), next_rows * block.depth * sizeof(float) / tiles, 0};
  }
  if (cut.left == Left::rows && g.m * g.k * sizeof(float) > cache_sizes().l2) {
    const float* const next = a + static_cast<std::ptrdiff_t>(rows) * a_row;
    return {reinterpret_cast<const char*>(next), 0, block.depth * sizeof(float) / tiles};
  }
  return {};
}

// Run `run` of c's rows over one block of B. a: these rows of A as phase 0 or this function packs them.
inline void run_rows(const Gemm& g, const Cut& cut, const Block& block, const Runs& runs, std::size_t run,
                     float* a) noexcept {
  const std::size_t i = runs.begin(run), rows = runs.begin(run + 1) - i;
  Tile t;
  t.k = block.depth;
  const bool copied = cut.left == Left::packed || cut.left == Left::shared,
             by_rows = copied ? keeps_rows(g, cut.right) : cut.left == Left::rows;
  const TileTable* table = by_rows ? &k_tile_rows_table : &k_tile_cols_table;
  if (copied) {
    if (cut.left == Left::packed) pack_run(g, cut.right, i, rows, block.k0, block.depth, a);
    t.a = cut.left == Left::packed ? a : a + i * round_up(g.k, k_line_floats) + block.k0 * rows;
    t.a_row = by_rows ? static_cast<std::ptrdiff_t>(round_up(block.depth, k_lanes)) : 1;
    t.a_col = by_rows ? 1 : static_cast<std::ptrdiff_t>(rows);
  } else {
    t.a = g.a + static_cast<std::ptrdiff_t>(i) * g.a_row + static_cast<std::ptrdiff_t>(block.k0) * g.a_col;
    t.a_row = g.a_row;
    t.a_col = g.a_col;
  }
  Ahead ahead = ahead_of(g, cut, block, runs, run, t.a, t.a_row);
  t.fetch_step = ahead.bytes / larger(1, block.depth / k_tile_steps);
  t.fetch_lines = ceil_div(t.fetch_step, k_line);
  const bool first = block.k0 == 0, last = block.k0 + block.depth >= g.k;
  constexpr std::size_t k_row_cols = k_row_panels * k_tile_cols;
  for (std::size_t done = 0, width; done < block.cols; done += width) {
    const bool row = rows == 1 && block.b && block.cols - done >= k_row_cols;
    width = row ? k_row_cols : k_tile_cols;
    const std::size_t j = block.j + done, cols = smaller(block.cols - done, width);
    const TileTable* use = table;
    t.fetch = ahead.at;
    for (std::size_t l = 0; l < ahead.row_bytes; l += k_line)
      for (std::size_t r = 0; r < rows; ++r)
        _mm_prefetch(ahead.at + r * static_cast<std::size_t>(g.a_row) * sizeof(float) + l, _MM_HINT_T0);
    ahead.at += ahead.bytes + ahead.row_bytes;
    if (block.b) {
      t.b = block.b + done * block.depth;
      t.b_row = k_tile_cols;
    } else if (cols < k_tile_cols && block.tail) {
      t.b = block.tail;
      t.b_row = k_tile_cols;
    } else if (cut.right == Right::stream) {
      t.b = g.b + static_cast<std::ptrdiff_t>(block.k0) + static_cast<std::ptrdiff_t>(j) * g.b_col;
      t.b_row = g.b_col;
      use = &k_tile_stream_table;
    } else {
      t.b = g.b + static_cast<std::ptrdiff_t>(block.k0) * g.b_row + static_cast<std::ptrdiff_t>(j);
      t.b_row = g.b_row;
    }
    run_tile(g, row ? tile_one_row : use->at[cols > k_lanes][rows - 1], t, i, rows, j, cols, first, last);
  }
}

inline void save_residual(const Gemm& g, std::size_t i, std::size_t rows, std::size_t j, std::size_t cols,
                          float* to) noexcept {
  for (std::size_t r = 0; r < rows; ++r)
    for (std::size_t v = 0; v < cols; v += k_lanes) {
      const std::size_t count = smaller(cols - v, k_lanes);
      const float* from = g.residual + static_cast<std::ptrdiff_t>(i + r) * g.residual_row + j + v;
      store(to + r * cols + v, load(from, first_lanes(count)), first_lanes(count));
    }
}

struct Scratch {
  float* a;  // one run of rows, or all of A
  float* b;
  float* residual;  // null if it need not be saved
};

// The panel of B packed ahead that comes after this one, where they are taken one by one.
inline const float* next_panel(const Gemm& g, const Cut& cut, std::size_t j, std::size_t k0) noexcept {
  k0 += cut.depth;
  if (k0 >= g.k) k0 = 0, j += cut.cols;
  if (cut.cols != k_tile_cols || !few_rows(g) || j >= g.n) return nullptr;
  return g.b_packed + packed_offset(g.n, k0, smaller(cut.depth, g.k - k0), j);
}

// Runs run_begin ... run_end-1 of rows and columns j_begin ... j_end-1 of c.
inline void run_task(Gemm g, const Cut& cut, const Runs& runs, std::size_t run_begin, std::size_t run_end,
                     std::size_t j_begin, std::size_t j_end, const Scratch& scratch) noexcept {
  if (scratch.residual) {
    const std::size_t i = runs.begin(run_begin);
    save_residual(g, i, runs.begin(run_end) - i, j_begin, j_end - j_begin, scratch.residual);
    g.residual_row = static_cast<std::ptrdiff_t>(j_end - j_begin);
    g.residual = scratch.residual - static_cast<std::ptrdiff_t>(i) * g.residual_row - j_begin;
  }
  for (std::size_t j = j_begin; j < j_end; j += cut.cols) {
    Block block{};
    block.j = j;
    block.cols = smaller(cut.cols, j_end - j);
    std::size_t k0 = 0;
    do {  // also once for k = 0
      block.k0 = k0;
      block.depth = smaller(cut.depth, g.k - k0);
      block.b = block.tail = block.next = nullptr;
      if (cut.right == Right::ahead) {
        block.b = g.b_packed + packed_offset(g.n, k0, block.depth, j);
        block.next = next_panel(g, cut, j, k0);
      } else if (cut.right == Right::packed) {
        pack_b(g, j, block.cols, k0, block.depth, scratch.b);
        block.b = scratch.b;
      } else if (const std::size_t tail = block.cols % k_tile_cols) {
        pack_b(g, j + block.cols - tail, tail, k0, block.depth, scratch.b);
        block.tail = scratch.b;
      }
      for (std::size_t run = run_begin; run < run_end; ++run) run_rows(g, cut, block, runs, run, scratch.a);
      k0 += cut.depth;
    } while (k0 < g.k);
  }
}

void task(const Gemm& g, const GemmPlan& p, std::uint32_t phase, std::uint32_t index, void* shared,
          void* worker) noexcept {
  if (is_dots(g)) return dot_task(g, p.detail[0], index);
  if (is_turned(g)) return turned_task(g, p.detail[0], phase, index, static_cast<float*>(shared));
  Cut cut = read(p);
  const Runs runs(g.m);
  auto* const copies = static_cast<float*>(shared);
  const Copies copied = copies_of(g, cut.left, cut.right);
  if (phase + 1 < p.phases) return copy_task(g, copied, index, copies);
  Gemm product = g;
  // Neighbours share the larger one of A and B, and the copy of B rather than A as it stands.
  const std::size_t row_tasks = p.tasks[phase] / cut.col_tasks;
  const bool by_cols = g.n > g.m || cut.left != Left::shared;
  const std::size_t row = by_cols ? index % row_tasks : index / cut.col_tasks,
                    col = by_cols ? index / row_tasks : index % cut.col_tasks;
  const std::size_t run = row * cut.runs_per_task, j = col * cut.cols_per_task;
  if (cut.right == Right::shared) product.b_packed = copies + copied.b_at, cut.right = Right::ahead;
  const std::size_t run_end = smaller(runs.count, run + cut.runs_per_task), j_end = smaller(g.n, j + cut.cols_per_task);
  auto* floats = static_cast<float*>(worker);
  Scratch scratch = {cut.left == Left::shared ? copies : floats + cut.a_at, floats,
                     cut.residual_at ? floats + cut.residual_at : nullptr};
  if (g.m * g.n * g.k > k_tiny_work || cut.right == Right::ahead) {
    run_task(product, cut, runs, run, run_end, j, j_end, scratch);
    return;
  }
  alignas(64) float b_stack[k_stack_depth * k_tile_cols];
  alignas(64) float a_stack[k_stack_depth * k_tile_rows];
  scratch.a = a_stack;
  scratch.b = b_stack;
  run_task(g, cut, runs, run, run_end, j, j_end, scratch);
}

}  // namespace
}  // namespace qorus::kernels
