// The values of what is seldom asked for: positions, sizes at the edge, activations after the pass, slopes at zero, penalties, blocks in bf16, given gradients.
#include <cmath>
#include <cstddef>
#include <cstdint>
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

using C = Context&;
using R = Result<Tensor>;

// Padding before and after each axis.
Pads pads(const PerAxis& before, const PerAxis& after) { return {before, after}; }
// An error of its own: what it says comes out.
Result<Tensor> broken() { return fail(Errc::diverged, "operand", "broken"); }

std::vector<float> values(const R& x) {
  EXPECT_OK(x);
  return x ? x->to_vector().value() : std::vector<float>{};
}

TEST(Seldom, PositionsAndSlopes) {
  auto frame = workspace(1).frame();
  C c = frame.context();
  const auto numbers = ops::counting(c, 3, 5);
  ASSERT_OK(numbers);
  EXPECT_EQ(numbers->to_vector<std::int32_t>().value(), (std::vector<std::int32_t>{5, 6, 7}));
  const auto slopes = values(ops::alibi_slopes(c, 3));  // those of two, then the first of four
  const float wanted[] = {std::exp2(-4.0f), std::exp2(-8.0f), std::exp2(-2.0f)};
  ASSERT_EQ(slopes.size(), 3u);
  for (std::size_t i = 0; i < 3; ++i) EXPECT_FLOAT_EQ(slopes[i], wanted[i]);
  // Nothing at all is a size like any other.
  EXPECT_EQ(ops::avg_pool(make(c, {1, 1, 0}), 1, {.padding = Pads::same()}).value().shape(), (Shape{1, 1, 0}));
  EXPECT_EQ(ops::max_pool(make(c, {1, 1, 0}), 1, {.padding = Pads::same()}).value().shape(), (Shape{1, 1, 0}));
  EXPECT_EQ(ops::rope(make(c, {2, 0}), make(c, {2, 0}), make(c, {2, 0})).value().shape(), (Shape{2, 0}));
  // A batch of none has no statistics to go by, and changes none.
  const Owned empty = Owned::zeros({0, 3, 2}).value(), three = random_owned({3}, 1, 0.5f, 2);
  {
    auto tape = workspace(2).record();
    const auto v = tape.input(three), y = ops::batch_norm(tape.watch(empty), v, v, v, v);
    ASSERT_OK(y);
    EXPECT_EQ(y->shape(), (Shape{0, 3, 2}));
    const auto gradients = ops::sum(y).and_then(backward);
    ASSERT_OK(gradients);
    EXPECT_EQ(gradients->state_updates(), nullptr);
  }
  const auto route = ops::route(make(c, {2, 3}), {.capacity = 9});  // room for all
  ASSERT_OK(route);
  EXPECT_EQ(route->kept.to_vector().value(), std::vector<float>(4, 1));
}

TEST(Seldom, SizesAtTheEdge) {
  auto frame = workspace(1).frame();
  C c = frame.context();
  const Owned pixels = random_owned({1, 2, 4, 3});
  const auto x = frame.input(pixels);
  EXPECT_EQ(values(ops::resize(x, {1, 3}, {.mode = ops::ResizeMode::linear, .align_corners = true})),
            values(ops::slice(x, 2, 0, 1)));
  // A window of one place beyond the edge sees zeros, before and after.
  const Owned w = random_owned({5, 2, 1, 1});
  const auto weight = frame.input(w), plain = ops::conv(x, weight);
  EXPECT_EQ(values(ops::conv(x, weight, {.padding = pads(0, {0, 1})})), values(ops::pad(plain, {{3, 0, 1}})));
  EXPECT_EQ(values(ops::conv(x, weight, {.padding = pads({1, 0}, 0)})), values(ops::pad(plain, {{2, 1, 0}})));
  // What is odd goes to the other end.
  const Owned taps = random_owned({2, 3, 2, 2});
  const auto more = frame.input(taps), all = ops::conv_transpose(x, more);
  EXPECT_EQ(values(ops::conv_transpose(x, more, {.padding = Pads::same()})),
            values(ops::slice(ops::slice(all, 2, 0, 4), 3, 0, 3)));
  EXPECT_EQ(values(ops::conv_transpose(x, more, {.padding = Pads::same_lower()})),
            values(ops::slice(ops::slice(all, 2, 1, 5), 3, 1, 4)));
  // Reductions so large that they are cut.
  const auto big = make(c, {140000}, DType::f32, -2), wide = make(c, {1, 140000}, DType::f32, 3);
  EXPECT_EQ(values(ops::sum_abs(big)), std::vector<float>{280000});
  EXPECT_EQ(values(ops::sum_square(big)), std::vector<float>{560000});
  EXPECT_EQ(values(ops::sum(wide, 0)), std::vector<float>(140000, 3));
}

// An activation that is not in the pass follows it.
TEST(Seldom, ActivationsAfterConvolutionsAndNorms) {
  auto frame = workspace(1).frame();
  const Owned x = random_owned({2, 4, 5}), w = random_owned({4, 4, 2}, 2), v = random_owned({4}, 3, 0.5f, 2);
  const auto in = frame.input(x), taps = frame.input(w), vector = frame.input(v);
  const auto follow = [](Activation a, const R& y) {
    switch (a) {
      case Activation::relu: return ops::relu(y);
      case Activation::gelu: return ops::gelu(y);
      case Activation::gelu_tanh: return ops::gelu_tanh(y);
      case Activation::silu: return ops::silu(y);
      case Activation::sigmoid: return ops::sigmoid(y);
      case Activation::tanh: return ops::tanh(y);
      case Activation::none: break;
    }
    return y;
  };
  for (int i = 0; i <= static_cast<int>(Activation::tanh); ++i) {
    SCOPED_TRACE(i);
    const auto a = static_cast<Activation>(i);
    EXPECT_EQ(values(ops::conv(in, taps, {.activation = a})), values(follow(a, ops::conv(in, taps))));
    EXPECT_EQ(values(ops::group_norm(in, vector, vector, {.groups = 2, .activation = a})),
              values(follow(a, ops::group_norm(in, vector, vector, {.groups = 2}))));
    EXPECT_EQ(values(ops::batch_norm(in, vector, vector, vector, vector, {.activation = a})),
              values(follow(a, ops::batch_norm(in, vector, vector, vector, vector))));
  }
}

// x^e at and around 0: 0 where the slope has no limit but the loss has one.
TEST(Seldom, SlopesOfPowersOfZero) {
  const std::vector<float> base = {0, 2, 0, 0}, exponent = {2, 0, -1, 0};
  auto tape = workspace(1).record();
  const auto a = tape.watch(Tensor::borrow(std::span<const float>(base), {4})),
             b = tape.watch(Tensor::borrow(std::span<const float>(exponent), {4}));
  const auto g = ops::sum(ops::pow(a, b)).and_then(backward);
  ASSERT_OK(g);
  const float infinite = std::numeric_limits<float>::infinity();
  EXPECT_EQ(values(g->of(*a)), (std::vector<float>{0, 0, -infinite, 0}));
  EXPECT_EQ(values(g->of(*b)), (std::vector<float>{0, std::log(2.0f), -infinite, 0}));
}

// A penalty counts as often as it is added; not at all where nothing is recorded.
TEST(Seldom, PenaltiesAddUp) {
  const Owned x = random_owned({3}), p = random_owned({});
  {
    auto frame = workspace(1).frame();
    auto in = frame.input(x);
    EXPECT_EQ(ops::with_penalty(in, frame.input(p)).value().data(), in->data());
  }
  auto tape = workspace(1).record();
  auto in = tape.watch(x), penalty = tape.watch(p);
  auto twice = ops::with_penalty(ops::with_penalty(in, penalty), penalty);
  auto g = ops::sum(twice).and_then(backward);
  ASSERT_OK(g);
  EXPECT_EQ(values(g->of(*penalty)), std::vector<float>{2});
  EXPECT_EQ(values(g->of(*in)), std::vector<float>(3, 1));
}

// What a tape that keeps blocks in bf16 makes of blocks of all kinds: forward the same to the bit, gradients within bf16's precision.
TEST(Seldom, BlocksKeptInBf16) {
  struct Block {
    const char* what;
    R (*run)(const Tensor& x);
  };
  static constexpr Block blocks[] = {
      {"itself", [](const Tensor& x) -> R { return x; }},
      {"a view", [](const Tensor& x) -> R { return ops::transpose(x); }},
      {"a result that is turned", [](const Tensor& x) -> R { return ops::transpose(ops::exp(x)); }},
      {"the first part of a result", [](const Tensor& x) -> R { return ops::slice(ops::exp(ops::sin(x)), 0, 0, 30); }},
      {"a part of a result", [](const Tensor& x) -> R { return ops::slice(ops::exp(ops::sin(x)), 0, 1, 30); }},
      {"largest elements", [](const Tensor& x) -> R { return ops::mul(ops::exp(x), ops::max(ops::exp(x), 1, true)); }},
      {"no gradient", [](const Tensor& x) -> R { return ops::exp(ops::detach(x)); }},
      {"a frame within",
       [](const Tensor& x) -> R {
         {
           const Scope inner(*x.context());
           if (auto y = ops::exp(x); !y) return y;
         }
         return ops::sin(ops::exp(x));
       }},
      {"a block within",
       [](const Tensor& x) -> R { return ops::sin(in_own_frame(x, [](const Tensor& t) { return ops::exp(t); })); }},
  };
  const Owned x = random_owned({40, 40});
  for (const Block& block : blocks) {
    SCOPED_TRACE(block.what);
    const auto run = [&](Workspace& ws) {
      auto tape = ws.record();
      const auto in = tape.watch(x);
      auto y = in_own_frame(ops::mul(in, 0.5f).value(), block.run);
      EXPECT_OK(y);
      auto all = values(y);
      const auto g =
          ops::sum(ops::square(ops::reshape(ops::slice(y, 0, 0, 20), {-1})) + 0.0f * ops::sum(in)).and_then(backward);
      EXPECT_OK(g);
      if (!g) return all;
      const auto slopes = values(g->of(*in));
      all.insert(all.end(), slopes.begin(), slopes.end());
      return all;
    };
    Workspace kept{{.scratch = 4_MiB, .threads = 1, .bf16 = true}}, exact{{.scratch = 4_MiB, .threads = 1}};
    const auto got = run(kept), wanted = run(exact);
    ASSERT_EQ(got.size(), wanted.size());
    for (std::size_t i = 0; i + 1600 < got.size(); ++i) ASSERT_EQ(got[i], wanted[i]);
    for (std::size_t i = 0; i < got.size(); ++i) ASSERT_NEAR(got[i], wanted[i], 0.02 * (1 + std::fabs(wanted[i]))) << i;
  }
  Workspace ws{{.scratch = 1_MiB, .threads = 1, .bf16 = true}};
  {
    // What was made outside of a frame of its own is not of it.
    auto frame = ws.frame();
    const auto outside = ops::exp(frame.input(x));
    const auto same = in_own_frame(*outside, [&](const Tensor&) { return outside; });
    ASSERT_OK(same);
    EXPECT_EQ(same->data(), outside->data());
  }
  auto tape = ws.record();
  const auto in = tape.watch(x);
  EXPECT_FAILS(in_own_frame(*in, [](const Tensor&) { return broken(); }), Errc::diverged);
  EXPECT_FAILS(in_own_frame(Tensor(), [](const Tensor& t) { return ops::exp(t); }), Errc::invalid_size);
  EXPECT_FAILS(in_own_frame(x.tensor(), [](const Tensor& t) { return ops::exp(t); }), Errc::no_workspace);
}

// The same with less room than they need, in either arena.
TEST(Seldom, BlocksWithoutRoom) {
  const Owned x = random_owned({20, 20});
  const auto run = [&](Workspace& ws) -> Status {
    auto tape = ws.record();
    const auto in = tape.watch(x);
    if (!in) return fail(in.error());
    auto y = in_own_frame(*in, [](const Tensor& t) { return ops::transpose(ops::exp(ops::exp(t))); });
    auto g = ops::sum(y).and_then(backward);
    if (!g) return fail(g.error());
    return {};
  };
  bool passed = false, failed = false;
  for (std::size_t room = 4096; room < 65536; room += 1024) {
    Workspace ws{{.scratch = room, .threads = 1, .bf16 = true}};
    const Status done = run(ws);
    if (!done) EXPECT_TRUE(done.error().code == Errc::out_of_memory || done.error().code == Errc::invalid_argument);
    (done ? passed : failed) = true;
  }
  EXPECT_TRUE(passed && failed);
  auto small = Arena::create(4096);  // for the blocks alone
  ASSERT_OK(small);
  Workspace tight{{.scratch = 1_MiB, .threads = 1, .bf16 = true}};
  tight.context().blocks = &*small;
  EXPECT_FAILS(run(tight), Errc::out_of_memory);
}

// A gradient that is given is only read, so that what would write over it takes memory: or says that there is none.
TEST(Seldom, BackwardFromWithoutRoom) {
  struct Entry {
    const char* what;
    Result<Tensor> (*run)(const Tensor& x);
  };
  static constexpr Entry all[] = {
      {"linear", [](const Tensor& x) { return ops::linear(x, x, Activation::relu); }},
      {"conv",
       [](const Tensor& x) {
         return ops::conv(ops::reshape(x, {1, 8, 8}), ops::reshape(x, {8, 8, 1}), {.activation = Activation::relu});
       }},
      {"dropout", [](const Tensor& x) { return ops::dropout(x, 0.5f); }},
      {"cumsum", [](const Tensor& x) { return ops::cumsum(x); }},
      {"exp", [](const Tensor& x) { return ops::exp(x); }},
      {"leaky_relu", [](const Tensor& x) { return ops::leaky_relu(x, 0.1f); }},
      {"elu", [](const Tensor& x) { return ops::elu(x, 2); }},
      {"clamp", [](const Tensor& x) { return ops::clamp(x, -1, 1); }},
      {"softmax", [](const Tensor& x) { return ops::softmax(x); }},
      {"cross_entropy",
       [](const Tensor& x) {
         return ops::cross_entropy(x, whole(*x.context(), {8}, 1), {.reduce = ops::Reduce::none});
       }},
      {"rope", [](const Tensor& x) { return ops::rope(x, make(*x.context(), {8, 4}), make(*x.context(), {8, 4})); }},
      {"penalty", [](const Tensor& x) { return ops::with_penalty(ops::detach(x), ops::sum(x)); }},
      {"itself", [](const Tensor& x) { return Result<Tensor>(x); }},
  };
  const Owned a = random_owned({8, 8}), given = random_owned({64});
  Workspace plan = planning_workspace(1), ws{{.scratch = 1_MiB, .threads = 1}};
  for (const Entry& e : all) {
    SCOPED_TRACE(e.what);
    const auto step = [&](Workspace& on) -> Status {
      auto tape = on.record();
      const auto x = tape.watch(a);
      if (!x) return fail(x.error());
      const auto y = e.run(*x);
      if (!y) return fail(y.error());
      const Shape shape = y->shape();
      const auto g =
          backward_from(*y, Tensor(given.tensor().data(), DType::f32, Layout::dense(shape), given.tensor().lifetime()));
      if (!g) return fail(g.error());
      const auto slopes = g->of(*x);
      return slopes ? Status() : fail(slopes.error());
    };
    plan = planning_workspace(1);
    ASSERT_OK(step(plan));
    const std::size_t wanted = plan.counters().high_water;
    for (std::size_t room = 0; room < wanted; room += 64) {
      ASSERT_OK(ws.context().scratch->take(1_MiB - room));
      const Status done = step(ws);
      ws.context().scratch->shrink_to(0);
      ASSERT_FALSE(done) << room << " of " << wanted;
      const std::string text = done.error().message().c_str();
      EXPECT_TRUE(text.find("out of memory") != text.npos || text.find("too small") != text.npos) << text;
    }
    EXPECT_OK(step(ws));
  }
}

}  // namespace
