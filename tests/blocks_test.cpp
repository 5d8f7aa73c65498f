// Block formats: every format against ggml's own values, bit for bit, in every table; quantising against ggml's own bytes.
#include <algorithm>
#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <fstream>
#include <iterator>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "tests/kernels_common.h"
#include "tests/test_data.h"

namespace {
using namespace qorus_test;
using namespace qorus::kernels;
using Bytes = std::vector<std::uint8_t>;

struct Format {
  const char* name;  // of the files in the data folder, if there is one
  Quant quant;
  int halves[2];       // where an f16 stands in its block
  std::uint64_t hash;  // of what ggml decodes from drawn_blocks (llama.cpp c392e5094dea, dequantize_row_*, no FMA)
};
constexpr Format k_formats[] = {
    {"q4_0", Quant::q4_0, {0, -1}, 0x64b3359509ca0f83},     {"q4_1", Quant::q4_1, {0, 2}, 0xdc5e05e514f174d6},
    {"q5_0", Quant::q5_0, {0, -1}, 0x27347de34b34bb83},     {"q5_1", Quant::q5_1, {0, 2}, 0x1ea40f860dce0e3b},
    {"q8_0", Quant::q8_0, {0, -1}, 0x4f28b140ca4f9f83},     {"q2_k", Quant::q2_k, {80, 82}, 0xa31b4d542506c7ed},
    {"q3_k", Quant::q3_k, {108, -1}, 0x18c83d394f1be7c3},   {"q4_k", Quant::q4_k, {0, 2}, 0x343e067761fe21a0},
    {"q5_k", Quant::q5_k, {0, 2}, 0x5dd673358d41bf30},      {"q6_k", Quant::q6_k, {208, -1}, 0x6a1c35d033a4c361},
    {"iq4_nl", Quant::iq4_nl, {0, -1}, 0xd5d72e14a6460c03}, {"iq4_xs", Quant::iq4_xs, {0, -1}, 0x0e8f9264504d906d},
};

QuantBlock block_of(Quant quant) { return k_quant_blocks[int(quant)]; }

// Any bytes, but that the scales stay below 2.
Bytes drawn_blocks(const Format& format, std::size_t count) {
  const std::size_t size = block_of(format.quant).bytes;
  Bytes bytes(count * size);
  std::uint32_t state = 12345 + std::uint32_t(format.quant);
  for (auto& byte : bytes) {
    state = state * 1664525u + 1013904223u;
    byte = std::uint8_t(state >> 24);
  }
  for (std::size_t i = 0; i < count; ++i)
    for (const int half : format.halves)
      if (half >= 0) bytes[i * size + std::size_t(half) + 1] &= 0xbf;
  return bytes;
}

std::vector<float> decoded(const Table* table, Quant quant, const Bytes& bytes) {
  const QuantBlock block = block_of(quant);
  const std::size_t n = bytes.size() / block.bytes * block.elements;
  Guarded<std::uint8_t> in(bytes.size(), 1);
  Guarded<float> out(n, 1);
  std::memcpy(in.data(), bytes.data(), bytes.size());
  table->dequantize(quant, in.data(), out.data(), n);
  return {out.begin(), out.end()};
}

Bytes file_bytes(const std::string& name) {
  std::ifstream file(data_path(name), std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}
// The numbers of an npy file of version 1, known to be f32 and in order.
std::vector<float> file_floats(const std::string& name) {
  const Bytes bytes = file_bytes(name);
  const std::size_t begin = 10 + bytes.at(8) + 256u * bytes.at(9);
  std::vector<float> values((bytes.size() - begin) / 4);
  std::memcpy(values.data(), bytes.data() + begin, values.size() * 4);
  return values;
}
bool same_bits(const std::vector<float>& a, const std::vector<float>& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * 4) == 0;
}

TEST(Blocks, DecodeWhatTheLayoutSays) {
  // One block of each kind of layout, most of its bytes 0, worked out by hand.
  const auto element = [](Quant quant, const std::vector<std::pair<int, int>>& set, std::size_t i) {
    Bytes bytes(block_of(quant).bytes);
    for (const auto& [at, value] : set) bytes[std::size_t(at)] = std::uint8_t(value);
    return decoded(tables()[0], quant, bytes)[i];
  };
  const int one = 0x3c, two = 0x40;  // the upper bytes of the f16 numbers 1 and 2
  EXPECT_EQ(element(Quant::q4_0, {{1, one}, {2, 0xf3}}, 0), -5);
  EXPECT_EQ(element(Quant::q4_0, {{1, one}, {2, 0xf3}}, 16), 7);
  EXPECT_EQ(element(Quant::q4_1, {{1, two}, {3, one}, {19, 0x40}}, 31), 9);
  EXPECT_EQ(element(Quant::q5_0, {{1, two}, {5, 0x80}, {21, 0x20}}, 31), 4);        // 2 (2 + 16 - 16)
  EXPECT_EQ(element(Quant::q5_1, {{1, two}, {3, one}, {4, 1}, {8, 0x05}}, 0), 43);  // 2 (5 + 16) + 1
  EXPECT_EQ(element(Quant::q8_0, {{1, two}, {33, 0xff}}, 31), -2);
  EXPECT_EQ(element(Quant::q2_k, {{81, one}, {83, two}, {15, 0x35}, {16 + 63, 0xc0}}, 255), 9);  // 5 3 - 2 3
  // Element 33: group 2, byte 1, bits 2 and 3; third bit 1 of byte 1. Scale of group 2: 4 low bits 1, upper bits 2: 33 - 32.
  EXPECT_EQ(element(Quant::q3_k, {{109, two}, {96 + 2, 1}, {96 + 10, 2}, {33, 3 << 2}, {1, 2}}, 33), 6);
  EXPECT_EQ(element(Quant::q3_k, {{109, two}, {96 + 2, 1}, {96 + 10, 2}, {33, 3 << 2}, {1, 0}}, 33), -2);
  // The last element: group 7, scale 15 + 3 16, least 2 + 1 16.
  EXPECT_EQ(element(Quant::q4_k, {{1, one}, {3, one}, {4 + 11, 0x2f}, {4 + 3, 0xc0}, {4 + 7, 0x40}, {143, 0xa0}}, 255),
            63 * 10 - 18);
  EXPECT_EQ(element(Quant::q5_k, {{1, one}, {4 + 1, 7}, {16 + 2, 2}, {48 + 2, 0x90}}, 34), 7 * (9 + 16));
  EXPECT_EQ(element(Quant::q6_k, {{209, one}, {192 + 15, 0xfe}, {127, 0x50}, {191, 0xc0}}, 255), -2 * (5 + 48 - 32));
  EXPECT_EQ(element(Quant::iq4_nl, {{1, one}, {17, 0xf0}}, 31), 113);
  EXPECT_EQ(element(Quant::iq4_xs, {{1, one}, {3, 0x80}, {7, 0x50}, {135, 0x80}}, 255), 5);  // (5 + 32 - 32) 1
}

// FNV-1a, over words or bytes.
std::uint64_t step(std::uint64_t hash, std::uint32_t word) { return (hash ^ word) * 1099511628211ull; }
std::uint64_t hash_of(const std::vector<float>& values) {
  std::uint64_t hash = 1469598103934665603ull;
  for (const float y : values) hash = step(hash, std::bit_cast<std::uint32_t>(y));
  return hash;
}
std::uint64_t hash_of(const Bytes& bytes) {
  std::uint64_t hash = 1469598103934665603ull;
  for (const std::uint8_t byte : bytes) hash = step(hash, byte);
  return hash;
}

TEST(Blocks, DecodeAsGgmlDoes) {
  for (const Table* table : tables())
    for (const Format& format : k_formats)
      EXPECT_EQ(hash_of(decoded(table, format.quant, drawn_blocks(format, 64))), format.hash)
          << table->isa << " " << format.name;
}

TEST(Blocks, EveryTableDecodesAnyBytesAlike) {
  for (const Table* table : tables())
    for (Format format : k_formats) {
      format.halves[0] = format.halves[1] = -1;  // infinite scales and NaN, too
      const Bytes bytes = drawn_blocks(format, 300);
      const auto want = decoded(tables()[0], format.quant, bytes), got = decoded(table, format.quant, bytes);
      for (std::size_t i = 0; i < want.size(); ++i)
        if (std::bit_cast<std::uint32_t>(got[i]) != std::bit_cast<std::uint32_t>(want[i]))
          ASSERT_TRUE(std::isnan(got[i]) && std::isnan(want[i])) << where(table, format.name, want.size(), i);
    }
}

TEST(Blocks, NoElementsNoBlocks) {
  for (const Table* table : tables()) {
    table->dequantize(Quant::q4_k, nullptr, nullptr, 0);
    table->quantize(Quant::q8_0, nullptr, nullptr, nullptr, 0, 32);
  }
}

TEST(Blocks, DecodeTheReferenceFiles) {
  QORUS_NEEDS_DATA("quant-blocks/types.json");
  for (const Table* table : tables()) {
    for (const auto& [name, quant] : {std::pair{"q4_0", Quant::q4_0}, std::pair{"q8_0", Quant::q8_0},
                                      std::pair{"q4_K", Quant::q4_k}, std::pair{"q6_K", Quant::q6_k}}) {
      const std::string path = std::string("quant-blocks/") + name;
      EXPECT_TRUE(same_bits(decoded(table, quant, file_bytes(path + ".bin")), file_floats(path + ".dequant.npy")))
          << table->isa << " " << name;
    }
    for (const bool brain : {false, true}) {
      const std::string path = brain ? "quant-blocks/bf16" : "quant-blocks/f16";
      const Bytes bytes = file_bytes(path + ".bin");
      std::vector<std::uint16_t> halves(bytes.size() / 2), made(halves.size());
      std::memcpy(halves.data(), bytes.data(), bytes.size());
      std::vector<float> values(halves.size());
      (brain ? table->bf16_to_f32 : table->f16_to_f32)(halves.data(), values.data(), values.size());
      EXPECT_TRUE(same_bits(values, file_floats(path + ".dequant.npy"))) << table->isa << " " << path;
      const auto source = file_floats("quant-blocks/source.npy");
      (brain ? table->f32_to_bf16 : table->f32_to_f16)(source.data(), made.data(), made.size());
      EXPECT_EQ(made, halves) << table->isa << " " << path;
    }
  }
}

Bytes encoded(const Table* table, Quant quant, const std::vector<float>& values,
              const std::vector<float>& importance = {}) {
  const QuantBlock block = block_of(quant);
  Guarded<std::uint8_t> out(values.size() / block.elements * block.bytes, 1);
  const std::size_t cols = importance.empty() ? block.elements : importance.size();
  table->quantize(quant, values.data(), importance.empty() ? nullptr : importance.data(), out.data(),
                  values.size() / cols, cols);
  return {out.begin(), out.end()};
}

TEST(Blocks, EncodeTheReferenceFiles) {
  QORUS_NEEDS_DATA("quant-blocks/types.json");
  const auto source = file_floats("quant-blocks/source.npy");
  for (const Table* table : tables()) {
    const std::vector<float> ones(512, 1.0f);  // the files were made with an importance of 1 for every column
    EXPECT_EQ(encoded(table, Quant::q4_0, source, ones), file_bytes("quant-blocks/q4_0.bin")) << table->isa;
    EXPECT_EQ(encoded(table, Quant::q8_0, source, ones), file_bytes("quant-blocks/q8_0.bin")) << table->isa;
    EXPECT_EQ(encoded(table, Quant::q8_0, source), file_bytes("quant-blocks/q8_0.bin")) << table->isa;
    EXPECT_EQ(hash_of(encoded(table, Quant::q4_0, source)), 0x25b39809d6521b0cull) << table->isa;
  }
}

// What the formats cannot hold has a defined result, too.
TEST(Blocks, EncodeNumbersAtTheEdge) {
  for (const Table* table : tables())
    for (const Quant quant : {Quant::q4_0, Quant::q8_0}) {
      Bytes zeros(block_of(quant).bytes, quant == Quant::q4_0 ? 0x88 : 0);
      zeros[0] = 0;
      zeros[1] = quant == Quant::q4_0 ? 0x80 : 0;  // 0 / -8 is -0
      EXPECT_EQ(encoded(table, quant, std::vector<float>(32)), zeros);
      const std::vector<float> ones(32, 1.0f);
      EXPECT_EQ(encoded(table, quant, std::vector<float>(32), ones)[0], 0);
      for (const float odd : {k_inf, -k_inf, k_nan, 1e-45f, -1e-40f, 3e38f, -3.4e38f}) {
        std::vector<float> values(64, 1.0f);
        values[5] = odd;
        const Bytes bytes = encoded(table, quant, values);
        EXPECT_EQ(bytes, encoded(tables()[0], quant, values));
        const auto back = decoded(table, quant, bytes),
                   weighted = decoded(table, quant, encoded(table, quant, values, ones));
        EXPECT_NEAR(weighted[40], 1.0f, 1e-3f);
        EXPECT_NEAR(back[40], 1.0f, 1e-3f) << "another block";
      }
      std::vector<float> tiny(32, 0.0f);
      tiny[31] = 1e-45f;  // its scale's inverse is infinite, and the scale no f16
      for (const float y : decoded(table, quant, encoded(table, quant, tiny))) EXPECT_EQ(y, 0.0f);
      for (const float y : decoded(table, quant, encoded(table, quant, tiny, ones))) EXPECT_EQ(y, 0.0f);
    }
}

// At most half a step of the largest magnitude's scale.
TEST(Blocks, EncodingLosesNoMoreThanItsStep) {
  std::mt19937 random(3);
  std::normal_distribution<float> value(0, 1);
  std::vector<float> x(32 * 500);
  for (float& v : x) v = value(random);
  for (const Quant quant : {Quant::q4_0, Quant::q8_0}) {
    const auto y = decoded(tables()[0], quant, encoded(tables()[0], quant, x));
    for (std::size_t i = 0; i < x.size(); ++i) {
      float largest = 0;
      for (std::size_t j = i / 32 * 32; j < i / 32 * 32 + 32; ++j) largest = std::max(largest, std::fabs(x[j]));
      const float step = largest / (quant == Quant::q4_0 ? 8 : 127);  // q4_0: the end opposite to the largest is cut
      EXPECT_LE(std::fabs(x[i] - y[i]), step * (quant == Quant::q4_0 ? 1.01f : 0.56f)) << i;
    }
  }
}

}  // namespace
