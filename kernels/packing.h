// How block formats are laid out in panels (`packed_weights` in kernels.h), for all tables.
#pragma once
#include <cstdint>

#include "kernels/kernels.h"

namespace qorus::kernels {

// Whether a value is scale q - least: the packed rows then hold -sum q where others hold what corrects an offset.
constexpr bool has_least(Packing packing) noexcept { return packing == Packing::q4_k || packing == Packing::q5_k; }

// f16 and bf16: a block is its scales, 16 rows of them, then k_full_pairs pairs of neighbours, 16 rows of each. A number q of a pair stands as 4 q
// in 16 bits, whose lowest two are two bits of a number of a later pair: those of pairs 0 to 6, from the highest on, are the bits of pair 14,
// first with first, second with second; those of pairs 7 to 13 the bits of pair 15.
constexpr int k_pairs = 16, k_full_pairs = 14, k_sharing_pairs = 7;

// How a block of a row is spread over a panel: its f16 numbers first, 16 rows of each, then its 4-byte pieces, 16 rows of each.
struct PackingPieces {
  std::uint16_t halves[2];
  int half_count;
  struct {
    std::uint16_t at, count;  // pieces one after the other
  } runs[7];
  std::uint32_t flip;  // bits that change: a signed byte becomes one counted from -128
};
constexpr PackingPieces k_packing_pieces[] = {
    {{0, 0}, 1, {{2, 4}}, 0},           // q4_0
    {{0, 0}, 1, {{2, 8}}, 0x80808080},  // q8_0
    {{0, 2}, 2, {{4, 35}}, 0},          // q4_k: scales and leasts, quants
    {{208, 0},
     1,
     {{192, 4}, {0, 8}, {128, 8}, {32, 8}, {64, 8}, {160, 8}, {96, 8}},
     0},  // q6_k: scales; for each half the lower bits of two quarters, all upper bits, the other lower bits
    {{0, 2}, 2, {{4, 43}}, 0},  // q5_k: scales and leasts, upper bits, lower bits
};

}  // namespace qorus::kernels
