// The definition of products with packed weights: what the layouts are and in which order a sum runs. Every table gives the same bits.
#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "kernels/packing.h"
#include "kernels/parts.h"
#include "kernels/scalar/half.h"

namespace qorus::kernels {
namespace {

using Bytes = const std::uint8_t*;

float half_at(Bytes p) { return half_value(std::uint16_t(p[0] | p[1] << 8)); }
float brain_at(Bytes p) { return std::bit_cast<float>(std::uint32_t(p[0] | p[1] << 8) << 16); }

// The largest magnitude of 32 numbers; NaN if one is not finite, 0 if all are next to nothing.
float largest_of(const float* x) {
  float largest = 0;
  for (int i = 0; i < 32; ++i) {
    if (!std::isfinite(x[i])) return std::bit_cast<float>(0x7fc00000u);
    if (std::fabs(x[i]) > largest) largest = std::fabs(x[i]);
  }
  return largest < 1e-30f ? 0 : largest;
}

constexpr float k_most = 8191;  // of wide quants: 14 bits with their sign, so that 16 products fit 32 bits

// Where the first or second number of a pair of row r stands, 2 bytes of it.
std::size_t place_of(int pair, std::size_t second, std::size_t r) {
  return 2 * k_panel + std::size_t(pair) * 4 * k_panel + 4 * r + 2 * second;
}
// The pair whose lowest bits are bits 2 i and 2 i + 1 of a pair from k_full_pairs on.
int sharing_pair(int pair, int i) { return (pair - k_full_pairs) * k_sharing_pairs + k_sharing_pairs - 1 - i; }

// The numbers of row r of a block.
void put_whole_numbers(const int* quants, std::size_t r, std::uint8_t* block) {
  std::uint16_t words[k_full_pairs][2];
  for (std::size_t i = 0; i < 2 * k_full_pairs; ++i) words[i / 2][i % 2] = std::uint16_t(quants[i] * 4);
  for (int pair = k_full_pairs; pair < k_pairs; ++pair)
    for (std::size_t second = 0; second < 2; ++second)
      for (int i = 0; i < k_sharing_pairs; ++i)
        words[sharing_pair(pair, i)][second] |= std::uint16_t(quants[2 * std::size_t(pair) + second] >> 2 * i & 3);
  for (int pair = 0; pair < k_full_pairs; ++pair)
    for (std::size_t second = 0; second < 2; ++second)
      std::memcpy(block + place_of(pair, second, r), &words[pair][second], 2);
}
int whole_number_at(Bytes block, std::size_t r, std::size_t t) {
  const auto word = [&](int pair) {
    Bytes at = block + place_of(pair, t % 2, r);
    return at[0] | at[1] << 8;
  };
  const int pair = int(t / 2);
  if (pair < k_full_pairs) return std::int16_t(word(pair)) >> 2;
  int bits = 0;
  for (int i = 0; i < k_sharing_pairs; ++i) bits |= (word(sharing_pair(pair, i)) & 3) << 2 * i;
  return std::int16_t(bits << 2) >> 2;
}

// Rows of f16 or bf16.
void pack_wide(Packing packing, Bytes from, std::size_t row_bytes, std::size_t count, std::size_t blocks,
               std::uint8_t* to) {
  const std::size_t bytes = k_packing_blocks[int(packing)].bytes * k_panel;
  std::memset(to, 0, blocks * bytes);
  for (std::size_t b = 0; b < blocks; ++b, from += 64, to += bytes)
    for (std::size_t r = 0; r < count; ++r) {
      float w[32];
      for (std::size_t i = 0; i < 32; ++i)
        w[i] = (packing == Packing::f16 ? half_at : brain_at)(from + r * row_bytes + 2 * i);
      const float largest = largest_of(w);
      const auto bits = std::bit_cast<std::uint32_t>(largest / k_most);
      const std::uint32_t scale = std::isnan(largest) ? 0x7fc0 : (bits + 0xffff) >> 16;
      const float inverse = largest > 0 ? 1 / std::bit_cast<float>(scale << 16) : 0;
      const auto word = std::uint16_t(scale);
      std::memcpy(to + 2 * r, &word, 2);
      int quants[32] = {};
      for (std::size_t i = 0; inverse != 0 && i < 32; ++i) quants[i] = int(std::nearbyint(w[i] * inverse));
      put_whole_numbers(quants, r, to);
    }
}

void pack_weights(Packing packing, const void* rows, void* packed, std::size_t n, std::size_t k, std::size_t first,
                  std::size_t last) noexcept {
  const PackingBlock block = k_packing_blocks[int(packing)];
  const bool wide = packing >= Packing::f16;
  const PackingPieces pieces = k_packing_pieces[wide ? 0 : int(packing)];
  const std::size_t blocks = k / block.elements, row_bytes = wide ? 2 * k : blocks * block.bytes;
  auto* to = static_cast<std::uint8_t*>(packed) + first * packed_panel_bytes(packing, k);
  for (std::size_t panel = first; panel < last; ++panel) {
    const std::size_t count = n - panel * k_panel < k_panel ? n - panel * k_panel : k_panel;
    Bytes from = static_cast<Bytes>(rows) + panel * k_panel * row_bytes;
    if (wide) {
      pack_wide(packing, from, row_bytes, count, blocks, to);
      to += blocks * block.bytes * k_panel;
      continue;
    }
    for (std::size_t b = 0; b < blocks; ++b, from += block.bytes) {
      for (int i = 0; i < pieces.half_count; ++i, to += 2 * k_panel) {
        std::memset(to, 0, 2 * k_panel);
        for (std::size_t r = 0; r < count; ++r) std::memcpy(to + 2 * r, from + r * row_bytes + pieces.halves[i], 2);
      }
      for (const auto& run : pieces.runs)
        for (std::size_t i = 0; i < run.count; ++i, to += 4 * k_panel) {
          std::memset(to, 0, 4 * k_panel);
          for (std::size_t r = 0; r < count; ++r) {
            std::uint32_t word = 0;
            std::memcpy(&word, from + r * row_bytes + run.at + 4 * i, 4);
            word ^= pieces.flip;
            std::memcpy(to + 4 * r, &word, 4);
          }
        }
    }
  }
}

// --- rows: in runs of 16, the rest in runs of 8, 4, 2 and 1; in a run, block by block: quants [rows, 32], scales [rows], sums [rows, 2] ---

std::size_t run_of(std::size_t left) { return left >= 16 ? 16 : std::bit_floor(left); }

// What the sum of q qw must be corrected by, per element of q: the packed qw count from -k_offset.
constexpr int k_offsets[] = {8, 128, 0, 32, 0};

struct RowBlock {
  std::int8_t quants[32];
  float scale;
  int sums[2];  // of the halves
};
// To nearest, halves to even, a NaN as it is: what f16 makes of it, without its limits.
float eleven_digits(float x) {
  const auto bits = std::bit_cast<std::uint32_t>(x);
  return std::isnan(x) ? x : std::bit_cast<float>((bits + 0xfff + (bits >> 13 & 1)) & ~0x1fffu);
}
RowBlock quantised(const float* x) {
  RowBlock block{};
  const float largest = largest_of(x);
  block.scale = eleven_digits(largest / 127.0f);
  if (!(largest > 0)) return block;
  const float inverse = 127.0f / largest;
  for (int i = 0; i < 32; ++i) {
    const float level = std::nearbyint(x[i] * inverse);
    block.quants[i] = std::int8_t(level);
    block.sums[i / 16] += int(level);
  }
  return block;
}

// The same with 16-bit quants; gives the scale.
float quantised_wide(const float* x, std::int16_t* quants) {
  const float largest = largest_of(x), inverse = largest > 0 ? k_most / largest : 0;
  for (int i = 0; i < 32; ++i) quants[i] = std::int16_t(inverse > 0 ? int(std::nearbyint(x[i] * inverse)) : 0);
  return largest / k_most;
}

void pack_rows(Packing packing, const float* x, std::ptrdiff_t x_row, void* packed, std::size_t, std::size_t k,
               std::size_t first, std::size_t last) noexcept {
  const std::size_t bytes = packed_row_bytes(packing, k);
  for (std::size_t i = first; i < last;) {
    const std::size_t rows = run_of(last - i);
    auto* to = static_cast<std::uint8_t*>(packed) + i * bytes;
    for (std::size_t r = 0; r < rows; ++r) {
      const float* from = x + std::ptrdiff_t(i + r) * x_row;
      for (std::size_t b = 0; packing >= Packing::f16 && b < k / 32; ++b) {
        std::int16_t quants[32];
        const float scale = quantised_wide(from + 32 * b, quants);
        std::uint8_t* place = to + b * rows * 68;
        std::memcpy(place + 64 * r, quants, 64);
        std::memcpy(place + 64 * rows + 4 * r, &scale, 4);
      }
      if (packing >= Packing::f16) continue;
      for (std::size_t b = 0; b < k / 32; ++b) {
        const RowBlock block = quantised(from + 32 * b);
        std::uint8_t* place = to + b * rows * 44;
        std::memcpy(place + 32 * r, block.quants, 32);
        std::memcpy(place + 32 * rows + 4 * r, &block.scale, 4);
        const int offset = k_offsets[int(packing)], sum = block.sums[0] + block.sums[1];
        std::uint32_t words[2] = {std::uint32_t(-offset * sum), 0};
        if (has_least(packing)) words[0] = std::bit_cast<std::uint32_t>(float(-sum));
        if (packing == Packing::q6_k)
          for (int h = 0; h < 2; ++h) words[h] = std::uint32_t(-offset * block.sums[h]);
        std::memcpy(place + 36 * rows + 8 * r, words, 8);
      }
    }
    i += rows;
  }
}

// --- the product ---

// 32 elements of row r of a panel: q - offset, their scales, the minimum.
struct WeightBlock {
  int quants[32];
  float scales[2], least;
};

WeightBlock weights_at(Packing packing, Bytes panel, std::size_t r, std::size_t index) {
  WeightBlock w{};
  const std::size_t super = k_packing_blocks[int(packing)].elements / 32, b = index % super;
  Bytes p = panel + index / super * k_packing_blocks[int(packing)].bytes * k_panel;
  const float scale = half_at(p + 2 * r);
  // Byte t of the pieces from `at` on.
  const auto byte = [&](std::size_t at, std::size_t t) -> int { return p[at + t / 4 * 64 + 4 * r + t % 4]; };
  switch (packing) {
    case Packing::q4_0:
      w.scales[0] = scale;
      for (std::size_t t = 0; t < 32; ++t) w.quants[t] = (byte(32, t % 16) >> t / 16 * 4 & 15) - 8;
      break;
    case Packing::q8_0:
      w.scales[0] = scale;
      for (std::size_t t = 0; t < 32; ++t) w.quants[t] = byte(32, t) - 128;
      break;
    case Packing::q4_k:
    case Packing::q5_k: {
      const auto own = [&](std::size_t i) {
        return b < 4 ? byte(64, 4 * i + b) & 63
                     : (byte(64, 8 + b - 4) >> 4 * i & 15) | byte(64, 4 * i + b - 4) >> 6 << 4;
      };
      w.scales[0] = scale * float(own(0));
      w.least = half_at(p + 32 + 2 * r) * float(own(1));
      const bool fifth = packing == Packing::q5_k;  // bits, which stand before the others
      for (std::size_t t = 0; t < 32; ++t) {
        w.quants[t] = byte(64 + 192 + (fifth ? 512 : 0), b / 2 * 32 + t) >> b % 2 * 4 & 15;
        if (fifth) w.quants[t] |= (byte(64 + 192, t) >> b & 1) << 4;
      }
      break;
    }
    case Packing::f16:
    case Packing::bf16:
      w.scales[0] = brain_at(p + 2 * r);
      for (std::size_t t = 0; t < 32; ++t) w.quants[t] = whole_number_at(p, r, t);
      break;
    default:
      for (std::size_t i = 0; i < 2; ++i) w.scales[i] = scale * float(std::int8_t(byte(32, 2 * b + i)));
      const std::size_t half = 32 + 256 + b / 4 * 1536;
      for (std::size_t t = 0; t < 32; ++t) {
        const int lower = byte(half + b % 2 * 1024, t) >> b % 4 / 2 * 4 & 15;
        w.quants[t] = (lower | (byte(half + 512, t) >> 2 * (b % 4) & 3) << 4) - 32;
      }
  }
  return w;
}

// Row `r` of a run of `rows` rows, column `lane` of the panel.
float chain_of(const PackedProduct& p, Bytes run, std::size_t rows, std::size_t r, Bytes panel, std::size_t lane,
               float chain) {
  const bool wide = p.packing >= Packing::f16;
  const std::size_t quant_bytes = wide ? 64 : 32, block_bytes = wide ? 68 : 44;
  for (std::size_t b = 0; b < p.k / 32; ++b) {
    const WeightBlock w = weights_at(p.packing, panel, lane, b);
    Bytes block = run + b * rows * block_bytes;
    float scale = 0;
    std::memcpy(&scale, block + quant_bytes * rows + 4 * r, 4);
    int sums[2] = {0, 0}, all = 0;
    for (std::size_t t = 0; t < 32; ++t) {
      Bytes at = block + quant_bytes * r + quant_bytes / 32 * t;
      const int q = wide ? int(std::int16_t(at[0] | at[1] << 8)) : int(std::int8_t(at[0]));
      sums[t / 16] += q * w.quants[t];
      all += q;
    }
    float t = 0;
    if (p.packing == Packing::q6_k) {
      t = w.scales[0] * float(sums[0]);
      t = std::fma(w.scales[1], float(sums[1]), t);
    } else if (wide) {
      t = w.scales[0] * (float(sums[0]) + float(sums[1]));
    } else {
      t = w.scales[0] * float(sums[0] + sums[1]);
    }
    if (has_least(p.packing)) t = std::fma(w.least, float(-all), t);
    chain = std::fma(t, scale, chain);
  }
  return chain;
}

void product(const PackedProduct& p, std::size_t first, std::size_t last) noexcept {
  const std::size_t row_bytes = packed_row_bytes(p.packing, p.k), panel_bytes = packed_panel_bytes(p.packing, p.k);
  for (std::size_t i = 0; i < p.m;) {
    const std::size_t rows = run_of(p.m - i);
    Bytes run = static_cast<Bytes>(p.rows) + i * row_bytes;
    for (std::size_t r = 0; r < rows; ++r, ++i)
      for (std::size_t j = first * k_panel; j < last * k_panel && j < p.n; ++j) {
        float* c = p.c + std::ptrdiff_t(i) * p.c_row + j;
        float start = p.accumulate ? *c : 0.0f;
        if (p.bias) start = p.accumulate ? start + p.bias[j] : p.bias[j];
        Bytes panel = static_cast<Bytes>(p.weights) + j / k_panel * panel_bytes;
        *c = chain_of(p, run, rows, r, panel, j % k_panel, start);
      }
  }
}

}  // namespace

extern constinit const PackedPart packed_scalar{pack_weights, pack_rows, product};

}  // namespace qorus::kernels
