// Convolutions of 3 by 3 taps by 16 products instead of 36 for each 2 by 2 outputs: F(2x2, 3x3) of Lavin & Gray, Fast Algorithms for
// Convolutional Neural Networks, 2016. Included by one instruction set's conv.cpp after conv_tile.h.
//
//   Y = A'[ (G g G') * (B' d B) ]A      B' = 1  0 -1  0     G = 1   0   0     A' = 1 1  1  0
//                                            0  1  1  0         .5  .5  .5         0 1 -1 -1
//                                            0 -1  1  0         .5 -.5  .5
//                                            0  1  0 -1         0   0   1
//
// for a patch d of 4 by 4 places, summed over channels before A. Its error's bound is (ins + 8) roundings of at most 64 / 9 times the sum
// of the absolute values, against 9 ins of the plain sum: lower from 28 channels on, a tenth above it at 16.
//
//   phase 0   the weights, [group][run of channels][16][input channel][channel of the run]
//   phase 1   a task is a band of rows of patches of one image and group, k_conv_cols patches at a time: transformed to
//             [16][input channel][patch], multiplied for each of the 16, transformed back
//
// A vector's patches come from segments of a row: halves of a vector, or quarters where that leaves fewer lanes idle.
#pragma once
#include <cstddef>
#include <cstdint>

namespace qorus::kernels {
namespace {

constexpr std::size_t k_least_winograd = 16;  // channels in, that the transforms are worth
constexpr std::size_t k_winograd_line = 16;   // floats between the 16 matrices, lest all fall into one set of the cache

struct WinogradCut {
  ConvGround ground;  // of a band: pairs of rows
  std::size_t high, wide, band, bands;
  std::size_t parts;  // tasks of a band, of some channels out each: what is alone is halved, for a second worker
  std::size_t segments, length;  // of a vector, patches of a segment
  std::size_t row_segments;
  std::size_t x_step, y_step;  // floats from one of the 16 to the next, in V and M
  std::size_t v_at, m_at, offset_at, worker;
};

// Whatever the number of images: what an image gives does not depend on its company.
inline bool winograd_fits(const Conv& c) noexcept {
  const ConvAxis &depth = c.axis[0], &down = c.axis[1], &along = c.axis[2];
  const auto three = [](const ConvAxis& a) {
    return a.taps == 3 && a.step == 1 && (a.tap_step == 1 || a.tap_step == -1) && a.out >= 4;
  };
  const bool flat = depth.in == 1 && depth.out == 1 && depth.taps == 1 && depth.first == 0;
  return flat && three(down) && three(along) && along.y_step == 1 && c.ins >= k_least_winograd && c.outs >= 8;
}

inline WinogradCut winograd_cut(const Conv& c) noexcept {
  WinogradCut cut{};
  cut.high = conv_parts(c.axis[1].out, 2);
  cut.wide = conv_parts(c.axis[2].out, 2);
  const bool quarters = conv_up(cut.wide, k_lanes / 4) < conv_up(cut.wide, k_lanes / 2);
  cut.segments = quarters ? 4 : 2;
  cut.length = k_lanes / cut.segments;
  cut.row_segments = conv_parts(cut.wide, cut.length);
  // Bands: for enough tasks, as long as each fills some tiles; and so that a band's copy stays in the cache.
  const std::size_t pitch = 2 * cut.row_segments * cut.length + 2, rest = c.images * c.groups;
  const std::size_t filling = conv_parts(k_conv_cols, cut.row_segments * cut.length);
  const std::size_t least = rest >= 16 ? 1 : conv_min(16 / rest + 1, conv_parts(cut.high, filling));
  const std::size_t most = conv_max(1, k_ground / (c.ins * pitch) / 2);
  cut.band = conv_max(1, conv_min(most, conv_parts(cut.high, least)));
  cut.bands = conv_parts(cut.high, cut.band);
  cut.parts = rest * cut.bands == 1 ? conv_min(2, ConvRuns(c.outs).count) : 1;
  cut.ground = conv_ground(c, k_ground, 1, true);
  cut.ground.pitch = pitch;
  cut.ground.extent[0] = 1;
  cut.ground.extent[1] = 2 * cut.band + 2;
  cut.x_step = c.ins * k_conv_cols + k_winograd_line;
  cut.y_step = std::size_t{k_conv_rows} * k_conv_cols + k_winograd_line;
  cut.v_at = conv_up(c.ins * cut.ground.channel() + k_slack, 16);
  cut.m_at = cut.v_at + 16 * cut.x_step;
  cut.offset_at = cut.m_at + 16 * cut.y_step;
  cut.worker = cut.offset_at + c.ins * (sizeof(std::ptrdiff_t) / sizeof(float));
  return cut;
}

GemmPlan winograd_plan(const Conv& c) noexcept {
  const WinogradCut cut = winograd_cut(c);
  GemmPlan p;
  p.phases = 2;
  p.tasks[0] = static_cast<std::uint32_t>(
      conv_max(1, conv_min(c.groups * ConvRuns(c.outs).count, c.groups * c.outs * c.ins >> 10)));
  p.tasks[1] = static_cast<std::uint32_t>(c.images * c.groups * cut.bands * cut.parts);
  p.shared_bytes = c.groups * c.outs * c.ins * 16 * sizeof(float);
  p.worker_bytes = cut.worker * sizeof(float);
  p.weights_first = true;
  return p;
}

// --- weights ---

// G times three rows: to[i * step] for i < 4.
inline void winograd_thirds(const F32& a, const F32& b, const F32& c, F32* to, std::size_t step) noexcept {
  const F32 half = set(0.5f), outer = (a + c) * half, inner = b * half;
  to[0] = a;
  to[step] = outer + inner;
  to[2 * step] = outer - inner;
  to[3 * step] = c;
}

// One input channel's weights to `rows` <= k_lanes channels, from w on: u[16][step], whole vectors are written.
inline void winograd_filter(const Conv& c, const float* w, std::size_t rows, float* u, std::size_t step) noexcept {
  alignas(64) float taps[9][k_lanes] = {};
  const ConvAxis &down = c.axis[1], &along = c.axis[2];
  for (std::size_t i = 0; i < 9; ++i) {
    const std::size_t down_tap = down.tap_step > 0 ? i / 3 : 2 - i / 3,
                      along_tap = along.tap_step > 0 ? i % 3 : 2 - i % 3;
    const float* from =
        w + static_cast<std::ptrdiff_t>(down_tap) * down.w_tap + static_cast<std::ptrdiff_t>(along_tap) * along.w_tap;
    for (std::size_t r = 0; r < rows; ++r) taps[i][r] = from[static_cast<std::ptrdiff_t>(r) * c.w_out];
  }
  F32 half[4][3], whole[4];
#pragma unroll
  for (std::size_t j = 0; j < 3; ++j)
    winograd_thirds(load(taps[j]), load(taps[3 + j]), load(taps[6 + j]), &half[0][j], 3);
#pragma unroll
  for (std::size_t i = 0; i < 4; ++i) {
    winograd_thirds(half[i][0], half[i][1], half[i][2], whole, 1);
#pragma unroll
    for (std::size_t j = 0; j < 4; ++j) store(u + (4 * i + j) * step, whole[j], first_lanes(rows));
  }
}

inline void winograd_weights(const Conv& c, std::size_t index, std::size_t tasks, float* shared) noexcept {
  const ConvRuns runs(c.outs);
  const std::size_t all = c.groups * runs.count, each = conv_parts(all, tasks);
  for (std::size_t i = index * each; i < conv_min(all, (index + 1) * each); ++i) {
    const std::size_t group = i / runs.count, run = i % runs.count, rows = runs.rows(run);
    float* u = shared + (group * c.outs + runs.begin(run)) * c.ins * 16;
    const float* w =
        c.w + static_cast<std::ptrdiff_t>(group) * c.w_group + static_cast<std::ptrdiff_t>(runs.begin(run)) * c.w_out;
    for (std::size_t in = 0; in < c.ins; ++in)
      winograd_filter(c, w + static_cast<std::ptrdiff_t>(in) * c.w_in, rows, u + in * rows, c.ins * rows);
  }
}

// --- patches ---

// Some patches that follow one another in a row of them.
struct WinogradSegment {
  std::size_t row, first, count;  // count 0: idle lanes
};
struct WinogradTile {
  WinogradSegment list[8];  // of two vectors
  std::size_t vectors;
};

// The next tile from segment `at` on, of a band of `rows` rows.
inline WinogradTile winograd_next(const WinogradCut& cut, std::size_t rows, std::size_t& at) noexcept {
  WinogradTile tile{};
  const std::size_t left = rows * cut.row_segments - at;
  tile.vectors = left > cut.segments ? 2 : 1;
  for (std::size_t s = 0; s < tile.vectors * cut.segments; ++s) {
    WinogradSegment& segment = tile.list[s];
    const std::size_t i = conv_min(at, rows * cut.row_segments - 1);
    segment.row = i / cut.row_segments;
    segment.first = i % cut.row_segments * cut.length;
    segment.count = s < left ? conv_min(cut.length, cut.wide - segment.first) : 0;
    if (s < left) ++at;
  }
  return tile;
}

// Two vectors' worth of places, from `shift` on, of a row of each segment.
template <int Segments>
inline void winograd_row(const float* const (&x)[4], std::size_t shift, F32& even_places, F32& odd_places) noexcept {
  F32 low, high;
  if constexpr (Segments == 2) {
    low = load(x[0] + shift);
    high = load(x[1] + shift);
  } else {
    low = load_halves(x[0] + shift, x[1] + shift);
    high = load_halves(x[2] + shift, x[3] + shift);
  }
  even_places = even(low, high);
  odd_places = odd(low, high);
}

// B' d B of one channel for a vector of patches: v[i * step] for i < 16.
template <int Segments>
inline void winograd_patches(const float* channel, const ConvGround& g, const WinogradSegment* segment, float* v,
                             std::size_t step) noexcept {
  const float* x[4] = {};
#pragma unroll
  for (int s = 0; s < Segments; ++s) x[s] = channel + 2 * (segment[s].row * g.pitch + segment[s].first);
  F32 row[4][4];
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    F32 d[4];
    winograd_row<Segments>(x, static_cast<std::size_t>(i) * g.pitch, d[0], d[1]);
    winograd_row<Segments>(x, static_cast<std::size_t>(i) * g.pitch + 2, d[2], d[3]);
    row[i][0] = d[0] - d[2];
    row[i][1] = d[1] + d[2];
    row[i][2] = d[2] - d[1];
    row[i][3] = d[1] - d[3];
  }
#pragma unroll
  for (std::size_t j = 0; j < 4; ++j) {
    store(v + j * step, row[0][j] - row[2][j]);
    store(v + (4 + j) * step, row[1][j] + row[2][j]);
    store(v + (8 + j) * step, row[2][j] - row[1][j]);
    store(v + (12 + j) * step, row[1][j] - row[3][j]);
  }
}

// --- results ---

inline void winograd_put(const Conv& c, F32 sum, float* y, std::size_t count) noexcept {
  if (count >= k_lanes) {
    if (c.accumulate) sum = sum + load(y);
    if (c.relu) sum = max(set(0.0f), sum);
    store(y, sum);
  } else if (count > 0) {
    const Some part = first_lanes(count);
    if (c.accumulate) sum = sum + load(y, part);
    if (c.relu) sum = max(set(0.0f), sum);
    store(y, sum, part);
  }
}

// A' m A of one channel for a vector of patches, m[i * step] for i < 16, to the band's places y.
template <int Segments>
inline void winograd_results(const Conv& c, std::size_t first_row, const WinogradSegment* segment, const float* m,
                             std::size_t step, float bias, float* y) noexcept {
  F32 half[2][4];
#pragma unroll
  for (std::size_t j = 0; j < 4; ++j) {
    const F32 a = load(m + j * step), b = load(m + (4 + j) * step), d = load(m + (8 + j) * step),
              e = load(m + (12 + j) * step);
    half[0][j] = a + b + d;
    half[1][j] = b - d - e;
  }
#pragma unroll
  for (std::size_t i = 0; i < 2; ++i) {
    const F32* h = half[i];
    F32 out[2];
    interleave(set(bias) + (h[0] + h[1] + h[2]), set(bias) + (h[1] - h[2] - h[3]), out[0], out[1]);
#pragma unroll
    for (int s = 0; s < Segments; ++s) {
      const std::size_t row = first_row + 2 * segment[s].row + i, place = 2 * segment[s].first;
      if (segment[s].count == 0 || row >= c.axis[1].out) continue;
      const F32 part = Segments == 2 ? out[s % 2] : s % 2 ? upper_half(out[s / 2]) : out[s / 2];
      winograd_put(c, part, y + static_cast<std::ptrdiff_t>(row) * c.axis[1].y_step + place,
                   conv_min(2 * segment[s].count, c.axis[2].out - place));
    }
  }
}

template <int Segments>
void winograd_band(const Conv& c, const WinogradCut& cut, std::size_t image, std::size_t group, std::size_t band,
                   std::size_t part, const float* weights, float* worker) noexcept {
  const std::size_t plane = c.axis[1].in * c.axis[2].in, first_row = 2 * band * cut.band;
  const std::size_t channel = cut.ground.channel(), rows = conv_min(cut.band, cut.high - band * cut.band);
  for (std::size_t i = 0; i < c.ins; ++i)
    conv_copy_channel(c, cut.ground, c.x + ((image * c.groups + group) * c.ins + i) * plane, 0, first_row,
                      worker + i * channel);
  auto* offset = reinterpret_cast<std::ptrdiff_t*>(worker + cut.offset_at);
  for (std::size_t i = 0; i < c.ins; ++i) offset[i] = static_cast<std::ptrdiff_t>(i * k_conv_cols);
  float *v = worker + cut.v_at, *m = worker + cut.m_at;
  const ConvRuns runs(c.outs);
  for (std::size_t at = 0; at < rows * cut.row_segments;) {
    const WinogradTile tile = winograd_next(cut, rows, at);
    for (std::size_t i = 0; i < c.ins; ++i)
      for (std::size_t b = 0; b < tile.vectors; ++b)
        winograd_patches<Segments>(worker + i * channel, cut.ground, tile.list + b * Segments,
                                   v + i * k_conv_cols + b * k_lanes, cut.x_step);
    for (std::size_t run = runs.count * part / cut.parts; run < runs.count * (part + 1) / cut.parts; ++run) {
      ConvTile t{.k = c.ins,
                 .a = weights + runs.begin(run) * c.ins * 16,
                 .b = {},
                 .offset = offset,
                 .c = m,
                 .c_row = k_conv_cols,
                 .from_c = false};
      const std::size_t outs = runs.rows(run);
      for (std::size_t i = 0; i < 16; ++i, t.a += c.ins * outs, t.c += cut.y_step) {
        t.b[0] = v + i * cut.x_step;
        t.b[1] = t.b[0] + k_lanes;
        k_conv_tiles.at[tile.vectors - 1][outs - 1](t);
      }
      for (std::size_t o = 0; o < outs; ++o) {
        const std::size_t to = group * c.outs + runs.begin(run) + o;
        float* y = c.y + static_cast<std::ptrdiff_t>(image) * c.y_image + static_cast<std::ptrdiff_t>(to) * c.y_channel;
        for (std::size_t b = 0; b < tile.vectors; ++b)
          winograd_results<Segments>(c, first_row, tile.list + b * Segments, m + o * k_conv_cols + b * k_lanes,
                                     cut.y_step, c.bias ? c.bias[to] : 0.0f, y);
      }
    }
  }
}

void winograd_task(const Conv& c, const GemmPlan& p, std::uint32_t phase, std::uint32_t task, void* shared,
                   void* worker) noexcept {
  if (phase == 0) return winograd_weights(c, task, p.tasks[0], static_cast<float*>(shared));
  const WinogradCut cut = winograd_cut(c);
  const std::size_t part = task % cut.parts, rest = task / cut.parts, band = rest % cut.bands;
  const std::size_t group = rest / cut.bands % c.groups, image = rest / cut.bands / c.groups;
  const float* weights = static_cast<const float*>(shared) + group * c.outs * c.ins * 16;
  const auto run = cut.segments == 2 ? winograd_band<2> : winograd_band<4>;
  run(c, cut, image, group, band, part, weights, static_cast<float*>(worker));
}

}  // namespace
}  // namespace qorus::kernels
