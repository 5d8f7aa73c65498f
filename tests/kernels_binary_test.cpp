// Two-argument element-wise kernels, and the copies that change an array's order or format.
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string>
#include <vector>

#include "tests/kernels_common.h"

namespace {
using namespace qorus_test;
using qorus::kernels::Binary;
using qorus::kernels::Compare;
using qorus::kernels::Table;

double binary_by_definition(Binary op, double u, double v) {
  switch (op) {
    case Binary::add: return u + v;
    case Binary::sub: return u - v;
    case Binary::mul: return u * v;
    case Binary::div: return u / v;
    case Binary::pow: return std::pow(u, v);
    case Binary::max: return std::isnan(u) || std::isnan(v) ? k_nan : u > v ? u : v;
    case Binary::min: return std::isnan(u) || std::isnan(v) ? k_nan : u < v ? u : v;
    default: return k_nan;
  }
}

// Numbers with some that compare equal, and some that are not numbers.
void fill_with_specials(Guarded<float>& x, unsigned seed) {
  fill(x, -4, 4, seed);
  for (std::size_t i = 0; i < x.size(); ++i) {
    if ((i + seed) % 3 == 0) x[i] = 1;
    if ((i * 7 + seed) % 11 == 0) x[i] = k_nan;
  }
}

TEST(KernelsBinary, EveryOperationSizeAndStride) {
  for (const Table* table : tables())
    for (int op = 0; op < int(Binary::count_); ++op)
      for (std::size_t n : sizes())
        for (std::size_t strides = 0; strides < 4; ++strides) {
          const std::size_t sa = strides & 1, sb = strides >> 1;
          Guarded<float> a(sa ? n : 1, 1), b(sb ? n : 1), y(n, 1);
          fill_with_specials(a, 1);
          fill_with_specials(b, 2);
          table->binary(Binary(op), a.data(), sa, b.data(), sb, y.data(), n);
          for (std::size_t i = 0; i < n; ++i)
            ASSERT_LE(ulp_error(y[i], binary_by_definition(Binary(op), a[i * sa], b[i * sb])), k_by_f64_ulp)
                << where(table, "binary " + std::to_string(op), n, i) << ": " << a[i * sa] << ", " << b[i * sb];
        }
}

TEST(KernelsBinary, InPlaceOfEither) {
  for (const Table* table : tables()) {
    Guarded<float> a(77), b(77), y(77);
    fill(a, -4, 4, 1);
    fill(b, -4, 4, 2);
    table->binary(Binary::sub, a.data(), 1, b.data(), 1, y.data(), 77);
    table->binary(Binary::sub, a.data(), 1, b.data(), 1, b.data(), 77);
    EXPECT_TRUE(same_bits(b.data(), y.data(), 77 * sizeof(float)));
    fill(b, -4, 4, 2);
    table->binary(Binary::sub, a.data(), 1, b.data(), 1, a.data(), 77);
    EXPECT_TRUE(same_bits(a.data(), y.data(), 77 * sizeof(float)));
  }
}

bool compare_by_definition(Compare op, float u, float v) {
  switch (op) {
    case Compare::eq: return u == v;
    case Compare::ne: return u != v;
    case Compare::lt: return u < v;
    case Compare::le: return u <= v;
    case Compare::gt: return u > v;
    case Compare::ge: return u >= v;
    default: return false;
  }
}

TEST(KernelsBinary, CompareAndSelect) {
  for (const Table* table : tables())
    for (std::size_t n : sizes())
      for (std::size_t strides = 0; strides < 8; ++strides) {
        const std::size_t sa = strides & 1, sb = strides >> 1 & 1, sm = strides >> 2;
        Guarded<float> a(sa ? n : 1, 1), b(sb ? n : 1), y(n, 1);
        Guarded<std::uint8_t> mask(n, 3);
        fill_with_specials(a, 1);
        fill_with_specials(b, 2);
        for (int op = 0; op < int(Compare::count_); ++op) {
          table->compare(Compare(op), a.data(), sa, b.data(), sb, mask.data(), n);
          for (std::size_t i = 0; i < n; ++i)
            ASSERT_EQ(mask[i], compare_by_definition(Compare(op), a[i * sa], b[i * sb]))
                << where(table, "compare " + std::to_string(op), n, i) << ": " << a[i * sa] << ", " << b[i * sb];
        }
        Guarded<std::uint8_t> choice(sm ? n : 1, 1);
        for (std::size_t i = 0; i < choice.size(); ++i) choice[i] = i % 3 == 0 ? 0 : std::uint8_t(1 << i % 8);
        table->select(choice.data(), sm, a.data(), sa, b.data(), sb, y.data(), n);
        for (std::size_t i = 0; i < n; ++i) {
          const float want = choice[i * sm] ? a[i * sa] : b[i * sb];
          ASSERT_TRUE(same_bits(&y[i], &want, sizeof want)) << where(table, "select", n, i);
        }
      }
}

TEST(KernelsBinary, AxpyFmaClamp) {
  for (const Table* table : tables())
    for (std::size_t n : sizes()) {
      Guarded<float> a(n, 1), b(n), y(n, 1), z(n, 1), before(n);
      fill(a, -4, 4, 1);
      fill(b, -4, 4, 2);
      fill(before, -4, 4, 3);
      fill(y, -4, 4, 3);
      fill(z, -4, 4, 3);
      table->axpy(0.3f, a.data(), y.data(), n);
      table->fma(a.data(), b.data(), z.data(), n);
      for (std::size_t i = 0; i < n; ++i) {
        ASSERT_LE(ulp_error(y[i], before[i] + double(0.3f) * a[i]), k_by_f64_ulp) << where(table, "axpy", n, i);
        ASSERT_LE(ulp_error(z[i], before[i] + double(a[i]) * b[i]), k_by_f64_ulp) << where(table, "fma", n, i);
      }
      fill_with_specials(a, 5);
      table->clamp(a.data(), y.data(), n, -1.5f, 2);
      for (std::size_t i = 0; i < n; ++i) {
        if (std::isnan(a[i])) {
          ASSERT_TRUE(std::isnan(y[i])) << where(table, "clamp", n, i);
        } else {
          ASSERT_EQ(y[i], std::fmin(std::fmax(a[i], -1.5f), 2.0f)) << where(table, "clamp", n, i);
        }
      }
    }
}

TEST(KernelsCopy, Transpose) {
  for (const Table* table : tables())
    for (std::size_t rows : {0, 1, 3, 7, 8, 9, 16, 17, 33, 40})
      for (std::size_t cols : {0, 1, 2, 8, 11, 16, 19, 32, 35}) {
        const std::size_t x_row = cols + 2, y_row = rows + 3;
        Guarded<float> x(rows * x_row, 1), y(cols * y_row, 1);
        fill(x, -1, 1, 1);
        for (float& v : y) v = 9;
        table->transpose(x.data(), x_row, y.data(), y_row, rows, cols);
        for (std::size_t c = 0; c < cols; ++c)
          for (std::size_t r = 0; r < y_row; ++r)
            ASSERT_EQ(y[c * y_row + r], r < rows ? x[r * x_row + c] : 9) << where(table, "transpose", rows, c);
      }
}

// All 65536 halves, against the format's definition.
TEST(KernelsCopy, EveryHalf) {
  std::vector<std::uint16_t> all(65536), back(65536);
  std::vector<float> value(65536);
  for (std::size_t i = 0; i < 65536; ++i) all[i] = std::uint16_t(i);
  for (const Table* table : tables()) {
    table->f16_to_f32(all.data(), value.data(), 65536);
    table->f32_to_f16(value.data(), back.data(), 65536);
    for (std::size_t i = 0; i < 65536; ++i) {
      const int exponent = int(i >> 10 & 31), fraction = int(i & 1023);
      const double size = exponent == 31  ? (fraction ? k_nan : k_inf)
                          : exponent == 0 ? std::ldexp(fraction, -24)
                                          : std::ldexp(1024 + fraction, exponent - 25);
      ASSERT_EQ(ulp_error(std::fabs(value[i]), size), 0) << table->isa << " half " << i;
      ASSERT_EQ(std::signbit(value[i]), (i & 0x8000) != 0) << table->isa << " half " << i;
      if (exponent == 31 && fraction)
        ASSERT_EQ(back[i], i | 0x200) << table->isa << " half " << i;  // quiet, payload kept
      else
        ASSERT_EQ(back[i], i) << table->isa << " half " << i;
    }
  }
}

TEST(KernelsCopy, RoundingToHalves) {
  struct Pair {
    float x;
    std::uint16_t f16, bf16;
  };
  const Pair pairs[] = {{1, 0x3c00, 0x3f80},
                        {-0.0f, 0x8000, 0x8000},
                        {1 + 0x1p-11f, 0x3c00, 0x3f80},      // a tie: to even, down
                        {1 + 3 * 0x1p-11f, 0x3c02, 0x3f80},  // a tie: to even, up
                        {1 + 0x1p-11f + 0x1p-20f, 0x3c01, 0x3f80},
                        {65504, 0x7bff, 0x4780},
                        {65519.996f, 0x7bff, 0x4780},
                        {65520, 0x7c00, 0x4780},
                        {0x1p-24f, 0x0001, 0x3380},
                        {0x1p-25f, 0x0000, 0x3300},  // half the smallest: to even
                        {0x1.000002p-25f, 0x0001, 0x3300},
                        {0x1.ffcp-15f, 0x03ff, 0x3880},  // a tie below the smallest normal
                        {1 + 0x1p-8f, 0x3c04, 0x3f80},   // bf16 ties
                        {1 + 3 * 0x1p-8f, 0x3c0c, 0x3f82},
                        {0x1.fffffep127f, 0x7c00, 0x7f80},
                        {k_inf, 0x7c00, 0x7f80},
                        {-k_inf, 0xfc00, 0xff80},
                        {k_nan, 0x7e00, 0x7fc0},
                        {from_bits(0x7f800001), 0x7e00, 0x7fc0}};  // a NaN whose upper half alone would be infinity
  for (const Table* table : tables())
    for (const Pair& p : pairs) {
      std::uint16_t f16 = 0, bf16 = 0;
      float wide = 0;
      table->f32_to_f16(&p.x, &f16, 1);
      table->f32_to_bf16(&p.x, &bf16, 1);
      if (p.x == 0x1.ffcp-15f) continue;  // covered by EveryHalf; as a tie it is only for bf16
      EXPECT_EQ(f16, p.f16) << table->isa << " " << p.x;
      EXPECT_EQ(bf16, p.bf16) << table->isa << " " << p.x;
      table->bf16_to_f32(&bf16, &wide, 1);
      std::uint32_t bits = 0;
      std::memcpy(&bits, &wide, 4);
      EXPECT_EQ(bits, std::uint32_t(bf16) << 16) << table->isa << " " << p.x;
    }
}

TEST(KernelsCopy, ConversionsAtEverySizeAgree) {
  const Table* scalar = tables()[0];
  for (const Table* table : tables())
    for (std::size_t n : sizes()) {
      Guarded<float> x(n, 1), wide(n, 1), wide2(n);
      Guarded<std::uint16_t> half(n, 1), half2(n);
      Guarded<std::uint8_t> bytes(n, 1);
      fill(x, -70000, 70000, 3);
      for (std::size_t i = 0; i < n; ++i) bytes[i] = std::uint8_t(i * 37);
      table->f32_to_f16(x.data(), half.data(), n);
      scalar->f32_to_f16(x.data(), half2.data(), n);
      ASSERT_TRUE(same_bits(half.data(), half2.data(), 2 * n)) << where(table, "f32_to_f16", n, 0);
      table->f16_to_f32(half.data(), wide.data(), n);
      scalar->f16_to_f32(half.data(), wide2.data(), n);
      ASSERT_TRUE(same_bits(wide.data(), wide2.data(), 4 * n)) << where(table, "f16_to_f32", n, 0);
      table->f32_to_bf16(x.data(), half.data(), n);
      scalar->f32_to_bf16(x.data(), half2.data(), n);
      ASSERT_TRUE(same_bits(half.data(), half2.data(), 2 * n)) << where(table, "f32_to_bf16", n, 0);
      table->bf16_to_f32(half.data(), wide.data(), n);
      scalar->bf16_to_f32(half.data(), wide2.data(), n);
      ASSERT_TRUE(same_bits(wide.data(), wide2.data(), 4 * n)) << where(table, "bf16_to_f32", n, 0);
      table->u8_to_f32(bytes.data(), wide.data(), n, 1 / 255.0f, -0.5f);
      for (std::size_t i = 0; i < n; ++i)
        ASSERT_LE(ulp_error(wide[i], double(1 / 255.0f) * bytes[i] - 0.5), k_by_f64_ulp) << where(table, "u8", n, i);
    }
}

}  // namespace
