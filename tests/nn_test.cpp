// qorus.nn: building, naming, pipes and their fusion, initialisers, plans, summaries, and what goes wrong.
#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include "tests/nn_testing.h"

import qorus.nn;

#include "tests/nn_running.h"

using namespace qorus;
using namespace qorus_test;

namespace {

struct SwiGlu {
  nn::Linear gate_proj, up_proj, down_proj;
  static constexpr auto fields() {
    return nn::fields("gate_proj", &SwiGlu::gate_proj, "up_proj", &SwiGlu::up_proj, "down_proj", &SwiGlu::down_proj);
  }
  Result<Tensor> operator()(const Tensor& x) const { return (x | gate_proj | nn::silu()) * (x | up_proj) | down_proj; }
};
SwiGlu swiglu(std::int64_t d_ff, std::int64_t d_model) {
  return {nn::linear(d_ff, {.bias = false}), nn::linear(d_ff), nn::linear(d_model)};
}

// A linear layer that the chain cannot fuse.
struct PlainLinear {
  nn::Linear inner;
  static constexpr auto fields() { return nn::fields("inner", &PlainLinear::inner); }
  Result<Tensor> operator()(const Tensor& x) const { return inner(x); }
};

std::vector<std::string> names_of(const nn::Parameters& model) {
  std::vector<std::string> names;
  for (const auto& parameter : model.parameters()) names.emplace_back(parameter.name.c_str());
  return names;
}

}  // namespace

TEST(Build, InfersShapesAndNamesInOrder) {
  auto model =
      nn::build(nn::flatten() | nn::linear(5) | nn::relu() | nn::named("head", nn::linear(2, {.bias = false})), {3, 4});
  ASSERT_OK(model);
  EXPECT_EQ(names_of(*model), (std::vector<std::string>{"1.weight", "1.bias", "head.weight"}));
  EXPECT_EQ(model->parameter("1.weight")->shape(), (Shape{5, 12}));
  EXPECT_EQ(model->parameter("1.bias")->shape(), (Shape{5}));
  EXPECT_EQ(model->parameter("head.weight")->shape(), (Shape{2, 5}));
  EXPECT_EQ(model->parameter_count(), 5u * 12 + 5 + 2 * 5);
  EXPECT_EQ(model->trainable_count(), model->parameter_count());
  EXPECT_FAILS(model->parameter("2.weight"), Errc::not_found);
}

TEST(Build, CustomLayersRepeatsAndResiduals) {
  auto model = nn::build(nn::repeat(2, nn::residual(swiglu(8, 4))) | nn::linear(3), {4});
  ASSERT_OK(model);
  const std::vector<std::string> block = {"gate_proj.weight", "up_proj.weight", "up_proj.bias", "down_proj.weight",
                                          "down_proj.bias"};
  std::vector<std::string> wanted;
  for (const char* prefix : {"0.0.body.", "0.1.body."}) {
    for (const auto& name : block) wanted.push_back(prefix + name);
  }
  wanted.insert(wanted.end(), {"1.weight", "1.bias"});
  EXPECT_EQ(names_of(*model), wanted);
  EXPECT_NE(*model->parameter("0.0.body.gate_proj.weight")->to_vector(),
            *model->parameter("0.1.body.gate_proj.weight")->to_vector());
  EXPECT_EQ(outputs(*model, view(waves(12), {3, 4})).size(), 9u);
}

TEST(Build, EveryParameterIsAlignedAndInTheSlab) {
  auto model = nn::build(nn::linear(7) | nn::linear(3) | nn::linear(1), {5});
  ASSERT_OK(model);
  for (const auto& parameter : model->parameters()) {
    EXPECT_EQ(reinterpret_cast<std::uintptr_t>(parameter.tensor.data()) % k_alignment, 0u) << parameter.name.c_str();
    EXPECT_EQ(parameter.tensor.f32(), model->slab().data() + parameter.offset);
  }
}

TEST(Build, OneNameTwiceIsAnError) {
  EXPECT_FAILS_SAYING(nn::build(nn::named("a", nn::linear(2)) | nn::named("a", nn::linear(2)), {3}), "a.weight");
}

TEST(Build, ErrorsNameTheLayerAndTheShapes) {
  EXPECT_FAILS(nn::build(nn::linear(-1), {3}), Errc::invalid_size);
  EXPECT_FAILS(nn::build(nn::linear(2), Shape{-1}), Errc::invalid_size);
  EXPECT_FAILS(nn::build(nn::reshape({5, 5}) | nn::linear(2), {24}), Errc::invalid_size);
  if (qorus_test::k_counts_allocations) {  // a sanitizer's malloc ends the process instead
    EXPECT_FAILS(nn::build(nn::linear(1 << 22), {1 << 20}), Errc::out_of_memory);
  }
  auto model = nn::build(nn::linear(2), {3});
  ASSERT_OK(model);
  Workspace ws{{.scratch = 1_MiB, .threads = 1}};
  auto frame = ws.frame();
  EXPECT_FAILS_SAYING(frame.input(view(waves(8), {2, 4})) | *model, "linear: invalid size: [2,4] and [2,3]");
  EXPECT_FAILS(frame.input(view(waves(8), {2, 4})) | nn::linear(5), Errc::not_built);
}

TEST(Build, AFailedModelPassesItsErrorDownThePipe) {
  auto model = nn::build(nn::linear(-1), {3});
  Workspace ws{{.scratch = 1_MiB, .threads = 1}};
  auto frame = ws.frame();
  EXPECT_FAILS(frame.input(view(waves(3), {1, 3})) | model | nn::relu(), Errc::invalid_size);
}

TEST(Build, ParametersAreStaleOnceTheModelIsGone) {
  Tensor weight;
  {
    auto model = nn::build(nn::linear(2), {3});
    ASSERT_OK(model);
    weight = *model->parameter("weight");
    auto moved = std::move(*model);
    EXPECT_TRUE(weight.alive());
    EXPECT_EQ(outputs(moved, view(waves(6), {2, 3})).size(), 4u);
  }
  EXPECT_FAILS(weight.to_vector(), Errc::stale_tensor);
}

TEST(Assign, ReplacesOrRefuses) {
  auto model = nn::build(nn::linear(2), {3});
  ASSERT_OK(model);
  const auto values = waves(6);
  ASSERT_OK(model->assign("weight", view(values, {2, 3})));
  EXPECT_EQ(*model->parameter("weight")->to_vector(), values);
  EXPECT_FAILS_SAYING(model->assign("weight", view(values, {3, 2})), "weight: invalid size: [3,2] and [2,3]");
  EXPECT_FAILS(model->assign("wait", view(values, {2, 3})), Errc::not_found);
}

TEST(Chain, IsFlatAndAssociative) {
  auto a = nn::linear(4), b = nn::linear(3);
  auto left = (a | nn::relu()) | b;
  auto right = a | (nn::relu() | b);
  static_assert(std::is_same_v<decltype(left), decltype(right)>);
  static_assert(std::is_same_v<decltype(left), nn::Chain<nn::Linear, nn::Activate<Activation::relu>, nn::Linear>>);
}

// `linear | activation` is one kernel; it must give what the two give apart, forward and backward.
template <Activation A>
void expect_fused_agrees() {
  auto fused = nn::build(nn::linear(9) | nn::Activate<A>{} | nn::linear(2), {7}, init::xavier(3));
  auto plain = nn::build(PlainLinear{nn::linear(9)} | nn::Activate<A>{} | nn::linear(2), {7}, init::xavier(3));
  ASSERT_OK(fused);
  ASSERT_OK(plain);
  const auto x = waves(5 * 7);
  const auto run = [&](const auto& model, const char* name, std::size_t nodes) {
    Workspace ws{{.scratch = 4_MiB, .threads = 1}};
    auto tape = ws.record();
    auto y = tape.input(view(x, {5, 7})) | model;
    auto loss = ops::sum(y * y);
    auto grads = loss.and_then(backward);
    EXPECT_OK(grads);
    EXPECT_EQ(tape.size(), nodes);
    auto values = *y->to_vector();
    const auto grad = *grads->of(*model.parameter(name))->to_vector();
    values.insert(values.end(), grad.begin(), grad.end());
    return values;
  };
  const auto one = run(*fused, "0.weight", 4), two = run(*plain, "0.inner.weight", 5);
  ASSERT_EQ(one.size(), two.size());
  for (std::size_t i = 0; i < one.size(); ++i) EXPECT_NEAR(one[i], two[i], 1e-5f * (1 + std::abs(two[i])));
}
TEST(Chain, FusedAgreesWithUnfused) {
  expect_fused_agrees<Activation::relu>();
  expect_fused_agrees<Activation::gelu>();
  expect_fused_agrees<Activation::gelu_tanh>();
  expect_fused_agrees<Activation::silu>();
  expect_fused_agrees<Activation::sigmoid>();
  expect_fused_agrees<Activation::tanh>();
}

TEST(Dropout, DropsOnATapeAndNowhereElse) {
  const std::vector<float> x(10000, 1);
  Workspace ws{{.scratch = 4_MiB, .threads = 2, .seed = 5}};
  const auto drop = [&](auto&& scope) {
    auto y = scope.input(view(x, {100, 100})) | nn::dropout(0.25f);
    EXPECT_OK(y);
    return *y->to_vector();
  };
  const auto dropped = drop(ws.record());
  const auto zeros = std::count(dropped.begin(), dropped.end(), 0.0f);
  EXPECT_NEAR(static_cast<double>(zeros), 2500, 200);  // 4.6 standard deviations
  EXPECT_EQ(std::count(dropped.begin(), dropped.end(), 1 / 0.75f), 10000 - zeros);
  EXPECT_NE(drop(ws.record()), dropped);
  EXPECT_EQ(drop(ws.frame()), x);
}

// Each loss ends a pipe, and gives what its operation gives.
TEST(Loss, EndsAPipe) {
  const auto x = waves(12), t = std::vector<float>{0, 1, 0, 1, 1, 0, 0, 0, 1, 1, 0, 1};
  const std::vector<std::int32_t> classes = {0, 3, 2};
  Workspace ws{{.scratch = 1_MiB, .threads = 1}};
  auto frame = ws.frame();
  auto in = frame.input(view(x, {3, 4}));
  const Tensor target = view(t, {3, 4}), labels = Tensor::borrow(std::span<const std::int32_t>(classes), {3});
  const auto expect_same = [&](const Result<Tensor>& a, const Result<Tensor>& b) {
    ASSERT_OK(a);
    ASSERT_OK(b);
    EXPECT_EQ(*a->item(), *b->item());
  };
  expect_same(in | loss::cross_entropy(labels, {.label_smoothing = 0.1f}),
              ops::cross_entropy(in, labels, {.label_smoothing = 0.1f}));
  expect_same(in | nn::log_softmax() | loss::nll(labels), ops::nll(ops::log_softmax(in), labels));
  expect_same(in | loss::mse(target), ops::mse(in, target));
  expect_same(in | loss::l1(target), ops::l1(in, target));
  expect_same(in | loss::huber(target, 0.3f), ops::huber(in, target, 0.3f));
  expect_same(in | loss::bce_with_logits(target, 2), ops::bce_with_logits(in, target, 2));
  EXPECT_FAILS(in | loss::mse(fail(Errc::not_found, "a file", "is not there")), Errc::not_found);
}

// The loss and gradients of `x | (model | loss)` are those of `x | model | loss`; gives the workspace's bytes of both.
template <class M>
std::array<std::size_t, 2> expect_loss_of_whole(const M& model, const Tensor& x, const BoundLoss& loss) {
  std::array<std::size_t, 2> bytes{};
  std::vector<float> values[2];
  for (const bool whole : {false, true}) {
    Workspace ws{{.scratch = 256_MiB, .threads = 2}};
    auto tape = ws.record();
    auto in = tape.input(x);
    auto value = whole ? in | model | loss : in | (model | loss);
    EXPECT_OK(value);
    values[whole] = *value->to_vector();
    auto gradients = value.and_then(backward);
    EXPECT_OK(gradients);
    for (const auto& parameter : model.parameters()) {
      const auto g = *gradients->of(parameter.tensor)->to_vector();
      values[whole].insert(values[whole].end(), g.begin(), g.end());
    }
    bytes[whole] = ws.counters().high_water;
  }
  EXPECT_EQ(values[0].size(), values[1].size());
  for (std::size_t i = 0; i < values[0].size(); ++i)
    EXPECT_NEAR(values[0][i], values[1][i], 1e-6 + 1e-5 * std::fabs(values[1][i])) << i;
  return bytes;
}

TEST(Loss, UnderAModelIsThatOfItsResult) {
  const auto x = waves(5 * 6);
  const std::vector<std::int32_t> classes = {0, 3, 2, 1, 1};
  const Tensor in = view(x, {5, 6}), labels = Tensor::borrow(std::span<const std::int32_t>(classes), {5});
  const auto check = [&](auto layers) {
    auto model = nn::build(layers, {6});
    ASSERT_OK(model);
    expect_loss_of_whole(*model, in, loss::cross_entropy(labels, {.label_smoothing = 0.1f}));
    expect_loss_of_whole(*model, in, loss::cross_entropy(labels, {.ignore_index = 1}));
  };
  check(nn::linear(4, {.bias = false}));
  check(nn::linear(4));
  check(nn::linear(7) | nn::relu() | nn::linear(4, {.bias = false}));
  check(nn::linear(7) | nn::relu() | nn::linear(4));
  check(nn::linear(7) | nn::layer_norm() | nn::linear(4) | nn::tanh());
  check(nn::residual(nn::linear(6)) | nn::linear(4, {.bias = false}) | nn::softmax());
  auto model = nn::build(nn::linear(7) | nn::linear(4, {.bias = false}), {6});
  ASSERT_OK(model);
  const auto wanted = waves(20);
  expect_loss_of_whole(*model, in, loss::mse(view(wanted, {5, 4})));
  Workspace ws{{.scratch = 1_MiB, .threads = 1}};
  auto frame = ws.frame();
  EXPECT_FAILS(frame.input(in) | (*model | loss::cross_entropy(view(wanted, {5, 4}))), Errc::invalid_dtype);
  EXPECT_FAILS(frame.input(in) | (*model | loss::cross_entropy(fail(Errc::not_found, "a file", "is not there"))),
               Errc::not_found);
}

TEST(Loss, OfALanguageModelNeedsNotAllLogits) {
  constexpr std::int64_t vocab = 20000, batch = 4, context = 128;
  std::vector<std::int32_t> ids(batch * context), next(ids.size());
  for (std::size_t i = 0; i < ids.size(); ++i) {
    ids[i] = static_cast<std::int32_t>(i * i % vocab);
    next[i] = i % 7 ? static_cast<std::int32_t>(i * 31 % vocab) : -100;
  }
  const Tensor in = Tensor::borrow(std::span<const std::int32_t>(ids), {batch, context}),
               y = Tensor::borrow(std::span<const std::int32_t>(next), {batch, context});
  for (const bool tied : {false, true}) {
    const nn::LanguageOptions options{.vocab = vocab, .context = context, .d_model = 8, .heads = 2};
    auto model =
        nn::build(tied ? nn::gpt(options) : nn::llama(options), {context}, init::normal(1), {.input = DType::i32});
    ASSERT_OK(model);
    const auto [parts, whole] = expect_loss_of_whole(*model, in, loss::cross_entropy(y));
    const std::size_t logits = vocab * batch * context * sizeof(float);
    EXPECT_GT(whole, 2 * logits);
    EXPECT_LT(parts, logits / 2);
  }
}

// The last norm's gradient takes the memory of what the blocks made, whatever these keep.
TEST(Loss, OfALanguageModelWhateverItsBlocksKeep) {
  std::vector<std::int32_t> ids(3 * 16);
  for (std::size_t i = 0; i < ids.size(); ++i) ids[i] = static_cast<std::int32_t>(i * i % 11);
  const Tensor in = Tensor::borrow(std::span<const std::int32_t>(ids), {3, 16});
  const nn::TransformerOptions blocks[] = {
      {}, {.recompute = nn::recompute}, {.dropout = 0.2f}, {.pre_norm = false}, {.experts = 4}};
  for (const nn::TransformerOptions& block : blocks) {
    for (const std::size_t layers : {std::size_t{0}, std::size_t{2}}) {
      const nn::LanguageOptions options{
          .vocab = 11, .context = 16, .d_model = 16, .heads = 2, .layers = layers, .block = block};
      for (const auto& network : {nn::gpt(options), nn::llama(options)}) {
        auto model = nn::build(network, {16}, init::normal(1), {.input = DType::i32});
        ASSERT_OK(model);
        expect_loss_of_whole(*model, in, loss::cross_entropy(in));
      }
    }
  }
}

TEST(Init, IsDeterministicAndOfTheStatedSpread) {
  const auto weight = [](const Initializer& init) {
    auto model = nn::build(nn::linear(400), {300}, init);
    EXPECT_OK(model);
    return *model->parameter("weight")->to_vector();
  };
  const auto moments = [](const std::vector<float>& v) {
    double mean = 0, square = 0;
    for (float x : v) mean += x;
    mean /= static_cast<double>(v.size());
    for (float x : v) square += (x - mean) * (x - mean);
    return std::pair(mean, std::sqrt(square / static_cast<double>(v.size())));
  };
  EXPECT_EQ(weight(init::kaiming(1)), weight(init::kaiming(1)));
  EXPECT_NE(weight(init::kaiming(1)), weight(init::kaiming(2)));
  const struct {
    Initializer init;
    double deviation;
  } cases[] = {{init::kaiming(5), std::sqrt(2.0 / 300)},
               {init::kaiming_uniform(5), std::sqrt(2.0 / 300)},
               {init::xavier(5), std::sqrt(2.0 / 700)},
               {init::xavier_uniform(5), std::sqrt(2.0 / 700)},
               {init::normal(5, 0.3f), 0.3},
               {init::uniform(5, -1, 1), 1 / std::sqrt(3.0)},
               {init::zeros(), 0}};
  for (const auto& c : cases) {  // 120,000 draws: the deviation's own standard error is 0.2 %
    const auto [mean, deviation] = moments(weight(c.init));
    EXPECT_NEAR(mean, 0, 0.012 * (c.deviation + 1e-12) + 1e-12);
    EXPECT_NEAR(deviation, c.deviation, 0.012 * c.deviation);
  }
}

TEST(Init, OrthogonalRowsOrColumns) {
  for (const auto& [out, in] : {std::pair{6, 10}, {10, 6}, {5, 5}}) {
    auto model = nn::build(nn::linear(out), {in}, init::orthogonal(9, 2));
    ASSERT_OK(model);
    const auto w = *model->parameter("weight")->to_vector();
    const int count = std::min(out, in), length = std::max(out, in);
    for (int i = 0; i < count; ++i) {
      for (int j = 0; j < count; ++j) {
        double dot = 0;
        for (int k = 0; k < length; ++k)
          dot += out <= in ? double(w[i * in + k]) * w[j * in + k] : double(w[k * in + i]) * w[k * in + j];
        EXPECT_NEAR(dot, i == j ? 4 : 0, 1e-5);
      }
    }
  }
}

TEST(Plan, EqualsWhatARunTakes) {
  auto model = nn::build(nn::linear(64) | nn::gelu() | nn::linear(10), {32});
  ASSERT_OK(model);
  const auto x = waves(16 * 32);
  for (const int threads : {1, 2}) {
    auto planned = nn::plan(*model, {16, 32}, {.training = true, .threads = threads});
    ASSERT_OK(planned);
    Workspace exact{{.scratch = *planned, .threads = threads}};
    auto tape = exact.record();
    auto done = (tape.input(view(x, {16, 32})) | *model)
                    .and_then([](const Tensor& y) { return ops::sum(y); })
                    .and_then(backward);
    EXPECT_OK(done);
    EXPECT_EQ(exact.counters().high_water, *planned);
    Workspace small{{.scratch = *planned / 2, .threads = threads}};
    auto second = small.record();
    EXPECT_FAILS((second.input(view(x, {16, 32})) | *model)
                     .and_then([](const Tensor& y) { return ops::sum(y); })
                     .and_then(backward),
                 Errc::out_of_memory);
  }
}

TEST(Summary, CountsAndReads) {
  auto model = nn::build(nn::flatten() | nn::linear(256) | nn::relu() | nn::named("head", nn::linear(10)), {28, 28});
  ASSERT_OK(model);
  auto table = nn::summary(*model);
  ASSERT_OK(table);
  ASSERT_EQ(table->rows().size(), 4u);
  EXPECT_EQ(table->rows()[1].parameters, 784u * 256 + 256);
  EXPECT_EQ(table->rows()[1].output, (Shape{1, 256}));
  EXPECT_STREQ(table->rows()[3].name.c_str(), "head");
  std::string text(table->format({}), '\0');
  table->format(std::span(text.data(), text.size() + 1));
  EXPECT_NE(text.find("[batch, 256]"), text.npos);
  EXPECT_NE(text.find("203530"), text.npos) << text;
}

// A norm before a layer of products is made again in the backward: the same bits in less memory, whatever comes behind.
TEST(Fusion, ATapeKeepsNothingOfNormsBeforeProducts) {
  struct Outcome {
    std::vector<float> gradients;
    std::size_t bytes = 0;
  };
  const auto x = waves(64 * 48), y = waves(64 * 48);
  const auto run = [&](const auto& layers) {
    Outcome outcome;
    auto model = nn::build(layers, {48}, init::normal(3));
    EXPECT_OK(model);
    Workspace ws{{.scratch = 16_MiB, .threads = 2}};
    auto tape = ws.record();
    auto done = (tape.input(view(x, {64, 48})) | (*model | loss::mse(view(y, {64, 48})))).and_then(backward);
    EXPECT_OK(done);
    const auto slab = done->slab(model->block());
    outcome.gradients.assign(slab->begin(), slab->end());
    outcome.bytes = ws.counters().high_water;
    return outcome;
  };
  const auto expect_leaner = [&](const auto& fused, const auto& plain, std::size_t arrays) {
    const Outcome got = run(fused), wanted = run(plain);
    EXPECT_EQ(got.gradients, wanted.gradients);
    EXPECT_LE(got.bytes + arrays * 64 * 48 * sizeof(float), wanted.bytes + 4096);
  };
  const auto plain = [] { return PlainLinear{nn::linear(48)}; };
  const auto three = [](const auto& block) { return nn::residual(block) | nn::residual(block) | nn::residual(block); };
  expect_leaner(three(nn::layer_norm() | nn::linear(48)), three(nn::layer_norm() | plain()), 2);
  expect_leaner(three(nn::rms_norm() | nn::linear(48) | nn::gelu()), three(nn::rms_norm() | plain() | nn::gelu()), 2);
  expect_leaner(nn::linear(48) | nn::layer_norm() | nn::linear(48), nn::linear(48) | nn::layer_norm() | plain(), 0);
}

TEST(Inference, AllocatesNothingAndDoesNotDependOnThreads) {
  QORUS_NEEDS_ALLOCATION_COUNTER();
  auto model = nn::build(nn::linear(96) | nn::gelu() | nn::linear(33) | nn::softmax(), {50});
  ASSERT_OK(model);
  const auto x = waves(40 * 50);
  std::vector<float> wanted;
  for (const int threads : {1, 2, 3}) {
    Workspace ws{{.scratch = 4_MiB, .threads = threads}};
    for (int run = 0; run < 3; ++run) {
      std::vector<float> got(40 * 33);
      const auto allocated = qorus_test::allocations_of([&] {
        auto frame = ws.frame();
        auto y = frame.input(view(x, {40, 50})) | *model;
        EXPECT_TRUE(y && y->copy_to(std::span<float>(got)));
      });
      if (run > 0) EXPECT_EQ(allocated, 0u);
      if (wanted.empty()) wanted = got;
      EXPECT_EQ(got, wanted);
    }
  }
}
