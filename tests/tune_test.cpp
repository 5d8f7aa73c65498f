// qorus.tune: vocabularies made from texts, corpora and their windows, training of a language model, and its file.
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <limits>
#include <map>
#include <random>
#include <span>
#include <string>
#include <string_view>
#include <tuple>
#include <utility>
#include <vector>

#include "tests/files.h"
#include "tests/testing.h"

import qorus.tune;

using namespace qorus;
using qorus_test::TemporaryFolder;
using qorus_test::write_file;

namespace {

std::vector<std::string> strings(std::span<const std::string_view> views) { return {views.begin(), views.end()}; }

// --- the definition of byte-pair encoding, without any haste ---

struct Definition {
  std::vector<std::string> pieces, merges;
};
// Texts of letters and single spaces, so that a word is a space and letters.
Definition defined_bpe(const std::string& text, std::size_t vocabulary) {
  std::map<std::vector<std::size_t>, long> words;
  std::vector<std::string> pieces;
  for (int b = 0; b < 256; ++b) pieces.emplace_back(1, static_cast<char>(b));
  for (std::size_t at = 0; at < text.size();) {
    const std::size_t end = std::min(text.find(' ', at + 1), text.size());
    std::vector<std::size_t> word;
    for (; at < end; ++at) word.push_back(static_cast<unsigned char>(text[at]));
    ++words[word];
  }
  Definition made;
  const auto spelled = [](std::string piece) {
    for (std::size_t i = 0; i < piece.size(); ++i) {
      if (piece[i] == ' ') piece.replace(i, 1, "\xc4\xa0");
    }
    return piece;
  };
  while (pieces.size() + 1 < vocabulary) {
    std::map<std::pair<std::size_t, std::size_t>, long> counts;
    for (const auto& [word, count] : words) {
      for (std::size_t i = 0; i + 1 < word.size(); ++i) counts[{word[i], word[i + 1]}] += count;
    }
    std::pair<std::size_t, std::size_t> best;
    long most = 1;
    for (const auto& [pair, count] : counts) {
      if (count > most) std::tie(best, most) = std::pair(pair, count);
    }
    if (most < 2) break;
    made.merges.push_back(spelled(pieces[best.first]) + " " + spelled(pieces[best.second]));
    const std::string both = pieces[best.first] + pieces[best.second];
    auto id = static_cast<std::size_t>(std::find(pieces.begin(), pieces.end(), both) - pieces.begin());
    if (id == pieces.size()) pieces.push_back(both);
    std::map<std::vector<std::size_t>, long> next;
    for (const auto& [word, count] : words) {
      std::vector<std::size_t> merged;
      for (std::size_t i = 0; i < word.size(); ++i) {
        const bool here = i + 1 < word.size() && word[i] == best.first && word[i + 1] == best.second;
        merged.push_back(here ? id : word[i]);
        i += here;
      }
      next[merged] += count;
    }
    words = std::move(next);
  }
  for (std::size_t i = 256; i < pieces.size(); ++i) made.pieces.push_back(spelled(pieces[i]));
  made.pieces.emplace_back("<|endoftext|>");
  return made;
}

const std::string k_verse =
    "The sea was wet as wet could be, the sands were dry as dry.\nYou could not see a cloud, because no cloud was in "
    "the "
    "sky:\nNo birds were flying overhead; there were no birds to fly.\n";
std::string verses(int times) {
  std::string text;
  for (int i = 0; i < times; ++i) text += k_verse;
  return text;
}

text::Tokenizer tokenizer_of(const text::Vocabulary& vocabulary) {
  auto made = text::Tokenizer::create(vocabulary.spec());
  EXPECT_OK(made);
  return made ? std::move(*made) : text::Tokenizer();
}

Result<tune::Tokens> tokens_of(const std::string& text, const TemporaryFolder& folder) {
  auto vocabulary = text::byte_vocabulary();
  if (!vocabulary) return fail(vocabulary.error());
  const std::string_view texts[] = {text};
  return tune::Tokens::encode(tokenizer_of(*vocabulary), texts, folder / "ids");
}

using Model = nn::Model<nn::LanguageModel>;
struct Form {
  ops::RopePairs pairs = ops::RopePairs::interleaved;
  bool tied = false;
  std::int64_t kv_heads = 2, vocab = 257, context = 16;
  float deviation = 0.2f;  // large, so that logits differ
};
Result<Model> small_model(const Form& form = {}) {
  auto layers = nn::llama({.vocab = form.vocab,
                           .d_model = 32,
                           .heads = 4,
                           .layers = 2,
                           .block = {.attention = {.kv_heads = form.kv_heads, .pairs = form.pairs}, .d_ff = 64}});
  layers.tied = form.tied;
  return nn::build(std::move(layers), {form.context}, init::normal(3, form.deviation), {.input = DType::i32});
}

std::vector<float> slab_of(const Model& model) { return {model.slab().begin(), model.slab().end()}; }

tune::PretrainOptions short_run(std::size_t steps) {
  return {.context = 16, .steps = steps, .batch = 4, .seed = 5, .threads = 1, .validate_every = 3};
}

std::vector<std::int32_t> ids_in(const Tensor& t) { return {t.i32(), t.i32() + t.numel()}; }

}  // namespace

TEST(Vocabulary, TrainedPairsAreThoseOfTheDefinition) {
  std::mt19937 random(1);
  for (const int letters : {1, 2, 3, 5}) {
    std::string text;
    for (int word = 0; word < 300; ++word) {
      if (word) text += ' ';
      for (int i = 1 + static_cast<int>(random() % 12); i > 0; --i) text += static_cast<char>('a' + random() % letters);
    }
    for (const std::size_t vocabulary : {257u, 258u, 300u, 400u, 2000u}) {
      const std::string_view texts[] = {text};
      auto made = text::train_bpe(texts, {.vocabulary = static_cast<std::int64_t>(vocabulary)});
      ASSERT_OK(made);
      const Definition wanted = defined_bpe(text, vocabulary);
      const text::VocabularySpec spec = made->spec();
      EXPECT_EQ(strings(spec.merges), wanted.merges) << letters << " letters, " << vocabulary;
      EXPECT_EQ(strings(spec.pieces.subspan(256)), wanted.pieces) << letters << " letters, " << vocabulary;
      EXPECT_EQ(made->end_of_text(), static_cast<std::int32_t>(made->size()) - 1);
      EXPECT_OK(text::Tokenizer::create(spec));
    }
  }
}

TEST(Vocabulary, EveryTextComesBackFromEach) {
  std::mt19937 random(2);
  std::string noise;
  for (int i = 0; i < 5000; ++i) noise += static_cast<char>(random());
  const std::string plain = verses(3), foreign = "Grüße, мир 你好\t\n  a  \xf0\x9f\x98\x80" + std::string(3000, 'z');
  const std::string_view texts[] = {plain, foreign};
  auto bytes = text::byte_vocabulary();
  auto chars = text::character_vocabulary(texts);
  auto pairs = text::train_bpe(texts, {.vocabulary = 400});
  ASSERT_OK(bytes);
  ASSERT_OK(chars);
  ASSERT_OK(pairs);
  for (const auto* vocabulary : {&*bytes, &*chars, &*pairs}) {
    const text::Tokenizer tokenizer = tokenizer_of(*vocabulary);
    for (const std::string& text : {plain, foreign, noise, std::string()}) {
      auto ids = tokenizer.encode(text);
      ASSERT_OK(ids);
      auto back = tokenizer.decode(ids->span());
      ASSERT_OK(back);
      EXPECT_EQ(std::string(back->data(), back->size()), text);
      if (vocabulary == &*bytes) EXPECT_EQ(ids->size(), text.size());
    }
  }
  auto ids = tokenizer_of(*chars).encode("мир ");
  ASSERT_OK(ids);
  EXPECT_EQ(ids->size(), 4u);  // a character each
  EXPECT_GE(*std::min_element(ids->begin(), ids->end()), 259);
  EXPECT_LT(tokenizer_of(*pairs).encode(plain)->size(), plain.size() / 3);
}

TEST(Vocabulary, RefusesWhatCannotBe) {
  const std::string_view texts[] = {k_verse};
  EXPECT_FAILS(text::train_bpe(texts, {.vocabulary = 256}), Errc::invalid_argument);
  EXPECT_FAILS(text::train_bpe(texts, {.vocabulary = (1 << 24) + 1}), Errc::invalid_argument);
  EXPECT_FAILS_SAYING(text::train_bpe(texts, {.pre_tokenizer = "mine"}), "mine");
  auto none = text::train_bpe({}, {.vocabulary = 300});  // nothing merges
  ASSERT_OK(none);
  EXPECT_EQ(none->size(), 257u);
  if (!qorus_test::k_counts_allocations) return;
  for (std::uint64_t first = 0; first < 60; ++first) {  // memory may end at any place
    const qorus_test::FailingAllocations failing(first);
    auto made = text::train_bpe(texts, {.vocabulary = 300});
    if (!made && made.error().code != Errc::out_of_memory) ADD_FAILURE() << made.error().message().c_str();
  }
}

TEST(Corpus, AFolderIsItsFilesInOrder) {
  const TemporaryFolder folder;
  for (const char* name : {"/b", "/a", "/a/deep"}) {
    if (name[1] != 'b') ::mkdir((folder.path() + name).c_str(), 0777);
  }
  write_file(folder / "b.txt", "third\n");
  write_file(folder / "a/deep/x.txt", "first\n");
  write_file(folder / "a/y.txt", "second\n");
  write_file(folder / ".hidden", "no");
  write_file(folder / "empty.txt", "");
  auto all = tune::Corpus::open(folder.path(), 0);
  ASSERT_OK(all);
  EXPECT_EQ(strings(all->train()), (std::vector<std::string>{"first\n", "second\n", "third\n"}));
  EXPECT_TRUE(all->validation().empty());
  EXPECT_EQ(all->bytes(), 19u);
  auto split = tune::Corpus::open(folder.path(), 0.45);  // the border falls into the second: it ends with its line
  ASSERT_OK(split);
  EXPECT_EQ(strings(split->train()), (std::vector<std::string>{"first\n", "second\n"}));
  EXPECT_EQ(strings(split->validation()), (std::vector<std::string>{"third\n"}));
  write_file(folder / "line.txt", std::string(49, 'x') + "ü" + std::string(48, 'y') + "\n");  // no line to cut at
  auto line = tune::Corpus::open(folder / "line.txt", 0.5);
  ASSERT_OK(line);
  ASSERT_EQ(line->validation().size(), 1u);
  EXPECT_EQ(line->train()[0].size(), 51u);
  // Between two texts stands the end of a text.
  auto vocabulary = text::byte_vocabulary();
  ASSERT_OK(vocabulary);
  auto tokens = tune::Tokens::encode(tokenizer_of(*vocabulary), all->train(), folder / "ids");
  ASSERT_OK(tokens);
  ASSERT_EQ(tokens->size(), 21u);
  std::int32_t ids[3];
  tokens->copy_to(5, ids);
  EXPECT_EQ(ids[0], '\n');
  EXPECT_EQ(ids[1], 256);
  EXPECT_EQ(ids[2], 's');
  EXPECT_EQ(qorus_test::read_file(folder / "ids"), "");  // its name is gone
}

TEST(Corpus, ATextThatShrinksIsTold) {
  const TemporaryFolder folder;
  write_file(folder / "a.txt", std::string(20000, 'a'));
  write_file(folder / "b.txt", std::string(20000, 'b'));
  auto corpus = tune::Corpus::open(folder.path(), 0);
  ASSERT_OK(corpus);
  EXPECT_OK(corpus->whole());
  ASSERT_EQ(::truncate((folder / "b.txt").c_str(), 100), 0);
  EXPECT_FAILS(corpus->whole(), Errc::io);
  EXPECT_FAILS_SAYING(corpus->whole(), "b.txt");
}

TEST(TextFolder, AClassIsAFolder) {
  const TemporaryFolder folder;
  for (const char* name : {"/sea", "/air", "/.git"}) ::mkdir((folder.path() + name).c_str(), 0777);
  for (const auto& [name, text] :
       {std::pair{"sea/b", "wet"}, std::pair{"sea/a", ""}, std::pair{"air/x.txt", "blow\xff!"},
        std::pair{"README", "no"}, std::pair{"sea/.hidden", "no"}, std::pair{".git/x", "no"}})
    write_file(folder / name, text);
  const auto texts = tune::text_folder(folder.path(), {.length = 5});
  ASSERT_OK(texts);
  ASSERT_EQ(texts->classes.size(), 2u);
  EXPECT_EQ(texts->classes[0].view(), "air");
  EXPECT_EQ(texts->classes[1].view(), "sea");
  EXPECT_EQ(texts->data.classes(), 2);
  EXPECT_EQ(ids_in(texts->data.targets()), (std::vector<std::int32_t>{0, 1, 1}));
  EXPECT_EQ(ids_in(texts->data.inputs()), (std::vector<std::int32_t>{'b' + 1, 'l' + 1, 'o' + 1, 'w' + 1, 256, 0, 0, 0,
                                                                     0, 0, 'w' + 1, 'e' + 1, 't' + 1, 0, 0}));
  EXPECT_FAILS(tune::text_folder(folder.path(), {.length = 0}), Errc::invalid_size);
  EXPECT_FAILS_SAYING(tune::text_folder(folder / "none"), "none");
  EXPECT_FAILS(tune::text_folder(folder / "sea"), Errc::invalid_size);  // no folders in it
  EXPECT_FAILS(tune::text_folder(std::string(500, 'x')), Errc::unsupported);
  ::mkdir((folder / "sea/deep").c_str(), 0777);
  EXPECT_FAILS_SAYING(tune::text_folder(folder.path()), "deep");
  ::mkdir((folder / "zero").c_str(), 0777);
  ::rmdir((folder / "sea/deep").c_str());
  EXPECT_FAILS_SAYING(tune::text_folder(folder.path()), "zero");
}

TEST(Corpus, RefusesWhatIsNoText) {
  const TemporaryFolder folder;
  write_file(folder / "empty", "");
  write_file(folder / "text", "words");
  EXPECT_FAILS(tune::Corpus::open(folder / "empty"), Errc::invalid_size);
  EXPECT_FAILS(tune::Corpus::open(folder / "none"), Errc::not_found);
  EXPECT_FAILS(tune::Corpus::open(""), Errc::invalid_argument);
  for (const double share : {-0.1, 1.0, std::numeric_limits<double>::quiet_NaN()})
    EXPECT_FAILS(tune::Corpus::open(folder / "text", share), Errc::invalid_argument);
  auto vocabulary = text::byte_vocabulary();
  ASSERT_OK(vocabulary);
  const std::string_view texts[] = {"words"};
  EXPECT_FAILS(tune::Tokens::encode(tokenizer_of(*vocabulary), texts, folder / "no/ids"), Errc::not_found);
}

TEST(Corpus, LongTextsAndLargeVocabularies) {
  const TemporaryFolder folder;
  const std::string line = "It was the best of times, it was the worst of times\n";
  std::string text;
  while (text.size() < (17u << 20)) text += line;
  auto vocabulary = text::byte_vocabulary();
  ASSERT_OK(vocabulary);
  const std::string_view texts[] = {text};
  auto tokens = tune::Tokens::encode(tokenizer_of(*vocabulary), texts, folder / "ids");
  ASSERT_OK(tokens);
  ASSERT_EQ(tokens->size(), text.size());
  std::vector<std::int32_t> ids(text.size());
  tokens->copy_to(0, ids);
  EXPECT_TRUE(std::equal(ids.begin(), ids.end(), text.begin(), [](std::int32_t id, char c) { return id == c; }));
  // More pieces than two bytes number.
  std::vector<std::string> names;
  std::vector<std::string_view> pieces{"a"};
  for (int i = 0; i < 70000; ++i) names.push_back("x" + std::to_string(i));
  pieces.insert(pieces.end(), names.begin(), names.end());
  auto large = text::Tokenizer::create({.algorithm = text::Algorithm::char_bpe, .pieces = pieces, .eos = 70000});
  ASSERT_OK(large);
  const std::string_view two[] = {"a", "a"};
  auto wide = tune::Tokens::encode(*large, two, folder / "ids");
  ASSERT_OK(wide);
  ASSERT_EQ(wide->size(), 3u);
  wide->copy_to(0, std::span(ids).first(3));
  EXPECT_EQ(ids[1], 70000);
}

TEST(Windows, AnEpochSeesEveryIdOnce) {
  const TemporaryFolder folder;
  std::string text;
  for (int i = 0; i < 103; ++i) text += static_cast<char>(i);
  auto tokens = tokens_of(text, folder);
  ASSERT_OK(tokens);
  auto windows = tune::Windows::create(*tokens, 10, 7);
  ASSERT_OK(windows);
  ASSERT_EQ(windows->size(), 9u);
  Workspace workspace{{.scratch = 1_MiB, .threads = 1}};
  std::vector<int> begins;
  for (int epoch = 1; epoch < 30; ++epoch) {
    windows->set_epoch(epoch);
    auto frame = workspace.frame();
    std::vector<std::int32_t> all(windows->size());
    for (std::size_t i = 0; i < all.size(); ++i) all[i] = static_cast<std::int32_t>(i);
    auto pair = windows->gather(frame.context(), Tensor::borrow(std::span<const std::int32_t>(all), {9, 1}));
    ASSERT_OK(pair);
    ASSERT_EQ(pair->x.numel(), 90u);
    begins.push_back(pair->x.i32()[0]);
    for (int i = 0; i < 90; ++i) {
      EXPECT_EQ(pair->x.i32()[i], begins.back() + i);
      EXPECT_EQ(pair->y.i32()[i], begins.back() + i + 1);
    }
  }
  std::sort(begins.begin(), begins.end());
  EXPECT_GE(begins.front(), 0);
  EXPECT_LE(begins.back(), 9);
  EXPECT_GE(std::unique(begins.begin(), begins.end()) - begins.begin(), 7);
  EXPECT_FAILS(tune::Windows::create(*tokens, 103, 7), Errc::invalid_size);
  EXPECT_FAILS(tune::Windows::create(*tokens, 0, 7), Errc::invalid_size);
  EXPECT_OK(tune::Windows::create(*tokens, 102, 7));
}

TEST(Pretrain, LossFallsAndValidationIsTold) {
  const TemporaryFolder folder;
  auto tokens = tokens_of(verses(20), folder), validation = tokens_of(verses(2), folder);
  ASSERT_OK(tokens);
  ASSERT_OK(validation);
  auto model = small_model({.deviation = 0.02f});
  ASSERT_OK(model);
  std::vector<std::size_t> told;
  const auto note = [&](train::Event& event) noexcept {
    if (event.moment == train::Moment::step_end && event.record.validation_loss >= 0) told.push_back(event.total_step);
  };
  const tune::PretrainOptions options{.optimizer = optim::adamw({.lr = 1e-2f}),
                                      .context = 16,
                                      .steps = 60,
                                      .batch = 4,
                                      .seed = 5,
                                      .threads = 1,
                                      .validate_every = 20,
                                      .callbacks = {note}};
  const train::ModelRef seen = train::model_ref(*model);
  auto before = tune::mean_loss(seen, *validation, {.context = 16});
  auto history = tune::pretrain(*model, *tokens, *validation, options);
  ASSERT_OK(before);
  ASSERT_OK(history);
  EXPECT_EQ(history->steps, 60u);
  EXPECT_EQ(told, (std::vector<std::size_t>{20, 40, 60}));
  EXPECT_NEAR(*before, std::log(257.0), 0.1);
  const double after = history->epochs.back().validation_loss;
  EXPECT_LT(after, 2.6);
  auto measured = tune::mean_loss(seen, *validation, {.context = 16, .batch = 3});
  ASSERT_OK(measured);
  EXPECT_NEAR(*measured, after, 1e-5);  // the same mean, in other batches: sums of f32 in another order
  const std::int32_t prompt[] = {'T'};
  auto ids = tune::continue_ids(seen, prompt, 16, {.max_tokens = 40});
  ASSERT_OK(ids);
  EXPECT_EQ(ids->size(), 41u);
  EXPECT_FAILS(tune::continue_ids(seen, {}, 16, {}), Errc::invalid_argument);
}

TEST(Pretrain, TheSameBitsForAnyThreadsAndAfterAStop) {
  const TemporaryFolder folder;
  auto tokens = tokens_of(verses(3), folder), validation = tokens_of(k_verse, folder);
  ASSERT_OK(tokens);
  ASSERT_OK(validation);
  const auto trained = [&](tune::PretrainOptions options) {
    auto model = small_model();
    EXPECT_OK(model);
    EXPECT_OK(tune::pretrain(*model, *tokens, *validation, options));
    return slab_of(*model);
  };
  const std::vector<float> whole = trained(short_run(25));  // more than two epochs
  auto two = short_run(25);
  two.threads = 2;
  EXPECT_EQ(trained(two), whole);
  // Stopped in the middle of an epoch, and gone on from the newest checkpoint with a model made anew.
  const std::string place = folder / "run";
  for (const std::size_t end : {7u, 13u, 25u}) {
    tune::PretrainOptions options{.context = 16,
                                  .steps = 25,
                                  .batch = 4,
                                  .seed = 5,
                                  .threads = 1,
                                  .checkpoints = {.folder = place, .every_steps = 3},
                                  .callbacks = {[end](train::Event& event) noexcept {
                                    if (event.moment == train::Moment::step_end && event.total_step == end)
                                      event.stop = true;
                                  }}};
    const std::vector<float> now = trained(options);
    EXPECT_EQ(now == whole, end == 25) << end;
  }
}

TEST(Pretrain, AWarmStepAllocatesNothing) {
  QORUS_NEEDS_ALLOCATION_COUNTER();
  const TemporaryFolder folder;
  auto tokens = tokens_of(verses(20), folder);
  ASSERT_OK(tokens);
  auto model = small_model();
  ASSERT_OK(model);
  std::uint64_t before = 0, worst = 0;
  tune::PretrainOptions options{
      .context = 16, .steps = 20, .batch = 4, .threads = 2, .callbacks = {[&](train::Event& event) noexcept {
                                                              if (event.moment != train::Moment::step_end) return;
                                                              if (event.total_step > 2)
                                                                worst =
                                                                    std::max(worst, qorus_test::allocations() - before);
                                                              before = qorus_test::allocations();
                                                            }}};
  ASSERT_OK(tune::pretrain(*model, *tokens, {}, options));
  EXPECT_EQ(worst, 0u);
}

TEST(Pretrain, RefusesWhatCannotBe) {
  const TemporaryFolder folder;
  auto tokens = tokens_of(k_verse, folder), two = tokens_of("x", folder);
  ASSERT_OK(tokens);
  ASSERT_OK(two);
  auto model = small_model();
  ASSERT_OK(model);
  auto far = short_run(2), empty = short_run(2), steep = short_run(5);
  far.context = 100000;
  EXPECT_FAILS_SAYING(tune::pretrain(*model, *tokens, {}, far), "more tokens than a window");
  empty.batch = 0;
  EXPECT_FAILS(tune::pretrain(*model, *tokens, {}, empty), Errc::invalid_argument);
  EXPECT_FAILS(tune::pretrain(*model, *tokens, *two, short_run(2)), Errc::invalid_size);  // one id to validate
  auto small = small_model({.vocab = 100});                                               // ids beyond the embeddings
  ASSERT_OK(small);
  EXPECT_FAILS(tune::pretrain(*small, *tokens, {}, short_run(2)), Errc::invalid_argument);
  steep.optimizer = optim::adamw({.lr = 1e30f});
  steep.clip_norm = 0;
  EXPECT_FAILS(tune::pretrain(*model, *tokens, {}, steep), Errc::diverged);
}

TEST(WriteGguf, WhatIsOpenedGivesTheModelsLogits) {
  const TemporaryFolder folder;
  const std::string path = folder / "model.gguf";
  auto vocabulary = text::byte_vocabulary();
  ASSERT_OK(vocabulary);
  const std::vector<std::int32_t> ids = {84, 104, 101, 32, 115, 101, 97, 256, 0, 255};
  for (const Form& form : {Form{}, Form{.tied = true}, Form{.pairs = ops::RopePairs::halves, .kv_heads = 4},
                           Form{.pairs = ops::RopePairs::halves, .tied = true, .kv_heads = 1}}) {
    auto model = small_model(form);
    ASSERT_OK(model);
    ASSERT_OK(tune::write_gguf(*model, vocabulary->spec(), path, {.name = "sea"}));
    auto opened = llm::open(path);
    ASSERT_OK(opened);
    EXPECT_EQ(opened->config().context, 16);
    EXPECT_TRUE(opened->ends_text(256));
    EXPECT_EQ(opened->tokenizer().encode("The")->size(), 3u);
    auto session = llm::Session::create(*opened, {.threads = 1});
    ASSERT_OK(session);
    Workspace workspace{{.scratch = 16_MiB, .threads = 1}};
    auto frame = workspace.frame();
    auto logits = (*model)(
        *frame.input(Tensor::borrow(std::span<const std::int32_t>(ids), {1, static_cast<std::int64_t>(ids.size())})));
    ASSERT_OK(logits);
    float largest = 0, worst = 0;
    ASSERT_OK(session->feed(ids, [&](std::size_t row, std::span<const float> given) {
      for (std::size_t i = 0; i < given.size(); ++i) {
        const float wanted = logits->f32()[row * given.size() + i];
        largest = std::max(largest, std::abs(wanted));
        worst = std::max(worst, std::abs(given[i] - wanted));
      }
    }));
    // The same sums in f32 in other orders: some ten products deep, each within a few u of its terms.
    EXPECT_LT(worst, 1e-5f * largest);
    EXPECT_GT(largest, 0.1f);
  }
}

TEST(WriteGguf, TypesAreThoseThatQuantizeMakes) {
  const TemporaryFolder folder;
  auto vocabulary = text::byte_vocabulary();
  auto model = small_model();
  ASSERT_OK(vocabulary);
  ASSERT_OK(model);
  ASSERT_OK(tune::write_gguf(*model, vocabulary->spec(), folder / "f32.gguf"));
  for (const char* type : {"f16", "bf16", "q8_0", "q4_0", "q5_k_m"}) {
    ASSERT_OK(tune::write_gguf(*model, vocabulary->spec(), folder / "a.gguf", {.type = type}));
    ASSERT_OK(
        formats::quantize(folder / "f32.gguf", folder / "b.gguf", {.scheme = formats::scheme_of(type), .threads = 1}));
    auto a = io::read_gguf(folder / "a.gguf"), b = io::read_gguf(folder / "b.gguf");
    ASSERT_OK(a);
    ASSERT_OK(b);
    ASSERT_EQ(a->entries().size(), b->entries().size());
    EXPECT_EQ(*a->u32("general.file_type"), *b->u32("general.file_type"));
    for (const io::TensorEntry& entry : a->entries()) {
      auto x = a->tensor(entry.name), y = b->tensor(entry.name);
      ASSERT_OK(x);
      ASSERT_OK(y);
      ASSERT_EQ(x->dtype(), y->dtype()) << entry.name;
      EXPECT_EQ(std::memcmp(x->data(), y->data(), row_bytes(x->dtype(), x->numel())), 0) << entry.name;
    }
    // The vocabulary of another file, as it is.
    ASSERT_OK(tune::write_gguf(*model, *a, folder / "c.gguf", {.type = type}));
    EXPECT_EQ(qorus_test::read_file(folder / "c.gguf").size(), qorus_test::read_file(folder / "a.gguf").size());
  }
}

TEST(WriteGguf, RefusesWhatLlamaLacks) {
  const TemporaryFolder folder;
  const std::string path = folder / "model.gguf";
  auto vocabulary = text::byte_vocabulary();
  auto model = small_model(), other = small_model({.vocab = 300});
  ASSERT_OK(vocabulary);
  ASSERT_OK(model);
  ASSERT_OK(other);
  EXPECT_FAILS(tune::write_gguf(*other, vocabulary->spec(), path), Errc::invalid_size);
  EXPECT_FAILS(tune::write_gguf(*model, vocabulary->spec(), path, {.type = "q3"}), Errc::unsupported);
  EXPECT_FAILS(tune::write_gguf(*model, vocabulary->spec(), folder / "no/model.gguf"), Errc::not_found);
  auto gpt = nn::build(nn::gpt({.vocab = 257, .context = 16, .d_model = 32, .heads = 4, .layers = 1}), {16},
                       init::normal(1), {.input = DType::i32});
  ASSERT_OK(gpt);
  EXPECT_FAILS_SAYING(tune::write_gguf(*gpt, vocabulary->spec(), path), "learned positions");
  EXPECT_TRUE(qorus_test::read_file(path).empty());  // nothing is left
}
