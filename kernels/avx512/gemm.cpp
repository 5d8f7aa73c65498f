// The matrix product with AVX-512: the shape of its register tile and the transposing load; the rest is written once
// for all vector types, in simd/gemm_*.h.
#include <cstddef>

#include "kernels/avx512/vec.h"
#include "kernels/parts.h"
#include "kernels/simd/each.h"
#include "kernels/simd/math.h"

namespace qorus::kernels {
namespace {

constexpr int k_tile_rows = 14;        // 14 x 2 accumulators, 2 vectors of B, 1 broadcast of A: 31 of 32 registers
constexpr int k_stream_rows = 14;      // 14 x 1 accumulators beside a 16 x 16 block that is transposed in registers
constexpr int k_stream_pair_rows = 0;  // rows up to which two such blocks go side by side
// Weights [n, k] are read as they stand, the product turned over: for more than k_turn_after rows up to k_turn_most, from k_turn_least steps of
// k on, where the rows fill k_turn_fill sixteenths of the lanes.
constexpr std::size_t k_turn_after = 14, k_turn_most = 128, k_turn_least = 512, k_turn_fill = 15;
constexpr std::size_t k_block_k = 384;

// out[t] = x[0..15][t]: a 16 x 16 block of rows `row` apart, transposed. Whole lines are loaded, one row at a time:
// with rows a power of two apart, all of them fall into the same few places of the first-level cache and none could be
// read again.
QORUS_INLINE void load_transposed(const float* x, std::ptrdiff_t row, F32 (&out)[16]) {
#pragma unroll
  for (int r = 0; r < 16; ++r) out[r] = load(x + r * row);
  transpose_square(out);
}

}  // namespace
}  // namespace qorus::kernels

#include "kernels/simd/gemm_tile.h"

#include "kernels/simd/gemm_pack.h"

#include "kernels/simd/gemm_copy.h"

#include "kernels/simd/gemm_blocks.h"

#include "kernels/simd/gemm_dot.h"

#include "kernels/simd/gemm_turned.h"

namespace qorus::kernels {

constinit const GemmPart gemm_avx512 = {plan, task, packed_size, pack};

}  // namespace qorus::kernels
