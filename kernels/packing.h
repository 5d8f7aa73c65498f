// How block formats are laid out in panels (`packed_weights` in kernels.h), for all tables.
#pragma once
#include <cstddef>
#include <cstdint>

#include "kernels/kernels.h"

namespace qorus::kernels {

// f16 and bf16: a block is its scales, 16 rows of them, then k_full_pairs pairs of neighbours, 16 rows of each. A number q of a pair stands as 4 q
// in 16 bits, whose lowest two are two bits of a number of a later pair: those of pairs 0 to 6, from the highest on, are the bits of pair 14,
// first with first, second with second; those of pairs 7 to 13 the bits of pair 15.
constexpr int k_pairs = 16, k_full_pairs = 14, k_sharing_pairs = 7;

// How a block of a row is spread over a panel: its f16 numbers (of iq4_xs also the upper bits of scales) first, 16 rows of each, then its
// 4-byte pieces, 16 rows of each.
struct PackingPieces {
  std::uint8_t half_count, halves[2];
  struct {
    std::uint8_t at, count;  // pieces one after the other, at least 4 of them, or none
  } runs[7];
  std::uint32_t flip;  // bits that change: a signed byte becomes one counted from -128
};
constexpr PackingPieces k_packing_pieces[] = {
    {1, {0}, {{2, 4}}, 0},           // q4_0
    {2, {0, 2}, {{4, 4}}, 0},        // q4_1
    {1, {0}, {{2, 5}}, 0},           // q5_0: fifth bits, lower ones
    {2, {0, 2}, {{4, 5}}, 0},        // q5_1
    {1, {0}, {{2, 8}}, 0x80808080},  // q8_0
    {2, {80, 82}, {{0, 20}}, 0},     // q2_k: scales and leasts, quants
    {1, {108}, {{0, 27}}, 0},        // q3_k: third bits, lower ones, scales
    {2, {0, 2}, {{4, 35}}, 0},       // q4_k: scales and leasts, quants
    {2, {0, 2}, {{4, 43}}, 0},       // q5_k: scales and leasts, upper bits, lower bits
    {1,
     {208},
     {{192, 4}, {0, 8}, {128, 8}, {32, 8}, {64, 8}, {160, 8}, {96, 8}},
     0},  // q6_k: scales; for each half the lower bits of two quarters, all upper bits, the other lower bits
    {1, {0}, {{2, 4}}, 0},      // iq4_nl
    {2, {0, 2}, {{4, 33}}, 0},  // iq4_xs: lower bits of scales, indices
};

// The same as steps of four pieces, each to the panel's piece `to`; where a run's count is not a multiple of four its last step begins earlier,
// so that nothing behind the block is read.
struct PackingSteps {
  std::uint8_t count = 0;
  struct {
    std::uint8_t from, to;
  } steps[14] = {};
};
struct PackingStepsOfAll {
  PackingSteps of[sizeof k_packing_pieces / sizeof *k_packing_pieces];
};
constexpr PackingStepsOfAll k_packing_steps = [] {
  PackingStepsOfAll all;
  for (std::size_t f = 0; f < sizeof all.of / sizeof *all.of; ++f) {
    PackingSteps& made = all.of[f];
    int placed = 0;
    for (const auto& run : k_packing_pieces[f].runs) {
      for (int i = 0; i < run.count; i += 4) {
        const int piece = i + 4 <= run.count ? i : run.count - 4;
        made.steps[made.count++] = {std::uint8_t(run.at + 4 * piece), std::uint8_t(placed + piece)};
      }
      placed += run.count;
    }
  }
  return all;
}();

// The 16 values of iq4_nl and iq4_xs, counted from -128.
alignas(16) constexpr std::uint8_t k_iq4_bytes[] = {1,   24,  45,  63,  79,  93,  106, 118,
                                                    129, 141, 153, 166, 181, 197, 217, 241};

}  // namespace qorus::kernels
