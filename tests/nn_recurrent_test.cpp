// Recurrent layers: PyTorch's names, stacks and directions against the single operation, lengths, state, steps.
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "tests/allocation_counter.h"
#include "tests/nn_testing.h"

import qorus.nn;

#include "tests/nn_running.h"

using namespace qorus;
using namespace qorus_test;

TEST(Recurrent, NamesAndShapesAreThoseOfPyTorch) {
  auto model = nn::build(nn::named("lstm", nn::lstm(5, {.layers = 2, .bidirectional = true})) | nn::linear(3), {7, 4});
  ASSERT_OK(model);
  std::vector<std::string> names;
  for (const auto& p : model->parameters()) names.emplace_back(p.name.c_str());
  EXPECT_EQ(names.size(), 18u);
  EXPECT_EQ(names[0], "lstm.weight_ih_l0");
  EXPECT_EQ(names[7], "lstm.bias_hh_l0_reverse");
  EXPECT_EQ(names[15], "lstm.bias_hh_l1_reverse");
  EXPECT_EQ(model->parameter("lstm.weight_ih_l1_reverse")->shape(), (Shape{20, 10}));
  EXPECT_EQ(model->parameter("1.weight")->shape(), (Shape{3, 10}));
  auto plain = nn::build(nn::gru(5, {.bias = false}), {7, 4});
  ASSERT_OK(plain);
  EXPECT_EQ(plain->parameters().size(), 2u);
  EXPECT_FAILS(nn::build(nn::rnn(5, {.layers = 0}), {7, 4}), Errc::invalid_argument);
  EXPECT_FAILS(nn::build(nn::rnn(5), {7}), Errc::invalid_size);
}

TEST(Recurrent, BothDirectionsOfAStackAreTheOperationTwice) {
  auto model = nn::build(nn::lstm(3, {.layers = 2, .bidirectional = true}), {5, 4}, init::xavier(3));
  ASSERT_OK(model);
  const auto values = waves(2 * 5 * 4);
  Workspace ws{{.scratch = 16_MiB, .threads = 1}};
  auto frame = ws.frame();
  const auto lengths = Owned::from<std::int32_t>({5, 3}, {2});
  auto x = frame.input(view(values, {2, 5, 4}));
  auto got = model->layers().run(*x, {.lengths = frame.input(*lengths)});
  ASSERT_OK(got);
  const auto part = [&](const Result<Tensor>& in, const std::string& suffix, bool reverse) {
    const auto p = [&](const char* name) { return model->parameter(name + suffix); };
    return *ops::recurrent(ops::Cell::lstm, in, {p("weight_ih_l"), p("weight_hh_l"), p("bias_ih_l"), p("bias_hh_l")},
                           {.lengths = frame.input(*lengths), .reverse = reverse});
  };
  auto a = part(ops::transpose(x, 0, 1), "0", false), b = part(ops::transpose(x, 0, 1), "0_reverse", true);
  auto middle = ops::concat({a.y, b.y}, 2);
  auto c = part(middle, "1", false), d = part(middle, "1_reverse", true);
  EXPECT_EQ(*got->y.to_vector(), *ops::transpose(ops::concat({c.y, d.y}, 2), 0, 1)->to_vector());
  EXPECT_EQ(*got->h.to_vector(), *ops::stack({a.h, b.h, c.h, d.h}, 0)->to_vector());
  EXPECT_EQ(*got->c.to_vector(), *ops::stack({a.c, b.c, c.c, d.c}, 0)->to_vector());
}

TEST(Recurrent, StepsGiveWhatTheWholeSequenceGives) {
  const auto check = [](const auto& layer) {
    auto model = nn::build(layer, {6, 4}, init::xavier(3));
    ASSERT_OK(model);
    ASSERT_OK(model->pack());
    const auto values = waves(6 * 4);
    Workspace ws{{.scratch = 16_MiB, .threads = 1}};
    std::vector<float> whole, last;
    {
      auto frame = ws.frame();
      auto all = model->layers().run(*frame.input(view(values, {1, 6, 4})));
      ASSERT_OK(all);
      whole = *all->y.to_vector();
      last = *all->h.to_vector();
    }
    auto state = model->layers().state(1);
    ASSERT_OK(state);
    std::uint64_t allocations = 0;
    for (std::size_t t = 0; t < 6; ++t) {
      const std::uint64_t before = qorus_test::allocations();
      auto frame = ws.frame();
      auto y = model->layers().step(
          *frame.input(view(values, {6, 4}).seen_as({Shape{1, 4}, {4, 1}, static_cast<std::int64_t>(4 * t)})), *state);
      if (t > 0) allocations += qorus_test::allocations() - before;
      ASSERT_OK(y);
      for (std::size_t j = 0; j < 5; ++j) EXPECT_NEAR(y->f32()[j], whole[t * 5 + j], 1e-6);
    }
    for (std::size_t j = 0; j < last.size(); ++j) EXPECT_NEAR(state->h.tensor().f32()[j], last[j], 1e-6);
    if (qorus_test::k_counts_allocations) EXPECT_EQ(allocations, 0u);
    auto frame = ws.frame();
    EXPECT_FAILS(model->layers().step(*frame.input(view(values, {6, 4})), *state), Errc::invalid_size);
  };
  check(nn::lstm(5, {.layers = 2}));
  check(nn::gru(5, {.layers = 2}));
  check(nn::rnn(5));
}

TEST(Recurrent, AWarmTrainingStepAllocatesNothing) {
  auto model = nn::build(
      nn::gru(8, {.layers = 2, .bidirectional = true, .dropout = 0.1f}) | nn::last_step() | nn::linear(2), {9, 3});
  ASSERT_OK(model);
  const auto values = waves(20 * 9 * 3);
  Workspace ws{{.scratch = 64_MiB, .threads = 2}};
  std::uint64_t allocations = 0;
  for (int i = 0; i < 3; ++i) {
    const std::uint64_t before = qorus_test::allocations();
    auto tape = ws.record();
    auto done = ops::sum(tape.input(view(values, {20, 9, 3})) | *model).and_then(backward);
    ASSERT_OK(done);
    if (i > 0) allocations += qorus_test::allocations() - before;
  }
  if (qorus_test::k_counts_allocations) EXPECT_EQ(allocations, 0u);
}
