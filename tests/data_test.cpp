// qorus.data: data sets, pipelines of examples and batches, drawn digits, transforms, pictures.
#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <iterator>
#include <numeric>
#include <optional>
#include <ranges>
#include <string>
#include <utility>
#include <vector>

#include <range/v3/view/take.hpp>

#include "tests/testing.h"

import qorus.data;

using namespace qorus;

namespace {

static_assert(std::ranges::input_range<data::Batches>);
static_assert(ranges::input_range<data::Batches>);

// n examples [2] f32: example i is (i, i + 0.5), its class i % classes.
data::Dataset numbered(std::int64_t n, int classes = 10) {
  auto x = Owned::zeros({n, 2}).value();
  auto y = Owned::zeros({n}, DType::i32).value();
  for (std::int64_t i = 0; i < n; ++i) {
    x.fill<float>()[2 * i] = static_cast<float>(i);
    x.fill<float>()[2 * i + 1] = static_cast<float>(i) + 0.5f;
    y.fill<std::int32_t>()[i] = static_cast<std::int32_t>(i % classes);
  }
  return data::Dataset::create(std::move(x), std::move(y), {.classes = classes}).value();
}

// The numbers of the examples that the batches give, in order; each batch is checked on the way.
std::vector<int> seen(data::Batches& batches, int classes = 10) {
  std::vector<int> order;
  for (auto const& [x, y] : batches) {
    EXPECT_EQ(x.dim(0), y.dim(0));
    for (std::int64_t i = 0; i < x.dim(0); ++i) {
      const int number = static_cast<int>(x.at<float>({i, 0}).value());
      EXPECT_EQ(x.at<float>({i, 1}).value(), static_cast<float>(number) + 0.5f);
      EXPECT_EQ(y.at<std::int32_t>({i}).value(), number % classes);
      order.push_back(number);
    }
  }
  EXPECT_OK(batches.status());
  return order;
}

std::vector<int> sorted(std::vector<int> list) {
  std::sort(list.begin(), list.end());
  return list;
}
std::vector<int> up_to(int n) {
  std::vector<int> list(static_cast<std::size_t>(n));
  std::iota(list.begin(), list.end(), 0);
  return list;
}

// A pass over batches that cannot work: one batch, of tensors that nothing accepts.
void expect_one_invalid_batch(data::Batches& batches, Errc code) {
  EXPECT_FAILS(batches.status(), code);
  int count = 0;
  for (auto const& [x, y] : batches) {
    ++count;
    EXPECT_FALSE(x.values<float>());
    EXPECT_FALSE(y.check("use"));
  }
  EXPECT_EQ(count, 1);
  EXPECT_FAILS(batches.status(), code);
}

}  // namespace

TEST(Dataset, TellsWhatItHolds) {
  const auto set = numbered(25, 4);
  EXPECT_EQ(set.size(), 25u);
  EXPECT_EQ(set.input_shape(), Shape({2}));
  EXPECT_EQ(set.target_shape(), Shape{});
  EXPECT_EQ(set.classes(), 4);
  const auto example = set.example(7);
  ASSERT_OK(example);
  EXPECT_EQ(example->input.at<float>({1}).value(), 7.5f);
  EXPECT_EQ(example->target.item<std::int32_t>().value(), 3);
  EXPECT_FAILS(set.example(25), Errc::invalid_argument);
}

TEST(Dataset, CountsClassesFromLabels) {
  auto set = data::Dataset::create(Owned::zeros({3, 1}).value(), Owned::from<std::int32_t>({0, 6, 2}, {3}).value());
  ASSERT_OK(set);
  EXPECT_EQ(set->classes(), 7);
}

TEST(Dataset, RefusesWhatDoesNotFit) {
  const auto make = [](Shape in, Shape out, DType x = DType::f32, DType y = DType::i32, data::Encoding encoding = {}) {
    return data::Dataset::create(Owned::zeros(in, x).value(), Owned::zeros(out, y).value(), encoding);
  };
  EXPECT_FAILS_SAYING(make({3, 2}, {4}), "[3,2] and [4]");
  EXPECT_FAILS(make({3, 2}, {4}), Errc::invalid_size);
  EXPECT_FAILS(make({0, 2}, {0}), Errc::invalid_size);
  EXPECT_FAILS(make({}, {}), Errc::invalid_size);
  EXPECT_FAILS(make({3}, {3}, DType::i8), Errc::invalid_dtype);
  EXPECT_FAILS(make({3}, {3}, DType::f32, DType::u8), Errc::invalid_dtype);
  EXPECT_FAILS(make({3}, {3}, DType::f32, DType::i32, {.scale = INFINITY}), Errc::invalid_argument);
  EXPECT_FAILS(make({3}, {3}, DType::f32, DType::i32, {.classes = -1}), Errc::invalid_argument);
  const auto labels = [](std::initializer_list<std::int32_t> list, int classes) {
    return data::Dataset::create(Owned::zeros({2, 1}).value(), Owned::from<std::int32_t>(list, {2}).value(),
                                 {.classes = classes});
  };
  EXPECT_FAILS(labels({0, 3}, 3), Errc::invalid_argument);
  EXPECT_FAILS(labels({0, -1}, 3), Errc::invalid_argument);
  EXPECT_FAILS(labels({0, -1}, 0), Errc::invalid_argument);
  EXPECT_FAILS(labels({0, INT32_MAX}, 0), Errc::invalid_argument);
  EXPECT_FAILS(data::Dataset::create({}, {}), Errc::invalid_size);
}

TEST(Batches, GiveAllExamplesInOrder) {
  const auto set = numbered(10);
  auto batches = set | data::batch(4);
  EXPECT_EQ(batches.size(), 3u);
  EXPECT_EQ(batches.examples(), 10u);
  EXPECT_EQ(seen(batches), up_to(10));
  std::vector<std::int64_t> sizes;
  for (auto const& [x, y] : batches) sizes.push_back(x.dim(0));
  EXPECT_EQ(sizes, (std::vector<std::int64_t>{4, 4, 2}));
}

TEST(Batches, DropASmallerLastOne) {
  const auto set = numbered(10);
  auto batches = set | data::batch(4, {.drop_last = true});
  EXPECT_EQ(batches.size(), 2u);
  EXPECT_EQ(batches.examples(), 8u);
  EXPECT_EQ(seen(batches), up_to(8));
}

TEST(Batches, ShuffleAnewEachEpoch) {
  const auto set = numbered(100);
  auto batches = set | data::shuffle(7) | data::batch(16);
  const auto first = seen(batches), second = seen(batches);
  EXPECT_NE(first, up_to(100));
  EXPECT_NE(first, second);
  EXPECT_EQ(sorted(first), up_to(100));
  EXPECT_EQ(sorted(second), up_to(100));
  EXPECT_EQ(seen(batches.epoch(0)), first);
  auto later = set | data::shuffle(7, 1) | data::batch(33);
  EXPECT_EQ(seen(later), second);
  auto other = set | data::shuffle(8) | data::batch(16);
  EXPECT_NE(seen(other), first);
}

TEST(Batches,
     ShuffleIsUniform) {  // where each of 5 examples lands, over 20000 epochs: 4000 times each place, within 5 sigma
  const auto set = numbered(5);
  auto batches = set | data::shuffle(1) | data::batch(5);
  int counts[5][5] = {};
  for (int epoch = 0; epoch < 20000; ++epoch) {
    int place = 0;
    for (const int number : seen(batches)) ++counts[number][place++];
  }
  for (auto& row : counts) {
    for (const int count : row) EXPECT_NEAR(count, 4000, 5 * std::sqrt(20000 * 0.2 * 0.8));
  }
}

TEST(Batches, StepsApplyInTheirOrder) {
  const auto set = numbered(100);
  auto plain = set | data::take(10) | data::batch(4);
  EXPECT_EQ(seen(plain), up_to(10));
  auto among_ten = set | data::take(10) | data::shuffle(3) | data::batch(4);
  EXPECT_EQ(sorted(seen(among_ten)), up_to(10));
  auto any_ten = set | data::shuffle(3) | data::take(10) | data::batch(4);
  const auto ten = seen(any_ten);
  EXPECT_EQ(ten.size(), 10u);
  EXPECT_GT(*std::max_element(ten.begin(), ten.end()), 9);
  auto same_ten = set | data::shuffle(3) | data::take(10) | data::shuffle(4) | data::batch(4);
  EXPECT_EQ(sorted(seen(same_ten)), sorted(ten));
  EXPECT_EQ(sorted(seen(same_ten)), sorted(ten));
  const auto shuffled = set | data::shuffle(3);
  EXPECT_EQ(shuffled.example(4)->input.at<float>({0}).value(), static_cast<float>(ten[4]));
}

TEST(Batches, ScaleBytes) {
  auto set = data::Dataset::create(Owned::from<std::uint8_t>({0, 51, 255}, {3, 1}).value(),
                                   Owned::zeros({3}, DType::i32).value(), {.scale = 1.0f / 255.0f, .shift = -1.0f});
  ASSERT_OK(set);
  auto batches = *set | data::batch(3);
  for (auto const& [x, y] : batches) {
    EXPECT_EQ(x.dtype(), DType::f32);
    EXPECT_NEAR(x.at<float>({0, 0}).value(), -1.0f, 1e-6f);
    EXPECT_NEAR(x.at<float>({1, 0}).value(), -0.8f, 1e-6f);
    EXPECT_NEAR(x.at<float>({2, 0}).value(), 0.0f, 1e-6f);
  }
}

TEST(Batches, CarryTokensAndRealTargets) {
  auto set = data::Dataset::create(Owned::from<std::int32_t>({1, 2, 3, 4}, {2, 2}).value(),
                                   Owned::from<float>({0.5f, 1.5f}, {2, 1}).value());
  ASSERT_OK(set);
  EXPECT_EQ(set->classes(), 0);
  auto batches = *set | data::batch(2);
  for (auto const& [x, y] : batches) {
    EXPECT_EQ(x.at<std::int32_t>({1, 0}).value(), 3);
    EXPECT_EQ(y.shape(), Shape({2, 1}));
    EXPECT_EQ(y.at<float>({1, 0}).value(), 1.5f);
  }
}

TEST(Batches, GoIntoViewsOfRangeV3AndOfTheStandard) {
  const auto set = numbered(10);
  auto batches = set | data::batch(2);
  std::vector<float> firsts;
  for (auto const& [x, y] : batches | ranges::views::take(3)) firsts.push_back(x.at<float>({0, 0}).value());
  EXPECT_EQ(firsts, (std::vector<float>{0, 2, 4}));
  for (auto const& [x, y] : batches | std::views::drop(4)) EXPECT_EQ(x.at<float>({0, 0}).value(), 8.0f);
}

TEST(Batches, EndTheLifeOfTheBatchBefore) {
  const auto set = numbered(10);
  auto batches = set | data::batch(5);
  auto i = batches.begin();
  const Tensor kept = i->x;
  EXPECT_OK(kept.values<float>());
  ++i;
  EXPECT_FAILS(kept.values<float>(), Errc::stale_tensor);
  EXPECT_OK(i->x.values<float>());
}

TEST(Batches, AllocateNothingOnTheWay) {
  QORUS_NEEDS_ALLOCATION_COUNTER();
  const auto set = numbered(1000);
  auto batches = set | data::shuffle(7) | data::batch(64);
  float sum = 0;
  EXPECT_EQ(qorus_test::allocations_of([&] {
              for (int epoch = 0; epoch < 3; ++epoch) {
                for (auto const& [x, y] : batches) sum += x.f32()[0] + static_cast<float>(y.i32()[0]);
              }
            }),
            0u);
  EXPECT_GT(sum, 0);
}

TEST(Batches, GoOnFromASavedPlace) {
  const auto set = numbered(50);
  auto batches = set | data::shuffle(7, 2) | data::batch(8);
  std::vector<int> rest;
  std::optional<data::Position> saved;
  for (auto const& [x, y] : batches) {
    if (saved) {
      for (std::int64_t i = 0; i < x.dim(0); ++i) rest.push_back(static_cast<int>(x.at<float>({i, 0}).value()));
    } else if (batches.position().index == 24) {
      saved = batches.position();
    }
  }
  ASSERT_TRUE(saved);
  EXPECT_EQ(*saved, (data::Position{.seed = 7, .epoch = 2, .index = 24}));
  const auto next = seen(batches);
  auto resumed = set | data::shuffle(0) | data::batch(8);
  ASSERT_OK(resumed.seek(*saved));
  EXPECT_EQ(seen(resumed), rest);
  EXPECT_EQ(seen(resumed), next);
  ASSERT_OK(resumed.seek({.seed = 7, .epoch = 2, .index = 50}));  // the end of one epoch is the beginning of the next
  EXPECT_EQ(seen(resumed), next);
  EXPECT_FAILS(resumed.seek({.seed = 7, .epoch = 2, .index = 51}), Errc::invalid_argument);
}

TEST(Batches, ALoopLeftEarlyBeginsItsEpochAgain) {
  const auto set = numbered(50);
  auto batches = set | data::shuffle(7) | data::batch(8);
  const auto all = seen(batches);
  batches.epoch(0);
  for (auto const& [x, y] : batches) {
    if (x.dim(0)) break;
  }
  EXPECT_EQ(seen(batches), all);
}

TEST(Batches, SayWhatIsWrong) {
  const auto set = numbered(10);
  auto zero = set | data::batch(0);
  expect_one_invalid_batch(zero, Errc::invalid_argument);
  auto too_large = set | data::batch(11, {.drop_last = true});
  expect_one_invalid_batch(too_large, Errc::invalid_argument);
  auto large = set | data::batch(SIZE_MAX);
  EXPECT_EQ(seen(large), up_to(10));
  data::Dataset none;
  auto empty = none | data::shuffle(1) | data::batch(4);
  expect_one_invalid_batch(empty, Errc::invalid_size);
  auto taken = set | data::take(0) | data::batch(4);
  expect_one_invalid_batch(taken, Errc::invalid_size);
  data::Batches nothing;
  expect_one_invalid_batch(nothing, Errc::invalid_size);
  auto moved = set | data::batch(4);
  const data::Batches there = std::move(moved);
  expect_one_invalid_batch(moved, Errc::invalid_argument);
  EXPECT_OK(there.status());
}

TEST(Batches, NoticeThatTheDataIsGone) {
  std::optional<data::Dataset> set(numbered(10));
  auto batches = *set | data::shuffle(7) | data::batch(4);
  const auto examples = set->examples();
  auto i = batches.begin();
  EXPECT_OK(i->x.values<float>());
  set.reset();
  ++i;
  EXPECT_FAILS(batches.status(), Errc::stale_tensor);
  EXPECT_FALSE(i->x.values<float>());
  EXPECT_FALSE(i == batches.end());
  ++i;
  EXPECT_TRUE(i == batches.end());
  EXPECT_FAILS(examples.example(0), Errc::stale_tensor);
  EXPECT_FAILS((examples | data::batch(2)).status(), Errc::stale_tensor);
}

TEST(Batches, SurviveEveryFailingAllocation) {
  QORUS_NEEDS_ALLOCATION_COUNTER();
  const auto set = numbered(10);
  auto parts = data::split(set, 0.5, 3);
  ASSERT_OK(parts);
  for (std::uint64_t k = 0; k < 8; ++k) {
    Status status;
    int count = 0;
    {
      const qorus_test::FailingAllocations failing(k);
      auto batches = parts->train | data::shuffle(1) | data::take(4) | data::shuffle(7) | data::batch(2);
      for (auto const& [x, y] : batches) count += x.check("use") ? 10 : 1;
      status = batches.status();
    }
    if (status) {
      EXPECT_EQ(count, 20);
    } else {
      EXPECT_EQ(count, 1);
      EXPECT_EQ(status.error().code, Errc::out_of_memory);
    }
  }
}

TEST(Split, CutsWithoutCopying) {
  const auto set = numbered(100);
  auto parts = data::split(set, 0.8, 5);
  ASSERT_OK(parts);
  EXPECT_EQ(parts->train.size(), 80u);
  EXPECT_EQ(parts->test.size(), 20u);
  EXPECT_EQ(parts->train.classes(), 10);
  auto train = parts->train | data::shuffle(9) | data::batch(16);
  auto test = parts->test | data::batch(16);
  auto all = seen(train);
  EXPECT_NE(sorted(all), up_to(80));
  const auto rest = seen(test);
  all.insert(all.end(), rest.begin(), rest.end());
  EXPECT_EQ(sorted(all), up_to(100));
  EXPECT_GE(parts->train.example(0)->input.data(), set.inputs().data());
  auto again = data::split(set, 0.8, 5);
  auto other = data::split(set, 0.8, 6);
  ASSERT_TRUE(again && other);
  auto a = again->test | data::batch(20), b = other->test | data::batch(20);
  EXPECT_EQ(seen(a), rest);
  EXPECT_NE(seen(b), rest);
  auto thirds = data::split(parts->train, 0.5, 1);  // a part cut again
  ASSERT_OK(thirds);
  EXPECT_EQ(thirds->train.size(), 40u);
}

TEST(Split, RefusesEmptyParts) {
  const auto set = numbered(10);
  for (const double fraction : {0.0, 1.0, -0.5, 1.5, 0.01, 0.99, std::nan("")}) {
    EXPECT_FAILS(data::split(set, fraction, 1), Errc::invalid_argument) << fraction;
  }
  EXPECT_FAILS(data::split(data::Dataset{}, 0.5, 1), Errc::invalid_size);
}

TEST(KFold, TestsEveryExampleOnce) {
  const auto set = numbered(25, 3);
  for (const bool stratified : {false, true}) {
    const auto folds = stratified ? data::stratified_k_fold(set, 4, 9) : data::k_fold(set, 4, 9);
    ASSERT_OK(folds);
    ASSERT_EQ(folds->size(), 4u);
    std::vector<int> tested;
    for (std::size_t i = 0; i < 4; ++i) {
      auto test = (*folds)[i].test | data::batch(64), train = (*folds)[i].train | data::batch(64);
      auto in = seen(test, 3), out = seen(train, 3);
      for (int c = 0; c < 3 && stratified; ++c) {
        const auto of_class = std::count_if(in.begin(), in.end(), [&](int n) { return n % 3 == c; });
        EXPECT_TRUE(of_class == 2 || of_class == 3) << "fold " << i << " class " << c;
      }
      tested.insert(tested.end(), in.begin(), in.end());
      out.insert(out.end(), in.begin(), in.end());
      EXPECT_EQ(sorted(out), up_to(25));
    }
    EXPECT_EQ(sorted(tested), up_to(25));
    EXPECT_NE(tested, up_to(25));
  }
  EXPECT_FAILS(data::k_fold(set, 1, 0), Errc::invalid_argument);
  EXPECT_FAILS(data::k_fold(set, 26, 0), Errc::invalid_argument);
  EXPECT_FAILS(data::k_fold(data::Dataset(), 2, 0), Errc::invalid_size);
  const auto numbers = data::Dataset::create(Owned::zeros({4, 1}).value(), Owned::zeros({4, 1}).value());
  EXPECT_FAILS(data::stratified_k_fold(*numbers, 2, 0), Errc::invalid_dtype);
}

namespace {

// n images [channels, 8, 6] of bytes, each pixel another; scaled to [0, 1].
data::Dataset images(std::int64_t n, std::int64_t channels = 1) {
  auto x = Owned::zeros({n, channels, 8, 6}, DType::u8).value();
  const auto bytes = x.fill<std::uint8_t>();
  for (std::size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<std::uint8_t>(1 + i * 37 % 250);
  return data::Dataset::create(std::move(x), Owned::zeros({n}, DType::i32).value(), {.scale = 1 / 255.0f, .classes = 1})
      .value();
}
// All pixels of one epoch.
std::vector<float> pixels(data::Batches& batches) {
  std::vector<float> all;
  for (auto const& [x, y] : batches) {
    const auto values = x.to_vector().value();
    all.insert(all.end(), values.begin(), values.end());
  }
  EXPECT_OK(batches.status());
  return all;
}
std::vector<float> augmented(const data::Dataset& set, const data::Augment& options) {
  auto batches = set | data::augment(options) | data::batch(3);
  return pixels(batches);
}

}  // namespace

TEST(Augment, DoesWhatItSays) {
  const auto set = images(40, 2);
  const std::vector<float> plain = augmented(set, {});
  constexpr std::size_t k_size = 96;
  const auto at = [&](const std::vector<float>& all, std::size_t i, int c, int y, int x) {
    return y >= 0 && y < 8 && x >= 0 && x < 6 ? all[i * k_size + static_cast<std::size_t>(c * 48 + y * 6 + x)] : 0.0f;
  };
  // Every example is its plain self, changed by f(example, channel, y, x) for one of the candidates 0 … count.
  const auto expect_one_of = [&](const std::vector<float>& got, int count, const auto& f) {
    std::vector<int> used(static_cast<std::size_t>(count), 0);
    for (std::size_t i = 0; i < 40; ++i) {
      int found = -1;
      for (int k = 0; k < count && found < 0; ++k) {
        bool same = true;
        for (int p = 0; p < 96 && same; ++p)
          same = at(got, i, p / 48, p % 48 / 6, p % 6) == f(k, i, p / 48, p % 48 / 6, p % 6);
        if (same) found = k;
      }
      ASSERT_GE(found, 0) << "example " << i;
      ++used[static_cast<std::size_t>(found)];
    }
    EXPECT_GT(*std::min_element(used.begin(), used.end()), 0);
  };
  expect_one_of(augmented(set, {.flip = true}), 2,
                [&](int k, std::size_t i, int c, int y, int x) { return at(plain, i, c, y, k ? 5 - x : x); });
  expect_one_of(augmented(set, {.shift = 1}), 9, [&](int k, std::size_t i, int c, int y, int x) {
    return at(plain, i, c, y - k / 3 + 1, x - k % 3 + 1);
  });
  const auto turned = augmented(set, {.rotate = 30}), grey = augmented(set, {.contrast = 1});
  EXPECT_NE(turned, plain);
  for (const float value : turned) EXPECT_TRUE(value >= 0 && value <= 1) << value;
  const auto light = augmented(set, {.brightness = 0.25f});
  for (std::size_t i = 0; i < 40; ++i) {
    const float add = light[i * k_size] - plain[i * k_size];
    EXPECT_LE(std::abs(add), 0.2501f);
    double mean = 0, grey_mean = 0;
    for (std::size_t p = i * k_size; p < (i + 1) * k_size; ++p) {
      EXPECT_NEAR(light[p], plain[p] + add, 1e-6);
      mean += plain[p] / 96.0;
      grey_mean += grey[p] / 96.0;
    }
    EXPECT_NEAR(grey_mean, mean, 1e-5);
    const double gain = (grey[i * k_size] - mean) / (plain[i * k_size] - mean);
    EXPECT_NEAR(grey[i * k_size + 7], mean + gain * (plain[i * k_size + 7] - mean), 1e-4);
  }
  const auto noisy = augmented(set, {.noise = 0.1f});
  double square = 0;
  for (std::size_t p = 0; p < plain.size(); ++p) square += std::pow(noisy[p] - plain[p], 2.0);
  EXPECT_NEAR(std::sqrt(square / static_cast<double>(plain.size())), 0.1, 0.005);
  const auto holes = augmented(set, {.cutout = 3});
  for (std::size_t i = 0; i < 40; ++i) {
    int blank = 0;
    for (int p = 0; p < 96; ++p) blank += at(holes, i, p / 48, p % 48 / 6, p % 6) == 0;
    EXPECT_TRUE(blank >= 2 * 4 && blank <= 2 * 9) << blank;
  }
}

TEST(Augment, DependsOnSeedEpochAndExampleAlone) {
  const auto set = images(20);
  const data::Augment options{.flip = true, .shift = 2, .rotate = 10, .noise = 0.01f};
  auto small = set | data::augment(options) | data::batch(3), large = set | data::augment(options) | data::batch(20);
  const auto first = pixels(small), second = pixels(small);
  EXPECT_NE(first, second);
  EXPECT_EQ(pixels(large), first);
  EXPECT_EQ(pixels(large.epoch(1)), second);
  auto other = options;
  other.seed = 1;
  EXPECT_NE(augmented(set, other), first);
  const auto bad = [&](const data::Dataset& data, const data::Augment& o) {
    return (data | data::augment(o) | data::batch(4)).status();
  };
  EXPECT_FAILS(bad(numbered(9), options), Errc::invalid_size);
  EXPECT_FAILS(bad(set, {.noise = -1}), Errc::invalid_argument);
  EXPECT_FAILS(bad(set, {.shift = NAN}), Errc::invalid_argument);
  EXPECT_OK(bad(numbered(9), {}));
}

TEST(Prefetch, GivesTheSameBatches) {
  const auto set = images(50);
  const data::Augment options{.flip = true, .shift = 1};
  for (const std::size_t ahead : {1u, 2u, 7u}) {
    for (const bool drop_last : {false, true}) {
      const auto make = [&] {
        return set | data::shuffle(3) | data::augment(options) | data::batch(8, {.drop_last = drop_last});
      };
      auto plain = make(), fetched = make() | data::prefetch(ahead);
      for (int epoch = 0; epoch < 3; ++epoch) EXPECT_EQ(pixels(fetched), pixels(plain)) << ahead;
      for (data::Batches* batches : {&plain, &fetched}) {  // left half-way; then from a place of its own
        int count = 0;
        for (auto const& batch : *batches) {
          static_cast<void>(batch);
          if (++count == 3) break;
        }
      }
      EXPECT_EQ(fetched.position(), plain.position());
      const auto place = plain.position();
      EXPECT_OK(plain.seek(place));
      EXPECT_OK(fetched.seek(place));
      auto moved = std::move(fetched);
      EXPECT_EQ(pixels(moved), pixels(plain));
    }
  }
  auto many = set | data::batch(8) | data::prefetch(5000);
  expect_one_invalid_batch(many, Errc::invalid_argument);
  Tensor kept;
  auto batches = set | data::batch(25) | data::prefetch(1);
  for (auto const& [x, y] : batches) {
    if (kept.shape().valid() && kept.numel()) EXPECT_FALSE(kept.check("use"));  // stale since the next was made
    kept = x;
  }
}

TEST(Prefetch, AllocatesNothingPerBatch) {
  QORUS_NEEDS_ALLOCATION_COUNTER();
  const auto set = images(64);
  auto batches = set | data::shuffle(1) | data::augment({.rotate = 5}) | data::batch(4) | data::prefetch(3);
  pixels(batches);
  const auto before = qorus_test::allocations();
  std::size_t count = 0;
  for (int epoch = 0; epoch < 3; ++epoch) {
    for (auto const& [x, y] : batches) count += static_cast<std::size_t>(x.dim(0));
  }
  EXPECT_EQ(qorus_test::allocations() - before, 0u);
  EXPECT_EQ(count, 192u);
}

TEST(Pipelines, SurviveEveryFailingAllocation) {
  QORUS_NEEDS_ALLOCATION_COUNTER();
  const auto set = images(12);
  const auto lines = std::string("{\"a\": 1, \"b\": \"x\"}\n{\"b\": \"y\", \"c\": \"2001-02-03\"}\n");
  for (std::uint64_t k = 0; k < 80; ++k) {
    Status batched, folded, parsed;
    int count = 0;
    {
      const qorus_test::FailingAllocations failing(k);
      auto batches = set | data::shuffle(1) | data::augment({.flip = true}) | data::batch(4) | data::prefetch(2);
      for (auto const& [x, y] : batches) count += x.check("use") ? 10 : 1;
      batched = batches.status();
    }
    {
      const qorus_test::FailingAllocations failing(k);
      auto folds = data::k_fold(set, 3, 7);
      if (!folds) folded = fail(folds.error());
    }
    {
      const qorus_test::FailingAllocations failing(k);
      auto table = data::Table::parse_json_lines(lines);
      if (!table) parsed = fail(table.error());
    }
    EXPECT_EQ(count, batched ? 30 : 1) << k;
    for (const Status* status : {&batched, &folded, &parsed}) {
      if (!*status) EXPECT_EQ(status->error().code, Errc::out_of_memory) << k;
    }
    if (k == 79) EXPECT_TRUE(batched && folded && parsed);
    if (k == 0) EXPECT_FALSE(batched || folded || parsed);
  }
}
