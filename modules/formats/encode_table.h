// What the encoders of block formats are called by: plain C++, compiled for several instruction sets, one table each.
#pragma once
#include <cstddef>
#include <cstdint>

namespace qorus::formats {

enum class Encoding : std::uint8_t { q4_0, q8_0, q4_1, q5_0, q5_1, q2_k, q3_k, q4_k, q5_k, q6_k, iq4_nl };

// x: [rows, cols], cols whole blocks; importance: [cols] or null (all alike, and the simpler ways that ggml has for it); q8_0 has no use for it. Writes the
// blocks, row after row. The same bytes from every table. NaN and infinities give blocks of unspecified numbers.
using Encode = void (*)(Encoding encoding, const float* x, const float* importance, std::uint8_t* blocks,
                        std::size_t rows, std::size_t cols) noexcept;

extern const Encode k_encode_plain;
extern const Encode k_encode_avx2;

}  // namespace qorus::formats
