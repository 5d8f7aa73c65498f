// qorus.optim: every optimizer against its formula in double precision, clipping, a recorded run of PyTorch, and zero allocation.
#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <fstream>
#include <iterator>
#include <regex>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "tests/testing.h"

import qorus.optim;

using namespace qorus;

namespace {

// One linear layer whose gradient is known: loss = sum(c * w) has dL/dw = c.
struct Fixture {
  Result<nn::Model<nn::Linear>> model = nn::build(nn::linear(3, {.bias = false}), {4}, init::normal(3, 1));
  std::vector<float> c = {0.5f, -1, 2, 0.25f, 0, 3, -0.125f, 1, -2, 0.75f, -0.5f, 4};
  Workspace ws{{.scratch = 1_MiB, .threads = 1}};

  std::vector<float> weights() { return *model->parameter("weight")->to_vector(); }
  template <class Change>
  Status step(Optimizer& optimizer, float scale, const Change& change) {
    auto tape = ws.record();
    auto x = tape.input(Tensor::borrow(std::span<const float>(c), {3, 4}));
    auto loss = ops::sum(ops::mul(*model->parameter("weight"), x * scale));
    return loss.and_then(backward).and_then(change).and_then(
        [&](const Gradients& g) { return optimizer.step(*model, g); });
  }
  Status step(Optimizer& optimizer, float scale = 1) {
    return step(optimizer, scale, [](const Gradients& g) -> Result<Gradients> { return g; });
  }
};

double sign(double x) { return x > 0 ? 1 : x < 0 ? -1 : 0; }

void expect_close(const std::vector<float>& got, const std::vector<double>& wanted) {
  ASSERT_EQ(got.size(), wanted.size());
  for (std::size_t i = 0; i < got.size(); ++i) EXPECT_NEAR(got[i], wanted[i], 2e-6 * (1 + std::abs(wanted[i]))) << i;
}

// Runs 5 steps with gradients c, 2c, 3c, … and holds the parameters against rule(p, g, state, t) in double.
template <class Rule>
void expect_rule(const OptimizerSpec& spec, const Rule& rule) {
  Fixture f;
  ASSERT_OK(f.model);
  const auto start = f.weights();
  std::vector<double> p(start.begin(), start.end());
  std::vector<std::array<double, 2>> state(p.size(), {0, 0});
  Optimizer optimizer(spec, *f.model);
  for (int t = 1; t <= 5; ++t) {
    ASSERT_OK(f.step(optimizer, static_cast<float>(t)));
    for (std::size_t i = 0; i < p.size(); ++i) p[i] = rule(p[i], static_cast<double>(f.c[i]) * t, state[i], t);
    expect_close(f.weights(), p);
  }
}

std::vector<float> read_npy(const std::string& path) {  // f32, C order
  std::ifstream file(path, std::ios::binary);
  const std::string bytes((std::istreambuf_iterator<char>(file)), {});
  std::uint16_t header = 0;
  if (bytes.size() < 10) return {};
  std::memcpy(&header, bytes.data() + 8, 2);
  std::vector<float> values((bytes.size() - 10 - header) / 4);
  std::memcpy(values.data(), bytes.data() + 10 + header, values.size() * 4);
  return values;
}

}  // namespace

TEST(Optimizer, SgdFollowsItsFormula) {
  expect_rule(optim::sgd({.lr = 0.1f}), [](double p, double g, auto&, int) { return p - 0.1f * g; });
  for (const bool nesterov : {false, true}) {
    const SgdOptions o{.lr = 0.05f, .momentum = 0.9f, .nesterov = nesterov, .weight_decay = 0.01f, .l1 = 0.02f};
    expect_rule(optim::sgd(o), [&](double p, double g, auto& s, int t) {
      g += o.weight_decay * p + o.l1 * sign(p);
      s[0] = t == 1 ? g : o.momentum * s[0] + g;
      return p - o.lr * (nesterov ? g + o.momentum * s[0] : s[0]);
    });
  }
}

TEST(Optimizer, AdamAndAdamWFollowTheirFormula) {
  for (const bool decoupled : {false, true}) {
    const float decay = 0.1f, l1 = 0.01f;
    const auto spec = decoupled ? optim::adamw({.lr = 0.02f, .weight_decay = decay, .l1 = l1})
                                : optim::adam({.lr = 0.02f, .weight_decay = decay, .l1 = l1});
    expect_rule(spec, [&](double p, double g, auto& s, int t) {
      const double lr = 0.02f, b1 = 0.9f, b2 = 0.999f;
      g += l1 * sign(p);
      if (decoupled) {
        p *= 1 - lr * decay;
      } else {
        g += decay * p;
      }
      s[0] = b1 * s[0] + (1 - b1) * g;
      s[1] = b2 * s[1] + (1 - b2) * g * g;
      return p - lr * (s[0] / (1 - std::pow(b1, t))) / (std::sqrt(s[1] / (1 - std::pow(b2, t))) + 1e-8f);
    });
  }
}

// v moves by a thousandth of itself in a step, far less than a bf16's last digit: rounded to nearest it would stay where it was, and the steps at
// a quarter of their size. Rounded at random it goes with the one in f32, but for noise.
TEST(Optimizer, ShortMomentsLoseNoSmallSteps) {
  constexpr std::int64_t k_rows = 64, k_cols = 80;
  std::vector<float> moved[3];
  for (const int threads : {0, 1, 3}) {  // 0: moments in f32
    auto model = nn::build(nn::linear(k_rows, {.bias = false}), {k_cols}, init::normal(3, 1));
    ASSERT_OK(model);
    Optimizer optimizer = optim::adamw(*model, {.lr = 1e-3f, .weight_decay = 0, .bf16_moments = threads > 0});
    EXPECT_EQ(optimizer.moment(0).empty(), threads > 0);
    EXPECT_EQ(optimizer.short_moment(1).size(), threads > 0 ? model->block().floats : 0);
    Workspace ws{{.scratch = 1_MiB, .threads = threads ? threads : 1}};
    const std::vector<float> start(model->slab().begin(), model->slab().end());
    std::vector<float> g(start.size(), 0.0f);
    for (int step = 0; step < 1500; ++step) {
      const float size = step < 500 ? 1.0f : 0.25f;  // v falls to a sixteenth, a thousandth of the way in a step
      for (std::size_t i = 0; i < g.size(); ++i) g[i] = (i + static_cast<std::size_t>(step)) % 4 == 0 ? -size : size;
      ASSERT_OK(optimizer.step(*model, g, ws.context()));
    }
    auto& way = moved[threads == 0 ? 0 : threads == 1 ? 1 : 2];
    for (std::size_t i = 0; i < start.size(); ++i) way.push_back(model->slab()[i] - start[i]);
  }
  EXPECT_EQ(moved[1], moved[2]);
  double sum = 0, wanted = 0, apart = 0;
  for (std::size_t i = 0; i < moved[0].size(); ++i) {
    sum += static_cast<double>(moved[1][i]);
    wanted += static_cast<double>(moved[0][i]);
    apart += std::abs(static_cast<double>(moved[1][i]) - static_cast<double>(moved[0][i]));
  }
  EXPECT_NEAR(sum / wanted, 1, 2e-3);         // no drift
  EXPECT_LT(apart / std::abs(wanted), 2e-2);  // and each not far
}

TEST(Optimizer, ClipsByNormAndByValue) {
  Fixture f;
  ASSERT_OK(f.model);
  const auto before = f.weights();
  double norm = 0;
  for (float g : f.c) norm += static_cast<double>(g) * g;
  norm = std::sqrt(norm);
  Optimizer sgd = optim::sgd(*f.model, {.lr = 1});
  ASSERT_OK(f.step(sgd, 1, [](const Gradients& g) { return clip_norm(g, 0.5f); }));
  std::vector<double> wanted(before.begin(), before.end());
  for (std::size_t i = 0; i < wanted.size(); ++i) wanted[i] -= f.c[i] * 0.5 / norm;
  expect_close(f.weights(), wanted);
  ASSERT_OK(f.step(sgd, 1, [](const Gradients& g) { return clip_value(g, 0.6f); }));
  for (std::size_t i = 0; i < wanted.size(); ++i) wanted[i] -= std::clamp(f.c[i], -0.6f, 0.6f);
  expect_close(f.weights(), wanted);
  EXPECT_FAILS(f.step(sgd, INFINITY, [](const Gradients& g) { return clip_norm(g, 1); }), Errc::diverged);
  expect_close(f.weights(), wanted);  // nothing was lost
  EXPECT_FAILS(f.step(sgd, 1, [](const Gradients& g) { return clip_norm(g, 0); }), Errc::invalid_argument);
}

TEST(Optimizer, RefusesBadNumbersAndOtherModels) {
  Fixture f;
  ASSERT_OK(f.model);
  const auto before = f.weights();
  for (const auto& spec : {optim::sgd({.lr = -1}), optim::sgd({.momentum = 2}), optim::sgd({.nesterov = true}),
                           optim::adamw({.lr = NAN}), optim::adam({.beta1 = 1})}) {
    Optimizer optimizer(spec, *f.model);
    EXPECT_FAILS(f.step(optimizer), Errc::invalid_argument);
  }
  const auto with = [](float SgdOptions::* member, float value, bool nesterov = false) {
    SgdOptions o{.momentum = 0.5f, .nesterov = nesterov};
    o.*member = value;
    return optim::sgd(o);
  };
  const auto adam = [](float AdamOptions::* member, float value) {
    AdamOptions o;
    o.*member = value;
    return optim::adam(o);
  };
  OptimizerSpec many = optim::adamw();
  for (int i = 0; i < 7; ++i) many = many | optim::no_decay_on_vectors();
  for (const auto& spec :
       {with(&SgdOptions::dampening, 2), with(&SgdOptions::dampening, 0.5f, true), with(&SgdOptions::weight_decay, -1),
        with(&SgdOptions::l1, -1), with(&SgdOptions::l1, NAN), adam(&AdamOptions::beta2, 1),
        adam(&AdamOptions::eps, -1), adam(&AdamOptions::weight_decay, -1), adam(&AdamOptions::l1, INFINITY), many,
        optim::adamw() | optim::group({.lr_scale = 2}) | optim::group({.lr_scale = -1})}) {
    Optimizer optimizer(spec, *f.model);
    EXPECT_FAILS(f.step(optimizer), Errc::invalid_argument);
  }
  Optimizer later = optim::adamw(*f.model);
  EXPECT_TRUE(later.moment(-1).empty() && later.moment(2).empty() && later.short_moment(0).empty());
  later.set_lr(-1);
  EXPECT_FAILS(f.step(later), Errc::invalid_argument);
  Optimizer brief = optim::adamw(*f.model, {.bf16_moments = true});
  EXPECT_TRUE(brief.short_moment(-1).empty() && brief.short_moment(2).empty() && brief.moment(0).empty());
  auto other = nn::build(nn::linear(50), {50});
  ASSERT_OK(other);
  Optimizer foreign = optim::adamw(*other);
  EXPECT_FAILS(f.step(foreign), Errc::invalid_argument);
  EXPECT_EQ(f.weights(), before);
}

// What a plan counts changes nothing; what is not finite stays so in 16 bits.
TEST(Optimizer, PlansAndInfinities) {
  Fixture f;
  ASSERT_OK(f.model);
  const auto before = f.weights();
  Workspace plan = planning_workspace(1);
  const std::vector<float> zeros(f.model->block().floats);
  Optimizer optimizer = optim::adamw(*f.model, {.bf16_moments = true});
  ASSERT_OK(optimizer.step(*f.model, zeros, plan.context()));
  EXPECT_EQ(optimizer.steps(), 0u);
  EXPECT_EQ(f.weights(), before);
  f.c[0] = INFINITY;
  f.c[1] = NAN;
  ASSERT_OK(f.step(optimizer));
  const auto widened = [&](int moment, std::size_t i) {
    return std::bit_cast<float>(static_cast<std::uint32_t>(optimizer.short_moment(moment)[i]) << 16);
  };
  for (const int moment : {0, 1}) {
    EXPECT_EQ(widened(moment, 0), INFINITY);
    EXPECT_TRUE(std::isnan(widened(moment, 1)));
    EXPECT_GT(widened(moment, 5), 0);
  }
}

// A group's pattern may end in stars; parameters that are not trained have no place.
TEST(Optimizer, PatternsOfGroups) {
  for (const auto& [pattern, fits] :
       {std::pair{"1.weight**", true}, {"1.weight*x", false}, {"1.weigh", false}, {"*.w*t", true}}) {
    auto model = nn::build(nn::frozen(nn::linear(3)) | nn::linear(2), {4}, init::normal(3, 1));
    ASSERT_OK(model);
    const auto before = model->parameter("1.weight")->to_vector().value();
    Optimizer optimizer(optim::sgd({.lr = 1}) | optim::group({.pattern = pattern, .lr_scale = 0}), *model);
    Workspace ws{{.scratch = 1_MiB, .threads = 1}};
    ASSERT_OK(optimizer.step(*model, std::vector<float>(model->block().floats, 1), ws.context()));
    EXPECT_EQ(model->parameter("1.weight")->to_vector().value() == before, fits) << pattern;
  }
}

TEST(Optimizer, FrozenParametersStay) {
  auto layers = nn::linear(3) | nn::linear(2);
  std::get<0>(layers.layers).weight.trainable = false;
  auto model = nn::build(layers, {4});
  ASSERT_OK(model);
  const auto frozen = *model->parameter("0.weight")->to_vector(), trained = *model->parameter("1.weight")->to_vector();
  Optimizer optimizer = optim::adamw(*model, {.lr = 0.1f, .weight_decay = 0.5f});
  Workspace ws{{.scratch = 1_MiB, .threads = 1}};
  const std::vector<float> x(4, 1);
  for (int i = 0; i < 3; ++i) {
    auto tape = ws.record();
    auto step = ops::sum(tape.input(Tensor::borrow(std::span<const float>(x), {1, 4})) | *model)
                    .and_then(backward)
                    .and_then([&](const Gradients& g) { return optimizer.step(*model, g); });
    ASSERT_OK(step);
  }
  EXPECT_EQ(*model->parameter("0.weight")->to_vector(), frozen);
  EXPECT_NE(*model->parameter("1.weight")->to_vector(), trained);
}

// A whole training step: forward, loss, backward, clip, AdamW.
TEST(Training, AllocatesNothingAndDoesNotDependOnThreads) {
  QORUS_NEEDS_ALLOCATION_COUNTER();
  std::vector<float> x(48 * 30), wanted;
  for (std::size_t i = 0; i < x.size(); ++i) x[i] = std::sin(static_cast<float>(i));
  std::vector<std::int32_t> y(48);
  for (int i = 0; i < 48; ++i) y[static_cast<std::size_t>(i)] = i * 7 % 10;
  for (const int threads : {1, 2, 3}) {
    auto model =
        nn::build(nn::linear(200) | nn::relu() | nn::linear(100) | nn::gelu() | nn::linear(10), {30}, init::kaiming(1));
    ASSERT_OK(model);
    Optimizer optimizer = optim::adamw(*model, {.lr = 1e-2f});
    Workspace ws{{.scratch = 16_MiB, .threads = threads}};
    float first = 0, last = 0;
    for (int i = 0; i < 30; ++i) {
      Status done;
      const auto allocated = qorus_test::allocations_of([&] {
        auto tape = ws.record();
        auto loss = tape.input(Tensor::borrow(std::span<const float>(x), {48, 30})) | *model |
                    loss::cross_entropy(Tensor::borrow(std::span<const std::int32_t>(y), {48}));
        last = loss ? *loss->item() : NAN;
        done = loss.and_then(backward)
                   .and_then([](const Gradients& g) { return clip_norm(g, 1); })
                   .and_then([&](const Gradients& g) { return optimizer.step(*model, g); });
      });
      ASSERT_OK(done);
      if (i > 0) ASSERT_EQ(allocated, 0u) << "step " << i;
      if (i == 0) first = last;
    }
    EXPECT_LT(last, first / 10);  // it overfits the batch
    const std::vector<float> weights(model->slab().begin(), model->slab().end());
    if (wanted.empty()) wanted = weights;
    EXPECT_EQ(weights, wanted) << threads << " threads";
  }
}

// PyTorch trained this network; losses, first gradients and final weights must come out the same.
TEST(Training, FollowsPyTorchOnIris) {
  const std::string folder = "train-oracles/mlp-iris-sgd/";
  QORUS_NEEDS_DATA(folder + "expected.json");
  const auto data = [&](const std::string& name) { return read_npy(qorus_test::data_path(folder + name)); };
  const auto x = data("data_0.npy");
  std::ifstream raw(qorus_test::data_path(folder + "data_1.npy"), std::ios::binary);
  const std::string labels((std::istreambuf_iterator<char>(raw)), {});
  ASSERT_NE(labels.find("<i8"), labels.npos);
  std::vector<std::int32_t> y(150);
  for (std::size_t i = 0; i < 150; ++i) {
    std::int64_t value = 0;
    std::memcpy(&value, labels.data() + labels.size() - (150 - i) * 8, 8);
    y[i] = static_cast<std::int32_t>(value);
  }
  std::ifstream json(qorus_test::data_path(folder + "expected.json"));
  const std::string text((std::istreambuf_iterator<char>(json)), {});
  const std::string list =
      text.substr(text.find("loss_per_step_f64"), text.find("max_f32_f64") - text.find("loss_per_step_f64"));
  std::vector<double> losses;
  const std::regex number(R"(\d+\.\d+(e-?\d+)?)");
  for (std::sregex_iterator it(list.begin(), list.end(), number), end; it != end; ++it)
    losses.push_back(std::stod(it->str()));
  ASSERT_EQ(losses.size(), 50u);

  auto model = nn::build(nn::linear(16) | nn::tanh() | nn::linear(3), {4});
  ASSERT_OK(model);
  for (const auto& p : model->parameters()) {
    const auto values = data("init/" + std::string(p.name.c_str()) + ".npy");
    ASSERT_OK(model->assign(p.name.view(), Tensor::borrow(std::span<const float>(values), p.tensor.shape())));
  }
  Optimizer optimizer = optim::sgd(*model, {.lr = 0.1f, .momentum = 0.9f});
  Workspace ws{{.scratch = 4_MiB, .threads = 2}};
  const auto expect_near = [](const std::vector<float>& got, const std::vector<float>& wanted, float tolerance) {
    ASSERT_EQ(got.size(), wanted.size());
    for (std::size_t i = 0; i < got.size(); ++i) EXPECT_NEAR(got[i], wanted[i], tolerance);
  };
  for (std::size_t step = 0; step < losses.size(); ++step) {
    auto tape = ws.record();
    auto loss = tape.input(Tensor::borrow(std::span<const float>(x), {150, 4})) | *model |
                loss::cross_entropy(Tensor::borrow(std::span<const std::int32_t>(y), {150}));
    auto grads = loss.and_then(backward);
    ASSERT_OK(grads);
    // Each of the 50 losses differs from PyTorch's f64 run by rounding alone; PyTorch's own f32 run by up to 7.8e-8.
    EXPECT_NEAR(*loss->item(), losses[step], 1e-6) << step;
    if (step == 0) {
      for (const auto& p : model->parameters()) {
        expect_near(*grads->of(p.tensor)->to_vector(), data("grad0/" + std::string(p.name.c_str()) + ".npy"), 1e-6f);
      }
    }
    ASSERT_OK(optimizer.step(*model, *grads));
  }
  for (const auto& p : model->parameters())
    expect_near(*p.tensor.to_vector(), data("final/" + std::string(p.name.c_str()) + ".npy"), 1e-5f);
}
