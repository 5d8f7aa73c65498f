// Matrix products in all their forms, and the linear layer's product with what goes beside it.
#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <numbers>
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

using Tensors = std::span<const Tensor>;
using Arrays = std::vector<Array>;

// c[…, i, j] = sum over k of a[…, i, k] b[…, k, j], by the definition.
Array product(Array a, Array b) {
  const bool row = a.rank() == 1, column = b.rank() == 1;
  if (row) a.dims.insert(a.dims.begin(), 1);
  if (column) b.dims.push_back(1);
  Extents dims = zip(Array(Extents(a.dims.begin(), a.dims.end() - 2)), Array(Extents(b.dims.begin(), b.dims.end() - 2)),
                     [](double, double) { return 0.0; })
                     .dims;
  dims.push_back(a.dim(-2));
  dims.push_back(b.dim(-1));
  Array c = build(dims, [&](const Extents& index) {
    Extents left = index, right = index;
    double sum = 0;
    for (std::int64_t k = 0; k < a.dim(-1); ++k) {
      left[left.size() - 1] = right[right.size() - 2] = k;
      sum += a.at(left) * b.at(right);
    }
    return sum;
  });
  if (row) c.dims.erase(c.dims.end() - 2);
  if (column) c.dims.pop_back();
  return c;
}

double activate(Activation activation, double x) {
  const double s = 1 / (1 + std::exp(-x));
  switch (activation) {
    case Activation::none: return x;
    case Activation::relu: return x > 0 ? x : 0;
    case Activation::gelu: return x / 2 * std::erfc(-x / std::numbers::sqrt2);
    case Activation::gelu_tanh:
      return x / 2 * (1 + std::tanh(std::sqrt(2 / std::numbers::pi) * (x + 0.044715 * x * x * x)));
    case Activation::silu: return x * s;
    case Activation::sigmoid: return s;
    case Activation::tanh: return std::tanh(x);
  }
  return x;
}

constexpr Activation k_activations[] = {Activation::none, Activation::relu,    Activation::gelu, Activation::gelu_tanh,
                                        Activation::silu, Activation::sigmoid, Activation::tanh};

Array linear(const Array& x, const Array& weight, const Array* bias, Activation activation) {
  const Array turned = build({weight.dim(1), weight.dim(0)}, [&](const Extents& i) { return weight.at({i[1], i[0]}); });
  Array y = product(x, turned);
  if (bias) y = zip(y, *bias, [](double a, double b) { return a + b; });
  return map(y, [&](double v) { return activate(activation, v); });
}

Array plus(const Array& a, const Array& b) { return zip(a, b, std::plus<>{}); }

Array gated(const Array& gate, const Array& up, const Array& weight, Activation f) {
  const Array h = zip(gate, up, [=](double a, double b) { return activate(f, a) * b; });
  return linear(h, weight, nullptr, Activation::none);
}

// linear and gated_linear with all that may go beside them.
void add_parts(std::vector<Case>& c) {
  for (const auto f : k_activations) {
    const std::string tail = "_" + std::to_string(static_cast<int>(f));
    c.push_back({"linear_with_residual" + tail,
                 {{{5, 7}}, {{3, 7}}, {{3}}, {{5, 3}}},
                 [=](Tensors x) {
                   const Operand bias = x[2], residual = x[3];
                   return ops::linear(x[0], x[1], {.bias = &bias, .residual = &residual, .activation = f});
                 },
                 [=](const Arrays& x) { return plus(linear(x[0], x[1], &x[2], f), x[3]); }});
    c.push_back(
        {"gated" + tail,
         {{{2, 3, 5}}, {{2, 3, 5}}},
         [=](Tensors x) { return ops::gated(x[0], x[1], f); },
         [=](const Arrays& x) { return zip(x[0], x[1], [=](double a, double b) { return activate(f, a) * b; }); }});
    c.push_back({"gated_linear" + tail,
                 {{{2, 3, 5}}, {{2, 3, 5}}, {{4, 5}}},
                 [=](Tensors x) { return ops::gated_linear(x[0], x[1], x[2], {.activation = f}); },
                 [=](const Arrays& x) { return gated(x[0], x[1], x[2], f); }});
    c.push_back({"activated_linear" + tail,
                 {{{2, 3, 5}}, {{4, 5}}, {{4}}, {{2, 3, 4}}},
                 [=](Tensors x) {
                   const Operand bias = x[2], residual = x[3];
                   return ops::activated_linear(x[0], x[1], {.bias = &bias, .residual = &residual, .activation = f});
                 },
                 [=](const Arrays& x) {
                   const Array h = map(x[0], [=](double a) { return activate(f, a); });
                   return plus(linear(h, x[1], &x[2], Activation::none), x[3]);
                 }});
  }
  c.push_back({"linear_around_itself",
               {{{5, 7}}, {{7, 7}}},
               [](Tensors x) {
                 const Operand residual = x[0];
                 return ops::linear(x[0], x[1], {.residual = &residual});
               },
               [](const Arrays& x) { return plus(linear(x[0], x[1], nullptr, Activation::none), x[0]); }});
  c.push_back({"gated_linear_of_one_tensor_around_itself",
               {{{5, 7}}, {{7, 7}}, {{7}}},
               [](Tensors x) {
                 const Operand bias = x[2], residual = x[0];
                 return ops::gated_linear(x[0], x[0], x[1],
                                          {.bias = &bias, .residual = &residual, .activation = Activation::silu});
               },
               [](const Arrays& x) { return plus(plus(gated(x[0], x[0], x[1], Activation::silu), x[2]), x[0]); }});
  c.push_back({"activated_linear_around_itself",
               {{{5, 7}}, {{7, 7}}},
               [](Tensors x) {
                 const Operand residual = x[0];
                 return ops::activated_linear(x[0], x[1], {.residual = &residual, .activation = Activation::gelu});
               },
               [](const Arrays& x) {
                 const Array h = map(x[0], [](double a) { return activate(Activation::gelu, a); });
                 return plus(linear(h, x[1], nullptr, Activation::none), x[0]);
               }});
  for (const Extents& x : {Extents{7}, Extents{0, 7}}) {
    c.push_back({"gated_linear_of_" + std::to_string(x.size()) + "d",
                 {{x}, {x}, {{3, 7}}},
                 [](Tensors t) { return ops::gated_linear(t[0], t[1], t[2], {.activation = Activation::gelu}); },
                 [](const Arrays& a) { return gated(a[0], a[1], a[2], Activation::gelu); }});
  }
}

const std::vector<Case>& all() {
  static const std::vector<Case> cases = [] {
    std::vector<Case> c;
    const std::pair<Extents, Extents> shapes[] = {
        {{1, 1}, {1, 1}},       {{3, 4}, {4, 5}},       {{7, 13}, {13, 11}},       {{4}, {4}},
        {{4}, {4, 3}},          {{3, 4}, {4}},          {{4, 4}, {4, 4}},          {{2, 3, 4}, {4, 5}},
        {{3, 4}, {2, 4, 5}},    {{2, 3, 4}, {2, 4, 5}}, {{2, 1, 3, 4}, {3, 4, 2}}, {{1, 3, 4}, {5, 4, 2}},
        {{0, 4}, {4, 3}},       {{3, 0}, {0, 4}},       {{3, 4}, {4, 0}},          {{0, 3, 4}, {4, 5}},
        {{1, 3, 4}, {0, 4, 5}}, {{4}, {2, 4, 3}},       {{2, 3, 4}, {4}},          {{17, 31}, {31, 19}}};
    int i = 0;
    for (const auto& [a, b] : shapes) {
      c.push_back({"matmul_" + std::to_string(i++),
                   {{a}, {b}},
                   [](Tensors x) { return ops::matmul(x[0], x[1]); },
                   [](const Arrays& x) { return product(x[0], x[1]); }});
    }
    c.push_back({"matmul_by_its_own_transpose",
                 {{{5, 7}}},
                 [](Tensors x) { return ops::matmul(x[0], ops::transpose(x[0])); },
                 [](const Arrays& x) { return linear(x[0], x[0], nullptr, Activation::none); }});
    for (const auto activation : k_activations) {
      const std::string tail = "_" + std::to_string(static_cast<int>(activation));
      c.push_back({"linear" + tail,
                   {{{5, 7}}, {{3, 7}}, {{3}}},
                   [=](Tensors x) { return ops::linear(x[0], x[1], x[2], activation); },
                   [=](const Arrays& x) { return linear(x[0], x[1], &x[2], activation); }});
      c.push_back({"linear_without_bias" + tail,
                   {{{2, 3, 5}}, {{4, 5}}},
                   [=](Tensors x) { return ops::linear(x[0], x[1], activation); },
                   [=](const Arrays& x) { return linear(x[0], x[1], nullptr, activation); }});
    }
    for (const Extents& x : {Extents{7}, Extents{1, 7}, Extents{0, 7}, Extents{2, 1, 2, 7}}) {
      c.push_back({"linear_of_" + std::to_string(x.size()) + "d_" + std::to_string(count_of(x)),
                   {{x}, {{3, 7}}, {{3}}},
                   [](Tensors t) { return ops::linear(t[0], t[1], t[2], Activation::silu); },
                   [](const Arrays& a) { return linear(a[0], a[1], &a[2], Activation::silu); }});
    }
    add_parts(c);
    return c;
  }();
  return cases;
}

class Products : public testing::TestWithParam<std::size_t> {};
TEST_P(Products, KeepsItsPromises) { EXPECT_EQ(check(all()[GetParam()]), ""); }
INSTANTIATE_TEST_SUITE_P(Op, Products, testing::Range(std::size_t{0}, all().size()),
                         [](const auto& info) { return all()[info.param].name; });

TEST(ProductBits, DoNotDependOnWorkers) {
  const Case cases[] = {
      {"matmul", {{{301, 203}}, {{203, 157}}}, [](Tensors x) { return ops::matmul(x[0], x[1]); }, {}},
      {"transposed",
       {{{203, 301}}, {{157, 203}}},
       [](Tensors x) { return ops::matmul(ops::transpose(x[0]), ops::transpose(x[1])); },
       {}},
      {"batched", {{{40, 31, 23}}, {{40, 23, 17}}}, [](Tensors x) { return ops::matmul(x[0], x[1]); }, {}},
      {"shared", {{{40, 31, 23}}, {{23, 17}}}, [](Tensors x) { return ops::matmul(x[0], x[1]); }, {}},
      {"repeated", {{{31, 23}}, {{40, 23, 17}}}, [](Tensors x) { return ops::matmul(x[0], x[1]); }, {}},
      {"linear",
       {{{129, 300}}, {{257, 300}}, {{257}}},
       [](Tensors x) { return ops::linear(x[0], x[1], x[2], Activation::gelu); },
       {}},
      {"gated",
       {{{129, 300}}, {{129, 300}}, {{257, 300}}, {{129, 257}}},
       [](Tensors x) {
         const Operand residual = x[3];
         return ops::gated_linear(x[0], x[1], x[2], {.residual = &residual, .activation = Activation::silu});
       },
       {}},
      {"activated",
       {{{129, 300}}, {{257, 300}}, {{257}}},
       [](Tensors x) {
         const Operand bias = x[2];
         return ops::activated_linear(x[0], x[1], {.bias = &bias, .activation = Activation::gelu});
       },
       {}},
  };
  for (const Case& c : cases) EXPECT_EQ(check_bits(c), "") << c.name;
}

// A row's result is the same alone and in a batch.
TEST(ProductBits, DoNotDependOnTheBatch) {
  const Owned x = random_owned({37, 203}, 1), weight = random_owned({64, 203}, 2), bias = random_owned({64}, 3);
  const Tensor w = weight, b = bias;
  auto frame = workspace(2).frame();
  auto whole = ops::linear(frame.input(x), w, b, Activation::silu).value();
  for (const std::int64_t row : {0, 5, 36}) {
    auto alone = ops::linear(ops::slice(frame.input(x), 0, row, row + 1), w, b, Activation::silu).value();
    EXPECT_EQ(alone.to_vector().value(), ops::slice(whole, 0, row, row + 1).value().to_vector().value());
  }
}

// Weights of every block format, laid out: near linear with what they stand for, and a panel alone is laid out as among the others.
TEST(Products, WeightsOfBlockFormats) {
  Workspace workspace{{.scratch = 16_MiB, .threads = 2}};
  const Shape shape{35, 512}, panel{16, 512};
  std::vector<float> numbers(3 * 512);
  for (std::size_t i = 0; i < numbers.size(); ++i) numbers[i] = std::sin(static_cast<float>(i * i));
  for (int i = static_cast<int>(DType::q4_0); i <= static_cast<int>(DType::iq4_xs); ++i) {
    const auto dtype = static_cast<DType>(i);
    std::vector<std::byte> rows(row_bytes(dtype, shape.numel()));
    for (std::size_t b = 0; b < rows.size(); ++b)  // below 0x3c: no f16 is 1 or more
      rows[b] = static_cast<std::byte>(b * 2654435761u % 65521 % 60);
    auto frame = workspace.frame();
    auto x = frame.input(Tensor::borrow(std::span<const float>(numbers), Shape{3, 512}));
    auto w = frame.input(Tensor(rows.data(), dtype, Layout::dense(shape), {}));
    ASSERT_OK(w);
    std::vector<std::byte> bytes(ops::packed_bytes(dtype, shape)), one(ops::packed_bytes(dtype, panel));
    ASSERT_EQ(bytes.size(), 3 * one.size()) << i;
    ASSERT_EQ(one.size(), row_bytes(dtype, panel.numel())) << i;  // never more than the weights themselves
    ASSERT_OK(ops::pack_weight(*w, bytes));
    const Tensor second(rows.data() + row_bytes(dtype, panel.numel()), dtype, Layout::dense(panel), {});
    ASSERT_OK(ops::pack_weight(second, one));
    EXPECT_TRUE(std::equal(one.begin(), one.end(), bytes.begin() + static_cast<std::ptrdiff_t>(one.size()))) << i;
    const Tensor packed(bytes.data(), DType::u8, Layout::dense(Shape{static_cast<std::int64_t>(bytes.size())}), {});
    auto y = ops::linear(x, w, {.packed = &packed}), wanted = ops::linear(x, ops::cast(w, DType::f32));
    ASSERT_OK(y);
    ASSERT_OK(wanted);
    float largest = 0, worst = 0;
    for (std::size_t j = 0; j < y->numel(); ++j) {
      largest = std::max(largest, std::abs(wanted->f32()[j]));
      worst = std::max(worst, std::abs(wanted->f32()[j] - y->f32()[j]));
    }
    EXPECT_LT(worst, 0.02f * largest) << i;  // x in steps of the 127th part of the largest of 32
  }
}

TEST(Products, LinearAgreesWithItsComposition) {
  const Owned x = random_owned({9, 31}, 1), weight = random_owned({17, 31}, 2), bias = random_owned({17}, 3);
  const Tensor w = weight, b = bias;
  auto frame = workspace(1).frame();
  auto fused = ops::linear(frame.input(x), w, b, Activation::gelu).value().to_vector().value();
  auto plain = ops::gelu(ops::add(ops::matmul(frame.input(x), ops::transpose(w)), b)).value().to_vector().value();
  for (std::size_t i = 0; i < fused.size(); ++i) EXPECT_NEAR(fused[i], plain[i], 1e-5f * (1 + std::fabs(plain[i])));
}

// What is fused has the bits of what it stands for, with f32 weights and with others.
TEST(Products, AResidualAndAGateAreTheirCompositionToTheBit) {
  const Owned gate = random_owned({9, 64}, 1), up = random_owned({9, 64}, 2), weight = random_owned({17, 64}, 3),
              around = random_owned({9, 17}, 4);
  for (const DType dtype : {DType::f32, DType::bf16}) {
    auto frame = workspace(2).frame();
    const auto g = frame.input(gate), u = frame.input(up), r = frame.input(around),
               w = ops::cast(frame.input(weight), dtype);
    const Operand residual = r;
    EXPECT_EQ(ops::linear(g, w, {.residual = &residual})->to_vector().value(),
              ops::add(r, ops::linear(g, w))->to_vector().value());
    EXPECT_EQ(ops::gated_linear(g, u, w, {.residual = &residual, .activation = Activation::silu})->to_vector().value(),
              ops::add(r, ops::linear(ops::mul(ops::silu(g), u), w))->to_vector().value());
    EXPECT_EQ(ops::activated_linear(g, w, {.residual = &residual, .activation = Activation::gelu})->to_vector().value(),
              ops::add(r, ops::linear(ops::gelu(g), w))->to_vector().value());
    if (dtype == DType::f32) continue;
    std::vector<std::byte> bytes(ops::packed_bytes(dtype, w->shape()));
    ASSERT_OK(ops::pack_weight(*w, bytes));
    const Tensor packed(bytes.data(), DType::u8, Layout::dense(Shape{static_cast<std::int64_t>(bytes.size())}), {});
    EXPECT_EQ(ops::linear(g, w, {.residual = &residual, .packed = &packed})->to_vector().value(),
              ops::add(r, ops::linear(g, w, {.packed = &packed}))->to_vector().value());
  }
}

// Rows enough for several runs of h, whose memory none of them exceeds: the composition's bits, in values and gradients.
TEST(Products, AGateGoesByRunsOfRowsToTheBit) {
  constexpr std::int64_t k_rows = 1300, k_in = 24, k_out = 9;
  const Owned gate = random_owned({k_rows, k_in}, 1), up = random_owned({k_rows, k_in}, 2),
              weight = random_owned({k_out, k_in}, 3), around = random_owned({k_rows, k_out}, 4),
              slopes = random_owned({k_rows, k_out}, 5);
  const auto outcome = [&](Workspace& ws, bool fused) {
    auto tape = ws.record();
    const auto g = tape.watch(gate), u = tape.watch(up), w = tape.watch(weight), r = tape.watch(around);
    const Operand residual = r;
    const std::size_t before = ws.counters().high_water;
    auto y = fused ? ops::gated_linear(g, u, w, {.residual = &residual, .activation = Activation::silu})
                   : ops::linear(ops::gated(g, u, Activation::silu), w, {.residual = &residual});
    EXPECT_OK(y);
    if (fused && ws.threads() == 1)
      EXPECT_LT(ws.counters().high_water - before, (k_rows * k_in / 2 + k_rows * k_out) * sizeof(float));
    const auto gradients = backward_from(*y, slopes);
    EXPECT_OK(gradients);
    std::vector<float> all;
    for (const auto& t : {y, gradients->of(*g), gradients->of(*u), gradients->of(*w), gradients->of(*r)}) {
      const auto values = t->to_vector();
      if (values) all.insert(all.end(), values->begin(), values->end());
    }
    return all;
  };
  Workspace plain{{.scratch = 16_MiB, .threads = 1}};
  const auto wanted = outcome(plain, false);
  for (const int threads : {1, 2, 5}) {
    Workspace ws{{.scratch = 16_MiB, .threads = threads}}, plan = planning_workspace(threads);
    EXPECT_EQ(outcome(ws, true), wanted) << threads;
    EXPECT_EQ(outcome(plan, true).size(), 0u);
    EXPECT_EQ(plan.counters().high_water, ws.counters().high_water);
  }
}

// A weight's gradient over many rows: summed in runs, to the bits of one chain per element, without a copy of all the rows.
TEST(Products, AWeightsGradientGoesByRunsToTheBit) {
  constexpr std::int64_t k_rows = 4000, k_in = 24, k_out = 512;
  constexpr std::size_t k_copy = k_rows * k_out * sizeof(float);
  const Owned x = random_owned({k_rows, k_in}, 1), weight = random_owned({k_out, k_in}, 2),
              slopes = random_owned({k_rows, k_out}, 3);
  auto frame = workspace(1).frame();
  const auto columns =
      ops::contiguous(ops::transpose(frame.input(slopes)));  // a product that goes over all of k at once
  const auto wanted = ops::matmul(columns, frame.input(x))->to_vector().value();
  for (const int threads : {1, 2, 3}) {
    Workspace ws{{.scratch = 64_MiB, .threads = threads}}, plan = planning_workspace(threads);
    for (Workspace* in : {&plan, &ws}) {
      auto tape = in->record();
      const auto w = tape.watch(weight);
      const auto y = ops::linear(tape.input(x), w);
      ASSERT_OK(y);
      const std::size_t before = in->counters().high_water;
      const auto gradients = backward_from(*y, slopes);
      ASSERT_OK(gradients);
      EXPECT_LT(in->counters().high_water - before, k_copy) << threads;
      if (in == &ws) EXPECT_EQ(gradients->of(*w)->to_vector().value(), wanted) << threads;
    }
    EXPECT_EQ(plan.counters().high_water, ws.counters().high_water);
  }
}

TEST(Products, PartsThatDoNotFit) {
  const Owned a = random_owned({2, 3}), b = random_owned({4, 3}), c = random_owned({2, 5});
  auto frame = workspace(1).frame();
  const auto x = frame.input(a), w = frame.input(b), other = frame.input(c);
  const Operand wrong = other;
  EXPECT_FAILS_SAYING(ops::linear(x, w, {.bias = &wrong}), "[2,5] and [4,3]");
  EXPECT_FAILS_SAYING(ops::linear(x, w, {.residual = &wrong}), "[2,5] and [2,4]");
  EXPECT_FAILS_SAYING(ops::gated(x, other, Activation::silu), "[2,3] and [2,5]");
  EXPECT_FAILS_SAYING(ops::gated_linear(x, other, w, {}), "[2,3] and [2,5]");
  EXPECT_FAILS_SAYING(ops::gated_linear(other, other, w, {}), "[2,5] and [4,3]");
  EXPECT_FAILS_SAYING(ops::activated_linear(other, w, {}), "[2,5] and [4,3]");
}

}  // namespace
