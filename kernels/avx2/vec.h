// The AVX2 vector (with FMA and F16C): 8 f32, and what the kernels under simd/ need of it. The AVX-512 twin has the
// same names. Everything is in an anonymous namespace and forced inline: nothing compiled with -mavx2 may be visible to
// the linker.
#pragma once
#include <immintrin.h>

#include <cstddef>
#include <cstdint>

#define QORUS_INLINE [[gnu::always_inline]] inline

namespace qorus::kernels {
namespace {

constexpr std::size_t k_lanes = 8;

struct F32 {
  __m256 v;
};
struct I32 {
  __m256i v;
};
struct Mask {
  __m256 v;
};  // all bits of a lane, or none
struct All {};  // every lane takes part
struct Some {   // the first few do: the others load 0 and are not stored
  __m256i v;
  std::size_t count;
};

QORUS_INLINE Some first_lanes(std::size_t count) {
  const __m256i number = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
  return {_mm256_cmpgt_epi32(_mm256_set1_epi32(int(count)), number), count};
}

// --- f32 ---
QORUS_INLINE F32 set(float x) { return {_mm256_set1_ps(x)}; }
QORUS_INLINE F32 load(const float* p) { return {_mm256_loadu_ps(p)}; }
QORUS_INLINE F32 load(const float* p, All) { return load(p); }
QORUS_INLINE F32 load(const float* p, Some s) { return {_mm256_maskload_ps(p, s.v)}; }
QORUS_INLINE void store(float* p, F32 x) { _mm256_storeu_ps(p, x.v); }
QORUS_INLINE void store(float* p, F32 x, All) { store(p, x); }
// By pieces of 4, 2 and 1: a masked store takes eleven cycles on AMD's processors, whatever its mask.
QORUS_INLINE void store(float* p, F32 x, Some s) {
  if (s.count >= 8) return store(p, x);
  __m128 rest = _mm256_castps256_ps128(x.v);
  if (s.count & 4) {
    _mm_storeu_ps(p, rest);
    rest = _mm256_extractf128_ps(x.v, 1);
    p += 4;
  }
  if (s.count & 2) {
    _mm_storel_pi(reinterpret_cast<__m64*>(p), rest);
    rest = _mm_movehl_ps(rest, rest);
    p += 2;
  }
  if (s.count & 1) _mm_store_ss(p, rest);
}
QORUS_INLINE void stream(float* p, F32 x) { _mm256_stream_ps(p, x.v); }  // p 32-byte aligned; past the caches
QORUS_INLINE F32 operator+(F32 a, F32 b) { return {_mm256_add_ps(a.v, b.v)}; }
QORUS_INLINE F32 operator-(F32 a, F32 b) { return {_mm256_sub_ps(a.v, b.v)}; }
QORUS_INLINE F32 operator*(F32 a, F32 b) { return {_mm256_mul_ps(a.v, b.v)}; }
QORUS_INLINE F32 operator/(F32 a, F32 b) { return {_mm256_div_ps(a.v, b.v)}; }
QORUS_INLINE F32 fma(F32 a, F32 b, F32 c) { return {_mm256_fmadd_ps(a.v, b.v, c.v)}; }    // a b + c
QORUS_INLINE F32 fms(F32 a, F32 b, F32 c) { return {_mm256_fmsub_ps(a.v, b.v, c.v)}; }    // a b - c
QORUS_INLINE F32 fnma(F32 a, F32 b, F32 c) { return {_mm256_fnmadd_ps(a.v, b.v, c.v)}; }  // c - a b
QORUS_INLINE F32 max(F32 a, F32 b) { return {_mm256_max_ps(a.v, b.v)}; }                  // b if either is NaN
QORUS_INLINE F32 min(F32 a, F32 b) { return {_mm256_min_ps(a.v, b.v)}; }                  // b if either is NaN
QORUS_INLINE F32 sqrt(F32 x) { return {_mm256_sqrt_ps(x.v)}; }
QORUS_INLINE F32 abs(F32 x) { return {_mm256_andnot_ps(_mm256_set1_ps(-0.0f), x.v)}; }
QORUS_INLINE F32 operator-(F32 x) { return {_mm256_xor_ps(x.v, _mm256_set1_ps(-0.0f))}; }
QORUS_INLINE F32 copy_sign(F32 size, F32 sign) {  // sign bit of the second, the rest of the first
  return {_mm256_or_ps(abs(size).v, _mm256_and_ps(sign.v, _mm256_set1_ps(-0.0f)))};
}
QORUS_INLINE F32 round(F32 x) { return {_mm256_round_ps(x.v, 8)}; }  // half to even
QORUS_INLINE F32 floor(F32 x) { return {_mm256_round_ps(x.v, 9)}; }
QORUS_INLINE F32 ceil(F32 x) { return {_mm256_round_ps(x.v, 10)}; }
QORUS_INLINE F32 scale2(F32 x, F32 n) {  // x 2^n, n whole in [-252, 254]; in two steps, each a power that f32 has
  const __m256i whole = _mm256_cvtps_epi32(n.v), half = _mm256_srai_epi32(whole, 1), bias = _mm256_set1_epi32(127);
  const __m256i one = _mm256_slli_epi32(_mm256_add_epi32(half, bias), 23);
  const __m256i two = _mm256_slli_epi32(_mm256_add_epi32(_mm256_sub_epi32(whole, half), bias), 23);
  return {_mm256_mul_ps(_mm256_mul_ps(x.v, _mm256_castsi256_ps(one)), _mm256_castsi256_ps(two))};
}
template <class Op>
QORUS_INLINE float across(F32 x, Op op) {
  __m128 y = op(_mm256_castps256_ps128(x.v), _mm256_extractf128_ps(x.v, 1));
  y = op(y, _mm_movehl_ps(y, y));
  return _mm_cvtss_f32(op(y, _mm_movehdup_ps(y)));
}
QORUS_INLINE float sum(F32 x) {
  return across(x, [](__m128 a, __m128 b) { return _mm_add_ps(a, b); });
}
QORUS_INLINE float largest(F32 x) {
  return across(x, [](__m128 a, __m128 b) { return _mm_max_ps(a, b); });
}  // no NaN
QORUS_INLINE float smallest(F32 x) {
  return across(x, [](__m128 a, __m128 b) { return _mm_min_ps(a, b); });
}  // no NaN
QORUS_INLINE float first(F32 x) { return _mm256_cvtss_f32(x.v); }

// --- comparisons: false where either is NaN ---
QORUS_INLINE Mask operator==(F32 a, F32 b) { return {_mm256_cmp_ps(a.v, b.v, _CMP_EQ_OQ)}; }
QORUS_INLINE Mask operator<(F32 a, F32 b) { return {_mm256_cmp_ps(a.v, b.v, _CMP_LT_OQ)}; }
QORUS_INLINE Mask operator<=(F32 a, F32 b) { return {_mm256_cmp_ps(a.v, b.v, _CMP_LE_OQ)}; }
QORUS_INLINE Mask operator>(F32 a, F32 b) { return b < a; }
QORUS_INLINE Mask is_nan(F32 x) { return {_mm256_cmp_ps(x.v, x.v, _CMP_UNORD_Q)}; }
QORUS_INLINE Mask signed_bit(F32 x) { return {_mm256_castsi256_ps(_mm256_srai_epi32(_mm256_castps_si256(x.v), 31))}; }
QORUS_INLINE Mask operator&(Mask a, Mask b) { return {_mm256_and_ps(a.v, b.v)}; }
QORUS_INLINE Mask operator|(Mask a, Mask b) { return {_mm256_or_ps(a.v, b.v)}; }
QORUS_INLINE Mask operator!(Mask a) { return {_mm256_xor_ps(a.v, _mm256_castsi256_ps(_mm256_set1_epi32(-1)))}; }
QORUS_INLINE Mask no_lane() { return {_mm256_setzero_ps()}; }
QORUS_INLINE bool any(Mask m) { return _mm256_movemask_ps(m.v) != 0; }
QORUS_INLINE unsigned lane_bits(Mask m) { return unsigned(_mm256_movemask_ps(m.v)); }
QORUS_INLINE Mask among(Mask m, All) { return m; }
QORUS_INLINE Mask among(Mask m, Some s) { return {_mm256_and_ps(m.v, _mm256_castsi256_ps(s.v))}; }
QORUS_INLINE F32 select(Mask m, F32 yes, F32 no) { return {_mm256_blendv_ps(no.v, yes.v, m.v)}; }
QORUS_INLINE I32 select(Mask m, I32 yes, I32 no) { return {_mm256_blendv_epi8(no.v, yes.v, _mm256_castps_si256(m.v))}; }
QORUS_INLINE F32 where(F32 x, Mask m) { return {_mm256_and_ps(x.v, m.v)}; }  // 0 elsewhere
QORUS_INLINE F32 pad(F32 x, F32, All) { return x; }
QORUS_INLINE F32 pad(F32 x, F32 fill, Some s) {  // fill in lanes without part
  return {_mm256_blendv_ps(fill.v, x.v, _mm256_castsi256_ps(s.v))};
}

// --- i32 ---
QORUS_INLINE I32 set(std::int32_t x) { return {_mm256_set1_epi32(x)}; }
QORUS_INLINE I32 operator+(I32 a, I32 b) { return {_mm256_add_epi32(a.v, b.v)}; }
QORUS_INLINE I32 operator-(I32 a, I32 b) { return {_mm256_sub_epi32(a.v, b.v)}; }
QORUS_INLINE I32 operator&(I32 a, I32 b) { return {_mm256_and_si256(a.v, b.v)}; }
QORUS_INLINE I32 operator^(I32 a, I32 b) { return {_mm256_xor_si256(a.v, b.v)}; }
QORUS_INLINE I32 max(I32 a, I32 b) { return {_mm256_max_epi32(a.v, b.v)}; }
QORUS_INLINE I32 lane_numbers() { return {_mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7)}; }
template <int k>
QORUS_INLINE I32 shift_left(I32 x) {
  return {_mm256_slli_epi32(x.v, k)};
}
template <int k>
QORUS_INLINE I32 shift_right(I32 x) {
  return {_mm256_srli_epi32(x.v, k)};
}
template <int k>
QORUS_INLINE I32 shift_right_signed(I32 x) {
  return {_mm256_srai_epi32(x.v, k)};
}
QORUS_INLINE I32 bits(F32 x) { return {_mm256_castps_si256(x.v)}; }
QORUS_INLINE F32 from_bits(I32 x) { return {_mm256_castsi256_ps(x.v)}; }
QORUS_INLINE F32 to_float(I32 x) { return {_mm256_cvtepi32_ps(x.v)}; }
QORUS_INLINE void store(std::int32_t* p, I32 x, All) { _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), x.v); }
QORUS_INLINE void store(std::int32_t* p, I32 x, Some s) {
  store(reinterpret_cast<float*>(p), F32{_mm256_castsi256_ps(x.v)}, s);
}
QORUS_INLINE I32 load(const std::int32_t* p) { return {_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p))}; }
QORUS_INLINE Mask less_unsigned(I32 a, I32 b) {  // signed comparison of both shifted by half the range
  const __m256i half = _mm256_set1_epi32(int(0x80000000u));
  return {_mm256_castsi256_ps(_mm256_cmpgt_epi32(_mm256_xor_si256(b.v, half), _mm256_xor_si256(a.v, half)))};
}
// The upper and lower halves of the 64-bit product of each unsigned lane with a constant.
QORUS_INLINE void multiply_wide(I32 x, std::uint32_t k, I32& high, I32& low) {
  const __m256i factor = _mm256_set1_epi64x(k);
  const __m256i even = _mm256_mul_epu32(x.v, factor), odd = _mm256_mul_epu32(_mm256_srli_epi64(x.v, 32), factor);
  low.v = _mm256_blend_epi32(even, _mm256_slli_epi64(odd, 32), 0xAA);
  high.v = _mm256_blend_epi32(_mm256_srli_epi64(even, 32), odd, 0xAA);
}
// Writes p[4 i + j] = w[j][i]: four vectors of words to one array of quads.
QORUS_INLINE void store_interleaved(std::uint32_t* p, I32 w0, I32 w1, I32 w2, I32 w3) {
  const __m256i a = _mm256_unpacklo_epi32(w0.v, w1.v), b = _mm256_unpackhi_epi32(w0.v, w1.v);
  const __m256i c = _mm256_unpacklo_epi32(w2.v, w3.v), d = _mm256_unpackhi_epi32(w2.v, w3.v);
  const __m256i q[4] = {_mm256_unpacklo_epi64(a, c), _mm256_unpackhi_epi64(a, c), _mm256_unpacklo_epi64(b, d),
                        _mm256_unpackhi_epi64(b, d)};  // q[j], 128-bit piece k: quad 4 k + j
  const auto put = [p](int i, __m256i x) { _mm256_storeu_si256(reinterpret_cast<__m256i*>(p) + i, x); };
  put(0, _mm256_permute2x128_si256(q[0], q[1], 0x20));
  put(1, _mm256_permute2x128_si256(q[2], q[3], 0x20));
  put(2, _mm256_permute2x128_si256(q[0], q[1], 0x31));
  put(3, _mm256_permute2x128_si256(q[2], q[3], 0x31));
}

// --- narrow formats: a part of a vector goes by way of a small array ---
QORUS_INLINE __m128i load_bytes(const std::uint8_t* p, All) {
  return _mm_loadl_epi64(reinterpret_cast<const __m128i*>(p));
}
QORUS_INLINE __m128i load_bytes(const std::uint8_t* p, Some s) {
  alignas(16) std::uint8_t copy[16] = {};
  for (std::size_t i = 0; i < s.count; ++i) copy[i] = p[i];
  return _mm_load_si128(reinterpret_cast<const __m128i*>(copy));
}
QORUS_INLINE __m128i load_words(const std::uint16_t* p, All) {
  return _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
}
QORUS_INLINE __m128i load_words(const std::uint16_t* p, Some s) {
  alignas(16) std::uint16_t copy[8] = {};
  for (std::size_t i = 0; i < s.count; ++i) copy[i] = p[i];
  return _mm_load_si128(reinterpret_cast<const __m128i*>(copy));
}
QORUS_INLINE void store_words(std::uint16_t* p, __m128i x, All) { _mm_storeu_si128(reinterpret_cast<__m128i*>(p), x); }
QORUS_INLINE void store_words(std::uint16_t* p, __m128i x, Some s) {
  alignas(16) std::uint16_t copy[8];
  _mm_store_si128(reinterpret_cast<__m128i*>(copy), x);
  for (std::size_t i = 0; i < s.count; ++i) p[i] = copy[i];
}
QORUS_INLINE __m128i low_words(__m256i x) {  // the low half of each lane, which is below 2^16
  return _mm_packus_epi32(_mm256_castsi256_si128(x), _mm256_extracti128_si256(x, 1));
}
QORUS_INLINE __m128i truth_bytes(Mask m) {
  const __m128i words = low_words(_mm256_and_si256(_mm256_castps_si256(m.v), _mm256_set1_epi32(1)));
  return _mm_packus_epi16(words, words);
}
QORUS_INLINE void store_truth(std::uint8_t* p, Mask m, All) {  // bytes 1 and 0
  _mm_storel_epi64(reinterpret_cast<__m128i*>(p), truth_bytes(m));
}
QORUS_INLINE void store_truth(std::uint8_t* p, Mask m, Some s) {
  alignas(16) std::uint8_t copy[16];
  _mm_store_si128(reinterpret_cast<__m128i*>(copy), truth_bytes(m));
  for (std::size_t i = 0; i < s.count; ++i) p[i] = copy[i];
}
template <class Part>
QORUS_INLINE Mask load_truth(const std::uint8_t* p, Part part) {
  const __m256i x = _mm256_cvtepu8_epi32(load_bytes(p, part));
  return {_mm256_castsi256_ps(_mm256_cmpgt_epi32(x, _mm256_setzero_si256()))};
}
template <class Part>
QORUS_INLINE F32 load_u8(const std::uint8_t* p, Part part) {
  return {_mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(load_bytes(p, part)))};
}
template <class Part>
QORUS_INLINE F32 load_f16(const std::uint16_t* p, Part part) {
  return {_mm256_cvtph_ps(load_words(p, part))};
}
QORUS_INLINE F32 from_f16(I32 x) { return {_mm256_cvtph_ps(low_words(x.v))}; }  // each lane below 2^16
template <class Part>
QORUS_INLINE void store_f16(std::uint16_t* p, F32 x, Part part) {
  store_words(p, _mm256_cvtps_ph(x.v, _MM_FROUND_TO_NEAREST_INT), part);
}
template <class Part>
QORUS_INLINE I32 load_u16(const std::uint16_t* p, Part part) {
  return {_mm256_cvtepu16_epi32(load_words(p, part))};
}
template <class Part>
QORUS_INLINE void store_u16(std::uint16_t* p, I32 x, Part part) {
  store_words(p, low_words(x.v), part);
}

// Whole numbers of a byte each, unsigned or signed; and one f16.
QORUS_INLINE I32 load_u8_i32(const std::uint8_t* p) {
  return {_mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p)))};
}
QORUS_INLINE I32 load_i8_i32(const std::uint8_t* p) {
  return {_mm256_cvtepi8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p)))};
}
QORUS_INLINE float half(std::uint16_t bits) { return _cvtsh_ss(bits); }

// --- f64: half as many lanes, for what needs more than 24 bits on the way ---
struct F64 {
  __m256d v;
};
QORUS_INLINE F64 set(double x) { return {_mm256_set1_pd(x)}; }
QORUS_INLINE F64 low_half(F32 x) { return {_mm256_cvtps_pd(_mm256_castps256_ps128(x.v))}; }
QORUS_INLINE F64 high_half(F32 x) { return {_mm256_cvtps_pd(_mm256_extractf128_ps(x.v, 1))}; }
QORUS_INLINE F32 narrow(F64 low, F64 high) {
  return {_mm256_insertf128_ps(_mm256_castps128_ps256(_mm256_cvtpd_ps(low.v)), _mm256_cvtpd_ps(high.v), 1)};
}
QORUS_INLINE F64 operator+(F64 a, F64 b) { return {_mm256_add_pd(a.v, b.v)}; }
QORUS_INLINE F64 operator-(F64 a, F64 b) { return {_mm256_sub_pd(a.v, b.v)}; }
QORUS_INLINE F64 operator*(F64 a, F64 b) { return {_mm256_mul_pd(a.v, b.v)}; }
QORUS_INLINE F64 operator/(F64 a, F64 b) { return {_mm256_div_pd(a.v, b.v)}; }
QORUS_INLINE F64 fma(F64 a, F64 b, F64 c) { return {_mm256_fmadd_pd(a.v, b.v, c.v)}; }
QORUS_INLINE F64 fnma(F64 a, F64 b, F64 c) { return {_mm256_fnmadd_pd(a.v, b.v, c.v)}; }
QORUS_INLINE F64 max(F64 a, F64 b) { return {_mm256_max_pd(a.v, b.v)}; }
QORUS_INLINE F64 min(F64 a, F64 b) { return {_mm256_min_pd(a.v, b.v)}; }
QORUS_INLINE F64 round(F64 x) { return {_mm256_round_pd(x.v, 8)}; }
QORUS_INLINE double sum(F64 x) {
  const __m128d y = _mm_add_pd(_mm256_castpd256_pd128(x.v), _mm256_extractf128_pd(x.v, 1));
  return _mm_cvtsd_f64(_mm_add_sd(y, _mm_unpackhi_pd(y, y)));
}
// The 64 bits as integers, and back.
struct I64 {
  __m256i v;
};
QORUS_INLINE I64 set64(std::int64_t x) { return {_mm256_set1_epi64x(x)}; }
QORUS_INLINE I64 bits(F64 x) { return {_mm256_castpd_si256(x.v)}; }
QORUS_INLINE F64 from_bits(I64 x) { return {_mm256_castsi256_pd(x.v)}; }
QORUS_INLINE I64 operator+(I64 a, I64 b) { return {_mm256_add_epi64(a.v, b.v)}; }
QORUS_INLINE I64 operator-(I64 a, I64 b) { return {_mm256_sub_epi64(a.v, b.v)}; }
QORUS_INLINE I64 operator&(I64 a, I64 b) { return {_mm256_and_si256(a.v, b.v)}; }
QORUS_INLINE I64 operator|(I64 a, I64 b) { return {_mm256_or_si256(a.v, b.v)}; }
QORUS_INLINE I64 operator^(I64 a, I64 b) { return {_mm256_xor_si256(a.v, b.v)}; }
template <int k>
QORUS_INLINE I64 shift_left(I64 x) {
  return {_mm256_slli_epi64(x.v, k)};
}
template <int k>
QORUS_INLINE I64 shift_right(I64 x) {
  return {_mm256_srli_epi64(x.v, k)};
}
QORUS_INLINE F64 select_signed(I64 m, F64 yes, F64 no) {  // yes where the top bit of m is set
  return {_mm256_blendv_pd(no.v, yes.v, _mm256_castsi256_pd(m.v))};
}

// --- every second lane of two vectors, and the reverse ---
QORUS_INLINE F32 even(F32 a, F32 b) {  // a0 a2 … b0 b2 …
  const __m256d pairs = _mm256_castps_pd(_mm256_shuffle_ps(a.v, b.v, 0x88));
  return {_mm256_castpd_ps(_mm256_permute4x64_pd(pairs, 0xD8))};
}
QORUS_INLINE F32 odd(F32 a, F32 b) {
  const __m256d pairs = _mm256_castps_pd(_mm256_shuffle_ps(a.v, b.v, 0xDD));
  return {_mm256_castpd_ps(_mm256_permute4x64_pd(pairs, 0xD8))};
}
QORUS_INLINE void interleave(F32 even, F32 odd, F32& a, F32& b) {  // a: even0 odd0 even1 …, b: the rest
  const __m256 low = _mm256_unpacklo_ps(even.v, odd.v), high = _mm256_unpackhi_ps(even.v, odd.v);
  a.v = _mm256_permute2f128_ps(low, high, 0x20);
  b.v = _mm256_permute2f128_ps(low, high, 0x31);
}
QORUS_INLINE F32 load_halves(const float* low, const float* high) {
  return {_mm256_insertf128_ps(_mm256_castps128_ps256(_mm_loadu_ps(low)), _mm_loadu_ps(high), 1)};
}
QORUS_INLINE F32 upper_half(F32 x) { return {_mm256_permute2f128_ps(x.v, x.v, 0x11)}; }  // in the lower lanes

// --- a square of lanes: r[i] lane j becomes r[j] lane i ---
QORUS_INLINE void transpose_square(F32 (&r)[8]) {
  __m256 t[8], u[8];
#pragma unroll
  for (int i = 0; i < 8; i += 2) {
    t[i] = _mm256_unpacklo_ps(r[i].v, r[i + 1].v);
    t[i + 1] = _mm256_unpackhi_ps(r[i].v, r[i + 1].v);
  }
#pragma unroll
  for (int i = 0; i < 8; i += 4) {  // u[i + j], 128-bit piece k: column 4 k + j of rows i to i + 3
    u[i] = _mm256_shuffle_ps(t[i], t[i + 2], 0x44);
    u[i + 1] = _mm256_shuffle_ps(t[i], t[i + 2], 0xEE);
    u[i + 2] = _mm256_shuffle_ps(t[i + 1], t[i + 3], 0x44);
    u[i + 3] = _mm256_shuffle_ps(t[i + 1], t[i + 3], 0xEE);
  }
#pragma unroll
  for (int j = 0; j < 4; ++j) {
    r[j].v = _mm256_permute2f128_ps(u[j], u[4 + j], 0x20);
    r[4 + j].v = _mm256_permute2f128_ps(u[j], u[4 + j], 0x31);
  }
}

}  // namespace
}  // namespace qorus::kernels
