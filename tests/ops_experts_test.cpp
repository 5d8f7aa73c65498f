// Mixtures of experts: the routing, products by expert, a penalty from inside.
#include <algorithm>
#include <cmath>
#include <cstdint>
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

std::vector<std::int32_t> whole_of(const Tensor& t) { return {t.i32(), t.i32() + t.numel()}; }

}  // namespace

TEST(Experts, RoutesSortsAndDrops) {
  Workspace& ws = workspace(1);
  auto frame = ws.frame();
  const auto scores = Owned::from<float>({0.1f, 0.7f, 0.2f, 0.5f, 0.5f, 0.0f, 0.1f, 0.2f, 0.7f}, {3, 3});
  const auto x = frame.input(*scores);
  auto all = ops::route(x, {.top_k = 2});
  ASSERT_OK(all);
  EXPECT_EQ(whole_of(all->choice), (std::vector<std::int32_t>{1, 2, 0, 1, 2, 1}));
  EXPECT_EQ(whole_of(all->token), (std::vector<std::int32_t>{1, 0, 1, 2, 0, 2}));
  EXPECT_EQ(whole_of(all->place), (std::vector<std::int32_t>{1, 4, 0, 2, 5, 3}));
  EXPECT_EQ(whole_of(all->ends), (std::vector<std::int32_t>{1, 4, 6}));
  EXPECT_EQ(*all->load.to_vector(), (std::vector<float>{1 / 6.0f, 3 / 6.0f, 2 / 6.0f}));
  auto few = ops::route(x, {.top_k = 2, .capacity = 1});  // two rows each: the third choice of expert 1 is dropped
  ASSERT_OK(few);
  EXPECT_EQ(whole_of(few->ends), (std::vector<std::int32_t>{1, 3, 5}));
  EXPECT_EQ(whole_of(few->place), (std::vector<std::int32_t>{1, 3, 0, 2, 4, 5}));
  EXPECT_EQ(*few->kept.to_vector(), (std::vector<float>{1, 1, 1, 1, 1, 0}));
  EXPECT_EQ(*few->load.to_vector(), *all->load.to_vector());
  const auto nan = Owned::from<float>({NAN, NAN, 1.0f}, {1, 3});
  EXPECT_EQ(whole_of(ops::route(frame.input(*nan), {.top_k = 3})->choice), (std::vector<std::int32_t>{2, 0, 1}));
  EXPECT_FAILS(ops::route(x, {.top_k = 4}), Errc::invalid_argument);
  EXPECT_FAILS(ops::route(x, {.top_k = 1, .capacity = -1}), Errc::invalid_argument);
  const auto wrong = Owned::from<std::int32_t>({3, 2, 3}, {3});
  EXPECT_FAILS(ops::expert_linear(x, x, frame.input(*wrong)), Errc::invalid_argument);
}

TEST(Experts, EachRowHasItsExpertsWeight) {
  for (const auto& ends : {std::vector<double>{2, 2, 5}, {0, 0, 0}, {1, 4, 6}}) {
    EXPECT_EQ("", check({"expert_linear",
                         {{{6, 3}}, {{6, 3}}, {.dims = {3}, .dtype = DType::i32, .values = ends}},
                         [](Tensors t) { return ops::expert_linear(t[0], t[1], ops::contiguous(t[2])); },
                         [](const Arrays& in) {
                           return build({6, 2}, [&](const Extents& i) {
                             double sum = 0;
                             std::int64_t expert = 0;
                             while (expert < 3 && static_cast<double>(i[0]) >= in[2].at({expert})) ++expert;
                             for (std::int64_t d = 0; d < 3 && expert < 3; ++d)
                               sum += in[0].at({i[0], d}) * in[1].at({expert * 2 + i[1], d});
                             return sum;
                           });
                         },
                         true,
                         true}));
  }
}

TEST(Experts, APenaltyJoinsTheLoss) {
  Workspace ws{{.scratch = 1_MiB, .threads = 1}};
  const auto a = Owned::from<float>({1, 2, 3}, {3});
  auto tape = ws.record();
  auto x = tape.watch(*a);
  auto y = ops::with_penalty(x * 2.0f, ops::sum(ops::square(x)) * 0.5f);
  EXPECT_EQ(*y->to_vector(), (std::vector<float>{2, 4, 6}));
  auto g = ops::sum(y).and_then(backward);
  ASSERT_OK(g);
  EXPECT_EQ(*g->of(*x)->to_vector(), (std::vector<float>{3, 4, 5}));
  EXPECT_FAILS(ops::with_penalty(x, x), Errc::invalid_size);
}
