// qorus.tune: data, adapters and their training on a small real model, over weights of several types; files; and what is wrong.
#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <limits>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "tests/files.h"
#include "tests/testing.h"

import qorus.tune;
import qorus.nn;

using namespace qorus;
using qorus_test::read_file;
using qorus_test::write_file;

namespace {

std::string stories(const std::string& type) {
  return qorus_test::data_path("models/stories260K/stories260K-" + type + ".gguf");
}

std::vector<float> drawn(std::size_t count, std::uint64_t seed, float scale) {
  std::vector<float> values(count);
  for (float& x : values) {
    seed = seed * 6364136223846793005u + 1442695040888963407u;
    x = scale * (static_cast<float>(seed >> 40) / 8388608.0f - 1);
  }
  return values;
}

std::vector<float> logits_of(const llm::Model& model, std::string_view text) {
  auto ids = model.tokenizer().encode(text, {.bos = true});
  auto session = llm::Session::create(model, {.context = 256, .threads = 1});
  std::vector<float> all;
  EXPECT_OK(session);
  EXPECT_OK(session->feed(std::as_const(*ids).span(), [&](std::size_t, std::span<const float> row) {
    all.insert(all.end(), row.begin(), row.end());
  }));
  return all;
}

double distance(const std::vector<float>& a, const std::vector<float>& b) {
  EXPECT_EQ(a.size(), b.size());
  double most = 0;
  for (std::size_t i = 0; i < std::min(a.size(), b.size()); ++i)
    most = std::max(most, std::abs(static_cast<double>(a[i]) - static_cast<double>(b[i])));
  return most;
}

std::string conversations() {
  std::string lines;
  for (const char* name : {"Tom", "Lily", "Max", "Sue"}) {
    for (const char* animal : {"cat", "dog", "bird"})
      lines += std::string("{\"prompt\": \"") + name + " has a " + animal + ".\", \"response\": \" The " + animal +
               " is happy because " + name + " gave it a cake.\"}\n";
  }
  return lines;
}

constexpr std::string_view k_text = "Max has a dog. The dog is happy";

}  // namespace

// Both directions against ops::linear over the same weight in f32, more than one tile of it: sums go in another order, of up to 3000 terms.
TEST(FrozenLinear, IsLinearOfTheWeightAsF32) {
  const struct {
    DType dtype;
    std::int64_t out, in, rows;
  } cases[] = {{DType::f32, 70, 96, 5},  {DType::f16, 33, 100, 7},    {DType::bf16, 33, 100, 1},
               {DType::q4_0, 70, 96, 5}, {DType::q8_0, 3000, 256, 3}, {DType::q8_0, 1, 32, 9}};
  for (const auto& c : cases) {
    const Shape shape{c.out, c.in}, x_shape{c.rows, c.in};
    auto weight = Owned::from(std::span<const float>(drawn(shape.numel(), 1, 1)), shape);
    auto input = Owned::from(std::span<const float>(drawn(x_shape.numel(), 2, 1)), x_shape);
    auto shift = Owned::from(std::span<const float>(drawn(static_cast<std::size_t>(c.out), 3, 1)), Shape{c.out});
    Workspace workspace{{.scratch = 64_MiB, .threads = 2}};
    std::vector<float> y[2], dx[2];
    for (const int frozen : {0, 1}) {
      auto tape = workspace.record();
      auto x = tape.watch(*input), b = tape.input(*shift);
      auto stored = ops::cast(tape.input(*weight), c.dtype);
      ASSERT_OK(stored);
      auto wide = ops::cast(stored, DType::f32);
      const Operand bias = b;
      auto made = frozen ? llm::frozen_linear(x, stored, &bias) : ops::linear(x, wide, b);
      ASSERT_OK(made);
      auto gradients = ops::sum(made * made + made).and_then([](const Tensor& t) { return backward(t); });
      ASSERT_OK(gradients);
      y[frozen] = *made->to_vector();
      dx[frozen] = *gradients->of(*x)->to_vector();
    }
    EXPECT_LE(distance(y[0], y[1]), 1e-4) << to_string(c.dtype);
    const double most = static_cast<double>(*std::max_element(dx[0].begin(), dx[0].end()));
    EXPECT_LE(distance(dx[0], dx[1]), 1e-5 * most) << to_string(c.dtype);
  }
}

class Finetune : public testing::Test {
 protected:
  void SetUp() override { QORUS_NEEDS_DATA("models/stories260K"); }
  Result<llm::Model> open(const std::string& type) { return llm::open(stories(type), {.lay_out = false}); }
  // The samples of some lines, packed.
  Result<tune::Rows> rows_of(const llm::Model& model, const std::string& lines, std::int64_t context = 64) {
    write_file(folder / "data.jsonl", lines);
    List<tune::Sample> samples;
    auto read = tune::read_samples(folder / "data.jsonl", model, {.context = context}, samples);
    if (!read) return fail(read.error());
    return tune::pack_rows(samples.span(), {}, context);
  }
  static train::FitOptions options(float lr, int epochs) {
    return {.optimizer = optim::adamw({.lr = lr, .weight_decay = 0}),
            .epochs = epochs,
            .batch = 3,
            .seed = 3,
            .clip_norm = 1,
            .threads = 2};
  }
  qorus_test::TemporaryFolder folder;
};

// Adapters over weights of every kind learn a small set by heart; the file of the base stays as it is; what is written runs again, over
// the weights as they are stored (the same sums) and laid out for products.
TEST_F(Finetune, AdaptersLearnOverStoredWeights) {
  for (const std::string type : {"F32", "q8_0", "q4_0"}) {
    const std::string before = read_file(stories(type));
    auto model = open(type);
    ASSERT_OK(model);
    auto rows = rows_of(*model, conversations());
    ASSERT_OK(rows);
    auto tuner = tune::Tuner::create(*model, {.rank = 4, .targets = "q,v,up", .seed = 7});
    ASSERT_OK(tuner);
    const auto base = logits_of(*model, k_text);  // b is 0: the model is what it was
    auto plain = open(type);
    EXPECT_EQ(base, logits_of(*plain, k_text)) << type;
    const auto first = tuner->measure(*rows, 2);
    ASSERT_OK(first);
    auto done = tuner->fit(*rows, options(2e-2f, 8));
    ASSERT_OK(done);
    const auto last = tuner->measure(*rows, 1);
    ASSERT_OK(last);
    EXPECT_EQ(last->tokens, rows->tokens);
    EXPECT_LT(last->loss, 0.25 * first->loss) << type;
    const auto trained = logits_of(*model, k_text);
    EXPECT_GT(distance(base, trained), 1) << type;
    for (const std::string name : {"a.gguf", "peft"}) {
      ASSERT_OK(tune::write_adapter(*tuner, folder / name, "stories"));
      auto again = llm::open(stories(type), {.lay_out = false, .adapter = folder / name});
      ASSERT_OK(again) << name;
      EXPECT_EQ(logits_of(*again, k_text), trained) << type << name;
      auto half = llm::open(stories(type), {.lay_out = false, .adapter = folder / name, .adapter_scale = 0});
      ASSERT_OK(half);
      EXPECT_EQ(logits_of(*half, k_text), base) << type << name;
    }
    // Laid out, activations are rounded to 8 bits: of the logits' deviation of 7 as much as without an adapter (see llm_test).
    auto laid_out = llm::open(stories(type), {.adapter = folder / "a.gguf"});
    ASSERT_OK(laid_out);
    EXPECT_LE(distance(logits_of(*laid_out, k_text), trained), type == "F32" ? 1e-4 : 1.5) << type;
    EXPECT_EQ(read_file(stories(type)), before) << type;
  }
}

// Over a model of random weights in Q4_K, with what the backward needs in f32 and in bf16: it learns as much in less memory.
TEST_F(Finetune, AdaptersLearnOverQ4K) {
  const std::string path = folder / "q4_k.gguf";
  auto vocabulary = text::byte_vocabulary();
  ASSERT_OK(vocabulary);
  {
    auto layers = nn::llama({.vocab = 257, .d_model = 256, .heads = 4, .layers = 8, .block = {.d_ff = 512}});
    auto random = nn::build(std::move(layers), {80}, init::normal(3), {.input = DType::i32});
    ASSERT_OK(random);
    ASSERT_OK(tune::write_gguf(*random, vocabulary->spec(), path, {.type = "q4_k_m", .threads = 2}));
  }
  const std::string before = read_file(path);
  std::size_t scratch[2] = {};
  double losses[2] = {};
  for (const bool bf16 : {false, true}) {
    auto model = llm::open(path, {.lay_out = false});
    ASSERT_OK(model);
    EXPECT_EQ(std::as_const(*model).layers().blocks[0].q_proj.weight.tensor.dtype(), DType::q4_k);
    const std::string lines = conversations();
    auto rows = rows_of(*model, lines.substr(0, lines.rfind('\n', lines.find("Lily")) + 1), 80);
    ASSERT_OK(rows);
    auto tuner = tune::Tuner::create(*model, {.rank = 4, .targets = "all", .seed = 7});
    ASSERT_OK(tuner);
    const auto first = tuner->measure(*rows, 2);
    train::FitOptions how = options(4e-3f, 6);
    how.bf16 = bf16;
    auto done = tuner->fit(*rows, how);
    ASSERT_OK(done);
    const auto last = tuner->measure(*rows, 2);
    ASSERT_OK(last);
    EXPECT_LT(last->loss, 0.92 * first->loss);
    losses[bf16] = last->loss;
    scratch[bf16] = done->scratch_high_water;
    ASSERT_OK(tune::write_adapter(*tuner, folder / "a.gguf"));
    EXPECT_OK(llm::open(path, {.lay_out = false, .adapter = folder / "a.gguf"}));
  }
  EXPECT_NEAR(losses[1], losses[0], 0.03 * losses[0]);
  EXPECT_LT(static_cast<double>(scratch[1]), 0.85 * static_cast<double>(scratch[0]));
  EXPECT_EQ(read_file(path), before);
}

// Base plus adapter, rounded once: in f32 the logits but for rounding; in the base's own type every element within half a step of its block.
TEST_F(Finetune, MergedIsBasePlusAdapter) {
  for (const std::string type : {"F32", "q8_0"}) {
    auto model = open(type);
    auto tuner = tune::Tuner::create(*model, {.rank = 3, .alpha = 4, .targets = "all", .seed = 1});
    ASSERT_OK(tuner);
    const std::span<float> slab = tuner->parameters().trainable_slab();
    const auto noise = drawn(slab.size(), 9, 0.05f);
    std::copy(noise.begin(), noise.end(), slab.begin());
    const auto adapted = logits_of(*model, k_text);
    ASSERT_OK(tune::write_adapter(*tuner, folder / "a.gguf"));
    const auto exact =
        tune::merge(stories(type), folder / "a.gguf", folder / "exact.gguf", {.dtype = DType::f32, .given = true});
    ASSERT_OK(exact);
    EXPECT_EQ(exact->changed, 35u);
    EXPECT_EQ(exact->tensors, 48u);
    auto merged = llm::open(folder / "exact.gguf", {.lay_out = false});
    ASSERT_OK(merged);
    EXPECT_LE(distance(logits_of(*merged, k_text), adapted), 2e-4) << type;  // logits up to 20, sums in another order
    if (type == "F32") continue;
    const auto own = tune::merge(stories(type), folder / "a.gguf", folder / "own.gguf");
    ASSERT_OK(own);
    EXPECT_EQ(own->others, 0u);
    auto a = io::read_gguf(folder / "exact.gguf"), b = io::read_gguf(folder / "own.gguf");
    Workspace workspace{{.scratch = 64_MiB, .threads = 1}};
    for (const io::TensorEntry& entry : b->entries()) {
      auto frame = workspace.frame();
      EXPECT_EQ(entry.type, io::read_gguf(stories(type))->find(entry.name)->type) << entry.name;
      const auto rounded = *ops::cast(frame.input(*b->tensor(entry.name)), DType::f32)->to_vector(),
                 whole = *ops::cast(frame.input(*a->tensor(entry.name)), DType::f32)->to_vector();
      for (std::size_t block = 0; entry.type == "Q8_0" && block + 32 <= whole.size(); block += 32) {
        float most = 0;
        for (std::size_t i = block; i < block + 32; ++i) most = std::max(most, std::abs(whole[i]));
        for (std::size_t i = block; i < block + 32; ++i)
          ASSERT_LE(std::abs(rounded[i] - whole[i]), most / 127 * 0.57f)
              << entry.name;  // the scale is f16: 2^-11 of 127 steps
      }
    }
  }
}

// All weights of an f32 model, and the file that comes of it.
TEST_F(Finetune, AllWeights) {
  auto model = open("F32");
  auto rows = rows_of(*model, conversations());
  auto tuner = tune::Tuner::create(*model, {.full = true});
  ASSERT_OK(tuner);
  auto plain = open("F32");
  EXPECT_LE(distance(logits_of(*model, k_text), logits_of(*plain, k_text)), 0);
  const auto first = tuner->measure(*rows);
  ASSERT_OK(tuner->fit(*rows, options(2e-3f, 6)));
  EXPECT_LT(tuner->measure(*rows)->loss, 0.3 * first->loss);
  EXPECT_FAILS(tune::write_adapter(*tuner, folder / "a.gguf"), Errc::invalid_argument);
  const auto written = tune::write_tuned(*tuner, stories("F32"), folder / "full.gguf");
  ASSERT_OK(written);
  EXPECT_EQ(written->changed, 47u + (written->tensors - 47u));
  auto again = llm::open(folder / "full.gguf", {.lay_out = false});
  ASSERT_OK(again);
  EXPECT_EQ(logits_of(*again, k_text), logits_of(*model, k_text));
  auto quantised = open("q4_0");
  EXPECT_FAILS(tune::Tuner::create(*quantised, {.full = true}), Errc::unsupported);
}

// The same bits on any number of threads, from a run that was stopped on the way as well; and no allocation in a warm step.
TEST_F(Finetune, RunsAreTheSameAndAllocateNothing) {
  std::vector<float> slabs[3];
  for (const int run : {0, 1, 2}) {
    auto model = open("q8_0");
    auto rows = rows_of(*model, conversations());
    auto tuner = tune::Tuner::create(*model, {.rank = 2, .targets = "q,down"});
    ASSERT_OK(tuner);
    std::uint64_t before = 0, worst = 0;
    train::FitOptions how = options(1e-2f, 3);
    how.threads = run == 1 ? 1 : 2;
    const auto count = [&](train::Event& event) noexcept {
      if (event.moment != train::Moment::step_end) return;
      if (event.total_step > 2 && event.step > 1) worst = std::max(worst, qorus_test::allocations() - before);
      before = qorus_test::allocations();
    };
    if (run == 2) {
      const std::string place = folder / "checkpoints";
      train::FitOptions part{.optimizer = how.optimizer,
                             .epochs = 3,
                             .batch = 3,
                             .seed = 3,
                             .clip_norm = 1,
                             .threads = 1,
                             .checkpoints = {.folder = place, .every_steps = 1},
                             .callbacks = {[](train::Event& event) noexcept { event.stop = event.total_step == 3; }}};
      ASSERT_OK(tuner->fit(*rows, part));
      auto other = open("q8_0");
      auto fresh = tune::Tuner::create(*other, {.rank = 2, .targets = "q,down"});
      how.checkpoints = {.folder = place};
      auto resumed = fresh->fit(*rows, how);
      ASSERT_OK(resumed);
      EXPECT_EQ(resumed->resumed_at, 3u);
      slabs[run].assign(fresh->parameters().slab().begin(), fresh->parameters().slab().end());
      continue;
    }
    train::FitOptions counted{.optimizer = how.optimizer,
                              .epochs = 3,
                              .batch = 3,
                              .seed = 3,
                              .clip_norm = 1,
                              .threads = how.threads,
                              .callbacks = {count}};
    ASSERT_OK(tuner->fit(*rows, counted));
    if (qorus_test::k_counts_allocations) EXPECT_EQ(worst, 0u);
    slabs[run].assign(tuner->parameters().slab().begin(), tuner->parameters().slab().end());
  }
  EXPECT_EQ(slabs[0], slabs[1]);
  EXPECT_EQ(slabs[0], slabs[2]);
}

// The loss takes those rows alone that count: however many they are in a batch, what was planned has room for them.
TEST_F(Finetune, AnyNumberOfRowsThatCountHasRoom) {
  auto model = open("F32");
  ASSERT_OK(model);
  std::string lines;
  for (const char* name : {"Tom", "Lily", "Max", "Sue", "Ben", "Mia"})
    for (const char* animal : {"cat", "dog"})
      lines += std::string("{\"prompt\": \"") + name + " has a " + animal + ".\", \"response\": \" The " + animal +
               " is very happy.\"}\n";
  for (const std::int64_t context : {32, 64}) {
    auto rows = rows_of(*model, lines, context);
    ASSERT_OK(rows);
    for (const std::size_t batch : {1, 2, 3, 4}) {
      for (const int threads : {2, 3}) {
        auto tuner = tune::Tuner::create(*model, {.rank = 4});
        ASSERT_OK(tuner);
        train::FitOptions how = options(1e-3f, 1);
        how.batch = batch;
        how.threads = threads;
        EXPECT_OK(tuner->fit(*rows, how)) << context << " " << batch << " " << threads;
        EXPECT_OK(tuner->measure(*rows, threads));
      }
    }
  }
}

// Blocks computed again in the backward: the same gradients to the bit, in less memory.
TEST_F(Finetune, RecomputedBlocksGiveTheSameGradients) {
  std::vector<float> gradients[2];
  std::size_t bytes[2] = {};
  for (const bool again : {false, true}) {
    auto model = open("q8_0");
    auto rows = rows_of(*model, conversations());
    auto tuner = tune::Tuner::create(*model, {.rank = 2, .targets = "all", .recompute = again});
    ASSERT_OK(tuner);
    const std::span<float> slab = tuner->parameters().trainable_slab();
    const auto noise = drawn(slab.size(), 4, 0.1f);
    std::copy(noise.begin(), noise.end(), slab.begin());
    Workspace workspace{{.scratch = 256_MiB, .threads = 2}};
    auto tape = workspace.record();
    auto x = tape.input(rows->inputs), y = tape.input(rows->targets);
    auto done = tuner->loss(*x, *y).and_then([](const Tensor& t) { return backward(t); });
    ASSERT_OK(done);
    auto given = done->slab(tuner->parameters().block());
    ASSERT_OK(given);
    gradients[again].assign(given->begin(), given->end());
    bytes[again] = workspace.counters().high_water;
  }
  EXPECT_EQ(gradients[0], gradients[1]);
  EXPECT_LT(static_cast<double>(bytes[1]), 0.6 * static_cast<double>(bytes[0]));
}

// A rate that diverges ends with an error; the weights are those before the pass, which are finite.
TEST_F(Finetune, ADivergingRunKeepsTheLastGoodState) {
  auto model = open("F32");
  auto rows = rows_of(*model, conversations());
  auto tuner = tune::Tuner::create(*model, {.rank = 2});
  const std::vector<float> before(tuner->parameters().slab().begin(), tuner->parameters().slab().end());
  train::FitOptions how = options(3e38f, 2);
  how.batch = 1;  // in the second step of the first pass
  EXPECT_FAILS(tuner->fit(*rows, how), Errc::diverged);
  EXPECT_EQ(std::vector<float>(tuner->parameters().slab().begin(), tuner->parameters().slab().end()), before);
}

TEST_F(Finetune, ResponsesCountAndPromptsDoNot) {
  auto model = open("F32");
  const text::Tokenizer& tokenizer = model->tokenizer();
  std::vector<tune::Sample> kept;
  const auto read = [&](const std::string& lines, const tune::SampleOptions& how) {
    write_file(folder / "data.jsonl", lines);
    List<tune::Sample> samples;
    auto done = tune::read_samples(folder / "data.jsonl", *model, how, samples);
    kept.clear();
    for (tune::Sample& sample : samples.span()) kept.push_back(std::move(sample));
    return done;
  };
  const auto counted = [&](const tune::Sample& sample) {
    List<std::int32_t> ids;
    for (std::size_t i = 0; i < sample.ids.size(); ++i) {
      if (sample.counts[i]) EXPECT_OK(ids.push(sample.ids[i]));
    }
    auto text = tokenizer.decode(ids.span(), {.special = true, .continues = true});
    return std::string(text->data(), text->size());
  };
  ASSERT_OK(read("{\"prompt\": \"One day\", \"response\": \", Tom saw.\"}\n\n", {}));
  ASSERT_EQ(kept.size(), 1u);
  EXPECT_EQ(counted(kept[0]), ", Tom saw.</s>");
  const std::string talk =
      "{\"messages\": [{\"role\": \"system\", \"content\": \"be kind\"}, {\"role\": \"user\", \"content\": \"hello\"}, "
      "{\"role\": \"assistant\", \"content\": \"A cat\"}, {\"role\": \"user\", \"content\": \"and\"}, {\"role\": "
      "\"assistant\", \"content\": \"a dog\"}]}\n";
  constexpr std::string_view jinja =
      "{% for m in messages %}[{{ m.role }}] {{ m.content }}\n{% endfor %}{% if add_generation_prompt %}[assistant] {% "
      "endif %}";
  ASSERT_OK(read(talk, {.jinja = jinja}));
  EXPECT_EQ(counted(kept[0]), "A cat\n a dog\n</s>");
  // Text: all of it, in pieces that go on where the one before ended.
  write_file(folder / "folder.txt", "Once upon a time there was a cat and a dog.");
  List<tune::Sample> pieces;
  ASSERT_OK(tune::read_samples(folder / "folder.txt", *model, {.context = 4}, pieces));
  ASSERT_GT(pieces.size(), 2u);
  EXPECT_EQ(pieces[0].ids.back(), pieces[1].ids[0]);
  // Packed: each sample whole, in one row, and no row longer than the context.
  ASSERT_OK(read(conversations() + talk.substr(0, 0), {}));
  auto rows = tune::pack_rows(kept, {}, 64);
  ASSERT_OK(rows);
  EXPECT_LT(rows->count, kept.size());
  std::size_t tokens = 0, places = 0;
  for (const tune::Sample& sample : kept) {
    places += sample.ids.size() - 1;
    tokens += static_cast<std::size_t>(std::count(sample.counts.begin() + 1, sample.counts.end(), 1));
  }
  EXPECT_EQ(rows->tokens, tokens);
  EXPECT_EQ(rows->places, places);
  EXPECT_FAILS(tune::pack_rows(kept, {}, 8), Errc::invalid_size);
  EXPECT_FAILS(tune::pack_rows({}, {}, 8), Errc::invalid_size);
}

TEST_F(Finetune, WhatIsWrongWithDataIsToldByLine) {
  auto model = open("F32");
  const std::string good = "{\"prompt\": \"a\", \"response\": \"b\"}\n";
  constexpr std::string_view refuses = "{{ raise_exception('no roles like ' + messages[0].role) }}";
  const struct {
    std::string line;
    tune::SampleOptions how;
    Errc code;
    std::string says;
  } cases[] = {
      {"{\"prompt\": \"a\", \"respon", {}, Errc::corrupt, ":2"},
      {"[1]", {}, Errc::corrupt, ":2"},
      {"{\"prompt\": \"a\"}", {}, Errc::invalid_argument, "response"},
      {"{\"prompt\": \"a\", \"response\": \"\"}", {}, Errc::invalid_argument, ":2"},
      {"{\"prompt\": \"a\", \"response\": 3}", {}, Errc::invalid_argument, "response"},
      {"{\"messages\": [{\"role\": \"user\", \"content\": \"x\"}]}", {}, Errc::not_found, "template"},
      {"{\"messages\": [{\"role\": \"user\"}]}", {.jinja = "{{ messages[0].content }}"}, Errc::corrupt, "content"},
      {"{\"messages\": [{\"role\": \"user\", \"content\": \"x\"}]}",
       {.jinja = "{{ messages[0].content }}"},
       Errc::invalid_argument,
       "assistant"},
      {"{\"messages\": [{\"role\": \"wizard\", \"content\": \"x\"}]}",
       {.jinja = refuses},
       Errc::invalid_argument,
       ":1"},
      {"{\"prompt\": \"a\", \"response\": \"a long text of many words that goes on and on\"}",
       {.context = 8},
       Errc::invalid_size,
       ":2"},
  };
  for (const auto& c : cases) {
    const bool alone = c.says == ":1" || !c.how.jinja.empty();
    write_file(folder / "bad.jsonl", (alone ? "" : good) + c.line + "\n");
    List<tune::Sample> samples;
    const auto done = tune::read_samples(folder / "bad.jsonl", *model, c.how, samples);
    EXPECT_FAILS(done, c.code) << c.line;
    EXPECT_FAILS_SAYING(done, c.says) << c.line;
  }
  List<tune::Sample> samples;
  EXPECT_FAILS(tune::read_samples(folder / "none.jsonl", *model, {}, samples), Errc::not_found);
  write_file(folder / "empty.jsonl", "\n\n");
  EXPECT_FAILS(tune::read_samples(folder / "empty.jsonl", *model, {}, samples), Errc::invalid_size);
  EXPECT_FAILS(tune::read_samples(folder / "empty.jsonl", *model, {.jinja = "{% if %}"}, samples), Errc::corrupt);
}

TEST_F(Finetune, WhatIsWrongWithAdaptersIsNamed) {
  auto model = open("F32");
  for (const std::int64_t rank : {std::int64_t{0}, std::int64_t{-3}, std::int64_t{65}})
    EXPECT_FAILS(tune::Tuner::create(*model, {.rank = rank, .alpha = 1}), Errc::invalid_argument) << rank;
  EXPECT_FAILS(tune::Tuner::create(*model, {.alpha = -1}), Errc::invalid_argument);
  EXPECT_FAILS_SAYING(tune::Tuner::create(*model, {.targets = "q,nose"}), "nose");
  EXPECT_FAILS(tune::Tuner::create(*model, {.targets = ""}), Errc::invalid_argument);
  const auto plain = logits_of(*model, k_text);
  EXPECT_OK(tune::Tuner::create(*model, {.targets = "head"}));
  EXPECT_EQ(logits_of(*model, k_text), plain);  // the tuner is gone, and the model is what it was
  auto tuner = tune::Tuner::create(*model, {.rank = 2});
  ASSERT_OK(tuner);
  EXPECT_FAILS(tune::Tuner::create(*model, {.rank = 2}), Errc::invalid_argument);  // there is one
  EXPECT_FAILS(tune::write_adapter(*tuner, folder / "none/a.gguf"), Errc::not_found);
  ASSERT_OK(tune::write_adapter(*tuner, folder / "a.gguf"));
  const std::string good = read_file(folder / "a.gguf");
  const auto with = [&](const std::string& from, const std::string& to) {
    std::string changed = good;
    for (std::size_t at = 0; (at = changed.find(from, at)) != changed.npos; at += to.size())
      changed.replace(at, from.size(), to);
    write_file(folder / "bad.gguf", changed);
    return llm::open(stories("F32"), {.adapter = folder / "bad.gguf"});
  };
  EXPECT_OK(with("x", "x"));
  EXPECT_FAILS(with("adapter.type", "adapter.tipe"), Errc::unsupported);
  EXPECT_FAILS(with(std::string("\x07\0\0\0\0\0\0\0adapter", 15), std::string("\x07\0\0\0\0\0\0\0adopter", 15)),
               Errc::not_found);
  EXPECT_FAILS_SAYING(with("llama", "gemma"), "gemma");
  const auto lacks = with("blk.4.attn_q", "blk.9.attn_q");
  EXPECT_FAILS(lacks, Errc::not_found);
  EXPECT_FAILS_SAYING(lacks, "blk.9.attn_q.weight");
  EXPECT_FAILS(with("blk.4.attn_q.weight.lora_b", "blk.5.attn_q.weight.lora_b"), Errc::corrupt);
  const auto shapes = with("attn_q", "attn_k");  // [64, 64] for a matrix [32, 64]
  EXPECT_FAILS(shapes, Errc::invalid_size);
  EXPECT_FAILS_SAYING(shapes, "[32,64] and [64,64]");
  EXPECT_FAILS(tune::merge(stories("F32"), folder / "bad.gguf", folder / "out.gguf"), Errc::invalid_size);
  EXPECT_FAILS(
      tune::merge(qorus_test::data_path("models/stories260K/stories260K.bin"), folder / "a.gguf", folder / "out.gguf"),
      Errc::corrupt);
  EXPECT_FAILS(llm::open(stories("F32"), {.adapter = folder / "none"}), Errc::not_found);
  EXPECT_FALSE(std::filesystem::exists(folder / "out.gguf"));
}
