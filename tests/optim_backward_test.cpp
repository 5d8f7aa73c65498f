// Backward and step in one (Optimizer::step of a loss, backward_each): the same bits as one after the other, in less memory.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "tests/nn_testing.h"

import qorus.optim;
#include "tests/nn_running.h"

using namespace qorus;
using qorus_test::view;
using qorus_test::waves;

namespace {

// What a step makes of the tape and the model.
template <class L>
using LossBy = std::function<Result<Tensor>(Tape&, const nn::Model<L>&)>;
using Model = nn::Model<nn::Any>;
using LossOf = LossBy<nn::Any>;

struct Trained {
  std::vector<float> parameters, moments;
  std::size_t bytes = 0;
};

struct How {
  bool at_once = true;
  int threads = 1;
  bool bf16 = false;
};

// A few steps from the same weights; all parameters (running statistics, too), the moments, and what the steps took.
template <class L>
Trained train(const L& layer, const Shape& example, DType input, const OptimizerSpec& spec,
              const std::type_identity_t<LossBy<L>>& loss_of, const How& how) {
  Trained trained;
  auto model = nn::build(layer, example, init::xavier(3), {.input = input});
  EXPECT_OK(model);
  if (!model) return trained;
  Optimizer optimizer(spec, *model);
  Workspace ws{{.scratch = 256_MiB, .threads = how.threads, .seed = 5, .bf16 = how.bf16}};
  for (int i = 0; i < 3; ++i) {
    auto tape = ws.record();
    const auto loss = loss_of(tape, *model);
    const Status done =
        how.at_once ? loss.and_then([&](const Tensor& l) { return optimizer.step(*model, l); })
                    : loss.and_then(backward).and_then([&](const Gradients& g) { return optimizer.step(*model, g); });
    EXPECT_OK(done);
  }
  EXPECT_EQ(optimizer.steps(), 3u);
  trained.parameters.assign(model->slab().begin(), model->slab().end());
  for (int i = 0; i < 2; ++i) {
    trained.moments.insert(trained.moments.end(), optimizer.moment(i).begin(), optimizer.moment(i).end());
    trained.moments.insert(trained.moments.end(), optimizer.short_moment(i).begin(), optimizer.short_moment(i).end());
  }
  trained.bytes = ws.counters().high_water;
  return trained;
}

template <class L>
void expect_same(const L& layer, const Shape& example, DType input, const std::type_identity_t<LossBy<L>>& loss_of,
                 const OptimizerSpec& spec = optim::adamw({.weight_decay = 0.1f}), bool bf16 = false) {
  const Trained wanted = train(layer, example, input, spec, loss_of, {.at_once = false, .bf16 = bf16});
  for (const int threads : {1, 3}) {
    const Trained got = train(layer, example, input, spec, loss_of, {.threads = threads, .bf16 = bf16});
    EXPECT_EQ(got.parameters, wanted.parameters) << threads << " threads";
    EXPECT_EQ(got.moments, wanted.moments) << threads << " threads";
    if (threads == 1) EXPECT_LE(got.bytes, wanted.bytes + 8_KiB);  // a table of the parameters
  }
}

// The mean of the squares of what the model makes of fixed numbers.
LossOf squares_of(const std::vector<float>& values, const Shape& shape) {
  return [&values, shape](Tape& tape, const Model& model) {
    return ops::mean(ops::square(tape.input(view(values, shape)) | model));
  };
}

nn::Any chain() { return nn::any(nn::linear(24) | nn::tanh() | nn::linear(17) | nn::gelu() | nn::linear(3)); }

TEST(StepOfALoss, GivesTheBitsOfBackwardAndStepWithEveryOptimizer) {
  const auto values = waves(9 * 30);
  const auto loss = squares_of(values, {9, 30});
  const OptimizerSpec specs[] = {
      optim::sgd({.lr = 0.1f}),
      optim::sgd({.lr = 0.1f, .momentum = 0.9f, .nesterov = true, .weight_decay = 0.01f, .l1 = 1e-3f}),
      optim::adam({.lr = 0.01f, .weight_decay = 0.1f}), optim::adamw({.lr = 0.01f, .bf16_moments = true}),
      optim::adamw({.lr = 0.01f, .weight_decay = 0.1f}) | optim::group({.pattern = "2.*", .lr_scale = 10}) |
          optim::no_decay_on_vectors()};
  for (const OptimizerSpec& spec : specs) expect_same(chain(), {30}, DType::f32, loss, spec);
}

TEST(StepOfALoss, GivesTheBitsOfBackwardAndStepWithEveryKindOfLayer) {
  const auto values = waves(4 * 6 * 8), pictures = waves(4 * 144);
  const nn::Any rows[] = {
      nn::any(nn::transformer_block(8, 2, {.kind = nn::FeedForwardKind::swiglu, .dropout = 0.1f})),
      nn::any(nn::experts(4, 16)),
      nn::any(nn::decoder(2, 8, 4, {.attention = {.rope = 100}, .cross = true})),
      nn::any(nn::decoder(3, 8, 4, {.recompute = nn::recompute})),
      nn::any(nn::linear(8) | nn::checkpoint(nn::linear(8) | nn::layer_norm() | nn::relu() | nn::linear(8)) |
              nn::linear(2)),
      nn::any(nn::lstm(8, {.bidirectional = true})),
      nn::any(nn::gru(8, {.layers = 2})),
      nn::any(nn::repeat(3, nn::residual(nn::layer_norm() | nn::linear(8) | nn::silu())) | nn::linear(1))};
  for (const nn::Any& layer : rows) expect_same(layer, {6, 8}, DType::f32, squares_of(values, {4, 6, 8}));
  for (const nn::Any& layer : {nn::any(nn::decoder(3, 8, 4)), nn::any(nn::linear(8) | nn::encoder(2, 8, 2))})
    expect_same(layer, {6, 8}, DType::f32, squares_of(values, {4, 6, 8}), optim::adamw(), true);
  expect_same(nn::any(nn::conv2d(4, 3, {.padding = 1}) | nn::batch_norm() | nn::relu() | nn::max_pool(2) |
                      nn::conv_transpose2d(4, 2, {.stride = 2}) | nn::group_norm(2) | nn::flatten() | nn::linear(3)),
              {1, 12, 12}, DType::f32, squares_of(pictures, {4, 1, 12, 12}));
}

TEST(StepOfALoss, GivesTheBitsOfBackwardAndStepForModelsOfTokens) {
  std::vector<std::int32_t> ids(3 * 7);
  for (std::size_t i = 0; i < ids.size(); ++i) ids[i] = static_cast<std::int32_t>(i * 5 % 11);
  const Tensor tokens = Tensor::borrow(std::span<const std::int32_t>(ids), {3, 7});
  const auto loss = [&](Tape& tape, const auto& model) {
    return tape.input(tokens) | model | loss::cross_entropy(tokens);
  };
  const auto joint = [&](Tape& tape, const auto& model) {
    return tape.input(tokens) | (model | loss::cross_entropy(tokens));
  };
  nn::LanguageOptions options{.vocab = 11, .context = 7, .d_model = 8, .heads = 2, .layers = 2};
  options.tied = true;
  for (const LossBy<nn::LanguageModel>& one : {LossBy<nn::LanguageModel>(loss), LossBy<nn::LanguageModel>(joint)}) {
    expect_same(nn::gpt(options), {7}, DType::i32, one);
    expect_same(nn::llama(options), {7}, DType::i32, one);
  }
  expect_same(nn::embedding(11, 5) | nn::lstm(8) | nn::linear(11), {7}, DType::i32, loss);
}

// Parameters that are used twice, only by a value that is cut off, or not at all; the earliest use counts.
TEST(StepOfALoss, UpdatesAParameterOnlyOnceNothingReadsItAnyMore) {
  const auto values = waves(5 * 6), other = waves(5 * 6, 1);
  const auto layer = nn::any(nn::linear(6) | nn::linear(6));
  const auto input = [&](Tape& tape, const std::vector<float>& from) { return tape.input(view(from, {5, 6})); };
  const auto weight = [](const Model& model, const char* name) { return *model.parameter(name); };
  const LossOf twice = [&](Tape& tape, const Model& model) {
    return ops::sum(ops::square((input(tape, values) | model | model) - (input(tape, other) | model)));
  };
  // The first weight is read, cut off, before any node that adds to its gradient.
  const LossOf cut_off = [&](Tape& tape, const Model& model) {
    auto x = ops::linear(input(tape, values), weight(model, "1.weight"));
    auto y = ops::linear(x, ops::detach(weight(model, "0.weight")));
    auto part = ops::linear(y, ops::slice(ops::detach(weight(model, "0.weight")), 0, 2, 4));
    return ops::sum(ops::square(y | model)) + ops::sum(part);
  };
  const LossOf viewed = [&](Tape& tape, const Model& model) {
    auto turned = ops::transpose(tape.input(weight(model, "0.weight")), 0, 1);
    return ops::sum(ops::square(ops::matmul(input(tape, values) | model, turned)));
  };
  const LossOf unused = [&](Tape& tape, const Model& model) {
    return ops::sum(ops::square(ops::linear(input(tape, values), weight(model, "1.weight"))));
  };
  const LossOf itself = [&](Tape& tape, const Model& model) {
    return ops::sum(ops::square(tape.input(weight(model, "0.bias"))));
  };
  for (const LossOf& loss : {twice, cut_off, viewed, unused, itself})
    expect_same(layer, {6}, DType::f32, loss, optim::adamw({.lr = 0.1f, .weight_decay = 0.1f}));
}

// A layer whose backward computes it again reads its parameters only then.
TEST(StepOfALoss, UpdatesWhatIsComputedAgainAfterThat) {
  const auto values = waves(5 * 32);
  const LossOf again = [&](Tape& tape, const Model& model) {
    auto y = tape.input(view(values, {5, 32})) | model;
    return ops::sum(ops::square(ops::linear(y, *model.parameter("0.1.weight"))));
  };
  const auto body = nn::relu() | nn::linear(32) | nn::relu() | nn::linear(32);
  expect_same(nn::any(nn::checkpoint(body) | nn::linear(32)), {32}, DType::f32, again);
  const auto deep = nn::any(nn::repeat(8, nn::checkpoint(body)));
  const auto loss = squares_of(values, {5, 32});
  const Trained kept = train(deep, {32}, DType::f32, optim::sgd(), loss, {.at_once = false});
  EXPECT_LE(train(deep, {32}, DType::f32, optim::sgd(), loss, {}).bytes + 12 * sizeof(float) * 32 * 32, kept.bytes);
}

// What a recording takes away again (a frame within it) does no harm.
TEST(StepOfALoss, FramesWithinTheRecordingAreForgotten) {
  const auto values = waves(5 * 6);
  for (const bool first : {true, false}) {
    expect_same(chain(), {6}, DType::f32, [&](Tape& tape, const Model& model) {
      auto x = tape.input(view(values, {5, 6}));
      auto y = first ? x : x | model;
      {
        const Scope frame(tape.context());
        EXPECT_OK(x | model);
      }
      return ops::sum(ops::square(first ? x | model : y));
    });
  }
}

TEST(StepOfALoss, TakesMemoryForAFewGradientsInsteadOfAll) {
  const auto values = waves(4 * 128);
  const auto layer = nn::any(nn::repeat(12, nn::linear(128) | nn::relu()));
  const auto loss = squares_of(values, {4, 128});
  const Trained kept = train(layer, {128}, DType::f32, optim::sgd(), loss, {.at_once = false});
  const Trained at_once = train(layer, {128}, DType::f32, optim::sgd(), loss, {.at_once = true});
  const std::size_t one = 128 * 128 * sizeof(float);
  EXPECT_LE(at_once.bytes + 10 * one, kept.bytes);
}

TEST(BackwardEach, HandsEachGradientOverOnceFromTheLastLayerToTheFirst) {
  const auto values = waves(5 * 6);
  auto model = nn::build(nn::linear(4) | nn::tanh() | nn::linear(3) | nn::tanh() | nn::linear(2), {6});
  ASSERT_OK(model);
  Workspace ws{{.scratch = 4_MiB, .threads = 1}};
  std::vector<std::vector<float>> wanted, got(model->block().leaf_count);
  {
    auto tape = ws.record();
    auto g = ops::sum(tape.input(view(values, {5, 6})) | *model).and_then(backward);
    ASSERT_OK(g);
    const auto slab = *g->slab(model->block());
    for (const Leaf& leaf : std::span(model->block().leaves, model->block().leaf_count))
      wanted.emplace_back(slab.begin() + static_cast<std::ptrdiff_t>(leaf.offset),
                          slab.begin() + static_cast<std::ptrdiff_t>(leaf.offset + leaf.count));
  }
  std::vector<std::size_t> order;
  auto tape = ws.record();
  auto loss = ops::sum(tape.input(view(values, {5, 6})) | *model);
  ASSERT_OK(loss);
  ASSERT_OK(backward_each(*loss, model->block(), [&](const Leaf& leaf, const float* gradient) {
    const auto index = static_cast<std::size_t>(&leaf - model->block().leaves);
    EXPECT_TRUE(got[index].empty());
    got[index].assign(gradient, gradient + leaf.count);
    order.push_back(index / 2);  // weight and bias
  }));
  EXPECT_EQ(got, wanted);
  EXPECT_EQ(order, (std::vector<std::size_t>{2, 2, 1, 1, 0, 0}));
  EXPECT_FAILS(backward_each(*loss, model->block(), [](const Leaf&, const float*) {}), Errc::invalid_argument);
}

TEST(StepOfALoss, RefusesWhatItCannotDoAndChangesNothing) {
  const auto values = waves(5 * 6);
  auto model = nn::build(nn::linear(4), {6}, init::xavier(1)), other = nn::build(nn::linear(4), {6}, init::xavier(2)),
       larger = nn::build(nn::linear(40), {6});
  ASSERT_OK(model);
  ASSERT_OK(other);
  ASSERT_OK(larger);
  const std::vector<float> before(model->slab().begin(), model->slab().end());
  Optimizer optimizer = optim::adamw(*model, {.lr = 0.1f, .weight_decay = 0.1f});
  Workspace ws{{.scratch = 4_MiB, .threads = 1}};
  const auto with = [&](const auto& run, Workspace& workspace) {
    auto tape = workspace.record();
    return run(tape.input(view(values, {5, 6})));
  };
  const auto loss_of = [](const Result<Tensor>& x, const auto& by) { return ops::sum(ops::square(x | by)); };
  EXPECT_FAILS(with([&](const Result<Tensor>& x) { return optimizer.step(*model, *loss_of(x, *other)); }, ws),
               Errc::not_found);
  EXPECT_FAILS(with([&](const Result<Tensor>& x) { return optimizer.step(*larger, *loss_of(x, *larger)); }, ws),
               Errc::invalid_argument);
  EXPECT_FAILS(with([&](const Result<Tensor>& x) { return optimizer.step(*model, *ops::square(x | *model)); }, ws),
               Errc::invalid_argument);
  EXPECT_FAILS(with([&](const Result<Tensor>& x) { return optimizer.step(*model, *ops::sum(x)); }, ws),
               Errc::invalid_argument);
  Result<Tensor> late = with([&](const Result<Tensor>& x) { return loss_of(x, *model); }, ws);
  EXPECT_FAILS(optimizer.step(*model, *late), Errc::stale_tensor);
  Workspace plan = planning_workspace();
  EXPECT_OK(with([&](const Result<Tensor>& x) { return optimizer.step(*model, *loss_of(x, *model)); }, plan));
  Optimizer wrong = optim::adamw(*model, {.lr = -1});
  EXPECT_FAILS(with([&](const Result<Tensor>& x) { return wrong.step(*model, *loss_of(x, *model)); }, ws),
               Errc::invalid_argument);
  EXPECT_EQ(optimizer.steps(), 0u);
  EXPECT_EQ(std::vector<float>(model->slab().begin(), model->slab().end()), before);
}

// A rule of a caller's own that adds to a parameter it did not name: it would come too late.
struct HiddenSaved {
  GradRef x, hidden;
  std::size_t n, parameters;
};
void backward_hidden(const void* saved, Grads& grads) noexcept {
  const auto& s = *static_cast<const HiddenSaved*>(saved);
  if (const Into to = grads.into(s.hidden)) std::fill_n(to.data, to.accumulate ? 0 : s.parameters, 1.0f);
  grads.pass(s.x);
}
constexpr Rule k_hidden{"hidden", backward_hidden};

TEST(StepOfALoss, SaysThatARuleDidNotNameAParameter) {
  const auto values = waves(5 * 6);
  auto model = nn::build(nn::linear(6) | nn::linear(6), {6}, init::xavier(1));
  ASSERT_OK(model);
  Optimizer optimizer = optim::sgd(*model, {.lr = 0.1f});
  Workspace ws{{.scratch = 4_MiB, .threads = 1}};
  auto tape = ws.record();
  auto x = tape.input(view(values, {5, 6})) | std::get<0>(model->layers().layers);
  ASSERT_OK(x);
  const Tensor hidden = *model->parameter("1.weight");
  auto y = Fresh::make(*x->context(), x->shape());
  ASSERT_OK(y);
  std::copy_n(x->f32(), x->numel(), y->f32());
  auto same = std::move(*y).freeze(custom_rule(k_hidden), {&*x},
                                   HiddenSaved{x->grad_ref(), hidden.grad_ref(), x->numel(), hidden.numel()});
  auto loss = ops::sum(same | std::get<1>(model->layers().layers));
  ASSERT_OK(loss);
  EXPECT_FAILS_SAYING(optimizer.step(*model, *loss), "not among its operation's inputs");
}

// However little memory there is: an error value, and a step that has enough comes after it.
TEST(StepOfALoss, SaysThatMemoryRanOut) {
  constexpr std::size_t k_all = 4_MiB;
  const auto values = waves(4 * 6 * 8);
  const auto body = nn::layer_norm() | nn::linear(8) | nn::relu();
  auto model = nn::build(nn::linear(8) | nn::checkpoint(body) | nn::repeat(2, nn::linear(8)), {6, 8}, init::xavier(1));
  ASSERT_OK(model);
  for (const bool bf16 : {false, true}) {
    Optimizer optimizer = optim::adamw(*model);
    Workspace ws{{.scratch = k_all, .threads = 1, .bf16 = bf16}};
    const auto step = [&] {
      auto tape = ws.record();
      auto loss = ops::sum(ops::square(tape.input(view(values, {4, 6, 8})) | *model));
      return loss.and_then([&](const Tensor& l) { return optimizer.step(*model, l); });
    };
    qorus_test::starve(ws, k_all, k_all, step);  // a line less each time
  }
}

TEST(StepOfALoss, AllocatesNothingOnceWarm) {
  QORUS_NEEDS_ALLOCATION_COUNTER();
  const auto values = waves(5 * 6);
  auto model = nn::build(nn::linear(16) | nn::relu() | nn::linear(6), {6}, init::xavier(1));
  ASSERT_OK(model);
  Optimizer optimizer = optim::adamw(*model);
  Workspace ws{{.scratch = 4_MiB, .threads = 2}};
  for (int i = 0; i < 4; ++i) {
    Status done;
    const auto allocated = qorus_test::allocations_of([&] {
      auto tape = ws.record();
      auto loss = ops::sum(ops::square(tape.input(view(values, {5, 6})) | *model));
      done = loss.and_then([&](const Tensor& l) { return optimizer.step(*model, l); });
    });
    ASSERT_OK(done);
    if (i > 0) EXPECT_EQ(allocated, 0u) << "step " << i;
  }
}

}  // namespace
