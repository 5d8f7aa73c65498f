// The gradient of a convolution's weights: a product whose sum runs over places. Channels lie side by side for it: the output's
// gradient as [place][channel of a run], x as [place][channel] (a tap of k_lanes channels is then a vector where it stands), or, where
// channels are few, as [place][channel and tap]. Included by one instruction set's conv.cpp after conv.h.
//
//   phase 0   a task adds up some images' parts into sums of its own
//   phase 1   the tasks' sums, in order, are the gradient
#pragma once
#include <cstddef>
#include <cstdint>

namespace qorus::kernels {
namespace {

constexpr std::size_t k_places =
    256;  // places that are multiplied at a time: their gradients stay in the first-level cache
constexpr std::size_t k_most_parts = 8;

struct WeightCut {
  ConvGround ground;
  std::size_t places, k;
  bool patches;              // x is laid out by channel and tap
  std::size_t cols;          // of the sums: [taps][ins], or [ins][taps] filled up with zeros
  std::size_t parts, units;  // tasks of each group; bands of all images
  std::size_t band_places;
  // in floats of a worker's scratch
  std::size_t x_at, y_at, panel_at, offset_at, tap_at, worker;
};

inline WeightCut weight_cut(const Conv& c) noexcept {
  WeightCut cut{};
  cut.places = c.axis[0].out * c.axis[1].out * c.axis[2].out;
  const std::size_t taps = c.axis[0].taps * c.axis[1].taps * c.axis[2].taps;
  cut.k = c.ins * taps;
  cut.patches = c.ins % k_lanes != 0;
  cut.cols = conv_up(cut.k, k_lanes);
  const std::size_t least = cut.patches ? conv_parts(cut.places * cut.cols, k_ground / 2) : 1;
  cut.ground = conv_ground(c, k_ground, least, true);
  cut.units = c.images * cut.ground.bands;
  const std::size_t work = c.images * cut.places * conv_max(1, cut.k) * c.outs;
  const std::size_t wanted = conv_min(k_most_parts, conv_parts(16, c.groups));
  cut.parts = conv_max(1, conv_min(conv_min(wanted, cut.units), work / k_conv_work));
  cut.band_places = cut.places / c.axis[cut.ground.axis].out * cut.ground.band;
  const std::size_t channel = cut.ground.channel(), floats = sizeof(std::ptrdiff_t) / sizeof(float);
  std::size_t at = conv_up((cut.patches ? c.ins : k_lanes) * channel + k_slack, 16);
  cut.x_at = at;
  at += cut.patches ? (cut.band_places + k_conv_cols) * cut.cols : (channel + k_lanes) * c.ins;
  cut.y_at = conv_up(at, 16);
  at = cut.y_at + c.outs * cut.band_places + k_slack;
  cut.panel_at = conv_up(at, 16);
  at = cut.panel_at + (cut.patches ? cut.cols * k_conv_cols + k_slack : 0);
  cut.offset_at = conv_up(at, 16);
  cut.tap_at = cut.offset_at + cut.band_places * floats;
  cut.worker = cut.tap_at + cut.k * floats;
  return cut;
}

GemmPlan conv_weight_plan(const Conv& c) noexcept {
  GemmPlan p;
  if (c.groups * c.outs * c.ins == 0) return p;
  if (c.images * c.axis[0].out * c.axis[1].out * c.axis[2].out == 0) {
    p.phases = 1;  // the last alone: sums of nothing
    p.tasks[0] = static_cast<std::uint32_t>(c.groups);
    return p;
  }
  const WeightCut cut = weight_cut(c);
  p.phases = 2;
  p.tasks[0] = static_cast<std::uint32_t>(c.groups * cut.parts);
  p.tasks[1] = static_cast<std::uint32_t>(c.groups);
  p.shared_bytes = c.groups * cut.parts * c.outs * cut.cols * sizeof(float);
  p.worker_bytes = cut.worker * sizeof(float);
  return p;
}

// to[t * step + r] = x[r * row + t], r < rows <= k_lanes, t < count; whole vectors are written in the order of t. `whole`: a vector may
// be read from every t below count.
inline void conv_turn(const float* x, std::size_t row, std::size_t rows, std::size_t count, bool whole, float* to,
                      std::size_t step) noexcept {
  F32 block[k_lanes];
  for (std::size_t t = 0; t < count; t += k_lanes) {
    const std::size_t left = conv_min(count - t, k_lanes);
#pragma unroll
    for (std::size_t r = 0; r < k_lanes; ++r)
      block[r] = r >= rows                  ? set(0.0f)
                 : whole || left == k_lanes ? load(x + r * row + t)
                                            : load(x + r * row + t, first_lanes(left));
    transpose_square(block);
    for (std::size_t u = 0; u < left; ++u) store(to + (t + u) * step, block[u]);
  }
}

// x's band as [place of the ground][channel].
inline void weight_channels(const Conv& c, const WeightCut& cut, const float* x, const ConvBand& band,
                            float* worker) noexcept {
  const std::size_t channel = cut.ground.channel(), plane = c.axis[0].in * c.axis[1].in * c.axis[2].in;
  for (std::size_t i = 0; i < c.ins; i += k_lanes) {
    for (std::size_t l = 0; l < k_lanes; ++l)
      conv_copy_channel(c, cut.ground, x + (i + l) * plane, band.begin[0], band.begin[1], worker + l * channel);
    conv_turn(worker, channel, k_lanes, channel, true, worker + cut.x_at + i, c.ins);
  }
}

// x's band as [place of y][channel and tap].
inline void weight_patches(const Conv& c, const WeightCut& cut, const float* x, const ConvBand& band,
                           float* worker) noexcept {
  const std::size_t channel = cut.ground.channel(), plane = c.axis[0].in * c.axis[1].in * c.axis[2].in;
  for (std::size_t i = 0; i < c.ins; ++i)
    conv_copy_channel(c, cut.ground, x + i * plane, band.begin[0], band.begin[1], worker + i * channel);
  const auto* tap = reinterpret_cast<const std::ptrdiff_t*>(worker + cut.tap_at);
  float* panel = worker + cut.panel_at;
  float* to = worker + cut.x_at;
  ConvPieces pieces;
  for (std::size_t row = 0, p2 = 0; row < band.count[0] * band.count[1]; to += k_conv_cols * cut.cols) {
    conv_next(c, cut.ground, false, band, row, p2, pieces);
    conv_pack_panel(c, cut.ground, worker, tap, cut.k, pieces, panel);
    for (std::size_t k = 0; k < cut.cols; k += k_lanes)
      conv_turn(panel + k * k_conv_cols, k_conv_cols, conv_min(k_lanes, cut.k - k), k_conv_cols, true, to + k,
                cut.cols);
  }
}

// Where the places of a band are in x as it was laid out, and the taps in the ground.
inline void weight_tables(const Conv& c, const WeightCut& cut, float* worker) noexcept {
  auto* offset = reinterpret_cast<std::ptrdiff_t*>(worker + cut.offset_at);
  const std::size_t width = c.axis[2].out, height = cut.ground.axis == 0 ? c.axis[1].out : cut.ground.band;
  for (std::size_t p = 0; p < cut.band_places; ++p) {
    const std::size_t p0 = p / width / height, p1 = p / width % height, p2 = p % width;
    const std::size_t ground =
        (p0 * c.axis[0].step * cut.ground.extent[1] + p1 * c.axis[1].step) * cut.ground.pitch + p2 * c.axis[2].step;
    offset[p] = static_cast<std::ptrdiff_t>(cut.patches ? p * cut.cols : ground * c.ins);
  }
  auto* tap = reinterpret_cast<std::ptrdiff_t*>(worker + cut.tap_at);
  for (std::size_t i = 0; i < c.ins; ++i)
    for (std::size_t t0 = 0; t0 < c.axis[0].taps; ++t0)
      for (std::size_t t1 = 0; t1 < c.axis[1].taps; ++t1)
        for (std::size_t t2 = 0; t2 < c.axis[2].taps; ++t2)
          *tap++ = static_cast<std::ptrdiff_t>(i * cut.ground.channel()) + conv_tap(c, cut.ground, t0, t1, t2);
}

// sums[o][col] += the products over one band.
inline void weight_band(const Conv& c, const WeightCut& cut, std::size_t count, const float* worker,
                        float* sums) noexcept {
  const auto* offset = reinterpret_cast<const std::ptrdiff_t*>(worker + cut.offset_at);
  const auto* tap = reinterpret_cast<const std::ptrdiff_t*>(worker + cut.tap_at);
  const float* x = worker + cut.x_at;
  const float* y = worker + cut.y_at;
  const ConvRuns runs(c.outs);
  const auto vector_at = [&](std::size_t col) {  // of the first place
    return cut.patches ? x + col : x + tap[col / c.ins] * static_cast<std::ptrdiff_t>(c.ins) + col % c.ins;
  };
  for (std::size_t p = 0; p < count; p += k_places)
    for (std::size_t run = 0; run < runs.count; ++run) {
      const std::size_t rows = runs.rows(run);
      ConvTile t{};
      t.k = conv_min(k_places, count - p);
      t.a = y + runs.begin(run) * count + p * rows;
      t.offset = offset + p;
      t.c_row = cut.cols;
      t.from_c = true;
      for (std::size_t col = 0; col < cut.cols; col += k_conv_cols) {
        const bool wide = col + k_lanes < cut.cols;
        t.b[0] = vector_at(col);
        t.b[1] = wide ? vector_at(col + k_lanes) : t.b[0];
        t.c = sums + runs.begin(run) * cut.cols + col;
        k_conv_tiles.at[wide ? 1 : 0][rows - 1](t);
      }
    }
}

// One task's images and bands of a group.
inline void weight_part(const Conv& c, const WeightCut& cut, std::size_t group, std::size_t part, float* worker,
                        float* sums) noexcept {
  for (std::size_t i = 0; i < c.outs * cut.cols; ++i) sums[i] = 0;
  weight_tables(c, cut, worker);
  const std::size_t plane = c.axis[0].in * c.axis[1].in * c.axis[2].in;
  const std::size_t begin = cut.units * part / cut.parts, end = cut.units * (part + 1) / cut.parts;
  const ConvRuns runs(c.outs);
  for (std::size_t unit = begin; unit < end; ++unit) {
    const std::size_t image = unit / cut.ground.bands;
    const ConvBand band = conv_band(c, cut.ground, unit % cut.ground.bands);
    const float* x = c.x + (image * c.groups + group) * c.ins * plane;
    if (cut.patches)
      weight_patches(c, cut, x, band, worker);
    else
      weight_channels(c, cut, x, band, worker);
    const std::size_t count = band.count[0] * band.count[1] * band.count[2];
    const float* y = c.y + static_cast<std::ptrdiff_t>(image) * c.y_image +
                     static_cast<std::ptrdiff_t>(group * c.outs) * c.y_channel +
                     static_cast<std::ptrdiff_t>((band.begin[0] * c.axis[1].out + band.begin[1]) * c.axis[2].out);
    for (std::size_t run = 0; run < runs.count; ++run)
      conv_turn(y + static_cast<std::ptrdiff_t>(runs.begin(run)) * c.y_channel, static_cast<std::size_t>(c.y_channel),
                runs.rows(run), count, false, worker + cut.y_at + runs.begin(run) * count, runs.rows(run));
    weight_band(c, cut, count, worker, sums);
  }
}

// The gradient of one group: its parts added up in order.
inline void weight_finish(const Conv& c, const float* sums, std::size_t parts, std::size_t cols, bool patches,
                          std::size_t group, float* dw) noexcept {
  const std::size_t taps = c.axis[0].taps * c.axis[1].taps * c.axis[2].taps;
  for (std::size_t o = 0; o < c.outs; ++o)
    for (std::size_t i = 0; i < c.ins; ++i)
      for (std::size_t t = 0; t < taps; ++t) {
        const std::size_t t2 = t % c.axis[2].taps, t1 = t / c.axis[2].taps % c.axis[1].taps,
                          t0 = t / c.axis[2].taps / c.axis[1].taps;
        float& out =
            dw[static_cast<std::ptrdiff_t>(group) * c.w_group + static_cast<std::ptrdiff_t>(o) * c.w_out +
               static_cast<std::ptrdiff_t>(i) * c.w_in + static_cast<std::ptrdiff_t>(t0) * c.axis[0].w_tap +
               static_cast<std::ptrdiff_t>(t1) * c.axis[1].w_tap + static_cast<std::ptrdiff_t>(t2) * c.axis[2].w_tap];
        float sum = 0;
        for (std::size_t part = 0; part < parts; ++part)
          sum += sums[(part * c.outs + o) * cols + (patches ? i * taps + t : t * c.ins + i)];
        out = c.accumulate ? out + sum : sum;
      }
}

void conv_weight_task(const Conv& c, float* dw, const GemmPlan& p, std::uint32_t phase, std::uint32_t task,
                      void* shared, void* worker) noexcept {
  if (p.phases == 1) return weight_finish(c, nullptr, 0, 0, false, task, dw);
  const WeightCut cut = weight_cut(c);
  const std::size_t size = c.outs * cut.cols;
  auto* sums = static_cast<float*>(shared);
  if (phase == 0)
    return weight_part(c, cut, task / cut.parts, task % cut.parts, static_cast<float*>(worker), sums + task * size);
  weight_finish(c, sums + task * cut.parts * size, cut.parts, cut.cols, cut.patches, task, dw);
}

}  // namespace
}  // namespace qorus::kernels
