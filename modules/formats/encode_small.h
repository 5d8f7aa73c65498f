// How numbers become blocks of 32: q4_0, q8_0, q4_1, q5_0, q5_1, iq4_nl. Part of encode_blocks.h.
#pragma once
#include <cstddef>
#include <cstdint>

#include "encode_search.h"

namespace qorus::formats {
namespace {

// Weights importance sqrt(mean + x^2), `mean` of each lane's block.
template <int n>
QORUS_INLINE void weigh(Groups<n>& g, const float* importance, F mean) {
  gather(importance, g.w);
  for (int i = 0; i < n; ++i) g.w[i] = g.w[i] * sqrt(mean + g.x[i] * g.x[i]);
}

// Those that the search had found, of one lane.
template <int n>
QORUS_INLINE void keep_levels(const F (&found)[n], int lane, float low, Byte* levels) {
  for (int i = 0; i < n; ++i) levels[i] = Byte(int(found[i][lane] - low));
}

// --- blocks of 32, 16 at once ---

constexpr int k_small = 32;

constexpr int bytes_of(Encoding encoding) {
  constexpr int bytes[] = {18, 34, 20, 22, 24, 84, 110, 144, 176, 210, 18};
  return bytes[int(encoding)];
}

// Two vectors of 16 levels: their lower halves and, if there is a place for them, their fifth bits.
QORUS_INLINE void put_levels(I first, I second, Byte* quants, Byte* fifths) {
  store_bytes((first & 15) | (second & 15) << 4, quants);
  if (!fifths) return;
  std::uint32_t bits = 0;
  for (int l = 0; l < 16; ++l)
    bits |= std::uint32_t(first[l] >> 4 & 1) << l | std::uint32_t(second[l] >> 4 & 1) << (l + 16);
  __builtin_memcpy(fifths, &bits, 4);
}
// The number of 32 that is furthest from 0, the first of them, where their ends are known.
QORUS_INLINE float furthest_within(const float* x, float low, float high) {
  if (high != -low) return high > -low ? high : low;
  if (high == 0) return 0;
  for (int i = 0; i < k_small; ++i)
    if (x[i] == low || x[i] == high) return x[i];
  return high;
}

// q8_0: the largest magnitude becomes 127; halves are rounded away from 0.
void encode_q8_0(const float* x, Byte* out) {
  const F first = load(x), second = load(x + 16);
  const float high = __builtin_reduce_max(__builtin_elementwise_max(magnitude(first), magnitude(second)));
  const float scale = high / 127, inverse = scale != 0 ? 1 / scale : 0;
  put_half(out, scale);
  const auto put = [&](F part, Byte* to) {
    const F steps = part * set(inverse), even = nearest(steps), rest = steps - even;
    const F up = select((rest == set(0.5f)) & (steps > F{}), set(1), F{});
    const F down = select((rest == set(-0.5f)) & (steps < F{}), set(1), F{});
    store_bytes(whole(select(steps == steps, clamp(even + up - down, -127, 127), F{})), to);
  };
  put(first, out + 2);
  put(second, out + 18);
}

// q4_0, q4_1, q5_0, q5_1 of one block, all elements alike: its ends, or its furthest element, decide.
void encode_small_plain(Encoding encoding, const float* x, Byte* out) {
  const bool five = encoding == Encoding::q5_0 || encoding == Encoding::q5_1;
  const bool line = encoding == Encoding::q4_1 || encoding == Encoding::q5_1;
  const F first = load(x), second = load(x + 16);
  const float low = __builtin_reduce_min(__builtin_elementwise_min(first, second));
  const float high = __builtin_reduce_max(__builtin_elementwise_max(first, second));
  const float most = five ? 31 : 15, half = five ? 16 : 8;
  const float scale = line ? (high - low) / most : furthest_within(x, low, high) / -half;
  const float inverse = scale != 0 ? 1 / scale : 0, from = line ? low : 0, shift = line ? 0.5f : half + 0.5f;
  put_half(out, scale);
  if (line) put_half(out + 2, low);
  const auto levels = [&](F part) { return whole(clamp((part - set(from)) * set(inverse) + set(shift), 0, most)); };
  Byte* const rest = out + (line ? 4 : 2);
  put_levels(levels(first), levels(second), five ? rest + 4 : rest, five ? rest : nullptr);
}

// The same by the least weighted error. `mean` of the row's squares.
void encode_small(Encoding encoding, const float* x, const float* importance, float mean, int blocks, Byte* out) {
  const bool five = encoding == Encoding::q5_0 || encoding == Encoding::q5_1;
  const bool fan_like = encoding == Encoding::q4_0 || encoding == Encoding::q5_0;
  const int bytes = bytes_of(encoding);
  Groups<k_small> g;
  gather(x, g.x);
  weigh(g, importance, set(mean));
  F levels[k_small], scale, least = F{};
  if (fan_like) {
    const float half = five ? 16 : 8;
    const Fan<k_small> fan = fit_fan(g, half);
    fan.levels(g.x, half, levels);
    for (F& level : levels) level = level + set(half);
    scale = fan.scale;
  } else {
    const float most = five ? 31 : 15;
    const Line<k_small> line = fit_line(g, most, {.first = -0.9f, .step = 0.05f, .steps = 36});
    line.levels(g, most, levels);
    scale = line.scale;
    least = line.least;
  }
  for (int b = 0; b < blocks; ++b, out += bytes) {
    Byte own[k_small];
    keep_levels(levels, b, 0, own);
    put_half(out, scale[b]);
    if (!fan_like) put_half(out + 2, -least[b]);
    Byte* const rest = out + (fan_like ? 2 : 4);
    put_levels(load_bytes(own), load_bytes(own + 16), five ? rest + 4 : rest, five ? rest : nullptr);
  }
}

// The 16 values of iq4_nl, and the index of the nearest.
constexpr float k_iq4[] = {-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113};
struct Nearest {
  F value, index;
};
QORUS_INLINE Nearest nearest_iq4(F x) {
  Nearest found{set(k_iq4[0]), F{}};
  for (int i = 1; i < 16; ++i) {
    const I above = (x - set(k_iq4[i - 1])) >= (set(k_iq4[i]) - x);
    found.value = select(above, set(k_iq4[i]), found.value);
    found.index = select(above, set(float(i)), found.index);
  }
  return found;
}

void encode_iq4_nl(const float* x, const float* importance, int blocks, Byte* out) {
  Groups<k_small> g;
  gather(x, g.x);
  if (importance) {
    F mean = F{};
    for (int i = 0; i < k_small; ++i) mean += g.x[i] * g.x[i];
    weigh(g, importance, mean * set(2.0f / k_small));
  } else {
    for (int i = 0; i < k_small; ++i) g.w[i] = g.x[i] * g.x[i];
  }
  const F furthest = furthest_of(g.x);
  const I nothing = magnitude(furthest) < set(k_nothing);
  F scale = F{}, best = F{};
  const auto attempt = [&](F inverse, bool first) {
    F qx = F{}, qq = F{};
    for (int i = 0; i < k_small; ++i) {
      const F value = nearest_iq4(inverse * g.x[i]).value;
      qx += g.w[i] * value * g.x[i];
      qq += g.w[i] * value * value;
    }
    const F own = qx / qq;
    const I better = first ? I{} == I{} : (qq > F{}) & (qx * qx > best * qq);
    scale = select(better, own, scale);
    best = select(better, own * qx, best);
  };
  attempt(set(1) / (furthest / set(127)), true);
  for (int step = -7; step <= 7; ++step) attempt(set(float(step) + k_iq4[0]) / furthest, false);
  scale = select(nothing, F{}, scale);
  const F inverse = select(scale != F{}, set(1) / scale, F{});
  F levels[k_small];
  for (int i = 0; i < k_small; ++i) levels[i] = nearest_iq4(inverse * g.x[i]).index;
  for (int b = 0; b < blocks; ++b, out += 18) {
    Byte own[k_small];
    keep_levels(levels, b, 0, own);
    put_half(out, scale[b]);
    put_levels(load_bytes(own), load_bytes(own + 16), out + 2, nullptr);
  }
}

}  // namespace
}  // namespace qorus::formats
