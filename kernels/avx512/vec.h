// The AVX-512 vector: 16 f32, and what the kernels under simd/ need of it. The AVX2 twin has the same names. Everything
// is in an anonymous namespace and forced inline: nothing compiled with -mavx512* may be visible to the linker.
#pragma once
#include <immintrin.h>

#include <cstddef>
#include <cstdint>

#define QORUS_INLINE [[gnu::always_inline]] inline

namespace qorus::kernels {
namespace {

constexpr std::size_t k_lanes = 16;

struct F32 {
  __m512 v;
};
struct I32 {
  __m512i v;
};
struct Mask {
  __mmask16 v;
};
struct All {};  // every lane takes part
struct Some {
  __mmask16 v;
};  // the first few do: the others load 0 and are not stored

QORUS_INLINE Some first_lanes(std::size_t count) { return {__mmask16((1u << count) - 1)}; }

// --- f32 ---
QORUS_INLINE F32 set(float x) { return {_mm512_set1_ps(x)}; }
QORUS_INLINE F32 load(const float* p) { return {_mm512_loadu_ps(p)}; }
QORUS_INLINE F32 load(const float* p, All) { return load(p); }
QORUS_INLINE F32 load(const float* p, Some s) { return {_mm512_maskz_loadu_ps(s.v, p)}; }
QORUS_INLINE void store(float* p, F32 x) { _mm512_storeu_ps(p, x.v); }
QORUS_INLINE void store(float* p, F32 x, All) { store(p, x); }
QORUS_INLINE void store(float* p, F32 x, Some s) { _mm512_mask_storeu_ps(p, s.v, x.v); }
QORUS_INLINE void stream(float* p, F32 x) { _mm512_stream_ps(p, x.v); }  // p 64-byte aligned; past the caches
QORUS_INLINE F32 operator+(F32 a, F32 b) { return {_mm512_add_ps(a.v, b.v)}; }
QORUS_INLINE F32 operator-(F32 a, F32 b) { return {_mm512_sub_ps(a.v, b.v)}; }
QORUS_INLINE F32 operator*(F32 a, F32 b) { return {_mm512_mul_ps(a.v, b.v)}; }
QORUS_INLINE F32 operator/(F32 a, F32 b) { return {_mm512_div_ps(a.v, b.v)}; }
QORUS_INLINE F32 fma(F32 a, F32 b, F32 c) { return {_mm512_fmadd_ps(a.v, b.v, c.v)}; }    // a b + c
QORUS_INLINE F32 fms(F32 a, F32 b, F32 c) { return {_mm512_fmsub_ps(a.v, b.v, c.v)}; }    // a b - c
QORUS_INLINE F32 fnma(F32 a, F32 b, F32 c) { return {_mm512_fnmadd_ps(a.v, b.v, c.v)}; }  // c - a b
QORUS_INLINE F32 max(F32 a, F32 b) { return {_mm512_max_ps(a.v, b.v)}; }                  // b if either is NaN
QORUS_INLINE F32 min(F32 a, F32 b) { return {_mm512_min_ps(a.v, b.v)}; }                  // b if either is NaN
QORUS_INLINE F32 sqrt(F32 x) { return {_mm512_sqrt_ps(x.v)}; }
QORUS_INLINE F32 abs(F32 x) { return {_mm512_abs_ps(x.v)}; }
QORUS_INLINE F32 operator-(F32 x) { return {_mm512_xor_ps(x.v, _mm512_set1_ps(-0.0f))}; }
QORUS_INLINE F32 copy_sign(F32 size, F32 sign) {  // bit select: sign bit of the second, the rest of the first
  return {_mm512_castsi512_ps(_mm512_ternarylogic_epi32(_mm512_castps_si512(size.v), _mm512_castps_si512(sign.v),
                                                        _mm512_set1_epi32(int(0x80000000u)), 0xD8))};
}
QORUS_INLINE F32 round(F32 x) { return {_mm512_roundscale_ps(x.v, 8)}; }  // half to even
QORUS_INLINE F32 floor(F32 x) { return {_mm512_roundscale_ps(x.v, 9)}; }
QORUS_INLINE F32 ceil(F32 x) { return {_mm512_roundscale_ps(x.v, 10)}; }
QORUS_INLINE F32 scale2(F32 x, F32 n) {
  return {_mm512_scalef_ps(x.v, n.v)};
}  // x 2^n, n whole in [-252, 254], rounded once
QORUS_INLINE float sum(F32 x) { return _mm512_reduce_add_ps(x.v); }
QORUS_INLINE float largest(F32 x) { return _mm512_reduce_max_ps(x.v); }   // no NaN in x
QORUS_INLINE float smallest(F32 x) { return _mm512_reduce_min_ps(x.v); }  // no NaN in x
QORUS_INLINE float first(F32 x) { return _mm512_cvtss_f32(x.v); }

// --- comparisons: false where either is NaN ---
QORUS_INLINE Mask operator==(F32 a, F32 b) { return {_mm512_cmp_ps_mask(a.v, b.v, _CMP_EQ_OQ)}; }
QORUS_INLINE Mask operator<(F32 a, F32 b) { return {_mm512_cmp_ps_mask(a.v, b.v, _CMP_LT_OQ)}; }
QORUS_INLINE Mask operator<=(F32 a, F32 b) { return {_mm512_cmp_ps_mask(a.v, b.v, _CMP_LE_OQ)}; }
QORUS_INLINE Mask operator>(F32 a, F32 b) { return b < a; }
QORUS_INLINE Mask is_nan(F32 x) { return {_mm512_cmp_ps_mask(x.v, x.v, _CMP_UNORD_Q)}; }
QORUS_INLINE Mask signed_bit(F32 x) { return {_mm512_movepi32_mask(_mm512_castps_si512(x.v))}; }
QORUS_INLINE Mask operator&(Mask a, Mask b) { return {__mmask16(a.v & b.v)}; }
QORUS_INLINE Mask operator|(Mask a, Mask b) { return {__mmask16(a.v | b.v)}; }
QORUS_INLINE Mask operator!(Mask a) { return {__mmask16(~a.v)}; }
QORUS_INLINE Mask no_lane() { return {0}; }
QORUS_INLINE bool any(Mask m) { return m.v != 0; }
QORUS_INLINE unsigned lane_bits(Mask m) { return m.v; }
QORUS_INLINE Mask among(Mask m, All) { return m; }
QORUS_INLINE Mask among(Mask m, Some s) { return {__mmask16(m.v & s.v)}; }
QORUS_INLINE F32 select(Mask m, F32 yes, F32 no) { return {_mm512_mask_blend_ps(m.v, no.v, yes.v)}; }
QORUS_INLINE I32 select(Mask m, I32 yes, I32 no) { return {_mm512_mask_blend_epi32(m.v, no.v, yes.v)}; }
QORUS_INLINE F32 where(F32 x, Mask m) { return {_mm512_maskz_mov_ps(m.v, x.v)}; }  // 0 elsewhere
QORUS_INLINE F32 pad(F32 x, F32, All) { return x; }
QORUS_INLINE F32 pad(F32 x, F32 fill, Some s) {
  return {_mm512_mask_mov_ps(fill.v, s.v, x.v)};
}  // fill in lanes without part

// --- i32 ---
QORUS_INLINE I32 set(std::int32_t x) { return {_mm512_set1_epi32(x)}; }
QORUS_INLINE I32 operator+(I32 a, I32 b) { return {_mm512_add_epi32(a.v, b.v)}; }
QORUS_INLINE I32 operator-(I32 a, I32 b) { return {_mm512_sub_epi32(a.v, b.v)}; }
QORUS_INLINE I32 operator&(I32 a, I32 b) { return {_mm512_and_si512(a.v, b.v)}; }
QORUS_INLINE I32 operator^(I32 a, I32 b) { return {_mm512_xor_si512(a.v, b.v)}; }
QORUS_INLINE I32 max(I32 a, I32 b) { return {_mm512_max_epi32(a.v, b.v)}; }
QORUS_INLINE I32 lane_numbers() { return {_mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15)}; }
template <int k>
QORUS_INLINE I32 shift_right(I32 x) {
  return {_mm512_srli_epi32(x.v, k)};
}
template <int k>
QORUS_INLINE I32 shift_right_signed(I32 x) {
  return {_mm512_srai_epi32(x.v, k)};
}
QORUS_INLINE I32 bits(F32 x) { return {_mm512_castps_si512(x.v)}; }
QORUS_INLINE F32 from_bits(I32 x) { return {_mm512_castsi512_ps(x.v)}; }
QORUS_INLINE F32 to_float(I32 x) { return {_mm512_cvtepi32_ps(x.v)}; }
QORUS_INLINE void store(std::int32_t* p, I32 x, All) { _mm512_storeu_si512(p, x.v); }
QORUS_INLINE void store(std::int32_t* p, I32 x, Some s) { _mm512_mask_storeu_epi32(p, s.v, x.v); }
QORUS_INLINE I32 load(const std::int32_t* p) { return {_mm512_loadu_si512(p)}; }
QORUS_INLINE Mask less_unsigned(I32 a, I32 b) { return {_mm512_cmplt_epu32_mask(a.v, b.v)}; }
// The upper and lower halves of the 64-bit product of each unsigned lane with a constant.
QORUS_INLINE void multiply_wide(I32 x, std::uint32_t k, I32& high, I32& low) {
  const __m512i factor = _mm512_set1_epi64(k);
  const __m512i even = _mm512_mul_epu32(x.v, factor), odd = _mm512_mul_epu32(_mm512_srli_epi64(x.v, 32), factor);
  low.v = _mm512_mask_mov_epi32(even, 0xAAAA, _mm512_slli_epi64(odd, 32));
  high.v = _mm512_mask_mov_epi32(_mm512_srli_epi64(even, 32), 0xAAAA, odd);
}
// Writes p[4 i + j] = w[j][i]: four vectors of words to one array of quads.
QORUS_INLINE void store_interleaved(std::uint32_t* p, I32 w0, I32 w1, I32 w2, I32 w3) {
  const __m512i a = _mm512_unpacklo_epi32(w0.v, w1.v), b = _mm512_unpackhi_epi32(w0.v, w1.v);
  const __m512i c = _mm512_unpacklo_epi32(w2.v, w3.v), d = _mm512_unpackhi_epi32(w2.v, w3.v);
  const __m512i q[4] = {_mm512_unpacklo_epi64(a, c), _mm512_unpackhi_epi64(a, c), _mm512_unpacklo_epi64(b, d),
                        _mm512_unpackhi_epi64(b, d)};  // q[j], 128-bit piece k: quad 4 k + j
  const __m512i e = _mm512_shuffle_i32x4(q[0], q[1], 0x44), f = _mm512_shuffle_i32x4(q[2], q[3], 0x44);
  const __m512i g = _mm512_shuffle_i32x4(q[0], q[1], 0xEE), h = _mm512_shuffle_i32x4(q[2], q[3], 0xEE);
  _mm512_storeu_si512(p, _mm512_shuffle_i32x4(e, f, 0x88));
  _mm512_storeu_si512(p + 16, _mm512_shuffle_i32x4(e, f, 0xDD));
  _mm512_storeu_si512(p + 32, _mm512_shuffle_i32x4(g, h, 0x88));
  _mm512_storeu_si512(p + 48, _mm512_shuffle_i32x4(g, h, 0xDD));
}

// --- narrow formats ---
QORUS_INLINE void store_truth(std::uint8_t* p, Mask m, All) {  // bytes 1 and 0
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm_maskz_set1_epi8(m.v, 1));
}
QORUS_INLINE void store_truth(std::uint8_t* p, Mask m, Some s) {
  _mm_mask_storeu_epi8(p, s.v, _mm_maskz_set1_epi8(m.v, 1));
}
QORUS_INLINE __m128i load_bytes(const std::uint8_t* p, All) {
  return _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
}
QORUS_INLINE __m128i load_bytes(const std::uint8_t* p, Some s) { return _mm_maskz_loadu_epi8(s.v, p); }
template <class Part>
QORUS_INLINE Mask load_truth(const std::uint8_t* p, Part part) {
  const __m128i x = load_bytes(p, part);
  return {_mm_test_epi8_mask(x, x)};
}
template <class Part>
QORUS_INLINE F32 load_u8(const std::uint8_t* p, Part part) {
  return {_mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(load_bytes(p, part)))};
}
QORUS_INLINE __m256i load_words(const std::uint16_t* p, All) {
  return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
}
QORUS_INLINE __m256i load_words(const std::uint16_t* p, Some s) { return _mm256_maskz_loadu_epi16(s.v, p); }
QORUS_INLINE void store_words(std::uint16_t* p, __m256i x, All) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), x);
}
QORUS_INLINE void store_words(std::uint16_t* p, __m256i x, Some s) { _mm256_mask_storeu_epi16(p, s.v, x); }
template <class Part>
QORUS_INLINE F32 load_f16(const std::uint16_t* p, Part part) {
  return {_mm512_cvtph_ps(load_words(p, part))};
}
QORUS_INLINE F32 from_f16(I32 x) { return {_mm512_cvtph_ps(_mm512_cvtepi32_epi16(x.v))}; }  // each lane below 2^16
template <class Part>
QORUS_INLINE void store_f16(std::uint16_t* p, F32 x, Part part) {
  store_words(p, _mm512_cvtps_ph(x.v, _MM_FROUND_TO_NEAREST_INT), part);
}
template <class Part>
QORUS_INLINE I32 load_u16(const std::uint16_t* p, Part part) {
  return {_mm512_cvtepu16_epi32(load_words(p, part))};
}
template <class Part>
QORUS_INLINE void store_u16(std::uint16_t* p, I32 x, Part part) {  // each lane below 2^16
  store_words(p, _mm512_cvtepi32_epi16(x.v), part);
}
template <int k>
QORUS_INLINE I32 shift_left(I32 x) {
  return {_mm512_slli_epi32(x.v, k)};
}

// Whole numbers of a byte each, unsigned or signed; and one f16.
QORUS_INLINE I32 load_u8_i32(const std::uint8_t* p) {
  return {_mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)))};
}
QORUS_INLINE I32 load_i8_i32(const std::uint8_t* p) {
  return {_mm512_cvtepi8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)))};
}
QORUS_INLINE float half(std::uint16_t bits) { return _cvtsh_ss(bits); }

// --- f64: half as many lanes, for what needs more than 24 bits on the way ---
struct F64 {
  __m512d v;
};
QORUS_INLINE F64 set(double x) { return {_mm512_set1_pd(x)}; }
QORUS_INLINE F64 low_half(F32 x) { return {_mm512_cvtps_pd(_mm512_castps512_ps256(x.v))}; }
QORUS_INLINE F64 high_half(F32 x) { return {_mm512_cvtps_pd(_mm512_extractf32x8_ps(x.v, 1))}; }
QORUS_INLINE F32 narrow(F64 low, F64 high) {
  return {_mm512_insertf32x8(_mm512_castps256_ps512(_mm512_cvtpd_ps(low.v)), _mm512_cvtpd_ps(high.v), 1)};
}
QORUS_INLINE F64 operator+(F64 a, F64 b) { return {_mm512_add_pd(a.v, b.v)}; }
QORUS_INLINE F64 operator-(F64 a, F64 b) { return {_mm512_sub_pd(a.v, b.v)}; }
QORUS_INLINE F64 operator*(F64 a, F64 b) { return {_mm512_mul_pd(a.v, b.v)}; }
QORUS_INLINE F64 operator/(F64 a, F64 b) { return {_mm512_div_pd(a.v, b.v)}; }
QORUS_INLINE F64 fma(F64 a, F64 b, F64 c) { return {_mm512_fmadd_pd(a.v, b.v, c.v)}; }
QORUS_INLINE F64 fnma(F64 a, F64 b, F64 c) { return {_mm512_fnmadd_pd(a.v, b.v, c.v)}; }
QORUS_INLINE F64 max(F64 a, F64 b) { return {_mm512_max_pd(a.v, b.v)}; }
QORUS_INLINE F64 min(F64 a, F64 b) { return {_mm512_min_pd(a.v, b.v)}; }
QORUS_INLINE F64 round(F64 x) { return {_mm512_roundscale_pd(x.v, 8)}; }
QORUS_INLINE double sum(F64 x) { return _mm512_reduce_add_pd(x.v); }
// The 64 bits as integers, and back.
struct I64 {
  __m512i v;
};
QORUS_INLINE I64 set64(std::int64_t x) { return {_mm512_set1_epi64(x)}; }
QORUS_INLINE I64 bits(F64 x) { return {_mm512_castpd_si512(x.v)}; }
QORUS_INLINE F64 from_bits(I64 x) { return {_mm512_castsi512_pd(x.v)}; }
QORUS_INLINE I64 operator+(I64 a, I64 b) { return {_mm512_add_epi64(a.v, b.v)}; }
QORUS_INLINE I64 operator-(I64 a, I64 b) { return {_mm512_sub_epi64(a.v, b.v)}; }
QORUS_INLINE I64 operator&(I64 a, I64 b) { return {_mm512_and_si512(a.v, b.v)}; }
QORUS_INLINE I64 operator|(I64 a, I64 b) { return {_mm512_or_si512(a.v, b.v)}; }
QORUS_INLINE I64 operator^(I64 a, I64 b) { return {_mm512_xor_si512(a.v, b.v)}; }
template <int k>
QORUS_INLINE I64 shift_left(I64 x) {
  return {_mm512_slli_epi64(x.v, k)};
}
template <int k>
QORUS_INLINE I64 shift_right(I64 x) {
  return {_mm512_srli_epi64(x.v, k)};
}
QORUS_INLINE F64 select_signed(I64 m, F64 yes, F64 no) {  // yes where the top bit of m is set
  return {_mm512_mask_blend_pd(_mm512_movepi64_mask(m.v), no.v, yes.v)};
}

// --- every second lane of two vectors, and the reverse ---
QORUS_INLINE F32 even(F32 a, F32 b) {  // a0 a2 … b0 b2 …
  const __m512i at = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
  return {_mm512_permutex2var_ps(a.v, at, b.v)};
}
QORUS_INLINE F32 odd(F32 a, F32 b) {
  const __m512i at = _mm512_setr_epi32(1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31);
  return {_mm512_permutex2var_ps(a.v, at, b.v)};
}
QORUS_INLINE void interleave(F32 even, F32 odd, F32& a, F32& b) {  // a: even0 odd0 even1 …, b: the rest
  const __m512i low = _mm512_setr_epi32(0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
  const __m512i high = _mm512_setr_epi32(8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31);
  a.v = _mm512_permutex2var_ps(even.v, low, odd.v);
  b.v = _mm512_permutex2var_ps(even.v, high, odd.v);
}
QORUS_INLINE F32 load_halves(const float* low, const float* high) {
  return {_mm512_insertf32x8(_mm512_castps256_ps512(_mm256_loadu_ps(low)), _mm256_loadu_ps(high), 1)};
}
QORUS_INLINE F32 upper_half(F32 x) { return {_mm512_shuffle_f32x4(x.v, x.v, 0xEE)}; }  // in the lower lanes

// --- a square of lanes: r[i] lane j becomes r[j] lane i ---
QORUS_INLINE void transpose_square(F32 (&r)[16]) {
  __m512 t[16], u[16];
#pragma unroll
  for (int i = 0; i < 16; i += 2) {
    t[i] = _mm512_unpacklo_ps(r[i].v, r[i + 1].v);
    t[i + 1] = _mm512_unpackhi_ps(r[i].v, r[i + 1].v);
  }
  const auto pair = [](__m512 x) { return _mm512_castps_pd(x); };
#pragma unroll
  for (int i = 0; i < 16; i += 4) {  // u[i + j], 128-bit piece k: column 4 k + j of rows i to i + 3
    u[i] = _mm512_castpd_ps(_mm512_unpacklo_pd(pair(t[i]), pair(t[i + 2])));
    u[i + 1] = _mm512_castpd_ps(_mm512_unpackhi_pd(pair(t[i]), pair(t[i + 2])));
    u[i + 2] = _mm512_castpd_ps(_mm512_unpacklo_pd(pair(t[i + 1]), pair(t[i + 3])));
    u[i + 3] = _mm512_castpd_ps(_mm512_unpackhi_pd(pair(t[i + 1]), pair(t[i + 3])));
  }
#pragma unroll
  for (int j = 0; j < 4; ++j) {
    const __m512 a = _mm512_shuffle_f32x4(u[j], u[4 + j], 0x88), b = _mm512_shuffle_f32x4(u[8 + j], u[12 + j], 0x88);
    const __m512 c = _mm512_shuffle_f32x4(u[j], u[4 + j], 0xDD), d = _mm512_shuffle_f32x4(u[8 + j], u[12 + j], 0xDD);
    r[j].v = _mm512_shuffle_f32x4(a, b, 0x88);
    r[8 + j].v = _mm512_shuffle_f32x4(a, b, 0xDD);
    r[4 + j].v = _mm512_shuffle_f32x4(c, d, 0x88);
    r[12 + j].v = _mm512_shuffle_f32x4(c, d, 0xDD);
  }
}

}  // namespace
}  // namespace qorus::kernels
