// AVX-512 with VNNI: the kernels of simd/packed.h with this instruction set's vector and its sums of byte products.
#include <cstddef>
#include <cstdint>

#include "kernels/avx512/vec.h"

namespace qorus::kernels {
namespace {

constexpr bool k_wide_differs = false;       // bytes from 0 to 255 are no trouble
constexpr std::size_t k_unpacked_from = 17;  // rows from which on weights are unpacked, where fewer have a tile
constexpr bool k_adds_words = false;
constexpr std::size_t k_fetched_ahead = 0;  // processors that have this do so themselves: a fifth slower otherwise

QORUS_INLINE void in_order(I32&) {}
QORUS_INLINE void made_before_next(I32&) {}
QORUS_INLINE void quad_ends() {}

QORUS_INLINE I32 load_quads(const std::uint8_t* p) { return {_mm512_loadu_si512(p)}; }

// sum + the four products of each lane's unsigned bytes with the four signed ones at p.
template <bool Wide>
QORUS_INLINE I32 dot(I32 sum, I32 w, const std::uint8_t* p) {
  std::int32_t quad;
  __builtin_memcpy(&quad, p, 4);
  return {_mm512_dpbusd_epi32(sum.v, w.v, _mm512_set1_epi32(quad))};
}

// v[i], lane r: the i-th of four 4-byte pieces of row r, `at` bytes into it. Rows are `row` bytes apart; fours are rows 0, 4, …
QORUS_INLINE void load_pieces(const std::uint8_t* const* fours, std::size_t at, std::size_t row, I32 (&v)[4]) {
  __m512i w[4];
#pragma unroll
  for (std::size_t j = 0; j < 4; ++j) {  // rows j, j + 4, j + 8, j + 12
    const auto four = [&](std::size_t i) __attribute__((always_inline)) {
      return _mm_loadu_si128(reinterpret_cast<const __m128i*>(fours[i] + at + j * row));
    };
    w[j] = _mm512_inserti32x4(_mm512_castsi128_si512(four(0)), four(1), 1);
    w[j] = _mm512_inserti32x4(_mm512_inserti32x4(w[j], four(2), 2), four(3), 3);
  }
  const __m512i a = _mm512_unpacklo_epi32(w[0], w[1]), b = _mm512_unpackhi_epi32(w[0], w[1]),
                c = _mm512_unpacklo_epi32(w[2], w[3]), d = _mm512_unpackhi_epi32(w[2], w[3]);
  v[0] = {_mm512_unpacklo_epi64(a, c)};
  v[1] = {_mm512_unpackhi_epi64(a, c)};
  v[2] = {_mm512_unpacklo_epi64(b, d)};
  v[3] = {_mm512_unpackhi_epi64(b, d)};
}

// The same with two signed 16-bit numbers in each lane and two at p.
QORUS_INLINE I32 dot_pairs(I32 sum, I32 w, const std::uint8_t* p) {
  std::int32_t quad;
  __builtin_memcpy(&quad, p, 4);
  return {_mm512_dpwssd_epi32(sum.v, w.v, _mm512_set1_epi32(quad))};
}

QORUS_INLINE I32 shift_right_by(I32 x, std::size_t bits) {
  return {_mm512_srlv_epi32(x.v, _mm512_set1_epi32(int(bits)))};
}
// Some bits of each byte, from bit `from` on, as those from To on.
template <int Mask, int To>
QORUS_INLINE I32 bits_of_bytes(I32 x, std::size_t from) {
  return I32{_mm512_rorv_epi32(x.v, _mm512_set1_epi32(int(from) - To))} & set((Mask << To) * 0x01010101);
}
// 16 bytes over and over; and, of every 16 bytes of a table, those that as many indices name.
QORUS_INLINE I32 repeated(const std::uint8_t* p) {
  return {_mm512_broadcast_i32x4(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)))};
}
QORUS_INLINE I32 look_up(I32 table, I32 indices) { return {_mm512_shuffle_epi8(table.v, indices.v)}; }
// Both 16-bit numbers of each lane, divided by 4, rounded down.
QORUS_INLINE I32 pairs_over_4(I32 x) { return {_mm512_srai_epi16(x.v, 2)}; }

QORUS_INLINE std::int32_t largest_of(I32 x) { return _mm512_reduce_max_epi32(x.v); }
QORUS_INLINE std::int32_t sum_of(I32 x) { return _mm512_reduce_add_epi32(x.v); }
QORUS_INLINE float float_of(std::int32_t bits) { return __builtin_bit_cast(float, bits); }
QORUS_INLINE std::int32_t bits_of(float x) { return __builtin_bit_cast(std::int32_t, x); }
QORUS_INLINE I32 to_whole(F32 x) { return {_mm512_cvtps_epi32(x.v)}; }  // to nearest, halves to even
QORUS_INLINE void store_narrow(std::uint8_t* p, I32 x) {
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm512_cvtepi32_epi8(x.v));
}

}  // namespace
}  // namespace qorus::kernels

#include "kernels/simd/packed_layout.h"

namespace qorus::kernels {

extern constinit const PackedPart packed_avx512{pack_weights, pack_rows, packed_product};

}  // namespace qorus::kernels
