// qorus.io: GGUF, whole, damaged, hostile; every limit at its value and one past it; real models and vocabularies where they are.
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "kernels/kernels.h"
#include "tests/files.h"
#include "tests/testing.h"

import qorus.io;

using namespace qorus;
using io::GgufType;
using qorus_test::allocations_of;
using qorus_test::data_path;
using qorus_test::sweep;
using qorus_test::TemporaryFolder;
using qorus_test::write_file;

namespace {

template <class T>
std::string raw(T value) {
  return {reinterpret_cast<const char*>(&value), sizeof value};
}
std::string u32(std::uint32_t value) { return raw(value); }
std::string u64(std::uint64_t value) { return raw(value); }
std::string text(const std::string& s) { return u64(s.size()) + s; }

constexpr std::uint32_t k_text = 8, k_array = 9;
// An entry: key, type, value.
std::string entry(const std::string& key, std::uint32_t type, const std::string& value) {
  return text(key) + u32(type) + value;
}
std::string array(const std::string& key, std::uint32_t type, std::uint64_t count, const std::string& values) {
  return entry(key, k_array, u32(type) + u64(count) + values);
}
// A line of the table; extents innermost first, as the file has them.
std::string tensor(const std::string& name, const std::vector<std::uint64_t>& extents, std::uint32_t format,
                   std::uint64_t offset) {
  std::string line = text(name) + u32(static_cast<std::uint32_t>(extents.size()));
  for (const std::uint64_t extent : extents) line += u64(extent);
  return line + u32(format) + u64(offset);
}
std::string header(std::uint64_t tensors, std::uint64_t entries, std::uint32_t version = 3) {
  return "GGUF" + u32(version) + u64(tensors) + u64(entries);
}
std::string joined(const std::vector<std::string>& parts) {
  std::string all;
  for (const std::string& part : parts) all += part;
  return all;
}
std::string gguf(const std::vector<std::string>& entries, const std::vector<std::string>& tensors, std::size_t data = 0,
                 std::size_t alignment = 32) {
  std::string file = header(tensors.size(), entries.size()) + joined(entries) + joined(tensors);
  if (data > 0) file.resize((file.size() + alignment - 1) / alignment * alignment + data, '\1');
  return file;
}
// Something of everything.
std::string small_file() {
  return gguf(
      {entry("general.architecture", k_text, text("tiny")), entry("a", 0, "\xfe"), entry("b", 1, "\xfe"),
       entry("c", 2, raw(std::uint16_t{65535})), entry("d", 3, raw(std::int16_t{-2})), entry("e", 4, u32(4000000000u)),
       entry("f", 5, raw(std::int32_t{-7})), entry("g", 6, raw(0.5f)), entry("h", 7, "\1"),
       entry("i", 10, u64(1ull << 40)), entry("j", 11, raw(std::int64_t{-1})), entry("k", 12, raw(0.25)),
       array("tokens", k_text, 3, text("a") + text("") + text("\xff")), array("scores", 6, 2, raw(1.5f) + raw(-2.0f)),
       array("kinds", 5, 2, raw(3) + raw(-4)), array("flags", 7, 2, std::string("\1\0", 2))},
      {tensor("w", {32, 2}, 2, 0), tensor("b", {3}, 0, 64)}, 64 + 12);
}

class GgufFile : public testing::Test {
 protected:
  Result<io::Gguf> read(const std::string& bytes) {
    write_file(path, bytes);
    return io::read_gguf(path);
  }
  // The file fails so, and says this about itself and about the thing at fault.
  void says(const std::string& bytes, Errc code, const std::string& words, const std::string& about = "") {
    const auto file = read(bytes);
    EXPECT_FAILS(file, code) << words;
    EXPECT_FAILS_SAYING(file, words);
    EXPECT_FAILS_SAYING(file, about.empty() ? "model.gguf" : "model.gguf: " + about);
  }

  TemporaryFolder folder;
  std::string path = folder / "model.gguf";
};

// Looks at all that a reader gave.
void look_at(const io::Gguf& file) {
  for (const auto& line : file.metadata()) {
    ASSERT_EQ(file.metadata(line.key), &line);
    ASSERT_GT(line.preview().size, 0u);
    (void)file.i64(line.key);
    (void)file.f32(line.key);
    (void)file.boolean(line.key);
    (void)file.text(line.key);
    (void)file.integers(line.key);
    (void)file.reals(line.key);
    if (const auto list = file.texts(line.key)) ASSERT_EQ((*list)->size(), line.count);
  }
  for (const auto& line : file.entries()) {
    ASSERT_EQ(file.find(line.name), &line);
    const auto view = file.tensor(line.name);
    if (!view) continue;
    ASSERT_EQ(row_bytes(view->dtype(), view->numel()), line.bytes);
    unsigned sum = 0;
    for (std::size_t i = 0; i < line.bytes; ++i) sum += static_cast<unsigned>(view->data()[i]);
    ASSERT_GE(sum, 0u);
  }
}

}  // namespace

TEST_F(GgufFile, GivesMetadataOfEveryType) {
  const auto file = read(small_file());
  ASSERT_OK(file);
  EXPECT_EQ(file->version(), 3u);
  EXPECT_EQ(file->metadata().size(), 16u);
  EXPECT_EQ(file->text("general.architecture").value(), "tiny");
  EXPECT_EQ(file->u32("a").value(), 254u);
  EXPECT_EQ(file->i32("b").value(), -2);
  EXPECT_EQ(file->u64("c").value(), 65535u);
  EXPECT_EQ(file->i64("d").value(), -2);
  EXPECT_EQ(file->u32("e").value(), 4000000000u);
  EXPECT_EQ(file->i32("f").value(), -7);
  EXPECT_EQ(file->f32("g").value(), 0.5f);
  EXPECT_EQ(file->boolean("h").value(), true);
  EXPECT_EQ(file->u64("i").value(), 1ull << 40);
  EXPECT_EQ(file->i64("j").value(), -1);
  EXPECT_EQ(file->f32("k").value(), 0.25f);
  const auto tokens = file->texts("tokens");
  ASSERT_OK(tokens);
  std::vector<std::string> list;
  for (const auto& token : **tokens) list.emplace_back(token);
  EXPECT_EQ(list, (std::vector<std::string>{"a", "", "\xff"}));
  const auto scores = file->reals("scores");
  ASSERT_OK(scores);
  EXPECT_EQ((*scores)[1], -2.0f);
  const auto kinds = file->integers("kinds"), flags = file->integers("flags");
  ASSERT_OK(kinds);
  EXPECT_EQ((*kinds)[1], -4);
  EXPECT_EQ((*flags)[0], 1);
}

TEST_F(GgufFile, RefusesValuesOfAnotherKind) {
  const auto file = read(small_file());
  ASSERT_OK(file);
  EXPECT_FAILS(file->u32("nothing"), Errc::not_found);
  EXPECT_FAILS_SAYING(file->u32("nothing"), "nothing: not found");
  EXPECT_FAILS(file->u32("b"), Errc::overflow);
  EXPECT_FAILS(file->i32("e"), Errc::overflow);
  EXPECT_FAILS(file->u32("i"), Errc::overflow);
  EXPECT_FAILS(file->u64("j"), Errc::overflow);
  EXPECT_FAILS(file->u32("g"), Errc::invalid_dtype);
  EXPECT_FAILS(file->u32("h"), Errc::invalid_dtype);
  EXPECT_FAILS(file->u32("tokens"), Errc::invalid_dtype);
  EXPECT_FAILS_SAYING(file->u32("tokens"), "tokens: invalid dtype: one value is wanted");
  EXPECT_FAILS(file->f32("a"), Errc::invalid_dtype);
  EXPECT_FAILS(file->boolean("a"), Errc::invalid_dtype);
  EXPECT_FAILS(file->text("a"), Errc::invalid_dtype);
  EXPECT_FAILS(file->texts("a"), Errc::invalid_dtype);
  EXPECT_FAILS(file->texts("kinds"), Errc::invalid_dtype);
  EXPECT_FAILS(file->integers("scores"), Errc::invalid_dtype);
  EXPECT_FAILS(file->reals("kinds"), Errc::invalid_dtype);
  EXPECT_FAILS(file->reals("tokens"), Errc::invalid_dtype);
  EXPECT_FAILS(file->integers("g"), Errc::invalid_dtype);
  EXPECT_EQ(file->u32("nothing", 5).value(), 5u);
  EXPECT_EQ(file->i32("nothing", -5).value(), -5);
  EXPECT_EQ(file->f32("nothing", 0.5f).value(), 0.5f);
  EXPECT_EQ(file->boolean("nothing", true).value(), true);
  EXPECT_EQ(file->text("nothing", "x").value(), "x");
  EXPECT_EQ(file->u32("a", 5).value(), 254u);
  EXPECT_FAILS(file->u32("g", 5), Errc::invalid_dtype);
  const auto wide = read(gguf({entry("x", 12, raw(1e300)), array("y", 12, 2, raw(1.0) + raw(-1e300)),
                               array("z", 4, 1, u32(3000000000u)), entry("inf", 12, raw(1.0 / 0.0))},
                              {}));
  ASSERT_OK(wide);
  EXPECT_FAILS(wide->f32("x"), Errc::overflow);
  EXPECT_FAILS(wide->reals("y"), Errc::overflow);
  EXPECT_FAILS(wide->integers("z"), Errc::overflow);
  EXPECT_GT(wide->f32("inf").value(), 3e38f);
}

TEST_F(GgufFile, ShowsValuesShortened) {
  const auto file =
      read(gguf({entry("a", 4, u32(7)), entry("b", 7, std::string(1, '\0')), entry("c", 6, raw(0.1f)),
                 entry("d", k_text, text("say \x1b[1m\n")), entry("e", k_text, text(std::string(59, 'x') + "äöü")),
                 array("f", 5, 9, std::string(36, '\0')), array("g", k_text, 1, text("q")), array("h", 0, 0, ""),
                 entry("k", k_text, text("\xc2\x9bÛä\x7f")), entry("l", k_text, text("\xff\x9bq")),
                 entry("i", 10, u64(~0ull)), entry("j", 1, "\xff")},
                {}));
  ASSERT_OK(file);
  const auto shown = [&](const char* key) { return std::string(file->metadata(key)->preview().view()); };
  EXPECT_EQ(shown("a"), "7");
  EXPECT_EQ(shown("b"), "false");
  EXPECT_EQ(shown("c"), "0.1");
  EXPECT_EQ(shown("d"), "\"say .[1m\\n\"");
  EXPECT_EQ(shown("e"), "\"" + std::string(59, 'x') + "…\"");
  EXPECT_EQ(shown("f"), "[0, 0, 0, 0, 0, 0, 0, 0, …] of 9");
  EXPECT_EQ(shown("g"), "[\"q\"] of 1");
  EXPECT_EQ(shown("h"), "[] of 0");
  EXPECT_EQ(shown("i"), "18446744073709551615");
  EXPECT_EQ(shown("j"), "-1");
  EXPECT_EQ(shown("k"), "\".Ûä.\"");
  EXPECT_EQ(shown("l"), "\"..q\"");
  EXPECT_EQ(io::to_string(GgufType::f64), "f64");
}

TEST_F(GgufFile, GivesTensorsAsViews) {
  std::optional<io::Gguf> file(read(small_file()).value());
  ASSERT_EQ(file->entries().size(), 2u);
  EXPECT_EQ(file->entries()[0].type, "Q4_0");
  const Tensor w = file->tensor("w").value(), b = file->tensor("b").value();
  EXPECT_EQ(w.dtype(), DType::q4_0);
  EXPECT_EQ(w.shape(), Shape({2, 32}));
  EXPECT_EQ(b.data() - w.data(), 64);
  EXPECT_EQ(reinterpret_cast<std::uintptr_t>(w.data()) % 32, 0u);
  EXPECT_EQ(b.to_vector().value().size(), 3u);
  EXPECT_FAILS(file->tensor("v"), Errc::not_found);
  io::Gguf moved = std::move(*file);
  file.reset();
  EXPECT_EQ(b.to_vector().value().size(), 3u);
  EXPECT_EQ(moved.text("general.architecture").value(), "tiny");
  moved = io::Gguf();
  EXPECT_FAILS(b.to_vector(), Errc::stale_tensor);
}

TEST_F(GgufFile, TakesWhatIsUnusualButValid) {
  EXPECT_OK(read(header(0, 0, 2)));
  EXPECT_OK(read(header(0, 0)));
  const auto odd =
      read(gguf({entry("general.alignment", 4, u32(8))},
                {tensor("scalar", {}, 0, 16), tensor("none", {32, 0}, 8, 16), tensor("all", {1, 2, 1, 2}, 1, 0),
                 tensor("wide", {5}, 28, 24), tensor("iq", {256}, 17, 64)},
                140, 8));
  ASSERT_OK(odd);
  EXPECT_EQ(odd->tensor("scalar")->rank(), 0);
  EXPECT_EQ(odd->tensor("none")->shape(), Shape({0, 32}));
  EXPECT_EQ(odd->tensor("all")->shape(), Shape({2, 1, 2, 1}));
  EXPECT_FAILS(odd->tensor("wide"), Errc::unsupported);
  EXPECT_FAILS(odd->tensor("iq"), Errc::unsupported);
  EXPECT_FAILS_SAYING(odd->tensor("iq"), "iq, IQ2_XS");
  EXPECT_EQ(odd->find("iq")->bytes, 74u);
  EXPECT_EQ(odd->alignment(), 8u);
}

TEST_F(GgufFile, NamesEachMistakeOfTheHeader) {
  EXPECT_FAILS(io::read_gguf(folder / "nowhere"), Errc::not_found);
  EXPECT_FAILS(io::read_gguf(folder.path()), Errc::io);
  says("", Errc::corrupt, "not a GGUF file");
  says("GGU", Errc::corrupt, "not a GGUF file");
  says("GGML" + u32(3), Errc::corrupt, "not a GGUF file");
  says("GGUF", Errc::corrupt, "ends within its tables");
  says(header(0, 0, 0), Errc::corrupt, "no version 0");
  says(header(0, 0, 1), Errc::unsupported, "version 1;");
  says(header(0, 0, 4), Errc::unsupported, "a version after 3");
  says(header(0, 0, 3u << 24), Errc::unsupported, "big-endian");
  for (const std::uint64_t count :
       {std::uint64_t{1}, std::uint64_t{1} << 32, std::uint64_t{1} << 63, ~std::uint64_t{0}}) {
    says(header(count, 0), Errc::corrupt, "more than the file can hold");
    says(header(0, count), Errc::corrupt, "more than the file can hold");
  }
}

TEST_F(GgufFile, NamesEachMistakeOfTheMetadata) {
  const auto one = [](const std::string& line) { return header(0, 1) + line + std::string(40, '\0'); };
  const std::uint64_t k_huge = ~std::uint64_t{0};
  for (const std::uint64_t length : {k_huge, k_huge - 8, std::uint64_t{1} << 63, std::uint64_t{100}}) {
    says(one(u64(length) + "key"), Errc::corrupt, "a text goes past the end");
    says(one(text("key") + u32(k_text) + u64(length)), Errc::corrupt, "a text goes past the end", "key");
    says(one(array("key", k_text, 2, u64(0) + u64(length))), Errc::corrupt, "a text goes past the end", "key");
    says(one(array("key", 0, length, "")), Errc::corrupt, "an array goes past the end", "key");
    says(one(array("key", 12, length, "")), Errc::corrupt, "an array goes past the end", "key");
    says(one(array("key", k_text, length, "")), Errc::corrupt, "an array goes past the end", "key");
  }
  says(one(array("key", 12, 6, "")), Errc::corrupt, "an array goes past the end", "key");
  says(one(array("key", 10, (k_huge >> 3) + 2, "")), Errc::corrupt, "an array goes past the end", "key");
  says(one(array("key", k_array, 1, u32(0) + u64(1))), Errc::unsupported, "an array of arrays", "key");
  says(one(entry("key", 13, "")), Errc::unsupported, "a type of value that is not known", "key");
  says(one(entry("key", 0xffffffff, "")), Errc::unsupported, "a type of value that is not known", "key");
  says(one(array("key", 13, 0, "")), Errc::unsupported, "a type of value that is not known", "key");
  says(one(entry("key", 7, "\2")), Errc::corrupt, "a boolean is 0 or 1", "key");
  says(one(array("key", 7, 3, "\1\1\xff")), Errc::corrupt, "a boolean is 0 or 1", "key");
  says(one(entry("", 0, "\1")), Errc::corrupt, "a key that is empty");
  says(one(entry("\xff", 0, "\1")), Errc::corrupt, "or not UTF-8");
  says(one(entry("a\x1b[2J", 0, "\1")), Errc::corrupt, "control characters");
  says(gguf({entry("x", 0, "\1"), entry("y", 0, "\1"), entry("x", 4, u32(1))}, {}), Errc::corrupt, "a key stands twice",
       "x");
  says(header(0, 1) + text("key") + u32(12) + "1234567", Errc::corrupt, "ends within its tables", "key");
}

TEST_F(GgufFile, NamesEachMistakeOfTheAlignment) {
  const auto with = [](std::uint32_t type, const std::string& value) {
    return gguf({entry("general.alignment", type, value)}, {});
  };
  says(with(10, u64(32)), Errc::corrupt, "the alignment is a u32", "general.alignment");
  says(gguf({array("general.alignment", 4, 1, u32(32))}, {}), Errc::corrupt, "the alignment is a u32",
       "general.alignment");
  for (const std::uint32_t bad : {0u, 1u, 4u, 24u, 0xffffffffu})
    says(with(4, u32(bad)), Errc::corrupt, "a power of two and at least 8", "general.alignment");
  says(with(4, u32(1u << 31)), Errc::unsupported, "more than 1 MiB", "general.alignment");
  EXPECT_OK(read(with(4, u32(1u << 20))));
  says(with(4, u32(1u << 21)), Errc::unsupported, "more than 1 MiB", "general.alignment");
}

TEST_F(GgufFile, NamesEachMistakeOfTheTable) {
  const auto one = [](const std::string& line) { return gguf({}, {line}, 256); };
  const std::uint64_t k_huge = ~std::uint64_t{0}, k_half = std::uint64_t{1} << 63;
  EXPECT_OK(read(one(tensor("w", {64}, 0, 0))));
  for (const std::uint32_t retired : {4u, 5u, 31u, 32u, 33u, 36u, 37u, 38u})
    says(one(tensor("w", {32}, retired, 0)), Errc::unsupported, "a retired tensor format",
         "w, type " + std::to_string(retired));
  says(one(tensor("w", {32}, 4, 0)), Errc::unsupported, "retired", "w, type 4 (Q4_2)");
  for (const std::uint32_t unknown : {40u, 99u, 0x7fffffffu, 0x80000000u, 0xffffffffu})
    says(one(tensor("w", {32}, unknown, 0)), Errc::unsupported, "format that is not known",
         "w, type " + std::to_string(unknown));
  says(one(tensor("w", {31}, 2, 0)), Errc::corrupt, "not whole blocks", "w");
  says(one(tensor("w", {32, 8}, 14, 0)), Errc::corrupt, "not whole blocks", "w");
  says(one(tensor("w", {}, 8, 0)), Errc::corrupt, "not whole blocks", "w");
  says(one(tensor("w", {1, 1, 1, 1, 1}, 0, 0)), Errc::unsupported, "more than 4 dimensions", "w");
  says(one(text("w") + u32(0xffffffff)), Errc::unsupported, "more than 4 dimensions", "w");
  for (const std::uint64_t extent : {k_huge, k_half})
    says(one(tensor("w", {extent}, 0, 0)), Errc::overflow, "an extent does not fit", "w");
  says(one(tensor("w", {k_half - 1}, 0, 0)), Errc::overflow, "more elements than", "w");
  says(one(tensor("w", {1ull << 32, 1ull << 32}, 0, 0)), Errc::overflow, "more elements than", "w");
  says(one(tensor("w", {1ull << 62, 4, 1}, 0, 0)), Errc::overflow, "more elements than", "w");
  says(one(tensor("w", {0, 1ull << 40, 1ull << 40}, 0, 0)), Errc::overflow, "more elements than", "w");
  says(one(tensor("w", {1ull << 46}, 0, 0)), Errc::corrupt, "not inside the file", "w");
  says(one(tensor("w", {65}, 0, 0)), Errc::corrupt, "not inside the file", "w");
  says(one(tensor("w", {64}, 0, 32)), Errc::corrupt, "not inside the file", "w");
  says(one(tensor("w", {0}, 0, 288)), Errc::corrupt, "not inside the file", "w");
  says(one(tensor("w", {1}, 0, k_half)), Errc::corrupt, "not inside the file", "w");
  says(one(tensor("w", {1}, 0, k_huge - 31)), Errc::overflow, "offset does not fit", "w");
  for (const std::uint64_t offset : {std::uint64_t{1}, std::uint64_t{16}, k_huge})
    says(one(tensor("w", {1}, 0, offset)), Errc::misaligned, "multiple of the file's alignment", "w");
  says(one(tensor("", {1}, 0, 0)), Errc::corrupt, "name that is empty");
  says(one(tensor("\xc3", {1}, 0, 0)), Errc::corrupt, "or not UTF-8");
  says(one(tensor("a\n", {1}, 0, 0)), Errc::corrupt, "control characters");
  says(one(tensor("a\xc2\x9b", {1}, 0, 0)), Errc::corrupt, "control characters");
  says(one(u64(k_huge) + "w"), Errc::corrupt, "a text goes past the end");
  says(gguf({}, {tensor("w", {1}, 0, 0), tensor("v", {1}, 0, 32), tensor("w", {1}, 0, 64)}, 256), Errc::corrupt,
       "the same name", "w");
  says(gguf({}, {tensor("w", {1}, 0, 0)}), Errc::corrupt, "not inside the file", "w");
}

TEST_F(GgufFile, LetsNoTwoTensorsShareBytes) {
  says(gguf({}, {tensor("a", {8}, 0, 32), tensor("b", {8}, 0, 32)}, 256), Errc::corrupt, "two tensors share bytes");
  says(gguf({}, {tensor("a", {8}, 0, 32), tensor("b", {9}, 0, 0)}, 256), Errc::corrupt, "two tensors share bytes", "a");
  says(gguf({}, {tensor("a", {64}, 0, 0), tensor("none", {0}, 0, 64), tensor("b", {8}, 0, 96)}, 256), Errc::corrupt,
       "two tensors share bytes", "b");
  EXPECT_OK(read(gguf({}, {tensor("a", {8}, 0, 32), tensor("none", {0}, 0, 32), tensor("b", {8}, 0, 0)}, 256)));
}

TEST_F(GgufFile, TakesAsMuchAsItsLimitsAllow) {
  constexpr io::GgufLimits k_most;
  const auto both = [&](const std::function<std::string(std::uint64_t)>& make, std::uint64_t most, const char* words) {
    EXPECT_OK(read(make(most)));
    says(make(most + 1), Errc::unsupported, words);
  };
  both(
      [](std::uint64_t n) {
        std::vector<std::string> lines;
        for (std::uint64_t i = 0; i < n; ++i) lines.push_back(entry(std::to_string(i), 0, "\1"));
        return gguf(lines, {});
      },
      k_most.entries, "16384 entries");
  both(
      [](std::uint64_t n) {
        std::vector<std::string> lines;
        for (std::uint64_t i = 0; i < n; ++i) lines.push_back(tensor(std::to_string(i), {}, 24, 32 * i));
        return gguf({}, lines, 32 * n);
      },
      k_most.tensors, "65536 tensors");
  both([](std::uint64_t n) { return gguf({entry(std::string(n, 'k'), 0, "\1")}, {}); }, k_most.key, "a key of more");
  both([](std::uint64_t n) { return gguf({entry("t", k_text, text(std::string(n, 't')))}, {}); }, k_most.text,
       "a text of more");
  both([](std::uint64_t n) { return gguf({array("a", 0, n, std::string(n, 'a'))}, {}); }, k_most.array,
       "2^24 elements");
  both([](std::uint64_t n) { return gguf({}, {tensor(std::string(n, 'n'), {1}, 0, 0)}, 32); }, k_most.name,
       "255 bytes");
  both([](std::uint64_t n) { return gguf({}, {tensor("w", std::vector<std::uint64_t>(n, 1), 0, 0)}, 32); },
       k_most.dimensions, "4 dimensions");
}

TEST_F(GgufFile, SurvivesEveryDamagedByte) {
  std::size_t valid = 0, refused = 0;
  sweep(small_file(), [&](const std::string& bytes) {
    const auto file = read(bytes);
    if (file) look_at(*file);
    ++(file ? valid : refused);
  });
  EXPECT_GT(valid, 100u);
  EXPECT_GT(refused, 1000u);
}

TEST_F(GgufFile, AllocatesATableForEachThingAndNoMore) {
  QORUS_NEEDS_ALLOCATION_COUNTER();
  std::string pieces;
  for (int i = 0; i < 100000; ++i) pieces += text("piece");
  write_file(path, gguf({array("tokens", k_text, 100000, pieces), array("more", k_text, 2, text("a") + text("b"))},
                        {tensor("w", {1}, 0, 0), tensor("v", {1}, 0, 32)}, 64));
  const auto first = io::read_gguf(path);  // the pool of blocks may grow once
  ASSERT_OK(first);
  EXPECT_LE(allocations_of([&] { ASSERT_OK(io::read_gguf(path)); }), 8u);
}

TEST_F(GgufFile, EveryAllocationMayFail) {
  QORUS_NEEDS_ALLOCATION_COUNTER();
  write_file(path, small_file());
  ASSERT_OK(io::read_gguf(path));
  bool done = false;
  for (std::uint64_t k = 0; k < 50 && !done; ++k) {
    std::optional<Result<io::Gguf>> file;
    {
      qorus_test::FailingAllocations failing(k);
      file.emplace(io::read_gguf(path));
    }
    done = file->has_value();
    if (!done) EXPECT_FAILS(*file, Errc::out_of_memory);
  }
  EXPECT_TRUE(done);
}

// --- files by others ---

TEST(GgufModels, ReadsATinyLlamaInThreeFormats) {
  QORUS_NEEDS_DATA("models/stories260K/stories260K-F32.gguf");
  const auto open = [](const char* type) {
    return io::read_gguf(data_path(std::string("models/stories260K/stories260K-") + type + ".gguf"));
  };
  const auto plain = open("F32");
  ASSERT_OK(plain);
  look_at(*plain);
  EXPECT_EQ(plain->text("general.architecture").value(), "llama");
  EXPECT_EQ(plain->u32("llama.block_count").value(), 5u);
  EXPECT_EQ(plain->u32("llama.embedding_length").value(), 64u);
  EXPECT_EQ(plain->texts("tokenizer.ggml.tokens").value()->size(), 512u);
  EXPECT_EQ(plain->reals("tokenizer.ggml.scores")->size(), 512u);
  EXPECT_EQ(plain->find("blk.0.ffn_gate.weight")->shape, Shape({172, 64}));
  for (const char* type : {"q8_0", "q4_0"}) {
    const auto packed = open(type);
    ASSERT_OK(packed);
    look_at(*packed);
    ASSERT_EQ(packed->entries().size(), plain->entries().size());
    std::size_t blocks = 0;
    for (const auto& line : packed->entries()) {
      const auto from = plain->tensor(line.name), to = packed->tensor(line.name);
      ASSERT_OK(from);
      ASSERT_OK(to);
      ASSERT_EQ(from->shape(), to->shape());
      if (!is_block(to->dtype())) continue;
      ++blocks;  // made from the plain ones by ggml's own quantiser, with an importance of 1 for every column
      const auto cols = static_cast<std::size_t>(from->dim(-1));
      const std::vector<float> ones(cols, 1.0f);
      std::string made(line.bytes, '\0');
      kernels::active().quantize(to->dtype() == DType::q8_0 ? kernels::Quant::q8_0 : kernels::Quant::q4_0, from->f32(),
                                 ones.data(), made.data(), from->numel() / cols, cols);
      EXPECT_EQ(std::memcmp(made.data(), to->data(), line.bytes), 0) << line.name;
    }
    EXPECT_GT(blocks, 20u);
  }
}

TEST(GgufModels, ReadsVocabularies) {
  QORUS_NEEDS_DATA("tokenizer-vocab/ggml-vocab-gpt-2.gguf");
  const auto gpt2 = io::read_gguf(data_path("tokenizer-vocab/ggml-vocab-gpt-2.gguf"));
  ASSERT_OK(gpt2);
  look_at(*gpt2);
  EXPECT_EQ(gpt2->texts("tokenizer.ggml.tokens").value()->size(), 50257u);
  EXPECT_EQ(gpt2->texts("tokenizer.ggml.merges").value()->size(), 50000u);
  EXPECT_EQ(gpt2->entries().size(), 0u);
  const auto llama = io::read_gguf(data_path("tokenizer-vocab/ggml-vocab-llama-spm.gguf"));
  ASSERT_OK(llama);
  look_at(*llama);
  EXPECT_EQ(llama->text("tokenizer.ggml.model").value(), "llama");
  EXPECT_EQ(llama->integers("tokenizer.ggml.token_type")->size(), 32000u);
}
