// What convolutions share: the register tile, the ground that a task covers, and its copy with zeros around. Include a vec.h and
// k_conv_rows first; everything has internal linkage.
//
// A tile holds R rows (channels) by C vectors. The vectors that multiply are read at a table of offsets from a place of their own each,
// so that one tile serves every shape: places that lie in a row of the picture are read where they stand, others from a copy in the
// order of the tile.
#pragma once
#include <cstddef>

namespace qorus::kernels {
namespace {

constexpr std::size_t k_conv_cols = 2 * k_lanes;
constexpr std::size_t k_ground = std::size_t{1} << 17;  // floats of a band's copy: half of the second-level cache
constexpr std::size_t k_slack = 4 * k_lanes;            // floats after a copy that whole vectors may read and write

constexpr std::size_t conv_min(std::size_t a, std::size_t b) noexcept { return a < b ? a : b; }
constexpr std::size_t conv_max(std::size_t a, std::size_t b) noexcept { return a > b ? a : b; }
constexpr std::size_t conv_parts(std::size_t a, std::size_t b) noexcept { return (a + b - 1) / b; }
constexpr std::size_t conv_up(std::size_t a, std::size_t b) noexcept { return conv_parts(a, b) * b; }

// c[r, v] (+)= sum over k of a[k][r] b[v][offset[k] + lane]
struct ConvTile {
  std::size_t k;
  const float* a;  // [k][R]
  const float* b[2];
  const std::ptrdiff_t* offset;
  float* c;
  std::size_t c_row;
  bool from_c;
};

template <int R, int C>
void conv_tile(const ConvTile& t) noexcept {
  F32 acc[R][C];
#pragma unroll
  for (int r = 0; r < R; ++r)
#pragma unroll
    for (int v = 0; v < C; ++v) acc[r][v] = t.from_c ? load(t.c + std::size_t(r) * t.c_row + v * k_lanes) : set(0.0f);
  const float *a = t.a, *b0 = t.b[0], *b1 = t.b[C - 1];
  const std::ptrdiff_t* offset = t.offset;
  const auto step = [&](int u) __attribute__((always_inline)) {
    const std::ptrdiff_t at = offset[u];
    F32 b[C];
    b[0] = load(b0 + at);
    if constexpr (C > 1) b[1] = load(b1 + at);
#pragma unroll
    for (int r = 0; r < R; ++r) {
      const F32 x = set(a[u * R + r]);
#pragma unroll
      for (int v = 0; v < C; ++v) acc[r][v] = fma(x, b[v], acc[r][v]);
    }
    __asm__ volatile("" ::: "memory");  // no loads ahead: they would spill accumulators
  };
  std::size_t k = t.k;
  for (; k >= 4; k -= 4, a += 4 * R, offset += 4) {
#pragma unroll
    for (int u = 0; u < 4; ++u) step(u);
  }
  for (; k > 0; --k, a += R, ++offset) step(0);
#pragma unroll
  for (int r = 0; r < R; ++r)
#pragma unroll
    for (int v = 0; v < C; ++v) store(t.c + std::size_t(r) * t.c_row + v * k_lanes, acc[r][v]);
}

using ConvTileFunction = void (*)(const ConvTile&) noexcept;
template <int... R>
struct ConvRows {};
template <int N, int... R>
struct CountConvRows : CountConvRows<N - 1, N, R...> {};
template <int... R>
struct CountConvRows<0, R...> {
  using type = ConvRows<R...>;
};
struct ConvTiles {
  ConvTileFunction at[2][k_conv_rows];  // [C - 1][R - 1]
};
template <int... R>
constexpr ConvTiles conv_tiles(ConvRows<R...>) {
  return {{{conv_tile<R, 1>...}, {conv_tile<R, 2>...}}};
}
constexpr ConvTiles k_conv_tiles = conv_tiles(CountConvRows<k_conv_rows>::type{});

// The runs of channels that make tiles: as even as they can be, the first ones longer by one.
struct ConvRuns {
  std::size_t count, length, longer;
  explicit ConvRuns(std::size_t rows) noexcept
      : count(conv_max(1, conv_parts(rows, k_conv_rows))), length(rows / count), longer(rows % count) {}
  std::size_t begin(std::size_t run) const noexcept { return run * length + conv_min(run, longer); }
  std::size_t rows(std::size_t run) const noexcept { return length + (run < longer ? 1 : 0); }
};

// The part of x that some outputs meet, with the zeros around it: a band of places along one axis, all of the axes after it. Read
// where it stands if it has no zeros, else copied.
struct ConvGround {
  int axis;          // along which bands are cut: 0 where there is more than one slice, else 1
  std::size_t band;  // places of that axis in each
  std::size_t bands;
  std::ptrdiff_t low[3];  // the least q - p step of all taps
  std::size_t span[3];    // the greatest less the least
  std::size_t extent[2];  // of the copy: slices and rows of a band
  std::size_t pitch;      // floats from row to row
  bool copied;

  std::size_t channel() const noexcept { return extent[0] * extent[1] * pitch; }
};

inline std::size_t conv_reach(const ConvAxis& a, std::size_t places, std::size_t span) noexcept {
  return (places - 1) * a.step + span + 1;
}

// `most`: floats that the copy of a band (of `ins` channels) should not exceed; `least`: bands that are wanted anyway.
inline ConvGround conv_ground(const Conv& c, std::size_t most, std::size_t least, bool always_copied) noexcept {
  ConvGround g{};
  g.copied = always_copied;
  for (int d = 0; d < 3; ++d) {
    const ConvAxis& a = c.axis[d];
    const std::ptrdiff_t last = static_cast<std::ptrdiff_t>(a.taps - 1) * a.tap_step;
    g.low[d] = a.first + (last < 0 ? last : 0);
    g.span[d] = static_cast<std::size_t>(last < 0 ? -last : last);
    const auto end = g.low[d] + static_cast<std::ptrdiff_t>(conv_reach(a, a.out, g.span[d]));
    g.copied = g.copied || g.low[d] < 0 || end > static_cast<std::ptrdiff_t>(a.in);
  }
  g.axis = c.axis[0].out > 1 ? 0 : 1;
  const std::size_t width = c.axis[2].step == 1 ? conv_up(c.axis[2].out, k_lanes) : c.axis[2].out;
  g.pitch = g.copied ? conv_reach(c.axis[2], width, g.span[2]) : c.axis[2].in;
  const ConvAxis& cut = c.axis[g.axis];
  const std::size_t inner = g.axis == 0 ? conv_reach(c.axis[1], c.axis[1].out, g.span[1]) : 1;
  const std::size_t line = conv_max(1, c.ins * inner * g.pitch);  // floats of one place along the cut axis
  std::size_t fits = most / line > g.span[g.axis] ? (most / line - g.span[g.axis]) / cut.step : 0;
  g.band = conv_min(cut.out, conv_max(1, fits));
  g.bands = conv_min(cut.out, conv_max(least, conv_parts(cut.out, g.band)));
  g.band = conv_parts(cut.out, g.bands);
  g.bands = conv_parts(cut.out, g.band);
  for (int d = 0; d < 2; ++d)
    g.extent[d] = !g.copied ? c.axis[d].in : conv_reach(c.axis[d], d == g.axis ? g.band : c.axis[d].out, g.span[d]);
  return g;
}

// Where tap (t0, t1, t2) of a channel is met, from the place of the first output.
inline std::ptrdiff_t conv_tap(const Conv& c, const ConvGround& g, std::size_t t0, std::size_t t1,
                               std::size_t t2) noexcept {
  const std::size_t t[3] = {t0, t1, t2};
  std::ptrdiff_t at[3];
  for (int d = 0; d < 3; ++d)
    at[d] = c.axis[d].first + static_cast<std::ptrdiff_t>(t[d]) * c.axis[d].tap_step - g.low[d];
  return (at[0] * static_cast<std::ptrdiff_t>(g.extent[1]) + at[1]) * static_cast<std::ptrdiff_t>(g.pitch) + at[2];
}

// n floats; whole vectors are written: up to a vector beyond the end of `to`, nothing of `from`.
inline void conv_copy_row(const float* from, std::size_t n, float* to) noexcept {
  std::size_t i = 0;
  for (; i + k_lanes <= n; i += k_lanes) store(to + i, load(from + i));
  if (i < n) store(to + i, load(from + i, first_lanes(n - i)));
}
inline void conv_zero_row(std::size_t n, float* to) noexcept {
  if (n > 0) store(to, set(0.0f));  // mostly all of it: the loop is a call of memset to the compiler
  for (std::size_t i = k_lanes; i < n; i += k_lanes) store(to + i, set(0.0f));
}

// Channel `plane` of x as a band sees it that begins at places `begin0`, `begin1`, to `to` [extent0, extent1, pitch]. Rows are written
// in order, each up to a vector too far.
inline void conv_copy_channel(const Conv& c, const ConvGround& g, const float* plane, std::size_t begin0,
                              std::size_t begin1, float* to) noexcept {
  const auto first = [&](int d, std::size_t begin) {
    return static_cast<std::ptrdiff_t>(begin * c.axis[d].step) + g.low[d];
  };
  const std::ptrdiff_t q0 = first(0, begin0), q1 = first(1, begin1);
  const auto width = static_cast<std::ptrdiff_t>(c.axis[2].in), pitch = static_cast<std::ptrdiff_t>(g.pitch);
  const std::ptrdiff_t left = g.low[2] < 0 ? (-g.low[2] < pitch ? -g.low[2] : pitch) : 0;
  const std::ptrdiff_t from = g.low[2] > 0 ? g.low[2] : 0;
  std::ptrdiff_t count = width - from < pitch - left ? width - from : pitch - left;
  if (count < 0) count = 0;
  for (std::ptrdiff_t s = 0; s < static_cast<std::ptrdiff_t>(g.extent[0]); ++s)
    for (std::ptrdiff_t r = 0; r < static_cast<std::ptrdiff_t>(g.extent[1]); ++r, to += pitch) {
      const std::ptrdiff_t slice = q0 + s, row = q1 + r;
      if (slice < 0 || slice >= static_cast<std::ptrdiff_t>(c.axis[0].in) || row < 0 ||
          row >= static_cast<std::ptrdiff_t>(c.axis[1].in)) {
        conv_zero_row(g.pitch, to);
        continue;
      }
      const float* x = plane + (slice * static_cast<std::ptrdiff_t>(c.axis[1].in) + row) * width + from;
      conv_zero_row(static_cast<std::size_t>(left), to);
      conv_copy_row(x, static_cast<std::size_t>(count), to + left);
      conv_zero_row(static_cast<std::size_t>(pitch - left - count), to + left + count);
    }
}

}  // namespace
}  // namespace qorus::kernels
