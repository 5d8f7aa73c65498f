// qorus.train: fit learns, repeats itself to the bit, allocates nothing once warm, tells its callbacks the truth, and refuses
// what it cannot do with the model as it was.
#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "tests/testing.h"

import qorus.train;

using namespace qorus;

namespace {

// Points on two interleaved rings: not linearly separable.
data::Dataset rings(std::size_t n, float phase) {
  std::vector<float> x(2 * n);
  std::vector<std::int32_t> y(n);
  for (std::size_t i = 0; i < n; ++i) {
    const float angle = 2.399963f * static_cast<float>(i) + phase, radius = i % 2 ? 1.0f : 0.45f;
    x[2 * i] = radius * std::cos(angle);
    x[2 * i + 1] = radius * std::sin(angle);
    y[i] = static_cast<std::int32_t>(i % 2);
  }
  const auto count = static_cast<std::int64_t>(n);
  auto inputs = Owned::from<float>(std::span<const float>(x), {count, 2});
  auto targets = Owned::from<std::int32_t>(std::span<const std::int32_t>(y), {count});
  return std::move(*data::Dataset::create(std::move(*inputs), std::move(*targets)));
}
data::Split split_rings() { return {rings(400, 0), rings(100, 0.5f)}; }
auto network() { return nn::linear(16) | nn::tanh() | nn::linear(2); }

std::vector<float> weights_of(const nn::Parameters& model) { return {model.slab().begin(), model.slab().end()}; }

}  // namespace

TEST(Fit, LearnsWhatIsNotLinear) {
  auto done = train::fit(network(), split_rings(),
                         {.optimizer = optim::adamw({.lr = 0.02f}), .epochs = 20, .batch = 32, .seed = 3});
  ASSERT_OK(done);
  const auto& epochs = done->history.epochs;
  ASSERT_EQ(epochs.size(), 20u);
  EXPECT_EQ(done->history.steps, 20u * 13);
  EXPECT_LT(epochs[19].loss, 0.1 * epochs[0].loss);
  EXPECT_GE(epochs[19].accuracy, 0.99);
  EXPECT_GE(epochs[19].validation_accuracy, 0.99);
}

TEST(Fit, IsTheSameToTheBitForEveryNumberOfThreads) {
  std::vector<float> wanted;
  for (const int threads : {1, 2, 3, 1}) {
    auto done =
        train::fit(network(), split_rings(), {.epochs = 3, .batch = 30, .seed = 3, .clip_norm = 1, .threads = threads});
    ASSERT_OK(done);
    if (wanted.empty()) wanted = weights_of(done->model);
    EXPECT_EQ(weights_of(done->model), wanted) << threads;
  }
  auto other = train::fit(network(), split_rings(), {.epochs = 3, .batch = 30, .seed = 4, .clip_norm = 1});
  ASSERT_OK(other);
  EXPECT_NE(weights_of(other->model), wanted);
}

TEST(Fit, AllocatesNothingOnceWarm) {
  QORUS_NEEDS_ALLOCATION_COUNTER();
  for (const int threads : {1, 2}) {
    std::uint64_t before = 0, worst = 0;
    const auto watch = [&](train::Event& event) noexcept {
      if (event.moment == train::Moment::step_end && event.step > 1)
        worst = std::max(worst, qorus_test::allocations() - before);
      before = qorus_test::allocations();
    };
    auto done = train::fit(
        network(), split_rings(),
        {.epochs = 2, .batch = 32, .clip_norm = 1, .threads = threads, .callbacks = {watch, train::early_stopping()}});
    ASSERT_OK(done);
    EXPECT_EQ(worst, 0u);
  }
}

TEST(Fit, TellsItsCallbacks) {
  std::vector<train::Moment> moments;
  std::vector<float> rates;
  const auto listen = [&](train::Event& event) noexcept {
    moments.push_back(event.moment);
    if (event.moment == train::Moment::step_end) rates.push_back(event.lr);
    if (event.moment == train::Moment::step_end) EXPECT_EQ(event.steps, 2u);
    if (event.moment == train::Moment::epoch_end) EXPECT_EQ(event.examples, 400u);
  };
  auto done = train::fit(network(), split_rings(),
                         {.optimizer = optim::sgd({.lr = 0.4f}),
                          .schedule = schedule::linear(),
                          .epochs = 2,
                          .batch = 200,
                          .callbacks = {listen}});
  ASSERT_OK(done);
  using enum train::Moment;
  EXPECT_EQ(moments, (std::vector<train::Moment>{run_begin, epoch_begin, step_end, step_end, epoch_end, epoch_begin,
                                                 step_end, step_end, epoch_end, run_end}));
  ASSERT_EQ(rates.size(), 4u);
  for (int i = 0; i < 4; ++i)
    EXPECT_FLOAT_EQ(rates[static_cast<std::size_t>(i)], 0.4f * (1 - 0.25f * static_cast<float>(i)));
}

TEST(Fit, EarlyStoppingEndsAndRestoresTheBest) {
  auto data = split_rings();
  std::vector<float> best;
  double lowest = 1e9;
  const auto remember = [&](train::Event& event) noexcept {
    if (event.moment != train::Moment::epoch_end || event.record.validation_loss >= lowest) return;
    lowest = event.record.validation_loss;
    best.assign(event.parameters->slab().begin(), event.parameters->slab().end());
  };
  // A rate that is far too large: the loss soon goes up again.
  auto done = train::fit(network(), data,
                         {.optimizer = optim::sgd({.lr = 30}),
                          .epochs = 60,
                          .batch = 400,
                          .seed = 1,
                          .callbacks = {remember, train::early_stopping({.patience = 3})}});
  ASSERT_OK(done);
  EXPECT_TRUE(done->history.stopped_early);
  EXPECT_LT(done->history.epochs.size(), 60u);
  EXPECT_EQ(weights_of(done->model), best);
}

TEST(Fit, ErrorsSayWhatIsWrong) {
  auto data = split_rings();
  EXPECT_FAILS(train::fit(network(), data::Split{}), Errc::invalid_size);
  EXPECT_FAILS(train::fit(network(), data, {.batch = 0}), Errc::invalid_argument);
  EXPECT_FAILS(train::fit(network(), data, {.epochs = -1}), Errc::invalid_argument);
  EXPECT_FAILS(train::fit(network(), data, {.threads = 0}), Errc::invalid_argument);
  EXPECT_FAILS(train::fit(network(), data, {.threads = 1, .scratch = 4_KiB}), Errc::out_of_memory);
  EXPECT_FAILS(train::fit(nn::linear(9) | nn::relu() | nn::linear(2), data,
                          {.optimizer = optim::sgd({.lr = 1e38f}), .epochs = 9}),
               Errc::diverged);
  EXPECT_FAILS(train::fit(nn::linear(1), data), Errc::invalid_argument);  // class 1 of one class
  EXPECT_FAILS(train::fit(network(), Result<data::Split>(fail(Errc::not_found, "mnist", "no such file", "x"))),
               Errc::not_found);
  auto model = nn::build(network(), {3});
  ASSERT_OK(model);
  const auto before = weights_of(*model);
  EXPECT_FAILS_SAYING(train::fit(*model, data), "[32,2] and [16,3]");
  EXPECT_EQ(weights_of(*model), before);
}

TEST(Evaluate, AgreesWithPredict) {
  auto data = split_rings();
  auto done = train::fit(network(), data, {.optimizer = optim::adamw({.lr = 0.02f}), .epochs = 6, .seed = 3});
  ASSERT_OK(done);
  auto measured = train::evaluate(done->model, data.test, {.batch = 7});
  auto whole = train::evaluate(done->model, data.test, {.batch = 100});
  auto outputs = train::predict(done->model, data.test, {.batch = 9});
  ASSERT_OK(measured);
  ASSERT_OK(whole);
  ASSERT_OK(outputs);
  EXPECT_NEAR(measured->loss, whole->loss, 1e-6);
  EXPECT_EQ(measured->accuracy, whole->accuracy);
  EXPECT_EQ(outputs->tensor().shape(), (Shape{100, 2}));
  const auto logits = *outputs->tensor().to_vector();
  int right = 0;
  for (std::size_t i = 0; i < 100; ++i) right += (logits[2 * i + 1] > logits[2 * i]) == (i % 2 == 1);
  EXPECT_NEAR(measured->accuracy, right / 100.0, 1e-12);
}

TEST(Schedule, FollowsItsFormula) {
  EXPECT_FLOAT_EQ(schedule::cosine({.warmup = 0.2f}).factor(0.1), 0.5f);
  EXPECT_FLOAT_EQ(schedule::cosine({.warmup = 0.2f}).factor(0.2), 1);
  EXPECT_NEAR(schedule::cosine({.end = 0.1f}).factor(0.5), 0.55f, 1e-6f);
  EXPECT_NEAR(schedule::cosine().factor(1), 0, 1e-7f);
  EXPECT_FLOAT_EQ(schedule::linear({.end = 0.5f}).factor(0.5), 0.75f);
  EXPECT_FLOAT_EQ(schedule::constant().factor(0.9), 1);
}
