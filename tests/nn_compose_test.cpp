// Composition: branches, graphs, Any, structures as JSON, frozen and tied parameters; and gradients through whole layers.
#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "tests/nn_testing.h"

import qorus.nn;
#include "tests/nn_running.h"

using namespace qorus;
using qorus_test::view;
using qorus_test::waves;

namespace {

std::vector<std::string> names_of(const nn::Parameters& model) {
  std::vector<std::string> names;
  for (const auto& p : model.parameters()) names.emplace_back(p.name.c_str());
  return names;
}
std::string json_of(const auto& layer) {
  auto text = nn::to_json(layer);
  EXPECT_OK(text);
  return text ? std::string(text->data(), text->size()) : "";
}

// The loss sum(y w) of a model at parameters moved along `direction` by `step`, summed in double.
double loss_at(nn::Model<nn::Any>& model, const Tensor& x, std::span<const float> start,
               const std::vector<float>& direction, double step) {
  auto slab = model.trainable_slab();
  for (std::size_t i = 0; i < slab.size(); ++i)
    slab[i] = static_cast<float>(static_cast<double>(start[i]) + step * static_cast<double>(direction[i]));
  Workspace ws{{.scratch = 64_MiB, .threads = 1}};
  auto frame = ws.frame();
  auto y = frame.input(x) | model;
  EXPECT_OK(y);
  const auto values = *y->to_vector();
  const auto weights = waves(values.size(), 1.3);
  double sum = 0;
  for (std::size_t i = 0; i < values.size(); ++i)
    sum += static_cast<double>(values[i]) * static_cast<double>(weights[i]);
  return sum;
}

// The gradient's length against the slope of the loss along it, by central differences of fourth order.
void expect_gradient(const char* name, nn::Any layer, const Shape& example, std::int64_t batch) {
  SCOPED_TRACE(name);
  auto built = nn::build(std::move(layer), example, init::xavier(5));
  ASSERT_OK(built);
  nn::Model<nn::Any>& model = *built;
  const Shape shape = example.inserted(0, batch);
  const auto values = waves(shape.numel());
  const Tensor x = view(values, shape);
  std::vector<float> gradient;
  {
    Workspace ws{{.scratch = 64_MiB, .threads = 2}};
    auto tape = ws.record();
    auto y = tape.input(x) | model;
    ASSERT_OK(y);
    const auto weights = waves(y->numel(), 1.3);
    auto g = ops::sum(y * view(weights, y->shape()).in(tape.context())).and_then(backward);
    ASSERT_OK(g);
    const auto slab = *g->slab(model.block());
    gradient.assign(slab.begin(), slab.end());
  }
  double length = 0;
  for (const float g : gradient) length += static_cast<double>(g) * static_cast<double>(g);
  length = std::sqrt(length);
  ASSERT_GT(length, 0);
  const std::vector<float> start(model.slab().begin(), model.slab().end());
  for (float& g : gradient) g = static_cast<float>(static_cast<double>(g) / length);
  const double h = std::min(0.02, 0.1 / length);  // the steeper, the more it bends
  const auto at = [&](double step) { return loss_at(model, x, start, gradient, step); };
  const double slope = (8 * (at(h) - at(-h)) - (at(2 * h) - at(-2 * h))) / (12 * h);
  EXPECT_NEAR(slope, length, 1e-4 * length);
}

// Training and inference with less room than they need.
template <class M>
void starve(M& model, const Tensor& x, bool bf16) {
  constexpr std::size_t k_all = 64_MiB, k_tries = 96;
  for (const bool training : {true, false}) {
    Workspace ws{{.scratch = k_all, .threads = 1, .bf16 = bf16}};
    const auto step = [&]() -> Status {
      if (!training) {
        auto frame = ws.frame();
        const auto y = frame.input(x) | model;
        return y ? Status() : fail(y.error());
      }
      auto tape = ws.record();
      auto y = tape.input(x) | model;
      const auto done = (x.dtype() == DType::i32 ? y | loss::cross_entropy(x) : ops::sum(y)).and_then(backward);
      return done ? Status() : fail(done.error());
    };
    qorus_test::starve(ws, k_all, k_tries, step);
  }
}

}  // namespace

TEST(Layers, GradientsOfWholeLayers) {
  using enum nn::FeedForwardKind;
  expect_gradient("attention", nn::any(nn::attention(6, 3, {.bias = true})), {5, 6}, 2);
  expect_gradient("attention, everything",
                  nn::any(nn::attention(8, 4, {.kv_heads = 2, .rope = 100, .alibi = true, .softcap = 3, .window = 3})),
                  {7, 8}, 1);
  for (const auto kind : {relu, gelu, gelu_tanh, silu, swiglu, geglu})
    expect_gradient("feed forward", nn::any(nn::feed_forward(7, {.kind = kind})), {3, 5}, 2);
  expect_gradient("block", nn::any(nn::transformer_block(6, 2, {.bias = true})), {4, 6}, 2);
  expect_gradient("post-norm block",
                  nn::any(nn::transformer_block(6, 2, {.kind = swiglu, .pre_norm = false, .rms = true})), {4, 6}, 2);
  expect_gradient("decoder", nn::any(nn::decoder(2, 6, 2, {.cross = true})), {4, 6}, 2);
  expect_gradient("encoder and positions", nn::any(nn::positions(5) | nn::sinusoids() | nn::encoder(1, 6, 2)), {4, 6},
                  1);
  expect_gradient("bilinear", nn::any(nn::bilinear(3)), {5}, 4);
  expect_gradient("bilinear of one", nn::any(nn::bilinear(1)), {1}, 1);
  expect_gradient("experts", nn::any(nn::experts(4, 5, {.balance = 0})), {7, 6}, 2);
  expect_gradient("experts, capacity",
                  nn::any(nn::experts(3, 5, {.top_k = 1, .capacity = 0.5f, .balance = 0, .normalize = false})), {7, 6},
                  2);
  expect_gradient("lstm", nn::any(nn::lstm(3, {.layers = 2, .bidirectional = true}) | nn::last_step()), {5, 2}, 3);
  expect_gradient("concat", nn::any(nn::concat(nn::linear(3) | nn::tanh(), nn::linear(2)) | nn::linear(2)), {4}, 3);
  expect_gradient("branch, gate",
                  nn::any(nn::branch(nn::linear(4), nn::gate(nn::linear(4), nn::linear(4) | nn::sigmoid()))), {4}, 3);
  expect_gradient("parallel", nn::any(nn::parallel(nn::linear(3), nn::linear(1))), {6}, 2);
}

// One of everything and primes; and no examples at all: a result of none, and gradients of zero.
TEST(Layers, OddShapes) {
  const auto odd = [](const char* name, const nn::Any& layer, const Shape& example) {
    expect_gradient(name, layer, example, 1);
    expect_gradient(name, layer, example, 5);
    auto model = nn::build(layer, example, init::xavier(5));
    ASSERT_OK(model);
    Workspace ws{{.scratch = 16_MiB, .threads = 2}};
    auto tape = ws.record();
    auto y = tape.input(view({}, example.inserted(0, 0))) | *model;
    ASSERT_OK(y) << name;
    EXPECT_EQ(y->dim(0), 0) << name;
    auto g = ops::sum(y).and_then(backward);
    ASSERT_OK(g) << name;
    const auto slab = *g->slab(model->block());
    EXPECT_TRUE(std::all_of(slab.begin(), slab.end(), [](float v) { return v == 0; })) << name;
  };
  odd("lstm of one", nn::any(nn::lstm(1)), {1, 1});
  odd("lstm of primes", nn::any(nn::lstm(17)), {7, 3});
  odd("gru of one", nn::any(nn::gru(1)), {1, 1});
  odd("gru of primes", nn::any(nn::gru(13, {.bidirectional = true})), {5, 11});
  odd("rnn of primes", nn::any(nn::rnn(19, {.layers = 2})), {3, 2});
  odd("attention of one", nn::any(nn::attention(1, 1)), {1, 1});
  odd("attention of primes", nn::any(nn::attention(21, 7, {.kv_heads = 1})), {11, 21});
  odd("block of one", nn::any(nn::transformer_block(2, 1)), {1, 2});
  odd("block of primes", nn::any(nn::transformer_block(13, 1, {.kind = nn::FeedForwardKind::swiglu, .rms = true})),
      {17, 13});
  odd("experts of one", nn::any(nn::experts(1, 1, {.top_k = 1, .balance = 0})), {1, 1});
  odd("experts of primes", nn::any(nn::experts(5, 7, {.top_k = 3, .balance = 0})), {3, 11});
  odd("bilinear", nn::any(nn::bilinear(7)), {13});
}

// A warm training step of each, by two workers, allocates nothing.
TEST(Layers, WarmStepsAllocateNothing) {
  if (!qorus_test::k_counts_allocations) GTEST_SKIP();
  nn::Graph g;
  const auto in = g.input();
  g.add(nn::join_sum(), {in, g.add(nn::lstm(8, {.layers = 2}), {in})});
  const nn::LanguageOptions small{.vocab = 11, .context = 6, .d_model = 8, .heads = 4, .layers = 2};
  nn::LanguageOptions grouped = small, mixed = small;
  grouped.block.attention.kv_heads = 2;
  mixed.block.experts = 4;
  const auto values = waves(3 * 6 * 8);
  std::vector<std::int32_t> ids(3 * 6);
  for (std::size_t i = 0; i < ids.size(); ++i) ids[i] = static_cast<std::int32_t>(i * 7 % 11);
  const Tensor numbers = view(values, {3, 6, 8}), tokens = Tensor::borrow(std::span<const std::int32_t>(ids), {3, 6});
  const auto check = [&](const nn::Any& layer, const Tensor& x) {
    auto model = nn::build(layer, x.shape().without(0), init::xavier(1), {.input = x.dtype()});
    ASSERT_OK(model);
    Workspace ws{{.scratch = 64_MiB, .threads = 2}};
    std::uint64_t allocated = 0;
    for (int i = 0; i < 4; ++i) {
      const std::uint64_t before = qorus_test::allocations();
      auto tape = ws.record();
      auto y = tape.input(x) | *model;
      auto done = (x.dtype() == DType::i32 ? y | loss::cross_entropy(x) : ops::sum(y)).and_then(backward);
      ASSERT_OK(done);
      if (i > 1) allocated += qorus_test::allocations() - before;
    }
    EXPECT_EQ(allocated, 0u) << layer.kind();
    for (const bool bf16 : {false, true}) starve(*model, x, bf16);
  };
  for (const nn::Any& layer :
       {nn::any(nn::transformer_block(8, 2, {.kind = nn::FeedForwardKind::swiglu, .dropout = 0.1f})),
        nn::any(nn::experts(4, 16)), nn::any(nn::experts(4, 16, {.capacity = 1.25f})), nn::any(g),
        nn::any(nn::decoder(2, 8, 4, {.attention = {.rope = 100}, .cross = true})),
        nn::any(nn::decoder(2, 8, 4, {.recompute = nn::recompute})), nn::any(nn::lstm(8, {.bidirectional = true})),
        nn::any(nn::gru(8, {.bidirectional = true}))})
    check(layer, numbers);
  check(nn::any(nn::conv2d(4, 3, {.padding = 1}) | nn::batch_norm() | nn::relu() | nn::max_pool(2) |
                nn::conv_transpose2d(4, 2, {.stride = 2}) | nn::group_norm(2) | nn::avg_pool(2) | nn::upsample(2) |
                nn::pad({{1, 1}, {1, 1}}) | nn::adaptive_avg_pool(2) | nn::drop_path(0.1f) | nn::flatten() |
                nn::linear(3)),
        view(values, {4, 1, 6, 6}));
  for (const nn::Any& layer : {nn::any(nn::gpt(small)), nn::any(nn::llama(grouped)), nn::any(nn::gpt(mixed)),
                               nn::any(nn::embedding(11, 5) | nn::lstm(8, {.layers = 2}) | nn::linear(11)),
                               nn::any(nn::embedding(11, 5) | nn::gru(8, {.layers = 2}) | nn::linear(11))})
    check(layer, tokens);
}

TEST(Transformer, ADecoderWithAMemoryAndAPast) {
  Workspace ws{{.scratch = 64_MiB, .threads = 2}};
  auto model = nn::build(nn::attention(8, 4, {.kv_heads = 2, .rope = 50}), {6, 8}, init::xavier(2));
  ASSERT_OK(model);
  const auto values = waves(6 * 8);
  auto frame = ws.frame();
  const auto x = *frame.input(view(values, {1, 6, 8}));
  auto whole = model->layers().run(x);
  auto first = model->layers().run(*ops::slice(x, 1, 0, 4));
  ASSERT_OK(first);
  auto rest = model->layers().run(*ops::slice(x, 1, 4, 6), {.past_keys = first->keys, .past_values = first->values});
  ASSERT_OK(rest);
  EXPECT_EQ(*rest->y.to_vector(), *ops::slice(whole->y, 1, 4, 6)->to_vector());
  EXPECT_FAILS(model->layers().run(x, {.past_keys = first->keys}), Errc::invalid_argument);
  auto decoder = nn::build(nn::decoder(2, 8, 2, {.cross = true}), {3, 8}, init::xavier(2));
  ASSERT_OK(decoder);
  const auto memory = waves(5 * 8, 0.4);
  auto y = decoder->layers().run(*ops::slice(x, 1, 0, 3), {}, {.memory = frame.input(view(memory, {1, 5, 8}))});
  ASSERT_OK(y);
  EXPECT_EQ(y->shape(), (Shape{1, 3, 8}));
  EXPECT_FAILS(nn::build(nn::attention(8, 3), {6, 8}), Errc::invalid_argument);
}

TEST(Compose, GraphsReadEarlierNodes) {
  nn::Graph g;
  const auto x = g.input();
  const auto a = g.add(nn::linear(3), {x}, "stem");
  const auto b = g.add(nn::relu(), {a});
  g.add(nn::join_concat(), {a, b, x});
  auto model = nn::build(g, {4}, init::xavier(1));
  ASSERT_OK(model);
  EXPECT_EQ(names_of(*model), (std::vector<std::string>{"stem.weight", "stem.bias"}));
  Workspace ws{{.scratch = 1_MiB, .threads = 1}};
  const auto values = waves(8);
  auto frame = ws.frame();
  auto in = frame.input(view(values, {2, 4}));
  auto y = in | *model;
  ASSERT_OK(y);
  auto stem = ops::linear(in, *model->parameter("stem.weight"), *model->parameter("stem.bias"));
  EXPECT_EQ(*y->to_vector(), *ops::concat({stem, ops::relu(stem), in}, 1)->to_vector());
  nn::Graph wrong;
  wrong.add(nn::relu(), {{3}});
  EXPECT_FAILS(nn::build(wrong, {4}), Errc::invalid_argument);
  nn::Graph two;
  const auto p = two.input(), q = two.input();
  two.add(nn::bilinear(2), {p, q});
  EXPECT_FAILS(in | two, Errc::invalid_argument);
  EXPECT_FAILS(in | nn::Any(), Errc::not_built);
  EXPECT_FAILS(in | nn::parallel(nn::relu(), nn::relu(), nn::relu()), Errc::invalid_size);
}

TEST(Compose, AStructureSurvivesJson) {
  nn::Graph g;
  const auto x = g.input();
  const auto a = g.add(nn::frozen(nn::linear(6, {.bias = false})) | nn::tanh(), {x}, "stem");
  g.add(nn::join_sum(), {a, g.add(nn::residual(nn::linear(6)), {a})});
  const auto net = g | nn::reshape({3, 2}) | nn::named("rnn", nn::gru(4, {.layers = 2})) |
                   nn::repeat(2, nn::transformer_block(4, 2, {.attention = {.rope = 50}, .rms = true})) |
                   nn::last_step() | nn::concat(nn::linear(2), nn::identity()) | nn::rms_norm(1e-3f);
  const std::string text = json_of(net);
  auto again = nn::from_json(text);
  ASSERT_OK(again);
  EXPECT_EQ(json_of(*again), text);
  auto one = nn::build(net, {6}, init::xavier(4));
  auto two = nn::build(*again, {6}, init::xavier(4));
  ASSERT_OK(one);
  ASSERT_OK(two);
  EXPECT_EQ(names_of(*one), names_of(*two));
  EXPECT_EQ(one->trainable_count(), two->trainable_count());
  EXPECT_LT(one->trainable_count(), one->parameter_count());
  Workspace ws{{.scratch = 4_MiB, .threads = 1}};
  const auto values = waves(12);
  auto frame = ws.frame();
  auto in = frame.input(view(values, {2, 6}));
  const auto p = *(in | *one)->to_vector(), q = *(in | *two)->to_vector();
  ASSERT_EQ(p.size(), q.size());
  for (std::size_t i = 0; i < p.size(); ++i) EXPECT_NEAR(p[i], q[i], 1e-5);
}

TEST(Compose, HostileStructuresAreErrors) {
  for (const char* text :
       {"", "{", "[]", "{}", "null", "{\"kind\": 3}", "{\"kind\": \"chain\"}", "{\"kind\": \"chain\", \"layers\": [1]}",
        "{\"kind\": \"linear\", \"out_features\": 1.5}", "{\"kind\": \"linear\", \"out_features\": \"x\"}",
        "{\"kind\": \"repeat\", \"count\": -1, \"pattern\": {\"kind\": \"relu\"}}", "{\"kind\": \"relu\"} x",
        "{\"kind\": \"graph\", \"nodes\": [{\"kind\": \"relu\", \"from\": [-1]}]}", "{\"kind\": \"li\\u006eear\"}",
        "{\"kind\": \"linear\", \"out_features\": 1e999}", "{\"kind\": \"residual\"}", "{\"kind\": \"transformer\"}"}) {
    EXPECT_FALSE(nn::from_json(text)) << text;
  }
  EXPECT_FAILS(nn::from_json(R"({"kind": "wizard"})"), Errc::not_found);
  EXPECT_OK(nn::from_json(R"({"kind": "relu", "note": null})"));
  EXPECT_FALSE(nn::from_json(R"({"kind": "relu", "note": nil})"));
  std::string deep = R"({"kind": "relu"})", wide = deep;
  for (int i = 0; i < 40; ++i) deep = R"({"kind": "residual", "body": )" + deep + "}";
  EXPECT_FAILS(nn::from_json(deep), Errc::unsupported);
  for (int i = 0; i < 3; ++i) wide = R"({"kind": "repeat", "count": 4096, "pattern": )" + wide + "}";
  EXPECT_FAILS(nn::from_json(wide), Errc::unsupported);
  EXPECT_FAILS(nn::from_json(std::string(2 << 20, ' ')), Errc::unsupported);
  auto forward = nn::from_json(R"({"kind": "graph", "nodes": [{"kind": "relu", "from": [7]}]})");
  ASSERT_OK(forward);
  EXPECT_FAILS(nn::build(*forward, {3}), Errc::invalid_argument);
}

TEST(Compose, FrozenPrefixesCostNoBackward) {
  auto model = nn::build(nn::linear(4) | nn::relu() | nn::linear(3) | nn::linear(2), {5}, init::xavier(1));
  ASSERT_OK(model);
  const auto before = *model->parameter("2.weight")->to_vector();
  ASSERT_OK(model->freeze("0."));
  ASSERT_OK(model->freeze("2."));
  EXPECT_FAILS(model->freeze("9."), Errc::not_found);
  EXPECT_EQ(*model->parameter("2.weight")->to_vector(), before);
  EXPECT_EQ(model->trainable_count(), 3u * 2 + 2);
  const auto values = waves(10);
  Workspace ws{{.scratch = 4_MiB, .threads = 1}};
  auto tape = ws.record();
  auto loss = ops::sum(tape.input(view(values, {2, 5})) | *model);
  EXPECT_EQ(tape.size(), 2u);  // the last layer and the sum
  auto g = loss.and_then(backward);
  ASSERT_OK(g);
  EXPECT_EQ(g->slab(model->block())->size(), model->trainable_slab().size());
  ASSERT_OK(model->freeze("", false));
  EXPECT_EQ(model->trainable_count(), model->parameter_count());
  EXPECT_EQ(*model->parameter("2.weight")->to_vector(), before);
}

TEST(Compose, TiedParametersShareOneGradient) {
  const auto net = nn::linear(3, {.bias = false}) | nn::tanh() | nn::linear(3, {.bias = false});
  auto tied = nn::build(net, {3}, init::xavier(1), {.tied = {{"2.weight", "0.weight"}}});
  auto apart = nn::build(net, {3}, init::xavier(1));
  ASSERT_OK(tied);
  ASSERT_OK(apart);
  EXPECT_EQ(names_of(*tied), std::vector<std::string>{"0.weight"});
  ASSERT_OK(apart->assign("2.weight", *apart->parameter("0.weight")));
  const auto values = waves(6);
  Workspace ws{{.scratch = 4_MiB, .threads = 1}};
  const auto gradient = [&](const auto& model, const char* name) {
    auto tape = ws.record();
    auto g = ops::sum(ops::square(tape.input(view(values, {2, 3})) | model)).and_then(backward);
    EXPECT_OK(g);
    return *g->of(*model.parameter(name))->to_vector();
  };
  const auto both = gradient(*tied, "0.weight"), first = gradient(*apart, "0.weight"),
             second = gradient(*apart, "2.weight");
  for (std::size_t i = 0; i < both.size(); ++i) EXPECT_NEAR(both[i], first[i] + second[i], 1e-5);
  EXPECT_FAILS(nn::build(net, {3}, init::xavier(1), {.tied = {{"2.weight", "8.weight"}}}), Errc::not_found);
  EXPECT_FAILS(nn::build(nn::linear(2) | nn::linear(2), {3}, init::xavier(1), {.tied = {{"1.weight", "0.weight"}}}),
               Errc::invalid_size);
}

namespace {

// One training step of a model: the loss, its gradients, and the scratch it took.
struct Pass {
  float loss;
  std::vector<float> gradients, output;  // output: read after the backward
  std::size_t scratch, planned;
};
template <class L>
Pass pass(const L& layers, const Tensor& x, int threads, bool bf16 = false) {
  const Shape example = x.shape().without(0);
  auto model = nn::build(layers, example, init::xavier(3), {.input = x.dtype()});
  EXPECT_OK(model);
  Pass result{.loss = 0, .gradients = {}, .output = {}, .scratch = 0, .planned = 0};
  Workspace plan = planning_workspace(threads, bf16);
  {
    auto tape = plan.record();
    const Tensor shape_only(nullptr, x.dtype(), Layout::dense(x.shape()), {});
    EXPECT_OK(ops::sum(ops::square(tape.input(shape_only) | *model)).and_then(backward));
  }
  result.planned = plan.counters().high_water;
  Workspace ws{{.scratch = 64_MiB, .threads = threads, .seed = 5, .bf16 = bf16}};
  std::uint64_t warm = 0;
  for (int i = 0; i < 3; ++i) {  // the third allocates nothing
    warm = qorus_test::allocations();
    ws.set_draws(5, 0);
    auto tape = ws.record();
    auto output = tape.input(x) | *model;
    auto loss = ops::sum(ops::square(output));
    EXPECT_OK(loss);
    result.loss = loss->item().value();
    auto gradients = backward(*loss);
    EXPECT_OK(gradients);
    if (!gradients) return result;
    warm = qorus_test::allocations() - warm;
    const auto slab = gradients->slab(model->block()).value();
    result.gradients.assign(slab.begin(), slab.end());
    result.output = *output->to_vector();
  }
  if (qorus_test::k_counts_allocations) EXPECT_EQ(warm, 0u);
  result.scratch = ws.counters().high_water;
  return result;
}

}  // namespace

// A chain goes over the embedding's table from more ids than rows on: the same values to the bit, and the same gradients but for the order of
// their sums. A layer under a name of its own is not joined to its neighbours.
TEST(Embedding, TheTableGoesThroughARecurrentLayerOnce) {
  const auto check = [](const auto& layer, std::int64_t batch, std::int64_t seq) {
    std::vector<std::int32_t> ids(static_cast<std::size_t>(batch * seq));
    for (std::size_t i = 0; i < ids.size(); ++i) ids[i] = static_cast<std::int32_t>(i * i % 11);
    const Tensor tokens = Tensor::borrow(std::span<const std::int32_t>(ids), {batch, seq});
    const Pass joined = pass(nn::embedding(11, 6) | layer, tokens, 2);
    const Pass apart = pass(nn::named("first", nn::embedding(11, 6)) | layer, tokens, 2);
    EXPECT_EQ(joined.output, apart.output);
    EXPECT_LE(joined.scratch, joined.planned);
    EXPECT_EQ(joined.gradients.size(), apart.gradients.size());
    for (std::size_t i = 0; i < joined.gradients.size() && i < apart.gradients.size(); ++i)
      EXPECT_NEAR(joined.gradients[i], apart.gradients[i], 1e-5 * (1 + std::abs(apart.gradients[i]))) << i;
    return joined.gradients == apart.gradients;
  };
  EXPECT_FALSE(check(nn::lstm(5, {.layers = 2, .bidirectional = true}) | nn::linear(3), 7, 9));
  EXPECT_FALSE(check(nn::gru(5, {.bias = false}), 7, 9));
  EXPECT_FALSE(check(nn::rnn(5) | nn::last_step(), 3, 4));
  EXPECT_TRUE(check(nn::lstm(5), 1, 11));  // as many ids as rows: each is looked up by itself
  EXPECT_TRUE(check(nn::last_step() | nn::linear(5), 7, 9));
}

// A chain that ends in the recurrent layer and meets a loss; what is told of every layer; ids of another shape.
TEST(Embedding, TheTableIsLookedUpWhereverAChainEnds) {
  const std::vector<std::int32_t> ids{1, 0, 3, 2, 4, 4, 1, 2};
  const Tensor tokens = Tensor::borrow(std::span<const std::int32_t>(ids), {2, 4});
  auto model = nn::build(nn::embedding(5, 32) | nn::gru(5), {4}, init::xavier(3), {.input = DType::i32});
  ASSERT_OK(model);
  Workspace ws{{.scratch = 4_MiB, .threads = 1}};
  auto frame = ws.frame();
  const Tensor x = *frame.input(tokens);
  auto whole = x | *model | loss::cross_entropy(x), last = x | (*model | loss::cross_entropy(x));
  ASSERT_OK(whole);
  ASSERT_OK(last);
  EXPECT_EQ(whole->item().value(), last->item().value());
  std::vector<std::string> shapes;
  auto y = model->layers().trace(
      x, [&](std::size_t, const auto&, const Tensor& t) { shapes.emplace_back(std::to_string(t.dim(-1))); });
  ASSERT_OK(y);
  EXPECT_EQ(shapes, (std::vector<std::string>{"32", "5"}));
  EXPECT_EQ(*y->to_vector(), *(x | *model)->to_vector());
  const auto wrong = Tensor::borrow(std::span<const std::int32_t>(ids), {8});
  EXPECT_FAILS(*frame.input(wrong) | *model, Errc::invalid_size);
  EXPECT_FAILS(model->layers()(Tensor()), Errc::invalid_size);
}

// Of a smooth function's values and its argument, if they are large, only one array is kept, as of relu's; the other is made in one room for all.
TEST(FeedForward, KeepsNoMoreForASmoothFunctionThanForRelu) {
  constexpr std::size_t rows = 2048, width = 512, inner = rows * width * sizeof(float);
  const auto values = waves(rows * 8);
  const Tensor x = view(values, {rows, 8});
  const auto of = [&](nn::FeedForwardKind kind) {
    return pass(nn::repeat(4, nn::feed_forward(width, {.kind = kind})) | nn::linear(3), x, 1);
  };
  const Pass relu = of(nn::FeedForwardKind::relu), gelu = of(nn::FeedForwardKind::gelu);
  EXPECT_LE(gelu.planned, relu.planned + 2 * inner);
  EXPECT_EQ(gelu.scratch, gelu.planned);
  const auto model = nn::build(nn::repeat(4, nn::feed_forward(width)) | nn::linear(3), {8}, init::xavier(3));
  ASSERT_OK(model);
  Workspace ws{{.scratch = 16_MiB, .threads = 1}};
  auto frame = ws.frame();
  EXPECT_EQ((frame.input(x) | *model)->to_vector().value(),
            gelu.output);  // what is not recorded is fused, with the same bits
}

TEST(FeedForward, OfNoFeaturesIsOfNone) {
  const auto model = nn::build(nn::feed_forward(4), {0}, init::xavier(3));
  ASSERT_OK(model);
  Workspace ws{{.scratch = 1_MiB, .threads = 1}};
  auto tape = ws.record();
  const auto y = tape.input(Tensor::borrow(std::span<const float>(), {3, 0})) | *model;
  ASSERT_OK(y);
  EXPECT_EQ(y->shape(), (Shape{3, 0}));
}

TEST(Checkpoint, HasTheSameBitsInLessMemory) {
  const auto block = nn::linear(24) | nn::gelu() | nn::dropout(0.2f) | nn::linear(16) | nn::tanh();
  const auto values = waves(40 * 16);
  const Tensor x = view(values, {40, 16});
  for (const int threads : {1, 2}) {
    const Pass plain = pass(nn::repeat(6, block) | nn::linear(3), x, threads);
    const Pass kept = pass(nn::repeat(6, nn::checkpoint(block)) | nn::linear(3), x, threads);
    const Pass nested = pass(nn::checkpoint(nn::repeat(6, nn::checkpoint(block))) | nn::linear(3), x, threads);
    const Pass last = pass(nn::linear(16) | nn::checkpoint(nn::repeat(6, block) | nn::linear(3)), x, threads);
    const Pass last_plain = pass(nn::linear(16) | nn::repeat(6, block) | nn::linear(3), x, threads);
    for (const Pass* other : {&kept, &nested}) {
      EXPECT_EQ(other->loss, plain.loss);
      EXPECT_EQ(other->gradients, plain.gradients);
      EXPECT_LT(other->scratch, plain.scratch);
    }
    EXPECT_LT(2 * kept.scratch, plain.scratch + 65536);
    EXPECT_LE(kept.scratch, kept.planned);
    EXPECT_EQ(last.loss, last_plain.loss);
    EXPECT_EQ(last.gradients, last_plain.gradients);
  }
}

TEST(Checkpoint, OfEveryKindOfLayer) {
  const std::vector<std::int32_t> ids{1, 0, 3, 2, 4, 4, 1, 2};
  const Tensor tokens = Tensor::borrow(std::span<const std::int32_t>(ids), {2, 4});
  const auto first = [](auto layer) { return nn::checkpoint(nn::embedding(5, 8) | layer) | nn::linear(2); };
  EXPECT_EQ(pass(first(nn::tanh()), tokens, 1).gradients,
            pass(nn::embedding(5, 8) | nn::tanh() | nn::linear(2), tokens, 1).gradients);
  const auto values = waves(6 * 8);
  const Tensor x = view(values, {6, 8});
  const auto residual = nn::residual(nn::linear(8) | nn::relu());  // x is read twice: the same sum in another order
  const Pass plain = pass(nn::linear(8) | residual | nn::linear(1), x, 1);
  const Pass inside = pass(nn::linear(8) | nn::checkpoint(residual) | nn::linear(1), x, 1);
  EXPECT_EQ(inside.gradients, plain.gradients);
  const Pass around =
      pass(nn::linear(8) | nn::residual(nn::checkpoint(nn::linear(8) | nn::relu())) | nn::linear(1), x, 1);
  ASSERT_EQ(around.gradients.size(), plain.gradients.size());
  for (std::size_t i = 0; i < plain.gradients.size(); ++i)
    EXPECT_NEAR(around.gradients[i], plain.gradients[i], 1e-5 * (1 + std::abs(plain.gradients[i])));
  auto model = nn::build(nn::checkpoint(nn::linear(4)) | nn::linear(2), {8}, init::xavier(1));
  ASSERT_OK(model);
  EXPECT_EQ(names_of(*model), names_of(*nn::build(nn::linear(4) | nn::linear(2), {8})));
  EXPECT_EQ(json_of(*model), json_of(nn::linear(4) | nn::linear(2)));
  ASSERT_OK(model->freeze("0."));
  Workspace ws{{.scratch = 4_MiB, .threads = 1}};
  {
    auto tape = ws.record();
    EXPECT_OK(ops::sum(tape.input(x) | *model).and_then(backward));
    EXPECT_FAILS(ws.record().input(x), Errc::invalid_argument);  // not even after a backward
  }
  auto norm = nn::build(nn::reshape({8, 1, 1}) | nn::checkpoint(nn::batch_norm()) | nn::flatten() | nn::linear(1), {8});
  ASSERT_OK(norm);
  auto tape = ws.record();
  EXPECT_FAILS(ops::sum(tape.input(x) | *norm).and_then(backward), Errc::unsupported);
}

namespace {

double relative_distance(const std::vector<float>& a, const std::vector<float>& b) {
  double difference = 0, length = 0;
  EXPECT_EQ(a.size(), b.size());
  for (std::size_t i = 0; i < std::min(a.size(), b.size()); ++i) {
    difference += std::pow(static_cast<double>(a[i]) - static_cast<double>(b[i]), 2);
    length += std::pow(static_cast<double>(b[i]), 2);
  }
  return std::sqrt(difference / length);
}

// A layer of one's own that keeps a tensor of its inside for later, which it should not.
struct Leaky {
  Tensor* kept;
  static constexpr auto fields() { return nn::fields(); }
  [[nodiscard]] Result<Tensor> operator()(const Tensor& x) const noexcept {
    auto inner = x * 2.0f;
    if (inner) *kept = *inner;
    return inner + 1.0f;
  }
};

}  // namespace

// Values are exact; gradients differ by activations that were rounded to 8 bits (2^-9 each, of many that do not lean to one side).
TEST(Bf16Blocks, HalveWhatIsKept) {
  const auto block =
      nn::linear(96) | nn::gelu() | nn::dropout(0.2f) | nn::linear(16) | nn::residual(nn::linear(16) | nn::silu());
  const auto values = waves(300 * 16);
  const Tensor x = view(values, {300, 16});
  const auto net = nn::linear(16) | nn::repeat(12, block) | nn::linear(3);
  const Pass plain = pass(net, x, 1), kept = pass(net, x, 1, true);
  EXPECT_EQ(kept.loss, plain.loss);
  EXPECT_EQ(kept.output, plain.output);
  EXPECT_NE(kept.gradients, plain.gradients);
  EXPECT_LT(relative_distance(kept.gradients, plain.gradients), 4e-3);
  EXPECT_LT(static_cast<double>(kept.scratch), 0.65 * static_cast<double>(plain.scratch));
  EXPECT_LE(kept.scratch, kept.planned);
  for (const int threads : {2, 3}) EXPECT_EQ(pass(net, x, threads, true).gradients, kept.gradients);
}

TEST(Bf16Blocks, OfEveryKindOfLayer) {
  const auto values = waves(24 * 16);
  const Tensor x = view(values, {24, 16});
  const auto body = nn::linear(16) | nn::silu();
  const auto close = [&](const auto& net, const Tensor& input) {
    const Pass plain = pass(net, input, 1), kept = pass(net, input, 2, true);
    EXPECT_EQ(kept.output, plain.output);
    EXPECT_LT(relative_distance(kept.gradients, plain.gradients), 1e-2);
    return kept.gradients == plain.gradients;
  };
  EXPECT_FALSE(close(nn::repeat(3, body), x));                                     // its result is the model's
  EXPECT_FALSE(close(nn::linear(16) | nn::repeat(3, nn::repeat(2, body)), x));     // the outer ones count
  EXPECT_FALSE(close(nn::repeat(2, body) | nn::relu() | nn::repeat(2, body), x));  // something between
  EXPECT_FALSE(close(nn::repeat(3, nn::residual(nn::checkpoint(nn::linear(16) | nn::silu()))), x));
  EXPECT_TRUE(close(nn::checkpoint(nn::repeat(3, body)) | nn::linear(4), x));            // computed again, exactly
  EXPECT_TRUE(close(nn::linear(16) | nn::repeat(2, nn::flatten()) | nn::linear(2), x));  // blocks that only look
  const auto pictures = waves(4 * 2 * 8 * 8);
  const Tensor image = view(pictures, {4, 2, 8, 8});
  EXPECT_TRUE(
      close(nn::repeat(2, nn::conv2d(2, 3, {.padding = 1}) | nn::max_pool(2)) | nn::flatten() | nn::linear(2), image));
  const std::vector<std::int32_t> ids{1, 0, 3, 2, 4, 4, 1, 2};
  const Tensor tokens = Tensor::borrow(std::span<const std::int32_t>(ids), {2, 4});
  EXPECT_FALSE(close(nn::gpt({.vocab = 5, .context = 4, .d_model = 16, .heads = 2, .layers = 3}), tokens));
  EXPECT_FALSE(close(
      nn::gpt({.vocab = 5, .context = 4, .d_model = 16, .heads = 2, .layers = 3, .block = {.experts = 3}}), tokens));
  EXPECT_FALSE(close(nn::llama({.vocab = 5, .context = 4, .d_model = 16, .heads = 2, .layers = 3}), tokens));
}

// One block by itself, recorded or computed again in the backward, is not rounded.
TEST(Bf16Blocks, AreTheRepeatedOnesAlone) {
  const auto values = waves(8 * 16 * 32);
  const Tensor x = view(values, {8, 16, 32});
  const auto block = nn::transformer_block(32, 4);
  const auto single = nn::linear(32) | block | nn::linear(2);
  const auto again = nn::linear(32) | nn::checkpoint(block) | nn::linear(2);
  const std::vector<float> exact = pass(single, x, 1).gradients;
  EXPECT_EQ(pass(single, x, 1, true).gradients, exact);
  EXPECT_EQ(pass(again, x, 1, true).gradients, exact);
  EXPECT_NE(pass(nn::linear(32) | nn::repeat(1, block) | nn::linear(2), x, 1, true).gradients, exact);
}

TEST(Bf16Blocks, KeepRunningStatisticsAndEndWhatIsInside) {
  const auto pictures = waves(4 * 2 * 6 * 6);
  const Tensor image = view(pictures, {4, 2, 6, 6});
  std::vector<float> slabs[2];
  for (const bool bf16 : {false, true}) {
    auto model = nn::build(
        nn::repeat(3, nn::conv2d(2, 3, {.padding = 1}) | nn::batch_norm() | nn::relu()) | nn::flatten() | nn::linear(1),
        {2, 6, 6}, init::kaiming(2));
    ASSERT_OK(model);
    Workspace ws{{.scratch = 16_MiB, .threads = 1, .bf16 = bf16}};
    auto tape = ws.record();
    auto gradients = ops::sum(ops::square(tape.input(image) | *model)).and_then(backward);
    ASSERT_OK(gradients);
    model->apply(gradients->state_updates());
    slabs[bf16].assign(model->slab().begin(), model->slab().end());
  }
  EXPECT_EQ(slabs[0], slabs[1]);
  Tensor inner;
  auto model = nn::build(nn::linear(4) | nn::repeat(2, Leaky{&inner}), {4}, init::xavier(1));
  ASSERT_OK(model);
  const auto values = waves(8);
  Workspace ws{{.scratch = 1_MiB, .threads = 1, .bf16 = true}};
  auto tape = ws.record();
  auto loss = ops::sum(tape.input(view(values, {2, 4})) | *model);
  ASSERT_OK(loss);
  EXPECT_FAILS(inner.to_vector(), Errc::stale_tensor);
  EXPECT_OK(backward(*loss));
}
