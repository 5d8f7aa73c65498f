// ONNX' element-wise operators, and the parts of Call.
module;
#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <limits>
#include <map>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "tests/onnx_case.h"
module qorus.test.onnx;

namespace qorus_test {

using qorus::DType;
using qorus::Operand;
using qorus::Result;
using qorus::Shape;
using qorus::Tensor;
namespace ops = qorus::ops;

Outputs not_covered(const char* why) { return {qorus::fail(qorus::Errc::unsupported, "onnx", why)}; }

Result<Tensor> Call::make(const std::vector<std::int64_t>& dims, const std::vector<double>& values, DType dtype) {
  auto owned = qorus::Owned::zeros(Shape(std::span<const std::int64_t>(dims)), dtype);
  if (!owned) return qorus::fail(owned.error());
  const auto fill = [&]<class T>(T) {
    std::transform(values.begin(), values.end(), owned->fill<T>().begin(), [](double v) { return static_cast<T>(v); });
  };
  if (dtype == DType::f32) fill(0.0f);
  if (dtype == DType::i32) fill(std::int32_t{0});
  if (dtype == DType::u8) fill(std::uint8_t{0});
  made_.push_back(std::move(*owned));
  return frame_->input(made_.back());
}

Result<Tensor> Call::from(std::size_t i, DType dtype) {
  if (!c.has_input(i))
    return qorus::fail(qorus::Errc::unsupported, "onnx", "an input is missing or of an unknown type");
  const OnnxValue& value = c.inputs[i];
  const bool large = std::any_of(value.v.begin(), value.v.end(), [](double v) { return std::fabs(v) > 16777216; });
  if (dtype == DType::f32 && large && value.dtype.find("int") != value.dtype.npos) {
    return qorus::fail(qorus::Errc::unsupported, "onnx", "whole numbers that f32 does not hold");
  }
  return make(value.dims, value.v, dtype);
}

Result<Tensor> Call::counting(std::int64_t n, std::int64_t first, std::int64_t step) {
  std::vector<double> values;
  for (std::int64_t i = 0; i < n; ++i) values.push_back(static_cast<double>(first + i * step));
  return make({n}, values, DType::i32);
}

namespace {

Result<Tensor> value_of(const Operand& x) {
  return x.ok() ? Result<Tensor>(*x) : Result<Tensor>(qorus::fail(x.error()));
}

using One = std::function<Result<Tensor>(const Operand&)>;
using Two = std::function<Result<Tensor>(const Operand&, const Operand&)>;
using Pair = Result<Tensor> (*)(const Operand&, const Operand&) noexcept;  // picks one of overloaded operations

bool is_whole(const OnnxValue& value) { return value.dtype.find("int") != value.dtype.npos; }

Result<Tensor> as_floats(const Operand& x) { return ops::cast(x, DType::f32); }
Result<Tensor> as_mask(const Operand& x) { return ops::cast(x, DType::u8); }
// Towards zero.
Result<Tensor> truncated(const Operand& x) { return ops::mul(ops::sign(x), ops::floor(ops::abs(x))); }

void one(OnnxTable& table, const char* name, const One& f) {
  table[name] = [f](Call& call) { return Outputs{f(call.in(0))}; };
}
void one(OnnxTable& table, const char* name, const std::function<Result<Tensor>(const Operand&, const OnnxCase&)>& f) {
  table[name] = [f](Call& call) { return Outputs{f(call.in(0), call.c)}; };
}
void two(OnnxTable& table, const char* name, const Two& f) {
  table[name] = [f](Call& call) { return Outputs{f(call.in(0), call.in(1))}; };
}
void two(OnnxTable& table, const char* name, Pair f) { two(table, name, Two(f)); }
// Any number of operands, folded; then `last` with the result and their number.
void many(OnnxTable& table, const char* name, Pair f,
          const std::function<Result<Tensor>(const Operand&, float)>& last = {}) {
  table[name] = [f, last](Call& call) {
    auto result = call.in(0);
    for (std::size_t i = 1; i < call.c.inputs.size(); ++i) result = f(result, call.in(i));
    return Outputs{last ? last(result, static_cast<float>(call.c.inputs.size())) : result};
  };
}

Result<Tensor> selu(const Operand& x, float alpha, float gamma) { return ops::mul(ops::elu(x, alpha), gamma); }

Outputs clip(Call& call) {
  const float infinity = std::numeric_limits<float>::infinity();
  const auto bound = [&](std::size_t i, const char* attribute, float otherwise) {
    if (call.c.has_input(i)) return static_cast<float>(call.c.inputs[i].v[0]);
    return static_cast<float>(call.c.number(attribute, static_cast<double>(otherwise)));
  };
  // With the lower bound above the upper one, ONNX gives the upper one everywhere.
  return {ops::minimum(ops::maximum(call.in(0), bound(1, "min", -infinity)), bound(2, "max", infinity))};
}

Outputs divide(Call& call) {
  auto quotient = ops::div(call.in(0), call.in(1));
  return {is_whole(call.c.inputs[0]) ? truncated(quotient) : quotient};
}

Outputs modulo(Call& call) {
  auto a = call.in(0), b = call.in(1);
  auto quotient = ops::div(a, b);
  return {ops::sub(a, ops::mul(call.c.integer("fmod", 0) ? truncated(quotient) : ops::floor(quotient), b))};
}

Outputs prelu(Call& call) {
  auto x = call.in(0), slope = call.in(1);
  if (call.c.opset < 7 && slope && slope->rank() == 1 && x && x->rank() > 1) {  // one slope for each channel
    for (int d = 2; d < x->rank(); ++d) slope = ops::unsqueeze(slope, -1);
  }
  return {ops::where(ops::less(x, ops::mul(x, 0.0f)), ops::mul(x, slope), x)};
}

// Whole numbers to a whole power by repeated products would differ from exp and log: floats then, rounded.
Outputs power(Call& call) {
  auto y = ops::pow(call.in(0), call.in(1));
  return {is_whole(call.c.inputs[0]) ? ops::round(y) : y};
}

Outputs where(Call& call) { return {ops::where(call.mask(0), call.in(1), call.in(2))}; }

void add_logic(OnnxTable& table) {
  two(table, "Equal", ops::equal);
  two(table, "Greater", ops::greater);
  two(table, "GreaterOrEqual", ops::greater_equal);
  two(table, "Less", ops::less);
  two(table, "LessOrEqual", ops::less_equal);
  two(table, "And", [](const Operand& a, const Operand& b) { return as_mask(ops::mul(a, b)); });
  two(table, "Or", [](const Operand& a, const Operand& b) { return as_mask(ops::maximum(a, b)); });
  two(table, "Xor", ops::not_equal);
  one(table, "Not", One([](const Operand& x) { return as_mask(ops::sub(1.0f, x)); }));
  one(table, "IsNaN", One([](const Operand& x) { return ops::not_equal(x, x); }));
  table["IsInf"] = [](Call& call) {
    auto x = call.in(0);
    const float infinity = std::numeric_limits<float>::infinity();
    const auto is = [&](float value) { return as_floats(ops::equal(x, call.make({}, {static_cast<double>(value)}))); };
    auto above = ops::mul(is(infinity), static_cast<float>(call.c.integer("detect_positive", 1)));
    auto below = ops::mul(is(-infinity), static_cast<float>(call.c.integer("detect_negative", 1)));
    return Outputs{as_mask(ops::add(above, below))};
  };
  table["Where"] = where;
}

void add_activations(OnnxTable& table) {
  const auto f = [](double x) { return static_cast<float>(x); };
  one(table, "Relu", ops::relu);
  one(table, "Sigmoid", ops::sigmoid);
  one(table, "Tanh", ops::tanh);
  one(table, "Softplus", ops::softplus);
  one(table, "Softsign", One([](const Operand& x) { return ops::div(x, ops::add(ops::abs(x), 1.0f)); }));
  one(table, "Mish", One([](const Operand& x) { return ops::mul(x, ops::tanh(ops::softplus(x))); }));
  one(table, "LeakyRelu",
      [=](const Operand& x, const OnnxCase& c) { return ops::leaky_relu(x, f(c.number("alpha", 0.01))); });
  one(table, "Elu", [=](const Operand& x, const OnnxCase& c) { return ops::elu(x, f(c.number("alpha", 1))); });
  one(table, "Gelu", [](const Operand& x, const OnnxCase& c) {
    return c.text("approximate", "none") == "tanh" ? ops::gelu_tanh(x) : ops::gelu(x);
  });
  one(table, "Selu", [=](const Operand& x, const OnnxCase& c) {
    return selu(x, f(c.number("alpha", 1.67326319217681884765625)), f(c.number("gamma", 1.05070102214813232421875)));
  });
  one(table, "Celu", [=](const Operand& x, const OnnxCase& c) {
    const float alpha = f(c.number("alpha", 1));
    return ops::mul(ops::elu(ops::div(x, alpha)), alpha);
  });
  one(table, "HardSigmoid", [=](const Operand& x, const OnnxCase& c) {
    return ops::clamp(ops::add(ops::mul(x, f(c.number("alpha", 0.2))), f(c.number("beta", 0.5))), 0, 1);
  });
  one(table, "HardSwish",
      One([](const Operand& x) { return ops::mul(x, ops::clamp(ops::add(ops::mul(x, 1 / 6.0f), 0.5f), 0, 1)); }));
  one(table, "Swish", [=](const Operand& x, const OnnxCase& c) {
    return ops::mul(x, ops::sigmoid(ops::mul(x, f(c.number("alpha", 1)))));
  });
  one(table, "ThresholdedRelu", [=](const Operand& x, const OnnxCase& c) {
    return ops::mul(x, as_floats(ops::greater(ops::sub(x, f(c.number("alpha", 1))), ops::mul(x, 0.0f))));
  });
  one(table, "Shrink", [=](const Operand& x, const OnnxCase& c) {
    const float bias = f(c.number("bias", 0)), lambda = f(c.number("lambd", 0.5));
    auto zero = ops::mul(x, 0.0f);
    auto below = ops::mul(ops::add(x, bias), as_floats(ops::less(ops::add(x, lambda), zero)));
    return ops::add(below, ops::mul(ops::sub(x, bias), as_floats(ops::greater(ops::sub(x, lambda), zero))));
  });
  table["PRelu"] = prelu;
}

}  // namespace

void add_elementwise(OnnxTable& table) {
  one(table, "Identity", One([](const Operand& x) { return value_of(x); }));
  one(table, "Abs", ops::abs);
  one(table, "Neg", ops::neg);
  one(table, "Sqrt", ops::sqrt);
  one(table, "Exp", ops::exp);
  one(table, "Log", ops::log);
  one(table, "Sign", ops::sign);
  one(table, "Floor", ops::floor);
  one(table, "Ceil", ops::ceil);
  one(table, "Round", ops::round);
  one(table, "Sin", ops::sin);
  one(table, "Cos", ops::cos);
  one(table, "Erf", ops::erf);
  one(table, "Reciprocal", ops::reciprocal);
  one(table, "Tan", One([](const Operand& x) { return ops::div(ops::sin(x), ops::cos(x)); }));
  one(table, "Sinh",
      One([](const Operand& x) { return ops::mul(ops::sub(ops::exp(x), ops::exp(ops::neg(x))), 0.5f); }));
  one(table, "Cosh",
      One([](const Operand& x) { return ops::mul(ops::add(ops::exp(x), ops::exp(ops::neg(x))), 0.5f); }));
  one(table, "Asinh", One([](const Operand& x) {
        auto size = ops::abs(x);
        return ops::mul(ops::sign(x), ops::log(ops::add(size, ops::sqrt(ops::add(ops::square(size), 1.0f)))));
      }));
  one(table, "Acosh",
      One([](const Operand& x) { return ops::log(ops::add(x, ops::sqrt(ops::sub(ops::square(x), 1.0f)))); }));
  one(table, "Atanh",
      One([](const Operand& x) { return ops::mul(ops::log(ops::div(ops::add(x, 1.0f), ops::sub(1.0f, x))), 0.5f); }));
  two(table, "Add", ops::add);
  two(table, "Sub", ops::sub);
  two(table, "Mul", ops::mul);
  table["Div"] = divide;
  table["Mod"] = modulo;
  table["Pow"] = power;
  table["Clip"] = clip;
  many(table, "Max", ops::maximum);
  many(table, "Min", ops::minimum);
  many(table, "Sum", ops::add);
  many(table, "Mean", ops::add, [](const Operand& x, float n) { return ops::div(x, n); });
  add_logic(table);
  add_activations(table);
}

}  // namespace qorus_test
