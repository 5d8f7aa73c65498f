// Copies of A and B in the order in which the register tiles read them. Included by one instruction set's gemm.cpp
// after its gemm_vec.h and gemm_tile.h; everything has internal linkage.
#pragma once
#include <cstddef>

namespace qorus::kernels {
namespace {

inline void store_within(float* to, F32 v, std::size_t room) noexcept {
  if (room >= k_lanes)
    store(to, v);
  else
    store(to, v, first_lanes(room));
}

// to[t * step + r] = x[r * row + t], r < rows <= k_lanes, t < depth. Whole vectors are written in the order of t, so
// that with step < k_lanes the next one covers what the last one wrote too much; nothing is written from to + depth *
// step on.
inline void pack_transposed(const float* x, std::ptrdiff_t row, std::size_t rows, std::size_t depth, float* to,
                            std::size_t step) noexcept {
  for (std::size_t t = 0; t < depth; t += k_lanes) {
    const std::size_t count = depth - t < k_lanes ? depth - t : k_lanes;
    F32 v[k_lanes];
    if (rows == k_lanes && count == k_lanes && (depth - t - (k_lanes - 1)) * step >= k_lanes) {
      load_transposed(x + t, row, v);
#pragma unroll
      for (std::size_t u = 0; u < k_lanes; ++u) store(to + (t + u) * step, v[u]);
      continue;
    }
    load_transposed_part(x + t, row, rows, count, v);
    for (std::size_t u = 0; u < count; ++u) store_within(to + (t + u) * step, v[u], (depth - t - u) * step);
  }
}

// to[k][r] = a[k * a_col + r], r < rows <= k_lanes, for k from `begin` to `end`; nothing is written from to[depth] on.
inline void pack_columns(const float* a, std::ptrdiff_t a_col, std::size_t rows, std::size_t begin, std::size_t end,
                         std::size_t depth, float* to) noexcept {
  for (std::size_t k = begin; k < end; ++k)
    store_within(to + k * rows, load(a + static_cast<std::ptrdiff_t>(k) * a_col, first_lanes(rows)),
                 (depth - k) * rows);
}

// Rows i ... i+rows-1 of A, columns k0 ... k0+depth-1, as to[k][rows].
inline void pack_a(const Gemm& g, std::size_t i, std::size_t rows, std::size_t k0, std::size_t depth,
                   float* to) noexcept {
  const float* a = g.a + static_cast<std::ptrdiff_t>(i) * g.a_row + static_cast<std::ptrdiff_t>(k0) * g.a_col;
  if (g.a_row == 1 && rows <= k_lanes) {
    pack_columns(a, g.a_col, rows, 0, depth, depth, to);
  } else if (g.a_col == 1 && rows <= k_lanes) {
    pack_transposed(a, g.a_row, rows, depth, to, rows);
  } else {
    for (std::size_t k = 0; k < depth; ++k)
      for (std::size_t r = 0; r < rows; ++r)
        *to++ = a[static_cast<std::ptrdiff_t>(r) * g.a_row + static_cast<std::ptrdiff_t>(k) * g.a_col];
  }
}

// Rows of a B that are contiguous.
struct RowsOfB {
  const float* at;
  std::ptrdiff_t row;
  std::size_t count, cols;
};
constexpr std::size_t k_pack_cols = 4 * k_tile_cols;
// As panels of k_tile_cols columns, `panel` floats apart; the last one is filled up with zeros. `some` columns at a time: more panels may share
// a few sets of the caches. put(p, x) writes a vector.
template <class Put>
QORUS_INLINE void pack_rows(const RowsOfB& b, std::size_t some, float* to, std::size_t panel, Put put) noexcept {
  for (std::size_t done = 0; done < b.cols; done += some, to += some / k_tile_cols * panel)
    for (std::size_t k = 0; k < b.count; ++k) {
      const float* from = b.at + static_cast<std::ptrdiff_t>(k) * b.row + done;
      float* row = to + k * k_tile_cols;
      std::size_t left = b.cols - done < some ? b.cols - done : some;
      for (; left >= k_tile_cols; left -= k_tile_cols, from += k_tile_cols, row += panel) {
        put(row, load(from));
        put(row + k_lanes, load(from + k_lanes));
      }
      if (left == 0) continue;
      put(row, load(from, first_lanes(left < k_lanes ? left : k_lanes)));
      put(row + k_lanes, left > k_lanes ? load(from + k_lanes, first_lanes(left - k_lanes)) : set(0.0f));
    }
}

// Columns j ... j+cols-1 of B, rows k0 ... k0+depth-1, as panels of k_tile_cols columns, each [depth][k_tile_cols]; the
// last one is filled up with zeros.
inline void pack_b(const Gemm& g, std::size_t j, std::size_t cols, std::size_t k0, std::size_t depth,
                   float* to) noexcept {
  const float* b = g.b + static_cast<std::ptrdiff_t>(k0) * g.b_row + static_cast<std::ptrdiff_t>(j) * g.b_col;
  const std::size_t panel = depth * k_tile_cols;
  if (g.b_col == 1)
    return pack_rows({b, g.b_row, depth, cols}, k_pack_cols, to, panel, [](float* p, F32 x) { store(p, x); });
  for (std::size_t done = 0; done < cols; done += k_tile_cols, to += panel)
    for (std::size_t half = 0; half < k_tile_cols; half += k_lanes) {
      const std::size_t left = cols > done + half ? cols - done - half : 0;
      const std::size_t count = left < k_lanes ? left : k_lanes;
      const float* from = b + static_cast<std::ptrdiff_t>(done + half) * g.b_col;
      if (g.b_row == 1) {
        pack_transposed(from, g.b_col, count, depth, to + half, k_tile_cols);
      } else {
        for (std::size_t k = 0; k < depth; ++k)
          for (std::size_t c = 0; c < k_lanes; ++c)
            to[k * k_tile_cols + half + c] =
                c < count ? from[static_cast<std::ptrdiff_t>(k) * g.b_row + static_cast<std::ptrdiff_t>(c) * g.b_col]
                          : 0.0f;
      }
    }
}

constexpr std::size_t ceil_div(std::size_t a, std::size_t b) noexcept { return (a + b - 1) / b; }
constexpr std::size_t round_up(std::size_t x, std::size_t step) noexcept { return ceil_div(x, step) * step; }
// The length of even parts, multiples of `step`, no longer than about `most`.
constexpr std::size_t even_part(std::size_t all, std::size_t most, std::size_t step) noexcept {
  return all == 0 ? step : round_up(ceil_div(all, ceil_div(all, most)), step);
}
constexpr std::size_t depth_of(std::size_t k) noexcept { return even_part(k, k_block_k, k_lanes); }

// B packed ahead: blocks of depth_of(k) rows (the last may be shorter), in each the panels of all columns as pack_b
// writes them.
inline std::size_t packed_offset(std::size_t n, std::size_t k0, std::size_t depth, std::size_t j) noexcept {
  return k0 * round_up(n, k_tile_cols) + j * depth;
}
std::size_t packed_size(std::size_t n, std::size_t k) noexcept { return round_up(n, k_tile_cols) * k; }
void pack(const Gemm& g, float* packed) noexcept {
  for (std::size_t k0 = 0; k0 < g.k; k0 += depth_of(g.k)) {
    const std::size_t depth = g.k - k0 < depth_of(g.k) ? g.k - k0 : depth_of(g.k);
    pack_b(g, 0, g.n, k0, depth, packed + packed_offset(g.n, k0, depth, 0));
  }
}

}  // namespace
}  // namespace qorus::kernels
