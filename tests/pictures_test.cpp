// Networks of pictures: what batch norm keeps beside its parameters, ResNet-20 on one batch, steps that allocate nothing, and a network
// that PyTorch trained.
#include <unistd.h>

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "tests/allocation_counter.h"
#include "tests/files.h"
#include "tests/test_data.h"
#include "tests/testing.h"

import qorus;

using namespace qorus;

namespace {

// Folders in memory where there is such a place: flushing a disk takes longer than the tests.
[[maybe_unused]] const bool k_in_memory = ::access("/dev/shm", W_OK) == 0 && ::setenv("TMPDIR", "/dev/shm", 0) == 0;

std::vector<float> values_of(const nn::Parameters& model, std::string_view name) {
  return *model.parameter(name)->to_vector();
}

TEST(Pictures, LayersHavePyTorchsNamesAndShapes) {
  auto net = nn::conv2d(6, {3, 5}, {.stride = 2, .padding = Pads::same(), .groups = 2}) | nn::batch_norm() |
             nn::relu() | nn::conv_transpose2d(3, 2, {.stride = 2, .bias = false}) | nn::group_norm(3) |
             nn::instance_norm() | nn::upsample(2, {ops::ResizeMode::linear}) | nn::pad(1) | nn::drop_path(0.5f) |
             nn::avg_pool(2) | nn::adaptive_avg_pool({2, 3}) | nn::global_avg_pool() | nn::linear(2);
  auto model = nn::build(net, {4, 8, 9});
  ASSERT_OK(model);
  EXPECT_EQ(model->parameter("0.weight")->shape(), (Shape{6, 2, 3, 5}));
  EXPECT_EQ(model->parameter("3.weight")->shape(), (Shape{6, 3, 2, 2}));
  for (const char* name : {"0.bias", "1.weight", "1.bias", "1.running_mean", "1.running_var", "4.weight", "12.bias"})
    EXPECT_OK(model->parameter(name));
  EXPECT_EQ(model->parameter_count() - model->trainable_count(), 12u);
  auto table = nn::summary(*model);
  ASSERT_OK(table);
  EXPECT_EQ(table->rows()[0].output, (Shape{1, 6, 4, 5}));
  EXPECT_EQ(table->rows()[3].output, (Shape{1, 3, 8, 10}));
  EXPECT_EQ(table->rows()[6].output, (Shape{1, 3, 16, 20}));
  EXPECT_EQ(nn::build(nn::lenet(10), {1, 28, 28})->parameter_count(), 421642u);
  EXPECT_EQ(nn::build(nn::resnet20(10), {3, 32, 32})->trainable_count(), 269722u);
  EXPECT_FAILS(nn::build(nn::conv1d(3, 3), {4, 8, 9}), Errc::invalid_size);
  EXPECT_FAILS(nn::build(nn::conv2d(3, {3, 3, 3}), {4, 8, 9}), Errc::invalid_argument);
}

TEST(Pictures, ABatchNormsStatisticsAreChangedByStepsAlone) {
  auto model = nn::build(nn::batch_norm() | nn::flatten() | nn::linear(1), {2, 3});
  ASSERT_OK(model);
  const std::vector<float> x = {1, 2, 3, 4, 5, 6, 3, 2, 1, 8, 7, 6}, y = {0, 1};
  const Tensor xs = Tensor::borrow(std::span<const float>(x), {2, 2, 3}),
               ys = Tensor::borrow(std::span<const float>(y), {2, 1});
  auto optimizer = optim::sgd(*model, {.lr = 0.1f});
  Workspace ws;
  const auto forward = [&](auto& frame) { return *(frame.input(xs) | *model)->to_vector(); };
  std::vector<float> before, in_training;
  {
    auto frame = ws.frame();
    before = forward(frame);
  }
  {
    auto tape = ws.record();
    in_training = forward(tape);
    EXPECT_EQ(values_of(*model, "0.running_mean"), (std::vector<float>{0, 0}));
  }
  EXPECT_NE(before, in_training);
  const auto step = [&] {
    auto tape = ws.record();
    return (tape.input(xs) | *model | loss::mse(ys)).and_then(backward).and_then([&](const Gradients& g) {
      return optimizer.step(*model, g);
    });
  };
  ASSERT_OK(step());
  // Means 2 and 6, sums of squares 4 and 10 over six elements: a sample's variance divides by five.
  const auto mean = values_of(*model, "0.running_mean"), var = values_of(*model, "0.running_var");
  EXPECT_NEAR(mean[0], 0.2, 1e-6);
  EXPECT_NEAR(mean[1], 0.6, 1e-6);
  EXPECT_NEAR(var[0], 0.9 + 0.1 * 4 / 5, 1e-6);
  EXPECT_NEAR(var[1], 0.9 + 0.1 * 10 / 5, 1e-6);
  qorus_test::TemporaryFolder folder;
  const std::string path = folder / "model.safetensors";
  ASSERT_OK(io::save(*model, path));
  auto copy = nn::build(nn::batch_norm() | nn::flatten() | nn::linear(1), {2, 3}, init::zeros());
  ASSERT_OK(io::load(path, *copy));
  EXPECT_EQ(values_of(*copy, "0.running_var"), var);
  {
    auto frame = ws.frame();
    EXPECT_EQ(*(frame.input(xs) | *copy)->to_vector(), forward(frame));
  }
  ASSERT_OK(step());  // what was there before counts nine tenths
  const auto later_mean = values_of(*model, "0.running_mean"), later_var = values_of(*model, "0.running_var");
  for (int i = 0; i < 2; ++i) {
    EXPECT_NEAR(later_mean[i], 0.9 * mean[i] + (i ? 0.6 : 0.2), 1e-6);
    EXPECT_NEAR(later_var[i], 0.9 * var[i] + 0.1 * (i ? 10 : 4) / 5, 1e-6);
  }
}

// A few examples of the drawn digits, as pictures of one channel.
data::Split few(std::size_t count) { return *data::digits(3, {.train = count, .test = 8}); }

// Stops a run after so many batches.
auto stop_after(std::size_t batches) {
  return [batches, seen = std::size_t{0}](train::Event& event) mutable noexcept {
    if (event.moment == train::Moment::step_end && ++seen == batches) event.stop = true;
  };
}

// Running statistics are state of the model: a run that goes on, an average and the best epoch's weights have theirs.
TEST(Pictures, RunningStatisticsFollowTheWeights) {
  const data::Split digits = few(40);
  const auto run = [&](const std::string& place, float ema, int threads, train::Callbacks callbacks) {
    auto net = nn::reshape({1, 28, 28}) | nn::conv2d(4, 3, {.stride = 3}) | nn::batch_norm() | nn::relu() |
               nn::max_pool(2) | nn::flatten() | nn::linear(10);
    auto done = train::fit(net, digits,
                           {.optimizer = optim::adamw({.lr = 0.03f}),
                            .epochs = 4,
                            .batch = 8,
                            .seed = 5,
                            .ema = ema,
                            .threads = threads,
                            .checkpoints = {.folder = place},
                            .callbacks = callbacks});
    if (!done) ADD_FAILURE() << done.error().message().c_str();
    return std::vector<float>(done->model.slab().begin(), done->model.slab().end());
  };
  for (const float ema : {0.0f, 0.75f}) {
    // A run that goes on after 7 or 10 of 20 batches, one of them after an epoch.
    const auto wanted = run("", ema, 1, {});
    for (const std::size_t batches : {7u, 10u}) {
      qorus_test::TemporaryFolder folder;
      const std::string place = folder / "run";
      (void)run(place, ema, 2, {stop_after(batches)});
      EXPECT_EQ(run(place, ema, 3, {}), wanted) << batches;
    }
    // The first epoch's weights are kept as the best ones: no later epoch is better by so much.
    std::vector<float> first;
    const auto keep_first = [&](train::Event& event) noexcept {
      if (event.moment != train::Moment::epoch_end || event.epoch != 1) return;
      first.assign(event.parameters->slab().begin(), event.parameters->slab().end());
    };
    const auto best = train::early_stopping({.patience = 9, .min_delta = 1000});
    EXPECT_EQ(run("", ema, 1, {best, keep_first}), first);
    EXPECT_NE(first, wanted);
  }
}

// Training steps and inference of three pictures; side: their height and width.
template <class Built>
void counts_no_allocation(Built model, std::int64_t side) {
  ASSERT_OK(model);
  std::vector<float> x(static_cast<std::size_t>(3 * side * side));
  const std::vector<std::int32_t> y = {1, 2, 3};
  for (std::size_t i = 0; i < x.size(); ++i) x[i] = static_cast<float>(i % 7);
  const Tensor xs = Tensor::borrow(std::span<const float>(x), {3, 1, side, side}),
               ys = Tensor::borrow(std::span<const std::int32_t>(y), {3});
  auto optimizer = optim::adamw(*model);
  for (const int threads : {1, 2}) {
    Workspace ws{{.threads = threads}};
    for (int run = 0; run < 3; ++run) {
      const auto allocated = qorus_test::allocations_of([&] {
        {
          auto tape = ws.record();
          auto done =
              (tape.input(xs) | *model | loss::cross_entropy(ys)).and_then(backward).and_then([&](const Gradients& g) {
                return optimizer.step(*model, g);
              });
          if (!done) ADD_FAILURE() << done.error().message().c_str();
        }
        auto frame = ws.frame();
        if (auto out = frame.input(xs) | *model; !out) ADD_FAILURE();
      });
      if (run > 0) EXPECT_EQ(allocated, 0u) << threads;
    }
  }
}

TEST(Pictures, WarmStepsAllocateNothing) {
  if (!qorus_test::k_counts_allocations) GTEST_SKIP();
  counts_no_allocation(nn::build(nn::resnet20(10), {1, 8, 8}), 8);
  counts_no_allocation(nn::build(nn::lenet(10), {1, 28, 28}), 28);
}

TEST(Pictures, TheSameBitsForAnyNumberOfThreads) {
  const data::Split digits = few(24);
  std::vector<float> first;
  for (const int threads : {1, 2, 3}) {
    auto done = train::fit(nn::reshape({1, 28, 28}) | nn::conv2d(6, 3, {.stride = 2}) | nn::batch_norm() | nn::relu() |
                               nn::max_pool(2) | nn::conv2d(20, 3, {.padding = 1}) | nn::relu() |
                               nn::global_avg_pool() | nn::linear(10),
                           digits, {.epochs = 2, .batch = 8, .seed = 5, .threads = threads});
    ASSERT_OK(done);
    const std::vector<float> slab(done->model.slab().begin(), done->model.slab().end());
    if (first.empty()) first = slab;
    EXPECT_EQ(slab, first) << threads;
  }
}

TEST(Pictures, ANetworkThatPyTorchTrained) {
  QORUS_NEEDS_DATA("models/mnist-cnn/mnist.safetensors");
  QORUS_NEEDS_DATA("mnist");
  auto net = nn::named("conv1", nn::conv2d(8, 3)) | nn::relu() | nn::named("conv2", nn::conv2d(16, 3)) | nn::relu() |
             nn::named("conv3", nn::conv2d(24, 3)) | nn::relu() | nn::named("norm1", nn::batch_norm()) | nn::flatten() |
             nn::named("fc1", nn::linear(32)) | nn::relu() | nn::named("fc2", nn::linear(10)) |
             nn::named("norm2", nn::batch_norm()) | nn::log_softmax();
  auto model = nn::build(net, {1, 28, 28}, init::zeros());
  ASSERT_OK(model);
  ASSERT_OK(io::load(qorus_test::data_path("models/mnist-cnn/mnist.safetensors"), *model));
  auto digits = data::mnist(qorus_test::data_path("mnist"));
  ASSERT_OK(digits);
  Workspace ws;
  const bool all = qorus_test::k_counts_allocations;  // or, under a sanitizer, the first thousand
  int right = 0;
  for (const auto& [x, y] : digits->test | data::take(all ? 10000 : 1000) | data::batch(250)) {
    auto frame = ws.frame();
    auto pictures = ops::reshape(frame.input(x), {x.dim(0), 1, 28, 28});
    auto best = ops::argmax(ops::div(ops::sub(pictures, 0.1307f), 0.3081f) | *model);
    ASSERT_OK(best);
    const auto found = *best->to_vector<std::int32_t>(), wanted = *y.to_vector<std::int32_t>();
    for (std::size_t i = 0; i < found.size(); ++i) right += found[i] == wanted[i];
  }
  EXPECT_EQ(right, all ? 9917 : 990);
}

}  // namespace
