// qorus.text on the files that vocabularies come in, small ones made here: what they hold, and what happens when they are damaged.
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "tests/files.h"
#include "tests/testing.h"

import qorus.text;

using namespace qorus;
using Ids = std::vector<std::int32_t>;

namespace {

Ids encode(const Result<text::Tokenizer>& tokenizer, std::string_view text, const text::EncodeOptions& options = {}) {
  const auto ids = tokenizer->encode(text, options);
  EXPECT_OK(ids);
  return ids ? Ids(ids->begin(), ids->end()) : Ids();
}

std::string varint(std::uint64_t value) {
  std::string made;
  for (; value >= 128; value >>= 7) made += static_cast<char>(value | 128);
  return made + static_cast<char>(value);
}
std::string field(unsigned number, const std::string& bytes) {
  return varint(number << 3 | 2) + varint(bytes.size()) + bytes;
}
std::string field(unsigned number, std::uint64_t value) { return varint(number << 3) + varint(value); }
template <class T>
std::string raw(T value) {
  return {reinterpret_cast<const char*>(&value), sizeof value};
}
std::string sentencepiece() {
  std::string made;
  const auto piece = [&](const std::string& text, float score, std::uint64_t kind) {
    made += field(1, field(1, text) + varint(2 << 3 | 5) + raw(score) + field(3, kind));
  };
  piece("<unk>", 0, 2);
  piece("<s>", 0, 3);
  piece("</s>", 0, 3);
  piece("<0x41>", 0, 6);
  piece("▁a", -1, 1);
  piece("▁", -2, 1);
  piece("a", -3, 1);
  return made + field(2, field(3, std::uint64_t{2}) + field(41, std::uint64_t{1})) +
         field(3, field(3, std::uint64_t{1}) + field(4, std::uint64_t{0}));
}
std::string llama2c() {
  std::string made = raw(std::int32_t{7});
  const auto piece = [&](const std::string& text) {
    made += raw(0.5f) + raw(static_cast<std::int32_t>(text.size())) + text;
  };
  for (const char* special : {"<unk>", "<s>", "</s>"}) piece(special);
  char name[8];
  for (int b = 0; b < 256; ++b) {
    std::snprintf(name, sizeof name, "<0x%02X>", b);
    piece(name);
  }
  piece(" a");
  return made;
}
constexpr const char* k_json =
    R"({"added_tokens":[{"id":4,"content":"<|end|>","special":true,"lstrip":false,"rstrip":true}],
  "normalizer":{"type":"NFC"},"pre_tokenizer":{"type":"Sequence","pretokenizers":[{"type":"Split","pattern":{"Regex":"\\p{N}"},
  "behavior":"Isolated","invert":false},{"type":"ByteLevel","add_prefix_space":false,"use_regex":false}]},"decoder":{"type":"ByteLevel"},
  "post_processor":{"type":"TemplateProcessing","single":[{"Sequence":{"id":"A"}},{"SpecialToken":{"id":"<|end|>"}}]},
  "model":{"type":"BPE","unk_token":"\u0120","vocab":{"a":0,"b":1,"ab":2,"\u0120":3},"merges":["a b"]}})";

std::span<const std::byte> bytes_of(const std::string& text) {
  return std::as_bytes(std::span(text.data(), text.size()));
}

}  // namespace

TEST(TextFiles, WhatTheyHold) {
  const auto model = text::from_sentencepiece(bytes_of(sentencepiece()));
  ASSERT_OK(model);
  EXPECT_EQ(encode(model, "aaA€", {.bos = true}), (Ids{1, 4, 6, 3, 0}));
  EXPECT_TRUE(model->adds_bos());
  const auto stories = text::from_llama2c(bytes_of(llama2c()));
  ASSERT_OK(stories);
  EXPECT_EQ(encode(stories, "b"), (Ids{3 + ' ', 3 + 'b'}));
  const auto json = text::from_json(k_json);
  ASSERT_OK(json);
  EXPECT_EQ(encode(json, "ab a<|end|>  b", {.eos = true, .special = true}), (Ids{2, 3, 0, 4, 1, 4}));
  EXPECT_EQ(json->eos(), 4);
  EXPECT_TRUE(json->adds_eos());
  const auto ranks = text::from_tiktoken("YQ== 0\nYg== 1\nYWI= 2\n", "cl100k");
  ASSERT_OK(ranks);
  EXPECT_EQ(encode(ranks, "abb"), (Ids{2, 1}));
  EXPECT_FAILS(text::from_tiktoken("YQ== 0\nYg== 2\n", "cl100k"), Errc::corrupt);
  EXPECT_FAILS(text::from_tiktoken("YQ==", "cl100k"), Errc::corrupt);
}

// What Metaspace says of the blank before a text: by the newer name, by the older, or nothing, which is yes.
TEST(TextFiles, MetaspacePutsABlankBeforeUnlessItSaysNo) {
  const struct {
    const char* said;
    bool puts;
  } cases[] = {{"", true},
               {R"(,"add_prefix_space":true)", true},
               {R"(,"add_prefix_space":false)", false},
               {R"(,"prepend_scheme":"always")", true},
               {R"(,"prepend_scheme":"first","add_prefix_space":false)", true},
               {R"(,"prepend_scheme":"never","add_prefix_space":true)", false}};
  for (const auto& c : cases) {
    const auto made =
        text::from_json(std::string(R"({"pre_tokenizer":{"type":"Metaspace")") + c.said +
                        R"(},"model":{"type":"BPE","unk_token":"<unk>","vocab":{"<unk>":0,"a":1,"▁":2},"merges":[]}})");
    ASSERT_OK(made);
    EXPECT_EQ(encode(made, "a a"), (c.puts ? Ids{2, 1, 2, 1} : Ids{1, 2, 1})) << c.said;
  }
}

// Each byte changed, each length cut: a tokenizer or an error, and the tokenizer works.
TEST(TextFiles, DamagedAnywhere) {
  const auto use = [](const Result<text::Tokenizer>& tokenizer) {
    if (!tokenizer) {
      EXPECT_NE(tokenizer.error().code, Errc::ok);
      return;
    }
    for (const char* text : {"ab a <|end|> A€", "<s>"}) {
      const auto ids = tokenizer->encode(text, {.special = true});
      if (ids) EXPECT_OK(tokenizer->decode(ids->span()));
    }
  };
  qorus_test::sweep(sentencepiece(), [&](const std::string& bytes) { use(text::from_sentencepiece(bytes_of(bytes))); });
  qorus_test::sweep(llama2c(), [&](const std::string& bytes) { use(text::from_llama2c(bytes_of(bytes))); });
  qorus_test::sweep(k_json, [&](const std::string& bytes) { use(text::from_json(bytes)); });
  qorus_test::sweep("YQ== 0\nYg== 1\nYWI= 2\n",
                    [&](const std::string& bytes) { use(text::from_tiktoken(bytes, "cl100k")); });
}

TEST(TextFiles, JsonThatIsNoneOrTooMuch) {
  for (const char* text : {"", "{", "{}", "[]", "{\"model\":1}", "{\"model\":{}}",
                           "{\"model\":{\"vocab\":{\"a\":9999999999}}}", "nul", "{\"a\":01}"}) {
    EXPECT_FAILS(text::from_json(text), Errc::corrupt);
  }
  EXPECT_FAILS(text::from_json(std::string(100000, '[')), Errc::corrupt);
  std::string other = k_json;
  other.replace(other.find("NFC"), 3, "XYZ");
  EXPECT_FAILS_SAYING(text::from_json(other), "XYZ");
  other = k_json;
  other.replace(other.find("p{N}"), 4, "p{Q}");
  EXPECT_FAILS_SAYING(text::from_json(other), "p{Q}");
}

// The number of ranks tells which pre-tokenizer goes with them.
TEST(TextFiles, RankFilesAreKnownByTheirNumber) {
  const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  const auto base64 = [&](unsigned a, unsigned b, unsigned c) {
    return std::string{digits[a >> 2], digits[(a & 3) << 4 | b >> 4], digits[(b & 15) << 2 | c >> 6], digits[c & 63]};
  };
  std::string ranks;
  int count = 0;
  for (; count < 256; ++count) {
    const auto byte = static_cast<unsigned>(count);
    ranks += std::string{digits[byte >> 2], digits[(byte & 3) << 4]} + "== " + std::to_string(count) + "\n";
  }
  const auto grow = [&](int wanted) {
    for (; count < wanted; ++count) {
      const auto n = static_cast<unsigned>(count);
      ranks += base64(n & 255, n >> 8 & 255, 7 + (n >> 16)) + " " + std::to_string(count) + "\n";
    }
  };
  const qorus_test::TemporaryFolder folder;
  grow(50256);
  qorus_test::write_file(folder / "r50k.tiktoken", ranks);
  const auto opened = text::open(folder / "r50k.tiktoken");
  ASSERT_OK(opened);
  EXPECT_EQ(opened->size(), 50256u);
  const auto ids = opened->encode("ab c");
  ASSERT_OK(ids);
  EXPECT_EQ(std::vector<std::int32_t>(ids->begin(), ids->end()), (std::vector<std::int32_t>{'a', 'b', ' ', 'c'}));
  for (const int size : {50280, 100256, 128000, 151643, 199998}) {
    grow(size);
    qorus_test::write_file(folder / "more.tiktoken", ranks);
    EXPECT_OK(text::open(folder / "more.tiktoken")) << size;
  }
  qorus_test::write_file(folder / "few.tiktoken", "YQ== 0\nYg== 1\n");
  EXPECT_FAILS_SAYING(text::open(folder / "few.tiktoken"), "few.tiktoken");
  qorus_test::write_file(folder / "none.tiktoken", "abcde 0\nYg== 1\n");  // no base64: five digits
  EXPECT_FAILS_SAYING(text::open(folder / "none.tiktoken"), "none.tiktoken");
}

// As a vocabulary for others, pieces have an end: so long a one is no piece of any known file.
TEST(TextFiles, RanksOfLongPiecesAreNoVocabulary) {
  std::string ranks = std::string(1024, 'A') + " 0\n";
  for (int rank = 1; rank < 50256; ++rank) ranks += "YQ== " + std::to_string(rank) + "\n";
  const qorus_test::TemporaryFolder folder;
  qorus_test::write_file(folder / "r50k.tiktoken", ranks);
  EXPECT_FAILS_SAYING(text::read_vocabulary(folder / "r50k.tiktoken", {}), "512");
}

// GPT-2's pieces as ranks have GPT-2's list of merges, and its end of a text behind them.
TEST(TextFiles, RanksBecomeTheMergesTheyCameFrom) {
  QORUS_NEEDS_DATA("tokenizer-json/gpt2");
  const auto source = text::open(qorus_test::data_path("tokenizer-json/gpt2/tokenizer.json"));
  ASSERT_OK(source);
  constexpr std::string_view k_digits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::string ranks;
  for (std::int32_t id = 0; id < 50256; ++id) {
    const auto piece = source->decode(std::span(&id, 1));
    ASSERT_OK(piece);
    for (std::size_t i = 0; i < piece->size(); i += 3) {
      const auto byte = [&](std::size_t at) {
        return at < piece->size() ? static_cast<unsigned>(static_cast<unsigned char>((*piece)[at])) : 0u;
      };
      const unsigned bits = byte(i) << 16 | byte(i + 1) << 8 | byte(i + 2);
      for (std::size_t j = 0; j < 4; ++j) ranks += i + j > piece->size() ? '=' : k_digits[bits >> (18 - 6 * j) & 63];
    }
    ranks += " " + std::to_string(id) + "\n";
  }
  const qorus_test::TemporaryFolder folder;
  qorus_test::write_file(folder / "r50k.tiktoken", ranks);
  std::string merges = "#version: 0.2\n";
  std::int64_t end = 0;
  const auto see = [&](const text::VocabularySpec& spec) {
    for (const std::string_view merge : spec.merges) (merges += merge) += "\n";
    end = spec.eos;
    EXPECT_EQ(spec.pieces.size(), 50257u);
    EXPECT_EQ(spec.pre_tokenizer, "gpt-2");
    const auto made = text::Tokenizer::create(spec);
    EXPECT_OK(made);
    const char* some = "Don't you think?  It's 1234 naïve cafés\n\n\tdone";
    EXPECT_EQ(encode(made, some), encode(source, some));
    return Status();
  };
  ASSERT_OK(text::read_vocabulary(folder / "r50k.tiktoken", {const_cast<void*>(static_cast<const void*>(&see)),
                                                             [](void* user, const text::VocabularySpec& spec) {
                                                               return (*static_cast<decltype(see)*>(user))(spec);
                                                             }}));
  EXPECT_EQ(end, 50256);
  EXPECT_TRUE(merges == qorus_test::read_file(qorus_test::data_path("tokenizer-json/gpt2/merges.txt")));
  qorus_test::write_file(folder / "few.tiktoken", "YQ== 0\nYg== 1\n");
  EXPECT_FAILS(text::read_vocabulary(folder / "few.tiktoken", {}), Errc::unsupported);
}

TEST(TextFiles, OpenNamesTheFile) {
  qorus_test::TemporaryFolder folder;
  const std::string path = folder / "tokenizer";
  for (const std::string& bytes : {sentencepiece(), llama2c(), std::string("  ") + k_json}) {
    qorus_test::write_file(path, bytes);
    EXPECT_OK(text::open(path));
  }
  for (const std::string& bytes : {std::string(), std::string("x"), std::string("{}"), std::string("\n\x05hello")}) {
    qorus_test::write_file(path, bytes);
    EXPECT_FAILS_SAYING(text::open(path), "tokenizer");
  }
  EXPECT_FAILS(text::open(folder / "none"), Errc::not_found);
}
