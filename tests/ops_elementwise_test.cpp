// Element-wise operations: every function, broadcasting, scalars, comparisons, where; and the slopes at kinks.
#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <limits>
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
using Function = Result<Tensor> (*)(const Operand&) noexcept;
using Pair = Result<Tensor> (*)(const Operand&, const Operand&) noexcept;

double sigmoid(double x) { return 1 / (1 + std::exp(-x)); }
double gelu(double x) { return x / 2 * std::erfc(-x / std::numbers::sqrt2); }
double gelu_tanh(double x) {
  return x / 2 * (1 + std::tanh(std::sqrt(2 / std::numbers::pi) * (x + 0.044715 * x * x * x)));
}

void add_unary(std::vector<Case>& cases, const char* name, Function f, double (*reference)(double), double low = -3,
               double high = 3) {
  const Extents shapes[] = {{}, {1}, {7}, {3, 5}, {2, 3, 4}, {0, 3}};
  for (const Extents& dims : shapes) {
    cases.push_back(
        {std::string(name) + "_of_" + std::to_string(count_of(dims)) + "_" + std::to_string(dims.size()) + "d",
         {{dims, low, high}},
         [f](Tensors x) { return f(x[0]); },
         [reference](const Arrays& x) { return map(x[0], reference); }});
  }
}

void add_scalar(std::vector<Case>& cases, const char* name, const std::function<Result<Tensor>(const Tensor&)>& f,
                const std::function<double(double)>& reference, double low = -3, double high = 3) {
  cases.push_back({name,
                   {{{3, 5}, low, high}},
                   [f](Tensors x) { return f(x[0]); },
                   [reference](const Arrays& x) { return map(x[0], reference); }});
}

void add_binary(std::vector<Case>& cases, const char* name, Pair f, double (*reference)(double, double),
                double low = -3, double high = 3, bool kink = false) {
  const std::pair<Extents, Extents> shapes[] = {
      {{}, {}},     {{3, 4}, {3, 4}}, {{3, 4}, {4}}, {{3, 1}, {1, 5}},  {{2, 1, 3}, {4, 1}},
      {{}, {2, 3}}, {{5}, {1}},       {{0, 3}, {3}}, {{1, 7}, {13, 1}}, {{2, 3, 5}, {2, 1, 5}}};
  int i = 0;
  for (const auto& [a, b] : shapes) {
    cases.push_back({std::string(name) + "_" + std::to_string(i++),
                     {{a, low, high}, {b, low, high}},
                     [f](Tensors x) { return f(x[0], x[1]); },
                     [reference](const Arrays& x) { return zip(x[0], x[1], reference); },
                     true,
                     kink});
  }
}

void add_compare(std::vector<Case>& cases, const char* name, Pair f, double (*reference)(double, double)) {
  cases.push_back(
      {name,
       {{{3, 4}, 0, 0, DType::f32, {1, 2, 3, 4, 1, 1, 2, 2, 0, -1, -2, 3}}, {{4}, 0, 0, DType::f32, {1, 2, -2, 3}}},
       [f](Tensors x) { return f(x[0], x[1]); },
       [reference](const Arrays& x) { return zip(x[0], x[1], reference); },
       false});
}

std::vector<Case> functions() {
  std::vector<Case> c;
  add_unary(c, "neg", ops::neg, [](double x) { return -x; });
  add_unary(c, "abs", ops::abs, [](double x) { return std::fabs(x); });
  add_unary(c, "sign", ops::sign, [](double x) { return x > 0 ? 1.0 : x < 0 ? -1.0 : 0.0; });
  add_unary(c, "sqrt", ops::sqrt, [](double x) { return std::sqrt(x); }, 0.1, 4);
  add_unary(c, "square", ops::square, [](double x) { return x * x; });
  add_unary(c, "reciprocal", ops::reciprocal, [](double x) { return 1 / x; }, 0.3, 3);
  add_unary(c, "exp", ops::exp, [](double x) { return std::exp(x); });
  add_unary(c, "log", ops::log, [](double x) { return std::log(x); }, 0.1, 5);
  add_unary(c, "sin", ops::sin, [](double x) { return std::sin(x); });
  add_unary(c, "cos", ops::cos, [](double x) { return std::cos(x); });
  add_unary(c, "erf", ops::erf, [](double x) { return std::erf(x); });
  add_unary(c, "floor", ops::floor, [](double x) { return std::floor(x); });
  add_unary(c, "ceil", ops::ceil, [](double x) { return std::ceil(x); });
  add_unary(c, "round", ops::round, [](double x) { return std::nearbyint(x); });
  add_unary(c, "relu", ops::relu, [](double x) { return x > 0 ? x : 0; });
  add_unary(c, "gelu", ops::gelu, gelu);
  add_unary(c, "gelu_tanh", ops::gelu_tanh, gelu_tanh);
  add_unary(c, "silu", ops::silu, [](double x) { return x * sigmoid(x); });
  add_unary(c, "sigmoid", ops::sigmoid, sigmoid);
  add_unary(c, "tanh", ops::tanh, [](double x) { return std::tanh(x); });
  add_unary(c, "softplus", ops::softplus, [](double x) { return std::log1p(std::exp(x)); });
  add_scalar(
      c, "leaky_relu", [](const Tensor& x) { return ops::leaky_relu(x, 0.2f); },
      [](double x) { return x > 0 ? x : double(0.2f) * x; });
  add_scalar(
      c, "elu", [](const Tensor& x) { return ops::elu(x, 1.5f); },
      [](double x) { return x > 0 ? x : 1.5 * std::expm1(x); });
  add_scalar(
      c, "clamp", [](const Tensor& x) { return ops::clamp(x, -0.7f, 1.1f); },
      [](double x) { return std::clamp(x, double(-0.7f), double(1.1f)); });
  add_scalar(c, "add_scalar", [](const Tensor& x) { return ops::add(x, 1.25f); }, [](double x) { return x + 1.25; });
  add_scalar(c, "sub_scalar", [](const Tensor& x) { return ops::sub(x, 1.25f); }, [](double x) { return x - 1.25; });
  add_scalar(c, "scalar_sub", [](const Tensor& x) { return ops::sub(1.25f, x); }, [](double x) { return 1.25 - x; });
  add_scalar(c, "mul_scalar", [](const Tensor& x) { return ops::mul(x, -1.5f); }, [](double x) { return -1.5 * x; });
  add_scalar(c, "div_scalar", [](const Tensor& x) { return ops::div(x, 3); }, [](double x) { return x / 3; });
  add_scalar(c, "scalar_div", [](const Tensor& x) { return ops::div(2, x); }, [](double x) { return 2 / x; }, 0.5, 3);
  add_scalar(
      c, "pow_scalar", [](const Tensor& x) { return ops::pow(x, 2.5f); }, [](double x) { return std::pow(x, 2.5); },
      0.2, 3);
  add_scalar(c, "pow_whole", [](const Tensor& x) { return ops::pow(x, 3); }, [](double x) { return x * x * x; });
  add_scalar(
      c, "scalar_pow", [](const Tensor& x) { return ops::pow(2.5f, x); }, [](double x) { return std::pow(2.5, x); });
  add_scalar(
      c, "maximum_scalar", [](const Tensor& x) { return ops::maximum(x, 0.3f); },
      [](double x) { return std::max(x, double(0.3f)); });
  add_scalar(
      c, "minimum_scalar", [](const Tensor& x) { return ops::minimum(x, 0.3f); },
      [](double x) { return std::min(x, double(0.3f)); });
  add_scalar(
      c, "operators", [](const Tensor& x) { return (1.0f - x * 2.0f + 3.0f) / x - (-x) * (x + 0.5f); },
      [](double x) { return (1 - x * 2 + 3) / x + x * (x + 0.5); }, 0.5, 2);
  return c;
}

std::vector<Case> pairs() {
  std::vector<Case> c;
  add_binary(c, "add", ops::add, [](double a, double b) { return a + b; });
  add_binary(c, "add_relu", ops::add_relu, [](double a, double b) { return std::max(a + b, 0.0); });
  add_binary(c, "sub", ops::sub, [](double a, double b) { return a - b; });
  add_binary(c, "mul", ops::mul, [](double a, double b) { return a * b; });
  add_binary(c, "div", ops::div, [](double a, double b) { return a / b; }, 0.5, 3);
  add_binary(c, "pow", ops::pow, [](double a, double b) { return std::pow(a, b); }, 0.3, 2.5);
  add_binary(c, "maximum", ops::maximum, [](double a, double b) { return std::max(a, b); }, -3, 3, true);
  add_binary(c, "minimum", ops::minimum, [](double a, double b) { return std::min(a, b); }, -3, 3, true);
  add_compare(c, "equal", ops::equal, [](double a, double b) { return double(a == b); });
  add_compare(c, "not_equal", ops::not_equal, [](double a, double b) { return double(a != b); });
  add_compare(c, "less", ops::less, [](double a, double b) { return double(a < b); });
  add_compare(c, "less_equal", ops::less_equal, [](double a, double b) { return double(a <= b); });
  add_compare(c, "greater", ops::greater, [](double a, double b) { return double(a > b); });
  add_compare(c, "greater_equal", ops::greater_equal, [](double a, double b) { return double(a >= b); });
  const std::vector<Extents> masks = {{3, 4}, {4}, {3, 1}, {}};
  for (std::size_t i = 0; i < masks.size(); ++i) {
    c.push_back({"where_" + std::to_string(i),
                 {{{3, 4}}, {{1, 4}}, whole(masks[i], 0, 2, DType::u8)},
                 [](Tensors x) { return ops::where(x[2], x[0], x[1]); },
                 [](const Arrays& x) {
                   return zip(zip(x[2], x[0], [](double m, double a) { return m != 0 ? a : 0; }),
                              zip(x[2], x[1], [](double m, double b) { return m != 0 ? 0 : b; }),
                              [](double a, double b) { return a + b; });
                 }});
  }
  return c;
}

const std::vector<Case>& all() {
  static const std::vector<Case> cases = [] {
    std::vector<Case> both = functions();
    for (Case& c : pairs()) both.push_back(std::move(c));
    return both;
  }();
  return cases;
}

class Elementwise : public testing::TestWithParam<std::size_t> {};
TEST_P(Elementwise, KeepsItsPromises) { EXPECT_EQ(check(all()[GetParam()]), ""); }
INSTANTIATE_TEST_SUITE_P(Op, Elementwise, testing::Range(std::size_t{0}, all().size()),
                         [](const auto& info) { return all()[info.param].name; });

// The slope that an operation has at one point.
template <class F>
float slope(float at, const F& f) {
  auto tape = workspace(1).record();
  auto x = tape.watch(Tensor::borrow(std::span<const float>(&at, 1), {}));
  auto g = backward(f(*x).value());
  return g ? g->of(*x).value().item().value() : NAN;
}

TEST(Kinks, HaveTheSlopesOfPyTorch) {
  EXPECT_EQ(slope(0, [](const Tensor& x) { return ops::relu(x); }), 0);
  EXPECT_EQ(slope(0, [](const Tensor& x) { return ops::abs(x); }), 0);
  EXPECT_EQ(slope(0, [](const Tensor& x) { return ops::sum_abs(x); }), 0);
  EXPECT_EQ(slope(1, [](const Tensor& x) { return ops::sum_abs(x); }), 1);
  EXPECT_EQ(slope(0, [](const Tensor& x) { return ops::leaky_relu(x, 0.1f); }), 0.1f);
  EXPECT_EQ(slope(0, [](const Tensor& x) { return ops::elu(x, 2); }), 2);
  EXPECT_EQ(slope(1, [](const Tensor& x) { return ops::maximum(x, 1); }), 0.5f);
  EXPECT_EQ(slope(1, [](const Tensor& x) { return ops::minimum(x, 1); }), 0.5f);
  EXPECT_EQ(slope(1, [](const Tensor& x) { return ops::clamp(x, -1, 1); }), 1);
  EXPECT_EQ(slope(1.5f, [](const Tensor& x) { return ops::maximum(x, x); }), 1);
  EXPECT_EQ(slope(0, [](const Tensor& x) { return ops::pow(x, 0); }), 0);
  EXPECT_EQ(slope(0, [](const Tensor& x) { return ops::pow(x, 1); }), 1);
  EXPECT_EQ(slope(0, [](const Tensor& x) { return ops::pow(0, x); }), 0);
}

TEST(Comparisons, NanIsUnequalToEverything) {
  auto frame = workspace(1).frame();
  const float values[] = {NAN, 1}, others[] = {NAN, NAN};
  auto a = frame.input(Tensor::borrow(std::span<const float>(values), {2}));
  auto b = frame.input(Tensor::borrow(std::span<const float>(others), {2}));
  for (const auto& result : {ops::equal(a, b), ops::less(a, b), ops::greater_equal(a, b)}) {
    EXPECT_EQ(result.value().at<std::uint8_t>({0}).value(), 0);
    EXPECT_EQ(result.value().at<std::uint8_t>({1}).value(), 0);
  }
  EXPECT_EQ(ops::not_equal(a, b).value().at<std::uint8_t>({0}).value(), 1);
}

TEST(Elementwise, BitsDoNotDependOnWorkers) {
  const auto big = [](const char* name, Operation run, std::vector<Input> inputs) {
    return Case{name, std::move(inputs), std::move(run), {}};
  };
  const Case cases[] = {
      big("gelu", [](Tensors x) { return ops::gelu(x[0]); }, {{{300, 301}}}),
      big("bias", [](Tensors x) { return ops::add(x[0], x[1]); }, {{{700, 130}}, {{130}}}),
      big("outer", [](Tensors x) { return ops::mul(x[0], x[1]); }, {{{500, 1}}, {{1, 400}}}),
      big("scalar", [](Tensors x) { return ops::div(x[0], x[1]); }, {{{100003}}, {{}, 1, 2}}),
      big("where", [](Tensors x) { return ops::where(x[2], x[0], x[1]); },
          {{{300, 400}}, {{400}}, whole({300, 1}, 0, 2, DType::u8)}),
  };
  for (const Case& c : cases) EXPECT_EQ(check_bits(c), "") << c.name;
}

// y and the gradients of a and b, by the given functions used twice over, so that gradients meet.
std::vector<float> twice_over(const std::function<Result<Tensor>(const Tensor&, const Tensor&)>& f,
                              std::span<const float> a, std::span<const float> b, std::span<const float> slopes) {
  Workspace ws{{.scratch = 64_MiB, .threads = 2}};
  auto tape = ws.record();
  const Shape shape{static_cast<std::int64_t>(a.size())};
  const auto x = tape.watch(Tensor::borrow(a, shape)).value(), z = tape.watch(Tensor::borrow(b, shape)).value();
  const auto y = ops::add(f(x, z), f(z, x)).value();
  const auto gradients = backward_from(y, Tensor::borrow(slopes, shape)).value();
  auto all = y.to_vector().value();
  for (const Tensor& of : {x, z}) {
    const auto slope = gradients.of(of)->to_vector().value();
    all.insert(all.end(), slope.begin(), slope.end());
  }
  return all;
}

// However a large tensor is cut into tasks, its elements get what they get in a small one.
TEST(Elementwise, LargeTensorsHaveTheBitsOfTheirParts) {
  constexpr std::size_t k_all = 300001, k_part = 9999;
  const Owned first = random_owned({k_all}, 1, 0.5f, 2), second = random_owned({k_all}, 2, 0.5f, 2),
              third = random_owned({k_all}, 3);
  const auto span_of = [](const Owned& t) { return std::span<const float>(t.tensor().f32(), k_all); };
  const auto a = span_of(first), b = span_of(second), slopes = span_of(third);
  const std::pair<const char*, std::function<Result<Tensor>(const Tensor&, const Tensor&)>> functions[] = {
      {"add", [](const Tensor& x, const Tensor& z) { return ops::add(x, z); }},
      {"sub", [](const Tensor& x, const Tensor& z) { return ops::sub(x, z); }},
      {"mul", [](const Tensor& x, const Tensor& z) { return ops::mul(x, z); }},
      {"div", [](const Tensor& x, const Tensor& z) { return ops::div(x, z); }},
      {"pow", [](const Tensor& x, const Tensor& z) { return ops::pow(x, z); }},
      {"maximum", [](const Tensor& x, const Tensor& z) { return ops::maximum(x, z); }},
      {"gated", [](const Tensor& x, const Tensor& z) { return ops::gated(x, z, Activation::gelu); }},
      {"where", [](const Tensor& x, const Tensor& z) { return ops::where(ops::less(x, z), x, z); }},
      {"clamp", [](const Tensor& x, const Tensor& /*z*/) { return ops::clamp(x, 0.75f, 1.25f); }},
      {"log", [](const Tensor& x, const Tensor& /*z*/) { return ops::log(x); }},
      {"huber", [](const Tensor& x, const Tensor& z) { return ops::huber(x, z, 0.5f, ops::Reduce::none); }},
      {"relu", [](const Tensor& x, const Tensor& z) { return ops::relu(ops::sub(x, z)); }},
      {"add_relu", [](const Tensor& x, const Tensor& z) { return ops::add_relu(x, ops::neg(z)); }},
  };
  for (const auto& [name, f] : functions) {
    const auto whole = twice_over(f, a, b, slopes);
    std::vector<float> parts(whole.size());
    for (std::size_t at = 0; at < k_all; at += k_part) {
      const std::size_t count = std::min(k_part, k_all - at);
      const auto part = twice_over(f, a.subspan(at, count), b.subspan(at, count), slopes.subspan(at, count));
      for (std::size_t i = 0; i < 3; ++i) std::copy_n(&part[i * count], count, &parts[i * k_all + at]);
    }
    EXPECT_EQ(parts, whole) << name;
  }
}

// Elements of a contiguous operand are read where they are: a result takes its own memory and nothing else.
TEST(Elementwise, CopiesNoOperand) {
  Workspace ws{{.scratch = 1_GiB, .threads = 1}};
  const Owned a = random_owned({64, 1024}, 1), b = random_owned({64, 1024}, 2), row = random_owned({1024}, 3),
              one = random_owned({}, 4);
  auto frame = ws.frame();
  auto x = frame.input(a);
  const std::size_t before = ws.counters().in_use, bytes = 64 * 1024 * sizeof(float);
  for (const Tensor& other : {b.tensor(), row.tensor(), one.tensor()}) {
    const std::size_t start = ws.counters().in_use;
    ASSERT_OK(ops::add(x, other));
    EXPECT_EQ(ws.counters().in_use - start, bytes);
  }
  ASSERT_OK(ops::exp(x));
  EXPECT_EQ(ws.counters().in_use - before, 4 * bytes);
}

}  // namespace
