// The searches for scales of block formats, written once over a vector of 16 lanes and compiled for each instruction set. A lane is a group of
// elements with a scale of its own, so that sums go over the elements one by one, as in ggml's reference: the same numbers from every
// instruction set, and for finite ones ggml's. Compile without contraction of products and sums.
#pragma once
#include <cstddef>
#include <cstdint>

#include "encode_table.h"

namespace qorus::formats {
namespace {

#define QORUS_INLINE [[gnu::always_inline]] inline

using Byte = std::uint8_t;
constexpr int k_lanes = 16;
typedef float F __attribute__((vector_size(64)));
typedef std::int32_t I __attribute__((vector_size(64)));

typedef Byte B __attribute__((vector_size(16)));

QORUS_INLINE F set(float x) { return x - F{}; }
QORUS_INLINE F load(const float* p) {
  F x;
  __builtin_memcpy(&x, p, sizeof x);
  return x;
}
QORUS_INLINE F select(I mask, F a, F b) { return mask ? a : b; }
QORUS_INLINE F sqrt(F x) { return __builtin_elementwise_sqrt(x); }
QORUS_INLINE F magnitude(F x) { return __builtin_elementwise_abs(x); }
// To the nearest whole number, halves to even; below 2^22.
QORUS_INLINE F nearest(F x) { return (x + set(12582912.0f)) - set(12582912.0f); }
// A NaN becomes the lower end.
QORUS_INLINE F clamp(F x, float low, float high) {
  const F above = select(x > set(low), x, set(low));
  return select(above < set(high), above, set(high));
}

// Whole numbers from 0 to 255, or from -128 to 127.
QORUS_INLINE void store_bytes(I x, Byte* p) {
  const B bytes = __builtin_convertvector(x, B);
  __builtin_memcpy(p, &bytes, sizeof bytes);
}
QORUS_INLINE I load_bytes(const Byte* p) {
  B bytes;
  __builtin_memcpy(&bytes, p, sizeof bytes);
  return __builtin_convertvector(bytes, I);
}
QORUS_INLINE I whole(F x) { return __builtin_convertvector(x, I); }

// --- single numbers ---

QORUS_INLINE float to_nearest(float x) { return (x + 12582912.0f) - 12582912.0f; }
// 0 for what is no number of a sensible size.
QORUS_INLINE int nearest_int(float x) { return x > -4e6f && x < 4e6f ? int(to_nearest(x)) : 0; }

// f16, to the nearest, halves to even; a NaN stays one.
QORUS_INLINE std::uint16_t half_bits(float x) {
  std::uint32_t bits;
  __builtin_memcpy(&bits, &x, 4);
  const std::uint32_t sign = bits >> 16 & 0x8000, size = bits & 0x7fffffff;
  if (size > 0x7f800000) return std::uint16_t(sign | 0x7e00);
  if (size >= 0x477ff000) return std::uint16_t(sign | 0x7c00);  // 65520 and more
  if (size < 0x38800000) {  // below 2^-14: units of 2^-24, which adding 0.5 leaves in the last bits
    float value;
    __builtin_memcpy(&value, &size, 4);
    value += 0.5f;
    std::uint32_t sum;
    __builtin_memcpy(&sum, &value, 4);
    return std::uint16_t(sign | (sum - 0x3f000000));
  }
  return std::uint16_t(sign | ((size - 0x38000000 + 0xfff + (size >> 13 & 1)) >> 13));
}
QORUS_INLINE float half_value(std::uint16_t h) {
  const std::uint32_t sign = std::uint32_t(h & 0x8000) << 16, size = h & 0x7fff;
  float value;
  if (size >= 0x7c00) {
    const std::uint32_t bits = sign | 0x7f800000 | (size & 0x3ff) << 13;
    __builtin_memcpy(&value, &bits, 4);
    return value;
  }
  const std::uint32_t bits = size << 13;  // scaled by 2^-112, subnormals and all
  __builtin_memcpy(&value, &bits, 4);
  value *= 0x1p112f;
  return sign ? -value : value;
}
// Writes a half and gives what it stands for.
QORUS_INLINE float put_half(Byte* p, float x) {
  const std::uint16_t bits = half_bits(x);
  p[0] = Byte(bits);
  p[1] = Byte(bits >> 8);
  return half_value(bits);
}

QORUS_INLINE bool any(I mask) { return __builtin_reduce_or(mask) != 0; }

// --- groups: n elements of each of 16, element i of all of them in x[i] ---

template <int n>
struct Groups {
  F x[n], w[n];
};

// From 16 groups that follow one another.
template <int n>
QORUS_INLINE void gather(const float* from, F (&to)[n]) {
  alignas(64) float turned[n][k_lanes];
  for (int lane = 0; lane < k_lanes; ++lane)
    for (int i = 0; i < n; ++i) turned[i][lane] = from[lane * n + i];
  for (int i = 0; i < n; ++i) to[i] = load(turned[i]);
}
template <int n>
QORUS_INLINE F sum_of(const F (&values)[n]) {
  F sum = F{};
  for (int i = 0; i < n; ++i) sum += values[i];
  return sum;
}

// Levels of a line: value = scale level - least, level from 0 to most.
template <int n>
struct Line {
  F scale, least;
  F inverse, from;  // level = nearest(inverse (x - from))
  void levels(const Groups<n>& g, float most, F (&to)[n]) const {
    for (int i = 0; i < n; ++i) to[i] = clamp(nearest(inverse * (g.x[i] - from)), 0, most);
  }
};

// What a search goes through: inverse = (first + step i + most) / (max - min) for i from 0 to steps.
struct Search {
  float first, step;
  int steps;
  bool absolute = false;  // differences count by their size instead of their square
};

template <int n>
QORUS_INLINE F error_of(const Groups<n>& g, const F (&levels)[n], F scale, F from, bool absolute) {
  F error = F{};
  for (int i = 0; i < n; ++i) {
    const F gap = scale * levels[i] + from - g.x[i];
    error += g.w[i] * (absolute ? magnitude(gap) : gap * gap);
  }
  return error;
}

// The line of least weighted error that the search finds, by least squares for the levels of each of its steps.
template <int n>
Line<n> fit_line(const Groups<n>& g, float most, const Search& search) {
  F low = g.x[0], high = g.x[0], sum_w = g.w[0], sum_x = sum_w * g.x[0];
  for (int i = 1; i < n; ++i) {
    low = select(g.x[i] < low, g.x[i], low);
    high = select(g.x[i] > high, g.x[i], high);
    sum_w += g.w[i];
    sum_x += g.w[i] * g.x[i];
  }
  low = select(low > F{}, F{}, low);
  const I flat = high == low;
  F inverse = set(most) / (high - low);
  Line<n> best{set(1) / inverse, F{}, inverse, low};
  F levels[n];
  best.levels(g, most, levels);
  F least_error = error_of(g, levels, best.scale, low, search.absolute);
  F from = low;  // of the best so far, from which the next levels are counted
  for (int step = 0; step <= search.steps; ++step) {
    inverse = set(search.first + search.step * float(step) + most) / (high - from);
    F sum_l = F{}, sum_ll = F{}, sum_xl = F{};
    for (int i = 0; i < n; ++i) {
      levels[i] = clamp(nearest(inverse * (g.x[i] - from)), 0, most);
      const F weighted = g.w[i] * levels[i];
      sum_l += weighted;
      sum_ll += weighted * levels[i];
      sum_xl += weighted * g.x[i];
    }
    const F determinant = sum_w * sum_ll - sum_l * sum_l;
    F scale = (sum_w * sum_xl - sum_x * sum_l) / determinant,
      own_from = (sum_ll * sum_x - sum_l * sum_xl) / determinant;
    const I above = own_from > F{};
    scale = select(above, sum_xl / sum_ll, scale);
    own_from = select(above, F{}, own_from);
    const F error = error_of(g, levels, scale, own_from, search.absolute);
    const I better = (determinant > F{}) & (error < least_error);
    least_error = select(better, error, least_error);
    best.scale = select(better, scale, best.scale);
    best.inverse = select(better, inverse, best.inverse);
    best.from = select(better, from, best.from);
    from = select(better, own_from, from);
  }
  best.scale = select(flat, F{}, best.scale);
  best.inverse = select(flat, F{}, best.inverse);
  best.least = select(flat, -low, -from);
  return best;
}

// Levels of a scale alone: value = scale level, level from -most to most - 1.
template <int n>
struct Fan {
  F scale;
  F inverse;  // level = nearest(inverse x)
  I nothing;  // all of the group is about 0: level -most
  void levels(const F (&x)[n], float most, F (&to)[n]) const {
    for (int i = 0; i < n; ++i) to[i] = select(nothing, set(-most), clamp(nearest(inverse * x[i]), -most, most - 1));
  }
};

constexpr float k_nothing = 1e-15f;

// The number that is furthest from 0 in each group, the first of them.
template <int n>
QORUS_INLINE F furthest_of(const F (&x)[n]) {
  F size = F{}, furthest = F{};
  for (int i = 0; i < n; ++i) {
    const F own = magnitude(x[i]);
    const I more = own > size;
    size = select(more, own, size);
    furthest = select(more, x[i], furthest);
  }
  return furthest;
}

// The least weighted error among steps that put the furthest number at -most +- 0.1, 0.2, … 0.9.
template <int n>
Fan<n> fit_fan(const Groups<n>& g, float most) {
  const F furthest = furthest_of(g.x);
  const I nothing = magnitude(furthest) < set(k_nothing);
  Fan<n> best{F{}, F{}, nothing};
  F best_fit = F{};
  const auto attempt = [&](F inverse, bool first) {
    F xl = F{}, ll = F{};
    for (int i = 0; i < n; ++i) {
      const F level = clamp(nearest(inverse * g.x[i]), -most, most - 1);
      xl += g.w[i] * g.x[i] * level;
      ll += g.w[i] * level * level;
    }
    const F scale = select(ll != F{}, xl / ll, F{});
    const I better = first ? I{} == I{} : (ll > F{}) & (xl * xl > best_fit * ll);
    best.scale = select(better, scale, best.scale);
    best.inverse = select(better, inverse, best.inverse);
    best_fit = select(better, scale * xl, best_fit);
  };
  attempt(set(-most) / furthest, true);
  for (int step = -9; step <= 9; ++step) {
    if (step != 0) attempt(set(-(most + 0.1f * float(step))) / furthest, false);
  }
  best.scale = select(nothing, F{}, best.scale);
  return best;
}

// One level after the other moved to where the error is least, five times over. Levels -most to most - 1; gives the scale.
template <int n>
F refine_fan(const F (&x)[n], float most, F (&levels)[n]) {
  const F furthest = furthest_of(x), inverse = set(-most) / furthest;
  const I nothing = magnitude(furthest) < set(k_nothing);
  F xl = F{}, ll = F{};
  for (int i = 0; i < n; ++i) {
    levels[i] = clamp(nearest(inverse * x[i]), -most, most - 1);
    const F w = x[i] * x[i];
    xl += w * x[i] * levels[i];
    ll += w * levels[i] * levels[i];
  }
  for (int round = 0; round < 5; ++round) {
    I changed = I{};
    for (int i = 0; i < n; ++i) {
      const F w = x[i] * x[i];
      const F other_xl = xl - w * x[i] * levels[i], other_ll = ll - w * levels[i] * levels[i];
      const F level = clamp(nearest(x[i] * other_ll / other_xl), -most, most - 1);
      const F new_xl = other_xl + w * x[i] * level, new_ll = other_ll + w * level * level;
      const I better =
          (other_xl > F{}) & (level != levels[i]) & (new_ll > F{}) & (new_xl * new_xl * ll > xl * xl * new_ll);
      levels[i] = select(better, level, levels[i]);
      xl = select(better, new_xl, xl);
      ll = select(better, new_ll, ll);
      changed |= better;
    }
    if (!any(changed)) break;
  }
  for (int i = 0; i < n; ++i) levels[i] = select(nothing, set(-most), levels[i]);
  return select(nothing | (ll <= F{}), F{}, xl / ll);
}

// Scales of groups as levels from 0 to most of one scale, which it gives.
template <int n>
F fit_positive(const Groups<n>& g, float most, F (&levels)[n]) {
  F high = F{};
  for (int i = 0; i < n; ++i) high = select(g.x[i] > high, g.x[i], high);
  const I nothing = high < set(k_nothing);
  const auto limited = [&](F level) { return select(level < set(most), level, set(most)); };
  F inverse = set(most) / high, least_error = F{};
  const F first_scale = set(1) / inverse;
  for (int i = 0; i < n; ++i) {
    const F gap = g.x[i] - first_scale * nearest(inverse * g.x[i]);
    least_error += g.w[i] * gap * gap;
  }
  for (int step = -4; step <= 4; ++step) {
    if (step == 0) continue;
    const F other = set(0.1f * float(step) + most) / high, scale = set(1) / other;
    F error = F{};
    for (int i = 0; i < n; ++i) {
      const F gap = g.x[i] - scale * limited(nearest(other * g.x[i]));
      error += g.w[i] * gap * gap;
    }
    const I better = error < least_error;
    least_error = select(better, error, least_error);
    inverse = select(better, other, inverse);
  }
  F xl = F{}, ll = F{};
  for (int i = 0; i < n; ++i) {
    levels[i] = limited(nearest(inverse * g.x[i]));
    xl += g.w[i] * g.x[i] * levels[i];
    ll += g.w[i] * levels[i] * levels[i];
  }
  for (int round = 0; round < 5; ++round)
    for (int i = 0; i < n; ++i) {
      const F other_xl = xl - g.w[i] * g.x[i] * levels[i], other_ll = ll - g.w[i] * levels[i] * levels[i];
      const F level = limited(nearest(g.x[i] * other_ll / other_xl));
      const F new_xl = other_xl + g.w[i] * g.x[i] * level, new_ll = other_ll + g.w[i] * level * level;
      const I better =
          (other_xl > F{}) & (other_ll > F{}) & (level != levels[i]) & (new_xl * new_xl * ll > xl * xl * new_ll);
      levels[i] = select(better, level, levels[i]);
      xl = select(better, new_xl, xl);
      ll = select(better, new_ll, ll);
    }
  for (int i = 0; i < n; ++i) levels[i] = select(nothing, F{}, clamp(levels[i], 0, most));
  return select(nothing | (ll <= F{}), F{}, xl / ll);
}

}  // namespace
}  // namespace qorus::formats
