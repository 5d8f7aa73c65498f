// The definition of products with packed weights: what the layouts are and in which order a sum runs. Every table gives the same bits.
#include <bit>
#include <cmath>
#include <cstring>

#include "kernels/parts.h"
#include "kernels/scalar/half.h"

namespace qorus::kernels {
namespace {

using Bytes = const std::uint8_t*;

// How a block of a row is spread over a panel: its f16 numbers first, 16 rows of each, then its 4-byte pieces, 16 rows of each.
struct Pieces {
  std::uint16_t halves[2];
  int half_count;
  struct {
    std::uint16_t at, count;  // pieces one after the other
  } runs[2];
  std::uint32_t flip;  // bits that change: a signed byte becomes one counted from -128
};
constexpr Pieces k_pieces[] = {
    {{0, 0}, 1, {{2, 4}, {0, 0}}, 0},           // q4_0
    {{0, 0}, 1, {{2, 8}, {0, 0}}, 0x80808080},  // q8_0
    {{0, 2}, 2, {{4, 35}, {0, 0}}, 0},          // q4_k: scales and leasts, quants
    {{208, 0}, 1, {{192, 4}, {0, 48}}, 0},      // q6_k: scales; lower bits, upper bits
    {{0, 0}, 1, {{0, 0}, {0, 0}}, 0},           // f16
    {{0, 0}, 1, {{0, 0}, {0, 0}}, 0},           // bf16
};

void pack_weights(Packing packing, const void* rows, void* packed, std::size_t n, std::size_t k, std::size_t first,
                  std::size_t last) noexcept {
  const PackingBlock block = k_packing_blocks[int(packing)];
  const Pieces pieces = k_pieces[int(packing)];
  const std::size_t blocks = k / block.elements, row_bytes = blocks * block.bytes;
  auto* to = static_cast<std::uint8_t*>(packed) + first * packed_panel_bytes(packing, k);
  for (std::size_t panel = first; panel < last; ++panel) {
    const std::size_t count = n - panel * k_panel < k_panel ? n - panel * k_panel : k_panel;
    Bytes from = static_cast<Bytes>(rows) + panel * k_panel * row_bytes;
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
constexpr int k_offsets[] = {8, 128, 0, 32};

struct RowBlock {
  std::int8_t quants[32];
  float scale;
  int sums[2];  // of the halves
};
// To nearest, halves to even: what f16 makes of it, without its limits.
float eleven_digits(float x) {
  const auto bits = std::bit_cast<std::uint32_t>(x);
  return std::bit_cast<float>((bits + 0xfff + (bits >> 13 & 1)) & ~0x1fffu);
}
RowBlock quantised(const float* x) {
  RowBlock block{};
  float largest = 0;
  for (int i = 0; i < 32; ++i) {
    if (!std::isfinite(x[i])) {
      block.scale = std::bit_cast<float>(0x7fc00000u);
      return block;
    }
    if (std::fabs(x[i]) > largest) largest = std::fabs(x[i]);
  }
  if (largest < 1e-30f) return block;
  const float inverse = 127.0f / largest;
  for (int i = 0; i < 32; ++i) {
    const float level = std::nearbyint(x[i] * inverse);
    block.quants[i] = std::int8_t(level);
    block.sums[i / 16] += int(level);
  }
  block.scale = eleven_digits(largest / 127.0f);
  return block;
}

void pack_rows(Packing packing, const float* x, std::ptrdiff_t x_row, void* packed, std::size_t, std::size_t k,
               std::size_t first, std::size_t last) noexcept {
  const std::size_t bytes = packed_row_bytes(packing, k);
  for (std::size_t i = first; i < last;) {
    const std::size_t rows = run_of(last - i);
    auto* to = static_cast<std::uint8_t*>(packed) + i * bytes;
    for (std::size_t r = 0; r < rows; ++r) {
      const float* from = x + std::ptrdiff_t(i + r) * x_row;
      if (packing >= Packing::f16) {
        for (std::size_t j = 0; j < k; ++j) std::memcpy(to + (j * rows + r) * 4, from + j, 4);
        continue;
      }
      for (std::size_t b = 0; b < k / 32; ++b) {
        const RowBlock block = quantised(from + 32 * b);
        std::uint8_t* place = to + b * rows * 44;
        std::memcpy(place + 32 * r, block.quants, 32);
        std::memcpy(place + 32 * rows + 4 * r, &block.scale, 4);
        const int offset = k_offsets[int(packing)], sum = block.sums[0] + block.sums[1];
        std::uint32_t words[2] = {std::uint32_t(-offset * sum), 0};
        if (packing == Packing::q4_k) words[0] = std::bit_cast<std::uint32_t>(float(-sum));
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

float half_at(Bytes p) { return half_value(std::uint16_t(p[0] | p[1] << 8)); }

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
    case Packing::q4_k: {
      const auto own = [&](std::size_t i) {
        return b < 4 ? byte(64, 4 * i + b) & 63
                     : (byte(64, 8 + b - 4) >> 4 * i & 15) | byte(64, 4 * i + b - 4) >> 6 << 4;
      };
      w.scales[0] = scale * float(own(0));
      w.least = half_at(p + 32 + 2 * r) * float(own(1));
      for (std::size_t t = 0; t < 32; ++t) w.quants[t] = byte(64 + 192, b / 2 * 32 + t) >> b % 2 * 4 & 15;
      break;
    }
    default:
      for (std::size_t i = 0; i < 2; ++i) w.scales[i] = scale * float(std::int8_t(byte(32, 2 * b + i)));
      for (std::size_t t = 0; t < 32; ++t) {
        const int lower = byte(32 + 256, b / 4 * 64 + b % 2 * 32 + t) >> b % 4 / 2 * 4 & 15;
        w.quants[t] = (lower | (byte(32 + 256 + 2048, b / 4 * 32 + t) >> 2 * (b % 4) & 3) << 4) - 32;
      }
  }
  return w;
}

float element_at(Packing packing, Bytes panel, std::size_t r, std::size_t k) {
  const std::size_t at = k * 2 * k_panel + 2 * r;
  const auto bits = std::uint16_t(panel[at] | panel[at + 1] << 8);
  return packing == Packing::f16 ? half_value(bits) : std::bit_cast<float>(std::uint32_t(bits) << 16);
}

// Row `r` of a run of `rows` rows, column `lane` of the panel.
float chain_of(const PackedProduct& p, Bytes run, std::size_t rows, std::size_t r, Bytes panel, std::size_t lane,
               float chain) {
  if (p.packing >= Packing::f16) {
    for (std::size_t k = 0; k < p.k; ++k) {
      float x = 0;
      std::memcpy(&x, run + (k * rows + r) * 4, 4);
      chain = std::fma(x, element_at(p.packing, panel, lane, k), chain);
    }
    return chain;
  }
  for (std::size_t b = 0; b < p.k / 32; ++b) {
    const WeightBlock w = weights_at(p.packing, panel, lane, b);
    Bytes block = run + b * rows * 44;
    float scale = 0;
    std::memcpy(&scale, block + 32 * rows + 4 * r, 4);
    int sums[2] = {0, 0}, all = 0;
    for (std::size_t t = 0; t < 32; ++t) {
      const int q = std::int8_t(block[32 * r + t]);
      sums[t / 16] += q * w.quants[t];
      all += q;
    }
    float t = 0;
    if (p.packing == Packing::q6_k) {
      t = w.scales[0] * float(sums[0]);
      t = std::fma(w.scales[1], float(sums[1]), t);
    } else {
      t = w.scales[0] * float(sums[0] + sums[1]);
    }
    if (p.packing == Packing::q4_k) t = std::fma(w.least, float(-all), t);
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
