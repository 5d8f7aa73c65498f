// How numbers become blocks of the K formats and of the older ones with 4 and 5 bits: which searches, with which weights, are ggml's
// (quantize_row_*_ref, and with importance quantize_*); layouts stand in kernels/scalar/blocks.cpp. For the three files that compile it.
#pragma once
#include <cstddef>
#include <cstdint>

#include "encode_search.h"
#include "encode_small.h"

namespace qorus::formats {
namespace {

// --- blocks of 256 ---

constexpr int k_block = 256;

float sum_of_squares(const float* x, int n) {
  float sum = 0;
  for (int i = 0; i < n; ++i) sum += x[i] * x[i];
  return sum;
}

// The levels of a group of n, where they are counted from the scale that is written: nearest((x + least) / scale).
template <int n>
QORUS_INLINE void count_levels(const float* x, float scale, float least, float low, float high, Byte* levels) {
  for (int i = 0; i < n; i += k_lanes) {
    const F level = clamp(nearest((load(x + i) + set(least)) / set(scale)), low, high) - set(low);
    store_bytes(whole(level), levels + i);
  }
}
// A row's worth of groups: where they begin, or a copy filled up with zeros where fewer than 16 are left.
template <int per_step>
struct Step {
  alignas(64) float x_room[per_step], importance_room[per_step];
  const float* x;
  const float* importance;
  Step(const float* from, const float* weights, std::size_t left) : x(from), importance(weights) {
    if (left >= per_step) return;
    for (std::size_t i = 0; i < per_step; ++i) {
      x_room[i] = i < left ? from[i] : 0;
      importance_room[i] = weights && i < left ? weights[i] : 0;
    }
    x = x_room;
    importance = weights ? importance_room : nullptr;
  }
};

// q4_k and q5_k: 8 groups of 32, so two blocks at once.
template <int bits>
void encode_45(const float* x, const float* importance, int blocks, Byte* out) {
  constexpr float most = bits == 4 ? 15 : 31;
  constexpr int bytes = bits == 4 ? 144 : 176;
  Groups<32> g;
  gather(x, g.x);
  Search search{.first = -0.9f, .step = 0.05f, .steps = 36};
  if (importance) {
    F mean;
    for (int lane = 0; lane < k_lanes; ++lane)
      mean[lane] = lane % 8 ? mean[lane - 1] : 2 * sum_of_squares(x + 32 * lane, k_block) / k_block;
    weigh(g, importance, mean);
  } else {
    search =
        bits == 4 ? Search{.first = -1, .step = 0.1f, .steps = 20} : Search{.first = -0.5f, .step = 0.1f, .steps = 15};
    F squares = F{};
    for (int i = 0; i < 32; ++i) squares += g.x[i] * g.x[i];
    const F mean = sqrt(squares / set(32));
    for (int i = 0; i < 32; ++i) g.w[i] = mean + magnitude(g.x[i]);
  }
  const Line<32> line = fit_line(g, most, search);
  F found[32];
  line.levels(g, most, found);
  F positive_levels[8];
  F positive_scale = F{};
  if (importance) {  // lanes: scales and leasts of the two blocks
    Groups<8> p;
    const F sums = sum_of(g.w);
    for (int i = 0; i < 8; ++i)
      for (int lane = 0; lane < k_lanes; ++lane) {
        p.x[i][lane] = lane >= 4 ? 0 : (lane % 2 ? line.least : line.scale)[8 * (lane / 2) + i];
        p.w[i][lane] = lane >= 4 ? 0 : sums[8 * (lane / 2) + i];
      }
    positive_scale = fit_positive(p, 63, positive_levels);
  }
  for (int b = 0; b < blocks; ++b, out += bytes) {
    int scales[8], leasts[8];
    float scale = 0, least = 0;
    if (importance) {
      for (int j = 0; j < 8; ++j) {
        scales[j] = int(positive_levels[j][2 * b]);
        leasts[j] = int(positive_levels[j][2 * b + 1]);
      }
      scale = put_half(out, positive_scale[2 * b]);
      least = put_half(out + 2, positive_scale[2 * b + 1]);
    } else {
      float highest = 0, lowest = 0;
      for (int j = 0; j < 8; ++j) {
        const float own = line.scale[8 * b + j], own_least = line.least[8 * b + j];
        highest = own > highest ? own : highest;
        lowest = own_least > lowest ? own_least : lowest;
      }
      const float per_scale = highest > 0 ? 63 / highest : 0, per_least = lowest > 0 ? 63 / lowest : 0;
      for (int j = 0; j < 8; ++j) {
        const int own = Byte(nearest_int(per_scale * line.scale[8 * b + j]));
        const int own_least = Byte(nearest_int(per_least * line.least[8 * b + j]));
        scales[j] = own < 63 ? own : 63;
        leasts[j] = own_least < 63 ? own_least : 63;
      }
      scale = put_half(out, highest / 63);
      least = put_half(out + 2, lowest / 63);
    }
    Byte* packed = out + 4;
    for (int j = 0; j < 4; ++j) {
      packed[j] = Byte(scales[j] | scales[j + 4] >> 4 << 6);
      packed[j + 4] = Byte(leasts[j] | leasts[j + 4] >> 4 << 6);
      packed[j + 8] = Byte((scales[j + 4] & 15) | (leasts[j + 4] & 15) << 4);
    }
    Byte levels[k_block];
    for (int j = 0; j < 8; ++j) {
      const float own = scale * float(scales[j]), own_least = least * float(leasts[j]);
      if (own != 0) {
        count_levels<32>(x + k_block * b + 32 * j, own, own_least, 0, most, levels + 32 * j);
      } else {
        keep_levels(found, 8 * b + j, 0, levels + 32 * j);
      }
    }
    Byte* quants = out + bytes - 128;
    for (int j = 0; j < 4; ++j)
      for (int l = 0; l < 32; ++l)
        quants[32 * j + l] = Byte((levels[64 * j + l] & 15) | (levels[64 * j + 32 + l] & 15) << 4);
    if (bits == 5) {
      for (int l = 0; l < 32; ++l) {
        int fifth = 0;
        for (int j = 0; j < 8; ++j) fifth |= (levels[32 * j + l] >> 4) << j;
        out[16 + l] = Byte(fifth);
      }
    }
  }
}

// 16 groups of 16.
void encode_q6_k(const float* x, const float* importance, Byte* out) {
  Groups<16> g;
  gather(x, g.x);
  if (importance) {
    gather(importance, g.w);
  } else {
    for (int i = 0; i < 16; ++i) g.w[i] = g.x[i] * g.x[i];
  }
  const Fan<16> fan = fit_fan(g, 32);
  float furthest = 0;
  for (int j = 0; j < 16; ++j) {
    const float own = fan.scale[j];
    if ((own < 0 ? -own : own) > (furthest < 0 ? -furthest : furthest)) furthest = own;
  }
  if (!((furthest < 0 ? -furthest : furthest) >= k_nothing)) {
    for (int i = 0; i < 210; ++i) out[i] = 0;
    return;
  }
  const float inverse = -128 / furthest;
  const float scale = put_half(out + 208, 1 / inverse);
  F found[16];
  fan.levels(g.x, 32, found);
  Byte levels[k_block];
  for (int j = 0; j < 16; ++j) {
    const int level = nearest_int(inverse * fan.scale[j]);
    const auto own = std::int8_t(level < 127 ? level : 127);
    out[192 + j] = Byte(own);
    const float step = scale * float(own);
    if (step != 0) {
      count_levels<16>(x + 16 * j, step, 0, -32, 31, levels + 16 * j);
    } else {
      keep_levels(found, j, -32, levels + 16 * j);
    }
  }
  for (int h = 0; h < 2; ++h) {
    const Byte* half = levels + 128 * h;
    for (int l = 0; l < 32; ++l) {
      out[64 * h + l] = Byte((half[l] & 15) | (half[l + 64] & 15) << 4);
      out[64 * h + 32 + l] = Byte((half[l + 32] & 15) | (half[l + 96] & 15) << 4);
      out[128 + 32 * h + l] =
          Byte(half[l] >> 4 | (half[l + 32] >> 4) << 2 | (half[l + 64] >> 4) << 4 | (half[l + 96] >> 4) << 6);
    }
  }
}

// Two bits of each of 256 levels: in each half of the block byte l holds elements l, l + 32, l + 64 and l + 96.
QORUS_INLINE void put_two_bits(const Byte* levels, Byte* out) {
  for (int h = 0; h < 2; ++h)
    for (int l = 0; l < 32; ++l) {
      const Byte* at = levels + 128 * h + l;
      out[32 * h + l] = Byte((at[0] & 3) | (at[32] & 3) << 2 | (at[64] & 3) << 4 | (at[96] & 3) << 6);
    }
}

void encode_q3_k(const float* x, const float* importance, Byte* out) {
  Groups<16> g;
  gather(x, g.x);
  F found[16], scales;
  int levels_of_scales[16] = {};
  float written = 0;
  bool any = true;
  if (importance) {
    weigh(g, importance, set(2 * sum_of_squares(x, k_block) / k_block));
    const Fan<16> fan = fit_fan(g, 4);
    fan.levels(g.x, 4, found);
    const F sums = sum_of(g.w);
    Groups<16> s;  // of the scales: one lane
    for (int j = 0; j < 16; ++j) {
      s.x[j] = set(fan.scale[j]);
      s.w[j] = set(sums[j]);
    }
    const Fan<16> of_scales = fit_fan(s, 32);
    F levels[16];
    of_scales.levels(s.x, 32, levels);
    for (int j = 0; j < 16; ++j) levels_of_scales[j] = int(levels[j][0]) + 32;
    written = of_scales.scale[0];
  } else {
    scales = refine_fan(g.x, 4, found);
    float furthest = 0;
    for (int j = 0; j < 16; ++j) {
      const float own = scales[j];
      if ((own < 0 ? -own : own) > (furthest < 0 ? -furthest : furthest)) furthest = own;
    }
    any = furthest != 0;
    const float inverse = any ? -32 / furthest : 0;
    for (int j = 0; j < 16 && any; ++j) {
      const int level = nearest_int(inverse * scales[j]);
      levels_of_scales[j] = (level < -32 ? -32 : level > 31 ? 31 : level) + 32;
    }
    written = any ? 1 / inverse : 0;
  }
  const float scale = put_half(out + 108, written);
  for (int j = 0; j < 12; ++j) out[96 + j] = 0;
  for (int j = 0; j < 16; ++j) {
    out[96 + j % 8] = Byte(out[96 + j % 8] | (levels_of_scales[j] & 15) << (j < 8 ? 0 : 4));
    out[104 + j % 4] = Byte(out[104 + j % 4] | (levels_of_scales[j] >> 4) << 2 * (j / 4));
  }
  Byte levels[k_block];
  for (int j = 0; j < 16; ++j) {
    const float own = scale * float(levels_of_scales[j] - 32);
    if (own != 0) {
      count_levels<16>(x + 16 * j, own, 0, -4, 3, levels + 16 * j);
    } else {
      keep_levels(found, j, -4, levels + 16 * j);
    }
  }
  for (int l = 0; l < 32; ++l) {
    int third = 0;
    for (int k = 0; k < 8; ++k) third |= (levels[32 * k + l] >> 2) << k;
    out[l] = Byte(third);
  }
  put_two_bits(levels, out + 32);
}

void encode_q2_k(const float* x, const float* importance, Byte* out) {
  Groups<16> g;
  gather(x, g.x);
  Search search{.first = -0.5f, .step = 0.1f, .steps = 15, .absolute = true};
  if (importance) {
    weigh(g, importance, set(sum_of_squares(x, k_block) / k_block));
    search = {.first = -0.9f, .step = 0.05f, .steps = 36};
  } else {
    for (int i = 0; i < 16; ++i) g.w[i] = magnitude(g.x[i]);
  }
  const Line<16> line = fit_line(g, 3, search);
  F found[16];
  line.levels(g, 3, found);
  int scales[16] = {}, leasts[16] = {};
  float scale = 0, least = 0;
  if (importance) {
    const F sums = sum_of(g.w);
    Groups<16> p;  // lane 0: scales, lane 1: leasts
    for (int j = 0; j < 16; ++j) {
      p.x[j] = set(0);
      p.x[j][0] = line.scale[j];
      p.x[j][1] = line.least[j];
      p.w[j] = set(sums[j]);
    }
    F levels[16];
    const F both = fit_positive(p, 15, levels);
    for (int j = 0; j < 16; ++j) {
      scales[j] = int(levels[j][0]);
      leasts[j] = int(levels[j][1]);
    }
    scale = both[0];
    least = both[1];
  } else {
    float highest = 0, lowest = 0;
    for (int j = 0; j < 16; ++j) {
      highest = line.scale[j] > highest ? line.scale[j] : highest;
      lowest = line.least[j] > lowest ? line.least[j] : lowest;
    }
    for (int j = 0; j < 16; ++j) {
      if (highest > 0) scales[j] = nearest_int(15 / highest * line.scale[j]);
      if (lowest > 0) leasts[j] = nearest_int(15 / lowest * line.least[j]);
    }
    scale = highest / 15;
    least = lowest / 15;
  }
  for (int j = 0; j < 16; ++j) out[j] = Byte(scales[j] | leasts[j] << 4);
  scale = put_half(out + 80, scale);
  least = put_half(out + 82, least);
  Byte levels[k_block];
  for (int j = 0; j < 16; ++j) {
    const float own = scale * float(out[j] & 15);
    if (own != 0) {
      count_levels<16>(x + 16 * j, own, least * float(out[j] >> 4), 0, 3, levels + 16 * j);
    } else {
      keep_levels(found, j, 0, levels + 16 * j);
    }
  }
  put_two_bits(levels, out + 16);
}

// --- rows ---

void encode_large_row(Encoding encoding, const float* x, const float* importance, Byte* out, std::size_t n) {
  const bool pairs = encoding == Encoding::q4_k || encoding == Encoding::q5_k;
  const std::size_t step = pairs ? 2 * k_block : k_block, bytes = std::size_t(bytes_of(encoding));
  for (std::size_t i = 0; i < n; i += step, out += step / k_block * bytes) {
    const float* const own = importance ? importance + i : nullptr;
    if (encoding == Encoding::q2_k) encode_q2_k(x + i, own, out);
    if (encoding == Encoding::q3_k) encode_q3_k(x + i, own, out);
    if (encoding == Encoding::q6_k) encode_q6_k(x + i, own, out);
    if (!pairs) continue;
    const Step<2 * k_block> part(x + i, own, n - i);
    const int blocks = n - i < step ? 1 : 2;
    (encoding == Encoding::q4_k ? encode_45<4> : encode_45<5>)(part.x, part.importance, blocks, out);
  }
}

void encode_small_row(Encoding encoding, const float* x, const float* importance, Byte* out, std::size_t n) {
  constexpr std::size_t k_step = std::size_t{k_lanes} * k_small;
  const auto bytes = std::size_t(bytes_of(encoding));
  float mean = 0;
  if (importance && encoding != Encoding::iq4_nl && encoding != Encoding::q8_0) {
    for (std::size_t i = 0; i < n; ++i) mean += x[i] * x[i];
    mean /= float(n);
  }
  for (std::size_t i = 0; i < n; i += k_step, out += k_lanes * bytes) {
    const int blocks = n - i < k_step ? int((n - i) / k_small) : k_lanes;
    const bool plain = !importance && encoding != Encoding::iq4_nl;
    for (std::size_t b = 0; b < std::size_t(blocks) && (plain || encoding == Encoding::q8_0); ++b) {
      const float* const own = x + i + b * k_small;
      encoding == Encoding::q8_0 ? encode_q8_0(own, out + b * bytes)
                                 : encode_small_plain(encoding, own, out + b * bytes);
    }
    if (plain || encoding == Encoding::q8_0) continue;
    const Step<k_step> part(x + i, importance ? importance + i : nullptr, n - i);
    if (encoding == Encoding::iq4_nl) {
      encode_iq4_nl(part.x, part.importance, blocks, out);
    } else {
      encode_small(encoding, part.x, part.importance, mean, blocks, out);
    }
  }
}

void encode(Encoding encoding, const float* x, const float* importance, std::uint8_t* blocks, std::size_t rows,
            std::size_t cols) noexcept {
  const bool large = encoding >= Encoding::q2_k && encoding <= Encoding::q6_k;
  const auto row = large ? encode_large_row : encode_small_row;
  if (!importance) return row(encoding, x, nullptr, blocks, rows * cols);  // its rows may be one
  const std::size_t bytes = cols / (large ? k_block : k_small) * std::size_t(bytes_of(encoding));
  for (std::size_t r = 0; r < rows; ++r) row(encoding, x + r * cols, importance, blocks + r * bytes, cols);
}

}  // namespace
}  // namespace qorus::formats
