// The register tiles of the matrix product: R rows by C vectors of c, held in registers while k runs. Included after a
// gemm_vec.h, by that instruction set's gemm.cpp alone; everything has internal linkage.
//
// One rule makes every path give the same bits: an element of c is one chain of fused multiply-adds in the order of k,
// from its start (c, or 0, plus the bias) on. Stopping a chain, storing c and going on from there changes nothing, so
// neither blocking nor packing nor the number of rows can be seen in the result.
#pragma once
#include <cstddef>

namespace qorus::kernels {
namespace {

constexpr std::size_t k_tile_cols = 2 * k_lanes;
constexpr std::size_t k_tile_steps = 4;  // steps of k between two looks at what is to be fetched
constexpr std::size_t k_line = 64;       // bytes of a cache line

// What a tile reads and writes. a: element (i,k) at a[i * a_row + k * a_col]. b: row k at b + k * b_row, C vectors of
// it.
struct Tile {
  std::size_t k;
  const float* a;
  std::ptrdiff_t a_row, a_col;
  const float* b;
  std::ptrdiff_t b_row;
  float* c;
  std::ptrdiff_t c_row;
  const float* bias;  // C vectors, or null: added to the start of every row
  // Fetched into the cache meanwhile, by tile_rows and tile_cols: at every k_tile_steps steps of k `fetch_lines` lines, from fetch_step bytes
  // further on each time.
  const char* fetch;
  std::size_t fetch_step, fetch_lines;
  bool from_c;  // the chains go on from what c holds
};

// out[t] = x[0 .. rows-1][t] for t < cols, 0 in the lanes from `rows` on; rows, cols <= k_lanes. Reads nothing else.
[[gnu::noinline]] inline void load_transposed_part(const float* x, std::ptrdiff_t row, std::size_t rows,
                                                   std::size_t cols, F32 (&out)[k_lanes]) noexcept {
  const Some part = first_lanes(cols);
#pragma unroll
  for (std::size_t r = 0; r < k_lanes; ++r)
    out[r] = r < rows ? load(x + static_cast<std::ptrdiff_t>(r) * row, part) : set(0.0f);
  transpose_square(out);
}

// The compiler moves no load across it: it would load a step's operands steps ahead and spill accumulators for them.
QORUS_INLINE void step_ends() noexcept { __asm__ volatile("" ::: "memory"); }

QORUS_INLINE void fetch_more(const Tile& t, const char*& at) noexcept {
  for (std::size_t line = 0; line < t.fetch_lines; ++line) _mm_prefetch(at + line * k_line, _MM_HINT_T0);
  at += t.fetch_step;
}

// A pointer of which the compiler knows nothing, so that it stays in a register of its own.
QORUS_INLINE void own_register(const float*& p) noexcept { __asm__ volatile("" : "+r"(p)); }

template <int R, int C>
QORUS_INLINE void start_tile(const Tile& t, F32 (&acc)[R][C]) noexcept {
#pragma unroll
  for (int r = 0; r < R; ++r)
#pragma unroll
    for (int v = 0; v < C; ++v) acc[r][v] = t.from_c ? load(t.c + r * t.c_row + v * k_lanes) : set(0.0f);
  if (t.bias) {
#pragma unroll
    for (int v = 0; v < C; ++v) {
      const F32 bias = load(t.bias + v * k_lanes);
#pragma unroll
      for (int r = 0; r < R; ++r) acc[r][v] = t.from_c ? acc[r][v] + bias : bias;
    }
  }
}

template <int R, int C>
QORUS_INLINE void finish_tile(const Tile& t, const F32 (&acc)[R][C]) noexcept {
  float* c = t.c;
  const std::ptrdiff_t step = t.c_row;
#pragma unroll
  for (int r = 0; r < R; ++r, c += step)
#pragma unroll
    for (int v = 0; v < C; ++v) store(c + v * k_lanes, acc[r][v]);
}

// c[r, :] += sum over k of a[r,k] b[k,:]. A's rows are a_row apart and contiguous along k (a_col is 1).
template <int R, int C>
void tile_rows(const Tile& t) noexcept {
  F32 acc[R][C];
  start_tile<R, C>(t, acc);
  constexpr int U = k_tile_steps;
  const float* b = t.b;
  const std::ptrdiff_t ar = t.a_row, br = t.b_row;
  const char* fetch = t.fetch;
  constexpr int G = (R + 2) / 3;  // rows in threes: one pointer and two multiples of the stride each
  const float* a[G];
#pragma unroll
  for (int g = 0; g < G; ++g) {
    a[g] = t.a + 3 * g * ar;
    own_register(a[g]);
  }
  auto step = [&](int u) __attribute__((always_inline)) {
    F32 bv[C];
#pragma unroll
    for (int v = 0; v < C; ++v) bv[v] = load(b + v * k_lanes);
#pragma unroll
    for (int r = 0; r < R; ++r) {
      const F32 x = set(*(a[r / 3] + (r % 3) * ar + u));
#pragma unroll
      for (int v = 0; v < C; ++v) acc[r][v] = fma(x, bv[v], acc[r][v]);
    }
    b += br;
    step_ends();
  };
  std::size_t k = t.k;
  for (; k >= U; k -= U) {
    fetch_more(t, fetch);
#pragma unroll
    for (int u = 0; u < U; ++u) step(u);
#pragma unroll
    for (int g = 0; g < G; ++g) a[g] += U;
  }
  for (; k > 0; --k) {
    step(0);
#pragma unroll
    for (int g = 0; g < G; ++g) ++a[g];
  }
  finish_tile<R, C>(t, acc);
}

// The same where A's columns are a_col apart and contiguous along the rows (a_row is 1).
template <int R, int C>
void tile_cols(const Tile& t) noexcept {
  F32 acc[R][C];
  start_tile<R, C>(t, acc);
  const float *a = t.a, *b = t.b;
  const std::ptrdiff_t ac = t.a_col, br = t.b_row;
  const char* fetch = t.fetch;
  const auto step = [&]() __attribute__((always_inline)) {
    F32 bv[C];
#pragma unroll
    for (int v = 0; v < C; ++v) bv[v] = load(b + v * k_lanes);
#pragma unroll
    for (int r = 0; r < R; ++r) {
      const F32 x = set(a[r]);
#pragma unroll
      for (int v = 0; v < C; ++v) acc[r][v] = fma(x, bv[v], acc[r][v]);
    }
    a += ac;
    b += br;
    step_ends();
  };
  std::size_t k = t.k;
  for (; k >= k_tile_steps; k -= k_tile_steps) {
    fetch_more(t, fetch);
#pragma unroll
    for (std::size_t u = 0; u < k_tile_steps; ++u) step();
  }
  for (; k > 0; --k) step();
  finish_tile<R, C>(t, acc);
}

// One row and several panels of packed B side by side: with the chains of one panel alone, a step waits for the last one's sums rather
// than for what it loads.
constexpr std::size_t k_row_panels = 4;
static_assert(k_row_panels <= k_tile_rows);  // a copy of a tile has room for it
[[gnu::noinline]] inline void tile_one_row(const Tile& t) noexcept {
  constexpr int P = k_row_panels;
  const std::size_t panel = t.k * k_tile_cols;
  F32 acc[1][2 * P];
  start_tile<1, 2 * P>(t, acc);
  const float *a = t.a, *b = t.b;
  for (std::size_t k = t.k; k > 0; --k, a += t.a_col, b += k_tile_cols) {
    const F32 x = set(*a);
#pragma unroll
    for (int v = 0; v < 2 * P; ++v)
      acc[0][v] = fma(x, load(b + static_cast<std::size_t>(v / 2) * panel + v % 2 * k_lanes), acc[0][v]);
  }
  finish_tile<1, 2 * P>(t, acc);
}

// The same (a_row is 1) where B is given as its transpose: column j of b at b + j * b_row, contiguous along k. Blocks
// of k_lanes columns are transposed on their way from memory to the multiplication, for products of so few rows that B
// is read only once.
template <int R, int V>
[[gnu::noinline]] void stream_columns(const Tile& t) noexcept {
  constexpr auto W = static_cast<std::ptrdiff_t>(k_lanes);
  constexpr std::ptrdiff_t line = 16;  // floats of a cache line, which is used up before the next one is loaded
  F32 acc[R][V];
  start_tile<R, V>(t, acc);
  const float* const a = t.a;
  const std::ptrdiff_t ac = t.a_col;
  F32 b[W];
  std::ptrdiff_t k = 0;
  const auto k_end = static_cast<std::ptrdiff_t>(t.k);
  for (; k + line <= k_end; k += line)
#pragma unroll
    for (int v = 0; v < V; ++v)
#pragma unroll
      for (std::ptrdiff_t h = 0; h < line; h += W) {
        load_transposed(t.b + v * W * t.b_row + k + h, t.b_row, b);
#pragma unroll
        for (int u = 0; u < W; ++u) {
#pragma unroll
          for (int r = 0; r < R; ++r) acc[r][v] = fma(set(a[(k + h + u) * ac + r]), b[u], acc[r][v]);
          step_ends();
        }
      }
  for (; k < k_end; k += W)
#pragma unroll
    for (int v = 0; v < V; ++v) {
      const std::ptrdiff_t count = k_end - k < W ? k_end - k : W;
      F32 rest[W];  // apart from b, which must have no address
      load_transposed_part(t.b + v * W * t.b_row + k, t.b_row, k_lanes, static_cast<std::size_t>(count), rest);
#pragma clang loop unroll(disable)
      for (std::ptrdiff_t u = 0; u < count; ++u)
#pragma unroll
        for (int r = 0; r < R; ++r) acc[r][v] = fma(set(a[(k + u) * ac + r]), rest[u], acc[r][v]);
    }
  finish_tile<R, V>(t, acc);
}
template <int R, int C>
void tile_stream(const Tile& t) noexcept {
  constexpr int V = C == 2 && R <= k_stream_pair_rows ? 2 : 1;
  Tile columns = t;
  for (int v = 0; v < C; v += V) {
    stream_columns<R, V>(columns);
    columns.b += static_cast<std::ptrdiff_t>(V * k_lanes) * t.b_row;
    columns.c += V * k_lanes;
    if (t.bias) columns.bias += V * k_lanes;
  }
}

// Function pointers for R = 1 ... k_tile_rows: tiles[C - 1][R - 1].
using TileFunction = void (*)(const Tile&) noexcept;
template <int... R>
struct Rows {};
template <int N, int... R>
struct CountRows : CountRows<N - 1, N, R...> {};
template <int... R>
struct CountRows<0, R...> {
  using type = Rows<R...>;
};
struct TileTable {
  TileFunction at[2][k_tile_rows];
};

template <int... R>
constexpr TileTable rows_table(Rows<R...>) {
  return {{{tile_rows<R, 1>...}, {tile_rows<R, 2>...}}};
}
template <int... R>
constexpr TileTable cols_table(Rows<R...>) {
  return {{{tile_cols<R, 1>...}, {tile_cols<R, 2>...}}};
}
template <int... R>
constexpr TileTable stream_table(Rows<R...>) {
  return {{{tile_stream<R, 1>...}, {tile_stream<R, 2>...}}};
}
constexpr TileTable k_tile_rows_table = rows_table(CountRows<k_tile_rows>::type{});
constexpr TileTable k_tile_cols_table = cols_table(CountRows<k_tile_rows>::type{});
constexpr TileTable k_tile_stream_table = stream_table(CountRows<k_stream_rows>::type{});

}  // namespace
}  // namespace qorus::kernels
