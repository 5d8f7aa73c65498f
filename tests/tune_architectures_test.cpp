// qorus.tune over every architecture: what training sees is what sessions compute, gradients are slopes, adapters in files are those that were
// trained. Models are small and written here, as in llm_files_test.cpp.
#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "tests/llm_models.h"

import qorus.tune;

using namespace qorus;
using namespace qorus_test;

namespace {

// Mean of -ln softmax(logits)[next id].
double surprise(const std::vector<float>& logits, std::span<const std::int32_t> ids) {
  double sum = 0;
  for (std::size_t i = 0; i + 1 < ids.size(); ++i) {
    const auto row = std::span(logits).subspan(i * 48, 48);
    double total = 0;
    for (const float x : row) total += std::exp(static_cast<double>(x));
    sum += std::log(total) - static_cast<double>(row[static_cast<std::size_t>(ids[i + 1])]);
  }
  return sum / static_cast<double>(ids.size() - 1);
}

// The loss of rows, and its gradient by the slab that is trained.
double loss_of(const tune::Tuner& tuner, const tune::Rows& rows, std::vector<float>* gradient) {
  Workspace workspace{{.scratch = 256_MiB, .threads = 2}};
  auto tape = workspace.record();
  auto x = tape.input(rows.inputs), y = tape.input(rows.targets);
  auto loss = tuner.loss(*x, *y);
  EXPECT_OK(loss);
  const double value = static_cast<double>(*loss->item());
  if (!gradient) return value;
  auto gradients = backward(*loss);
  EXPECT_OK(gradients);
  auto slab = gradients->slab(tuner.parameters().block());
  EXPECT_OK(slab);
  gradient->assign(slab->begin(), slab->end());
  return value;
}

tune::Sample sample_of(std::span<const std::int32_t> ids) {
  tune::Sample sample;
  EXPECT_OK(sample.ids.append(ids));
  EXPECT_OK(sample.counts.resize(ids.size()));
  std::fill(sample.counts.begin(), sample.counts.end(), std::uint8_t{1});
  return sample;
}

// Two samples in one row, with adapters that do something: the loss is that of the two alone as sessions give it, its slope along the gradient the
// gradient's norm, and an adapter written to a file gives the same logits again.
void check_training(const std::string& folder, const std::string& name, const std::vector<std::int32_t>& ids) {
  auto model = llm::open(folder, {.lay_out = false});
  ASSERT_OK(model) << name;
  auto tuner = tune::Tuner::create(*model, {.rank = 2, .alpha = 3, .targets = "all", .seed = 5});
  ASSERT_OK(tuner) << name;
  const std::span<float> slab = tuner->parameters().trainable_slab();
  const auto noise = by_rule(name, slab.size(), 0, 0.1);
  for (std::size_t i = 0; i < slab.size(); ++i) slab[i] += noise[i];
  const auto half = static_cast<std::size_t>(std::min<std::int64_t>(12, model->config().context / 2));
  const std::vector<std::int32_t> first(ids.begin(), ids.begin() + static_cast<std::ptrdiff_t>(half)),
      second(ids.end() - static_cast<std::ptrdiff_t>(half), ids.end());
  std::vector<tune::Sample> samples;
  samples.push_back(sample_of(first));
  samples.push_back(sample_of(second));
  auto rows = tune::pack_rows(samples, {}, model->config().context);
  ASSERT_OK(rows) << name;
  ASSERT_EQ(rows->count, 1u) << name;
  const auto adapted = logits_of(*model, first);
  const double wanted = (surprise(adapted, first) + surprise(logits_of(*model, second), second)) / 2;
  std::vector<float> gradient;
  const double loss = loss_of(*tuner, *rows, &gradient);
  EXPECT_NEAR(loss, wanted, 2e-5 * wanted) << name;  // of sums of 48 f32 logits within 3e-6 of the largest
  double norm = 0;
  for (const float g : gradient) norm += static_cast<double>(g) * static_cast<double>(g);
  norm = std::sqrt(norm);
  constexpr double k_step =
      0.02;  // rounding of the loss, 1e-6, over it is 5e-5; the third derivative times its square less
  const auto move = [&](double by) {
    const std::span<float> p = tuner->parameters().trainable_slab();
    for (std::size_t i = 0; i < p.size(); ++i) p[i] += static_cast<float>(by / norm) * gradient[i];
    return loss_of(*tuner, *rows, nullptr);
  };
  const double up = move(k_step), down = move(-2 * k_step);
  EXPECT_NEAR((up - down) / (2 * k_step), norm, 1e-2 * norm + 2e-4) << name;
  EXPECT_GT(norm, 1e-3) << name;
  move(k_step);
  const auto trained = logits_of(*model, first);
  const std::string file = folder + "/adapter.gguf";
  ASSERT_OK(tune::write_adapter(*tuner, file)) << name;
  auto again = llm::open(folder, {.lay_out = false, .adapter = file});
  ASSERT_OK(again) << name;
  EXPECT_LE(distance(logits_of(*again, first), trained), 1e-5 * largest(trained)) << name;
  auto peft = tune::write_adapter(*tuner, folder + "/peft");
  if (!peft) {  // queries, keys and values in one
    EXPECT_FAILS(peft, Errc::unsupported) << name;
    return;
  }
  auto third = llm::open(folder, {.lay_out = false, .adapter = folder + "/peft"});
  ASSERT_OK(third) << name;
  EXPECT_EQ(logits_of(*third, first), trained) << name;
}

}  // namespace

TEST(TuneArchitectures, TrainingSeesWhatSessionsCompute) {
  std::size_t count = 0;
  for (const auto& entry : std::filesystem::directory_iterator(QORUS_ARCHITECTURES)) {
    const std::string name = entry.path().stem().string(), fixture = read_file(entry.path().string());
    const qorus_test::TemporaryFolder folder;
    const Json json = qorus_test::JsonParser(fixture).value();
    write_model(folder.path(), fixture, json);
    check_training(folder.path(), name, json["ids"].ids());
    ++count;
  }
  EXPECT_GE(count, 20u);
}

// Rows of queries and keys stand in another order in GGUF files than in Hugging Face's: an adapter of the one model does the same to the other.
TEST(TuneFiles, AdaptersGoFromGgufToHuggingFaceAndBack) {
  QORUS_NEEDS_DATA("models/stories260K");
  const qorus_test::TemporaryFolder folder;
  write_file(folder / "config.json", k_stories_config);
  std::filesystem::copy_file(stories("tok512.bin"), folder / "tok512.bin");
  const auto reference = *io::read_npy(stories("stories260K-F32.logits.npy"))->tensor().to_vector();
  hugging_face_stories().write(folder / "model.safetensors");
  const std::string bases[] = {stories("stories260K-F32.gguf"), folder.path(), stories("stories260K.bin")};
  for (const std::string& base : bases) {
    auto model = llm::open(base, {.lay_out = false});
    ASSERT_OK(model);
    auto tuner = tune::Tuner::create(*model, {.rank = 3, .targets = "q,k,o", .seed = 2});
    ASSERT_OK(tuner);
    const std::span<float> slab = tuner->parameters().trainable_slab();
    const auto noise = by_rule("noise", slab.size(), 0, 0.1);
    std::copy(noise.begin(), noise.end(), slab.begin());
    const auto wanted = logits_of(*model, k_story);
    EXPECT_GT(distance(wanted, reference), 1);
    for (const std::string name : {"a.gguf", "peft"}) {
      ASSERT_OK(tune::write_adapter(*tuner, folder / name));
      for (const std::string& other : bases) {
        auto again = llm::open(other, {.adapter = folder / name});
        ASSERT_OK(again);
        EXPECT_LE(distance(logits_of(*again, k_story), wanted), 1e-4) << base << " " << other << " " << name;
      }
    }
  }
}

// What PEFT's documentation and its own files say of an adapter's folder, read here without any of the library's readers: names, shapes and
// settings; and W + lora_alpha / r B A is what the adapter does, and what merging writes.
TEST(TuneFiles, PeftsLayoutIsAsDocumented) {
  QORUS_NEEDS_DATA("models/stories260K");
  const qorus_test::TemporaryFolder folder;
  write_file(folder / "config.json", k_stories_config);
  std::filesystem::copy_file(stories("tok512.bin"), folder / "tok512.bin");
  hugging_face_stories().write(folder / "model.safetensors");
  auto model = llm::open(folder.path(), {.lay_out = false});
  ASSERT_OK(model);
  auto tuner = tune::Tuner::create(*model, {.rank = 3, .alpha = 5, .targets = "all", .seed = 2});
  ASSERT_OK(tuner);
  const std::span<float> slab = tuner->parameters().trainable_slab();
  const auto noise = by_rule("peft", slab.size(), 0, 0.1);
  std::copy(noise.begin(), noise.end(), slab.begin());
  ASSERT_OK(tune::write_adapter(*tuner, folder / "peft", "stories"));
  ASSERT_OK(tune::write_adapter(*tuner, folder / "a.gguf"));
  const auto adapted = logits_of(*model, k_story);

  const Json config = qorus_test::JsonParser(read_file(folder / "peft/adapter_config.json")).value();
  const std::pair<const char*, const char*> settings[] = {{"peft_type", "LORA"},
                                                          {"task_type", "CAUSAL_LM"},
                                                          {"base_model_name_or_path", "stories"},
                                                          {"r", "3"},
                                                          {"bias", "none"},
                                                          {"fan_in_fan_out", "false"},
                                                          {"inference_mode", "true"}};
  for (const auto& [key, value] : settings) EXPECT_EQ(config[key].text, value) << key;
  EXPECT_EQ(std::stod(config["lora_alpha"].text), 5);
  std::vector<std::string> modules;
  for (const Json& one : config["target_modules"].items) modules.push_back(one.text);
  std::sort(modules.begin(), modules.end());
  EXPECT_EQ(modules,
            (std::vector<std::string>{"down_proj", "gate_proj", "k_proj", "o_proj", "q_proj", "up_proj", "v_proj"}));

  const std::string bytes = read_file(folder / "peft/adapter_model.safetensors");
  std::uint64_t size = 0;
  std::memcpy(&size, bytes.data(), 8);
  const Json header = qorus_test::JsonParser(bytes.substr(8, size)).value();
  const auto matrix = [&](const std::string& name, std::vector<std::int32_t> shape) {
    const Json& entry = header[name];
    EXPECT_EQ(entry["dtype"].text, "F32") << name;
    EXPECT_EQ(entry["shape"].ids(), shape) << name;
    const auto places = entry["data_offsets"].ids();
    std::vector<float> values(static_cast<std::size_t>(shape[0] * shape[1]));
    if (places.size() == 2 && static_cast<std::size_t>(places[1] - places[0]) == values.size() * 4)
      std::memcpy(values.data(), bytes.data() + 8 + size + places[0], values.size() * 4);
    return values;
  };
  struct Module {
    const char *peft, *gguf;
    std::int32_t out, in;
  };
  constexpr Module k_modules[] = {{"self_attn.q_proj", "attn_q", 64, 64}, {"self_attn.k_proj", "attn_k", 32, 64},
                                  {"self_attn.v_proj", "attn_v", 32, 64}, {"self_attn.o_proj", "attn_output", 64, 64},
                                  {"mlp.gate_proj", "ffn_gate", 172, 64}, {"mlp.up_proj", "ffn_up", 172, 64},
                                  {"mlp.down_proj", "ffn_down", 64, 172}};
  ASSERT_OK(tune::merge(stories("stories260K-F32.gguf"), folder / "a.gguf", folder / "merged.gguf"));
  const auto merged = io::read_gguf(folder / "merged.gguf");
  const auto base = io::read_safetensors(folder / "model.safetensors");
  ASSERT_OK(merged);
  ASSERT_OK(base);
  Tensors whole;
  std::size_t count = 0;
  for (const io::TensorEntry& entry : base->entries()) {
    const std::string name(entry.name);
    auto values = *base->tensor(name)->to_vector();
    for (const Module& m : k_modules) {
      if (name.find(m.peft) == name.npos) continue;
      const std::string stem = "base_model.model." + name.substr(0, name.size() - 7);
      const auto a = matrix(stem + ".lora_A.weight", {3, m.in}), b = matrix(stem + ".lora_B.weight", {m.out, 3});
      count += 2;
      for (std::size_t i = 0; i < values.size(); ++i) {
        double sum = 0;
        for (std::size_t r = 0; r < 3; ++r)
          sum += static_cast<double>(b[i / static_cast<std::size_t>(m.in) * 3 + r]) *
                 static_cast<double>(a[r * static_cast<std::size_t>(m.in) + i % static_cast<std::size_t>(m.in)]);
        values[i] = static_cast<float>(static_cast<double>(values[i]) + 5.0 / 3 * sum);
      }
      if (std::string_view(m.gguf) == "attn_q" || std::string_view(m.gguf) == "attn_k")
        continue;  // rows in another order
      const std::string theirs = "blk." + name.substr(13, name.find('.', 13) - 13) + "." + m.gguf + ".weight";
      const auto file = *merged->tensor(theirs)->to_vector();
      ASSERT_EQ(file.size(), values.size()) << theirs;
      for (std::size_t i = 0; i < values.size(); ++i) EXPECT_NEAR(file[i], values[i], 1e-6) << theirs << " " << i;
    }
    whole.add(name, entry.shape, values);
  }
  EXPECT_EQ(count, 70u);
  EXPECT_EQ(header.members.size(), 70u + header.members.count("__metadata__"));
  whole.write(folder / "model.safetensors");
  auto plain = llm::open(folder.path(), {.lay_out = false});
  ASSERT_OK(plain);
  EXPECT_LE(distance(logits_of(*plain, k_story), adapted), 1e-4);
}
