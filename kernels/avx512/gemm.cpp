// The matrix product with AVX-512: the shape of its register tile and the transposing load; the rest is written once
// for all vector types, in simd/gemm_*.h.
#include "kernels/avx512/vec.h"
#include "kernels/parts.h"
#include "kernels/simd/math.h"

namespace qorus::kernels {
namespace {

constexpr int k_tile_rows = 14;   // 14 x 2 accumulators, 2 vectors of B, 1 broadcast of A: 31 of 32 registers
constexpr int k_stream_rows = 8;  // 8 x 1 accumulators beside a 16 x 16 block that is transposed in registers
constexpr std::size_t k_block_k = 384;

// out[t] = x[0..15][t]: a 16 x 16 block of rows `row` apart, transposed. Every load takes four rows' 16 bytes into the
// four quarters of a register, so only the 4 x 4 transposition within the quarters is left to shuffles (32 of them).
QORUS_INLINE void load_transposed(const float* x, std::ptrdiff_t row, F32 (&out)[16]) {
  __m512 q[4][4];  // [row mod 4][column / 4]: quarter g holds row 4 g + (row mod 4)
  for (int r = 0; r < 4; ++r)
    for (int s = 0; s < 4; ++s) {
      const float* p = x + r * row + 4 * s;
      __m512 v = _mm512_castps128_ps512(_mm_loadu_ps(p));
      v = _mm512_mask_broadcast_f32x4(v, 0x00f0, _mm_loadu_ps(p + 4 * row));
      v = _mm512_mask_broadcast_f32x4(v, 0x0f00, _mm_loadu_ps(p + 8 * row));
      q[r][s] = _mm512_mask_broadcast_f32x4(v, 0xf000, _mm_loadu_ps(p + 12 * row));
    }
  for (int s = 0; s < 4; ++s) {
    const __m512d a = _mm512_castps_pd(_mm512_unpacklo_ps(q[0][s], q[1][s]));
    const __m512d b = _mm512_castps_pd(_mm512_unpackhi_ps(q[0][s], q[1][s]));
    const __m512d c = _mm512_castps_pd(_mm512_unpacklo_ps(q[2][s], q[3][s]));
    const __m512d d = _mm512_castps_pd(_mm512_unpackhi_ps(q[2][s], q[3][s]));
    out[4 * s + 0].v = _mm512_castpd_ps(_mm512_unpacklo_pd(a, c));
    out[4 * s + 1].v = _mm512_castpd_ps(_mm512_unpackhi_pd(a, c));
    out[4 * s + 2].v = _mm512_castpd_ps(_mm512_unpacklo_pd(b, d));
    out[4 * s + 3].v = _mm512_castpd_ps(_mm512_unpackhi_pd(b, d));
  }
}

}  // namespace
}  // namespace qorus::kernels

#include "kernels/simd/gemm_tile.h"

#include "kernels/simd/gemm_pack.h"

#include "kernels/simd/gemm_blocks.h"

namespace qorus::kernels {

constinit const GemmPart gemm_avx512 = {plan, task, packed_size, pack};

}  // namespace qorus::kernels
