// The tape: rules of a caller's own, the checker's honesty, watched inputs, parameters, nested frames, planning.
#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "tests/testing.h"

import qorus.ops;
import qorus.test.ops;

using namespace qorus;
using namespace qorus_test;

namespace {

// An operation as a caller may write one: y = 2 x, with a rule that multiplies by `Percent` / 100.
struct DoubleSaved {
  GradRef x;
  std::size_t n;
};
template <int Percent>
const Rule& double_rule() {
  static constexpr Rule rule{"double", [](const void* saved, Grads& grads) noexcept {
                               const auto& s = *static_cast<const DoubleSaved*>(saved);
                               const Into dx = grads.into(s.x);
                               if (!dx || grads.context().planning) return;
                               for (std::size_t i = 0; i < s.n; ++i)
                                 dx.data[i] = (dx.accumulate ? dx.data[i] : 0) + Percent / 100.0f * grads.out()[i];
                             }};
  return rule;
}
template <int Percent>
Result<Tensor> twice(const Tensor& operand) {
  const Operand given = operand;
  if (auto context = float_context("twice", {&given}); !context) return fail(context.error());
  auto x = ops::contiguous(operand);
  if (!x) return x;
  auto y = Fresh::make(*x->context(), x->shape());
  if (!y) return fail(y.error());
  if (!x->context()->planning) {
    for (std::size_t i = 0; i < x->numel(); ++i) y->f32()[i] = 2 * x->f32()[i];
  }
  return std::move(*y).freeze(custom_rule(double_rule<Percent>()), {&*x}, DoubleSaved{x->grad_ref(), x->numel()});
}

template <int Percent>
Case planted() {
  return {"planted",
          {{{3, 4}}},
          [](std::span<const Tensor> x) { return twice<Percent>(x[0]); },
          [](const std::vector<Array>& x) { return map(x[0], [](double v) { return 2 * v; }); }};
}

TEST(Checker, AcceptsARightRuleOfACallersOwn) { EXPECT_EQ(check(planted<200>()), ""); }

TEST(Checker, RefusesAPlantedWrongGradient) {
  EXPECT_NE(check(planted<210>()).find("gradient of input 0"), std::string::npos);
  EXPECT_NE(check(planted<199>()).find("gradient of input 0"), std::string::npos);
  EXPECT_NE(check(planted<0>()).find("gradient of input 0"), std::string::npos);
}

TEST(Checker, RefusesAWrongForward) {
  Case wrong = planted<200>();
  wrong.reference = [](const std::vector<Array>& x) { return map(x[0], [](double v) { return 2.001 * v; }); };
  EXPECT_NE(check(wrong).find("forward"), std::string::npos);
}

TEST(Checker, SeesAnAllocation) {
  QORUS_NEEDS_ALLOCATION_COUNTER();
  Case greedy = planted<200>();
  greedy.run = [](std::span<const Tensor> x) {
    [[maybe_unused]] static float* volatile escape;  // so that the allocation is not optimised away
    const std::unique_ptr<float[]> waste(new float[100]);
    escape = waste.get();
    return twice<200>(x[0]);
  };
  EXPECT_NE(check(greedy).find("allocations"), std::string::npos);
}

std::vector<float> values(const Result<Tensor>& t) {
  EXPECT_OK(t);
  return t ? t->to_vector().value() : std::vector<float>{};
}

TEST(Tape, RecordsOnlyWhatAGradientIsWantedOf) {
  const Owned a = random_owned({3}), b = random_owned({3});
  auto tape = workspace(1).record();
  auto x = tape.input(a);
  ASSERT_OK(ops::exp(x * x));
  EXPECT_EQ(tape.size(), 0u);
  auto w = tape.watch(b);
  ASSERT_OK(x * w);
  EXPECT_EQ(tape.size(), 2u);  // the watch and the product
}

TEST(Tape, GradientsOfInputsThatTheLossDoesNotDependOnAreZero) {
  const Owned a = random_owned({3}), b = random_owned({2});
  auto tape = workspace(1).record();
  auto x = tape.watch(a), y = tape.watch(b);
  auto g = backward(ops::sum(x).value());
  ASSERT_OK(g);
  EXPECT_EQ(values(g->of(*x)), (std::vector<float>{1, 1, 1}));
  EXPECT_EQ(values(g->of(*y)), (std::vector<float>{0, 0}));
}

TEST(Tape, AWatchedInputMayBeTheLoss) {
  const Owned a = random_owned({});
  auto tape = workspace(1).record();
  auto x = tape.watch(a);
  EXPECT_EQ(values(backward(*x).value().of(*x)), std::vector<float>{1});
}

TEST(Tape, BackwardFromAnyResultGivenItsGradient) {
  const Owned a = random_owned({3, 4}), w = random_owned({2, 4}), d = random_owned({3, 2}), c = random_owned({4, 3});
  const auto through = [&](auto run, bool given) {
    auto tape = workspace(1).record();
    auto x = tape.watch(a), weight = tape.watch(w);
    auto y = run(*x, *weight).value();
    auto g = given ? backward_from(y, d) : backward(ops::sum(ops::mul(y, tape.input(d))).value());
    EXPECT_OK(g);
    auto all = values(g->of(*x));
    const auto more = values(g->of(*weight));
    all.insert(all.end(), more.begin(), more.end());
    return all;
  };
  const auto before = values(Result<Tensor>(d));
  const auto plain = [](const Tensor& x, const Tensor& w) { return ops::linear(x, w); };
  const auto fused = [](const Tensor& x, const Tensor& w) { return ops::linear(x, w, Activation::tanh); };
  const auto chain = [](const Tensor& x, const Tensor& w) { return ops::silu(ops::linear(ops::exp(x), w)); };
  EXPECT_EQ(through(plain, true), through(plain, false));
  EXPECT_EQ(through(fused, true), through(fused, false));
  EXPECT_EQ(through(chain, true), through(chain, false));
  EXPECT_EQ(values(Result<Tensor>(d)), before);  // read, not written

  auto tape = workspace(1).record();
  auto x = tape.watch(a);
  EXPECT_FAILS(backward_from(*x, d), Errc::invalid_size);
  EXPECT_FAILS(backward_from(*x, ops::transpose(tape.input(c), 0, 1).value()), Errc::invalid_argument);
  EXPECT_EQ(values(backward_from(*x, a).value().of(*x)), values(Result<Tensor>(a)));
}

// Whose gradients are made in many pieces: of an intermediate result that is used twice, at once or one time after the other.
TEST(Tape, LargeTensorsUsedTwice) {
  const std::int64_t n = 100'003;
  const Owned a = random_owned({n}), d = random_owned({n});
  using Use = Result<Tensor> (*)(const Tensor&);
  const Use uses[] = {[](const Tensor& h) { return ops::add(h, h); },
                      [](const Tensor& h) { return ops::add(ops::reshape(ops::reshape(h, {1, -1}), {-1}), h); },
                      [](const Tensor& h) { return ops::add(ops::mul(h, 0.0f), ops::mul(h, 2.0f)); }};
  for (const Use use : uses) {
    auto tape = workspace(1).record();
    auto x = tape.watch(a);
    const auto g = backward_from(ops::neg(use(ops::neg(x).value())).value(), d);
    ASSERT_OK(g);
    const auto dx = values(g->of(*x)), given = values(Result<Tensor>(d));
    for (std::size_t i = 0; i < dx.size(); ++i) ASSERT_EQ(dx[i], 2 * given[i]) << i;
  }
}

// What the backward of x, doubled in length again and again up to 2^18, takes of the arena.
std::size_t bytes_of_doubling(int times) {
  const std::vector<float> x(std::size_t{1} << (18 - times), 1.0f);
  Workspace ws{{.scratch = 64_MiB, .threads = 1}};
  auto tape = ws.record();
  auto y = tape.watch(Tensor::borrow(std::span<const float>(x), Shape{static_cast<std::int64_t>(x.size())}));
  for (int i = 0; i < times; ++i) y = ops::concat({y, ops::mul(y, 2)}, 0);
  const auto loss = ops::sum(y);
  EXPECT_OK(loss);
  const std::size_t before = ws.counters().in_use;
  EXPECT_OK(backward(*loss));
  return ws.counters().in_use - before;
}
TEST(Tape, MemoryOfDeadGradientsServesSmallerAndLargerOnes) {
  const std::size_t one = bytes_of_doubling(1);
  EXPECT_GE(one, sizeof(float) << 18);
  EXPECT_LT(bytes_of_doubling(4), one + 4096) << "the gradients before the last fit where that one was";
}

TEST(Tape, BackwardRefusesWhatIsNoLoss) {
  const Owned a = random_owned({3});
  {
    auto frame = workspace(1).frame();
    EXPECT_FAILS(backward(ops::sum(frame.input(a)).value()), Errc::invalid_argument);
  }
  auto tape = workspace(1).record();
  auto x = tape.watch(a);
  EXPECT_FAILS_SAYING(backward(*x), "[3]: the loss must have one element");
  EXPECT_FAILS(backward(ops::sum(tape.input(a)).value()), Errc::invalid_argument);  // depends on nothing
  const Tensor numbers = whole(tape.context(), {}, 1).value(),
               one = Tensor::borrow(std::span<const float>(a.tensor().f32(), 1), {});
  EXPECT_FAILS(backward(numbers), Errc::invalid_dtype);
  EXPECT_FAILS(backward_from(numbers, numbers), Errc::invalid_dtype);
  EXPECT_FAILS(backward_from(*x, whole(tape.context(), {3}, 1).value()), Errc::invalid_dtype);
  EXPECT_FAILS(backward(one), Errc::invalid_argument);  // of no workspace
  auto loss = ops::sum(x).value();
  ASSERT_OK(backward(loss));
  EXPECT_FAILS_SAYING(backward(loss), "run before");
}

TEST(Tape, GradientsRefuseIntermediateAndStaleTensors) {
  const Owned a = random_owned({3});
  Gradients kept;
  Tensor stale;
  {
    auto tape = workspace(1).record();
    auto x = tape.watch(a);
    auto y = ops::exp(x);
    auto g = backward(ops::sum(y).value());
    ASSERT_OK(g);
    EXPECT_FAILS(g->of(*y), Errc::invalid_argument);
    EXPECT_FAILS(g->of(tape.input(a).value()), Errc::invalid_argument);
    EXPECT_OK(g->of(*x));
    EXPECT_FAILS(g->of(whole(tape.context(), {3}, 1).value()), Errc::invalid_dtype);
    kept = *g;
    stale = *x;
  }
  EXPECT_FAILS(kept.of(stale), Errc::stale_tensor);
  EXPECT_FAILS(kept.norm(), Errc::stale_tensor);
  EXPECT_FAILS(clip_norm(kept, 1), Errc::stale_tensor);
  EXPECT_FAILS(kept.slab(Block{}), Errc::stale_tensor);
  EXPECT_EQ(kept.state_updates(), nullptr);
}

TEST(Tape, BackwardSeesAnOwnerThatIsGone) {
  auto tape = workspace(1).record();
  Result<Tensor> loss = Tensor();
  {
    const Owned a = random_owned({3}), b = random_owned({3});
    loss = ops::sum(tape.watch(a) * tape.input(b));
  }
  EXPECT_FAILS(backward(*loss), Errc::stale_tensor);
}

TEST(Tape, WatchWantsContiguousFloats) {
  const Owned a = random_owned({2, 3});
  const std::int32_t whole_number = 1;
  auto tape = workspace(1).record();
  EXPECT_FAILS(tape.watch(ops::transpose(a.tensor()).value()), Errc::invalid_argument);
  EXPECT_FAILS(tape.watch(Tensor::borrow(std::span<const std::int32_t>(&whole_number, 1), {})), Errc::invalid_dtype);
}

// --- frames within frames ---

TEST(Frames, ATapeInATapeRecordsNothingAndSaysSo) {
  const Owned a = random_owned({3});
  auto tape = workspace(1).record();
  auto x = tape.watch(a);
  {
    auto inner = workspace(1).record();
    EXPECT_FAILS_SAYING(inner.input(a), "another tape records");
    EXPECT_FAILS(inner.watch(a), Errc::invalid_argument);
    EXPECT_EQ(inner.size(), 0u);
  }
  EXPECT_EQ(values(backward(ops::sum(x * x).value()).value().of(*x))[0], 2 * values(x)[0]);
}

// What is recorded in an inner frame ends with it, and does not stand in the outer tape's way.
TEST(Frames, AFrameInATapeTakesItsNodesAlong) {
  const Owned a = random_owned({1000}), b = random_owned({1000}, 2);
  auto tape = workspace(1).record();
  auto x = tape.watch(a);
  auto before = ops::square(x);
  Tensor inside;
  {
    auto frame = workspace(1).frame();
    inside = ops::exp(before).value();
    ASSERT_OK(ops::sum(inside * x));
  }
  EXPECT_FAILS(ops::sum(inside), Errc::stale_tensor);
  auto after = ops::sum(before * tape.input(b));  // its memory is what the inner frame's nodes had
  auto g = backward(*after);
  ASSERT_OK(g);
  const auto slopes = values(g->of(*x)), at = values(x), weight = values(tape.input(b));
  for (std::size_t i = 0; i < slopes.size(); ++i) EXPECT_FLOAT_EQ(slopes[i], 2 * at[i] * weight[i]);
}

TEST(Frames, ATapeInAFrame) {
  const Owned a = random_owned({3});
  auto frame = workspace(1).frame();
  auto y = ops::exp(frame.input(a));
  {
    auto tape = workspace(1).record();
    auto x = tape.watch(*y);
    EXPECT_EQ(values(backward(ops::sum(x).value()).value().of(*x)), (std::vector<float>{1, 1, 1}));
  }
  EXPECT_OK(ops::sum(y));
}

// An arena tells 31 frames apart; those deeper end together: their tensors may be stale early, never wrong.
TEST(Frames, ManyDeep) {
  const Owned a = random_owned({3});
  const std::function<void(int)> go = [&](int depth) {
    auto frame = workspace(1).frame();
    auto x = ops::add(frame.input(a), 1.0f);
    if (depth < 40) go(depth + 1);
    auto y = ops::exp(x);
    if (depth <= 30) EXPECT_OK(y);
    if (!y) EXPECT_EQ(y.error().code, Errc::stale_tensor);
  };
  go(1);
}

TEST(Frames, ARecordedStepFollowsAnother) {
  const Owned a = random_owned({64, 64});
  Workspace ws{{.scratch = 1_MiB, .threads = 1}};
  for (int i = 0; i < 100; ++i) {
    auto tape = ws.record();
    auto x = tape.watch(a);
    ASSERT_OK(backward(ops::sum(ops::gelu(x)).value()));
  }
  EXPECT_EQ(ws.counters().in_use, 0u);
}

// --- parameters ---

// Two parameters in one block, as a model has them.
class Parameters {
 public:
  Parameters() : slab_(std::move(Slab::create(32 * sizeof(float)).value())) {
    Block& block = *slab_.block();
    block.base = reinterpret_cast<const float*>(slab_.data());
    block.floats = 32;
    block.leaves = leaves_.data();
    block.leaf_count = 2;
    for (int i = 0; i < 32; ++i) reinterpret_cast<float*>(slab_.data())[i] = 0.1f * static_cast<float>(i);
  }
  [[nodiscard]] Tensor get(std::uint32_t i, const Shape& shape) const {
    return Tensor(slab_.data() + leaves_[i].offset * sizeof(float), DType::f32, Layout::dense(shape), slab_.lifetime())
        .with_slot(GradRef::k_leaf | i);
  }
  [[nodiscard]] const Block& block() const { return *slab_.block(); }

 private:
  std::array<Leaf, 2> leaves_{{{0, 6}, {16, 3}}};
  Slab slab_;
};

TEST(Leaves, GradientsLieAsTheParametersDo) {
  const Parameters p;
  const Owned a = random_owned({4, 2});
  auto tape = workspace(1).record();
  auto loss = ops::sum(ops::linear(tape.input(a), p.get(0, {3, 2}), p.get(1, {3})));
  auto g = backward(*loss);
  ASSERT_OK(g);
  auto slab = g->slab(p.block());
  ASSERT_OK(slab);
  EXPECT_EQ(slab->size(), 32u);
  EXPECT_EQ((*slab)[16], 4);  // the bias: four rows
  EXPECT_EQ((*slab)[10], 0);  // padding
  EXPECT_EQ(values(g->of(p.get(1, {3}))), (std::vector<float>{4, 4, 4}));
  double squares = 0;
  for (float v : *slab) squares += static_cast<double>(v) * static_cast<double>(v);
  EXPECT_NEAR(g->norm().value(), std::sqrt(squares), 1e-4);
}

TEST(Leaves, AParameterUsedTwiceAndOneNotUsed) {
  const Parameters p;
  auto tape = workspace(1).record();
  const Tensor w = tape.input(p.get(1, {3})).value();
  auto g = backward(
      ops::sum(w * w + ops::concat({w, w}).and_then([](const Tensor& x) { return ops::slice(x, 0, 0, 3); })).value());
  ASSERT_OK(g);
  const auto slopes = values(g->of(w)), at = values(w);
  for (std::size_t i = 0; i < 3; ++i) EXPECT_FLOAT_EQ(slopes[i], 2 * at[i] + 1);
  EXPECT_EQ(values(g->of(p.get(0, {6}))), std::vector<float>(6));
}

// A view that could lose the way back to its parameter is an error, not a gradient of zero.
TEST(Leaves, AViewOfAParameterKeepsItsGradientOrSaysNo) {
  const Parameters p;
  const Owned a = random_owned({4, 3});
  auto tape = workspace(1).record();
  EXPECT_FAILS(ops::transpose(p.get(0, {3, 2})), Errc::no_workspace);
  auto flat = ops::reshape(p.get(0, {3, 2}), {2, 3});  // keeps its place
  auto turned = ops::transpose(tape.input(p.get(0, {2, 3})));
  auto loss =
      ops::sum(ops::matmul(tape.input(a), ops::transpose(tape.input(*flat))) + ops::matmul(tape.input(a), turned));
  auto g = backward(*loss);
  ASSERT_OK(g);
  const auto sums = values(ops::sum(tape.input(a), 0)), slopes = values(g->of(p.get(0, {2, 3})));
  for (std::size_t i = 0; i < 6; ++i) EXPECT_NEAR(slopes[i], 2 * sums[i % 3], 1e-5);
}

TEST(Leaves, ClippingScalesAndLimits) {
  const Parameters p;
  auto tape = workspace(1).record();
  auto g = backward(ops::sum(ops::mul(tape.input(p.get(1, {3})), 10.0f)).value());
  ASSERT_OK(g);
  EXPECT_NEAR(clip_norm(*g, 1).value().norm().value(), 1, 1e-6);
  EXPECT_EQ(clip_norm(*g, 100).value().scale, 1);
  EXPECT_EQ(clip_value(*g, 0.5f).value().limit, 0.5f);
  EXPECT_FAILS(clip_norm(*g, 0), Errc::invalid_argument);
  EXPECT_FAILS(clip_value(*g, NAN), Errc::invalid_argument);
  const Parameters other;
  EXPECT_FAILS(g->slab(other.block()), Errc::not_found);
}

TEST(Leaves, AGradientThatIsNotFiniteIsDiverged) {
  const Parameters p;
  auto tape = workspace(1).record();
  auto g = backward(ops::sum(ops::mul(tape.input(p.get(1, {3})), INFINITY)).value());
  ASSERT_OK(g);
  EXPECT_FAILS(clip_norm(*g, 1), Errc::diverged);
}

// Each has the gradient of its own block; one that is the result itself has what was given.
TEST(Leaves, OfTwoBlocks) {
  const Parameters p, q;
  auto tape = workspace(1).record();
  const auto a = tape.input(p.get(1, {3})), b = tape.input(q.get(1, {3}));
  auto g = backward(ops::sum(a * b * 2.0f + a).value());
  ASSERT_OK(g);
  const auto at = values(a), of_a = values(g->of(*a)), of_b = values(g->of(*b));
  for (std::size_t i = 0; i < 3; ++i) {
    EXPECT_FLOAT_EQ(of_a[i], 2 * at[i] + 1);  // both hold the same numbers
    EXPECT_FLOAT_EQ(of_b[i], 2 * at[i]);
  }
  EXPECT_OK(g->slab(q.block()));
  {
    auto again = workspace(2).record();
    const Owned given = random_owned({3});
    const auto leaf = again.input(p.get(1, {3}));
    const auto itself = backward_from(*leaf, given);
    ASSERT_OK(itself);
    EXPECT_EQ(values(itself->of(*leaf)), values(Result<Tensor>(given)));
  }
  auto frame = workspace(3).frame();  // where nothing is recorded they are tensors like others
  const auto c = frame.input(p.get(1, {3}));
  EXPECT_EQ(values(ops::concat({c, c})).size(), 6u);
  EXPECT_FAILS(ops::slice(p.get(0, {3, 2}), 0, 1, 3), Errc::no_workspace);
  EXPECT_FAILS(ops::slice(p.get(0, {3, 2}), 0, 0, 2), Errc::no_workspace);
}

TEST(Leaves, GradientsWithoutRoom) {
  const Parameters p;
  const Owned other = random_owned({40});
  Workspace ws{{.scratch = 1_MiB, .threads = 1}};
  auto tape = ws.record();
  const auto unused = tape.watch(other);
  auto g = backward(ops::sum(tape.input(p.get(1, {3}))).value());
  ASSERT_OK(g);
  while (tape.context().scratch->take(64)) {}
  EXPECT_FAILS(g->norm(), Errc::out_of_memory);
  EXPECT_FAILS(clip_norm(*g, 1), Errc::out_of_memory);
  EXPECT_FAILS(g->of(*unused), Errc::out_of_memory);
}

// A rule of a caller's own, in a block whose insides are kept in bf16; and one that would read from too many places.
TEST(Tape, RulesOfACallersOwn) {
  const Owned a = random_owned({8, 8});
  Workspace ws{{.scratch = 1_MiB, .threads = 1, .bf16 = true}};
  auto tape = ws.record();
  const auto x = tape.watch(a);
  const auto y = in_own_frame(*x, [](const Tensor& t) { return ops::exp(twice<200>(t).value()); });
  const auto g = ops::sum(y).and_then(backward);
  ASSERT_OK(g);
  const auto slopes = values(g->of(*x)), at = values(Result<Tensor>(a));
  for (std::size_t i = 0; i < at.size(); ++i) EXPECT_NEAR(slopes[i], 2 * std::exp(2 * at[i]), 0.02 * slopes[i]);
  std::vector<Owned> places;
  for (unsigned i = 0; i < 9; ++i) places.push_back(random_owned({4}, i + 1));
  std::vector<Tensor> read;
  for (const Owned& place : places) read.push_back(place.tensor());
  auto second = workspace(1).record();
  const auto reads = [&](auto... i) {
    auto made = Fresh::make(second.context(), {4});
    return std::move(*made).freeze(custom_rule(double_rule<200>()), {&read[i]...}, DoubleSaved{});
  };
  EXPECT_OK(reads(0u, 1u, 2u, 3u, 4u, 5u, 6u, 7u, 7u, 0u));
  EXPECT_FAILS(reads(0u, 1u, 2u, 3u, 4u, 5u, 6u, 7u, 8u), Errc::unsupported);
}

// --- planning ---

TEST(Planning, ReadsAndWritesNothingAndTellsTheBytes) {
  Workspace plan = planning_workspace();
  ASSERT_OK(plan.status());
  auto tape = plan.record();
  const Tensor unmade(nullptr, DType::f32, Layout::dense({4096, 4096}), {});
  auto x = tape.watch(unmade);
  auto y = ops::matmul(x, ops::transpose(x));
  auto loss = ops::cross_entropy(y, Tensor(nullptr, DType::i32, Layout::dense({4096}), {}));
  ASSERT_OK(loss);
  ASSERT_OK(backward(*loss));
  EXPECT_GT(plan.counters().high_water, 3 * 4096 * 4096 * sizeof(float));
  EXPECT_FAILS_SAYING(loss->item(), "while planning");
  auto again = planning_workspace();
  auto second = again.record();
  const auto used = second.watch(unmade), unused = second.watch(unmade);
  const auto g = backward(ops::sum(used).value());
  ASSERT_OK(g);
  EXPECT_EQ(g->of(*unused).value().shape(), unmade.shape());
}

}  // namespace
