// Products with packed weights: the definition against doubles, every table against the definition bit for bit.
#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <iterator>
#include <random>
#include <vector>

#include "tests/kernels_common.h"

namespace {
using namespace qorus_test;
using namespace qorus::kernels;
using Bytes = std::vector<std::uint8_t>;

struct Format {
  const char* name;
  Packing packing;
  Quant quant;    // count_ for the plain ones
  int halves[2];  // where an f16 stands in its block
};
constexpr Format k_formats[] = {
    {"q4_0", Packing::q4_0, Quant::q4_0, {0, -1}},       {"q4_1", Packing::q4_1, Quant::q4_1, {0, 2}},
    {"q5_0", Packing::q5_0, Quant::q5_0, {0, -1}},       {"q5_1", Packing::q5_1, Quant::q5_1, {0, 2}},
    {"q8_0", Packing::q8_0, Quant::q8_0, {0, -1}},       {"q2_k", Packing::q2_k, Quant::q2_k, {80, 82}},
    {"q3_k", Packing::q3_k, Quant::q3_k, {108, -1}},     {"q4_k", Packing::q4_k, Quant::q4_k, {0, 2}},
    {"q5_k", Packing::q5_k, Quant::q5_k, {0, 2}},        {"q6_k", Packing::q6_k, Quant::q6_k, {208, -1}},
    {"iq4_nl", Packing::iq4_nl, Quant::iq4_nl, {0, -1}}, {"iq4_xs", Packing::iq4_xs, Quant::iq4_xs, {0, -1}},
    {"f16", Packing::f16, Quant::count_, {0, -1}},       {"bf16", Packing::bf16, Quant::count_, {0, -1}},
};
static_assert(std::size(k_formats) == std::size_t(Packing::count_));
QuantBlock block_of(const Format& format) { return packing_block(format.packing); }

std::vector<float> drawn(std::size_t count, unsigned seed);

// Any bytes, but that f16 numbers stay below 2; of f16 and bf16, numbers around 0.
Bytes drawn_rows(const Format& format, std::size_t n, std::size_t k) {
  const QuantBlock block = block_of(format);
  if (format.packing >= Packing::f16) {
    const auto values = drawn(n * k, 9);
    Bytes halves(2 * n * k);
    auto* words = reinterpret_cast<std::uint16_t*>(halves.data());
    (format.packing == Packing::f16 ? tables()[0]->f32_to_f16 : tables()[0]->f32_to_bf16)(values.data(), words, n * k);
    return halves;
  }
  Bytes bytes(n * (k / block.elements) * block.bytes);
  std::mt19937 random(7);
  for (auto& byte : bytes) byte = std::uint8_t(random());
  for (std::size_t i = 0; i < bytes.size(); i += block.bytes)
    for (const int half : format.halves)
      if (half >= 0) bytes[i + std::size_t(half) + 1] &= 0xbf;
  return bytes;
}

std::vector<float> decoded(const Format& format, const Bytes& bytes, std::size_t count) {
  std::vector<float> values(count);
  const auto* words = reinterpret_cast<const std::uint16_t*>(bytes.data());
  const Table& table = *tables()[0];
  if (format.packing == Packing::f16)
    table.f16_to_f32(words, values.data(), count);
  else if (format.packing == Packing::bf16)
    table.bf16_to_f32(words, values.data(), count);
  else
    table.dequantize(format.quant, bytes.data(), values.data(), count);
  return values;
}

struct Case {
  std::size_t m, n, k;
  bool bias = false, accumulate = false;
};

std::vector<float> product(const Table* table, const Format& format, const Bytes& rows, const float* x, const Case& c,
                           std::size_t cut = 1000) {
  Guarded<std::uint8_t> weights(panels_of(c.n) * packed_panel_bytes(format.packing, c.k)),
      packed(c.m * packed_row_bytes(format.packing, c.k));
  table->pack_weights(format.packing, rows.data(), weights.data(), c.n, c.k, 0, panels_of(c.n), 0);
  for (std::size_t first = 0; first < c.m; first += 16)
    table->pack_rows(format.packing, x, std::ptrdiff_t(c.k + 3), packed.data(), c.m, c.k, first,
                     std::min(first + 16, c.m));
  Guarded<float> y(c.m * (c.n + 5), 1), bias(c.n, 3);
  fill(bias, -1, 1, 5);
  fill(y, -1, 1, 6);
  const PackedProduct p{format.packing,
                        c.m,
                        c.n,
                        c.k,
                        packed.data(),
                        weights.data(),
                        y.data(),
                        std::ptrdiff_t(c.n + 5),
                        c.bias ? bias.data() : nullptr,
                        c.accumulate,
                        cut < 1000 ? rows.data() : nullptr,  // what is fetched meanwhile changes nothing
                        cut < 1000 ? rows.size() : 0};
  for (std::size_t first = 0; first < panels_of(c.n); first += cut)
    table->packed_product(p, first, std::min(first + cut, panels_of(c.n)));
  return {y.begin(), y.end()};
}

std::vector<float> drawn(std::size_t count, unsigned seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> value(0, 1);
  std::vector<float> x(count);
  for (float& v : x) v = value(random);
  return x;
}

// x as pack_rows keeps it, from the scalar table.
std::vector<double> kept(const Format& format, const float* x, std::size_t k) {
  std::vector<double> values(x, x + k);
  Bytes row(packed_row_bytes(format.packing, k));
  tables()[0]->pack_rows(format.packing, x, 0, row.data(), 1, k, 0, 1);
  for (std::size_t i = 0; i < k; ++i) {
    float scale = 0;
    if (format.packing >= Packing::f16) {
      std::int16_t quant = 0;
      std::memcpy(&quant, row.data() + i / 32 * 68 + i % 32 * 2, 2);
      std::memcpy(&scale, row.data() + i / 32 * 68 + 64, 4);
      values[i] = double(scale) * quant;
      EXPECT_NEAR(values[i], x[i], scale * 0.5001) << format.name;
      continue;
    }
    std::memcpy(&scale, row.data() + i / 32 * 44 + 32, 4);
    values[i] = double(scale) * std::int8_t(row[i / 32 * 44 + i % 32]);
    EXPECT_NEAR(values[i], x[i], scale * (0.5001 + 127 * 0x1p-12)) << format.name;
  }
  return values;
}

TEST(Packed, IsTheProductOfWhatIsKept) {
  for (const Format& format : k_formats) {
    const Case c{3, 19, 512, true, true};
    const Bytes rows = drawn_rows(format, c.n, c.k);
    const auto w = decoded(format, rows, c.n * c.k), x = drawn(c.m * (c.k + 3), 2);
    const auto y = product(tables()[0], format, rows, x.data(), c);
    Guarded<float> bias(c.n, 3), start(y.size(), 1);
    fill(bias, -1, 1, 5);
    fill(start, -1, 1, 6);
    for (std::size_t i = 0; i < c.m; ++i) {
      const auto row = kept(format, x.data() + i * (c.k + 3), c.k);
      for (std::size_t j = 0; j < c.n; ++j) {
        double sum = double(bias[j]) + double(start[i * (c.n + 5) + j]), size = std::fabs(sum), steps = 0;
        for (std::size_t k = 0; k < c.k; ++k) {
          sum += row[k] * w[j * c.k + k];
          size += std::fabs(row[k] * w[j * c.k + k]);
          double largest =
              0;  // f16 and bf16 are kept in steps of the 8191st part of the largest of 32, or 1/128 wider ones
          for (std::size_t b = k / 32 * 32; format.packing >= Packing::f16 && b < k / 32 * 32 + 32; ++b)
            largest = std::max(largest, std::fabs(double(w[j * c.k + b])));
          steps += std::fabs(row[k]) * largest / 8191 * 1.01 / 2;
        }
        // Each of k steps rounds by at most half a unit; minima and offsets cancel, which the sizes here do not show: hence 8 times.
        EXPECT_NEAR(y[i * (c.n + 5) + j], sum, steps + 8 * size * 0x1p-24 * std::sqrt(double(c.k))) << format.name;
      }
    }
  }
}

TEST(Packed, EveryTableGivesTheSameBits) {
  for (const Format& format : k_formats)
    for (const Case& c : {Case{1, 64, 256},
                          {1, 83, 768, true},
                          {2, 16, 256, false, true},
                          {7, 9, 512},
                          {17, 40, 256, true},
                          {36, 35, 1280, true, true},
                          {3, 5, 4608, true, true}}) {  // in two parts
      const Bytes rows = drawn_rows(format, c.n, c.k);
      const auto x = drawn(c.m * (c.k + 3), 3);
      const auto wanted = product(tables()[0], format, rows, x.data(), c);
      for (const Table* table : tables())
        for (const std::size_t cut : {1, 1000}) {
          const auto got = product(table, format, rows, x.data(), c, cut);
          EXPECT_TRUE(same_bits(got.data(), wanted.data(), got.size() * 4))
              << table->isa << " " << format.name << " m " << c.m;
        }
    }
}

// Scales that are infinite or NaN, and what comes of them, too.
TEST(Packed, AnyBytesGiveTheSameNumbers) {
  for (const Format& format : k_formats) {
    const Case c{5, 19, 768};
    Bytes rows = drawn_rows(format, c.n, c.k);
    std::mt19937 random(11);
    for (auto& byte : rows) byte = std::uint8_t(random());
    const auto x = drawn(c.m * (c.k + 3), 3);
    const auto wanted = product(tables()[0], format, rows, x.data(), c);
    for (const Table* table : tables()) {
      const auto got = product(table, format, rows, x.data(), c);
      for (std::size_t i = 0; i < got.size(); ++i)
        if (!same_bits(&got[i], &wanted[i], 4))
          ASSERT_TRUE(std::isnan(got[i]) && std::isnan(wanted[i])) << where(table, format.name, got.size(), i);
    }
  }
}

// Nothing is lost on the way: the numbers that block formats stand for are the sums that rows of one 127 give.
TEST(Packed, BlockFormatsAreReadAsTheyAre) {
  for (const Format& format : k_formats) {
    if (format.packing >= Packing::f16) continue;
    const Case c{1, 16, block_of(format).elements};
    const Bytes rows = drawn_rows(format, c.n, c.k);
    const auto w = decoded(format, rows, c.n * c.k);
    for (std::size_t i = 0; i < c.k; ++i) {
      std::vector<float> x(c.k + 3);
      x[i] = 1;  // 127 of 1/127 in 11 digits
      const double one = kept(format, x.data(), c.k)[i];
      const auto y = product(tables()[0], format, rows, x.data(), c);
      for (std::size_t j = 0; j < c.n; ++j)
        EXPECT_NEAR(y[j], one * w[j * c.k + i], 1e-6 * (std::fabs(w[j * c.k + i]) + 64)) << format.name << " " << i;
    }
  }
}

TEST(Packed, WeightsAreLaidOutInTheSameBytes) {
  for (const Format& format : k_formats) {
    const std::size_t n = 35, k = 512;
    const Bytes rows = drawn_rows(format, n, k);
    const std::size_t panel = packed_panel_bytes(format.packing, k);
    Guarded<std::uint8_t> wanted(panels_of(n) * panel);
    tables()[0]->pack_weights(format.packing, rows.data(), wanted.data(), n, k, 0, panels_of(n), 0);
    for (const Table* table : tables()) {
      Guarded<std::uint8_t> got(wanted.size(), 1);
      for (std::size_t first = 0; first < panels_of(n); ++first)
        table->pack_weights(format.packing, rows.data(), got.data(), n, k, first, first + 1, first * 100);
      EXPECT_TRUE(same_bits(got.data(), wanted.data(), wanted.size())) << table->isa << " " << format.name;
    }
  }
}

TEST(Packed, ARowDoesNotDependOnItsNeighbours) {
  for (const Table* table : tables())
    for (const Format& format : k_formats) {
      const Case c{31, 48, 512};
      const Bytes rows = drawn_rows(format, c.n, c.k);
      const auto x = drawn(c.m * (c.k + 3), 4);
      const auto all = product(table, format, rows, x.data(), c);
      for (std::size_t i = 0; i < c.m; ++i) {
        const auto one = product(table, format, rows, x.data() + i * (c.k + 3), {1, c.n, c.k});
        EXPECT_TRUE(same_bits(one.data(), all.data() + i * (c.n + 5), c.n * 4))
            << table->isa << " " << format.name << i;
      }
    }
}

TEST(Packed, RowsAreTheSameBytesWhateverTheyHold) {
  for (const Format& format : k_formats) {
    const std::size_t m = 23, k = 256;
    auto x = drawn(m * k, 8);
    for (std::size_t i = 0; i < k; ++i)
      x[k + i] *= 1e-33f, x[2 * k + i] *= 1e-29f, x[3 * k + i] *= 1e37f, x[4 * k + i] = 0;
    x[5 * k + 3] = k_nan, x[6 * k + 40] = k_inf, x[7 * k + 70] = -k_inf, x[8 * k] = -0.0f;
    for (std::size_t i = 0; i < 64; ++i) x[9 * k + i] = float(i) - 31.5f;  // halves
    x[9 * k] = -127;
    Guarded<std::uint8_t> wanted(m * packed_row_bytes(format.packing, k));
    tables()[0]->pack_rows(format.packing, x.data(), std::ptrdiff_t(k), wanted.data(), m, k, 0, m);
    for (const Table* table : tables()) {
      Guarded<std::uint8_t> got(wanted.size(), 1);
      table->pack_rows(format.packing, x.data(), std::ptrdiff_t(k), got.data(), m, k, 0, m);
      EXPECT_TRUE(same_bits(got.data(), wanted.data(), wanted.size())) << table->isa << " " << format.name;
    }
  }
}

}  // namespace
