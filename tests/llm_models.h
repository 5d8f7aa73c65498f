// Small language models for tests, written here: a weight is a rule (bench/peers/architectures.py), so that the fixtures in
// tests/architectures are a config, names and expected logits; and the stories model. Included after all other headers: it imports.
#pragma once
#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <filesystem>
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

namespace qorus_test {
using namespace qorus;

inline std::string stories(const std::string& name) { return qorus_test::data_path("models/stories260K/" + name); }

inline std::vector<float> logits_of(const llm::Model& model, std::span<const std::int32_t> ids,
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

inline double largest(const std::vector<float>& values) {
  double most = 0;
  for (const float x : values) most = std::max(most, std::abs(static_cast<double>(x)));
  return most;
}
inline double distance(const std::vector<float>& a, const std::vector<float>& b) {
  EXPECT_EQ(a.size(), b.size());
  double most = 0;
  for (std::size_t i = 0; i < std::min(a.size(), b.size()); ++i)
    most = std::max(most, std::abs(static_cast<double>(a[i]) - static_cast<double>(b[i])));
  return most;
}

// Element i of the tensor is shift + scale (2 u - 1), u from splitmix64.
inline std::vector<float> by_rule(const std::string& name, std::size_t count, double shift, double scale) {
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
inline std::string config_text(const std::string& fixture) {
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

inline void write_model(const std::string& folder, const std::string& fixture, const Json& json) {
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

// The stories model under Hugging Face's names: its rotary pairs are neighbours, theirs are halves, so that rows change places.
inline Tensors hugging_face_stories() {
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

inline constexpr const char* k_stories_config =
    R"({"model_type": "llama", "hidden_size": 64, "intermediate_size": 172, "num_hidden_layers": 5, "num_attention_heads": 8,
        "num_key_value_heads": 4, "vocab_size": 512, "max_position_embeddings": 512, "rms_norm_eps": 1e-05, "hidden_act": "silu",
        "tie_word_embeddings": true, "eos_token_id": [2]})";

inline std::string greedy(const llm::Model& model, int tokens) {
  auto session = llm::Session::create(model, {.context = 512, .threads = 1});
  EXPECT_OK(session);
  std::string text;
  EXPECT_OK(llm::generate(*session, "", {.max_tokens = tokens}, [&](std::string_view piece) {
    text += piece;
    return true;
  }));
  return text;
}

inline const std::vector<std::int32_t> k_story = {1,   403, 407, 261, 378, 432, 383, 286, 261, 376, 298,
                                                  315, 421, 395, 317, 426, 338, 401, 396, 267, 337};

struct Babbler {
  std::string kind = "llama", more;  // more of its config, as in "\"sliding_window\": 40, "
  int end = -1;                      // the token that ends a text
  int width = 64;                    // two layers, heads of 32
  DType dtype = DType::f32;
};
// A model of random weights that has a word for each printable character, as a folder.
inline void write_babbler(const std::string& folder, const Babbler& wanted = {}) {
  const std::int64_t width = wanted.width, kv_heads = std::max(1, wanted.width / 128);
  const auto member = [](const std::string& name, std::int64_t value) {
    return "\"" + name + "\": " + std::to_string(value) + ", ";
  };
  std::filesystem::create_directories(folder);
  write_file(
      folder + "/config.json",
      "{" + wanted.more + "\"model_type\": \"" + wanted.kind + "\", " +
          (wanted.end < 0 ? "" : member("eos_token_id", wanted.end)) + member("hidden_size", width) +
          member("intermediate_size", width) + member("num_attention_heads", width / 32) +
          member("num_key_value_heads", kv_heads) +
          R"("num_hidden_layers": 2, "vocab_size": 96, "max_position_embeddings": 512, "rms_norm_eps": 1e-05, "hidden_act": "silu"})");
  std::string words = R"("\u0120": 0)";
  for (int c = '!'; c <= '~'; ++c)
    words += std::string(", \"") + (c == '"' || c == '\\' ? "\\" : "") + static_cast<char>(c) +
             "\": " + std::to_string(c - ' ');
  write_file(folder + "/tokenizer.json",
             R"({"added_tokens": [{"id": 95, "content": "<s>", "special": true}], "decoder": {"type": "ByteLevel"},
      "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false, "use_regex": true},
      "model": {"type": "BPE", "merges": [], "vocab": {)" +
                 words + "}}}");
  Tensors tensors;
  const auto add = [&](const std::string& name, std::int64_t rows, double scale) {
    tensors.add(
        name + ".weight", {rows, width},
        by_rule(name, static_cast<std::size_t>(rows * width), 0, scale / std::sqrt(static_cast<double>(width))));
  };
  const auto norm = [&](const std::string& name) {
    tensors.add(name + ".weight", {width}, std::vector<float>(static_cast<std::size_t>(width), 1.0F));
  };
  add("model.embed_tokens", 96, 16);
  add("lm_head", 96, 6);
  norm("model.norm");
  for (const std::string layer : {"model.layers.0.", "model.layers.1."}) {
    norm(layer + "input_layernorm");
    norm(layer + "post_attention_layernorm");
    for (const char* name : {"self_attn.q_proj", "self_attn.o_proj", "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"})
      add(layer + name, width, 2);
    for (const char* name : {"self_attn.k_proj", "self_attn.v_proj"}) add(layer + name, 32 * kv_heads, 2);
  }
  tensors.write(folder + "/model.safetensors", wanted.dtype);
}

class StoriesTest : public testing::Test {
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

}  // namespace qorus_test
