// Writing GGUF: what is written is read again as it was; a quantised model has llama.cpp's own bytes; what cannot stand in a file is refused.
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <string_view>
#include <utility>

#include "tests/files.h"
#include "tests/testing.h"

import qorus.formats;
import qorus.io;

using namespace qorus;

namespace {

std::string_view bytes_of(const io::Gguf& file, const io::TensorEntry& entry) {
  auto tensor = file.tensor(entry.name);
  EXPECT_OK(tensor);
  return {reinterpret_cast<const char*>(tensor->data()), entry.bytes};
}
std::span<const std::byte> raw(std::string_view text) { return std::as_bytes(std::span(text.data(), text.size())); }

// Two tensors, one of them in blocks, and metadata of every kind.
Status write_sample(const std::string& path) {
  auto writer = io::GgufWriter::create(path);
  if (!writer) return fail(writer.error());
  const std::array<std::string_view, 3> words{"a", "", "zürich"};
  const std::array<std::int32_t, 2> numbers{-7, 9};
  const std::array<float, 2> reals{0.5f, -2};
  Status status;
  const auto then = [&](const Status& next) { status = status ? next : status; };
  then(writer->put("general.alignment", std::uint32_t{64}));
  then(writer->put_text("general.architecture", "llama"));
  then(writer->put("a.u32", std::uint32_t{3}));
  then(writer->put("a.i32", std::int32_t{-3}));
  then(writer->put("a.u64", std::uint64_t{1} << 40));
  then(writer->put("a.f32", 1.5f));
  then(writer->put_bool("a.bool", true));
  then(writer->put("a.texts", words));
  then(writer->put("a.numbers", numbers));
  then(writer->put("a.reals", reals));
  then(writer->declare("x", DType::f32, {2, 3}));
  then(writer->declare("empty", DType::f32, {0}));
  then(writer->declare("q", DType::q8_0, {1, 32}));
  then(writer->begin());
  then(writer->write(raw("0123456789ab")));  // in two pieces
  then(writer->write(raw("cdefghijklmn")));
  then(writer->write(raw("QQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQ")));
  if (status) status = writer->commit();
  return status;
}

}  // namespace

TEST(GgufWriter, WhatIsWrittenIsRead) {
  qorus_test::TemporaryFolder folder;
  ASSERT_OK(write_sample(folder / "x.gguf"));
  auto file = io::read_gguf(folder / "x.gguf");
  ASSERT_OK(file);
  EXPECT_EQ(file->alignment(), 64u);
  EXPECT_EQ(*file->text("general.architecture"), "llama");
  EXPECT_EQ(*file->u32("a.u32"), 3u);
  EXPECT_EQ(*file->i32("a.i32"), -3);
  EXPECT_EQ(*file->u64("a.u64"), std::uint64_t{1} << 40);
  EXPECT_EQ(*file->f32("a.f32"), 1.5f);
  EXPECT_TRUE(*file->boolean("a.bool"));
  EXPECT_EQ((**file->texts("a.texts"))[2], "zürich");
  EXPECT_EQ((*file->integers("a.numbers"))[0], -7);
  EXPECT_EQ((*file->reals("a.reals"))[1], -2);
  ASSERT_EQ(file->entries().size(), 3u);
  EXPECT_EQ(bytes_of(*file, file->entries()[0]), "0123456789abcdefghijklmn");
  EXPECT_EQ(file->entries()[2].shape, (Shape{1, 32}));
}

TEST(GgufWriter, RefusesWhatCannotStandInAFile) {
  qorus_test::TemporaryFolder folder;
  const std::string path = folder / "x.gguf";
  EXPECT_FAILS(io::GgufWriter::create(folder / "no/x.gguf"), Errc::not_found);
  {
    auto writer = io::GgufWriter::create(path);
    ASSERT_OK(writer);
    EXPECT_FAILS(writer->put("", std::uint32_t{1}), Errc::invalid_argument);
    EXPECT_FAILS(writer->put("a\nb", 1.0f), Errc::invalid_argument);
    EXPECT_FAILS(writer->put("general.alignment", std::uint32_t{12}), Errc::invalid_argument);
    EXPECT_FAILS(writer->declare("t", DType::q4_0, {2, 31}), Errc::invalid_size);
    EXPECT_FAILS(writer->declare("t", DType::u8, {2}), Errc::unsupported);
    EXPECT_FAILS(writer->declare("t", DType::f32, {1, 1, 1, 1, 1}), Errc::unsupported);
    EXPECT_FAILS(writer->declare("t", DType::f32, Shape{-1}), Errc::unsupported);
    EXPECT_FAILS(writer->write(raw("x")), Errc::invalid_argument);
    EXPECT_FAILS(writer->commit(), Errc::invalid_argument);
    ASSERT_OK(writer->declare("t", DType::f32, {2}));
    ASSERT_OK(writer->begin());
    EXPECT_FAILS(writer->put("late", 1.0f), Errc::invalid_argument);
    ASSERT_OK(writer->write(raw("1234")));
    EXPECT_FAILS(writer->commit(), Errc::invalid_argument);  // half a tensor
    EXPECT_FAILS(writer->write(raw("56789")), Errc::invalid_argument);
  }
  auto writer = io::GgufWriter::create(path);
  ASSERT_OK(writer);
  ASSERT_OK(writer->put("twice", 1.0f));
  ASSERT_OK(writer->put("twice", 2.0f));
  EXPECT_FAILS_SAYING(writer->begin(), "twice");
  EXPECT_TRUE(qorus_test::read_file(path).empty());
}

// The other formats were made by llama.cpp from the same weights, with an importance of 1 for every column.
TEST(Quantize, HasLlamaCppsBytes) {
  QORUS_NEEDS_DATA("models/stories260K/stories260K-F32.gguf");
  qorus_test::TemporaryFolder folder;
  const std::string from = qorus_test::data_path("models/stories260K/stories260K-F32.gguf"), to = folder / "x.gguf";
  for (const auto& [name, dtype] : {std::pair{"q4_0", DType::q4_0}, std::pair{"q8_0", DType::q8_0}}) {
    auto done = formats::quantize(from, to, {.dtype = dtype, .least_error = true, .threads = 2});
    ASSERT_OK(done);
    EXPECT_GT(done->converted, 30u);
    auto wanted = io::read_gguf(qorus_test::data_path("models/stories260K/stories260K-" + std::string(name) + ".gguf"));
    auto made = io::read_gguf(to);
    ASSERT_OK(wanted);
    ASSERT_OK(made);
    ASSERT_EQ(made->entries().size(), wanted->entries().size());
    for (const io::TensorEntry& entry : wanted->entries()) {
      const io::TensorEntry* mine = made->find(entry.name);
      ASSERT_NE(mine, nullptr) << entry.name;
      EXPECT_EQ(mine->type, entry.type) << entry.name;
      EXPECT_TRUE(bytes_of(*made, *mine) == bytes_of(*wanted, entry)) << name << " " << entry.name;
    }
    for (const io::GgufEntry& entry : wanted->metadata()) EXPECT_NE(made->metadata(entry.key), nullptr) << entry.key;
    auto plain = formats::quantize(from, to, {.dtype = dtype, .threads = 1});
    ASSERT_OK(plain);
    EXPECT_EQ(plain->bytes_after, done->bytes_after);
  }
}

TEST(Quantize, KeepsWhatShallBeKept) {
  qorus_test::TemporaryFolder folder;
  const std::string from = folder / "from.gguf", to = folder / "to.gguf";
  ASSERT_OK(write_sample(from));
  auto done = formats::quantize(from, to,
                                {.dtype = DType::f16, .choose = [](void*, std::string_view name, const Shape&, DType) {
                                   return name == "q" ? DType::q8_0 : DType::f32;
                                 }});
  ASSERT_OK(done);
  EXPECT_EQ(done->converted, 0u);
  auto file = io::read_gguf(to);
  ASSERT_OK(file);
  EXPECT_EQ(bytes_of(*file, *file->find("q")), "QQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQ");
  EXPECT_EQ(*file->u32("general.file_type"), 1u);
  EXPECT_FAILS_SAYING(
      formats::quantize(
          from, to,
          {.dtype = DType::q8_0, .choose = [](void*, std::string_view, const Shape&, DType) { return DType::i8; }}),
      "x: ");
  EXPECT_FAILS(formats::quantize(from, to,
                                 {.progress = [](void*, std::string_view, std::size_t, std::size_t) { return false; }}),
               Errc::invalid_argument);
  EXPECT_FAILS(formats::quantize(folder / "none", to), Errc::not_found);
  EXPECT_FAILS(formats::quantize(from, folder / "no/to.gguf"), Errc::not_found);
  EXPECT_OK(io::read_gguf(to));  // the failures left what was there
}
