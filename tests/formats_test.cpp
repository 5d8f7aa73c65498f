// qorus.formats: block formats to ggml's bytes, importance matrices, mixtures, `.qorus` files, archives of arrays.
#include <zlib.h>

#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <iterator>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "modules/formats/encode_table.h"
#include "tests/files.h"
#include "tests/testing.h"

import qorus.formats;
import qorus.io;

using namespace qorus;
using formats::Encoding;

namespace {

std::span<const std::byte> raw(std::string_view text) { return std::as_bytes(std::span(text.data(), text.size())); }
template <class T>
std::string text_of(const T& value) {
  return {reinterpret_cast<const char*>(&value), sizeof value};
}

// --- encoders ---

constexpr std::size_t k_rows = 6, k_columns = 768;

std::uint32_t next(std::uint32_t& state) { return state = state * 1664525u + 1013904223u; }
std::vector<float> drawn_values() {
  std::uint32_t state = 12345;
  std::vector<float> values(k_rows * k_columns);
  for (std::size_t i = 0; i < values.size(); ++i) {
    values[i] = (static_cast<float>(next(state) >> 9) - 0x1p22f) * 0x1p-24f * static_cast<float>(i / 256 % 5);
    if (i % 97 == 0) values[i] *= 8;
  }
  return values;
}
std::vector<float> drawn_importance() {
  std::uint32_t state = 777;
  std::vector<float> values(k_columns);
  for (float& value : values) value = static_cast<float>((next(state) >> 20) + 1) * 0x1p-8f;
  return values;
}

struct EncodingCase {
  Encoding encoding;
  std::size_t elements, bytes;
  std::uint64_t plain, weighted;  // FNV-1a of what ggml_quantize_chunk makes (ggml 0.9), without and with importance
};
constexpr EncodingCase k_encodings[] = {
    {Encoding::q4_0, 32, 18, 0xbdd1f31db8a5a17d, 0x0657290566831359},
    {Encoding::q8_0, 32, 34, 0x384660ebdd40089c, 0x384660ebdd40089c},
    {Encoding::q4_1, 32, 20, 0x386145a411aa2826, 0xe3d87ad34a208ced},
    {Encoding::q5_0, 32, 22, 0xfe55c24086c95355, 0x1147beb48ee76ee8},
    {Encoding::q5_1, 32, 24, 0x6d514903a0f0e4de, 0x81825fe3199fe2e0},
    {Encoding::q2_k, 256, 84, 0x255ec40650bb32ff, 0x3de2bb4374eaad7d},
    {Encoding::q3_k, 256, 110, 0xc64c2b417b202e13, 0x6f916ed7d38e473c},
    {Encoding::q4_k, 256, 144, 0x4c5a9c95eb32ac47, 0x3b4cd8db49afb466},
    {Encoding::q5_k, 256, 176, 0xe11567e4def69d86, 0xc026242e02438c4b},
    {Encoding::q6_k, 256, 210, 0x9bded79d3933c66f, 0x1fd69e5dea420b82},
    {Encoding::iq4_nl, 32, 18, 0x28eca32adc32f537, 0xcd07bab74a96ea63},
};

std::uint64_t hash_of(const std::vector<std::uint8_t>& bytes) {
  std::uint64_t hash = 0xcbf29ce484222325;
  for (const std::uint8_t b : bytes) hash = (hash ^ b) * 0x100000001b3;
  return hash;
}

std::vector<formats::Encode> encoders() {
  std::vector<formats::Encode> all{formats::k_encode_plain};
#ifdef __x86_64__
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) all.push_back(formats::k_encode_avx2);
#endif
  return all;
}

}  // namespace

TEST(Encoders, MakeGgmlsBytes) {
  const auto values = drawn_values(), importance = drawn_importance();
  for (const auto& c : k_encodings) {
    for (const formats::Encode encode : encoders()) {
      std::vector<std::uint8_t> bytes(k_rows * k_columns / c.elements * c.bytes);
      encode(c.encoding, values.data(), nullptr, bytes.data(), k_rows, k_columns);
      EXPECT_EQ(hash_of(bytes), c.plain) << int(c.encoding);
      encode(c.encoding, values.data(), importance.data(), bytes.data(), k_rows, k_columns);
      EXPECT_EQ(hash_of(bytes), c.weighted) << int(c.encoding);
    }
  }
}

// Whatever the numbers are, blocks come out and nothing else happens; the same from both tables unless there is a NaN.
TEST(Encoders, TakeAnyNumbers) {
  constexpr float k_odd[] = {0.0f, -0.0f, 1e-40f, -1e-20f, 3e38f, -3e38f, HUGE_VALF, -HUGE_VALF, __builtin_nanf(""),
                             1,    -1,    65504};
  std::uint32_t state = 5;
  std::vector<float> values(512), importance(512);
  for (const auto& c : k_encodings) {
    for (int round = 0; round < 20; ++round) {
      for (float& value : values) value = k_odd[next(state) >> 16 & 7 ? 9 : (next(state) >> 16) % std::size(k_odd)];
      for (float& value : importance) value = k_odd[(next(state) >> 16) % std::size(k_odd)];
      for (const formats::Encode encode : encoders()) {
        std::vector<std::uint8_t> bytes(512 / c.elements * c.bytes);
        encode(c.encoding, values.data(), round % 2 ? importance.data() : nullptr, bytes.data(), 1, 512);
      }
    }
  }
}

// --- importance and mixtures ---

TEST(Importance, IsReadFromBothKindsOfFile) {
  qorus_test::TemporaryFolder folder;
  const std::string dat = folder / "x.dat", gguf = folder / "x.gguf";
  const std::array<float, 4> sums{2, 4, 6, 8};
  const auto entry = [&](const std::string& name, std::int32_t calls) {
    return text_of(static_cast<std::int32_t>(name.size())) + name + text_of(calls) + text_of(std::int32_t{4}) +
           text_of(sums);
  };
  const std::string good = text_of(std::int32_t{2}) + entry("b.weight", 2) + entry("a.weight", 0);
  qorus_test::write_file(dat, good);
  auto old = formats::Importance::open(dat);
  ASSERT_OK(old);
  ASSERT_EQ(old->find("b.weight").size(), 4u);
  EXPECT_EQ(old->find("b.weight")[3], 4);
  EXPECT_EQ(old->find("a.weight")[3], 8);
  EXPECT_TRUE(old->find("c.weight").empty());
  for (std::size_t size = 0; size < good.size(); ++size) {
    qorus_test::write_file(dat, good.substr(0, size));
    EXPECT_FAILS(formats::Importance::open(dat), Errc::corrupt) << size;
  }
  qorus_test::write_file(dat, text_of(std::int32_t{2}) + entry("b", 2) + entry("b", 2));
  EXPECT_FAILS_SAYING(formats::Importance::open(dat), "twice");
  const float negative = -1;
  qorus_test::write_file(dat, text_of(std::int32_t{1}) + text_of(std::int32_t{1}) + "a" + text_of(std::int32_t{1}) +
                                  text_of(std::int32_t{1}) + text_of(negative));
  EXPECT_FAILS_SAYING(formats::Importance::open(dat), "negative");

  auto writer = io::GgufWriter::create(gguf);
  ASSERT_OK(writer);
  ASSERT_OK(writer->put_text("general.type", "imatrix"));
  ASSERT_OK(writer->declare("b.weight.in_sum2", DType::f32, {2, 2}));
  ASSERT_OK(writer->declare("b.weight.counts", DType::f32, {2, 1}));
  ASSERT_OK(writer->begin());
  const std::array<float, 2> counts{2, 0};
  ASSERT_OK(writer->write(std::as_bytes(std::span(sums))));
  ASSERT_OK(writer->write(std::as_bytes(std::span(counts))));
  ASSERT_OK(writer->commit());
  auto newer = formats::Importance::open(gguf);
  ASSERT_OK(newer);
  ASSERT_EQ(newer->find("b.weight").size(), 4u);
  EXPECT_EQ(newer->find("b.weight")[1], 2);
  EXPECT_EQ(newer->find("b.weight")[2], 1);  // never seen
}

TEST(Scheme, IsLlamaCpps) {
  const formats::ModelFacts model{.layers = 16, .heads = 32, .kv_heads = 8, .llama = true, .has_output = true};
  const struct {
    const char *scheme, *tensor;
    DType wanted;
    std::int64_t columns = 2048;
  } cases[] = {
      {"q4_k_m", "output.weight", DType::q6_k},
      {"q4_k_m", "token_embd.weight", DType::q4_k},
      {"q4_k_m", "blk.0.attn_v.weight", DType::q6_k},
      {"q4_k_m", "blk.3.attn_v.weight", DType::q4_k},
      {"q4_k_m", "blk.4.attn_v.weight", DType::q6_k},
      {"q4_k_m", "blk.14.ffn_down.weight", DType::q6_k},
      {"q4_k_m", "blk.3.ffn_down.weight", DType::q4_k},
      {"q4_k_m", "blk.3.attn_qkv.weight", DType::q5_k},
      {"q4_k_s", "blk.3.attn_v.weight", DType::q5_k},
      {"q4_k_s", "blk.1.ffn_down.weight", DType::q5_k},
      {"q4_k_s", "blk.2.ffn_down.weight", DType::q4_k},
      {"q5_k_m", "blk.0.attn_v.weight", DType::q6_k},
      {"q3_k_m", "blk.1.attn_v.weight", DType::q5_k},
      {"q3_k_m", "blk.2.attn_v.weight", DType::q4_k},
      {"q3_k_m", "blk.0.ffn_down.weight", DType::q5_k},
      {"q3_k_m", "blk.1.ffn_down.weight", DType::q4_k},
      {"q3_k_m", "blk.1.attn_output.weight", DType::q4_k},
      {"q2_k", "blk.1.attn_v.weight", DType::q4_k},
      {"q2_k", "blk.1.ffn_down.weight", DType::q3_k},
      {"q6_k", "blk.1.ffn_up.weight", DType::q6_k},
      {"q4_0", "output.weight", DType::q6_k},
      {"q8_0", "output.weight", DType::q8_0},
      {"q4_k_m", "blk.1.ffn_up.weight", DType::q5_0, 96},
      {"q6_k", "blk.1.ffn_up.weight", DType::q8_0, 96},
      {"q4_k_m", "blk.1.ffn_up.weight", DType::f16, 90},
      {"q4_k_m", "blk.1.ffn_gate_inp.weight", DType::bf16},
      {"q4_k_m", "blk.1.attn_q.bias", DType::bf16},
      {"f16", "blk.1.ffn_up.weight", DType::f16},
  };
  for (const auto& c : cases) {
    const formats::Scheme* scheme = formats::scheme_of(c.scheme);
    ASSERT_NE(scheme, nullptr) << c.scheme;
    EXPECT_EQ(scheme->choose(model, c.tensor, Shape{64, c.columns}, DType::bf16, false), c.wanted)
        << c.scheme << " " << c.tensor;
  }
  EXPECT_EQ(formats::scheme_of("q9"), nullptr);
}

// --- .qorus ---

namespace {

constexpr std::string_view k_scores = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

Status write_native(const std::string& path, bool laid_out = true) {
  auto writer = formats::NativeWriter::create(path);
  if (!writer) return fail(writer.error());
  const std::array<std::string_view, 2> words{"a", "zürich"};
  std::array<std::uint8_t, 16 * 18> matrix{};
  for (std::size_t i = 0; i < matrix.size(); ++i) matrix[i] = static_cast<std::uint8_t>(i * 37 & 63);
  Status status;
  const auto then = [&](const Status& next) { status = status ? next : status; };
  then(writer->put_text("general.architecture", "none"));
  then(writer->put("a.texts", words));
  then(writer->declare("x", DType::f32, {4, 4}));
  then(writer->declare("empty", DType::f32, {0}));
  then(writer->declare("m", DType::q4_0, {16, 32}));
  if (laid_out) then(writer->declare_laid_out(2));
  then(writer->begin());
  then(writer->write(raw(k_scores.substr(0, 20))));
  then(writer->write(raw(k_scores.substr(20))));
  then(writer->write(std::as_bytes(std::span(matrix))));
  std::array<std::byte, 16 * 18> packed{};
  if (laid_out) {
    then(ops::pack_weight(
        Tensor(reinterpret_cast<const std::byte*>(matrix.data()), DType::q4_0, Layout::dense({16, 32}), {}), packed));
    then(writer->write(packed));
  }
  then(writer->commit());
  return status;
}

}  // namespace

TEST(Native, MatricesThatCanBeLaidOut) {
  const auto bytes = [](DType dtype, const Shape& shape) { return formats::laid_out_bytes(dtype, shape); };
  EXPECT_GT(bytes(DType::q8_0, {32, 64}), 0u);
  EXPECT_EQ(bytes(DType::q8_0, {2, 16, 64}), bytes(DType::q8_0, {32, 64}));
  EXPECT_EQ(bytes(DType::q8_0, {4, 8, 64}), 0u);  // a panel would have rows of two of them
  EXPECT_EQ(bytes(DType::q8_0, {64}), 0u);
  EXPECT_EQ(bytes(DType::q8_0, {1, 1, 16, 64}), 0u);
  EXPECT_EQ(bytes(DType::f32, {32, 64}), 0u);
}

TEST(Native, WhatIsWrittenIsRead) {
  qorus_test::TemporaryFolder folder;
  const std::string path = folder / "x.qorus";
  ASSERT_OK(write_native(path));
  auto file = formats::read_native(path);
  ASSERT_OK(file);
  EXPECT_OK(formats::verify_native(path));
  EXPECT_EQ((**file->gguf.texts("a.texts"))[1], "zürich");
  ASSERT_EQ(file->gguf.entries().size(), 3u);
  auto x = file->gguf.tensor("x");
  ASSERT_OK(x);
  EXPECT_EQ(std::memcmp(x->data(), k_scores.data(), 64), 0);
  EXPECT_EQ(reinterpret_cast<std::uintptr_t>(x->data()) % 64, 0u);
  ASSERT_NE(file->find_laid_out("m"), nullptr);
  EXPECT_EQ(file->find_laid_out("m")->bytes.numel(), 16u * 18);
  EXPECT_EQ(file->find_laid_out("x"), nullptr);
  // An order of a name that is not known is no error: its lines are skipped.
  std::string bytes = qorus_test::read_file(path);
  bytes[88] = 'q';
  const auto sum = static_cast<std::uint32_t>(::crc32_z(0, reinterpret_cast<const Bytef*>(bytes.data()), 124));
  std::memcpy(bytes.data() + 124, &sum, 4);
  std::memcpy(bytes.data() + bytes.size() - 4, &sum, 4);
  qorus_test::write_file(path, bytes);
  auto other = formats::read_native(path);
  ASSERT_OK(other);
  EXPECT_TRUE(other->laid_out.empty());
  EXPECT_EQ(other->gguf.entries().size(), 3u);
}

// Every change of a byte that means something is found by verify; whatever read lets through has tensors that can be read.
TEST(Native, DamageIsAnError) {
  qorus_test::TemporaryFolder folder;
  const std::string path = folder / "x.qorus", damaged = folder / "y.qorus";
  ASSERT_OK(write_native(path));
  const std::string valid = qorus_test::read_file(path);
  std::size_t missed = 0;
  qorus_test::sweep(valid, [&](const std::string& bytes) {
    if (bytes == valid) return;
    qorus_test::write_file(damaged, bytes);
    if (auto file = formats::read_native(damaged)) {
      for (const auto& entry : file->gguf.entries()) EXPECT_OK(file->gguf.tensor(entry.name));
    }
    if (formats::verify_native(damaged)) ++missed;  // filling between parts
  });
  EXPECT_LT(missed, 4 * (valid.size() - 128 - 4 * 64 - 64 - 2 * 288 - 16));
  EXPECT_FAILS(formats::read_native(folder / "none"), Errc::not_found);
  qorus_test::write_file(damaged, "QORUS\r\n\x1a");
  EXPECT_FAILS(formats::read_native(damaged), Errc::corrupt);
}

TEST(Native, RefusesWhatCannotStandInAFile) {
  qorus_test::TemporaryFolder folder;
  auto writer = formats::NativeWriter::create(folder / "x.qorus");
  ASSERT_OK(writer);
  EXPECT_FAILS(writer->declare("", DType::f32, {1}), Errc::invalid_argument);
  EXPECT_FAILS(writer->declare("x", DType::u8, {1}), Errc::unsupported);
  EXPECT_FAILS(writer->declare("x", DType::q4_0, {1, 31}), Errc::invalid_size);
  ASSERT_OK(writer->declare("x", DType::f32, {2}));
  EXPECT_FAILS(writer->declare_laid_out(0), Errc::invalid_argument);
  EXPECT_FAILS(writer->write(raw("1234")), Errc::invalid_argument);
  ASSERT_OK(writer->begin());
  EXPECT_FAILS(writer->write(raw("123456789")), Errc::invalid_argument);
  EXPECT_FAILS(writer->commit(), Errc::invalid_argument);
  EXPECT_FALSE(qorus_test::exists(folder / "x.qorus"));
}

// --- npz ---

TEST(Npz, WhatIsWrittenIsRead) {
  qorus_test::TemporaryFolder folder;
  const std::string path = folder / "x.npz";
  {
    auto writer = formats::NpzWriter::create(path);
    ASSERT_OK(writer);
    ASSERT_OK(writer->begin("a/b", DType::f32, {2, 2}));
    EXPECT_FAILS(writer->begin("c", DType::f32, {1}), Errc::invalid_argument);  // the one before is not complete
    ASSERT_OK(writer->write(raw("0123456789")));
    ASSERT_OK(writer->write(raw("abcdef")));
    EXPECT_FAILS(writer->write(raw("x")), Errc::invalid_argument);
    EXPECT_FAILS(writer->begin("a/b", DType::f32, {1}), Errc::invalid_argument);
    EXPECT_FAILS(writer->begin("q", DType::q4_0, {32}), Errc::invalid_dtype);
    ASSERT_OK(writer->begin("empty", DType::u8, {0}));
    ASSERT_OK(writer->begin("h", DType::f16, {3}));
    ASSERT_OK(writer->write(raw("123456")));
    ASSERT_OK(writer->commit());
  }
  auto file = io::Npz::open(path);
  ASSERT_OK(file);
  ASSERT_EQ(file->size(), 3u);
  auto a = file->read("a/b");
  ASSERT_OK(a);
  EXPECT_EQ(a->tensor().shape(), (Shape{2, 2}));
  EXPECT_EQ(std::memcmp(a->tensor().data(), "0123456789abcdef", 16), 0);
  EXPECT_OK(file->read("empty"));
  EXPECT_OK(file->read("h"));
  EXPECT_FAILS(file->read("none"), Errc::not_found);
}
