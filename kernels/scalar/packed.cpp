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
static_assert(sizeof k_packing_pieces / sizeof *k_packing_pieces == std::size_t(Packing::f16));
static_assert(sizeof k_packing_rows / sizeof *k_packing_rows == std::size_t(Packing::count_));

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
  const std::size_t bytes = packing_block(packing).bytes * k_panel;
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

// Calls f(where it stands in the block, where in the panel's block, bytes of it) for all pieces of row r.
template <class F>
void each_piece(const PackingPieces& pieces, std::size_t r, const F& f) {
  std::size_t to = 0;
  for (int i = 0; i < pieces.half_count; ++i, to += 2 * k_panel) f(pieces.halves[i], to + 2 * r, 2);
  for (const auto& run : pieces.runs)
    for (std::size_t i = 0; i < run.count; ++i, to += 4 * k_panel) f(run.at + 4 * i, to + 4 * r, 4);
}

// What a piece becomes on its way to a panel, and back.
void copy_piece(const PackingPieces& pieces, Bytes from, std::uint8_t* to, std::size_t bytes) {
  for (std::size_t i = 0; i < bytes; ++i) to[i] = std::uint8_t(from[i] ^ (bytes == 4 ? pieces.flip & 255 : 0));
}

void pack_weights(Packing packing, const void* rows, void* packed, std::size_t n, std::size_t k, std::size_t first,
                  std::size_t last, std::size_t) noexcept {
  const QuantBlock block = packing_block(packing);
  const bool wide = packing >= Packing::f16;
  const PackingPieces& pieces = k_packing_pieces[wide ? 0 : int(packing)];
  const std::size_t blocks = k / block.elements, row_bytes = wide ? 2 * k : blocks * block.bytes;
  auto* to = static_cast<std::uint8_t*>(packed) + first * packed_panel_bytes(packing, k);
  for (std::size_t panel = first; panel < last; ++panel, to += packed_panel_bytes(packing, k)) {
    const std::size_t count = n - panel * k_panel < k_panel ? n - panel * k_panel : k_panel;
    Bytes from = static_cast<Bytes>(rows) + panel * k_panel * row_bytes;
    std::memset(to, 0, packed_panel_bytes(packing, k));
    if (wide) {
      pack_wide(packing, from, row_bytes, count, blocks, to);
      continue;
    }
    for (std::size_t b = 0; b < blocks; ++b)
      for (std::size_t r = 0; r < count; ++r)
        each_piece(pieces, r, [&](std::size_t at, std::size_t place, std::size_t bytes) {
          copy_piece(pieces, from + r * row_bytes + b * block.bytes + at, to + b * block.bytes * k_panel + place,
                     bytes);
        });
  }
}

// --- rows: in runs of 16, the rest in runs of 8, 4, 2 and 1; in a run, block by block: quants [rows, 32], scales [rows], sums [rows, 2] ---

std::size_t run_of(std::size_t left) { return left >= 16 ? 16 : std::bit_floor(left); }

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
  const PackingRows kind = k_packing_rows[int(packing)];
  for (std::size_t i = first; i < last;) {
    const std::size_t rows = run_of(last - i);
    auto* to = static_cast<std::uint8_t*>(packed) + i * bytes;
    for (std::size_t r = 0; r < rows; ++r) {
      const float* from = x + std::ptrdiff_t(i + r) * x_row;
      for (std::size_t b = 0; kind.wide && b < k / 32; ++b) {
        std::int16_t quants[32];
        const float scale = quantised_wide(from + 32 * b, quants);
        std::uint8_t* place = to + b * rows * 68;
        std::memcpy(place + 64 * r, quants, 64);
        std::memcpy(place + 64 * rows + 4 * r, &scale, 4);
      }
      if (kind.wide) continue;
      for (std::size_t b = 0; b < k / 32; ++b) {
        const RowBlock block = quantised(from + 32 * b);
        std::uint8_t* place = to + b * rows * 44;
        std::memcpy(place + 32 * r, block.quants, 32);
        std::memcpy(place + 32 * rows + 4 * r, &block.scale, 4);
        const int sums[2] = {block.sums[0] + (kind.halves ? 0 : block.sums[1]), kind.halves ? block.sums[1] : 0};
        std::uint32_t words[2];
        for (int h = 0; h < 2;
             ++h)  // what corrects the sum of q qw, as the packed qw count from -offset; or what a minimum takes
          words[h] =
              kind.offset ? std::uint32_t(-kind.offset * sums[h]) : std::bit_cast<std::uint32_t>(float(-sums[h]));
        std::memcpy(place + 36 * rows + 8 * r, words, 8);
      }
    }
    i += rows;
  }
}

// --- the product ---

// 32 elements: whole numbers; scales and minima of their halves, or of all of them.
struct WeightBlock {
  int quants[32];
  float scales[2], leasts[2];
};

// The 6-bit scales of 16 elements each in a block of q3_k, of 32 each in one of q4_k and q5_k (0), and their minima (1).
int scale_of_q3_k(Bytes scales, std::size_t g) {
  return ((g < 8 ? scales[g] & 15 : scales[g - 8] >> 4) | (scales[8 + g % 4] >> g / 4 * 2 & 3) << 4) - 32;
}
int scale_of_q4_k(Bytes scales, std::size_t g, std::size_t least) {
  if (g < 4) return scales[4 * least + g] & 63;
  return (scales[4 + g] >> 4 * least & 15) | scales[4 * least + g - 4] >> 6 << 4;
}

// The b-th 32 elements of a block as its file has it.
WeightBlock weights_at(Packing packing, Bytes p, std::size_t b) {
  WeightBlock w{};
  float scale = half_at(p), least = half_at(p + 2);
  const auto each = [&](const auto& quant) {
    for (std::size_t t = 0; t < 32; ++t) w.quants[t] = int(quant(t)) - k_packing_rows[int(packing)].offset;
  };
  const auto four_bits = [](Bytes quants, std::size_t t) { return quants[t % 16] >> t / 16 * 4 & 15; };
  const auto fifth = [](Bytes bits, std::size_t t) { return (bits[t / 8] >> t % 8 & 1) << 4; };
  const auto two_bits = [b](Bytes quants, std::size_t t) { return quants[b / 4 * 32 + t] >> b % 4 * 2 & 3; };
  switch (packing) {
    case Packing::q4_0: each([&](std::size_t t) { return four_bits(p + 2, t); }); break;
    case Packing::q4_1: each([&](std::size_t t) { return four_bits(p + 4, t); }); break;
    case Packing::q5_0: each([&](std::size_t t) { return four_bits(p + 6, t) | fifth(p + 2, t); }); break;
    case Packing::q5_1: each([&](std::size_t t) { return four_bits(p + 8, t) | fifth(p + 4, t); }); break;
    case Packing::q8_0: each([&](std::size_t t) { return p[2 + t] ^ 128; }); break;
    case Packing::q2_k:
      each([&](std::size_t t) { return two_bits(p + 16, t); });
      for (std::size_t h = 0; h < 2; ++h) {
        w.scales[h] = half_at(p + 80) * float(p[2 * b + h] & 15);
        w.leasts[h] = half_at(p + 82) * float(p[2 * b + h] >> 4);
      }
      return w;
    case Packing::q3_k:
      each([&](std::size_t t) { return two_bits(p + 32, t) | (p[t] >> b & 1) << 2; });
      for (std::size_t h = 0; h < 2; ++h) w.scales[h] = half_at(p + 108) * float(scale_of_q3_k(p + 96, 2 * b + h));
      return w;
    case Packing::q4_k:
    case Packing::q5_k: {
      const bool more = packing == Packing::q5_k;  // fifth bits, which stand before the others
      Bytes quants = p + (more ? 48 : 16) + b / 2 * 32;
      each([&](std::size_t t) { return (quants[t] >> b % 2 * 4 & 15) | (more ? (p[16 + t] >> b & 1) << 4 : 0); });
      w.scales[0] = scale * float(scale_of_q4_k(p + 4, b, 0));
      w.leasts[0] = least * float(scale_of_q4_k(p + 4, b, 1));
      return w;
    }
    case Packing::q6_k:
      each([&](std::size_t t) {
        const int lower = p[b / 4 * 64 + b % 2 * 32 + t] >> b % 4 / 2 * 4 & 15;
        return lower | two_bits(p + 128, t) << 4;
      });
      for (std::size_t h = 0; h < 2; ++h) w.scales[h] = half_at(p + 208) * float(std::int8_t(p[192 + 2 * b + h]));
      return w;
    case Packing::iq4_nl: each([&](std::size_t t) { return k_iq4_bytes[four_bits(p + 2, t)]; }); break;
    default:
      each([&](std::size_t t) { return k_iq4_bytes[four_bits(p + 8 + 16 * b, t)]; });
      scale *= float(((p[4 + b / 2] >> b % 2 * 4 & 15) | (p[2 + b / 4] >> b % 4 * 2 & 3) << 4) - 32);
  }
  w.scales[0] = scale;
  w.leasts[0] = -least;  // where the format has it
  return w;
}

// Those of row r of a block of f16 or bf16.
WeightBlock whole_numbers(Bytes block, std::size_t r) {
  WeightBlock w{};
  w.scales[0] = brain_at(block + 2 * r);
  for (std::size_t t = 0; t < 32; ++t) w.quants[t] = whole_number_at(block, r, t);
  return w;
}

// Row `r` of a run of `rows` rows, column `lane` of the panel.
float chain_of(const PackedProduct& p, Bytes run, std::size_t rows, std::size_t r, Bytes panel, std::size_t lane,
               float chain) {
  const PackingRows kind = k_packing_rows[int(p.packing)];
  const bool wide = kind.wide;
  const std::size_t quant_bytes = wide ? 64 : 32, block_bytes = wide ? 68 : 44;
  const QuantBlock stored = packing_block(p.packing);
  const std::size_t super = stored.elements / 32;
  std::uint8_t own[256];  // the row's block as its file has it
  for (std::size_t b = 0; b < p.k / 32; ++b) {
    Bytes from = panel + b / super * stored.bytes * k_panel;
    const PackingPieces& pieces = k_packing_pieces[wide ? 0 : int(p.packing)];
    if (!wide && b % super == 0)
      each_piece(pieces, lane, [&](std::size_t at, std::size_t place, std::size_t bytes) {
        copy_piece(pieces, from + place, own + at, bytes);
      });
    const WeightBlock w = wide ? whole_numbers(from, lane) : weights_at(p.packing, own, b % super);
    Bytes block = run + b * rows * block_bytes;
    float scale = 0;
    std::memcpy(&scale, block + quant_bytes * rows + 4 * r, 4);
    int sums[2] = {0, 0}, plain[2] = {0, 0};
    for (std::size_t t = 0; t < 32; ++t) {
      Bytes at = block + quant_bytes * r + quant_bytes / 32 * t;
      const int q = wide ? int(std::int16_t(at[0] | at[1] << 8)) : int(std::int8_t(at[0]));
      sums[t / 16] += q * w.quants[t];
      plain[t / 16] += q;
    }
    if (!wide && !kind.halves) {
      sums[0] += sums[1];
      plain[0] += plain[1];
    }
    float t = w.scales[0] * (wide ? float(sums[0]) + float(sums[1]) : float(sums[0]));
    if (kind.halves) t = std::fma(w.scales[1], float(sums[1]), t);
    if (kind.offset == 0 && !wide) {
      t = std::fma(w.leasts[0], float(-plain[0]), t);
      if (kind.halves) t = std::fma(w.leasts[1], float(-plain[1]), t);
    }
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
