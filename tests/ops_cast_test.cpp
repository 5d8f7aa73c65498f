// Casts between element types, and random tensors.
#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>
#include <limits>
#include <span>
#include <string>
#include <vector>

#include "tests/testing.h"

import qorus.ops;
import qorus.test.ops;

using namespace qorus;
using namespace qorus_test;

namespace {

using Tensors = std::span<const Tensor>;
using Arrays = std::vector<Array>;

// --- casts ---

// Rounded to so many significant bits, a tie to even: what a cast to a shorter float and back leaves of a normal number.
double rounded(double x, int bits) {
  int exponent = 0;
  const double fraction = std::frexp(x, &exponent);
  return std::ldexp(std::nearbyint(std::ldexp(fraction, bits)), exponent - bits);
}

// Straight through: the gradient of a rounding is that of the identity, so the reference differentiates the identity.
std::string check_there_and_back(DType dtype, int bits) {
  auto tape = workspace(1).record();
  const Owned x = random_owned({3, 700}, 5, -3, 3);
  auto t = tape.watch(x);
  auto y = ops::cast(ops::cast(t, dtype), DType::f32);
  if (!y) return y.error().message().c_str();
  auto g = backward(ops::sum(ops::mul(y, 3.0f)).value());
  if (!g) return g.error().message().c_str();
  const auto in = t->to_vector().value(), out = y->to_vector().value(), slope = g->of(*t).value().to_vector().value();
  for (std::size_t i = 0; i < in.size(); ++i) {
    if (static_cast<double>(out[i]) != rounded(static_cast<double>(in[i]), bits))
      return "value " + std::to_string(in[i]);
    if (slope[i] != 3) return "gradient";
  }
  return {};
}

TEST(Cast, ToShorterFloatsRoundsAndPassesTheGradient) {
  EXPECT_EQ(check_there_and_back(DType::f16, 11), "");
  EXPECT_EQ(check_there_and_back(DType::bf16, 8), "");
}

template <class T>
std::vector<T> cast_to(std::vector<float> values) {
  auto frame = workspace(1).frame();
  const auto size = static_cast<std::int64_t>(values.size());
  auto y = ops::cast(frame.input(Tensor::borrow(std::span<const float>(values), {size})), dtype_of<T>);
  return y.value().template to_vector<T>().value();
}

TEST(Cast, ToIntegersCutsAndSaturates) {
  EXPECT_EQ(cast_to<std::int32_t>({1.9f, -1.9f, 0, 3e9f, -3e9f, NAN, INFINITY, 16777217.0f}),
            (std::vector<std::int32_t>{1, -1, 0, 2147483647, -2147483647 - 1, 0, 2147483647, 16777216}));
  EXPECT_EQ(cast_to<std::uint8_t>({1.9f, -1, 255.9f, 256, NAN, -INFINITY}),
            (std::vector<std::uint8_t>{1, 0, 255, 255, 0, 0}));
  EXPECT_EQ(cast_to<std::int8_t>({-128.5f, 127.9f, 1000, -0.5f}), (std::vector<std::int8_t>{-128, 127, 127, 0}));
}

// q8_0 and back: what a weight loses. Rows chosen of a block tensor, and what no operation does with one.
TEST(Cast, BlockFormatsThereAndBack) {
  auto frame = workspace(2).frame();
  const Owned source = random_owned({40, 512}, 9, -3, 3);
  const Tensor x = frame.input(source).value();
  for (const DType dtype : {DType::q4_0, DType::q8_0}) {
    const auto blocks = ops::cast(x, dtype);
    ASSERT_OK(blocks);
    const auto back = ops::cast(blocks, DType::f32), wide = ops::cast(ops::cast(blocks, DType::f16), DType::f32);
    ASSERT_OK(back);
    const auto in = x.to_vector().value(), out = back->to_vector().value();
    for (std::size_t i = 0; i < in.size(); ++i) ASSERT_NEAR(in[i], out[i], dtype == DType::q8_0 ? 0.014 : 0.4) << i;
    EXPECT_OK(wide);
    const std::vector<std::int32_t> index{39, 0, -2};
    const auto rows = ops::take(blocks, frame.input(Tensor::borrow(std::span<const std::int32_t>(index), {3})));
    const auto taken = ops::cast(rows, DType::f32);
    ASSERT_OK(taken);
    for (std::size_t i = 0; i < 512; ++i) ASSERT_EQ(taken->to_vector().value()[2 * 512 + i], out[38 * 512 + i]);
    const auto slice = ops::cast(ops::slice(blocks, 1, 32, 96), DType::f32);
    ASSERT_OK(slice);
    EXPECT_EQ(slice->at<float>({7, 0}).value(), out[7 * 512 + 32]);
    const auto turned = frame.input(Tensor::borrow(std::span<const std::int32_t>(index), {3}));
    EXPECT_FAILS(ops::take(blocks, turned, 1), Errc::invalid_dtype);
    EXPECT_FAILS(ops::permute(blocks, {1, 0}), Errc::invalid_dtype);
    EXPECT_FAILS(ops::slice(blocks, 1, 1, 33), Errc::invalid_dtype);
    EXPECT_FAILS(ops::reshape(blocks, {40 * 32, 16}), Errc::invalid_dtype);
    EXPECT_FAILS(ops::concat({*blocks, *blocks}, 0), Errc::invalid_dtype);
    EXPECT_FAILS(ops::add(*blocks, *blocks), Errc::invalid_dtype);
    EXPECT_FAILS(ops::matmul(x, *blocks), Errc::invalid_dtype);
    EXPECT_FAILS(ops::sum(*blocks), Errc::invalid_dtype);
  }
  EXPECT_FAILS(ops::cast(x, DType::q4_k), Errc::unsupported);
  EXPECT_FAILS(ops::cast(ops::slice(x, 1, 0, 33), DType::q8_0), Errc::invalid_dtype);
}

// Every pair of types, with numbers that all of them hold, through a view, and longer than the stack's piece.
TEST(Cast, EveryPairOfTypes) {
  auto frame = workspace(2).frame();
  std::vector<float> values(2 * 1030);
  for (std::size_t i = 0; i < values.size(); ++i) values[i] = static_cast<float>(i % 100);
  auto x = frame.input(Tensor::borrow(std::span<const float>(values), {2, 1030}));
  constexpr std::array k_types = {DType::f32, DType::f16, DType::bf16, DType::i32, DType::i8, DType::u8};
  for (const DType from : k_types) {
    for (const DType to : k_types) {
      auto y = ops::cast(ops::cast(ops::transpose(ops::cast(x, from)), to), DType::f32);
      ASSERT_OK(y);
      EXPECT_EQ(ops::transpose(y).value().to_vector().value(), values) << to_string(from) << " to " << to_string(to);
    }
  }
}

TEST(Cast, LargeIntegersReachShorterOnesSaturated) {
  auto frame = workspace(1).frame();
  const std::int32_t values[] = {2147483647, -2147483647, 300, -7, 16777217};
  auto x = frame.input(Tensor::borrow(std::span<const std::int32_t>(values), {5}));
  EXPECT_EQ(ops::cast(x, DType::i8).value().to_vector<std::int8_t>().value(),
            (std::vector<std::int8_t>{127, -128, 127, -7, 127}));
  EXPECT_EQ(ops::cast(x, DType::i32).value().to_vector<std::int32_t>().value()[4], 16777217);
}

// --- random tensors ---

std::vector<float> drawn(int threads, const std::function<Result<Tensor>(Context&)>& f) {
  workspace(threads).set_draws(7, 0);
  auto frame = workspace(threads).frame();
  return f(frame.context()).value().to_vector().value();
}

struct Moments {
  double mean = 0, deviation = 0, least = 0, most = 0;
};
Moments moments(const std::vector<float>& x) {
  Moments m{.least = x[0], .most = x[0]};
  for (float v : x) m.mean += static_cast<double>(v) / static_cast<double>(x.size());
  for (float v : x) {
    m.deviation +=
        (static_cast<double>(v) - m.mean) * (static_cast<double>(v) - m.mean) / static_cast<double>(x.size());
    m.least = std::min(m.least, static_cast<double>(v));
    m.most = std::max(m.most, static_cast<double>(v));
  }
  m.deviation = std::sqrt(m.deviation);
  return m;
}

TEST(Random, UniformFillsItsRange) {
  const auto draw = [](Context& context) { return ops::uniform(context, {300, 333}, -2, 4); };
  const auto x = drawn(1, draw);
  const Moments m = moments(x);
  EXPECT_NEAR(m.mean, 1, 0.03);
  EXPECT_NEAR(m.deviation, 6 / std::sqrt(12), 0.02);
  EXPECT_GE(m.least, -2);
  EXPECT_LT(m.most, 4);
  EXPECT_EQ(drawn(2, draw), x);
  EXPECT_EQ(drawn(3, draw), x);
}

TEST(Random, NormalHasItsMoments) {
  const auto draw = [](Context& context) { return ops::normal(context, {99999}, 3, 0.5f); };
  const auto x = drawn(1, draw);
  const Moments m = moments(x);
  EXPECT_NEAR(m.mean, 3, 0.01);
  EXPECT_NEAR(m.deviation, 0.5, 0.005);
  EXPECT_GT(m.most, 4.5);  // three deviations
  EXPECT_LT(m.least, 1.5);
  EXPECT_EQ(drawn(3, draw), x);
}

TEST(Random, DrawsDifferAndCanBeRepeated) {
  Workspace ws{{.scratch = 1_MiB, .threads = 1, .seed = 3}};
  auto frame = ws.frame();
  const auto first = ops::uniform(frame.context(), {5}).value().to_vector().value();
  const std::uint64_t after = ws.draws();
  const auto second = ops::uniform(frame.context(), {5}).value().to_vector().value();
  EXPECT_NE(first, second);
  ws.set_draws(3, after);
  EXPECT_EQ(ops::uniform(frame.context(), {5}).value().to_vector().value(), second);
}

TEST(Dropout, IsTheIdentityWithoutATape) {
  const Owned x = random_owned({3, 5});
  auto frame = workspace(1).frame();
  auto t = frame.input(x);
  auto y = ops::dropout(t, 0.5f);
  ASSERT_OK(y);
  EXPECT_EQ(y->data(), t->data());
}

// Each element is 0 or x / (1 - p), and its gradient 0 or 1 / (1 - p), with the same mask.
TEST(Dropout, DropsInTrainingAndItsGradientWithIt) {
  for (const int threads : {1, 2, 3}) {
    workspace(threads).set_draws(11, 0);
    auto tape = workspace(threads).record();
    const Owned x = random_owned({200, 301}, 1, 1, 2);
    auto t = tape.watch(x);
    auto y = ops::dropout(t, 0.25f);
    ASSERT_OK(y);
    const auto in = t->to_vector().value(), out = y->to_vector().value();
    auto g = backward(ops::sum(y).value());
    ASSERT_OK(g);
    const auto slopes = g->of(*t).value().to_vector().value();
    std::size_t dropped = 0;
    for (std::size_t i = 0; i < in.size(); ++i) {
      dropped += out[i] == 0;
      const float scale = 1 / (1 - 0.25f);
      ASSERT_TRUE(out[i] == 0 || out[i] == in[i] * scale);
      ASSERT_EQ(slopes[i], out[i] == 0 ? 0 : scale);
    }
    EXPECT_NEAR(static_cast<double>(dropped) / static_cast<double>(in.size()), 0.25, 0.01);
  }
}

TEST(Dropout, AddsUpWhereTheInputIsUsedAgain) {
  auto tape = workspace(1).record();
  const Owned x = random_owned({50}, 1, 1, 2);
  auto t = tape.watch(x);
  auto y = ops::dropout(t, 0.5f);
  const auto out = y.value().to_vector().value();
  auto g = backward(ops::sum(ops::add(y, t)).value()).value().of(*t).value().to_vector().value();
  for (std::size_t i = 0; i < out.size(); ++i) EXPECT_EQ(g[i], out[i] == 0 ? 1 : 3);
}

TEST(Dropout, AllocatesNothingWarm) {
  QORUS_NEEDS_ALLOCATION_COUNTER();
  const Owned x = random_owned({200, 301});
  for (const int threads : {1, 2}) {
    const auto step = [&] {
      auto tape = workspace(threads).record();
      auto t = tape.watch(x);
      EXPECT_TRUE(backward(ops::sum(ops::dropout(t, 0.5f)).value()).has_value());
    };
    step();
    EXPECT_EQ(allocations_of(step), 0u);
  }
}

TEST(Dropout, RefusesWhatIsNoProbability) {
  auto tape = workspace(1).record();
  const Owned x = random_owned({3});
  auto good = tape.input(x);
  for (const float p : {-0.1f, 1.0f, 2.0f, NAN}) EXPECT_FAILS(ops::dropout(good, p), Errc::invalid_argument);
}

}  // namespace
