// Packed weights: a second copy of them, or that copy alone (nn::packed).
#include <sys/mman.h>
#include <unistd.h>

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>
#include <utility>
#include <vector>

#include "tests/nn_testing.h"

import qorus.nn;

#include "tests/nn_running.h"

using namespace qorus;
using namespace qorus_test;

namespace {

// Bytes of the whole pages of [data, data + bytes) that the system holds in memory.
std::size_t resident(const std::byte* data, std::size_t bytes) {
  const auto page = static_cast<std::size_t>(sysconf(_SC_PAGESIZE));
  const std::size_t first = (page - reinterpret_cast<std::uintptr_t>(data) % page) % page;
  std::vector<unsigned char> held((bytes - first) / page);
  EXPECT_EQ(mincore(const_cast<std::byte*>(data) + first, held.size() * page, held.data()), 0);
  std::size_t pages = 0;
  for (const unsigned char one : held) pages += one & 1;
  return pages * page;
}

// Packs the model and compares what it gives with what it gave before.
template <nn::Layer L>
void expect_same_packed(Result<nn::Model<L>> model, const Tensor& x) {
  ASSERT_OK(model);
  const auto plain = outputs(*model, x);
  const std::size_t count = model->parameter_count();
  auto packed = nn::packed(std::move(*model));
  ASSERT_OK(packed);
  for (const int threads : {1, 2, 3}) EXPECT_EQ(outputs(*packed, x, threads), plain);
  EXPECT_EQ(packed->parameter_count(), count);
}

}  // namespace

TEST(Pack, GivesTheSameBitsUntilAParameterChanges) {
  auto model =
      nn::build(nn::linear(65) | nn::relu() | nn::linear(33, {.bias = false}) | nn::named("out", nn::linear(2)), {50});
  ASSERT_OK(model);
  const auto x = waves(9 * 50);
  for (const std::int64_t rows : {1, 3, 9}) {
    const Tensor in = Tensor::borrow(std::span<const float>(x).first(static_cast<std::size_t>(rows) * 50), {rows, 50});
    const auto plain = outputs(*model, in);
    ASSERT_OK(model->pack());
    EXPECT_EQ(outputs(*model, in), plain);
    const std::vector<float> ones(66, 1);
    const auto old = *model->parameter("out.weight")->to_vector();
    ASSERT_OK(model->assign("out.weight", view(ones, {2, 33})));  // what was packed must not be used any more
    EXPECT_NE(outputs(*model, in), plain);
    ASSERT_OK(model->assign("out.weight", view(old, {2, 33})));
    EXPECT_EQ(outputs(*model, in), plain);
  }
}

// Of the layers, the second one's weights have an order of their own; where the places are too few for it they are read as they are, and
// so are those of too few channels, of groups, of a stride.
TEST(Pack, ConvolutionsGiveTheSameBitsUntilAParameterChanges) {
  QORUS_NEEDS_ALLOCATION_COUNTER();
  auto model = nn::build(nn::conv2d(20, 3, {.padding = 1}) | nn::conv2d(24, 3, {.padding = 1}) | nn::relu() |
                             nn::conv2d(16, 3, {.stride = 2}) | nn::conv2d(18, 3) |
                             nn::conv2d(16, 3, {.padding = 1, .groups = 2}),
                         {3, 9, 11});
  ASSERT_OK(model);
  const auto x = waves(3 * 3 * 9 * 11);
  const auto pictures = [&](std::int64_t batch) {
    return Tensor::borrow(std::span<const float>(x).first(static_cast<std::size_t>(batch) * 297), {batch, 3, 9, 11});
  };
  const auto run = [&](int threads, std::int64_t batch, bool warm) {
    Workspace ws{{.scratch = 4_MiB, .threads = threads}};
    std::vector<float> got(static_cast<std::size_t>(batch) * 16 * 2 * 3);
    for (int i = 0; i <= int(warm); ++i) {
      const auto allocated = qorus_test::allocations_of([&] {
        auto frame = ws.frame();
        auto y = frame.input(pictures(batch)) | *model;
        EXPECT_TRUE(y && y->copy_to(std::span<float>(got)));
      });
      if (i > 0) EXPECT_EQ(allocated, 0u);
    }
    return got;
  };
  for (const std::int64_t batch : {1, 3}) {
    const auto plain = run(1, batch, false);
    ASSERT_OK(model->pack());
    for (const int threads : {1, 2, 3}) EXPECT_EQ(run(threads, batch, true), plain);
    const auto old = *model->parameter("1.weight")->to_vector();
    const std::vector<float> ones(old.size(), 1);
    ASSERT_OK(model->assign("1.weight", view(ones, {24, 20, 3, 3})));
    EXPECT_NE(run(1, batch, false), plain);
    ASSERT_OK(model->assign("1.weight", view(old, {24, 20, 3, 3})));
  }
  // A tape reads the weights themselves.
  ASSERT_OK(model->pack());
  const bool ordered = ops::packed_size({24, 20, 3, 3}) == 24 * 20 * 16;
  EXPECT_EQ(ordered, std::string_view(cpu_info().isa) != "scalar");
  Workspace ws{{.scratch = 8_MiB, .threads = 1}};
  auto tape = ws.record();
  EXPECT_OK(
      (tape.input(pictures(1)) | *model).and_then([](const Tensor& y) { return ops::sum(y); }).and_then(backward));
}

TEST(Packed, GivesTheSameBitsWhateverTheModel) {
  const auto x = waves(5 * 60);
  expect_same_packed(nn::build(nn::linear(65) | nn::gelu() | nn::linear(33, {.bias = false}), {60}), view(x, {5, 60}));
  expect_same_packed(nn::build(nn::lstm(20) | nn::linear(7), {6, 10}), view(x, {5, 6, 10}));
  expect_same_packed(nn::build(nn::conv2d(8, 3) | nn::relu() | nn::flatten() | nn::linear(4), {3, 4, 5}),
                     view(x, {5, 3, 4, 5}));
  const std::vector<std::int32_t> ids{1, 5, 0, 18, 7, 7, 2, 3};
  const Tensor text = Tensor::borrow(std::span<const std::int32_t>(ids), {2, 4});
  const nn::LanguageOptions options{.vocab = 19, .context = 4, .d_model = 24, .heads = 4, .layers = 2};
  const nn::BuildOptions tokens{.input = DType::i32};
  expect_same_packed(nn::build(nn::gpt(options), {4}, init::normal(1), tokens), text);
  expect_same_packed(nn::build(nn::llama(options), {4}, init::normal(1), tokens), text);
  // A weight that two layers share is there for both.
  expect_same_packed(nn::build(nn::linear(60) | nn::relu() | nn::linear(60), {60}, init::kaiming(1),
                               {.tied = {{"2.weight", "0.weight"}}}),
                     view(x, {5, 60}));
  expect_same_packed(nn::build(nn::embedding(19, 24) | nn::linear(19, {.bias = false}), {4}, init::normal(1),
                               {.input = DType::i32, .tied = {{"1.weight", "0.weight"}}}),
                     text);
}

TEST(Packed, HoldsWeightsOnceAndRefusesToTrain) {
  auto model = nn::build(nn::linear(1024) | nn::relu() | nn::linear(512), {512});
  ASSERT_OK(model);
  const auto x = waves(3 * 512);
  const auto plain = outputs(*model, view(x, {3, 512}));
  const Tensor first = *model->parameter("0.weight"), second = *model->parameter("2.weight");
  const std::size_t bytes = first.numel() * sizeof(float);
  EXPECT_GT(resident(first.data(), bytes), bytes * 9 / 10);
  auto packed = nn::packed(std::move(*model));
  ASSERT_OK(packed);
  EXPECT_EQ(resident(first.data(), bytes), 0u);
  EXPECT_EQ(resident(second.data(), bytes), 0u);
  EXPECT_EQ(outputs(*packed, view(x, {3, 512})), plain);

  Workspace ws{{.scratch = 64_MiB, .threads = 1}};
  auto tape = ws.record();
  EXPECT_FAILS(tape.input(view(x, {3, 512})) | *packed, Errc::stale_tensor);
}

TEST(Packed, AllocatesNothingOnceWarm) {
  QORUS_NEEDS_ALLOCATION_COUNTER();
  auto model = nn::build(nn::linear(96) | nn::gelu() | nn::linear(33), {50});
  ASSERT_OK(model);
  const auto packed = nn::packed(std::move(*model));
  ASSERT_OK(packed);
  const auto x = waves(40 * 50);
  Workspace ws{{.scratch = 4_MiB, .threads = 2}};
  for (int run = 0; run < 3; ++run) {
    const auto allocated = qorus_test::allocations_of([&] {
      auto frame = ws.frame();
      EXPECT_TRUE(frame.input(view(x, {40, 50})) | *packed);
    });
    if (run > 0) EXPECT_EQ(allocated, 0u);
  }
}
