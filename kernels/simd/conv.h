// A convolution as products of small blocks, without a copy of all patches. Included by one instruction set's conv.cpp after
// conv_tile.h and conv_winograd.h, which takes what it can.
//
//   phase 0   the weights, [group][run of channels][input channel and tap][channel of the run], and the tables of offsets
//   phase 1   a task is a band of one image's places, for some groups: its ground is copied with zeros around (if it needs any), then
//             tiles of places are multiplied. Places along a row are read where they stand; where rows are too short for that, or
//             places are apart, a tile's patches are packed first, k_depth of them at a time.
#pragma once
#include <cstddef>
#include <cstdint>

namespace qorus::kernels {
namespace {

constexpr std::size_t k_depth = 512;  // patches' elements packed at a time
constexpr std::size_t k_conv_work = std::size_t{1}
                                    << 18;  // products of a task that is made of several groups or images
constexpr std::size_t k_band_work = std::size_t{1} << 16;  // products that repay handing a band to another worker

struct ConvCut {
  ConvGround ground;
  std::size_t places, taps, k;
  std::size_t groups_per_task, group_tasks;
  bool direct;
  // in floats of the shared scratch, and in floats of a worker's
  std::size_t offsets_at, packed_offsets_at, panel_at, tile_at, worker;
};

inline ConvCut conv_cut(const Conv& c) noexcept {
  ConvCut cut{};
  cut.places = c.axis[0].out * c.axis[1].out * c.axis[2].out;
  cut.taps = c.axis[0].taps * c.axis[1].taps * c.axis[2].taps;
  cut.k = c.ins * cut.taps;
  const std::size_t group_work = conv_max(1, cut.places * cut.k * c.outs);
  cut.groups_per_task = conv_max(1, conv_min(c.groups, k_conv_work / group_work));
  cut.group_tasks = conv_parts(c.groups, cut.groups_per_task);
  const std::size_t rest = c.images * cut.group_tasks;  // tasks before any band is cut
  const std::size_t least = rest >= 16 ? 1 : conv_min(16 / rest + 1, group_work / k_band_work);
  const std::size_t row = c.axis[2].out, whole = conv_up(row, k_lanes);
  const bool long_rows = c.axis[2].step == 1 && (row == whole || 10 * row >= 9 * whole);
  cut.ground = conv_ground(c, k_ground, least, long_rows && row != whole);
  cut.direct = long_rows;
  const std::size_t floats_of_offset = sizeof(std::ptrdiff_t) / sizeof(float);
  cut.offsets_at = conv_up(c.groups * c.outs * cut.k, 16);
  cut.packed_offsets_at = cut.offsets_at + cut.k * floats_of_offset;
  std::size_t at = cut.ground.copied ? conv_up(c.ins * cut.ground.channel() + k_slack, 16) : 0;
  cut.panel_at = at;
  if (!cut.direct) at += k_depth * k_conv_cols + k_slack;
  cut.tile_at = at;
  cut.worker = at + conv_up(c.outs, 1) * k_conv_cols;
  return cut;
}

GemmPlan conv_plan(const Conv& c) noexcept {
  GemmPlan p;
  if (c.images * c.groups * c.outs * c.axis[0].out * c.axis[1].out * c.axis[2].out == 0) return p;
  if (winograd_fits(c)) return winograd_plan(c);
  const ConvCut cut = conv_cut(c);
  p.phases = 2;
  p.tasks[0] = static_cast<std::uint32_t>(
      conv_max(1, conv_min(c.groups * ConvRuns(c.outs).count, c.groups * c.outs * cut.k >> 14)));
  p.tasks[1] = static_cast<std::uint32_t>(c.images * cut.group_tasks * cut.ground.bands);
  p.shared_bytes = (cut.packed_offsets_at * sizeof(float)) + conv_min(cut.k, k_depth) * sizeof(std::ptrdiff_t);
  p.worker_bytes = cut.worker * sizeof(float);
  return p;
}

// Runs of weights, those of task `index` of `tasks`, and with the first task the tables.
inline void conv_pack_weights(const Conv& c, const ConvCut& cut, std::size_t index, std::size_t tasks,
                              float* shared) noexcept {
  const ConvRuns runs(c.outs);
  const std::size_t all = c.groups * runs.count, each = conv_parts(all, tasks);
  for (std::size_t i = index * each; i < conv_min(all, (index + 1) * each); ++i) {
    const std::size_t group = i / runs.count, run = i % runs.count, rows = runs.rows(run);
    float* to = shared + (group * c.outs + runs.begin(run)) * cut.k;
    const float* from =
        c.w + static_cast<std::ptrdiff_t>(group) * c.w_group + static_cast<std::ptrdiff_t>(runs.begin(run)) * c.w_out;
    for (std::size_t in = 0; in < c.ins; ++in)
      for (std::size_t t0 = 0; t0 < c.axis[0].taps; ++t0)
        for (std::size_t t1 = 0; t1 < c.axis[1].taps; ++t1)
          for (std::size_t t2 = 0; t2 < c.axis[2].taps; ++t2) {
            const float* w =
                from + static_cast<std::ptrdiff_t>(in) * c.w_in + static_cast<std::ptrdiff_t>(t0) * c.axis[0].w_tap +
                static_cast<std::ptrdiff_t>(t1) * c.axis[1].w_tap + static_cast<std::ptrdiff_t>(t2) * c.axis[2].w_tap;
            for (std::size_t r = 0; r < rows; ++r) *to++ = w[static_cast<std::ptrdiff_t>(r) * c.w_out];
          }
  }
  if (index != 0) return;
  auto* offset = reinterpret_cast<std::ptrdiff_t*>(shared + cut.offsets_at);
  for (std::size_t in = 0; in < c.ins; ++in)
    for (std::size_t t0 = 0; t0 < c.axis[0].taps; ++t0)
      for (std::size_t t1 = 0; t1 < c.axis[1].taps; ++t1)
        for (std::size_t t2 = 0; t2 < c.axis[2].taps; ++t2)
          *offset++ = static_cast<std::ptrdiff_t>(in * cut.ground.channel()) + conv_tap(c, cut.ground, t0, t1, t2);
  auto* packed = reinterpret_cast<std::ptrdiff_t*>(shared + cut.packed_offsets_at);
  for (std::size_t k = 0; k < conv_min(cut.k, k_depth); ++k) packed[k] = static_cast<std::ptrdiff_t>(k * k_conv_cols);
}

// Places of a task along the three axes, and the tile's places that follow one another in a row.
struct ConvBand {
  std::size_t begin[3], count[3];
};
struct ConvPiece {
  std::size_t col, count;
  std::ptrdiff_t ground, y;  // of the first place, from the band's base and from y's channel
};
struct ConvPieces {
  ConvPiece list[k_conv_cols];
  std::size_t count = 0;
};

inline ConvPiece conv_piece(const Conv& c, const ConvGround& g, const ConvBand& band, std::size_t row, std::size_t p2,
                            std::size_t col, std::size_t count) noexcept {
  const std::size_t p0 = row / band.count[1], p1 = row % band.count[1];
  const std::size_t at = (p0 * c.axis[0].step * g.extent[1] + p1 * c.axis[1].step) * g.pitch + p2 * c.axis[2].step;
  const auto y = static_cast<std::ptrdiff_t>(band.begin[0] + p0) * c.axis[0].y_step +
                 static_cast<std::ptrdiff_t>(band.begin[1] + p1) * c.axis[1].y_step +
                 static_cast<std::ptrdiff_t>(p2) * c.axis[2].y_step;
  return {col, count, static_cast<std::ptrdiff_t>(at), y};
}

// The next tile's places from (row, p2) on: two vectors, each within a row (direct), or k_conv_cols places (packed).
inline void conv_next(const Conv& c, const ConvGround& ground, bool direct, const ConvBand& band, std::size_t& row,
                      std::size_t& p2, ConvPieces& pieces) noexcept {
  const std::size_t rows = band.count[0] * band.count[1], width = c.axis[2].out;
  pieces.count = 0;
  for (std::size_t col = 0; col < k_conv_cols && row < rows;) {
    const std::size_t count = conv_min(width - p2, direct ? k_lanes : k_conv_cols - col);
    pieces.list[pieces.count++] = conv_piece(c, ground, band, row, p2, col, count);
    col += direct ? k_lanes : count;
    p2 += count;
    if (p2 == width) p2 = 0, ++row;
  }
}

// Elements begin ... begin+depth-1 of the patches at the pieces' places, as panel[element][k_conv_cols].
inline void conv_pack_panel(const Conv& c, const ConvGround& ground, const float* base, const std::ptrdiff_t* offset,
                            std::size_t depth, const ConvPieces& pieces, float* panel) noexcept {
  const std::size_t step = c.axis[2].step;
  for (std::size_t k = 0; k < depth; ++k, panel += k_conv_cols) {
    const float* from = base + offset[k];
    for (std::size_t s = 0; s < pieces.count; ++s) {
      const ConvPiece& piece = pieces.list[s];
      const float* x = from + piece.ground;
      float* to = panel + piece.col;
      if (step == 1 && ground.copied) {  // whole vectors: the next piece covers what is too much
        for (std::size_t i = 0; i < piece.count; i += k_lanes) store(to + i, load(x + i));
      } else if (step == 1) {
        conv_copy_row(x, piece.count, to);
      } else if (step == 2 && ground.copied) {
        for (std::size_t i = 0; i < piece.count; i += k_lanes)
          store(to + i, even(load(x + 2 * i), load(x + 2 * i + k_lanes)));
      } else {
        for (std::size_t i = 0; i < piece.count; ++i) to[i] = x[i * step];
      }
    }
  }
}

// Joins pieces that also follow one another in y, for writing.
inline void conv_join(const Conv& c, ConvPieces& pieces) noexcept {
  std::size_t last = 0;
  for (std::size_t s = 1; s < pieces.count; ++s) {
    ConvPiece& to = pieces.list[last];
    const ConvPiece& next = pieces.list[s];
    const bool follows = c.axis[2].y_step == 1 && next.col == to.col + to.count &&
                         next.y == to.y + static_cast<std::ptrdiff_t>(to.count);
    if (follows)
      to.count += next.count;
    else
      pieces.list[++last] = next;
  }
  pieces.count = last + 1;
}

// The tile's sums to y: bias, what is there already, relu.
inline void conv_write(const Conv& c, const ConvPieces& pieces, const float* tile, std::size_t image,
                       std::size_t group) noexcept {
  const bool together = c.axis[2].y_step == 1;
  for (std::size_t o = 0; o < c.outs; ++o, tile += k_conv_cols) {
    const std::size_t channel = group * c.outs + o;
    float* y =
        c.y + static_cast<std::ptrdiff_t>(image) * c.y_image + static_cast<std::ptrdiff_t>(channel) * c.y_channel;
    const float bias = c.bias ? c.bias[channel] : 0.0f;
    for (std::size_t s = 0; s < pieces.count; ++s) {
      const ConvPiece& piece = pieces.list[s];
      float* to = y + piece.y;
      const float* from = tile + piece.col;
      for (std::size_t i = 0; i < piece.count; i += k_lanes) {
        const Some part = first_lanes(conv_min(piece.count - i, k_lanes));
        const std::size_t left = conv_min(piece.count - i, k_lanes);
        F32 sum = load(from + i, part) + set(bias);
        if (together) {
          if (c.accumulate) sum = sum + load(to + i, part);
          if (c.relu) sum = max(set(0.0f), sum);
          if (left == k_lanes)
            store(to + i, sum);
          else
            store(to + i, sum, part);
          continue;
        }
        alignas(64) float lane[k_lanes];
        store(lane, sum);
        for (std::size_t l = 0; l < left; ++l) {
          float& out = to[static_cast<std::ptrdiff_t>(i + l) * c.axis[2].y_step];
          float value = c.accumulate ? lane[l] + out : lane[l];
          if (c.relu && value < 0) value = 0;
          out = value;
        }
      }
    }
  }
}

// Where a group's ground begins for a band: in x itself, or in its copy.
inline const float* conv_base(const Conv& c, const ConvGround& g, const ConvBand& band, std::size_t image,
                              std::size_t group, float* copy) noexcept {
  const std::size_t plane = c.axis[0].in * c.axis[1].in * c.axis[2].in;
  const float* x = c.x + (image * c.groups + group) * c.ins * plane;
  if (!g.copied) {
    const auto q0 = static_cast<std::ptrdiff_t>(band.begin[0] * c.axis[0].step) + g.low[0];
    const auto q1 = static_cast<std::ptrdiff_t>(band.begin[1] * c.axis[1].step) + g.low[1];
    return x + (q0 * static_cast<std::ptrdiff_t>(c.axis[1].in) + q1) * static_cast<std::ptrdiff_t>(c.axis[2].in) +
           g.low[2];
  }
  for (std::size_t i = 0; i < c.ins; ++i)
    conv_copy_channel(c, g, x + i * plane, band.begin[0], band.begin[1], copy + i * g.channel());
  return copy;
}

inline ConvBand conv_band(const Conv& c, const ConvGround& g, std::size_t index) noexcept {
  ConvBand band{{0, 0, 0}, {c.axis[0].out, c.axis[1].out, c.axis[2].out}};
  band.begin[g.axis] = index * g.band;
  band.count[g.axis] = conv_min(g.band, c.axis[g.axis].out - band.begin[g.axis]);
  return band;
}

inline void conv_group(const Conv& c, const ConvCut& cut, const ConvBand& band, std::size_t image, std::size_t group,
                       const float* shared, float* worker) noexcept {
  const float* base = conv_base(c, cut.ground, band, image, group, worker);
  const auto* offset = reinterpret_cast<const std::ptrdiff_t*>(shared + cut.offsets_at);
  const auto* packed = reinterpret_cast<const std::ptrdiff_t*>(shared + cut.packed_offsets_at);
  const float* weights = shared + group * c.outs * cut.k;
  float* panel = worker + cut.panel_at;
  float* tile = worker + cut.tile_at;
  const ConvRuns runs(c.outs);
  ConvPieces pieces;
  std::size_t row = 0, p2 = 0;
  while (row < band.count[0] * band.count[1]) {
    conv_next(c, cut.ground, cut.direct, band, row, p2, pieces);
    const ConvPiece& last = pieces.list[pieces.count - 1];
    const bool wide = last.col + last.count > k_lanes;
    const std::size_t depth = cut.direct ? cut.k : k_depth;
    for (std::size_t k0 = 0; k0 < cut.k || k0 == 0; k0 += conv_max(1, depth)) {
      ConvTile t{};
      t.k = conv_min(depth, cut.k - k0);
      t.from_c = k0 > 0;
      t.c_row = k_conv_cols;
      t.offset = cut.direct ? offset : packed;
      t.b[0] = cut.direct ? base + pieces.list[0].ground : panel;
      t.b[1] = !wide ? t.b[0] : cut.direct ? base + pieces.list[1].ground : panel + k_lanes;
      if (!cut.direct) conv_pack_panel(c, cut.ground, base, offset + k0, t.k, pieces, panel);
      for (std::size_t run = 0; run < runs.count; ++run) {
        const std::size_t rows = runs.rows(run), begin = runs.begin(run);
        t.a = weights + begin * cut.k + k0 * rows;
        t.c = tile + begin * k_conv_cols;
        k_conv_tiles.at[wide ? 1 : 0][rows - 1](t);
      }
    }
    conv_join(c, pieces);
    conv_write(c, pieces, tile, image, group);
  }
}

void conv_task(const Conv& c, const GemmPlan& p, std::uint32_t phase, std::uint32_t task, void* shared,
               void* worker) noexcept {
  if (winograd_fits(c)) return winograd_task(c, p, phase, task, shared, worker);
  const ConvCut cut = conv_cut(c);
  if (phase == 0) return conv_pack_weights(c, cut, task, p.tasks[0], static_cast<float*>(shared));
  const ConvBand band = conv_band(c, cut.ground, task % cut.ground.bands);
  const std::size_t rest = task / cut.ground.bands, image = rest / cut.group_tasks;
  const std::size_t first = rest % cut.group_tasks * cut.groups_per_task;
  for (std::size_t group = first; group < conv_min(c.groups, first + cut.groups_per_task); ++group)
    conv_group(c, cut, band, image, group, static_cast<const float*>(shared), static_cast<float*>(worker));
}

}  // namespace
}  // namespace qorus::kernels
