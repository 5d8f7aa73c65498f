// The matrix product with AVX2 and FMA: the shape of its register tile and the transposing load; the rest is written
// once for all vector types, in simd/gemm_*.h.
#include <cstddef>

#include "kernels/avx2/vec.h"
#include "kernels/parts.h"
#include "kernels/simd/each.h"
#include "kernels/simd/math.h"

namespace qorus::kernels {
namespace {

constexpr int k_tile_rows = 6;         // 6 x 2 accumulators, 2 vectors of B, 1 broadcast of A: 15 of 16 registers
constexpr int k_stream_rows = 4;       // 4 x 1 accumulators beside an 8 x 8 block that is transposed in registers
constexpr int k_stream_pair_rows = 3;  // rows up to which two such blocks go side by side
// As in avx512/gemm.cpp: where the product is turned over.
constexpr std::size_t k_turn_after = 4, k_turn_most = 128, k_turn_least = 192, k_turn_fill = 0;
constexpr std::size_t k_block_k = 384;

// out[t] = x[0..7][t]: an 8 x 8 block of rows `row` apart, transposed. Every load takes two rows' 16 bytes into the two
// halves of a register, so only the 4 x 4 transposition within the halves is left to shuffles (16 of them).
QORUS_INLINE void load_transposed(const float* x, std::ptrdiff_t row, F32 (&out)[8]) {
  __m256 q[4][2];  // [row mod 4][column / 4]: half h holds row 4 h + (row mod 4)
#pragma unroll
  for (int r = 0; r < 4; ++r)
#pragma unroll
    for (int s = 0; s < 2; ++s) {
      const float* p = x + r * row + 4 * s;
      q[r][s] = _mm256_insertf128_ps(_mm256_castps128_ps256(_mm_loadu_ps(p)), _mm_loadu_ps(p + 4 * row), 1);
    }
#pragma unroll
  for (int s = 0; s < 2; ++s) {
    const __m256d a = _mm256_castps_pd(_mm256_unpacklo_ps(q[0][s], q[1][s]));
    const __m256d b = _mm256_castps_pd(_mm256_unpackhi_ps(q[0][s], q[1][s]));
    const __m256d c = _mm256_castps_pd(_mm256_unpacklo_ps(q[2][s], q[3][s]));
    const __m256d d = _mm256_castps_pd(_mm256_unpackhi_ps(q[2][s], q[3][s]));
    out[4 * s + 0].v = _mm256_castpd_ps(_mm256_unpacklo_pd(a, c));
    out[4 * s + 1].v = _mm256_castpd_ps(_mm256_unpackhi_pd(a, c));
    out[4 * s + 2].v = _mm256_castpd_ps(_mm256_unpacklo_pd(b, d));
    out[4 * s + 3].v = _mm256_castpd_ps(_mm256_unpackhi_pd(b, d));
  }
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

constinit const GemmPart gemm_avx2 = {plan, task, packed_size, pack};

}  // namespace qorus::kernels
