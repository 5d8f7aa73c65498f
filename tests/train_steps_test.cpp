// How a run's steps are made: a forward or a step of one's own, batches cut into shards, augmentation and prefetching; and what bad input
// makes of a run.
#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <limits>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "tests/testing.h"

import qorus.train;
#include "tests/train_testing.h"

using namespace qorus;
using namespace qorus_test;

// Validation must follow the run's own forward, too: here the loss of the options cannot even take the outputs.
TEST(FitOptions, AForwardOfOnesOwnIsValidated) {
  const data::Split split{plane(64), plane(16)};
  auto model = nn::build(regression() | nn::dropout(0.5f), {2}, init::kaiming(3));
  int recorded = 0, seen = 0;
  const auto mine = [&](const train::ModelRef& m, Tape& tape,
                        const data::Batch& batch) noexcept -> Result<train::Forward> {
    auto output = tape.input(batch.x).and_then([&](const Tensor& x) { return m(x); });
    auto loss = loss::mse()(output, tape.input(batch.y));
    if (!loss) return fail(loss.error());
    ++seen;
    recorded += tape.size() > 0;
    return train::Forward{*loss, *output};
  };
  auto done = train::fit(*model, split, {.epochs = 2, .batch = 16, .metrics = {metric::mae()}, .forward = mine});
  ASSERT_OK(done);
  auto measured = train::evaluate(*model, split.test, {.loss = loss::mse(), .metrics = {metric::mae()}});
  ASSERT_OK(measured);
  EXPECT_EQ(done->epochs[1].validation_loss, measured->loss);
  EXPECT_EQ(done->epochs[1].metrics[0], measured->metrics[0]);
  EXPECT_EQ(seen, 2 + 8 + 2);  // plans of a step and of validation, steps, each epoch's validation
  EXPECT_EQ(recorded, 1 + 8);  // validation records nothing
}

// A run that wants the norm of all gradients keeps them; one that wants nothing of them updates each parameter in the backward.
TEST(FitOptions, GradientsAreKeptOnlyForWhoWantsThem) {
  const data::Dataset data = plane(64);
  const auto net =
      nn::linear(64) | nn::batch_norm() | nn::relu() | nn::repeat(6, nn::linear(64) | nn::tanh()) | nn::linear(1);
  auto kept = nn::build(net, {2}, init::kaiming(3)), given = nn::build(net, {2}, init::kaiming(3));
  train::FitOptions options{.loss = loss::mse(), .schedule = schedule::linear(), .epochs = 2, .batch = 8, .ema = 0.5f};
  auto wanting = options;
  wanting.gradient_norm = true;
  auto more = train::fit(*kept, data, wanting), less = train::fit(*given, data, options);
  ASSERT_OK(more);
  ASSERT_OK(less);
  EXPECT_EQ(weights_of(*given), weights_of(*kept));
  EXPECT_EQ(less->epochs[1].gradient_norm, -1);
  EXPECT_GT(more->epochs[1].gradient_norm, 0);
  EXPECT_LE(less->scratch_high_water + 5 * sizeof(float) * 64 * 64, more->scratch_high_water);
}

TEST(FitOptions, AStepOfOnesOwnDoesItAll) {
  const data::Dataset data = plane(64);
  auto usual = nn::build(regression(), {2}, init::kaiming(3)), own = nn::build(regression(), {2}, init::kaiming(3));
  ASSERT_OK(train::fit(*usual, data,
                       {.loss = loss::mse(), .schedule = schedule::linear(), .epochs = 2, .batch = 16, .ema = 0.5f}));
  const auto mine = [](train::StepContext& step) noexcept -> Result<float> {
    auto tape = step.workspace.record();
    auto output = tape.input(step.batch.x).and_then([&](const Tensor& x) { return step.model(x); });
    auto loss = loss::mse()(output, tape.input(step.batch.y));
    if (!loss) return fail(loss.error());
    auto value = loss->item();
    auto done =
        backward(*loss).and_then([&](const Gradients& g) { return step.optimizer.step(*step.model.parameters, g); });
    if (!done) return fail(done.error());
    return value;
  };
  auto done = train::fit(
      *own, data,
      {.loss = loss::mse(), .schedule = schedule::linear(), .epochs = 2, .batch = 16, .ema = 0.5f, .step = mine});
  ASSERT_OK(done);
  EXPECT_EQ(done->steps, 8u);
  EXPECT_GT(done->epochs[0].loss, done->epochs[1].loss);
  EXPECT_EQ(weights_of(*own), weights_of(*usual));
  const auto broken = [](train::StepContext&) noexcept -> Result<float> { return NAN; };
  EXPECT_FAILS(train::fit(*own, data, {.loss = loss::mse(), .step = broken}), Errc::diverged);
  EXPECT_EQ(weights_of(*own), weights_of(*usual));
}

namespace {

Result<std::vector<float>> run_sharded(std::size_t shards, int threads, std::size_t batch, std::size_t accumulate,
                                       float dropout, float clip = 0) {
  const data::Dataset data = plane(100);
  auto model = nn::build(nn::linear(8) | nn::tanh() | nn::dropout(dropout) | nn::linear(1), {2}, init::kaiming(3));
  auto done = train::fit(*model, data,
                         {.loss = loss::mse(),
                          .optimizer = optim::sgd({.lr = 0.1f, .momentum = 0.9f}),
                          .epochs = 3,
                          .batch = batch,
                          .accumulate = accumulate,
                          .seed = 1,
                          .clip_norm = clip,
                          .threads = threads,
                          .shards = shards});
  if (!done) return fail(done.error());
  return weights_of(*model);
}

}  // namespace

TEST(Shards, AreTheWholeBatch) {
  for (const float clip : {0.0f, 0.2f}) {
    for (const std::size_t batch : {16u, 100u}) {  // 100 = 6 * 16 + 4
      for (const std::size_t accumulate : {1u, 2u}) {
        const auto whole = run_sharded(1, 1, batch, accumulate, 0, clip);
        ASSERT_OK(whole);
        for (const std::size_t shards : {2u, 3u, 5u, 32u}) {
          const auto cut = run_sharded(shards, 2, batch, accumulate, 0, clip);
          ASSERT_OK(cut);
          for (std::size_t i = 0; i < whole->size(); ++i)
            EXPECT_NEAR((*cut)[i], (*whole)[i], 2e-6) << shards << " " << i;
        }
      }
    }
  }
}

TEST(Shards, GiveTheSameBitsForEveryNumberOfThreads) {
  const auto wanted = run_sharded(4, 1, 16, 1, 0.3f);
  ASSERT_OK(wanted);
  for (const int threads : {1, 2, 3, 4}) {
    const auto got = run_sharded(4, threads, 16, 1, 0.3f);
    ASSERT_OK(got);
    EXPECT_EQ(*got, *wanted) << threads;
  }
  EXPECT_NE(*run_sharded(4, 1, 16, 1, 0.4f), *wanted);  // dropout drops
}

TEST(Shards, AllocateNothingOnceWarmAndTellTheLoss) {
  QORUS_NEEDS_ALLOCATION_COUNTER();
  const data::Dataset data = plane(64);
  std::uint64_t before = 0, worst = 0;
  std::vector<float> losses;
  const auto watch = [&](train::Event& event) noexcept {
    if (event.moment == train::Moment::step_end && event.step > 1)
      worst = std::max(worst, qorus_test::allocations() - before);
    if (event.moment == train::Moment::step_end) losses.push_back(event.last_loss);
    before = qorus_test::allocations();
  };
  std::vector<float> wanted;
  losses.reserve(64);
  for (const std::size_t shards : {1u, 4u}) {
    losses.clear();
    auto model = nn::build(regression(), {2}, init::kaiming(3));
    ASSERT_OK(train::fit(*model, data,
                         {.loss = loss::mse(),
                          .epochs = 2,
                          .batch = 16,
                          .threads = 2,
                          .shards = shards,
                          .prefetch = 2,
                          .callbacks = {watch}}));
    EXPECT_EQ(worst, 0u) << shards;
    if (wanted.empty()) wanted = losses;
    ASSERT_EQ(losses.size(), 8u);
    for (std::size_t i = 0; i < 8; ++i) EXPECT_NEAR(losses[i], wanted[i], 1e-5);
  }
}

TEST(FitOptions, Bf16TakesLessAndLearnsAsMuch) {
  std::vector<std::int32_t> x(32 * 32), y(32 * 32);
  for (std::size_t i = 0; i < x.size(); ++i) {
    x[i] = static_cast<std::int32_t>((i * i / 3 + i / 32) % 11);
    y[i] = (x[i] * 3 + 1) % 11;
  }
  const auto data = data::Dataset::create(
      std::move(*Owned::from<std::int32_t>(std::span<const std::int32_t>(x), {32, 32})),
      std::move(*Owned::from<std::int32_t>(std::span<const std::int32_t>(y), {32, 32})), {.classes = 11});
  ASSERT_OK(data);
  double last[2] = {};
  std::size_t scratch[2] = {};
  std::vector<float> weights[2][3];
  for (const bool bf16 : {false, true}) {
    for (const int threads : {1, 2}) {
      for (const std::size_t shards : {1u, 2u}) {
        if (shards == 2 && threads == 1) continue;
        std::uint64_t before = 0, worst = 0;
        const auto watch = [&](train::Event& event) noexcept {
          if (event.moment == train::Moment::step_end && event.step > 1)
            worst = std::max(worst, qorus_test::allocations() - before);
          before = qorus_test::allocations();
        };
        auto model = nn::build(nn::gpt({.vocab = 11, .context = 32, .d_model = 64, .heads = 2, .layers = 6}), {32},
                               init::normal(1), {.input = DType::i32});
        auto done = train::fit(*model, data->examples(),
                               {.optimizer = optim::adamw({.lr = 3e-3f}),
                                .epochs = 4,
                                .batch = 16,
                                .threads = threads,
                                .shards = shards,
                                .bf16 = bf16,
                                .callbacks = {watch}});
        ASSERT_OK(done);
        if (qorus_test::k_counts_allocations) EXPECT_EQ(worst, 0u);
        weights[bf16][threads - 1 + static_cast<int>(shards) - 1] = weights_of(*model);
        if (shards == 2) continue;
        last[bf16] = done->epochs.back().loss;
        scratch[bf16] = done->scratch_high_water;
      }
    }
    EXPECT_EQ(weights[bf16][0], weights[bf16][1]);
  }
  EXPECT_LT(last[0], 2.2);
  EXPECT_NEAR(last[1], last[0], 0.03 * last[0]);
  EXPECT_LT(static_cast<double>(scratch[1]), 0.8 * static_cast<double>(scratch[0]));
}

TEST(Shards, PassErrorsOnAndKeepTheLastGoodWeights) {
  EXPECT_FAILS(run_sharded(0, 1, 16, 1, 0), Errc::invalid_argument);
  EXPECT_FAILS(run_sharded(33, 1, 16, 1, 0), Errc::invalid_argument);
  std::vector<float> x(64, 0.5f), y(32, 1.0f);
  x[63] = std::numeric_limits<float>::quiet_NaN();
  const data::Dataset data = table(x, 2, y);
  auto model = nn::build(regression(), {2}, init::kaiming(1));
  const auto before = weights_of(*model);
  EXPECT_FAILS(train::fit(*model, data, {.loss = loss::mse(), .batch = 8, .threads = 2, .shards = 4}), Errc::diverged);
  EXPECT_EQ(weights_of(*model), before);
  EXPECT_FAILS(train::fit(*model, data, {.loss = loss::cross_entropy(), .shards = 4}), Errc::invalid_dtype);
}

// Running statistics move by the mean of the shards' own.
TEST(Shards, AverageRunningStatistics) {
  std::vector<float> x(16 * 4), y(16, 0.0f);
  for (std::size_t i = 0; i < x.size(); ++i) x[i] = std::sin(static_cast<float>(i * i));
  const data::Dataset data = table(x, 4, y);
  const auto mean_after = [&](std::size_t shards) {
    auto model = nn::build(nn::reshape({4, 1, 1}) | nn::batch_norm() | nn::flatten() | nn::linear(1), {4});
    EXPECT_OK(train::fit(*model, data, {.loss = loss::mse(), .batch = 16, .shards = shards}));
    std::vector<float> means;
    for (const nn::Parameter& p : model->parameters()) {
      if (p.name.view().find("mean") != std::string_view::npos)
        means.assign(p.tensor.f32(), p.tensor.f32() + p.tensor.numel());
    }
    return means;
  };
  const auto whole = mean_after(1), cut = mean_after(4);
  ASSERT_EQ(whole.size(), 4u);
  for (std::size_t i = 0; i < 4; ++i) EXPECT_NEAR(cut[i], whole[i], 1e-6);
}

TEST(FitOptions, AugmentedAndPrefetched) {
  std::vector<float> x(40 * 36);
  for (std::size_t i = 0; i < x.size(); ++i) x[i] = std::sin(static_cast<float>(i));
  const auto data = data::Dataset::create(std::move(*Owned::from<float>(std::span<const float>(x), {40, 1, 6, 6})),
                                          std::move(*Owned::zeros({40}, DType::i32)), {.classes = 2});
  ASSERT_OK(data);
  const auto run = [&](const data::Augment& augment, std::size_t prefetch) {
    auto model = nn::build(nn::flatten() | nn::linear(2), {1, 6, 6}, init::kaiming(3));
    EXPECT_OK(train::fit(*model, *data, {.epochs = 2, .batch = 16, .augment = augment, .prefetch = prefetch}));
    return weights_of(*model);
  };
  const auto plain = run({}, 0), flipped = run({.flip = true}, 0);
  EXPECT_NE(plain, flipped);
  EXPECT_EQ(run({}, 3), plain);
  EXPECT_EQ(run({.flip = true}, 2), flipped);
}

// What people give a run by mistake: each is an error that says what it is, and the weights stay.
TEST(BadInput, IsToldAndChangesNothing) {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  const auto with = [](float x, float y) {
    std::vector<float> xs(64, 0.5f), ys(32, 1.0f);
    xs[63] = x;
    ys[31] = y;
    return table(xs, 2, ys);
  };
  const auto classes = [](std::initializer_list<std::int32_t> labels, int count) {
    const auto n = static_cast<std::int64_t>(labels.size());
    return data::Dataset::create(std::move(*Owned::zeros({n, 2})), std::move(*Owned::from<std::int32_t>(labels, {n})),
                                 {.classes = count});
  };
  const auto run = [](const data::Examples& data, const train::FitOptions& options) -> Status {
    auto model = nn::build(regression(), {2}, init::kaiming(1));
    const auto before = weights_of(*model);
    auto done = train::fit(*model, data, options);
    EXPECT_EQ(weights_of(*model), before);
    return done ? Status{} : Status(fail(done.error()));
  };
  const train::FitOptions mse{.loss = loss::mse(), .batch = 4};
  const auto good = with(0, 0);
  const auto nan_input = with(nan, 0), nan_target = with(0, nan);
  EXPECT_FAILS_SAYING(run(nan_input, mse), "the loss is not finite");
  EXPECT_FAILS_SAYING(run(nan_target, mse), "the loss is not finite");
  EXPECT_FAILS_SAYING(classes({0, 3, 1}, 3), "a label is not in [0, classes)");
  EXPECT_FAILS_SAYING(classes({0, -1}, 0), "a label is not in [0, classes)");
  const auto three = classes({0, 1, 2}, 3);  // for a model of one output
  ASSERT_OK(three);
  EXPECT_FAILS_SAYING(run(*three, {.batch = 3}), "class");
  EXPECT_FAILS_SAYING(run(data::Examples(), mse), "an empty data set");
  EXPECT_FAILS_SAYING(run(good | data::take(0), mse), "an empty data set");
  EXPECT_FAILS_SAYING((good | data::batch(33, {.drop_last = true})).status(), "a batch is larger than the data");
  EXPECT_FAILS_SAYING(run(good, {.loss = loss::mse(), .batch = 0}), "at least one example");
  EXPECT_FAILS_SAYING(run(good, {.loss = loss::mse(), .optimizer = optim::sgd({.lr = 1e30f}), .epochs = 5}),
                      "a smaller learning rate");
  EXPECT_FAILS_SAYING(run(good, {.loss = loss::mse(), .augment = {.flip = true}}), "images are");
  auto csv = data::Table::parse("size,rooms\n1,2\n3,4\n");
  ASSERT_OK(csv);
  const std::vector<std::uint32_t> rows{0, 1};
  EXPECT_FAILS_SAYING(data::Tabular::fit(*csv, rows, {.target = "price"}), "price");
  EXPECT_FAILS_SAYING(data::Tabular::fit(*csv, rows, {.target = "size", .drop = {"garden"}}), "garden");
  EXPECT_FAILS_SAYING(csv->column("garden"), "garden");
  // A batch larger than the data is all of it.
  auto model = nn::build(regression(), {2}, init::kaiming(1));
  EXPECT_OK(train::fit(*model, good, {.loss = loss::mse(), .batch = 1000}));
}

// What a batch needs does not grow with it: workers may take more for fewer rows. So what is planned must fit the last, smaller batch, too.
TEST(Evaluate, LastBatchesOfAnySizeHaveRoom) {
  const auto network = nn::linear(1024) | nn::tanh() | nn::linear(1024) | nn::tanh() | nn::linear(1);
  for (std::size_t last = 1; last < 64; last += 6) {
    const data::Dataset data = plane(64 + last);
    auto model = nn::build(network, {2});
    ASSERT_OK(model);
    for (const int threads : {2, 32}) {
      EXPECT_OK(train::evaluate(*model, data, {.loss = loss::mse(), .batch = 64, .threads = threads})) << last;
      EXPECT_OK(train::predict(*model, data, {.batch = 64, .threads = threads})) << last;
    }
    for (const std::size_t shards : {1, 3})
      EXPECT_OK(
          train::fit(*model, data, {.loss = loss::mse(), .epochs = 1, .batch = 64, .threads = 32, .shards = shards}))
          << last << " " << shards;
  }
}
