// qorus.llm: guessing ahead. Rows that are fed together have the bits that they have alone; so the text is the same to the byte, whoever guesses.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "tests/llm_models.h"

import qorus.formats;

using namespace qorus;
using namespace qorus_test;

namespace {
using Ids = std::vector<std::int32_t>;
using Floats = std::vector<float>;
constexpr DType k_caches[] = {DType::f32, DType::f16, DType::q8_0};
constexpr std::string_view k_prompt = "to be, or not to be, or to b";

// What a generation leaves behind.
struct Told {
  std::string text;
  Ids tokens;
  llm::Generated done;
};
Told tell(const llm::Model& model, const llm::GenerateOptions& options, const llm::SessionOptions& how = {.threads = 1},
          std::size_t pieces = SIZE_MAX) {
  Told told;
  auto session = llm::Session::create(model, how);
  EXPECT_OK(session);
  auto done = llm::generate(*session, k_prompt, options, [&](std::string_view piece) {
    told.text += piece;
    return --pieces > 0;
  });
  EXPECT_OK(done);
  if (done) told.done = *done;
  told.tokens.assign(session->tokens().begin(), session->tokens().end());
  EXPECT_EQ(session->position(), static_cast<std::int64_t>(told.tokens.size()));
  return told;
}
void expect_same(const Told& got, const Told& wanted, const std::string& where) {
  EXPECT_EQ(got.text, wanted.text) << where;
  EXPECT_EQ(got.tokens, wanted.tokens) << where;
  EXPECT_EQ(got.done.ending, wanted.done.ending) << where;
  EXPECT_EQ(got.done.tokens, wanted.done.tokens) << where;
  EXPECT_EQ(got.done.prompt_tokens, wanted.done.prompt_tokens) << where;
  EXPECT_LE(got.done.accepted, got.done.guessed) << where;
}

// A model, and one of half the bits that guesses.
class LlmGuessing : public testing::Test {
 protected:
  void SetUp() override {
    write_babbler(folder / "model");
    write_babbler(folder / "draft", {.dtype = DType::bf16});
    open("model", model);
    open("draft", draft);
  }
  void open(const std::string& name, llm::Model& to) {
    auto opened = llm::open(folder / name);
    ASSERT_OK(opened);
    to = std::move(*opened);
  }
  llm::Session session(const llm::SessionOptions& options = {.threads = 1}) {
    auto made = llm::Session::create(draft, options);
    EXPECT_OK(made);
    return std::move(*made);
  }
  const qorus_test::TemporaryFolder folder;
  llm::Model model, draft;
};
}  // namespace

// Before and after the place where a cache that is not f32 is read in two stretches, with and without a window that moves on: every kind of
// weights and of cache.
TEST(LlmGuess, RowsHaveTheSameBitsTogetherAndAlone) {
  const qorus_test::TemporaryFolder folder;
  Ids ids;
  for (int i = 0; i < 280; ++i) ids.push_back((i * 31 + i * i * 7) % 95);
  const struct {
    const char *kind, *more;
    std::vector<DType> types;
  } models[] = {{"llama", "", {DType::f32, DType::f16, DType::q8_0, DType::q4_0, DType::q4_k}},
                {"mistral", "\"sliding_window\": 40, ", {DType::f32, DType::q4_k}}};
  for (const auto& made : models) {
    write_babbler(folder / made.kind, {.kind = made.kind, .more = made.more, .width = 256});
    ASSERT_OK(llm::convert(folder / made.kind, folder / "f32.gguf", {.threads = 1}));
    for (const DType dtype : made.types) {
      ASSERT_OK(formats::quantize(folder / "f32.gguf", folder / "x.gguf", {.dtype = dtype, .threads = 1}));
      auto model = llm::open(folder / "x.gguf");
      ASSERT_OK(model);
      for (const DType cache : k_caches) {
        const auto alone = logits_of(*model, ids, {.batch = 1, .cache = cache, .threads = 1});
        auto session = llm::Session::create(*model, {.cache = cache, .threads = 2});
        ASSERT_OK(session);
        for (const std::size_t past : {std::size_t{36}, std::size_t{248}}) {
          for (const std::size_t count : {1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17}) {
            ASSERT_OK(session->continue_as(std::span(ids).first(past)));
            std::size_t same = 0;
            ASSERT_OK(
                session->feed(std::span(ids).subspan(past, count), [&](std::size_t row, std::span<const float> logits) {
                  same += row == same && std::equal(logits.begin(), logits.end(),
                                                    alone.begin() + static_cast<std::ptrdiff_t>((past + row) * 96));
                }));
            ASSERT_EQ(same, count) << made.kind << " " << static_cast<int>(dtype) << " " << static_cast<int>(cache)
                                   << " after " << past;
          }
        }
      }
    }
  }
}

TEST_F(LlmGuessing, TheTextIsTheSameForEverySamplerCacheAndNumberOfThreads) {
  const llm::LogitBias bias[] = {{3, 4}};
  std::size_t guessed = 0, accepted = 0, drafted = 0, taken = 0;
  for (const llm::GenerateOptions& sampler :
       {llm::GenerateOptions{},
        {.temperature = 0.7f, .seed = 1},
        {.temperature = 1, .top_k = 4, .seed = 2},
        {.temperature = 1.5f, .top_p = 0.5f, .min_p = 0.1f, .seed = 3},
        {.temperature = 1, .typical_p = 0.4f, .seed = 4},
        {.temperature = 1, .mirostat_tau = 1.5f, .seed = 5},
        {.repetition_penalty = 1.3f, .frequency_penalty = 0.2f, .presence_penalty = 0.1f, .penalty_last = 20},
        {.temperature = 0.5f, .frequency_penalty = 0.1f, .seed = 6, .bias = bias}}) {
    for (const DType cache : k_caches) {
      llm::GenerateOptions options = sampler;
      options.max_tokens = 120;
      const Told wanted = tell(model, options, {.cache = cache, .threads = 1});
      EXPECT_EQ(wanted.done.guessed, 0u);
      for (const int guess : {1, 7, 64}) {
        const int threads = guess == 7 ? 1 : 2;
        const std::string where = std::to_string(options.seed) + " " + std::to_string(guess);
        options.guess = guess;
        options.draft = nullptr;
        const Told looked_up = tell(model, options, {.cache = cache, .threads = threads});
        expect_same(looked_up, wanted, where);
        guessed += looked_up.done.guessed;
        accepted += looked_up.done.accepted;
        auto small = session({.cache = DType::f16, .threads = threads});
        options.draft = &small;
        const Told told = tell(model, options, {.batch = 5, .cache = cache, .threads = threads});
        expect_same(told, wanted, where);
        drafted += told.done.guessed;
        taken += told.done.accepted;
      }
    }
  }
  // Of both there were some, right and wrong.
  EXPECT_GT(accepted, 0u);
  EXPECT_GT(guessed, accepted);
  EXPECT_GT(taken, 0u);
  EXPECT_GT(drafted, taken);
}

// Wherever it ends, in the middle of guesses that were right as well, the session stands as it does without guesses.
TEST_F(LlmGuessing, EndingsLeaveTheSameBehind) {
  const Told whole = tell(model, {.max_tokens = 100});
  const std::size_t prompt = whole.tokens.size() - 99;
  auto small = session();
  std::size_t accepted = 0;
  const auto compare = [&](llm::GenerateOptions options, const llm::SessionOptions& how, std::size_t pieces,
                           llm::Ending ending) {
    const Told wanted = tell(model, options, how, pieces);
    EXPECT_EQ(wanted.done.ending, ending);
    options.guess = 16;
    const Told looked_up = tell(model, options, how, pieces);
    expect_same(looked_up, wanted, "looked up");
    options.draft = &small;
    const Told drafted = tell(model, options, how, pieces);
    expect_same(drafted, wanted, "drafted");
    accepted += looked_up.done.accepted + drafted.done.accepted;
    // The first token follows from the prompt, the last is not fed: neither is guessed.
    const std::size_t between = wanted.done.tokens > 2 ? wanted.done.tokens - 2 : 0;
    if (ending == llm::Ending::length) EXPECT_LE(drafted.done.accepted, between);
  };
  for (std::int64_t n = 0; n < 60; ++n) {
    compare({.max_tokens = n}, {.threads = 1}, SIZE_MAX, llm::Ending::length);
    compare({.max_tokens = 100}, {.context = static_cast<std::int64_t>(prompt) + n, .threads = 1}, SIZE_MAX,
            llm::Ending::context);
    compare({.max_tokens = 100}, {.threads = 1}, static_cast<std::size_t>(n) + 1, llm::Ending::told);
    const std::string_view stop[] = {std::string_view(whole.text).substr(static_cast<std::size_t>(n), 6)};
    compare({.max_tokens = 100, .stop = stop}, {.threads = 1}, SIZE_MAX, llm::Ending::stop);
  }
  EXPECT_GT(accepted, 1000u);
}

TEST_F(LlmGuessing, ATextEndsWhereItEndsWithoutGuesses) {
  const Told whole = tell(model, {.max_tokens = 100});
  Ids ends(whole.tokens.end() - 99, whole.tokens.end());
  std::sort(ends.begin(), ends.end());
  ends.erase(std::unique(ends.begin(), ends.end()), ends.end());
  ASSERT_GT(ends.size(), 3u);
  for (const std::int32_t end : ends) {
    write_babbler(folder / "model", {.end = end});
    write_babbler(folder / "draft", {.end = end, .dtype = DType::bf16});
    open("model", model);
    open("draft", draft);
    const Told wanted = tell(model, {.max_tokens = 100});
    EXPECT_EQ(wanted.done.ending, llm::Ending::end_of_text);
    expect_same(tell(model, {.max_tokens = 100, .guess = 16}), wanted, "looked up");
    auto small = session();
    expect_same(tell(model, {.max_tokens = 100, .guess = 16, .draft = &small}), wanted, "drafted");
  }
}

// Each token of the text is A, so that what is guessed comes from the prompt alone.
TEST_F(LlmGuessing, ItLooksUpWhatFollowedTheLastTimeThatMostOfItStoodThere) {
  const llm::LogitBias always[] = {{33, 1000}};
  write_babbler(folder / "model", {.end = 'z' - ' '});
  open("model", model);
  const struct {
    std::string_view prompt;
    std::size_t guessed, accepted;
  } cases[] = {
      {"ApqrAAAAxrAyypqr", 1, 1},     // four stood there before two
      {"ApqrAyyxpqrAAAAspqr", 1, 1},  // as many twice: the later time
      {"ApqrAAAAxpqrAyyspqr", 1, 0},
      {"AxyAAAAq", 1, 0},    // one is too few, but then there are two
      {"ArAyAAAAqr", 1, 0},  // two are enough
      {"ArAAzAAAqr", 1, 1},  // not beyond the end of a text
      {"rA", 1, 1},          // the guess is what it goes on with itself
  };
  for (const auto& c : cases) {
    auto session = llm::Session::create(model, {.threads = 1});
    ASSERT_OK(session);
    auto done = llm::generate(*session, c.prompt, {.max_tokens = 4, .bias = always, .guess = 2},
                              [](std::string_view) { return true; });
    ASSERT_OK(done);
    EXPECT_EQ(done->guessed, c.guessed) << c.prompt;
    EXPECT_EQ(done->accepted, c.accepted) << c.prompt;
  }
}

// Fed one by one 99 times without guesses; with them, as many times less as guesses are right.
TEST_F(LlmGuessing, MoreIsGuessedWhereItIsRightAndLittleWhereItIsNot) {
  const llm::LogitBias always[] = {{33, 1000}};
  const Told told = tell(model, {.max_tokens = 100, .bias = always, .guess = 64});
  EXPECT_EQ(told.text, std::string(100, 'A'));
  EXPECT_EQ(told.done.guessed, told.done.accepted);
  EXPECT_GE(told.done.accepted, 90u);
  auto small = session();
  const auto drafted = [&](float temperature) {
    return tell(model, {.max_tokens = 300, .temperature = temperature, .guess = 64, .draft = &small}).done;
  };
  EXPECT_LT(drafted(1000).guessed, 80u);   // of nothing but chance: rests between wrong guesses grow
  EXPECT_LT(drafted(0.7f).guessed, 600u);  // right now and then: few after many were wrong
}

TEST_F(LlmGuessing, ADraftIsKeptInStep) {
  auto small = session(), tiny = session({.context = 5, .threads = 1});
  const Told wanted = tell(model, {.max_tokens = 100});
  const Told told = tell(model, {.max_tokens = 100, .guess = 7, .draft = &small});
  expect_same(told, wanted, "whole");
  EXPECT_GE(told.done.accepted, 30u);
  // Before the first token it has read what there is, the last of it for what follows.
  auto talk = llm::Session::create(model, {.threads = 1});
  ASSERT_OK(talk);
  ASSERT_OK(llm::generate(*talk, k_prompt, {.max_tokens = 100, .guess = 7, .draft = &small}, [&](std::string_view) {
    EXPECT_EQ(small.position(), talk->position());
    return false;
  }));
  // It stands somewhere else, and comes back.
  const Ids other = {5, 6, 7};
  ASSERT_OK(small.continue_as(other));
  EXPECT_EQ(tell(model, {.max_tokens = 100, .guess = 7, .draft = &small}).done.accepted, told.done.accepted);
  // Where its context ends there are no more guesses.
  for (std::int64_t context = 50; context < 60; ++context) {
    auto narrow = session({.context = context, .threads = 1});
    const Told some = tell(model, {.max_tokens = 100, .guess = 7, .draft = &narrow});
    expect_same(some, wanted, "narrow");
    EXPECT_GT(some.done.accepted, 0u);
    EXPECT_LT(some.done.guessed, 40u);
    EXPECT_LE(narrow.position(), context);
  }
  const Told none = tell(model, {.max_tokens = 100, .guess = 7, .draft = &tiny});
  expect_same(none, wanted, "tiny");
  EXPECT_EQ(none.done.guessed, 0u);
  // The text goes on after others in a session that goes on, and so does what guesses.
  auto plain = llm::Session::create(model, {.threads = 1}), guessing = llm::Session::create(model, {.threads = 1});
  ASSERT_OK(plain);
  ASSERT_OK(guessing);
  for (const std::string_view prompt : {"once more", "and again", ", and again"}) {
    std::string a, b;
    ASSERT_OK(
        llm::generate(*plain, prompt, {.max_tokens = 30}, [&](std::string_view piece) { return a += piece, true; }));
    ASSERT_OK(llm::generate(*guessing, prompt, {.max_tokens = 30, .guess = 7, .draft = &small},
                            [&](std::string_view piece) { return b += piece, true; }));
    EXPECT_EQ(a, b);
  }
}

TEST_F(LlmGuessing, DraftsOfAnotherVocabularyAreRefused) {
  auto all = [](std::string_view) { return true; };
  auto own = llm::Session::create(model, {.threads = 1});
  ASSERT_OK(own);
  EXPECT_FAILS_SAYING(llm::generate(*own, "a", {.guess = 2, .draft = &*own}, all), "itself");
  std::string words = read_file(folder / "draft/tokenizer.json");
  words.replace(words.find("\"A\": 33"), 7, "\"B\": 33").replace(words.find("\"B\": 34"), 7, "\"A\": 34");
  write_file(folder / "draft/tokenizer.json", words);
  open("draft", draft);
  auto other = session();
  const auto refused = llm::generate(*own, "a", {.guess = 2, .draft = &other}, all);
  EXPECT_FAILS(refused, Errc::invalid_argument);
  EXPECT_FAILS_SAYING(refused, "[33]");
  EXPECT_EQ(own->position(), 0);
  EXPECT_OK(llm::generate(*own, "a", {.draft = &other}, all));  // nobody asks it
  write_file(folder / "draft/tokenizer.json", R"({"model": {"type": "BPE", "merges": [], "vocab": {"a": 0}}})");
  open("draft", draft);
  auto small = session();
  EXPECT_FAILS_SAYING(llm::generate(*own, "a", {.guess = 2, .draft = &small}, all), "another size");
}

TEST_F(LlmGuessing, AllocatesNothingPerTokenOnceWarm) {
  QORUS_NEEDS_ALLOCATION_COUNTER();
  ASSERT_OK(draft.ready());  // laying out goes on after open()
  for (const int threads : {1, 2}) {
    auto small = session({.threads = threads});
    for (llm::Session* const guesser : {static_cast<llm::Session*>(nullptr), &small}) {
      auto talk = llm::Session::create(model, {.threads = threads});
      ASSERT_OK(talk);
      std::uint64_t before = 0, worst = 0, pieces = 0;
      auto done =
          llm::generate(*talk, k_prompt, {.max_tokens = 200, .guess = 7, .draft = guesser}, [&](std::string_view) {
            if (++pieces > 60) worst = std::max(worst, qorus_test::allocations() - before);
            before = qorus_test::allocations();
            return true;
          });
      ASSERT_OK(done);
      EXPECT_GT(done->accepted, 50u);
      EXPECT_EQ(worst, 0u) << threads;
    }
  }
}

class LlmGuessedStories : public qorus_test::StoriesTest {};

// The published text, guessed by the same model in a quarter of the bits.
TEST_F(LlmGuessedStories, AreThePublishedOne) {
  auto model = llm::open(stories("stories260K-F32.gguf")), small = llm::open(stories("stories260K-q8_0.gguf"));
  ASSERT_OK(model);
  ASSERT_OK(small);
  auto draft = llm::Session::create(*small, {.context = 512});
  ASSERT_OK(draft);
  for (llm::Session* const guesser : {static_cast<llm::Session*>(nullptr), &*draft}) {
    auto session = llm::Session::create(*model, {.context = 512});
    ASSERT_OK(session);
    std::string text;
    auto done = llm::generate(*session, "", {.max_tokens = 256, .guess = 7, .draft = guesser},
                              [&](std::string_view piece) { return text += piece, true; });
    ASSERT_OK(done);
    EXPECT_EQ(text, published());
    EXPECT_EQ(session->position(), 256);
    EXPECT_GT(done->accepted, guesser ? 150u : 20u);
  }
}
