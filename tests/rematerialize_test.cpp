// What a tape does not keep: results that it makes again (rematerialize), and transient ones (with_transients).
#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "tests/testing.h"

import qorus.ops;

using namespace qorus;

namespace {

constexpr std::int64_t k_rows = 40, k_cols = 48;
constexpr std::size_t k_bytes = k_rows * k_cols * sizeof(float);
constexpr std::size_t k_nodes = k_bytes / 2;  // nodes that say what was given up take less than so many bytes here

std::vector<float> waves(std::size_t n, float phase) {
  std::vector<float> values(n);
  for (std::size_t i = 0; i < n; ++i) values[i] = std::sin(0.37f * static_cast<float>(i) + phase);
  return values;
}

const std::vector<float>& numbers(int i) {
  static const std::vector<float> all[] = {waves(k_rows * k_cols, 0.1f), waves(k_cols * k_cols, 0.2f),
                                           waves(k_cols, 0.3f), waves(k_cols, 0.4f), waves(k_rows * k_cols, 0.5f)};
  return all[i];
}

// What a computation gets: x, a matrix, two vectors, and another x; all watched.
struct Inputs {
  Result<Tensor> x, weight, gain, shift, other;
};
using Compute = std::function<Result<Tensor>(const Inputs&)>;

struct Outcome {
  std::vector<float> values;  // of the result and of all gradients
  std::size_t bytes = 0;
  Error error;
};

Outcome run(const Compute& compute, int threads = 1, std::size_t scratch = 16_MiB) {
  Outcome outcome;
  Workspace ws{{.scratch = scratch, .threads = threads}};
  auto tape = ws.record();
  const auto watch = [&](int i, const Shape& shape) {
    return tape.watch(Tensor::borrow(std::span<const float>(numbers(i)), shape));
  };
  const Inputs in{watch(0, {k_rows, k_cols}), watch(1, {k_cols, k_cols}), watch(2, {k_cols}), watch(3, {k_cols}),
                  watch(4, {k_rows, k_cols})};
  auto y = in.other ? compute(in) : in.other;
  auto gradients = ops::sum(ops::square(y)).and_then(backward);
  outcome.bytes = ws.counters().high_water;
  if (!gradients) {
    outcome.error = gradients.error();
    return outcome;
  }
  outcome.values = y->to_vector().value();
  for (const Result<Tensor>* input : {&in.x, &in.weight, &in.gain, &in.shift, &in.other}) {
    const auto slope = gradients->of(**input)->to_vector().value();
    outcome.values.insert(outcome.values.end(), slope.begin(), slope.end());
  }
  return outcome;
}

// The same bits with any number of threads, in so many bytes less.
void expect_leaner(const Compute& plain, const Compute& lean, std::size_t less) {
  const Outcome wanted = run(plain);
  ASSERT_EQ(wanted.error.code, Errc::ok) << wanted.error.message().c_str();
  for (const int threads : {1, 2, 3}) {
    const Outcome got = run(lean, threads);
    ASSERT_EQ(got.error.code, Errc::ok) << got.error.message().c_str();
    EXPECT_EQ(got.values, wanted.values);
    if (threads == 1) EXPECT_LE(got.bytes + less, wanted.bytes + (less > 0 ? k_nodes : 0));
  }
}

// y = use(make(x)) and again of that, three times over.
template <class Make, class Use>
Compute three_times(bool lean, Make make, Use use) {
  return [=](const Inputs& in) {
    Result<Tensor> y = *in.x;
    for (int i = 0; i < 3 && y; ++i) {
      const auto made = [&](const Tensor& t) { return make(in, t); };
      const auto used = [&](const Tensor& t) { return use(in, t); };
      y = lean ? rematerialize(*y, made, used) : made(*y).and_then(used);
    }
    return y;
  };
}

Result<Tensor> layer_normed(const Inputs& in, const Tensor& t) { return ops::layer_norm(t, in.gain, in.shift); }
Result<Tensor> plain_normed(const Inputs& in, const Tensor& t) { return ops::layer_norm(t, in.gain); }
Result<Tensor> rms_normed(const Inputs& in, const Tensor& t) { return ops::rms_norm(t, in.gain); }
Result<Tensor> gated(const Inputs& in, const Tensor& t) { return ops::gated(t, in.other, Activation::silu); }
Result<Tensor> multiplied(const Inputs& in, const Tensor& t) { return ops::linear(t, in.weight); }

TEST(Rematerialize, GivesTheSameBitsInLessMemory) {
  for (const auto make : {layer_normed, plain_normed, rms_normed, gated})
    expect_leaner(three_times(false, make, multiplied), three_times(true, make, multiplied), 2 * k_bytes);
}

TEST(Rematerialize, Nests) {
  const auto inner = [](bool lean) {
    return [lean](const Inputs& in, const Tensor& t) -> Result<Tensor> {
      const auto make = [&](const Tensor& h) { return layer_normed(in, h); };
      const auto use = [&](const Tensor& h) { return multiplied(in, h); };
      // Read before, in and after the inner span.
      auto before = multiplied(in, t);
      auto y = lean ? rematerialize(t, make, use) : make(t).and_then(use);
      return before * y + t;
    };
  };
  expect_leaner(three_times(false, rms_normed, inner(false)), three_times(true, rms_normed, inner(true)), 4 * k_bytes);
}

// A span inside what makes the result of another.
TEST(Rematerialize, IsThereForTheNextResultOnceASpanHasEnded) {
  const auto make = [](bool lean) {
    return [lean](const Inputs& in, const Tensor& t) {
      const auto norm = [&](const Tensor& h) { return layer_normed(in, h); };
      const auto use = [&](const Tensor& h) { return multiplied(in, h); };
      auto inner = lean ? rematerialize(t, norm, use) : norm(t).and_then(use);
      return inner.and_then([&](const Tensor& h) { return rms_normed(in, h); });
    };
  };
  expect_leaner(three_times(false, make(false), multiplied), three_times(true, make(true), multiplied), 4 * k_bytes);
}

// Two attentions of many queries to few keys, [1, heads, queries, dim] each, and of each result a product.
Outcome attended(Workspace ws, bool lean, bool planned) {
  constexpr std::int64_t k_heads = 4, k_queries = 4096, k_dim = 64, k_keys = 5;
  const auto queries = waves(k_heads * k_queries * k_dim, 0.6f), keys = waves(2 * k_heads * k_keys * k_dim, 0.7f),
             matrix = waves(3 * k_heads * k_dim, 0.8f);
  auto tape = ws.record();
  const auto watch = [&](const std::vector<float>& values, const Shape& shape) {
    return tape.watch(Tensor::borrow(std::span<const float>(values), shape));
  };
  const Result<Tensor> inputs[] = {watch(queries, {1, k_heads, k_queries, k_dim}),
                                   watch(keys, {2, k_heads, k_keys, k_dim}), watch(matrix, {3, k_heads * k_dim})};
  const auto attend = [&](int i) {
    const auto make = [&, i](const Tensor& q) {
      const auto own = ops::slice(inputs[1], 0, i, i + 1);
      return ops::attention(q, own, own, {.joined = true});
    };
    const auto use = [&](const Tensor& t) { return ops::linear(t, inputs[2]); };
    return lean ? rematerialize(*inputs[0], make, use) : make(*inputs[0]).and_then(use);
  };
  Outcome outcome;
  const auto first = attend(0), second = attend(1);
  auto gradients = ops::sum(ops::square(first * second)).and_then(backward);
  outcome.bytes = ws.counters().high_water;
  if (!gradients) outcome.error = gradients.error();
  for (const Result<Tensor>& input : inputs) {
    if (!gradients || planned) break;
    const auto slope = gradients->of(*input)->to_vector().value();
    outcome.values.insert(outcome.values.end(), slope.begin(), slope.end());
  }
  return outcome;
}

TEST(Rematerialize, LargeAttentionIsMadeAgain) {
  constexpr std::size_t k_result = 4_MiB;  // of one attention
  const Outcome wanted = attended(Workspace{{.scratch = 64_MiB, .threads = 1}}, false, false);
  ASSERT_EQ(wanted.error.code, Errc::ok) << wanted.error.message().c_str();
  for (const int threads : {1, 3}) {
    const Outcome got = attended(Workspace{{.scratch = 64_MiB, .threads = threads}}, true, false);
    ASSERT_EQ(got.error.code, Errc::ok) << got.error.message().c_str();
    EXPECT_EQ(got.values, wanted.values);
    if (threads == 1) EXPECT_LE(got.bytes + k_result, wanted.bytes + 4096);
    const Outcome planned = attended(planning_workspace(threads), true, true);
    ASSERT_EQ(planned.error.code, Errc::ok) << planned.error.message().c_str();
    EXPECT_EQ(got.bytes, planned.bytes);
  }
}

TEST(Rematerialize, WhatWasGivenUpIsStale) {
  Workspace ws{{.scratch = 4_MiB, .threads = 1}};
  auto tape = ws.record();
  auto x = tape.watch(Tensor::borrow(std::span<const float>(numbers(0)), {k_rows, k_cols}));
  auto gain = tape.watch(Tensor::borrow(std::span<const float>(numbers(2)), {k_cols}));
  const auto norm = [&](const Tensor& t) { return ops::rms_norm(t, gain); };
  Tensor kept;
  auto y = rematerialize(*x, norm, [&](const Tensor& t) {
    kept = t;
    return ops::square(t);
  });
  ASSERT_OK(y);
  EXPECT_FAILS(ops::square(kept), Errc::stale_tensor);
  EXPECT_FAILS(kept.to_vector(), Errc::stale_tensor);
  EXPECT_OK(ops::sum(*y).and_then(backward));
}

TEST(Rematerialize, WantsAResultOfUsesOwn) {
  Workspace ws{{.scratch = 4_MiB, .threads = 1}};
  const auto same = [](const Tensor& t) -> Result<Tensor> { return t; };
  const auto norm = [&](const Tensor& t) {
    return ops::rms_norm(t, Tensor::borrow(std::span<const float>(numbers(2)), {k_cols}));
  };
  const Tensor x = Tensor::borrow(std::span<const float>(numbers(0)), {k_rows, k_cols});
  {
    auto tape = ws.record();
    auto watched = tape.watch(x);
    EXPECT_FAILS(rematerialize(*watched, norm, same), Errc::unsupported);
    EXPECT_FAILS(rematerialize(*watched, norm, [](const Tensor& t) { return ops::reshape(t, {k_cols, k_rows}); }),
                 Errc::unsupported);
  }
  {
    auto tape = ws.record();  // nothing to differentiate: nothing is given up
    EXPECT_OK(rematerialize(*tape.input(x), norm, same));
  }
  auto frame = ws.frame();
  auto y = rematerialize(*frame.input(x), norm, same);
  ASSERT_OK(y);
  EXPECT_EQ(y->to_vector().value(), norm(*frame.input(x))->to_vector().value());
  EXPECT_FAILS(rematerialize(Tensor(), norm, same), Errc::invalid_size);
}

// What failed takes no memory from what follows, and what came before is still differentiated.
TEST(Rematerialize, ATapeGoesOnAfterAnError) {
  const Compute plain = three_times(false, layer_normed, multiplied),
                lean = three_times(true, layer_normed, multiplied);
  const Compute both = [&](const Inputs& in) {
    auto y = lean(in);
    const auto norm = [&](const Tensor& t) { return layer_normed(in, t); };
    EXPECT_FAILS(rematerialize(*in.x, norm, [](const Tensor& t) { return ops::matmul(t, t); }), Errc::invalid_size);
    EXPECT_FAILS(rematerialize(*in.x, norm, [](const Tensor& t) -> Result<Tensor> { return t; }), Errc::unsupported);
    EXPECT_EQ(in.x->context()->scratch->far_mark(), 0u);
    return y;
  };
  const Outcome got = run(both);
  EXPECT_EQ(got.error.code, Errc::ok) << got.error.message().c_str();
  EXPECT_EQ(got.values, run(plain).values);
}

TEST(Rematerialize, EndsWithAnErrorWhereMemoryDoes) {
  const Compute lean = three_times(true, layer_normed, multiplied);
  const std::size_t enough = run(lean).bytes;
  for (std::size_t scratch = 4096; scratch < enough; scratch += enough / 50 / 4096 * 4096 + 4096)
    EXPECT_EQ(run(lean, 1, scratch).error.code, Errc::out_of_memory) << scratch;
  EXPECT_EQ(run(lean, 1, enough + 4096).error.code, Errc::ok);
}

// An operation as a caller may write one: y = 2 x, made again by a rule of its own.
struct DoubleSaved {
  GradRef x;
  const float* values;
  std::size_t n;
};
constexpr Rule k_double{"double",
                        [](const void* saved, Grads& grads) noexcept {
                          const auto& s = *static_cast<const DoubleSaved*>(saved);
                          const Into dx = grads.into(s.x);
                          for (std::size_t i = 0; dx && i < s.n; ++i)
                            dx.data[i] = (dx.accumulate ? dx.data[i] : 0) + 2 * grads.out()[i];
                        },
                        [](const void* saved, const Context& /*context*/, float* y) noexcept -> Status {
                          const auto& s = *static_cast<const DoubleSaved*>(saved);
                          for (std::size_t i = 0; i < s.n; ++i) y[i] = 2 * s.values[i];
                          return {};
                        }};
Result<Tensor> doubled(const Inputs& /*in*/, const Tensor& x) {
  auto y = Fresh::make_remade(*x.context(), x.shape(), x.tracked());
  if (!y) return fail(y.error());
  const DoubleSaved saved{x.grad_ref(), x.f32(), x.numel()};
  if (auto made = k_double.remake(&saved, *x.context(), y->f32()); !made) return fail(made.error());
  return std::move(*y).freeze(custom_rule(k_double), {&x}, saved);
}

TEST(Rematerialize, RefusesAnOperationThatIsNotOnTheTape) {
  Workspace ws{{.scratch = 4_MiB, .threads = 1}};
  auto tape = ws.record();
  auto x = tape.input(Tensor::borrow(std::span<const float>(numbers(0)), {k_rows, k_cols}));
  const auto careless = [](const Tensor& t) -> Result<Tensor> {
    auto y = Fresh::make_remade(*t.context(), t.shape(), true);
    if (!y) return fail(y.error());
    return std::move(*y).freeze(custom_rule(k_double), {&t}, DoubleSaved{});
  };
  EXPECT_FAILS(rematerialize(*x, careless, [](const Tensor& t) { return ops::square(t); }), Errc::unsupported);
}

TEST(Rematerialize, TakesACallersOwnRule) {
  expect_leaner(three_times(false, doubled, multiplied), three_times(true, doubled, multiplied), 2 * k_bytes);
}

// y = body(x) four times over, inside with_transients or not.
template <class Body>
Compute four_times(bool lean, Body body) {
  return [=](const Inputs& in) {
    Result<Tensor> y = *in.x;
    for (int i = 0; i < 4 && y; ++i) {
      const auto run = [&](const Tensor& t) { return body(in, t, lean); };
      y = lean ? with_transients(*y, run) : run(*y);
    }
    return y;
  };
}

TEST(Transients, GiveTheSameBitsInLessMemory) {
  const auto sums = [](const Inputs& in, const Tensor& t, bool lean) {
    return t + ops::linear(t, in.weight, {.transient = lean}) - ops::linear(t * 0.5f, in.weight, {.transient = lean});
  };
  const auto around = [](const Inputs& in, const Tensor& t, bool lean) {
    const auto inner = ops::linear(t, in.weight, {.transient = lean});
    const Operand residual = inner;
    return ops::linear(t, in.weight, {.residual = &residual});
  };
  const auto turned = [](const Inputs& in, const Tensor& t, bool lean) {
    auto y = ops::transpose(ops::reshape(ops::linear(t, in.weight, {.transient = lean}), {1, k_rows, 6, 8}), 1, 2);
    auto tables = ops::rope_tables(*t.context(), k_rows, 4, 100, 0);
    if (!tables) return Result<Tensor>(fail(tables.error()));
    return ops::reshape(ops::transpose(ops::rope(y, tables->cosine, tables->sine), 1, 2), {k_rows, k_cols});
  };
  expect_leaner(four_times(false, sums), four_times(true, sums), 6 * k_bytes);
  expect_leaner(four_times(false, around), four_times(true, around), 3 * k_bytes);
  expect_leaner(four_times(false, turned), four_times(true, turned), 3 * k_bytes);
  // An activation's rule reads the result: it is kept.
  const auto active = [](const Inputs& in, const Tensor& t, bool lean) {
    return t + ops::linear(t, in.weight, {.activation = Activation::relu, .transient = lean});
  };
  expect_leaner(four_times(false, active), four_times(true, active), 0);
}

// Results made again before, between and after transient ones, and one within whose use a transient one is made.
TEST(Transients, GoTogetherWithWhatIsMadeAgain) {
  const auto mixed = [](const Inputs& in, const Tensor& t, bool lean) -> Result<Tensor> {
    const auto norm = [&](const Tensor& h) { return layer_normed(in, h); };
    const auto transient = [&](const Tensor& h) { return ops::linear(h, in.weight, {.transient = lean}); };
    const auto kept = [&](const Tensor& h) { return multiplied(in, h); };
    const auto through = [&](const Tensor& h, const auto& use) {
      return lean ? rematerialize(h, norm, use) : norm(h).and_then(use);
    };
    // The first one is there until the end, whatever is made at the far end meanwhile.
    const auto first = through(t, transient), after = through(t, kept), second = transient(t), third = transient(t);
    return first + second + third + after + through(t, kept);
  };
  expect_leaner(four_times(false, mixed), four_times(true, mixed), 9 * k_bytes);
  const auto nested = [&](const Inputs& in, const Tensor& t, bool lean) -> Result<Tensor> {
    const auto norm = [&](const Tensor& h) { return rms_normed(in, h); };
    const auto use = [&](const Tensor& h) { return h * four_times(lean, mixed)(in).value() + mixed(in, h, lean); };
    return lean ? rematerialize(t, norm, use) : norm(t).and_then(use);
  };
  const auto outside = [&](bool lean) { return [&, lean](const Inputs& in) { return nested(in, *in.x, lean); }; };
  EXPECT_EQ(run(outside(true)).values, run(outside(false)).values);
}

TEST(Transients, RowsOfATable) {
  static const std::vector<std::int32_t> places = [] {
    std::vector<std::int32_t> all(k_rows);
    for (std::size_t i = 0; i < all.size(); ++i) all[i] = static_cast<std::int32_t>(i * 7 % k_cols);
    return all;
  }();
  const auto rows = [](const Inputs& in, const Tensor& t, bool lean) {
    const Tensor index = Tensor::borrow(std::span<const std::int32_t>(places), {k_rows});
    return ops::add(t, ops::take(in.weight, index, 0, lean));
  };
  expect_leaner(four_times(false, rows), four_times(true, rows), 3 * k_bytes);
}

// Its own gradient takes the memory of what a norm reads, so that the one of its result is free for the layer before.
TEST(Transients, ANormMaySpendItsInput) {
  for (const bool centred : {false, true}) {
    const auto normed = [=](bool lean) {
      return [=](const Inputs& in) {
        auto y = multiplied(in, *in.x);
        y = centred ? ops::layer_norm(y, in.gain, in.shift, 1e-5f, lean) : ops::rms_norm(y, in.gain, 1e-5f, lean);
        return ops::linear(y, in.weight);
      };
    };
    expect_leaner(normed(false), normed(true), 0);
    EXPECT_LT(run(normed(true)).bytes, run(normed(false)).bytes);
  }
}

TEST(Transients, OutsideOfAnySpanAreKept) {
  const Compute compute = [](const Inputs& in) {
    auto y = ops::linear(in.x, in.weight, {.transient = true});
    EXPECT_EQ(in.x->context()->scratch->far_mark(), 0u);
    return ops::square(y);
  };
  const Outcome got = run(compute);
  EXPECT_EQ(got.error.code, Errc::ok);
  EXPECT_EQ(got.values, run([](const Inputs& in) { return ops::square(ops::linear(in.x, in.weight)); }).values);
}

// Only transient inputs may be gone: of all others a rule may need more than their values.
TEST(Transients, OtherInputsHaveToBeThere) {
  Workspace ws{{.scratch = 4_MiB, .threads = 1}};
  auto tape = ws.record();
  auto owned = Owned::from<float>({1, 2, 3}, {3});
  ASSERT_OK(owned);
  auto x = tape.watch(*owned);
  auto y = ops::sum(x + x);
  ASSERT_OK(y);
  *owned = Owned();
  EXPECT_FAILS(backward(*y), Errc::stale_tensor);
}

TEST(Transients, ThatARuleReadsAreRefused) {
  const auto product = [](const Inputs& in, const Tensor& t, bool lean) {
    return t * ops::linear(t, in.weight, {.transient = lean});
  };
  EXPECT_EQ(run(four_times(true, product)).error.code, Errc::stale_tensor);
  const auto itself = [](const Inputs& in, const Tensor& t, bool lean) {
    return ops::linear(t, in.weight, {.transient = lean});
  };
  EXPECT_EQ(run(four_times(true, itself)).error.code, Errc::stale_tensor);
}

// The gradients of what is spent lie where it was, unless there is one already.
TEST(Spends, GivesTheSameBitsInLessMemory) {
  const auto step = [](bool spends, bool two, bool again) {
    return [=](const Inputs& in) {
      Result<Tensor> y = *in.x;
      for (int i = 0; i < 2 && y; ++i) {
        auto gate = ops::linear(*y, in.weight), up = ops::linear(*y, in.weight);
        const ops::LinearParts parts{.activation = Activation::gelu, .spends = spends};
        auto h = two ? ops::gated_linear(gate, up, in.weight, parts) : ops::activated_linear(gate, in.weight, parts);
        y = again ? h + gate + up : h + up;
      }
      return y;
    };
  };
  for (const bool again : {false, true}) {
    expect_leaner(step(false, false, again), step(true, false, again), again ? 0 : k_bytes);
    expect_leaner(step(false, true, again), step(true, true, again), 0);
  }
}

// y = x, `times` one after the other; the rule fills two temporaries of `room` floats, before and after it takes its gradient's place.
struct TiledSaved {
  GradRef x;
  std::size_t count, times, room;
};
void tiled_backward(const void* saved, Grads& grads) noexcept {
  const auto& s = *static_cast<const TiledSaved*>(saved);
  float* const sums = grads.temporary(s.room);
  const Into dx = grads.into(s.x);
  float* const more = grads.temporary(s.room);
  if (!sums || !more || !dx) return;
  for (std::size_t i = 0; i < s.room; ++i) sums[i] = more[i] = NAN;
  for (std::size_t i = 0; i < s.count; ++i) {
    float sum = dx.accumulate ? dx.data[i] : 0;
    for (std::size_t t = 0; t < s.times; ++t) sum += grads.out()[t * s.count + i];
    dx.data[i] = sum;
  }
}
constexpr Rule k_tiled{"tiled", tiled_backward};
Result<Tensor> tiled(const Result<Tensor>& x, std::size_t times, std::size_t room) {
  if (!x) return x;
  auto y = Fresh::make(*x->context(), Shape{static_cast<std::int64_t>(times) * x->dim(0), x->dim(1)});
  if (!y) return fail(y.error());
  for (std::size_t t = 0; t < times; ++t) std::copy_n(x->f32(), x->numel(), y->f32() + t * x->numel());
  return std::move(*y).freeze(custom_rule(k_tiled), {&*x}, TiledSaved{x->grad_ref(), x->numel(), times, room});
}

TEST(Temporaries, TakeTheMemoryOfGradientsThatWereUsed) {
  const auto bytes = [](std::size_t room) {
    const auto ran = run([&](const Inputs& in) { return tiled(tiled(in.x, 1, room), 4, 0); });
    EXPECT_EQ(ran.error.code, Errc::ok) << ran.error.message().c_str();
    const auto x = numbers(0);
    for (std::size_t i = 0; i < x.size(); ++i) {
      EXPECT_EQ(ran.values[3 * x.size() + i], x[i]);
      EXPECT_NEAR(ran.values[4 * x.size() + i], 8 * x[i], 1e-5);
    }
    return ran.bytes;
  };
  constexpr std::size_t k_count = k_rows * k_cols;
  const std::size_t without = bytes(0);
  EXPECT_EQ(bytes(k_count), without);  // two of them, and the gradient, where there was one four times as large
  EXPECT_GE(bytes(5 * k_count), without + 10 * k_bytes);
}

}  // namespace
