// AVX2: the kernels of simd/packed.h with this instruction set's vector and its sums of byte products.
#include <cstddef>
#include <cstdint>

#include "kernels/avx2/vec.h"

namespace qorus::kernels {
namespace {

constexpr bool k_wide_differs = true;          // pairs of products with bytes above 128 do not fit 16 bits
constexpr std::size_t k_unpacked_from = 9;     // rows from which on weights are unpacked, where fewer have a tile
constexpr bool k_adds_words = true;            // those with fewer bits do, several of them
constexpr std::size_t k_fetched_ahead = 3072;  // bytes of weights that one row fetches before they are due

QORUS_INLINE I32 load_quads(const std::uint8_t* p) { return {_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p))}; }

// sum + the four products of each lane's unsigned bytes with the four signed ones at p. Wide: the lane's bytes count from -128, and are
// taken for what they stand for.
template <bool Wide>
QORUS_INLINE I32 dot(I32 sum, I32 w, const std::uint8_t* p) {
  std::int32_t quad;
  __builtin_memcpy(&quad, p, 4);
  __m256i x = _mm256_set1_epi32(quad), y = w.v;
  if constexpr (Wide) {
    const __m256i number = _mm256_xor_si256(y, _mm256_set1_epi8(-128));
    x = _mm256_sign_epi8(x, number);
    y = _mm256_abs_epi8(number);
  }
  return {_mm256_add_epi32(sum.v, _mm256_madd_epi16(_mm256_maddubs_epi16(y, x), _mm256_set1_epi16(1)))};
}

// Sums of two such products, 16 bits each, with x the four bytes in every lane; their sums; and sum + those of both, times a factor.
QORUS_INLINE I32 word_products(I32 w, I32 x) { return {_mm256_maddubs_epi16(w.v, x.v)}; }
QORUS_INLINE I32 add_words(I32 a, I32 b) { return {_mm256_add_epi16(a.v, b.v)}; }
QORUS_INLINE I32 add_pairs(I32 sum, I32 words, int factor) {
  return {_mm256_add_epi32(sum.v, _mm256_madd_epi16(words.v, _mm256_set1_epi16(short(factor))))};
}

// There are sixteen registers. Left to itself the compiler sums in an order that takes more, and loads what is not due yet.
QORUS_INLINE void in_order(I32& x) { __asm__("" : "+x"(x.v)); }
QORUS_INLINE void made_before_next(I32& x) { __asm__ volatile("" : "+x"(x.v)); }
QORUS_INLINE void quad_ends() { __asm__ volatile("" ::: "memory"); }

// v[i], lane r: the i-th of four 4-byte pieces of row r, `at` bytes into it. Rows are `row` bytes apart; fours are rows 0, 4, …
QORUS_INLINE void load_pieces(const std::uint8_t* const* fours, std::size_t at, std::size_t row, I32 (&v)[4]) {
  __m256i w[4];
#pragma unroll
  for (std::size_t j = 0; j < 4; ++j) {  // rows j and j + 4
    const auto four = [&](std::size_t i) __attribute__((always_inline)) {
      return _mm_loadu_si128(reinterpret_cast<const __m128i*>(fours[i] + at + j * row));
    };
    w[j] = _mm256_inserti128_si256(_mm256_castsi128_si256(four(0)), four(1), 1);
  }
  const __m256i a = _mm256_unpacklo_epi32(w[0], w[1]), b = _mm256_unpackhi_epi32(w[0], w[1]),
                c = _mm256_unpacklo_epi32(w[2], w[3]), d = _mm256_unpackhi_epi32(w[2], w[3]);
  v[0] = {_mm256_unpacklo_epi64(a, c)};
  v[1] = {_mm256_unpackhi_epi64(a, c)};
  v[2] = {_mm256_unpacklo_epi64(b, d)};
  v[3] = {_mm256_unpackhi_epi64(b, d)};
}

// Products of two signed 16-bit numbers in each lane with those of x, and their sum.
QORUS_INLINE I32 pair_products(I32 w, I32 x) { return {_mm256_madd_epi16(w.v, x.v)}; }

QORUS_INLINE I32 shift_right_by(I32 x, std::size_t bits) {
  return {_mm256_srlv_epi32(x.v, _mm256_set1_epi32(int(bits)))};
}
// Some bits of each byte, from bit `from` on, as those from To on.
template <int Mask, int To>
QORUS_INLINE I32 bits_of_bytes(I32 x, std::size_t from) {
  const I32 right = shift_right_by(x, from > To ? from - To : 0);
  return I32{_mm256_sllv_epi32(right.v, _mm256_set1_epi32(from < To ? To - int(from) : 0))} &
         set((Mask << To) * 0x01010101);
}
// 16 bytes over and over; and, of every 16 bytes of a table, those that as many indices name.
QORUS_INLINE I32 repeated(const std::uint8_t* p) {
  return {_mm256_broadcastsi128_si256(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)))};
}
QORUS_INLINE I32 look_up(I32 table, I32 indices) { return {_mm256_shuffle_epi8(table.v, indices.v)}; }
// Both 16-bit numbers of each lane, divided by 4, rounded down.
QORUS_INLINE I32 pairs_over_4(I32 x) { return {_mm256_srai_epi16(x.v, 2)}; }

QORUS_INLINE std::int32_t largest_of(I32 x) {
  __m128i y = _mm_max_epi32(_mm256_castsi256_si128(x.v), _mm256_extracti128_si256(x.v, 1));
  y = _mm_max_epi32(y, _mm_shuffle_epi32(y, 0x4E));
  return _mm_cvtsi128_si32(_mm_max_epi32(y, _mm_shuffle_epi32(y, 0xB1)));
}
QORUS_INLINE std::int32_t sum_of(I32 x) {
  __m128i y = _mm_add_epi32(_mm256_castsi256_si128(x.v), _mm256_extracti128_si256(x.v, 1));
  y = _mm_add_epi32(y, _mm_shuffle_epi32(y, 0x4E));
  return _mm_cvtsi128_si32(_mm_add_epi32(y, _mm_shuffle_epi32(y, 0xB1)));
}
QORUS_INLINE float float_of(std::int32_t bits) { return __builtin_bit_cast(float, bits); }
QORUS_INLINE std::int32_t bits_of(float x) { return __builtin_bit_cast(std::int32_t, x); }
QORUS_INLINE I32 to_whole(F32 x) { return {_mm256_cvtps_epi32(x.v)}; }  // to nearest, halves to even
QORUS_INLINE void store_narrow(std::uint8_t* p, I32 x) {
  const __m128i words = _mm_packs_epi32(_mm256_castsi256_si128(x.v), _mm256_extracti128_si256(x.v, 1));
  _mm_storel_epi64(reinterpret_cast<__m128i*>(p), _mm_packs_epi16(words, words));
}

}  // namespace
}  // namespace qorus::kernels

#include "kernels/simd/packed_layout.h"

namespace qorus::kernels {

extern constinit const PackedPart packed_avx2{pack_weights, pack_rows, packed_product};

}  // namespace qorus::kernels
