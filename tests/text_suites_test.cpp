// qorus.text against the ids that the reference implementations give: llama.cpp's vocabulary suites, Hugging Face's tokenizer.json,
// SentencePiece's model of Llama 2, llama2.c's tokenizer. Needs the data folder.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "tests/files.h"
#include "tests/json.h"
#include "tests/testing.h"

import qorus.text;

using namespace qorus;
using qorus_test::data_path;
using qorus_test::read_file;

namespace {

constexpr const char* k_llama_model = "tokenizer-vocab/llama2-tokenizer.model";
constexpr const char* k_gpt2_json = "tokenizer-json/gpt2/tokenizer.json";

std::vector<std::int32_t> encode(const text::Tokenizer& tokenizer, const std::string& text,
                                 const text::EncodeOptions& options = {}) {
  const auto ids = tokenizer.encode(text, options);
  EXPECT_OK(ids);
  return ids ? std::vector<std::int32_t>(ids->begin(), ids->end()) : std::vector<std::int32_t>();
}
std::string decode(const text::Tokenizer& tokenizer, const std::vector<std::int32_t>& ids,
                   const text::DecodeOptions& options = {}) {
  const auto text = tokenizer.decode(ids, options);
  EXPECT_OK(text);
  return text ? std::string(text->begin(), text->end()) : std::string();
}

struct Case {
  std::string text;
  std::vector<std::int32_t> ids;
};

// NAME.inp: texts with a line of its own between; NAME.out: their ids, a line each.
std::vector<Case> read_suite(const std::string& name) {
  const std::string mark = "\n__ggml_vocab_test__\n", in = read_file(name + ".inp"), out = read_file(name + ".out");
  std::vector<Case> cases;
  std::size_t line = 0;
  for (std::size_t at = 0; at <= in.size();) {
    const std::size_t end = std::min(in.find(mark, at), in.size());
    Case one{in.substr(at, end - at), {}};
    const std::size_t stop = std::min(out.find('\n', line), out.size());
    const char* next = out.c_str() + line;
    while (next < out.c_str() + stop) {
      char* after = nullptr;
      const long id = std::strtol(next, &after, 10);
      if (after == next || after > out.c_str() + stop) break;
      one.ids.push_back(static_cast<std::int32_t>(id));
      next = after;
    }
    line = stop + 1;
    cases.push_back(one);
    at = end == in.size() ? end + 1 : end + mark.size();
  }
  return cases;
}

// Every text has the expected ids, and comes back from them, whole and piece by piece.
void run_suite(const text::Tokenizer& tokenizer, const std::vector<Case>& cases, bool lossless = true) {
  for (const Case& one : cases) {
    SCOPED_TRACE(testing::PrintToString(one.text.substr(0, 200)));
    EXPECT_EQ(encode(tokenizer, one.text), one.ids);
    if (!lossless) continue;
    EXPECT_EQ(decode(tokenizer, one.ids), one.text);
    text::StreamDecoder stream(tokenizer);
    std::string joined;
    for (const std::int32_t id : one.ids) {
      const auto piece = stream.next(id);
      ASSERT_OK(piece);
      joined += *piece;
    }
    joined += stream.finish();
    EXPECT_EQ(joined, one.text);
  }
}

std::vector<Case> long_cases(const char* tokenizer) {
  const qorus_test::Json expected =
      qorus_test::JsonParser(read_file(data_path("tokenizer-vocab/long/expected.json"))).value();
  std::vector<Case> cases;
  for (const auto& [name, ids] : expected["ids"][tokenizer].members) {
    cases.push_back({read_file(data_path("tokenizer-vocab/long/" + name + ".txt")), ids.ids()});
  }
  return cases;
}

}  // namespace

TEST(TextSuites, Gpt2FromJson) {
  QORUS_NEEDS_DATA("tokenizer-json/gpt2/expected.json");
  const auto tokenizer = text::open(data_path(k_gpt2_json));
  ASSERT_OK(tokenizer);
  EXPECT_EQ(tokenizer->size(), 50257u);
  const auto expected = qorus_test::JsonParser(read_file(data_path("tokenizer-json/gpt2/expected.json"))).value();
  ASSERT_GE(expected["cases"].members.size(), 26u);
  for (const auto& [name, one] : expected["cases"].members) {
    SCOPED_TRACE(name);
    const auto ids = encode(*tokenizer, one["text"].text, {.special = true});
    EXPECT_EQ(ids, one["ids"].ids());
    EXPECT_EQ(decode(*tokenizer, ids, {.special = true}), one["text"].text);
    for (std::size_t i = 0; i < ids.size(); ++i) EXPECT_EQ(tokenizer->piece(ids[i]), one["tokens"].items.at(i).text);
  }
}

TEST(TextSuites, Gpt2SuiteAndLongTexts) {
  QORUS_NEEDS_DATA("tokenizer-vocab/long/expected.json");
  const auto tokenizer = text::open(data_path(k_gpt2_json));
  ASSERT_OK(tokenizer);
  const auto suite = read_suite(data_path("tokenizer-vocab/ggml-vocab-gpt-2.gguf"));
  EXPECT_EQ(suite.size(), 47u);
  run_suite(*tokenizer, suite);
  const auto texts = long_cases("gpt-2");
  EXPECT_EQ(texts.size(), 2u);
  run_suite(*tokenizer, texts);
}

TEST(TextSuites, Llama2FromSentencePiece) {
  QORUS_NEEDS_DATA("tokenizer-vocab/long/expected.json");
  const auto tokenizer = text::open(data_path(k_llama_model));
  ASSERT_OK(tokenizer);
  EXPECT_EQ(tokenizer->size(), 32000u);
  EXPECT_EQ(tokenizer->bos(), 1);
  EXPECT_EQ(tokenizer->eos(), 2);
  const auto suite = read_suite(data_path("tokenizer-vocab/ggml-vocab-llama-spm.gguf"));
  EXPECT_EQ(suite.size(), 47u);
  run_suite(*tokenizer, suite);
  const auto texts = long_cases("llama-spm");
  EXPECT_EQ(texts.size(), 2u);
  run_suite(*tokenizer, texts);
  const auto prompts = qorus_test::JsonParser(read_file(data_path("tokenizer-vocab/llama2.expected.json"))).value();
  ASSERT_FALSE(prompts.items.empty());
  for (const auto& prompt : prompts.items) {
    EXPECT_EQ(encode(*tokenizer, prompt["text"].text, {.bos = true}), prompt["ids_with_bos"].ids());
    EXPECT_EQ(decode(*tokenizer, prompt["ids_with_bos"].ids()), prompt["text"].text);
  }
}

TEST(TextSuites, StoriesFromLlama2c) {
  QORUS_NEEDS_DATA("models/stories260K/tok512.bin");
  const auto tokenizer = text::open(data_path("models/stories260K/tok512.bin"));
  ASSERT_OK(tokenizer);
  EXPECT_EQ(tokenizer->size(), 512u);
  const auto expected = qorus_test::JsonParser(read_file(data_path("models/stories260K/expected.json"))).value();
  EXPECT_EQ(encode(*tokenizer, expected["prompt"].text, {.bos = true}), expected["prompt_ids_with_bos"].ids());
  EXPECT_EQ(decode(*tokenizer, expected["prompt_ids_with_bos"].ids()), expected["prompt"].text);
}

// Whatever vocabularies of GGUF the folder holds with a suite of texts.
TEST(TextSuites, EveryGgufVocabulary) {
  QORUS_NEEDS_DATA("tokenizer-vocab");
  for (const char* name : {"gpt-2", "llama-spm", "llama-bpe", "phi-3", "falcon", "mpt", "starcoder", "refact", "qwen2",
                           "command-r", "deepseek-llm", "deepseek-coder", "bert-bge"}) {
    const std::string path = data_path(std::string("tokenizer-vocab/ggml-vocab-") + name + ".gguf");
    if (!qorus_test::exists(path)) continue;
    SCOPED_TRACE(name);
    const auto tokenizer = text::open(path);
    ASSERT_OK(tokenizer);
    const auto suite = read_suite(path);
    EXPECT_FALSE(suite.empty());
    run_suite(*tokenizer, suite, std::string(name) != "bert-bge");
  }
}

TEST(TextSuites, LongTextsFromGguf) {
  QORUS_NEEDS_DATA("tokenizer-vocab/long/expected.json");
  for (const char* name : {"gpt-2", "llama-spm"}) {
    const auto tokenizer = text::open(data_path(std::string("tokenizer-vocab/ggml-vocab-") + name + ".gguf"));
    ASSERT_OK(tokenizer);
    run_suite(*tokenizer, long_cases(name));
  }
}
