// Caps that no file of reasonable size shows; tests/hostile/cap_cases.py has the others. At each something is taken, or fails for another
// reason, and one past it is that cap's error.
#include <sys/resource.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <limits>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "tests/faulty_files.h"
#include "tests/files.h"
#include "tests/reading.h"
#include "tests/testing.h"

import qorus.trust;
import qorus.data;
import qorus.llm;
import qorus.tune;

using namespace qorus;
using qorus_test::FailingAllocations;
using qorus_test::TemporaryFolder;
using qorus_test::write_file;

// A file of zeros that takes no room. At the cap there is no memory for it.
TEST(Caps, BytesOfText) {
  QORUS_NEEDS_ALLOCATION_COUNTER();
  const TemporaryFolder folder;
  const std::string path = folder / "zeros";
  write_file(path, "one");
  EXPECT_OK(data::read_text(path));  // what is kept for mapped files is there
  std::filesystem::resize_file(path, limits::text_bytes);
  {
    const FailingAllocations failing;
    const auto none = data::read_text(path);
    EXPECT_EQ(none.error().code, Errc::out_of_memory);
  }
  std::filesystem::resize_file(path, limits::text_bytes + 1);
  EXPECT_FAILS_SAYING(data::read_text(path), "longer than 1 GiB");
}

TEST(Caps, CategoriesOfATable) {
  std::string words = "name\n";
  for (std::size_t i = 0; i < limits::csv_categories; ++i) words += "w" + std::to_string(i) + "\n";
  const auto at = data::Table::parse(words), past = data::Table::parse(words + "one more\n");
  ASSERT_OK(at);
  ASSERT_OK(past);
  EXPECT_EQ(at->columns()[0].kind, data::ColumnKind::category);
  EXPECT_EQ(past->columns()[0].kind, data::ColumnKind::text);  // which nothing is kept of
}

TEST(Caps, ColumnsOfATable) {
  std::string names = "c0";
  for (std::size_t i = 1; i + 1 < limits::csv_columns; ++i) names += ",c" + std::to_string(i);
  auto table = data::Table::parse(names + "\n");
  ASSERT_OK(table);
  const auto zero = [](std::size_t) { return 0; };
  EXPECT_OK(table->derive("one more", zero));
  EXPECT_FAILS_SAYING(table->derive("and another", zero), "more than 4096 columns");
  if (!qorus_test::k_counts_allocations) return;
  auto small = data::Table::parse("a,b,c,d,e,f,g,h\n1,2,3,4,5,6,7,8\n");  // a full list of columns
  for (const std::uint64_t k : {0, 1}) {
    const FailingAllocations failing(k, 1);
    if (small->derive("i", zero)) ADD_FAILURE() << k;
  }
}

// Lists that say how long they are, of which only the beginning is there: nobody looks at the rest.
TEST(Caps, PiecesAndMerges) {
  QORUS_NEEDS_ALLOCATION_COUNTER();  // a sanitizer would mark the memory for 2^30 merges
  const std::string_view piece = "a", merge = "a c";
  const float score = 0;
  const auto with = [&](std::size_t pieces, std::size_t merges) {
    const bool many = pieces > 1;
    return text::Tokenizer::create({.pieces = std::span(&piece, pieces),
                                    .scores = many ? std::span(&score, 1) : std::span<const float>(),
                                    .merges = std::span(&merge, merges)});
  };
  EXPECT_FAILS_SAYING(with(limits::vocabulary, 0), "not as many scores as pieces");
  EXPECT_FAILS_SAYING(with(limits::vocabulary + 1, 0), "more pieces than ids can number");
  const auto at = with(1, limits::vocabulary);
  ASSERT_FALSE(at);
  EXPECT_TRUE(at.error().code == Errc::out_of_memory || at.error().code == Errc::corrupt);  // by the machine's memory
  EXPECT_FAILS_SAYING(with(1, limits::vocabulary + 1), "more merges than a table can have");
}

// Names that all lead to one file.
TEST(Caps, ShardsOfAModel) {
  rlimit files{};
  ASSERT_EQ(::getrlimit(RLIMIT_NOFILE, &files), 0);
  if (files.rlim_max < limits::model_shards + 100) GTEST_SKIP() << "the system does not allow so many open files";
  const rlimit before = files;
  files.rlim_cur = files.rlim_max;
  ASSERT_EQ(::setrlimit(RLIMIT_NOFILE, &files), 0);
  const TemporaryFolder folder;
  write_file(folder / "shard", std::string("\2\0\0\0\0\0\0\0{}", 10));
  write_file(folder / "config.json",
             R"({"model_type":"llama","hidden_size":4,"intermediate_size":4,"num_hidden_layers":1,)"
             R"("num_attention_heads":2,"vocab_size":6,"max_position_embeddings":8})");
  std::string map = R"({"weight_map":{)";
  for (std::size_t i = 0; i <= limits::model_shards; ++i) {
    const std::string name = std::to_string(i);
    ASSERT_EQ(::symlink("shard", (folder / name).c_str()), 0);
    if (i == limits::model_shards) {
      write_file(folder / "model.safetensors.index.json", map + "}}");
      EXPECT_FAILS_SAYING(llm::open(folder.path()), "the files have no embedding");
    }
    map += (i ? ",\"" : "\"") + name + R"(":")" + name + "\"";
  }
  write_file(folder / "model.safetensors.index.json", map + "}}");
  EXPECT_FAILS_SAYING(llm::open(folder.path()), "more than 4096 files");
  ASSERT_EQ(::setrlimit(RLIMIT_NOFILE, &before), 0);
}

// Where a small model lies that Python makes; empty without it.
static std::string small_model(const TemporaryFolder& folder) {
  std::string path;
  for (const auto& file : qorus_test::make_files(folder.path(), true)) path = file.name == "model-0" ? file.path : path;
  return path;
}

TEST(Caps, Sessions) {
  QORUS_NEEDS_ALLOCATION_COUNTER();
  const TemporaryFolder folder;
  const std::string path = small_model(folder);
  if (path.empty()) GTEST_SKIP() << "Python makes this model";
  const auto model = llm::open(path);
  ASSERT_OK(model);
  const auto code_of = [&](std::int64_t context, int sequences) {
    const FailingAllocations failing;
    return llm::Session::create(*model, {.context = context, .sequences = sequences}).error().code;
  };
  EXPECT_EQ(code_of(limits::session_context, limits::session_sequences), Errc::out_of_memory);
  EXPECT_EQ(code_of(limits::session_context + 1, 1), Errc::invalid_argument);
  EXPECT_EQ(code_of(8, limits::session_sequences + 1), Errc::invalid_argument);
}

// Numbers of a model from anywhere, each of them wrong alone.
TEST(Caps, NumbersOfAModel) {
  using C = llm::Config&;
  using Kind = llm::RopeScaling::Kind;
  const auto made = [](void (*change)(C)) {
    llm::Config c;
    c.architecture = llm::architecture_of_gguf("llama");
    c.layers = c.heads = c.kv_heads = 2, c.d_model = c.d_ff = c.context = 8, c.head_dim = 4;
    c.experts = 8, c.experts_used = 2, c.expert_ff = 4;
    c.rope.dim = c.local_rope.dim = 4;
    c.rope.scaling.original_context = 8;
    for (List<float>* factors : {&c.long_factors, &c.short_factors}) EXPECT_OK(factors->append(std::array{1.0f, 2.0f}));
    change(c);
    return llm::check_config(c);
  };
  void (*const right[])(C) = {
      [](C) {},
      [](C c) { c.experts = 0, c.experts_used = -1; },
      [](C c) { c.architecture = llm::architecture_of_gguf("gpt2"), c.rope.dim = 0; },
      [](C c) { c.rope.scaling.kind = Kind::yarn; },
      [](C c) { c.rope.scaling.kind = Kind::dynamic; },
      [](C c) { c.rope.scaling.kind = Kind::linear, c.rope.scaling.original_context = 0; },
      [](C c) { c.rope.scaling.kind = Kind::llama3, c.rope.scaling.low_freq = 1, c.rope.scaling.high_freq = 4; },
      [](C c) { c.rope.scaling.kind = Kind::longrope; },
  };
  for (const auto& change : right) EXPECT_OK(made(change)) << &change - right;
  constexpr float inf = std::numeric_limits<float>::infinity();
  void (*const wrong[])(C) = {
      [](C c) { c.layers = 0; },
      [](C c) { c.context = limits::model_size + 1; },
      [](C c) { c.kv_heads = -1; },
      [](C c) { c.layers = limits::model_layers + 1; },
      [](C c) { c.heads = 3; },
      [](C c) { c.norm_eps = 0; },
      [](C c) { c.norm_eps = inf; },
      [](C c) { c.window = -1; },
      [](C c) { c.window_period = -1; },
      [](C c) { c.first_windowed = -1; },
      [](C c) { c.attention_scale = -1; },
      [](C c) { c.attention_cap = inf; },
      [](C c) { c.experts = -1; },
      [](C c) { c.experts = limits::model_experts + 1; },
      [](C c) { c.experts_used = 0; },
      [](C c) { c.experts_used = 9; },
      [](C c) { c.experts = 100, c.experts_used = limits::model_experts_used + 1; },
      [](C c) { c.expert_ff = 0; },
      [](C c) { c.expert_ff = limits::model_size + 1; },
      [](C c) { c.shared_ff = -1; },
      [](C c) { c.shared_ff = limits::model_size + 1; },
      [](C c) { c.expert_period = 0; },
      [](C c) { c.first_expert = -1; },
      [](C c) { c.rope.dim = 0; },
      [](C c) { c.rope.dim = 6; },
      [](C c) { c.rope.dim = 3; },
      [](C c) { c.local_rope.dim = 3; },
      [](C c) { c.rope.base = 0; },
      [](C c) { c.rope.scaling.factor = inf; },
      [](C c) { c.rope.scaling.kind = Kind::yarn, c.rope.scaling.original_context = 0; },
      [](C c) { c.rope.scaling.kind = Kind::llama3, c.rope.scaling.low_freq = 0, c.rope.scaling.high_freq = 4; },
      [](C c) { c.rope.scaling.kind = Kind::llama3, c.rope.scaling.low_freq = c.rope.scaling.high_freq = 4; },
      [](C c) { c.rope.scaling.kind = Kind::yarn, c.rope.scaling.beta_fast = 0; },
      [](C c) { c.rope.scaling.kind = Kind::yarn, c.rope.scaling.beta_slow = 0; },
      [](C c) { c.rope.scaling.kind = Kind::yarn, c.rope.base = 1; },
      [](C c) { c.rope.scaling.kind = Kind::longrope, c.long_factors.clear(); },
      [](C c) { c.rope.scaling.kind = Kind::longrope, c.short_factors[1] = 0; },
  };
  for (const auto& change : wrong) EXPECT_FAILS(made(change), Errc::invalid_argument) << &change - wrong;
}

// A sequence in a file with a sum that fits, and a token that the model does not have.
TEST(Caps, TokensOfASavedSequence) {
  const TemporaryFolder folder;
  const std::string path = small_model(folder);
  if (path.empty()) GTEST_SKIP() << "Python makes this model";
  const auto model = llm::open(path);
  ASSERT_OK(model);
  auto session = llm::Session::create(*model, {.context = 8, .threads = 1});
  ASSERT_OK(session);
  const std::int32_t ids[] = {1, 3};
  ASSERT_OK(session->feed(ids));
  const std::string saved = folder / "saved";
  ASSERT_OK(session->save(saved));
  const std::string good = qorus_test::read_file(saved);
  ASSERT_OK(session->restore(saved));
  for (const std::int32_t id : {-1, 6}) {
    std::string bytes = good;
    std::memcpy(bytes.data() + 48 + 4, &id, sizeof id);
    std::uint64_t sum = 0x51ed270b1f2a9d83;
    for (std::size_t at = 48; at < bytes.size(); at += 8) {
      std::uint64_t word = 0;
      std::memcpy(&word, bytes.data() + at, 8);
      sum = (sum ^ word) * 0x9e3779b97f4a7c15;
      sum ^= sum >> 29;
    }
    std::memcpy(bytes.data() + 40, &sum, sizeof sum);
    write_file(saved, bytes);
    EXPECT_FAILS_SAYING(session->restore(saved), "a token outside the vocabulary");
  }
  EXPECT_FAILS(session->restore(saved, 1), Errc::invalid_argument);
#ifndef QORUS_TEST_SANITIZED
  write_file(saved, good);
  const qorus_test::ShorterFile shorter(1);
  EXPECT_FAILS(session->restore(saved), Errc::io);
#endif
}

// The parts of an adapter against the matrices that they are for.
TEST(Caps, PartsOfAnAdapter) {
  const TemporaryFolder folder;
  const std::string path = small_model(folder);
  if (path.empty()) GTEST_SKIP() << "Python makes this model";
  const auto add = [&](const char* weight, const Shape& a, const Shape& b, int times = 1, float alpha = 2) -> Status {
    auto model = llm::open(path);
    if (!model) return fail(model.error());
    llm::Adapter adapter{.alpha = alpha};
    llm::AdapterPart part;
    part.weight += weight;
    part.a = std::move(*Owned::zeros(a));
    part.b = std::move(*Owned::zeros(b));
    EXPECT_OK(adapter.parts.push(std::move(part)));
    if (times == 0) {
      const FailingAllocations failing;
      return llm::add_adapter(model->layers(), adapter);
    }
    Status done;
    for (int i = 0; i < times && done; ++i) done = llm::add_adapter(model->layers(), adapter);
    return done;
  };
  EXPECT_OK(add("blk.0.attn_q.weight", {2, 4}, {4, 2}));
  EXPECT_OK(add("blk.0.attn_q.weight", {2, 4}, {4, 2}, 1, 0));
  EXPECT_OK(add("blk.0.attn_qkv.weight", {2, 4}, {8, 2}));
  EXPECT_OK(add("blk.0.ffn_gate_up.weight", {2, 4}, {8, 2}));
  EXPECT_OK(add("blk.0.ffn_up.weight", {2, 4}, {8, 2}));
  EXPECT_OK(add("blk.0.ffn_up.weight", {2, 4}, {4, 2}));
  EXPECT_OK(add("output.weight", {2, 4}, {6, 2}));
  EXPECT_FAILS(add("blk.0.attn_q.weight", {2, 4}, {4, 2}, 2), Errc::invalid_argument);
  EXPECT_FAILS(add("blk.0.attn_q.weight", {2, 3}, {4, 2}), Errc::invalid_size);
  EXPECT_FAILS(add("blk.0.attn_q.weight", {2, 4}, {5, 2}), Errc::invalid_size);
  EXPECT_FAILS(add("blk.0.ffn_gate_up.weight", {2, 4}, {9, 2}), Errc::invalid_size);
  for (const char* weight : {"blk.1.attn_q.weight", "blk.0.attn_x.weight", "attn_q.weight", "x", "weight", ".weight"})
    EXPECT_FAILS(add(weight, {2, 4}, {4, 2}), Errc::not_found) << weight;
  if (qorus_test::k_counts_allocations)
    EXPECT_FAILS(add("blk.0.attn_q.weight", {2, 4}, {4, 2}, 0), Errc::out_of_memory);
  const auto model = llm::open(path);
  List<tune::Sample> samples;
  EXPECT_FAILS(tune::read_samples(std::string(5000, 'x'), *model, {}, samples), Errc::invalid_argument);
  Owned flat = std::move(*Owned::zeros({4}));
  EXPECT_FAILS(llm::reorder_pairs(flat, 2, true), Errc::invalid_size);
}

TEST(Caps, AFileThatTakesNothing) {
  QORUS_NEEDS_FAULTY_FILES();
  const TemporaryFolder folder;
  auto file = AtomicFile::create(folder / "file");
  ASSERT_OK(file);
  const qorus_test::FailingFiles failing(0, qorus_test::k_nothing_written);
  EXPECT_FAILS_SAYING(file->write("bytes"), "the system wrote nothing");
}

// Ways to say where a model lies.
TEST(Caps, PathsOfModels) {
  const TemporaryFolder folder;
  std::string place, checkpoint;
  for (const auto& file : qorus_test::make_files(folder.path(), true)) {
    if (file.name == "folder") place = file.path;
    if (file.name == "model-2") checkpoint = file.path;
  }
  if (place.empty()) GTEST_SKIP() << "Python makes this model";
  EXPECT_OK(llm::open(place + "/"));
  EXPECT_OK(llm::open(place + "/model.safetensors"));
  EXPECT_FAILS(llm::open(place + "/none.safetensors.index.json"), Errc::not_found);
  write_file(place + "/some.safetensors.index.json", R"({"weight_map":{"a":"model.safetensors"}})");
  EXPECT_OK(llm::open(place + "/some.safetensors.index.json"));
  write_file(place + "/bad.safetensors.index.json", "{");
  EXPECT_FAILS(llm::open(place + "/bad.safetensors.index.json"), Errc::corrupt);
  EXPECT_FAILS(llm::open("no-such-file-here"), Errc::not_found);
#ifndef QORUS_TEST_SANITIZED
  for (std::uint64_t call = 0; call < 8; ++call) {
    const qorus_test::FailingFiles failing(call, ENOMEM, qorus_test::Calls::all);
    const auto tried = llm::open(place);  // a file that may be there and cannot be looked at counts as there
    EXPECT_TRUE(tried || tried.error().code == Errc::out_of_memory) << call;
  }
#endif
  EXPECT_FAILS(llm::open(std::string(5000, 'x')), Errc::invalid_argument);
  const auto weights = llm::Weights::open(place);
  ASSERT_OK(weights);
  EXPECT_OK(weights->copy("token_embd.weight"));
  for (const char* name : {"none.weight", "blk.9.attn_q.weight", "output.weight"}) {
    EXPECT_FAILS(weights->copy(name), Errc::not_found) << name;
    EXPECT_FAILS(weights->tensor(name), Errc::not_found) << name;
    EXPECT_FALSE(weights->has(name)) << name;
  }
  const auto llama2c = llm::Weights::open(checkpoint);
  ASSERT_OK(llama2c);
  for (const char* name :
       {"none.weight", "blk.1.attn_q.weight", "blk.", "blk.x", "blk.99999999999999999999.attn_q.weight"})
    EXPECT_FAILS(llama2c->tensor(name), Errc::not_found) << name;
}

TEST(Caps, MemoryOfATemplate) {
  const auto chat = text::ChatTemplate::parse("{{ messages|length }}");
  ASSERT_OK(chat);
  EXPECT_FAILS(text::ChatTemplate().render("{}", {}), Errc::not_built);
  EXPECT_FAILS(text::ChatTemplate().render(std::span<const text::ChatMessage>(), {}), Errc::not_built);
  const std::vector<text::ChatMessage> talk(1000, text::ChatMessage{"user", "x"});
  const std::string letters(40000, 'k'),
      object = R"({"messages":[1,{"a":"b"}],")" + letters + R"(":1,"v":")" + letters + "\"}";
  for (const std::size_t memory : {std::size_t{1}, 64_KiB, 96_KiB, 128_KiB, 160_KiB, 200_KiB, SIZE_MAX / 2, SIZE_MAX}) {
    const text::ChatOptions options{.now = 0, .memory = memory};
    EXPECT_FALSE(chat->render(talk, options) && memory < 64_KiB);
    EXPECT_FALSE(chat->render(object, options) && memory < 32_KiB);
  }
  if (!qorus_test::k_counts_allocations) return;
  for (std::uint64_t k = 0; k < 12; ++k) {
    const FailingAllocations failing(k, 1);
    static_cast<void>(chat->render(R"({"messages":[]})", {.now = 0}));
    static_cast<void>(chat->render(std::span(talk).first(2), {.now = 0}));
  }
}

// A text that says it has 4 GiB: nobody looks at it.
TEST(Caps, BytesOfJson) {
  text::JsonTree small;
  ASSERT_OK(small.parse(R"([1.5, 2, "3.5", null])"));
  int fractions = 0;
  EXPECT_OK(small.root().each([&](const text::JsonValue& value) -> Status {
    fractions += value.fraction();
    return {};
  }));
  EXPECT_EQ(fractions, 1);
  text::JsonTree tree;
  EXPECT_FAILS(tree.parse({"{}", UINT32_MAX}), Errc::overflow);
}

// What is printed before the list's second element: its bracket, the text in quotes, a comma and a blank.
TEST(Caps, BytesOfAPrintedValue) {
  const auto chat = text::ChatTemplate::parse("{{ a }}");
  ASSERT_OK(chat);
  for (const std::size_t more : {0, 1}) {
    const std::string letters(limits::template_value - 5 + more, 'x');
    const auto out = chat->render(R"({"a":[")" + letters + R"(",1]})", {.now = 0, .memory = 128_MiB});
    if (more) {
      EXPECT_FAILS_SAYING(out, "too long to print");
    } else {
      EXPECT_OK(out);
    }
  }
}
