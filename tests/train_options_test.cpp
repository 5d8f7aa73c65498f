// What a run may be told: schedules against PyTorch's figures, metrics against their definitions, groups of parameters, gathered
// gradients, the moving average, a forward of one's own; and the callbacks that steer.
#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "tests/testing.h"

import qorus.train;
#include "tests/train_testing.h"

using namespace qorus;
using namespace qorus_test;

namespace {

// The rates of a schedule over `steps` steps of `epochs` epochs.
std::vector<float> rates(const Schedule& schedule, int steps, int epochs) {
  std::vector<float> all;
  for (int i = 0; i < steps; ++i) all.push_back(schedule.factor(static_cast<double>(i) / steps, epochs, steps));
  return all;
}
void expect_near(const std::vector<float>& got, const std::vector<float>& wanted) {
  ASSERT_EQ(got.size(), wanted.size());
  for (std::size_t i = 0; i < got.size(); ++i) EXPECT_NEAR(got[i], wanted[i], 2e-7) << i;
}

}  // namespace

TEST(Schedules, AtTheirEdges) {
  EXPECT_TRUE(std::isfinite(schedule::cosine_restarts(1e-9, 1 + 1e-9).factor(0.5, 3)));  // never done growing
  const Schedule cycle = schedule::one_cycle({.rise = 0});
  EXPECT_NEAR(cycle.factor(0, 1, 10), 1, 1e-6);    // no rise: at the top at once
  EXPECT_NEAR(cycle.factor(1, 1, 1), 4e-6, 1e-7);  // one step: the end at once
  Schedule none = schedule::linear_warmup(0.5) | schedule::linear_warmup(0.5);
  none = none | schedule::constant();  // nothing is left for it
  EXPECT_NEAR(none.factor(0.25, 1, 4), 0.5, 1e-6);
  EXPECT_NEAR(none.factor(1, 1, 4), 1, 1e-6);
  EXPECT_NEAR((schedule::linear_warmup(0.5) | schedule::linear_warmup(0.5)).factor(0.75), 0.5, 1e-6);
}

// torch.optim.lr_scheduler of PyTorch 2.14, with a base rate of 1.
TEST(Schedules, AreThoseOfPyTorch) {
  expect_near(rates(schedule::step(2, 0.1), 6, 6), {1, 1, 0.1f, 0.1f, 0.01f, 0.01f});
  expect_near(rates(schedule::multi_step({2, 5}, 0.3), 7, 7), {1, 1, 0.3f, 0.3f, 0.3f, 0.09f, 0.09f});
  expect_near(rates(schedule::exponential(0.9), 5, 5), {1, 0.9f, 0.81f, 0.729f, 0.6561f});
  expect_near(rates(schedule::cosine_restarts(2, 2, 0.05), 10, 10),
              {1, 0.525f, 1, 0.86087572f, 0.525f, 0.18912428f, 1, 0.96384278f, 0.86087572f, 0.70677463f});
  expect_near(rates(schedule::one_cycle(), 10, 1),
              {0.04f, 0.52f, 1, 0.95048463f, 0.81174565f, 0.61126202f, 0.38874198f, 0.18825835f, 0.04951937f, 4e-06f});
  expect_near(rates(schedule::polynomial(2), 8, 1),
              {1, 0.765625f, 0.5625f, 0.390625f, 0.25f, 0.140625f, 0.0625f, 0.015625f});
  expect_near(rates(schedule::cosine({.end = 0.1f}), 8, 1),
              {1, 0.96574579f, 0.86819805f, 0.72220754f, 0.55f, 0.37779246f, 0.23180195f, 0.13425421f});
  expect_near(rates(schedule::linear({.end = 0.25f}), 8, 1),
              {1, 0.90625f, 0.8125f, 0.71875f, 0.625f, 0.53125f, 0.4375f, 0.34375f});
}

TEST(Schedules, FollowOneAnother) {
  const Schedule both = schedule::polynomial_warmup(0.5, 2) | schedule::exponential(0.5);
  expect_near(rates(both, 8, 8), {0, 0.0625f, 0.25f, 0.5625f, 1, 0.5f, 0.25f, 0.125f});
  const Schedule noam = schedule::inverse_sqrt(4);
  expect_near(rates(noam, 17, 1), [] {
    std::vector<float> wanted;
    for (int i = 0; i < 17; ++i)
      wanted.push_back(i < 4 ? static_cast<float>(i) / 4 : 2 / std::sqrt(static_cast<float>(i)));
    return wanted;
  }());
  EXPECT_EQ(Schedule{}.factor(0.3), 1);
  EXPECT_TRUE(std::isfinite(schedule::cosine_restarts(0).factor(0.5, 3)));
}

TEST(Metrics, AreWhatTheyAreCalled) {
  // Three classes; a target of -100 counts nowhere.
  const std::vector<float> logits{3, 1, 2, 0, 5, 1, 1, 2, 9, 4, 0, 1, 0, 2, 1, 7, 8, 9, 1, 0, 0};
  const std::vector<std::int32_t> targets{0, 1, 1, 0, 2, 0, -100};
  Workspace workspace({.scratch = 1_MiB, .threads = 1});
  auto frame = workspace.frame();
  auto output = frame.input(Tensor::borrow(std::span(logits), {7, 3}));
  const auto target = Tensor::borrow(std::span(targets), {7});
  ASSERT_OK(output);
  train::Meter meter({metric::accuracy(), metric::top_k(2), metric::precision(), metric::recall(), metric::f1(),
                      metric::f1(train::Average::micro), metric::perplexity()});
  ASSERT_OK(meter.add(*output, target, 0.5f));
  // predictions 0 1 2 0 1 2 (and one that is not counted): right are 0, 1 and 3
  EXPECT_DOUBLE_EQ(meter.value(0), 3.0 / 6);
  EXPECT_DOUBLE_EQ(meter.value(1), 5.0 / 6);              // all but the last, whose class 0 is third
  EXPECT_DOUBLE_EQ(meter.value(2), (1.0 + 0.5 + 0) / 3);  // of class 0: 2/2, of 1: 1/2, of 2: 0/2
  EXPECT_DOUBLE_EQ(meter.value(3), (2.0 / 3 + 0.5 + 0) / 3);
  EXPECT_DOUBLE_EQ(meter.value(4), (4.0 / 5 + 0.5 + 0) / 3);
  EXPECT_DOUBLE_EQ(meter.value(5), 3.0 / 6);
  EXPECT_DOUBLE_EQ(meter.value(6), std::exp(0.5));
  EXPECT_EQ(meter.confusion().at(0, 2), 1u);
  train::Meter wrong({metric::mae()});
  EXPECT_FAILS_SAYING(wrong.add(*output, target, 0), "mae");
}

TEST(Metrics, OfNumbersAndOfScores) {
  const std::vector<float> scores{0.1f, 0.4f, 0.35f, 0.8f, 0.4f, std::numeric_limits<float>::quiet_NaN()},
      truth{0, 0, 1, 1, 1, 0};
  Workspace workspace({.scratch = 1_MiB, .threads = 1});
  auto frame = workspace.frame();
  auto output = frame.input(Tensor::borrow(std::span(scores), {6, 1}));
  const auto target = Tensor::borrow(std::span(truth), {6, 1});
  ASSERT_OK(output);
  train::Meter area({metric::roc_auc()});
  ASSERT_OK(area.add(*output, target, 0));
  double pairs = 0;  // what is no number scores below all
  for (std::size_t p = 0; p < 6; ++p) {
    for (std::size_t n = 0; n < 6; ++n) {
      if (truth[p] < 0.5f || truth[n] > 0.5f) continue;
      pairs += std::isnan(scores[n]) || scores[p] > scores[n] ? 1 : scores[p] == scores[n] ? 0.5 : 0;
    }
  }
  EXPECT_DOUBLE_EQ(area.value(0), pairs / 9);
  const std::vector<float> x{1, 2.5f, 3, 5}, t{1, 2, 4, 4};
  auto numbers = frame.input(Tensor::borrow(std::span(x), {4, 1}));
  train::Meter meter({metric::mae(), metric::rmse(), metric::r2()});
  ASSERT_OK(meter.add(*numbers, Tensor::borrow(std::span(t), {4, 1}), 0));
  EXPECT_DOUBLE_EQ(meter.value(0), 2.5 / 4);
  EXPECT_DOUBLE_EQ(meter.value(1), std::sqrt(2.25 / 4));
  EXPECT_DOUBLE_EQ(meter.value(2), 1 - 2.25 / 6.75);
  EXPECT_EQ(meter.accuracy(), -1);
}

TEST(FitOptions, SmallBatchesGatheredAreOneLargeOne) {
  const data::Dataset data = plane(96);
  const auto run = [&](std::size_t batch, std::size_t accumulate, float clip) {
    auto model = nn::build(regression(), {2}, init::kaiming(3));
    auto done = train::fit(*model, data,
                           {.loss = loss::mse(),
                            .optimizer = optim::sgd({.lr = 0.1f, .momentum = 0.9f}),
                            .epochs = 3,
                            .batch = batch,
                            .accumulate = accumulate,
                            .seed = 1,
                            .clip_norm = clip});
    EXPECT_OK(done);
    return weights_of(*model);
  };
  for (const float clip : {0.0f, 0.2f}) {
    const auto large = run(48, 1, clip);
    for (const std::size_t parts : {2u, 3u, 4u}) {
      const auto small = run(48 / parts, parts, clip);
      for (std::size_t i = 0; i < large.size(); ++i) EXPECT_NEAR(small[i], large[i], 1e-6) << parts << " " << i;
    }
  }
  // 96 = 5 * 20 - 4: the last step of an epoch gathers what is left.
  auto model = nn::build(regression(), {2});
  auto done = train::fit(*model, data, {.loss = loss::mse(), .epochs = 2, .batch = 20, .accumulate = 3});
  ASSERT_OK(done);
  EXPECT_EQ(done->steps, 4u);
}

TEST(FitOptions, GroupsAreTreatedApart) {
  auto model = nn::build(regression(), {2}, init::kaiming(3));
  ASSERT_OK(model);
  const auto before = weights_of(*model);
  Workspace workspace({.scratch = 1_MiB, .threads = 1});
  const std::vector<float> nothing(model->block().floats, 0.0f);
  Optimizer optimizer(optim::adamw({.lr = 0.1f, .weight_decay = 0.5f}) |
                          optim::group({.pattern = "2.*", .lr_scale = 0.5f}) | optim::no_decay_on_vectors(),
                      *model);
  ASSERT_OK(optimizer.step(*model, nothing, workspace.context()));
  for (const nn::Parameter& parameter : model->parameters()) {
    const float factor = parameter.name.view() == "0.weight" ? 0.95f : parameter.name.view() == "0.bias" ? 1 : 0.975f;
    for (std::size_t i = 0; i < parameter.tensor.numel(); ++i)
      EXPECT_FLOAT_EQ(parameter.tensor.f32()[i], before[parameter.offset + i] * factor) << parameter.name.c_str();
  }
  EXPECT_FAILS(optimizer.step(*model, std::span(nothing).first(3), workspace.context()), Errc::invalid_argument);
  auto spec = optim::sgd();
  for (int i = 0; i < 7; ++i) spec = spec | optim::no_decay_on_vectors();
  EXPECT_FAILS(Optimizer(spec, *model).step(*model, nothing, workspace.context()), Errc::invalid_argument);
}

TEST(FitOptions, TheMovingAverageIsItsFormula) {
  const data::Dataset data = plane(64);
  std::vector<std::vector<float>> seen;
  const auto watch = [&](train::Event& event) noexcept {
    if (event.moment == train::Moment::step_end) seen.push_back(weights_of(*event.parameters));
  };
  auto model = nn::build(regression(), {2}, init::kaiming(3));
  const auto start = weights_of(*model);
  std::vector<double> average(start.begin(), start.end());
  ASSERT_OK(train::fit(*model, data,
                       {.loss = loss::mse(),
                        .optimizer = optim::sgd({.lr = 0.1f}),
                        .epochs = 2,
                        .batch = 16,
                        .ema = 0.75f,
                        .callbacks = {watch}}));
  ASSERT_EQ(seen.size(), 8u);
  for (const auto& weights : seen) {
    for (std::size_t i = 0; i < average.size(); ++i)
      average[i] = 0.75 * average[i] + 0.25 * static_cast<double>(weights[i]);
  }
  const auto got = weights_of(*model);
  for (std::size_t i = 0; i < average.size(); ++i) EXPECT_NEAR(got[i], average[i], 1e-6);
}

TEST(FitOptions, AForwardOfOnesOwnIsUsed) {
  const data::Dataset data = plane(64);
  const auto usual = [&] {
    auto model = nn::build(regression(), {2}, init::kaiming(3));
    EXPECT_OK(train::fit(*model, data, {.loss = loss::mse(), .epochs = 2, .batch = 16}));
    return weights_of(*model);
  }();
  int calls = 0;
  auto model = nn::build(regression(), {2}, init::kaiming(3));
  const auto mine = [&](const train::ModelRef& m, Tape& tape,
                        const data::Batch& batch) noexcept -> Result<train::Forward> {
    ++calls;
    auto output = tape.input(batch.x).and_then([&](const Tensor& x) { return m(x); });
    auto loss = loss::mse()(output, tape.input(batch.y));
    if (!loss) return fail(loss.error());
    return train::Forward{*loss, *output};
  };
  ASSERT_OK(train::fit(*model, data, {.loss = loss::l1(), .epochs = 2, .batch = 16, .forward = mine}));
  EXPECT_EQ(calls, 9);  // one over shapes only
  EXPECT_EQ(weights_of(*model), usual);
}

TEST(FitOptions, StepsEndTheRunAndTheSchedule) {
  const data::Dataset data = plane(64);
  std::vector<float> lr;
  const auto watch = [&](train::Event& event) noexcept {
    if (event.moment == train::Moment::step_end) lr.push_back(event.lr);
  };
  auto model = nn::build(regression(), {2});
  auto done = train::fit(*model, data,
                         {.loss = loss::mse(),
                          .optimizer = optim::sgd({.lr = 1e-3f}),
                          .schedule = schedule::linear(),
                          .epochs = 100,
                          .steps = 5,
                          .batch = 16,
                          .callbacks = {watch}});
  ASSERT_OK(done);
  EXPECT_EQ(done->steps, 5u);
  EXPECT_FALSE(done->stopped_early);
  ASSERT_EQ(lr.size(), 5u);
  EXPECT_FLOAT_EQ(lr[4], 0.2e-3f);
  auto badly = [&](train::FitOptions options) { return train::fit(*model, data, options); };
  EXPECT_FAILS(badly({.loss = loss::mse(), .accumulate = 0}), Errc::invalid_argument);
  EXPECT_FAILS(badly({.loss = loss::mse(), .ema = 1}), Errc::invalid_argument);
  EXPECT_FAILS(badly({.loss = loss::mse(), .checkpoints = {.folder = "/tmp/x", .keep = 0}}), Errc::invalid_argument);
}

TEST(Callbacks, ReduceOnPlateauCountsAsKerasDoes) {
  train::ReduceOnPlateau plateau({.factor = 0.5f, .patience = 2, .min_delta = 0.1, .cooldown = 1});
  train::Event event;
  event.moment = train::Moment::epoch_end;
  std::vector<float> scales;
  for (const double loss : {1.0, 0.95, 0.92, 0.91, 0.91, 0.91, 0.5, 0.5, 0.5}) {
    event.record.loss = loss;
    plateau(event);
    scales.push_back(event.lr_scale);
  }
  // waits 2 (0.95, 0.92), halves; the next is cooldown, then waits 2 again; 0.5 is better
  EXPECT_EQ(scales, (std::vector<float>{1, 1, 0.5f, 0.5f, 0.25f, 0.25f, 0.25f, 0.25f, 0.125f}));
}

TEST(Callbacks, ALossThatIsNoNumberEndsTheRunAndLeavesTheLastGoodWeights) {
  std::vector<float> x(64, 0.5f), y(32, 1.0f);
  x[63] = std::numeric_limits<float>::quiet_NaN();
  const data::Dataset data = table(x, 2, y);
  auto model = nn::build(regression(), {2}, init::kaiming(1));
  const auto before = weights_of(*model);
  EXPECT_FAILS(train::fit(*model, data, {.loss = loss::mse(), .epochs = 3, .batch = 4}), Errc::diverged);
  EXPECT_EQ(weights_of(*model), before);
  auto done = train::fit(*model, data,
                         {.loss = loss::mse(), .epochs = 3, .batch = 4, .callbacks = {train::terminate_on_nan()}});
  ASSERT_OK(done);
  EXPECT_TRUE(done->stopped_early);
  EXPECT_EQ(weights_of(*model), before);
}

TEST(Callbacks, ATimeLimitAndARateOfOnesOwn) {
  const data::Dataset data = plane(64);
  auto model = nn::build(regression(), {2});
  std::vector<float> lr;
  const auto watch = [&](train::Event& event) noexcept {
    if (event.moment == train::Moment::epoch_end) lr.push_back(event.lr);
  };
  auto done = train::fit(
      *model, data,
      {.loss = loss::mse(),
       .optimizer = optim::sgd({.lr = 0.1f}),
       .epochs = 3,
       .batch = 64,
       .callbacks = {train::learning_rate([](int epoch) noexcept { return 1.0f / static_cast<float>(epoch); }),
                     watch}});
  ASSERT_OK(done);
  ASSERT_EQ(lr.size(), 3u);
  EXPECT_FLOAT_EQ(lr[2], 0.1f / 3);
  auto timed =
      train::fit(*model, data, {.loss = loss::mse(), .epochs = 1000, .batch = 8, .callbacks = {train::time_limit(0)}});
  ASSERT_OK(timed);
  EXPECT_EQ(timed->steps, 1u);
  EXPECT_TRUE(timed->stopped_early);
}
