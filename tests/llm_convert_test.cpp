// qorus.llm: models converted between the formats, for every architecture: the same logits on the way, the same bits in the end.
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "tests/llm_models.h"

using namespace qorus;
using namespace qorus_test;

namespace {

// Whether two folders or files of safetensors have the same tensors, to the bit.
void expect_same_tensors(const std::string& a, const std::string& b, const std::string& name) {
  auto x = io::read_safetensors(a), y = io::read_safetensors(b);
  ASSERT_OK(x);
  ASSERT_OK(y);
  EXPECT_EQ(x->entries().size(), y->entries().size()) << name;
  for (const auto& entry : x->entries()) {
    auto mine = x->tensor(entry.name), other = y->tensor(entry.name);
    ASSERT_OK(other) << name;
    EXPECT_EQ(other->dtype(), mine->dtype()) << name << " " << entry.name;
    ASSERT_EQ(other->shape(), mine->shape()) << name << " " << entry.name;
    EXPECT_EQ(std::memcmp(mine->data(), other->data(), entry.bytes), 0) << name << " " << entry.name;
  }
}

}  // namespace

// To GGUF, to `.qorus`, to npz and back: the same logits on the way, the same bits in the end.
TEST(LlmArchitectures, ConvertedBothWays) {
  using llm::Container;
  for (const auto& entry : std::filesystem::directory_iterator(QORUS_ARCHITECTURES)) {
    const std::string name = entry.path().stem().string(), fixture = read_file(entry.path().string());
    const qorus_test::TemporaryFolder folder;
    const Json json = qorus_test::JsonParser(fixture).value();
    write_model(folder.path(), fixture, json);
    const std::string gguf = folder / "x.gguf", native = folder / "x.qorus", npz = folder / "x.npz",
                      again = folder / "y.gguf", back = folder / "back";
    const auto to = [](Container container) {
      return llm::ConvertOptions{.to = container, .laid_out = true, .threads = 2};
    };
    const auto there = llm::convert(folder.path(), gguf, to(Container::gguf));
    if (name == "llama_dynamic") {  // GGUF has no such rope scaling
      EXPECT_FAILS_SAYING(there, "dynamic");
      continue;
    }
    ASSERT_OK(there) << name;
    const auto ids = json["ids"].ids();
    const auto context = static_cast<std::int64_t>(ids.size());
    const auto logits = [&](const std::string& path) {
      auto model = llm::open(path);
      EXPECT_OK(model) << path;
      return model ? logits_of(*model, ids, {.context = context, .threads = 1}) : std::vector<float>();
    };
    const auto wanted = logits(folder.path()), of_gguf = logits(gguf);
    EXPECT_LE(distance(of_gguf, wanted), 1e-5 * largest(wanted)) << name;
    ASSERT_OK(llm::convert(gguf, native, to(Container::native))) << name;
    EXPECT_OK(formats::verify_native(native)) << name;
    EXPECT_EQ(logits(native), of_gguf) << name;
    ASSERT_OK(llm::convert(native, npz, to(Container::npz))) << name;
    ASSERT_OK(llm::convert(npz, again, to(Container::gguf))) << name;
    EXPECT_TRUE(read_file(again) == read_file(gguf)) << name;
    ASSERT_OK(llm::convert(native, back, to(Container::safetensors))) << name;
    expect_same_tensors(folder / "model.safetensors", back + "/model.safetensors", name);
    EXPECT_EQ(read_file(back + "/config.json"), config_text(fixture)) << name;
    ASSERT_OK(llm::convert(folder.path(), back, {.to = Container::safetensors, .shard_bytes = 4096})) << name;
    std::filesystem::remove(back + "/model.safetensors");
    EXPECT_EQ(logits(back), wanted) << name;
  }
}

// Tokenizer and configuration are put in GGUF's words, and, where a GGUF file comes from elsewhere, back into those of a folder.
TEST(LlmArchitectures, VocabulariesAreTranslated) {
  using llm::Container;
  for (const std::string name : {"qwen2", "llama_yarn", "gemma3", "mixtral", "phi3_longrope"}) {
    const std::string fixture = read_file(std::string(QORUS_ARCHITECTURES) + "/" + name + ".json");
    const qorus_test::TemporaryFolder folder;
    const Json json = qorus_test::JsonParser(fixture).value();
    write_model(folder.path(), fixture, json);
    write_file(folder / "tokenizer.json", R"({"added_tokens": [{"id": 6, "content": "<s>", "special": true}],
      "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false, "use_regex": true}, "decoder": {"type": "ByteLevel"},
      "model": {"type": "BPE", "vocab": {"a": 0, "b": 1, "ab": 2, "\u0120": 3, "\u0120ab": 4, "c": 5}, "merges": ["a b", "\u0120 ab"]}})");
    const std::string gguf = folder / "x.gguf", foreign = folder / "y.gguf", back = folder / "back";
    ASSERT_OK(llm::convert(folder.path(), gguf, {.to = Container::gguf})) << name;
    {
      auto file = io::read_gguf(gguf);
      ASSERT_OK(file);
      EXPECT_EQ(*file->text("tokenizer.ggml.pre"), "gpt-2");
      EXPECT_EQ((*file->texts("tokenizer.ggml.tokens"))->size(), 48u);
      auto writer = io::GgufWriter::create(foreign);
      ASSERT_OK(writer);
      for (const auto& entry : file->metadata()) {
        if (!entry.key.starts_with("qorus.")) ASSERT_OK(writer->put(entry));
      }
      for (const auto& entry : file->entries())
        ASSERT_OK(writer->declare(entry.name, file->tensor(entry.name)->dtype(), entry.shape));
      ASSERT_OK(writer->begin());
      for (const auto& entry : file->entries())
        ASSERT_OK(writer->write({file->tensor(entry.name)->data(), entry.bytes}));
      ASSERT_OK(writer->commit());
    }
    ASSERT_OK(llm::convert(foreign, back, {.to = Container::safetensors})) << name;
    const auto ids = json["ids"].ids();
    std::vector<float> logits[3];
    const std::string paths[] = {folder.path(), foreign, back};
    for (std::size_t i = 0; i < 3; ++i) {
      auto model = llm::open(paths[i]);
      ASSERT_OK(model) << name << " " << paths[i];
      logits[i] = logits_of(*model, ids, {.context = static_cast<std::int64_t>(ids.size()), .threads = 1});
      const auto tokens = model->tokenizer().encode("ab abc<s>", {.special = true});
      ASSERT_OK(tokens) << name;
      EXPECT_EQ(std::vector<std::int32_t>(tokens->begin(), tokens->end()), (std::vector<std::int32_t>{2, 4, 5, 6}))
          << name << i;
    }
    EXPECT_LE(distance(logits[0], logits[1]), 1e-5 * largest(logits[0])) << name;
    EXPECT_LE(distance(logits[0], logits[2]), 1e-5 * largest(logits[0])) << name;
  }
}

class LlmConvert : public qorus_test::StoriesTest {};

// GGUF from elsewhere to a folder, whose config.json and tokenizer are made; a folder in bf16 to GGUF and back; llama2.c both ways.
TEST_F(LlmConvert, Converted) {
  using llm::Container;
  const std::string text = published(), made = folder / "made", gguf = folder / "x.gguf", bin = folder / "x.bin";
  ASSERT_OK(llm::convert(stories("stories260K-F32.gguf"), made, {.to = Container::safetensors}));
  {
    auto model = llm::open(made);
    ASSERT_OK(model);
    EXPECT_LE(distance(logits_of(*model, k_story), reference()), 1e-4);
    EXPECT_EQ(greedy(*model, 256), text);
  }
  ASSERT_OK(llm::convert(made, gguf, {.to = Container::gguf}));
  EXPECT_EQ(greedy(*llm::open(gguf), 256), text);
  ASSERT_OK(llm::convert(stories("stories260K.bin"), gguf, {.to = Container::gguf}));
  {
    auto model = llm::open(gguf);
    ASSERT_OK(model);
    EXPECT_LE(distance(logits_of(*model, k_story), reference()), 1e-4);
    EXPECT_EQ(greedy(*model, 256), text);
  }
  ASSERT_OK(llm::convert(stories("stories260K.bin"), folder / "from_bin", {.to = Container::safetensors}));
  EXPECT_EQ(greedy(*llm::open(folder / "from_bin"), 256), text);
  ASSERT_OK(llm::convert(gguf, bin, {.to = Container::llama2c}));
  auto mine = MappedFile::open(bin), theirs = MappedFile::open(stories("stories260K.bin"));
  ASSERT_OK(mine);
  ASSERT_EQ(mine->bytes().size(), theirs->bytes().size());
  const std::size_t angles = 512 * 8 * sizeof(float);  // theirs are computed in f32
  EXPECT_EQ(std::memcmp(mine->bytes().data(), theirs->bytes().data(), mine->bytes().size() - angles), 0);

  prepare();
  hugging_face_stories().write(folder / "model.safetensors", DType::bf16);
  ASSERT_OK(llm::convert(folder.path(), gguf, {.to = Container::gguf}));
  EXPECT_EQ(*io::read_gguf(gguf)->u32("general.file_type"), 32u);
  ASSERT_OK(llm::convert(gguf, folder / "back", {.to = Container::safetensors}));
  expect_same_tensors(folder / "model.safetensors", folder / "back/model.safetensors", "bf16");
  EXPECT_EQ(read_file(folder / "back/config.json"), k_stories_config);

  const formats::Scheme* q8 = formats::scheme_of("q8_0");
  ASSERT_OK(
      llm::convert(folder.path(), folder / "q8.qorus", {.to = Container::native, .scheme = q8, .laid_out = true}));
  auto model = llm::open(folder / "q8.qorus");
  ASSERT_OK(model);
  EXPECT_LE(distance(logits_of(*model, k_story), reference()), 0.5);
  EXPECT_FAILS(llm::convert(gguf, folder / "no", {.to = Container::safetensors, .scheme = q8}), Errc::unsupported);
  EXPECT_FAILS(llm::convert(folder / "none", gguf, {}), Errc::not_found);
  EXPECT_FAILS(llm::convert(folder.path(), gguf,
                            {.progress = [](void*, std::string_view, std::size_t, std::size_t) { return false; }}),
               Errc::invalid_argument);
}
