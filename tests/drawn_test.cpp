// qorus.data, continued: drawn digits, pictures, standardising, one-hot targets.
#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "tests/testing.h"

import qorus.data;

using namespace qorus;

TEST(Digits, AreTheSameForTheSameSeed) {
  const auto a = data::digits(7, {.train = 50, .test = 20}), b = data::digits(7, {.train = 30, .test = 20}),
             c = data::digits(8, {.train = 50, .test = 20});
  ASSERT_TRUE(a && b && c);
  EXPECT_EQ(a->train.input_shape(), Shape({28, 28}));
  EXPECT_EQ(a->train.classes(), 10);
  const auto bytes = [](const data::Dataset& set, std::size_t n) {
    return std::vector<std::uint8_t>(set.inputs().u8(), set.inputs().u8() + n * 784);
  };
  EXPECT_EQ(bytes(a->train, 30), bytes(b->train, 30));
  EXPECT_EQ(bytes(a->test, 20), bytes(b->test, 20));
  EXPECT_NE(bytes(a->train, 30), bytes(c->train, 30));
  EXPECT_NE(bytes(a->train, 20), bytes(a->test, 20));
}

TEST(Digits, HaveAllClassesAboutEquallyOften) {
  const auto set = data::digits(1, {.train = 5000, .test = 1});
  ASSERT_OK(set);
  int counts[10] = {};
  const auto labels = set->train.targets().values<std::int32_t>().value();
  for (const int label : labels) ++counts[label];
  for (const int count : counts) EXPECT_NEAR(count, 500, 5 * std::sqrt(450.0));
}

TEST(Digits, AreNoTwoTheSameAndAllInsideThePaper) {
  const auto set = data::digits(3, {.train = 2000, .test = 1});
  ASSERT_OK(set);
  const auto pixels = set->train.inputs().values<std::uint8_t>().value();
  std::vector<std::string> images;
  for (std::size_t i = 0; i < 2000; ++i) {
    const auto* image = pixels.data() + i * 784;
    images.emplace_back(reinterpret_cast<const char*>(image), 784);
    const long ink = std::count_if(image, image + 784, [](std::uint8_t p) { return p > 100; });
    EXPECT_GT(ink, 14) << i;
    EXPECT_LT(ink, 300) << i;
    int edge = 0;
    for (int j = 0; j < 28; ++j)
      edge += (image[j] > 100) + (image[27 * 28 + j] > 100) + (image[j * 28] > 100) + (image[j * 28 + 27] > 100);
    EXPECT_LT(edge, 16) << i;
  }
  std::sort(images.begin(), images.end());
  EXPECT_EQ(std::adjacent_find(images.begin(), images.end()), images.end());
}

TEST(Digits, RefuseNone) {
  EXPECT_FAILS(data::digits(1, {.train = 0}), Errc::invalid_argument);
  EXPECT_FAILS(data::digits(1, {.test = 0}), Errc::invalid_argument);
  EXPECT_FAILS(data::digits(1, {.train = SIZE_MAX}), Errc::invalid_argument);
}

TEST(Picture, DrawsBlocksAndDots) {
  const auto image = Owned::from<float>({1, 0, 0, 1, 1, 0, 0, 0, 1, 1, 0, 0.4f}, {1, 4, 3}).value();
  EXPECT_EQ(data::to_text(image), "█▄ \n▄ ▀\n");
  EXPECT_EQ(data::to_text(image, data::Ink::dots), "⡓⠄\n");
  const auto two = Owned::from<std::uint8_t>({255, 0, 0, 90, 90, 200}, {3, 1, 2}).value();
  EXPECT_EQ(data::to_text(two), "▀        ▀\n");
}

TEST(Picture, CutsAtACharacterAndCountsAll) {
  const auto image = Owned::from<float>({1, 1, 1, 1}, {2, 2}).value();
  char small[6] = "xxxxx";
  EXPECT_EQ(data::write_text(image, small), 7u);
  EXPECT_STREQ(small, "█");
  EXPECT_EQ(data::write_text(image, {}), 7u);
}

TEST(Picture, SaysWhatIsWrong) {
  const Tensor gone = Owned::zeros({3, 3}).value().tensor();
  EXPECT_NE(data::to_text(gone).find("to_text: stale tensor"), std::string::npos);
  const auto line = Owned::zeros({3}).value();
  EXPECT_NE(data::to_text(line).find("to_text: invalid size: [3]"), std::string::npos);
  const auto labels = Owned::zeros({3, 3}, DType::i32).value();
  EXPECT_NE(data::to_text(labels).find("to_text: invalid dtype"), std::string::npos);
  const auto nothing = Owned::zeros({0, 3}).value();
  EXPECT_EQ(data::to_text(nothing), "");
}

TEST(Standardizer, GivesMeanZeroAndDeviationOneForEachFeature) {
  auto x = Owned::from<float>({1, 5, 3, 5, 5, 5, 7, 5}, {4, 2}).value();
  auto set = data::Dataset::create(std::move(x), Owned::zeros({4}, DType::i32).value());
  ASSERT_OK(set);
  auto fitted = data::Standardizer::fit(*set);
  ASSERT_OK(fitted);
  EXPECT_FLOAT_EQ(fitted->mean()[0], 4);
  EXPECT_FLOAT_EQ(fitted->deviation()[0], std::sqrt(5.0f));
  EXPECT_FLOAT_EQ(fitted->deviation()[1], 1);  // never changes
  ASSERT_OK(fitted->apply(*set));
  const auto values = set->inputs().values<float>().value();
  EXPECT_FLOAT_EQ(values[0], -3 / std::sqrt(5.0f));
  EXPECT_FLOAT_EQ(values[6], 3 / std::sqrt(5.0f));
  EXPECT_FLOAT_EQ(values[1], 0);
  const auto one = Owned::from<float>({7, 6}, {2}).value();
  auto applied = fitted->apply(one);
  ASSERT_OK(applied);
  EXPECT_FLOAT_EQ(applied->tensor().at<float>({0}).value(), 3 / std::sqrt(5.0f));
  EXPECT_FLOAT_EQ(applied->tensor().at<float>({1}).value(), 1);
  auto saved = data::Standardizer::from(fitted->mean(), fitted->deviation());
  ASSERT_OK(saved);
  EXPECT_EQ(saved->mean()[0], fitted->mean()[0]);
}

TEST(Standardizer, FitsTheTrainingPartAndKeepsBytesForImages) {
  auto digits = data::digits(7, {.train = 200, .test = 50});
  ASSERT_OK(digits);
  const auto* bytes = digits->train.inputs().u8();
  auto fitted = data::standardize(*digits, data::Per::set);
  ASSERT_OK(fitted);
  EXPECT_EQ(digits->train.inputs().u8(), bytes);
  EXPECT_EQ(digits->test.encoding().scale, digits->train.encoding().scale);
  double sum = 0, square = 0;
  auto batches = digits->train | data::batch(200);
  for (auto const& [x, y] : batches) {
    const auto values = x.values<float>().value();
    for (const float v : values) {
      sum += v;
      square += v * v;
    }
  }
  const double n = 200 * 784;
  EXPECT_NEAR(sum / n, 0, 1e-4);
  EXPECT_NEAR(square / n, 1, 1e-4);
  auto per_feature = data::standardize(*digits, data::Per::feature);
  ASSERT_OK(per_feature);
  EXPECT_EQ(digits->train.inputs().dtype(), DType::f32);
}

TEST(Standardizer, RefusesWhatDoesNotFit) {
  auto set = data::Dataset::create(Owned::from<float>({1, NAN}, {2, 1}).value(), Owned::zeros({2}, DType::i32).value());
  ASSERT_OK(set);
  EXPECT_FAILS(data::Standardizer::fit(*set), Errc::invalid_argument);
  EXPECT_FAILS(data::Standardizer::fit(data::Dataset{}), Errc::invalid_size);
  auto tokens = data::Dataset::create(Owned::zeros({2, 1}, DType::i32).value(), Owned::zeros({2}, DType::i32).value());
  ASSERT_OK(tokens);
  EXPECT_FAILS(data::Standardizer::fit(*tokens), Errc::invalid_dtype);
  const float two[] = {1, 2}, bad[] = {1, 0};
  EXPECT_FAILS(data::Standardizer::from(two, bad), Errc::invalid_argument);
  EXPECT_FAILS(data::Standardizer::from(two, std::span(two).first(1)), Errc::invalid_size);
  EXPECT_FAILS(data::Standardizer::from({}, {}), Errc::invalid_size);
  auto fitted = data::Standardizer::from(two, two);
  ASSERT_OK(fitted);
  EXPECT_FAILS(fitted->apply(*set), Errc::invalid_size);
  EXPECT_EQ(set->size(), 2u);  // as before
  const auto three = Owned::zeros({3}).value();
  EXPECT_FAILS(fitted->apply(three), Errc::invalid_size);
  EXPECT_FAILS(data::Standardizer{}.apply(three), Errc::invalid_size);
  EXPECT_FAILS(data::Standardizer{}.apply(*set), Errc::invalid_size);
}

TEST(OneHot, PutsOnesAtTheLabels) {
  const auto labels = Owned::from<std::int32_t>({2, 0}, {2}).value();
  auto hot = data::one_hot(labels, 3);
  ASSERT_OK(hot);
  EXPECT_EQ(hot->tensor().shape(), Shape({2, 3}));
  EXPECT_EQ(hot->tensor().to_vector().value(), (std::vector<float>{0, 0, 1, 1, 0, 0}));
  EXPECT_FAILS(data::one_hot(labels, 2), Errc::invalid_argument);
  EXPECT_FAILS(data::one_hot(labels, 0), Errc::invalid_argument);
  EXPECT_FAILS(data::one_hot(Owned::zeros({2}).value(), 3), Errc::invalid_dtype);
  const auto deep = Owned::zeros({1, 1, 1, 1, 1, 1}, DType::i32).value();
  EXPECT_FAILS(data::one_hot(deep, 3), Errc::invalid_size);
  auto set = data::digits(1, {.train = 5, .test = 5});
  ASSERT_OK(set);
  auto changed = data::one_hot(std::move(set->train));
  ASSERT_OK(changed);
  EXPECT_EQ(changed->targets().shape(), Shape({5, 10}));
  EXPECT_EQ(changed->classes(), 10);
}
