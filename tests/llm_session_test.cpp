// qorus.llm: what a session promises beside its logits: several sequences, prefixes, saved caches; and how samplers choose.
#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "tests/files.h"
#include "tests/testing.h"

import qorus.llm;

using namespace qorus;
using qorus_test::read_file;
using qorus_test::write_file;

namespace {

using Ids = std::vector<std::int32_t>;
using Floats = std::vector<float>;

Floats copy_of(const Result<std::span<const float>>& logits) {
  EXPECT_OK(logits);
  return logits ? Floats(logits->begin(), logits->end()) : Floats();
}

class LlmSession : public testing::Test {
 protected:
  void SetUp() override {
    QORUS_NEEDS_DATA("models/stories260K");
    auto opened = llm::open(qorus_test::data_path("models/stories260K/stories260K-F32.gguf"));
    ASSERT_OK(opened);
    model = std::move(*opened);
  }
  llm::Session session(const llm::SessionOptions& options) {
    auto made = llm::Session::create(model, options);
    EXPECT_OK(made);
    return std::move(*made);
  }
  // Some tokens, different for each n.
  static Ids prompt(int n, int length) {
    Ids ids = {1};
    for (int i = 1; i < length; ++i) ids.push_back((n * 97 + i * 31) % 500 + 3);
    return ids;
  }
  llm::Model model;
};

}  // namespace

// 17 sequences of different lengths, prompts and then five rounds of one token each: every one's bits are those it has alone.
TEST_F(LlmSession, ASequenceIsTheSameAloneAndAmong17) {
  constexpr int k_count = 17;
  for (const DType dtype : {DType::f32, DType::f16}) {
    std::vector<std::vector<Floats>> alone(k_count);
    for (int n = 0; n < k_count; ++n) {
      auto one = session({.context = 40, .cache = dtype, .threads = 1});
      alone[n].push_back(copy_of(one.feed(prompt(n, 3 + n))));
      for (std::int32_t i = 0; i < 5; ++i) {
        const Ids next = {n * 3 + i + 5};
        alone[n].push_back(copy_of(one.feed(next)));
      }
    }
    for (const int threads : {1, 2, 3}) {
      auto all = session({.context = 40, .batch = 50, .sequences = k_count, .cache = dtype, .threads = threads});
      for (int round = 0; round < 6; ++round) {
        std::vector<Ids> ids;
        std::vector<llm::SequenceInput> inputs;
        for (int n = 0; n < k_count; ++n) ids.push_back(round ? Ids{n * 3 + round - 1 + 5} : prompt(n, 3 + n));
        for (int n = 0; n < k_count; ++n) inputs.push_back({n, ids[n]});
        const Floats got = copy_of(all.feed_batch(inputs));
        ASSERT_EQ(got.size(), k_count * 512u);
        for (int n = 0; n < k_count; ++n)
          ASSERT_TRUE(std::equal(alone[n][round].begin(), alone[n][round].end(), got.begin() + n * 512))
              << n << " " << round;
      }
    }
  }
}

TEST_F(LlmSession, PrefixesAreUsedAgain) {
  auto s = session({.context = 64, .sequences = 3, .threads = 1});
  const Ids first = prompt(1, 20);
  Ids second = first;
  second[12] = 7;
  auto fresh = session({.context = 64, .threads = 1});
  const Floats wanted = copy_of(fresh.feed(second));
  (void)copy_of(s.continue_as(first));
  EXPECT_EQ(copy_of(s.continue_as(second)), wanted);
  EXPECT_EQ(s.position(), 20);
  EXPECT_EQ(Ids(s.tokens().begin(), s.tokens().end()), second);
  EXPECT_EQ(copy_of(s.continue_as(second)), wanted);  // all of it was there: the last token is fed again
  // Another sequence begins as this one.
  ASSERT_OK(s.fork(0, 2, 19));
  EXPECT_EQ(s.position(2), 19);
  EXPECT_EQ(copy_of(s.feed(std::span(second).last(1), 2)), wanted);
  EXPECT_FAILS(s.fork(0, 3, 1), Errc::invalid_argument);
  EXPECT_FAILS(s.feed(first, 3), Errc::invalid_argument);
  const llm::SequenceInput twice[] = {{1, first}, {1, first}};
  EXPECT_FAILS(s.feed_batch(twice), Errc::invalid_argument);
  EXPECT_FAILS(s.feed_batch({}), Errc::invalid_argument);
}

// What a conversation has read stays: a turn reads its own message only, and answers as if it had read all of it.
TEST_F(LlmSession, ConversationsReadWhatIsNew) {
  constexpr std::string_view jinja = "{% for m in messages %}{{ m.content }}{% endfor %}";
  auto first = session({.context = 200}), second = session({.context = 200});
  auto talk = llm::Conversation::create(first, jinja);
  auto anew = llm::Conversation::create(second, jinja);
  ASSERT_OK(talk);
  ASSERT_OK(anew);
  EXPECT_FAILS(llm::Conversation::create(first), Errc::not_found);
  EXPECT_FAILS(llm::Conversation::create(first, "{% for"), Errc::corrupt);
  auto all = [](std::string_view) { return true; };
  ASSERT_OK(talk->add("user", "Once upon a time, there was a little girl"));
  auto one = talk->answer({.max_tokens = 30}, all);
  ASSERT_OK(one);
  ASSERT_OK(talk->add("user", " Lily"));
  for (std::size_t i = 0; i < talk->size(); ++i) ASSERT_OK(anew->add((*talk)[i].role, (*talk)[i].content));
  auto two = talk->answer({.max_tokens = 30}, all), whole = anew->answer({.max_tokens = 30}, all);
  ASSERT_OK(two);
  ASSERT_OK(whole);
  EXPECT_EQ((*talk)[3].content, (*anew)[3].content);
  EXPECT_EQ((*talk)[3].role, "assistant");
  EXPECT_EQ(whole->prompt_tokens,
            one->prompt_tokens + 30 + two->prompt_tokens - 1);  // the last of the 30 had not been read
  EXPECT_LT(two->prompt_tokens, 5u);
  ASSERT_OK(talk->add("user", std::string(1000, 'a')));
  EXPECT_FAILS(talk->answer({}, all), Errc::invalid_argument);
  EXPECT_EQ(talk->size(), 5u);
  talk->forget(1);
  EXPECT_EQ(talk->size(), 1u);
}

TEST_F(LlmSession, CachesAreSavedAndRestored) {
  const qorus_test::TemporaryFolder folder;
  const Ids ids = prompt(3, 11), next = {77};
  for (const DType dtype : {DType::f32, DType::f16}) {
    auto a = session({.context = 32, .cache = dtype, .threads = 1}),
         b = session({.context = 40, .sequences = 2, .cache = dtype, .threads = 2});
    (void)copy_of(a.feed(ids));
    ASSERT_OK(a.save(folder / "cache"));
    ASSERT_OK(b.restore(folder / "cache", 1));
    EXPECT_EQ(b.position(1), 11);
    EXPECT_EQ(b.position(0), 0);
    EXPECT_EQ(copy_of(b.feed(next, 1)), copy_of(a.feed(next)));
    EXPECT_EQ(Ids(b.tokens(1).begin(), b.tokens(1).begin() + 11), ids);
  }
  auto f32 = session({.context = 32, .threads = 1}), small = session({.context = 4, .cache = DType::f16, .threads = 1}),
       half = session({.context = 32, .cache = DType::f16, .threads = 1});
  EXPECT_FAILS(f32.restore(folder / "cache"), Errc::invalid_argument);    // another kind of cache
  EXPECT_FAILS(small.restore(folder / "cache"), Errc::invalid_argument);  // no room
  EXPECT_FAILS(half.restore(folder / "none"), Errc::not_found);
  EXPECT_FAILS(half.restore(folder / "cache", 1), Errc::invalid_argument);
  EXPECT_FAILS(half.save("/nowhere/at/all"), Errc::not_found);
  const std::string whole = read_file(folder / "cache");
  for (std::size_t size : {std::size_t{0}, std::size_t{20}, whole.size() / 2, whole.size() - 1}) {
    write_file(folder / "cut", whole.substr(0, size));
    EXPECT_FAILS(half.restore(folder / "cut"), Errc::corrupt) << size;
  }
  for (std::size_t at = 0; at < whole.size(); at += at < 100 ? 1 : 997) {
    std::string damaged = whole;
    damaged[at] = static_cast<char>(damaged[at] ^ 1);
    write_file(folder / "damaged", damaged);
    EXPECT_FALSE(half.restore(folder / "damaged")) << at;
    EXPECT_EQ(half.position(), 0);
  }
}

TEST_F(LlmSession, CachesOfFewerBits) {
  const Ids ids = prompt(5, 40);
  EXPECT_FAILS(llm::Session::create(model, {.cache = DType::q8_0}), Errc::invalid_dtype);  // heads of 8
  EXPECT_FAILS(llm::Session::create(model, {.cache = DType::i32}), Errc::invalid_dtype);
  EXPECT_FAILS(llm::Session::create(model, {.sequences = 0}), Errc::invalid_argument);
  auto exact = session({.threads = 1}), half = session({.cache = DType::f16, .threads = 1});
  const Floats a = copy_of(exact.feed(ids)), b = copy_of(half.feed(ids));
  for (std::size_t i = 0; i < a.size(); ++i) EXPECT_NEAR(a[i], b[i], 0.02);
}

namespace {

const Floats k_logits = {1, 3, 2, 0, -1, 2.5f, -2, 0.5f};

// How often each token is chosen in 4000 draws.
std::vector<double> frequencies(llm::GenerateOptions options, const Ids& history = {}) {
  options.seed = 11;
  if (options.temperature == 0) options.temperature = 1;
  auto sampler = llm::Sampler::create(options, k_logits.size());
  EXPECT_OK(sampler);
  std::vector<double> counts(k_logits.size());
  for (int i = 0; i < 4000; ++i) counts[sampler->choose(k_logits, history)] += 1.0 / 4000;
  return counts;
}
// exp(logit / t), of the tokens in `kept` alone.
std::vector<double> shares(const Floats& logits, const Ids& kept, double t = 1) {
  std::vector<double> p(logits.size());
  double sum = 0;
  for (const std::int32_t i : kept) sum += p[i] = std::exp(logits[i] / t);
  for (double& x : p) x /= sum;
  return p;
}
void expect_near(const std::vector<double>& a, const std::vector<double>& b) {
  for (std::size_t i = 0; i < a.size(); ++i) {
    EXPECT_NEAR(a[i], b[i], 0.03) << i;
    EXPECT_EQ(a[i] > 0 && b[i] == 0, false) << i;
  }
}

}  // namespace

TEST(LlmSampler, ChoosesAsTheFormulasSay) {
  const Ids all = {0, 1, 2, 3, 4, 5, 6, 7};
  expect_near(frequencies({}), shares(k_logits, all));
  expect_near(frequencies({.temperature = 0.5f}), shares(k_logits, all, 0.5));
  expect_near(frequencies({.top_k = 3}), shares(k_logits, {1, 5, 2}));
  // Shares: 1: 0.44, 5: 0.27, 2: 0.16, 0: 0.06, 7: 0.04, …
  expect_near(frequencies({.top_p = 0.6f}), shares(k_logits, {1, 5}));
  expect_near(frequencies({.top_p = 0.8f}), shares(k_logits, {1, 5, 2}));
  expect_near(frequencies({.top_p = 1e-6f}), shares(k_logits, {1}));
  expect_near(frequencies({.min_p = 0.3f}), shares(k_logits, {1, 5, 2}));
  // The entropy is 1.44 nats: nearest to it are 5 (1.32), 2 (1.82), 1 (0.82).
  expect_near(frequencies({.typical_p = 0.2f}), shares(k_logits, {5}));
  expect_near(frequencies({.typical_p = 0.3f}), shares(k_logits, {5, 2}));
  expect_near(frequencies({.top_k = 5, .top_p = 0.6f, .min_p = 0.1f}), shares(k_logits, {1, 5}));
  Floats changed = k_logits;
  changed[1] = 3 / 2.0f - 2 * 0.5f - 0.25f;
  changed[4] = -1 * 2.0f - 0.5f - 0.25f;
  expect_near(
      frequencies({.repetition_penalty = 2, .frequency_penalty = 0.5f, .presence_penalty = 0.25f}, {1, 4, 1, -5, 99}),
      shares(changed, all));
  changed = k_logits;
  changed[4] = -2;
  expect_near(frequencies({.repetition_penalty = 2, .penalty_last = 1}, {1, 4}), shares(changed, all));
  const llm::LogitBias bias[] = {{1, -std::numeric_limits<float>::infinity()}, {0, 2}};
  changed = k_logits;
  changed[0] += 2;
  expect_near(frequencies({.bias = bias}), shares(changed, {0, 2, 3, 4, 5, 6, 7}));
}

// The mean surprise of what is chosen grows with tau, up to the distribution's own entropy.
TEST(LlmSampler, MirostatGoesTowardsItsSurprise) {
  const auto p = shares(k_logits, {0, 1, 2, 3, 4, 5, 6, 7}, 2);
  double entropy = 0, before = 0, mean = 0;
  for (const double x : p) entropy -= x * std::log2(x);
  for (const float tau : {0.3f, 1.0f, 1.7f, 50.0f}) {
    auto sampler = llm::Sampler::create({.temperature = 2, .mirostat_tau = tau, .seed = 3}, k_logits.size());
    ASSERT_OK(sampler);
    mean = 0;
    for (int i = 0; i < 4000; ++i) mean -= std::log2(p[sampler->choose(k_logits, {})]) / 4000;
    EXPECT_GT(mean, before) << tau;
    before = mean;
  }
  EXPECT_NEAR(mean, entropy, 0.1);
}

TEST(LlmSampler, RefusesWhatMakesNoSense) {
  const llm::LogitBias outside[] = {{8, 1}};
  for (const llm::GenerateOptions& options : {llm::GenerateOptions{.max_tokens = -1},
                                              {.temperature = -1},
                                              {.top_k = -1},
                                              {.top_p = 0},
                                              {.min_p = 2},
                                              {.typical_p = 0},
                                              {.mirostat_tau = -1},
                                              {.repetition_penalty = 0},
                                              {.penalty_last = -1},
                                              {.guess = -1},
                                              {.guess = 65},
                                              {.bias = outside}})
    EXPECT_FAILS(llm::Sampler::create(options, 8), Errc::invalid_argument);
}

TEST_F(LlmSession, StopTextsEndItWhereverTheyFall) {
  const auto text = [&](std::vector<std::string_view> stops, llm::Ending ending) {
    std::string all;
    auto done =
        llm::generate(model, "Once upon a time", {.max_tokens = 30, .stop = stops}, [&](std::string_view piece) {
          all += piece;
          return true;
        });
    EXPECT_OK(done);
    EXPECT_EQ(done->ending, ending) << all;
    return all;
  };
  const std::string whole = text({}, llm::Ending::length);
  ASSERT_EQ(whole.rfind(", there was a little girl named Lily.", 0), 0u) << whole;
  EXPECT_EQ(text({"girl"}, llm::Ending::stop), ", there was a little ");
  EXPECT_EQ(text({"e gir", "Lily"}, llm::Ending::stop), ", there was a littl");
  EXPECT_EQ(text({"nothing of the kind", "girls", ""}, llm::Ending::length), whole);
  EXPECT_EQ(text({","}, llm::Ending::stop), "");
  auto session = llm::Session::create(model, {.context = 10});
  ASSERT_OK(session);
  auto done = llm::generate(*session, "Once", {.max_tokens = 100}, [](std::string_view) { return true; });
  ASSERT_OK(done);
  EXPECT_EQ(done->ending, llm::Ending::context);
}
