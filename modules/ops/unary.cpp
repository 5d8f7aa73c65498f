// Operations of one operand: bodies of the first half of qorus.ops:elementwise.
module;
#include "kernels/kernels.h"
module qorus.ops;
import qorus.std;
import :rules;
import :loops;

namespace qorus {
namespace {

using kernels::Unary;

struct UnarySaved {
  GradRef x;
  const float* input;
  const float* output;
  std::size_t n;
  Unary op;
  float a;
};

struct ClampSaved {
  GradRef x;
  const float* input;
  std::size_t n;
  float low, high;
};

Result<Tensor> unary(Unary op, const char* name, const Operand& operand, float a = 0) noexcept {
  auto context = float_context(name, {&operand});
  if (!context) return fail(context.error());
  auto x = ops::contiguous(operand);
  if (!x) return x;
  auto y = Fresh::make(**context, x->shape());
  if (!y) return fail(y.error());
  parallel_elements(**context, x->numel(), [&](std::size_t begin, std::size_t end) {
    kernels::active().unary(op, x->f32() + begin, y->f32() + begin, end - begin, a);
  });
  const UnarySaved saved{x->grad_ref(), x->f32(), y->f32(), x->numel(), op, a};
  return std::move(*y).freeze(rule(RuleId::unary), {&*x}, saved);
}

}  // namespace

void rules::unary(const void* saved, Grads& grads) noexcept {
  const auto& s = *static_cast<const UnarySaved*>(saved);
  if (const Into dx = grads.into_out(s.x)) {
    parallel_elements(grads.context(), s.n, [&](std::size_t begin, std::size_t end) {
      kernels::training().unary_bwd(s.op, s.input + begin, s.output + begin, grads.out() + begin, dx.data + begin,
                                    end - begin, s.a, dx.accumulate);
    });
  }
}

void rules::clamp(const void* saved, Grads& grads) noexcept {
  const auto& s = *static_cast<const ClampSaved*>(saved);
  if (const Into dx = grads.into_out(s.x)) {
    parallel_elements(grads.context(), s.n, [&](std::size_t begin, std::size_t end) {
      for (std::size_t i = begin; i < end; ++i) {
        const float g = s.input[i] >= s.low && s.input[i] <= s.high ? grads.out()[i] : 0;
        dx.data[i] = dx.accumulate ? dx.data[i] + g : g;
      }
    });
  }
}

namespace ops {

Result<Tensor> neg(const Operand& x) noexcept { return unary(Unary::neg, "neg", x); }
Result<Tensor> abs(const Operand& x) noexcept { return unary(Unary::abs, "abs", x); }
Result<Tensor> sign(const Operand& x) noexcept { return unary(Unary::sign, "sign", x); }
Result<Tensor> sqrt(const Operand& x) noexcept { return unary(Unary::sqrt, "sqrt", x); }
Result<Tensor> square(const Operand& x) noexcept { return unary(Unary::square, "square", x); }
Result<Tensor> reciprocal(const Operand& x) noexcept { return unary(Unary::reciprocal, "reciprocal", x); }
Result<Tensor> exp(const Operand& x) noexcept { return unary(Unary::exp, "exp", x); }
Result<Tensor> log(const Operand& x) noexcept { return unary(Unary::log, "log", x); }
Result<Tensor> sin(const Operand& x) noexcept { return unary(Unary::sin, "sin", x); }
Result<Tensor> cos(const Operand& x) noexcept { return unary(Unary::cos, "cos", x); }
Result<Tensor> erf(const Operand& x) noexcept { return unary(Unary::erf, "erf", x); }
Result<Tensor> floor(const Operand& x) noexcept { return unary(Unary::floor, "floor", x); }
Result<Tensor> ceil(const Operand& x) noexcept { return unary(Unary::ceil, "ceil", x); }
Result<Tensor> round(const Operand& x) noexcept { return unary(Unary::round, "round", x); }
Result<Tensor> relu(const Operand& x) noexcept { return unary(Unary::relu, "relu", x); }
Result<Tensor> leaky_relu(const Operand& x, float slope) noexcept {
  return unary(Unary::leaky_relu, "leaky_relu", x, slope);
}
Result<Tensor> elu(const Operand& x, float a) noexcept { return unary(Unary::elu, "elu", x, a); }
Result<Tensor> gelu(const Operand& x) noexcept { return unary(Unary::gelu, "gelu", x); }
Result<Tensor> gelu_tanh(const Operand& x) noexcept { return unary(Unary::gelu_tanh, "gelu_tanh", x); }
Result<Tensor> silu(const Operand& x) noexcept { return unary(Unary::silu, "silu", x); }
Result<Tensor> sigmoid(const Operand& x) noexcept { return unary(Unary::sigmoid, "sigmoid", x); }
Result<Tensor> tanh(const Operand& x) noexcept { return unary(Unary::tanh, "tanh", x); }
Result<Tensor> softplus(const Operand& x) noexcept { return unary(Unary::softplus, "softplus", x); }

Result<Tensor> add(const Operand& x, float a) noexcept { return unary(Unary::add, "add", x, a); }
Result<Tensor> sub(const Operand& x, float a) noexcept { return unary(Unary::add, "sub", x, -a); }
Result<Tensor> sub(float a, const Operand& x) noexcept { return unary(Unary::rsub, "sub", x, a); }
Result<Tensor> mul(const Operand& x, float a) noexcept { return unary(Unary::mul, "mul", x, a); }
Result<Tensor> div(const Operand& x, float a) noexcept { return unary(Unary::mul, "div", x, 1 / a); }
Result<Tensor> div(float a, const Operand& x) noexcept { return unary(Unary::rdiv, "div", x, a); }
Result<Tensor> pow(const Operand& x, float a) noexcept { return unary(Unary::pow, "pow", x, a); }
Result<Tensor> pow(float a, const Operand& x) noexcept { return unary(Unary::rpow, "pow", x, a); }
Result<Tensor> maximum(const Operand& x, float a) noexcept { return unary(Unary::max, "maximum", x, a); }
Result<Tensor> minimum(const Operand& x, float a) noexcept { return unary(Unary::min, "minimum", x, a); }

Result<Tensor> clamp(const Operand& operand, float low, float high) noexcept {
  auto context = float_context("clamp", {&operand});
  if (!context) return fail(context.error());
  if (!(low <= high)) return fail(Errc::invalid_argument, "clamp", "needs low <= high");
  auto x = ops::contiguous(operand);
  if (!x) return x;
  auto y = Fresh::make(**context, x->shape());
  if (!y) return fail(y.error());
  parallel_elements(**context, x->numel(), [&](std::size_t begin, std::size_t end) {
    kernels::active().clamp(x->f32() + begin, y->f32() + begin, end - begin, low, high);
  });
  return std::move(*y).freeze(rule(RuleId::clamp), {&*x}, ClampSaved{x->grad_ref(), x->f32(), x->numel(), low, high});
}

Result<Tensor> activate(const Operand& x, Activation activation) noexcept {
  switch (activation) {
    case Activation::relu: return relu(x);
    case Activation::gelu: return gelu(x);
    case Activation::gelu_tanh: return gelu_tanh(x);
    case Activation::silu: return silu(x);
    case Activation::sigmoid: return sigmoid(x);
    case Activation::tanh: return tanh(x);
    case Activation::none: break;
  }
  if (!x.ok()) return fail(x.error());
  return *x;
}

}  // namespace ops
}  // namespace qorus
