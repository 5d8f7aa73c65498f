// qorus.llm: the files that models come in, and the architectures they hold. Models are small and written here: a weight is a rule
// (bench/peers/architectures.py), so that the fixtures in tests/architectures are a config, names and expected logits.
#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "tests/files.h"
#include "tests/json.h"
#include "tests/testing.h"

import qorus.llm;
import qorus.nn;

using namespace qorus;
using qorus_test::Json;
using qorus_test::read_file;
using qorus_test::write_file;

namespace {

std::string stories(const std::string& name) { return qorus_test::data_path("models/stories260K/" + name); }

std::vector<float> logits_of(const llm::Model& model, std::span<const std::int32_t> ids,
                             const llm::SessionOptions& options = {.threads = 1}) {
  auto session = llm::Session::create(model, options);
  std::vector<float> all;
  if (!session) {
    ADD_FAILURE() << session.error().message().c_str();
    return all;
  }
  auto last = session->feed(
      ids, [&](std::size_t, std::span<const float> row) { all.insert(all.end(), row.begin(), row.end()); });
  EXPECT_OK(last);
  return all;
}

double largest(const std::vector<float>& values) {
  double most = 0;
  for (const float x : values) most = std::max(most, std::abs(static_cast<double>(x)));
  return most;
}
double distance(const std::vector<float>& a, const std::vector<float>& b) {
  EXPECT_EQ(a.size(), b.size());
  double most = 0;
  for (std::size_t i = 0; i < std::min(a.size(), b.size()); ++i)
    most = std::max(most, std::abs(static_cast<double>(a[i]) - static_cast<double>(b[i])));
  return most;
}

// Element i of the tensor is shift + scale (2 u - 1), u from splitmix64.
std::vector<float> by_rule(const std::string& name, std::size_t count, double shift, double scale) {
  std::uint64_t seed = 0xcbf29ce484222325;
  for (const char c : name) seed = (seed ^ static_cast<std::uint8_t>(c)) * 0x100000001b3;
  std::vector<float> values(count);
  for (std::size_t i = 0; i < count; ++i) {
    std::uint64_t z = seed + (i + 1) * 0x9e3779b97f4a7c15;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
    z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
    const double u = static_cast<double>((z ^ (z >> 31)) >> 40) / 16777216.0;
    values[i] = static_cast<float>(shift + scale * (2 * u - 1));
  }
  return values;
}

// The text of a fixture's config, as it stands in the file.
std::string config_text(const std::string& fixture) {
  const std::size_t begin = fixture.find("\"config\": ") + 10;
  return fixture.substr(begin, fixture.find("},\n", begin) + 1 - begin);
}

// Named tensors with their memory, for writing.
class Tensors {
 public:
  void add(const std::string& name, const Shape& shape, std::vector<float> values) {
    names_.push_back(name);
    auto made = Owned::from(std::span<const float>(values), shape);
    ASSERT_OK(made);
    owners_.push_back(std::move(*made));
  }
  // The tensors [first, last) as another type.
  void write(const std::string& path, DType dtype = DType::f32, std::size_t first = 0, std::size_t last = SIZE_MAX) {
    Workspace workspace{{.scratch = 64_MiB, .threads = 1}};
    auto frame = workspace.frame();
    std::vector<io::NamedTensor> list;
    for (std::size_t i = first; i < std::min(last, names_.size()); ++i) {
      auto cast = ops::cast(frame.input(owners_[i]), dtype);
      ASSERT_OK(cast);
      list.push_back({names_[i], *cast});
    }
    ASSERT_OK(io::write_safetensors(path, list));
  }
  [[nodiscard]] const std::vector<std::string>& names() const { return names_; }

 private:
  std::vector<std::string> names_;
  std::vector<Owned> owners_;
};

void write_model(const std::string& folder, const std::string& fixture, const Json& json) {
  Tensors tensors;
  for (const Json& row : json["tensors"].items) {
    std::vector<std::int64_t> dims;
    for (const Json& d : row.items[1].items) dims.push_back(std::stoll(d.text));
    const Shape shape{std::span<const std::int64_t>(dims)};
    tensors.add(row.items[0].text, shape,
                by_rule(row.items[0].text, shape.numel(), std::stod(row.items[2].text), std::stod(row.items[3].text)));
  }
  tensors.write(folder + "/model.safetensors");
  write_file(folder + "/config.json", config_text(fixture));
}

}  // namespace

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
    const auto half = logits_of(*model, ids, {.context = context, .cache = DType::f16, .threads = 1});
    EXPECT_LE(distance(half, all), 2e-2 * largest(all)) << name;
    EXPECT_GT(distance(half, all), 0) << name;
    ++count;
  }
  EXPECT_GE(count, 20u);
}

namespace {

// The stories model under Hugging Face's names: its rotary pairs are neighbours, theirs are halves, so that rows change places.
Tensors hugging_face_stories() {
  auto file = io::read_gguf(stories("stories260K-F32.gguf"));
  Tensors made;
  EXPECT_OK(file);
  const std::map<std::string, std::string> parts = {
      {"attn_norm", "input_layernorm"}, {"attn_q", "self_attn.q_proj"},      {"attn_k", "self_attn.k_proj"},
      {"attn_v", "self_attn.v_proj"},   {"attn_output", "self_attn.o_proj"}, {"ffn_norm", "post_attention_layernorm"},
      {"ffn_gate", "mlp.gate_proj"},    {"ffn_up", "mlp.up_proj"},           {"ffn_down", "mlp.down_proj"}};
  for (const auto& entry : file->entries().span()) {
    const std::string name(entry.name);
    auto values = *file->tensor(entry.name)->to_vector();
    std::string theirs = name == "token_embd.weight"    ? "model.embed_tokens.weight"
                         : name == "output_norm.weight" ? "model.norm.weight"
                                                        : "lm_head.weight";
    if (name.rfind("blk.", 0) == 0) {
      const std::size_t dot = name.find('.', 4), end = name.rfind('.');
      const std::string part = name.substr(dot + 1, end - dot - 1);
      theirs = "model.layers." + name.substr(4, dot - 4) + "." + parts.at(part) + ".weight";
      if (part == "attn_q" || part == "attn_k") {
        const auto old = values;
        const std::size_t dim = 8, cols = 64;
        for (std::size_t row = 0; row < old.size() / cols; ++row) {
          const std::size_t j = row % dim, from = row - j + (j < dim / 2 ? 2 * j : 2 * (j - dim / 2) + 1);
          std::copy_n(old.begin() + static_cast<std::ptrdiff_t>(from * cols), cols,
                      values.begin() + static_cast<std::ptrdiff_t>(row * cols));
        }
      }
    }
    made.add(theirs, entry.shape, values);
  }
  return made;
}

constexpr const char* k_stories_config =
    R"({"model_type": "llama", "hidden_size": 64, "intermediate_size": 172, "num_hidden_layers": 5, "num_attention_heads": 8,
        "num_key_value_heads": 4, "vocab_size": 512, "max_position_embeddings": 512, "rms_norm_eps": 1e-05, "hidden_act": "silu",
        "tie_word_embeddings": true, "eos_token_id": [2]})";

std::string greedy(const llm::Model& model, int tokens) {
  auto session = llm::Session::create(model, {.context = 512, .threads = 1});
  EXPECT_OK(session);
  std::string text;
  EXPECT_OK(llm::generate(*session, "", {.max_tokens = tokens}, [&](std::string_view piece) {
    text += piece;
    return true;
  }));
  return text;
}

const std::vector<std::int32_t> k_story = {1,   403, 407, 261, 378, 432, 383, 286, 261, 376, 298,
                                           315, 421, 395, 317, 426, 338, 401, 396, 267, 337};

}  // namespace

class LlmFiles : public testing::Test {
 protected:
  void SetUp() override { QORUS_NEEDS_DATA("models/stories260K"); }
  void prepare() {
    write_file(folder / "config.json", k_stories_config);
    std::filesystem::copy_file(stories("tok512.bin"), folder / "tok512.bin");
  }
  // What the reference gives for k_story.
  static std::vector<float> reference() {
    return *io::read_npy(stories("stories260K-F32.logits.npy"))->tensor().to_vector();
  }
  static std::string published() {
    return qorus_test::JsonParser(read_file(stories("expected.json"))).value()["greedy_from_BOS_257_steps"].text;
  }
  qorus_test::TemporaryFolder folder;
};

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
