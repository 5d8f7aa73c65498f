// The definition of the block formats: how a block's bytes become numbers, and how numbers become q4_0 and q8_0 blocks.
// Layouts: the GGUF specification and ggml's block structures. "scale" is their d, "least" their m or dmin, "quants" their qs.
#include <cmath>
#include <cstddef>
#include <cstdint>

#include "kernels/parts.h"
#include "kernels/scalar/half.h"

namespace qorus::kernels {
namespace {

using Bytes = const std::uint8_t*;

float half_at(Bytes p) { return half_value(std::uint16_t(p[0] | p[1] << 8)); }
std::uint32_t word_at(Bytes p) { return p[0] | p[1] << 8 | p[2] << 16 | std::uint32_t(p[3]) << 24; }

// scale q and scale q + least, each step rounded: in two statements, so that no compiler fuses them.
float scaled(float scale, int quant) { return scale * float(quant); }
float scaled_from(float least, float scale, int quant) {
  const float above = scale * float(quant);
  return above + least;
}

// --- 32 elements: bytes hold element j in their low half, j + 16 in the high one ---

// f16 scale, 16 quants.
void decode_q4_0(Bytes block, float* y) {
  const float scale = half_at(block);
  for (int j = 0; j < 16; ++j) {
    y[j] = scaled(scale, (block[2 + j] & 15) - 8);
    y[j + 16] = scaled(scale, (block[2 + j] >> 4) - 8);
  }
}

// f16 scale, f16 least, 16 quants.
void decode_q4_1(Bytes block, float* y) {
  const float scale = half_at(block), least = half_at(block + 2);
  for (int j = 0; j < 16; ++j) {
    y[j] = scaled_from(least, scale, block[4 + j] & 15);
    y[j + 16] = scaled_from(least, scale, block[4 + j] >> 4);
  }
}

// f16 scale, 32 fifth bits, 16 quants.
void decode_q5_0(Bytes block, float* y) {
  const float scale = half_at(block);
  const std::uint32_t fifth = word_at(block + 2);
  for (int j = 0; j < 16; ++j) {
    y[j] = scaled(scale, int((block[6 + j] & 15) + (fifth >> j & 1) * 16) - 16);
    y[j + 16] = scaled(scale, int((block[6 + j] >> 4) + (fifth >> (j + 16) & 1) * 16) - 16);
  }
}

// f16 scale, f16 least, 32 fifth bits, 16 quants.
void decode_q5_1(Bytes block, float* y) {
  const float scale = half_at(block), least = half_at(block + 2);
  const std::uint32_t fifth = word_at(block + 4);
  for (int j = 0; j < 16; ++j) {
    y[j] = scaled_from(least, scale, int((block[8 + j] & 15) + (fifth >> j & 1) * 16));
    y[j + 16] = scaled_from(least, scale, int((block[8 + j] >> 4) + (fifth >> (j + 16) & 1) * 16));
  }
}

// f16 scale, 32 signed quants.
void decode_q8_0(Bytes block, float* y) {
  const float scale = half_at(block);
  for (int j = 0; j < 32; ++j) y[j] = scaled(scale, std::int8_t(block[2 + j]));
}

// --- the 16 values of the iq4 formats ---
constexpr std::int8_t k_iq4[] = {-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113};

void decode_iq4(float scale, Bytes quants, float* y) {
  for (int j = 0; j < 16; ++j) {
    y[j] = scaled(scale, k_iq4[quants[j] & 15]);
    y[j + 16] = scaled(scale, k_iq4[quants[j] >> 4]);
  }
}

// f16 scale, 16 indices.
void decode_iq4_nl(Bytes block, float* y) { decode_iq4(half_at(block), block + 2, y); }

// 8 groups of 32. f16 scale; 8 times the upper 2 bits of a group's scale; 8 times the lower 4; 128 indices.
void decode_iq4_xs(Bytes block, float* y) {
  const float scale = half_at(block);
  const int upper = block[2] | block[3] << 8;
  for (int g = 0; g < 8; ++g) {
    const int lower = block[4 + g / 2] >> 4 * (g % 2) & 15;
    decode_iq4(scaled(scale, (lower | (upper >> 2 * g & 3) << 4) - 32), block + 8 + 16 * g, y + 32 * g);
  }
}

// --- 256 elements: groups with a scale (and a least) of their own, themselves in units of the block's ---

// 16 groups of 16. 16 bytes (scale low, least high), 64 bytes of 2-bit quants, f16 scale, f16 least. In each half of the block, byte l
// holds elements l, l + 32, l + 64 and l + 96.
void decode_q2_k(Bytes block, float* y) {
  const float scale = half_at(block + 80), least = half_at(block + 82);
  for (int g = 0; g < 16; ++g) {
    const float group = scaled(scale, block[g] & 15), from = -scaled(least, block[g] >> 4);
    const Bytes quants = block + 16 + g / 8 * 32 + g % 2 * 16;
    for (int l = 0; l < 16; ++l) y[16 * g + l] = scaled_from(from, group, quants[l] >> g % 8 / 2 * 2 & 3);
  }
}

// 16 groups of 16. 32 bytes of third bits (bit k of byte l: element 32 k + l; set means 4 more), 64 bytes of lower bits as in q2_k, 16
// 6-bit scales in 12 bytes, f16 scale.
void decode_q3_k(Bytes block, float* y) {
  const float scale = half_at(block + 108);
  const Bytes scales = block + 96;
  for (int g = 0; g < 16; ++g) {
    const int lower = g < 8 ? scales[g] & 15 : scales[g - 8] >> 4, upper = scales[8 + g % 4] >> g / 4 * 2 & 3;
    const float group = scaled(scale, (lower | upper << 4) - 32);
    const Bytes quants = block + 32 + g / 8 * 32 + g % 2 * 16, third = block + g % 2 * 16;
    for (int l = 0; l < 16; ++l) {
      const int quant = (quants[l] >> g % 8 / 2 * 2 & 3) + (third[l] >> g / 2 & 1) * 4;
      y[16 * g + l] = scaled(group, quant - 4);
    }
  }
}

// The 6-bit scale and least of group g of 8, from the 12 bytes that q4_k and q5_k keep them in.
struct GroupScale {
  int scale, least;
};
GroupScale group_scale(Bytes packed, int g) {
  if (g < 4) return {packed[g] & 63, packed[g + 4] & 63};
  return {(packed[g + 4] & 15) | packed[g - 4] >> 6 << 4, packed[g + 4] >> 4 | packed[g] >> 6 << 4};
}

// 8 groups of 32. f16 scale, f16 least, 12 bytes of group scales, 128 bytes of quants: each 32 hold a group in their low halves and the
// next in the high ones.
void decode_q4_k(Bytes block, float* y) {
  const float scale = half_at(block), least = half_at(block + 2);
  for (int g = 0; g < 8; ++g) {
    const GroupScale own = group_scale(block + 4, g);
    const float group = scaled(scale, own.scale), from = -scaled(least, own.least);
    const Bytes quants = block + 16 + g / 2 * 32;
    for (int l = 0; l < 32; ++l) y[32 * g + l] = scaled_from(from, group, quants[l] >> 4 * (g % 2) & 15);
  }
}

// As q4_k, with 32 bytes of fifth bits (bit g of byte l: element l of group g) before the quants.
void decode_q5_k(Bytes block, float* y) {
  const float scale = half_at(block), least = half_at(block + 2);
  for (int g = 0; g < 8; ++g) {
    const GroupScale own = group_scale(block + 4, g);
    const float group = scaled(scale, own.scale), from = -scaled(least, own.least);
    const Bytes quants = block + 48 + g / 2 * 32;
    for (int l = 0; l < 32; ++l) {
      const int fifth = block[16 + l] >> g & 1;
      y[32 * g + l] = scaled_from(from, group, (quants[l] >> 4 * (g % 2) & 15) + fifth * 16);
    }
  }
}

// 16 groups of 16. 128 bytes of lower 4 bits, 64 of upper 2, 16 signed scales, f16 scale. In each half of the block, quarter k
// (32 elements): lower byte l + 32 (k % 2), its half k / 2; upper byte l, its bits 2 k.
void decode_q6_k(Bytes block, float* y) {
  const float scale = half_at(block + 208);
  for (int g = 0; g < 16; ++g) {
    const float group = scaled(scale, std::int8_t(block[192 + g]));
    const int half = g / 8, quarter = g % 8 / 2, first = g % 2 * 16;
    const Bytes lower = block + 64 * half + 32 * (quarter % 2) + first, upper = block + 128 + 32 * half + first;
    for (int l = 0; l < 16; ++l) {
      const int quant = (lower[l] >> quarter / 2 * 4 & 15) | (upper[l] >> 2 * quarter & 3) << 4;
      y[16 * g + l] = scaled(group, quant - 32);
    }
  }
}

constexpr void (*k_decoders[])(Bytes block, float* y) = {decode_q4_0, decode_q4_1, decode_q5_0,   decode_q5_1,
                                                         decode_q8_0, decode_q2_k, decode_q3_k,   decode_q4_k,
                                                         decode_q5_k, decode_q6_k, decode_iq4_nl, decode_iq4_xs};
static_assert(sizeof k_decoders / sizeof *k_decoders == std::size_t(Quant::count_));
static_assert(sizeof k_quant_blocks / sizeof *k_quant_blocks == std::size_t(Quant::count_));

void dequantize(Quant format, const void* blocks, float* y, std::size_t n) noexcept {
  const QuantBlock block = k_quant_blocks[int(format)];
  const auto decode = k_decoders[int(format)];
  auto at = static_cast<Bytes>(blocks);
  for (std::size_t i = 0; i < n; i += block.elements, at += block.bytes) decode(at, y + i);
}

// --- quantising: as ggml's reference does for finite numbers; a NaN becomes the smallest quant of q4_0, 0 in q8_0 ---

void put_half(std::uint8_t* p, float x) {
  const std::uint16_t bits = half_bits(x);
  p[0] = std::uint8_t(bits);
  p[1] = std::uint8_t(bits >> 8);
}

// The number that is furthest from 0, the first of them.
float furthest_of(const float* x) {
  float furthest = 0;
  for (int j = 0; j < 32; ++j)
    if (std::fabs(x[j]) > std::fabs(furthest)) furthest = x[j];
  return furthest;
}

// The furthest number becomes -8; the scale's sign follows from that.
void encode_q4_0(const float* x, std::uint8_t* block) {
  const float scale = furthest_of(x) / -8, inverse = scale != 0 ? 1 / scale : 0;
  const auto quant = [&](float value) {
    const float steps = value * inverse;
    const float level = steps + 8.5f;
    return level >= 15 ? 15 : level > 0 ? int(level) : 0;
  };
  put_half(block, scale);
  for (int j = 0; j < 16; ++j) block[2 + j] = std::uint8_t(quant(x[j]) | quant(x[j + 16]) << 4);
}

// The largest magnitude becomes 127; halves are rounded away from 0.
void encode_q8_0(const float* x, std::uint8_t* block) {
  const float scale = std::fabs(furthest_of(x)) / 127, inverse = scale != 0 ? 1 / scale : 0;
  put_half(block, scale);
  for (int j = 0; j < 32; ++j) {
    const float level = std::round(x[j] * inverse);
    block[2 + j] = std::uint8_t(std::isnan(level) ? 0 : int(std::fmin(std::fmax(level, -127.0f), 127.0f)));
  }
}

// x in steps of 1 / inverse, rounded half to even, from -8 to 7.
int level_of(float x, float inverse) {
  const float level = std::nearbyint(x * inverse);
  return level >= 7 ? 7 : level > -8 ? int(level) : -8;
}

// How well levels l = level_of(x, inverse) can stand for x: the best scale is xl / ll, and the larger xl^2 / ll, the smaller the error.
struct Fit {
  float xl = 0, ll = 0;  // sums of w x l and w l^2
};
Fit fit_of(const float* x, const float* weights, float inverse) {
  Fit fit;
  for (int j = 0; j < 32; ++j) {
    const auto level = float(level_of(x[j], inverse));
    const float product = weights[j] * x[j] * level, square = weights[j] * level * level;
    fit.xl += product;
    fit.ll += square;
  }
  return fit;
}

// The least weighted squared error among 19 steps: those that put the furthest number at -7.1, -7.2, … -8.9; the plain -8 first.
void encode_q4_0_weighted(const float* x, const float* weights, std::uint8_t* block) {
  constexpr float k_nothing = 1e-15f;  // magnitudes below are taken as 0
  const float furthest = furthest_of(x);
  float inverse = 0, scale = 0;
  if (std::fabs(furthest) >= k_nothing) {
    inverse = -8 / furthest;
    const Fit plain = fit_of(x, weights, inverse);
    scale = plain.ll != 0 ? plain.xl / plain.ll : 0;
    float best = scale * plain.xl;
    for (int step = -9; step <= 9; ++step) {
      const float shift = 0.1f * float(step);
      const float other = -(8 + shift) / furthest;
      const Fit fit = fit_of(x, weights, other);
      if (step == 0 || !(fit.ll > 0) || !(fit.xl * fit.xl > best * fit.ll)) continue;
      inverse = other;
      scale = fit.xl / fit.ll;
      best = scale * fit.xl;
    }
  }
  const auto quant = [&](float value) { return inverse != 0 ? level_of(value, inverse) + 8 : 0; };
  put_half(block, scale);
  for (int j = 0; j < 16; ++j) block[2 + j] = std::uint8_t(quant(x[j]) | quant(x[j + 16]) << 4);
}

// Weights importance[c] sqrt(mean of x^2 over the row + x[c]^2).
void quantize_row_q4_0_weighted(const float* x, const float* importance, std::uint8_t* blocks, std::size_t cols) {
  float sum = 0;
  for (std::size_t c = 0; c < cols; ++c) {
    const float square = x[c] * x[c];
    sum += square;
  }
  const float mean = sum / float(cols);
  for (std::size_t c = 0; c < cols; c += 32, blocks += 18) {
    float weights[32];
    for (std::size_t j = 0; j < 32; ++j) {
      const float square = x[c + j] * x[c + j];
      weights[j] = importance[c + j] * std::sqrt(mean + square);
    }
    encode_q4_0_weighted(x + c, weights, blocks);
  }
}

void quantize(Quant format, const float* x, const float* importance, void* blocks, std::size_t rows,
              std::size_t cols) noexcept {
  const QuantBlock block = k_quant_blocks[int(format)];
  auto* at = static_cast<std::uint8_t*>(blocks);
  if (importance && format == Quant::q4_0) {
    for (std::size_t r = 0; r < rows; ++r, at += cols / 32 * block.bytes)
      quantize_row_q4_0_weighted(x + r * cols, importance, at, cols);
    return;
  }
  for (std::size_t i = 0; i < rows * cols; i += block.elements, at += block.bytes)
    (format == Quant::q4_0 ? encode_q4_0 : encode_q8_0)(x + i, at);
}

}  // namespace

extern constinit const BlocksPart blocks_scalar{dequantize, quantize};

}  // namespace qorus::kernels
