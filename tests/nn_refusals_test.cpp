// What layers refuse: tensors that are gone, of no workspace, of another type, rank or size, a model that was not built; and the options of each.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <limits>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "tests/nn_testing.h"

import qorus.nn;

using namespace qorus;
using qorus_test::waves;

namespace {

Owned of_ones(const Shape& shape, DType dtype = DType::f32) {
  Owned owned = Owned::zeros(shape, dtype).value();
  if (dtype == DType::f32) {
    for (float& value : owned.fill<float>()) value = 1;
  }
  return owned;
}

struct Entry {
  const char* name;
  nn::Any layer;
  Shape example;
  bool bare = false;   // without parameters
  bool moves = false;  // what needs no workspace: a view, or x itself
};

std::vector<Entry> layers() {
  nn::Graph graph;
  const auto in = graph.input();
  graph.add(nn::join_product(), {in, graph.add(nn::linear(4), {in})});
  using enum nn::FeedForwardKind;
  return {
      {"linear", nn::any(nn::linear(3)), {4}},
      {"linear, no bias", nn::any(nn::linear(3, {.bias = false})), {4}},
      {"layer_norm", nn::any(nn::layer_norm()), {4}},
      {"layer_norm, no bias", nn::any(nn::layer_norm({.bias = false})), {4}},
      {"rms_norm", nn::any(nn::rms_norm()), {4}},
      {"reshape", nn::any(nn::reshape({2, 2})), {4}, true, true},
      {"conv1d", nn::any(nn::conv1d(4, 2, {.groups = 2})), {4, 5}},
      {"conv2d", nn::any(nn::conv2d(3, {2, 3}, {.bias = false})), {2, 5, 6}},
      {"conv3d", nn::any(nn::conv3d(3, 2)), {2, 3, 3, 3}},
      {"conv_transpose1d", nn::any(nn::conv_transpose1d(4, 2, {.groups = 2})), {4, 3}},
      {"conv_transpose2d", nn::any(nn::conv_transpose2d(3, 2, {.bias = false})), {2, 3, 3}},
      {"max_pool", nn::any(nn::max_pool(2)), {2, 4, 4}, true},
      {"global_avg_pool", nn::any(nn::global_avg_pool()), {2, 4, 4}, true},
      {"upsample", nn::any(nn::upsample(2)), {2, 4, 3}, true},
      {"pad", nn::any(nn::pad(1)), {2, 4, 3}, true},
      {"batch_norm", nn::any(nn::batch_norm()), {4, 3}},
      {"group_norm", nn::any(nn::group_norm(2)), {4, 3}},
      {"instance_norm", nn::any(nn::instance_norm()), {4, 3}},
      {"drop_path", nn::any(nn::drop_path(0.5f)), {4, 3}, true},
      {"resnet_block", nn::any(nn::resnet_block(3, 2)), {2, 4, 4}},
      {"attention", nn::any(nn::attention(8, 4, {.kv_heads = 2, .head_dim = 4, .rope = 9, .alibi = true})), {3, 8}},
      {"feed_forward", nn::any(nn::feed_forward(6)), {4}},
      {"feed_forward, gated", nn::any(nn::feed_forward(6, {.kind = swiglu})), {4}},
      {"block", nn::any(nn::transformer_block(8, 2, {.d_ff = 6, .pre_norm = false, .dropout = 0.1f})), {3, 8}},
      {"block of experts", nn::any(nn::transformer_block(8, 2, {.d_ff = 6, .experts = 3})), {3, 8}},
      {"decoder", nn::any(nn::decoder(1, 8, 2, {.rms = true, .cross = true})), {3, 8}},
      {"encoder, post-norm", nn::any(nn::encoder(1, 8, 2, {.pre_norm = false})), {3, 8}},
      {"encoder, recomputed", nn::any(nn::encoder(1, 8, 2, {.recompute = nn::recompute})), {3, 8}},
      {"positions", nn::any(nn::positions(3)), {3, 8}},
      {"sinusoids", nn::any(nn::sinusoids()), {3, 8}, true},
      {"bilinear", nn::any(nn::bilinear(3)), {4}},
      {"bilinear, no bias", nn::any(nn::bilinear(3, {.bias = false})), {4}},
      {"experts", nn::any(nn::experts(3, 5)), {3, 4}},
      {"lstm", nn::any(nn::lstm(3, {.layers = 2, .bidirectional = true, .dropout = 0.1f})), {5, 4}},
      {"gru", nn::any(nn::gru(3, {.bias = false})), {5, 4}},
      {"rnn", nn::any(nn::rnn(3)), {5, 4}},
      {"concat", nn::any(nn::concat(nn::linear(2), nn::linear(3))), {4}},
      {"parallel", nn::any(nn::parallel(nn::linear(2), nn::linear(3))), {4}},
      {"graph", nn::any(graph), {4}},
      {"checkpoint", nn::any(nn::checkpoint(nn::linear(4) | nn::tanh())), {4}},
      {"sequence", nn::any(nn::Sequence().add(nn::linear(4)).add(nn::tanh())), {4}},
  };
}

// What a step makes of x: an error, or a shape; forward and, on a tape, backward.
struct Answer {
  Errc code = Errc::ok;
  std::string text;
};
template <class M>
Answer ask(Workspace& ws, const M& layer, const Tensor& x, bool record) {
  const auto said = [](const Result<Tensor>& y) {
    if (!y) return Answer{y.error().code, y.error().message().c_str()};
    Answer answer{.text = "shape"};
    for (const std::int64_t extent : y->shape().extents()) answer.text += " " + std::to_string(extent);
    return answer;
  };
  if (!record) {
    auto frame = ws.frame();
    return said(frame.input(x).and_then([&](const Tensor& t) { return layer(t); }));
  }
  auto tape = ws.record();
  const auto y = tape.input(x).and_then([&](const Tensor& t) { return layer(t); });
  if (!y || !y->tracked()) return said(y);
  const auto gradients = ops::sum(y).and_then(backward);
  return gradients ? said(y) : Answer{gradients.error().code, gradients.error().message().c_str()};
}

TEST(Refusals, EveryLayer) {
  Workspace ws{{.scratch = 64_MiB, .threads = 1}}, plan = planning_workspace(1);
  for (const Entry& e : layers()) {
    SCOPED_TRACE(e.name);
    auto built = nn::build(e.layer, e.example, init::xavier(3));
    ASSERT_OK(built);
    const nn::Model<nn::Any>& model = *built;
    const Shape shape = e.example.inserted(0, 2);
    const Owned good = of_ones(shape);
    for (const bool record : {false, true}) EXPECT_EQ(ask(ws, model, good, record).code, Errc::ok);
    // Gone: with its frame, or with all of its workspace.
    Tensor stale, lost;
    {
      auto frame = ws.frame();
      stale = frame.input(good).value();
      Workspace other{{.scratch = 1_MiB, .threads = 1}};
      auto inner = other.frame();
      lost = inner.input(good).value();
    }
    EXPECT_FAILS(model(stale), Errc::stale_tensor);
    EXPECT_FAILS(model(lost), Errc::stale_tensor);
    EXPECT_FAILS(model(Tensor()), Errc::invalid_size);
    if (e.moves) {
      EXPECT_OK(model(good.tensor()));
    } else {
      EXPECT_FAILS(model(good.tensor()), Errc::no_workspace);
    }
    auto frame = ws.frame();
    const auto in = frame.input(good);
    if (e.bare) {
      EXPECT_OK(e.layer(*in));
    } else {
      EXPECT_FAILS(e.layer(*in), Errc::not_built);
    }
    const auto like_the_plan = [&](const char* what, const Owned& x) {
      for (const bool record : {false, true}) {
        const Answer planned = ask(plan, model, x, record), real = ask(ws, model, x, record);
        EXPECT_EQ(real.text, planned.text) << what;
        EXPECT_TRUE(real.code == Errc::ok || real.code == Errc::invalid_size || real.code == Errc::invalid_argument ||
                    real.code == Errc::invalid_dtype)
            << what << ": " << real.text;
      }
    };
    const Owned whole = of_ones(shape, DType::i32);
    if (!e.moves) EXPECT_EQ(ask(ws, model, whole, false).code, Errc::invalid_dtype);
    Shape fewer = shape;
    while (fewer.rank() > 0) {
      fewer = fewer.without(0);
      like_the_plan("fewer axes", of_ones(fewer));
    }
    if (shape.rank() < k_max_rank) like_the_plan("an axis more", of_ones(shape.inserted(0, 1)));
    for (int d = 0; d < shape.rank(); ++d) {
      for (const std::int64_t extent : {std::int64_t{0}, shape[d] + 1})
        like_the_plan("an extent", of_ones(shape.with(d, extent)));
    }
  }
}

// In less room than it needs each says so, forward and backward; also computed again in the backward, and kept in bf16.
TEST(Refusals, NoRoomForALayer) {
  constexpr std::size_t k_all = 4_MiB, k_tries = 40;
  const auto starve = [](const nn::Any& layer, const Shape& example, bool bf16) {
    auto model = nn::build(layer, example, init::xavier(3));
    ASSERT_OK(model);
    const Owned x = of_ones(example.inserted(0, 2));
    Workspace ws{{.scratch = k_all, .threads = 1, .bf16 = bf16}};
    Arena& scratch = *ws.context().scratch;
    const auto step = [&]() -> Status {
      auto tape = ws.record();
      const auto done = ops::sum(ops::mul(tape.watch(x), 1.0f) | model).and_then(backward);
      return done ? Status() : fail(done.error());
    };
    ASSERT_OK(step());
    const std::size_t wanted = scratch.counters().high_water,
                      stride = std::max<std::size_t>(64, wanted / k_tries / 64 * 64);
    for (std::size_t room = 0; room < wanted; room += stride) {
      ASSERT_OK(scratch.take(k_all - room));
      const Status done = step();
      scratch.shrink_to(0);
      ASSERT_FALSE(done) << room << " of " << wanted << " bytes";
      const std::string text = done.error().message().c_str();
      EXPECT_TRUE(text.find("out of memory") != text.npos || text.find("too small") != text.npos) << text;
    }
  };
  for (const Entry& e : layers()) {
    SCOPED_TRACE(e.name);
    const std::string name = e.name;
    for (const bool bf16 : {false, true}) starve(e.layer, e.example, bf16);
    // What has running statistics would move them twice.
    if (name != "batch_norm" && name != "resnet_block") starve(nn::any(nn::checkpoint(e.layer)), e.example, false);
  }
}

Result<Tensor> broken() { return fail(Errc::diverged, "operand", "broken"); }

TEST(Refusals, OptionsOfLayers) {
  Workspace ws{{.scratch = 4_MiB, .threads = 1}};
  auto frame = ws.frame();
  const Owned lines = of_ones({2, 4, 5}), flat = of_ones({2, 4}), pictures = of_ones({2, 4, 5, 5}),
              deep = of_ones({1, 1, 1, 1, 1, 1});
  const auto line = *frame.input(lines), row = *frame.input(flat), picture = *frame.input(pictures),
             most = *frame.input(deep);
  const auto vast = *ops::broadcast_to(line, {2, 4, 5});
  EXPECT_FAILS(nn::conv1d(4, 2, {.groups = 0})(line), Errc::invalid_size);
  EXPECT_FAILS(nn::conv1d(4, 2, {.groups = 3})(line), Errc::invalid_size);
  EXPECT_FAILS(nn::conv1d(4, {2, 2})(line), Errc::invalid_argument);
  EXPECT_FAILS(nn::conv2d(4, {2, 2, 2})(picture), Errc::invalid_argument);
  EXPECT_FAILS(nn::conv_transpose1d(4, {2, 2})(line), Errc::invalid_argument);
  EXPECT_FAILS(nn::conv_transpose2d(4, 2, {.groups = 0})(picture), Errc::invalid_size);
  for (const Tensor& wrong : {row, most}) {
    EXPECT_FAILS(nn::upsample(2)(wrong), Errc::invalid_size);
    EXPECT_FAILS(nn::pad(1)(wrong), Errc::invalid_size);
  }
  EXPECT_FAILS(nn::upsample({2, 2})(line), Errc::invalid_size);
  EXPECT_FAILS(nn::upsample(std::numeric_limits<std::int64_t>::max())(vast), Errc::invalid_size);
  EXPECT_FAILS(nn::pad({PerAxis{1, 1}, PerAxis(1)})(line), Errc::invalid_size);
  EXPECT_FAILS(nn::pad({PerAxis(1), PerAxis{1, 1}})(line), Errc::invalid_size);
  EXPECT_FAILS(nn::reshape({1, 1, 1, 1, 2, 2})(row), Errc::invalid_size);
  EXPECT_FAILS(nn::Branches()(row), Errc::invalid_argument);
  EXPECT_FAILS(nn::branches(nn::Join::parallel, 2, nn::relu(), nn::relu())(row), Errc::invalid_size);
  EXPECT_FAILS(nn::branches(nn::Join::parallel, -3, nn::relu(), nn::relu())(row), Errc::invalid_size);
  EXPECT_FAILS(nn::branches(nn::Join::sum, 1, nn::Any())(row), Errc::not_built);
  EXPECT_FAILS(nn::join_sum()(std::span<const Tensor>()), Errc::invalid_argument);
  EXPECT_FAILS((nn::JoinInputs{nn::Join::parallel})(std::span(&row, 1)), Errc::invalid_argument);
  EXPECT_FAILS(nn::bilinear(2)(line, row), Errc::invalid_size);
  EXPECT_FAILS(nn::bilinear(2)(row, line), Errc::invalid_size);
  EXPECT_FAILS(nn::bilinear(2)(row, *ops::slice(row, 0, 0, 1)), Errc::invalid_size);
  EXPECT_FAILS(nn::build(nn::attention(8, 0), {3, 8}), Errc::invalid_argument);
  EXPECT_FAILS(nn::build(nn::attention(8, 2, {.kv_heads = -1}), {3, 8}), Errc::invalid_argument);
  EXPECT_FAILS(nn::positions(2)(line), Errc::invalid_size);
  EXPECT_FAILS(nn::encoder(1, 8, 2).run(line), Errc::not_built);
  EXPECT_FAILS(nn::lstm(2).run(line), Errc::not_built);
  EXPECT_FAILS(nn::build(nn::lstm(2, {.layers = 0}), {3, 4}), Errc::invalid_argument);
  nn::Graph late;
  const auto in = late.input();
  late.add(nn::relu(), {in});
  late.input();
  EXPECT_FAILS(nn::build(late, {4}), Errc::invalid_argument);
  EXPECT_FAILS(late(row), Errc::invalid_argument);
  nn::Graph empty;
  empty.input();
  EXPECT_FAILS(empty(row), Errc::invalid_argument);
  nn::Graph sums;  // an error inside comes out
  const auto one = sums.input();
  sums.add(nn::Any(), {one});
  EXPECT_FAILS(sums(row), Errc::not_built);
}

TEST(Refusals, WhatAttentionAndRecurrentLayersTakeBesides) {
  Workspace ws{{.scratch = 4_MiB, .threads = 1}};
  auto frame = ws.frame();
  const Owned ones = of_ones({2, 3, 8}), keys = of_ones({2, 4, 2, 2}), matrix = of_ones({3, 8});
  const auto x = *frame.input(ones), past = *frame.input(keys), flat = *frame.input(matrix);
  auto attention = nn::build(nn::attention(8, 4), {3, 8}, init::xavier(1));
  ASSERT_OK(attention);
  const auto& layer = attention->layers();
  EXPECT_FAILS(layer.run(x, {.memory = broken()}), Errc::diverged);
  EXPECT_FAILS(layer.run(x, {.memory = flat}), Errc::invalid_size);
  EXPECT_FAILS(layer.run(x, {.mask = broken()}), Errc::diverged);
  EXPECT_FAILS(layer.run(x, {.past_keys = broken(), .past_values = past}), Errc::diverged);
  EXPECT_FAILS(layer.run(x, {.past_keys = past, .past_values = broken()}), Errc::diverged);
  EXPECT_FAILS(layer.run(x, {.past_values = past}), Errc::invalid_argument);
  EXPECT_OK(layer.run(x, {.past_keys = past, .past_values = past}));
  // States of another size, an error in their place, a step that is none.
  for (const bool both : {false, true}) {
    auto model = nn::build(nn::lstm(5, {.layers = 2, .bidirectional = both}), {3, 8}, init::xavier(1));
    ASSERT_OK(model);
    const auto& lstm = model->layers();
    const std::int64_t states = both ? 4 : 2;
    const Owned h = of_ones({states, 2, 5}), other = of_ones({states, 3, 5});
    EXPECT_FAILS(lstm.run(x, {.h = broken()}), Errc::diverged);
    EXPECT_FAILS(lstm.run(x, {.c = broken()}), Errc::diverged);
    EXPECT_FAILS(lstm.run(x, {.h = frame.input(other)}), Errc::invalid_size);
    EXPECT_FAILS(lstm.run(flat), Errc::invalid_size);
    EXPECT_OK(lstm.run(x, {.h = frame.input(h), .c = frame.input(h)}));
    auto state = lstm.state(3);
    ASSERT_OK(state);
    if (both) {
      EXPECT_FAILS(lstm.step(flat, *state), Errc::invalid_argument);
      continue;
    }
    EXPECT_FAILS(lstm.state(-1), Errc::invalid_size);
    EXPECT_OK(lstm.step(flat, *state));
    EXPECT_FAILS(lstm.step(x, *state), Errc::invalid_size);
    EXPECT_FAILS(lstm.step(matrix.tensor(), *state), Errc::no_workspace);
    EXPECT_FAILS(lstm.step(*ops::slice(flat, 1, 0, 7), *state), Errc::invalid_size);
    EXPECT_FAILS(nn::lstm(5).step(flat, *state), Errc::not_built);
    Tensor lost;
    {
      Workspace gone{{.scratch = 1_MiB, .threads = 1}};
      auto inner = gone.frame();
      lost = *inner.input(matrix);
    }
    EXPECT_FAILS(lstm.step(lost, *state), Errc::stale_tensor);
    Workspace plan = planning_workspace(1), recorded{{.scratch = 1_MiB, .threads = 1}};
    const auto before = state->h.tensor().to_vector().value();
    auto planned = plan.frame();
    EXPECT_OK(lstm.step(*planned.input(matrix), *state));
    EXPECT_EQ(state->h.tensor().to_vector().value(), before);
    auto tape = recorded.record();
    EXPECT_FAILS(lstm.step(*tape.input(matrix), *state), Errc::invalid_argument);
  }
}

// Packed weights, in all layers that pack, give the same bits; and nothing once they are dropped.
TEST(Seldom, PackedLayers) {
  auto model = nn::build(nn::linear(20) | nn::relu() | nn::linear(9, {.bias = false}), {8}, init::xavier(1));
  auto tokens = nn::build(nn::embedding(7, 8), {3}, init::xavier(2), {.input = DType::i32});
  ASSERT_OK(model);
  ASSERT_OK(tokens);
  Workspace ws{{.scratch = 1_MiB, .threads = 1}};
  const auto values = waves(3 * 8);
  auto frame = ws.frame();
  const auto x = *frame.input(Tensor::borrow(std::span<const float>(values), {3, 8}));
  const auto both = [&] {
    auto all = (*model)(x)->to_vector().value();
    const auto more = tokens->layers().logits(x)->to_vector().value();
    all.insert(all.end(), more.begin(), more.end());
    return all;
  };
  const auto plain = both();
  ASSERT_OK(model->pack());
  ASSERT_OK(tokens->pack());
  EXPECT_EQ(both(), plain);
  const Owned weight = of_ones({20, 8}), short_one = of_ones({20});
  ASSERT_OK(model->assign("0.weight", weight));
  ASSERT_OK(tokens->assign("weight", of_ones({7, 8})));
  EXPECT_NE(both(), plain);
  EXPECT_FAILS(model->assign("0.weight", of_ones({20, 8}, DType::i32)), Errc::invalid_dtype);
  EXPECT_FAILS(model->assign("0.weight", short_one), Errc::invalid_size);
  EXPECT_FALSE(model->restore(std::span<const float>(values)));
}

TEST(Seldom, ConstantsAndDegenerateMatrices) {
  const auto filled = [](const Initializer& how, const Shape& shape) {
    std::vector<float> values(shape.numel(), -7);
    EXPECT_OK(how.fill(values, shape, nn::Role::weight, 0));
    return values;
  };
  EXPECT_EQ(filled({.kind = Initializer::Kind::constant, .a = 3}, {2, 2}), std::vector<float>(4, 3));
  EXPECT_EQ(filled(init::orthogonal(1), {0, 4}), std::vector<float>());
  EXPECT_EQ(filled(init::orthogonal(1, 0.0f), {2, 3}), std::vector<float>(6, 0));
  EXPECT_EQ(filled(init::kaiming(1), {0, 4}), std::vector<float>());
  EXPECT_EQ(filled(init::xavier(1), {}).size(), 1u);
}

TEST(Seldom, TiesThatAreNone) {
  const auto pair = nn::linear(4) | nn::linear(4);
  EXPECT_FAILS_SAYING(nn::build(pair, {4}, init::xavier(1), {.tied = {{"1.weight", "2.weight"}}}), "2.weight");
  EXPECT_FAILS_SAYING(nn::build(pair, {4}, init::xavier(1), {.tied = {{"2.weight", "1.weight"}}}), "2.weight");
  EXPECT_FAILS(nn::build(pair, {4}, init::xavier(1), {.tied = {{"1.bias", "0.weight"}}}), Errc::invalid_size);
  auto model = nn::build(pair, {4}, init::xavier(1));
  ASSERT_OK(model);
  // A state that is not this model's is left alone.
  const std::vector<float> before(model->slab().begin(), model->slab().end());
  const float value = 5, elsewhere[] = {0, 0};
  const StateUpdate beyond{model->slab().data() + model->slab().size() - 1, &value, 2, 0, 1};
  const StateUpdate below{elsewhere, &value, 1, 0, 1};
  model->apply(&beyond);
  model->apply(&below);
  EXPECT_EQ(before, std::vector<float>(model->slab().begin(), model->slab().end()));
  auto partly = nn::build(nn::frozen(nn::linear(4)) | nn::linear(2), {4});
  ASSERT_OK(partly);
  auto summary = nn::summary(*partly);
  ASSERT_OK(summary);
  std::vector<char> text(summary->format({}) + 1);
  summary->format(text);
  EXPECT_NE(std::string(text.data()).find("of them trained"), std::string::npos);
}

// From some allocation on all fail, whichever is the first: a model is not built, written or frozen.
TEST(Refusals, NoMemoryForAModel) {
  QORUS_NEEDS_ALLOCATION_COUNTER();
  const auto fail_each = [](const char* what, const auto& make) {
    SCOPED_TRACE(what);
    for (std::uint64_t k = 0;; ++k) {
      Status done;
      bool reached = false;
      {
        const qorus_test::FailingAllocations failing(k);
        done = make();
        reached = failing.reached();
      }
      if (!reached) {
        EXPECT_OK(done);
        EXPECT_GT(k, 0u);
        return;
      }
      EXPECT_FAILS(done, Errc::out_of_memory) << k;
    }
  };
  const auto status_of = [](const auto& result) { return result ? Status() : Status(fail(result.error())); };
  nn::Graph graph;
  const auto in = graph.input();
  graph.add(nn::join_sum(),
            {in, graph.add(nn::branch(nn::linear(4), nn::Sequence().add(nn::linear(4))), {in}, "both")});
  const auto built = [&](const auto& layer, const Shape& example, std::initializer_list<nn::Tie> tied = {}) {
    return status_of(nn::build(layer, example, init::orthogonal(1), {.tied = tied}));
  };
  fail_each("graph", [&] { return built(nn::any(graph), {4}); });
  fail_each("lstm", [&] { return built(nn::lstm(3, {.layers = 2}), {2, 4}); });
  fail_each("repeat",
            [&] { return built(nn::repeat(3, nn::linear(4)) | nn::linear(4), {4}, {{"1.weight", "0.0.weight"}}); });
  fail_each("json", [&] { return status_of(nn::to_json(graph)); });
  fail_each("state", [&] { return status_of(nn::lstm(300).state(20)); });
  fail_each("freeze", [&]() -> Status {
    auto model = nn::build(nn::linear(4) | nn::linear(4), {4});
    return model ? model->freeze("0.") : fail(model.error());
  });
}

// A name is written so that it can be read again.
TEST(Seldom, NamesAndNumbersInJson) {
  nn::Graph graph;
  graph.add(nn::layer_norm({.eps = std::numeric_limits<float>::infinity()}), {graph.input()}, "a\"b\\c\n");
  const auto text = nn::to_json(graph);
  ASSERT_OK(text);
  const std::string json(text->data(), text->size());
  EXPECT_NE(json.find("\"a_b_c_\""), std::string::npos) << json;
  EXPECT_NE(json.find("\"eps\": 0"), std::string::npos) << json;
}

}  // namespace
