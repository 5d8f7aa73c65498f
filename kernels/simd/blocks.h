// The block formats that most files use, over the vector type; the others as the scalar kernels do them. Include a vec.h first.
// The layouts are explained in scalar/blocks.cpp. Products and sums are rounded one by one as there: the same bits.
#pragma once
#include <cstddef>
#include <cstdint>
#include "kernels/parts.h"

namespace qorus::kernels {
namespace {

using Bytes = const std::uint8_t*;

QORUS_INLINE float half_at(Bytes p) { return half(std::uint16_t(p[0] | p[1] << 8)); }

QORUS_INLINE void decode_q4_0(Bytes block, float* y) {
  const F32 scale = set(half_at(block));
  for (std::size_t j = 0; j < 16; j += k_lanes) {
    const I32 both = load_u8_i32(block + 2 + j);
    store(y + j, to_float((both & set(15)) - set(8)) * scale);
    store(y + 16 + j, to_float(shift_right<4>(both) - set(8)) * scale);
  }
}

QORUS_INLINE void decode_q8_0(Bytes block, float* y) {
  const F32 scale = set(half_at(block));
  for (std::size_t j = 0; j < 32; j += k_lanes) store(y + j, to_float(load_i8_i32(block + 2 + j)) * scale);
}

// Two groups of 32 from the halves of the same 32 bytes.
QORUS_INLINE void decode_q4_k(Bytes block, float* y) {
  const float scale = half_at(block), least = half_at(block + 2);
  const Bytes packed = block + 4;
  for (int g = 0; g < 8; g += 2) {
    float group[2], from[2];
    for (int i = 0; i < 2; ++i) {
      const int k = g + i;
      const int own = k < 4 ? packed[k] & 63 : (packed[k + 4] & 15) | packed[k - 4] >> 6 << 4;
      const int own_least = k < 4 ? packed[k + 4] & 63 : packed[k + 4] >> 4 | packed[k] >> 6 << 4;
      group[i] = scale * float(own);
      from[i] = least * float(own_least);
    }
    const F32 low = set(group[0]), low_from = set(from[0]), high = set(group[1]), high_from = set(from[1]);
    for (std::size_t l = 0; l < 32; l += k_lanes) {
      const I32 both = load_u8_i32(block + 16 + 16 * g + l);
      const F32 below = to_float(both & set(15)) * low, above = to_float(shift_right<4>(both)) * high;
      store(y + 32 * g + l, below - low_from);
      store(y + 32 * g + 32 + l, above - high_from);
    }
  }
}

// The four quarters of a half from the same 32 upper and 64 lower bytes.
QORUS_INLINE void decode_q6_k(Bytes block, float* y) {
  const float scale = half_at(block + 208);
  for (std::size_t h = 0; h < 2; ++h)
    for (std::size_t l = 0; l < 32; l += k_lanes) {
      const I32 a = load_u8_i32(block + 64 * h + l), b = load_u8_i32(block + 64 * h + 32 + l);
      const I32 upper = load_u8_i32(block + 128 + 32 * h + l), two = set(3);
      const Bytes scales = block + 192 + 8 * h + l / 16;
      const auto put = [&](int quarter, I32 low, I32 high) {
        const float group = scale * float(std::int8_t(scales[2 * quarter]));
        store(y + 128 * h + 32 * quarter + l, to_float(low + shift_left<4>(high) - set(32)) * set(group));
      };
      put(0, a & set(15), upper & two);
      put(1, b & set(15), shift_right<2>(upper) & two);
      put(2, shift_right<4>(a), shift_right<4>(upper) & two);
      put(3, shift_right<4>(b), shift_right<6>(upper));
    }
}

void dequantize(Quant format, const void* blocks, float* y, std::size_t n) noexcept {
  const QuantBlock block = k_quant_blocks[int(format)];
  const auto each = [&](auto decode) {
    auto at = static_cast<Bytes>(blocks);
    for (std::size_t i = 0; i < n; i += block.elements, at += block.bytes) decode(at, y + i);
  };
  switch (format) {
    case Quant::q4_0: return each([](Bytes at, float* to) { decode_q4_0(at, to); });
    case Quant::q8_0: return each([](Bytes at, float* to) { decode_q8_0(at, to); });
    case Quant::q4_k: return each([](Bytes at, float* to) { decode_q4_k(at, to); });
    case Quant::q6_k: return each([](Bytes at, float* to) { decode_q6_k(at, to); });
    default: return blocks_scalar.dequantize(format, blocks, y, n);
  }
}

void quantize(Quant format, const float* x, const float* importance, void* blocks, std::size_t rows,
              std::size_t cols) noexcept {
  blocks_scalar.quantize(format, x, importance, blocks, rows, cols);
}

}  // namespace
}  // namespace qorus::kernels
