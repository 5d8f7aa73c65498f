// qorus.llm: the files that models come in, and the architectures they hold. Models are small and written here: a weight is a rule
// (bench/peers/architectures.py), so that the fixtures in tests/architectures are a config, names and expected logits.
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "tests/llm_models.h"

using namespace qorus;
using namespace qorus_test;

// As transformers computes them, in f32: within 1e-4 of the largest logit (measured: 3e-6).
TEST(LlmArchitectures, LogitsAreThoseOfTransformers) {
  std::size_t count = 0;
  for (const auto& entry : std::filesystem::directory_iterator(QORUS_ARCHITECTURES)) {
    const std::string name = entry.path().stem().string(), fixture = read_file(entry.path().string());
    const qorus_test::TemporaryFolder folder;
    const Json json = qorus_test::JsonParser(fixture).value();
    write_model(folder.path(), fixture, json);
    auto model = llm::open(folder.path());
    ASSERT_OK(model) << name;
    const auto ids = json["ids"].ids();
    // Of the contexts that models with changing rope can be opened with: the prompt's own.
    const auto context = static_cast<std::int64_t>(ids.size());
    const auto all = logits_of(*model, ids, {.context = context, .threads = 2});
    ASSERT_EQ(all.size(), ids.size() * 48) << name;
    std::vector<float> got, wanted;
    for (const std::int32_t row : json["rows"].ids())
      got.insert(got.end(), all.begin() + row * 48, all.begin() + row * 48 + 48);
    for (const Json& x : json["logits"].items) wanted.push_back(std::stof(x.text));
    EXPECT_LE(distance(got, wanted), 1e-4 * largest(wanted)) << name;
    // In pieces, token by token, and from a cache of f16.
    EXPECT_EQ(logits_of(*model, ids, {.context = context, .batch = 1, .threads = 1}), all) << name;
    EXPECT_EQ(logits_of(*model, ids, {.context = context, .batch = 5, .threads = 3}), all) << name;
    // Where the last logits alone are wanted, the last block goes over their rows alone: of two sequences, together and in pieces.
    const std::vector<float> last_two(all.end() - 2 * 48, all.end());
    for (const std::int64_t batch : {256, 7, 1}) {
      auto session = llm::Session::create(*model, {.context = context, .batch = batch, .sequences = 2, .threads = 2});
      ASSERT_OK(session) << name;
      const llm::SequenceInput inputs[] = {{1, std::span(ids).first(ids.size() - 1)}, {0, ids}};
      auto given = session->feed_batch(inputs);
      ASSERT_OK(given) << name << batch;
      EXPECT_EQ(std::vector<float>(given->begin(), given->end()), last_two) << name << batch;
    }
    const auto half = logits_of(*model, ids, {.context = context, .cache = DType::f16, .threads = 1});
    EXPECT_LE(distance(half, all), 2e-2 * largest(all)) << name;
    EXPECT_GT(distance(half, all), 0) << name;
    ++count;
  }
  EXPECT_GE(count, 20u);
}

class LlmFiles : public qorus_test::StoriesTest {};

TEST_F(LlmFiles, ACheckpointOfLlama2c) {
  auto model = llm::open(stories("stories260K.bin"));
  ASSERT_OK(model);
  EXPECT_LE(distance(logits_of(*model, k_story), reference()), 1e-4);
  EXPECT_EQ(greedy(*model, 256), published());
}

TEST_F(LlmFiles, AFolderOfSafetensors) {
  prepare();
  Tensors tensors = hugging_face_stories();
  const std::string text = published();
  tensors.write(folder / "model.safetensors");
  write_file(folder / "generation_config.json",
             R"({"do_sample": true, "temperature": 0.6, "top_p": 0.9, "repetition_penalty": 1.1, "eos_token_id": 3})");
  write_file(folder / "tokenizer_config.json", R"({"chat_template": "{{ messages[0].content }}"})");
  {
    auto model = llm::open(folder.path());
    ASSERT_OK(model);
    EXPECT_TRUE(model->ends_text(3));
    EXPECT_EQ(model->suggested().temperature, 0.6F);
    EXPECT_EQ(model->suggested().top_k, 50);
    EXPECT_EQ(model->suggested().top_p, 0.9F);
    EXPECT_EQ(model->suggested().repetition_penalty, 1.1F);
    EXPECT_EQ(model->chat_template(), "{{ messages[0].content }}");
    EXPECT_LE(distance(logits_of(*model, k_story), reference()), 1e-4);
    EXPECT_EQ(greedy(*model, 256), text);
    EXPECT_TRUE(model->ends_text(2));
  }
  for (const DType dtype : {DType::f16, DType::bf16}) {
    tensors.write(folder / "model.safetensors", dtype);
    auto model = llm::open(folder / "model.safetensors");
    ASSERT_OK(model);
    EXPECT_LE(distance(logits_of(*model, k_story), reference()), dtype == DType::f16 ? 0.05 : 0.5);
    EXPECT_EQ(greedy(*model, 20), text.substr(0, greedy(*model, 20).size()));
  }
}

TEST_F(LlmFiles, Shards) {
  prepare();
  Tensors tensors = hugging_face_stories();
  const std::size_t half = tensors.names().size() / 2;
  tensors.write(folder / "model-00001-of-00002.safetensors", DType::f32, 0, half);
  tensors.write(folder / "model-00002-of-00002.safetensors", DType::f32, half);
  std::string index = R"({"metadata": {"total_size": 1}, "weight_map": {)";
  for (std::size_t i = 0; i < tensors.names().size(); ++i) {
    index += (i ? ", \"" : "\"") + tensors.names()[i] + "\": \"model-0000" + (i < half ? "1" : "2") +
             "-of-00002.safetensors\"";
  }
  write_file(folder / "model.safetensors.index.json", index + "}}");
  auto model = llm::open(folder.path());
  ASSERT_OK(model);
  EXPECT_LE(distance(logits_of(*model, k_story), reference()), 1e-4);
  write_file(folder / "model.safetensors.index.json", R"({"weight_map": {"a": "../model.safetensors"}})");
  EXPECT_FAILS(llm::open(folder.path()), Errc::corrupt);
  write_file(folder / "model.safetensors.index.json", R"({"weight_map": {"a": "none.safetensors"}})");
  EXPECT_FAILS_SAYING(llm::open(folder.path()), "none.safetensors");
  write_file(folder / "model.safetensors.index.json", "{");
  EXPECT_FAILS_SAYING(llm::open(folder.path()), "index.json");
}

TEST_F(LlmFiles, WhatIsWrongIsNamed) {
  prepare();
  Tensors tensors = hugging_face_stories();
  const auto config = [&](const std::string& from, const std::string& to) {
    std::string text = k_stories_config;
    text.replace(text.find(from), from.size(), to);
    write_file(folder / "config.json", text);
    return llm::open(folder.path());
  };
  EXPECT_FAILS_SAYING(llm::open(folder.path()), "model.safetensors.index.json");
  tensors.write(folder / "model.safetensors");
  EXPECT_OK(config("llama", "mistral"));
  EXPECT_FAILS_SAYING(config("\"llama\"", "\"t5\""), "t5");
  EXPECT_FAILS_SAYING(config("model_type", "model_tipe"), "model_type");
  EXPECT_FAILS_SAYING(config("hidden_size", "hiden_size"), "hidden_size");
  EXPECT_FAILS_SAYING(config("silu", "mish"), "mish");
  EXPECT_FAILS_SAYING(config("\"hidden_size\": 64", "\"hidden_size\": 96"), "weight");
  EXPECT_FAILS_SAYING(config("\"num_hidden_layers\": 5", "\"num_hidden_layers\": 6"), "blk.5.");
  EXPECT_FAILS_SAYING(config("\"vocab_size\"", R"("rope_scaling": {"type": "spiral"}, "vocab_size")"), "spiral");
  const auto yarn =
      config("\"vocab_size\"",
             R"("rope_scaling": {"type": "yarn", "factor": 4, "mscale": 2, "mscale_all_dim": 0.5}, "vocab_size")");
  ASSERT_OK(yarn);
  EXPECT_NEAR(yarn->config().rope.scaling.attention_factor, (0.2 * std::log(4.0) + 1) / (0.05 * std::log(4.0) + 1),
              1e-6);
  EXPECT_FAILS(config("\"num_attention_heads\": 8", "\"num_attention_heads\": 3"), Errc::invalid_argument);
  EXPECT_FAILS(config("}", ""), Errc::corrupt);
  write_file(folder / "config.json", k_stories_config);
  tensors.write(folder / "model.safetensors", DType::f32, 0, tensors.names().size() - 1);
  EXPECT_FAILS(llm::open(folder.path()), Errc::not_found);
  // Single bytes of GGUF and llama2.c files changed.
  const std::string gguf = read_file(stories("stories260K-F32.gguf")), bin = read_file(stories("stories260K.bin"));
  const auto with = [&](const std::string& whole, std::size_t at, const std::string& bytes) {
    std::string changed = whole;
    changed.replace(at, bytes.size(), bytes);
    write_file(folder / "changed", changed);
    return llm::open(folder / "changed");
  };
  EXPECT_FAILS_SAYING(with(gguf, gguf.find("llama", gguf.find("general.architecture")), "lambs"), "lambs");
  const std::size_t entry = gguf.find("blk.2.attn_k.weight");
  const auto unsupported = with(gguf, entry + 19 + 4 + 16, std::string("\x19\0\0\0", 4));  // I16
  EXPECT_FAILS(unsupported, Errc::unsupported);
  EXPECT_FAILS_SAYING(unsupported, "blk.2.attn_k.weight");
  EXPECT_FAILS(with(gguf.substr(0, gguf.size() / 2), 0, "GGUF"), Errc::corrupt);
  for (std::size_t i = 0; i < 28; i += 4)
    EXPECT_FAILS(with(bin, i, std::string("\xff\xff\xff\x7f", 4)), Errc::corrupt) << i;
  EXPECT_FAILS(with(bin.substr(0, bin.size() - 1), 0, ""), Errc::corrupt);
  EXPECT_FAILS(with(bin.substr(0, 10), 0, ""), Errc::corrupt);
  EXPECT_FAILS(with(bin, 0, "24ka"), Errc::unsupported);
}

TEST_F(LlmFiles, WithoutATokenizerIdsWork) {
  std::filesystem::copy_file(stories("stories260K.bin"), folder / "model.bin");
  auto model = llm::open(folder / "model.bin");
  ASSERT_OK(model);
  EXPECT_EQ(model->tokenizer().size(), 0u);
  EXPECT_LE(distance(logits_of(*model, k_story), reference()), 1e-4);
  EXPECT_FAILS(llm::generate(*model, "a", {}, [](std::string_view) { return true; }), Errc::not_found);
  const std::string tokenizer = stories("tok512.bin");
  auto given = llm::open(folder / "model.bin", {.tokenizer = tokenizer});
  ASSERT_OK(given);
  EXPECT_EQ(greedy(*given, 20), published().substr(0, greedy(*given, 20).size()));
  EXPECT_FAILS(llm::open(folder / "model.bin", {.tokenizer = "/nowhere"}), Errc::not_found);
}
