// ops::linear and its rule.
module;
#include "kernels/kernels.h"
#include "modules/ops/packed.h"
module qorus.ops;
import qorus.std;
import :rules;
import :loops;
import :product;

namespace qorus {
namespace {

using kernels::Act;
using kernels::Gemm;

Act kernel_of(Activation activation) noexcept { return static_cast<Act>(activation); }
static_assert(static_cast<int>(Activation::tanh) == static_cast<int>(Act::tanh));

// Whether the backward needs the value before the activation: relu, sigmoid and tanh can be undone from their result.
bool needs_input(Activation activation) noexcept {
  return activation == Activation::gelu || activation == Activation::gelu_tanh || activation == Activation::silu;
}

struct LinearSaved {
  GradRef x, weight, bias;
  const float *input, *weights;
  const float* before;  // the activation's input (or, for relu, its output, which has the same sign)
  const float* after;
  std::size_t rows, in, out;
  std::ptrdiff_t weight_row, weight_col;
  Activation activation;
};

Result<Tensor> run_linear(const Operand& input, const Operand& weight, const Tensor* bias, Activation activation,
                          Context& context, const float* packed = nullptr) noexcept {
  auto x = ops::contiguous(placed(input, context));
  if (!x) return x;
  const std::int64_t in = weight->dim(1), out = weight->dim(0);
  auto y = Fresh::make(context, x->shape().with(-1, out));
  if (!y) return fail(y.error());
  const std::size_t rows = y->shape().numel() / static_cast<std::size_t>(out > 0 ? out : 1);
  const bool tracked = context.record && (x->tracked() || weight->tracked() || (bias && bias->tracked()));
  float* before = nullptr;
  if (tracked && needs_input(activation)) {
    auto kept = Fresh::make(context, y->shape());
    if (!kept) return fail(kept.error());
    before = kept->f32();
  }
  const Gemm gemm{.m = rows,
                  .n = static_cast<std::size_t>(out),
                  .k = static_cast<std::size_t>(in),
                  .a = x->f32(),
                  .a_row = in,
                  .a_col = 1,
                  .b = weight->f32(),
                  .b_row = weight->stride(1),
                  .b_col = weight->stride(0),
                  .b_packed = packed,
                  .c = y->f32(),
                  .c_row = out,
                  .bias = bias ? bias->f32() : nullptr,
                  .act = kernel_of(activation),
                  .pre = before,
                  .pre_row = out};
  if (auto done = run_product(context, gemm); !done) return fail(done.error());
  const LinearSaved saved{x->grad_ref(),
                          weight->grad_ref(),
                          bias ? bias->grad_ref() : GradRef{},
                          x->f32(),
                          weight->f32(),
                          before ? before : y->f32(),
                          y->f32(),
                          rows,
                          static_cast<std::size_t>(in),
                          static_cast<std::size_t>(out),
                          weight->stride(0),
                          weight->stride(1),
                          activation};
  const Tensor none;
  return std::move(*y).freeze(rule(RuleId::linear), {&*x, &*weight, bias ? bias : &none}, saved);
}

// The operands' workspace; x and bias are f32, the weight of a floating type or in a block format.
Result<Context*> linear_context(const Operand& x, const Operand& weight, const Operand* bias) noexcept {
  auto context = bias ? common_context("linear", {&x, &weight, bias}) : common_context("linear", {&x, &weight});
  if (!context) return context;
  if (auto ok = x->check(DType::f32, "linear"); !ok) return fail(ok.error());
  if (bias) {
    if (auto ok = (*bias)->check(DType::f32, "linear"); !ok) return fail(ok.error());
  }
  const DType dtype = weight->dtype();
  if (dtype != DType::f16 && dtype != DType::bf16 && !is_block(dtype)) {
    if (auto ok = weight->check(DType::f32, "linear"); !ok) return fail(ok.error());
  }
  return context;
}

Status check_sizes(const Operand& x, const Operand& weight) noexcept {
  if (weight->rank() != 2 || x->rank() < 1 || x->dim(-1) != weight->dim(1)) {
    return fail(Errc::invalid_size, "linear", "x: [..., in] and weight: [out, in] must agree on in", x->shape().dims(),
                weight->shape().dims());
  }
  return {};
}

}  // namespace

// dz = dy activation'; dbias = sum over rows of dz; dweight = dz^T x; dx = dz weight.
void rules::linear(const void* saved, Grads& grads) noexcept {
  const auto& s = *static_cast<const LinearSaved*>(saved);
  const std::size_t n = s.rows * s.out;
  const float* dz = grads.out();
  if (s.activation != Activation::none) {
    float* place = grads.out_in_place();
    if (!place) return;
    dz = place;
    parallel_elements(grads.context(), n, [&](std::size_t begin, std::size_t end) {
      kernels::training().unary_bwd(unary_of(s.activation), s.before + begin, s.after + begin, place + begin,
                                    place + begin, end - begin, 0, false);
    });
  }
  const auto out = static_cast<std::int64_t>(s.out), in = static_cast<std::int64_t>(s.in);
  if (const Into db = grads.into(s.bias))
    sum_to(grads, dz, Shape{static_cast<std::int64_t>(s.rows), out}, Shape{out}, db);
  if (const Into dw = grads.into(s.weight)) {
    const Gemm gemm{.m = s.out,
                    .n = s.in,
                    .k = s.rows,
                    .a = dz,
                    .a_row = 1,
                    .a_col = out,
                    .b = s.input,
                    .b_row = in,
                    .b_col = 1,
                    .c = dw.data,
                    .c_row = in,
                    .accumulate = dw.accumulate};
    grads.settle(run_product(grads.context(), gemm));
  }
  if (const Into dx = grads.into(s.x)) {
    const Gemm gemm{.m = s.rows,
                    .n = s.in,
                    .k = s.out,
                    .a = dz,
                    .a_row = out,
                    .a_col = 1,
                    .b = s.weights,
                    .b_row = s.weight_row,
                    .b_col = s.weight_col,
                    .c = dx.data,
                    .c_row = in,
                    .accumulate = dx.accumulate};
    grads.settle(run_product(grads.context(), gemm));
  }
}

Result<const float*> packed_of(const char* op, const Context& context, const Tensor& packed,
                               const Tensor& weight) noexcept {
  if (context.record || !packed.shape().valid()) return nullptr;
  if (auto ok = packed.check(DType::f32, op); !ok) return fail(ok.error());
  if (packed.numel() != ops::packed_size(weight.shape()))
    return fail(Errc::invalid_size, op, "the packed weight is of another size", weight.shape().dims());
  return packed.numel() ? packed.f32() : nullptr;
}

namespace ops {

std::size_t packed_size(const Shape& weight) noexcept {
  if (weight.rank() != 2) return packed_conv_size(weight);
  return kernels::active().gemm_packed_size(static_cast<std::size_t>(weight[0]), static_cast<std::size_t>(weight[1]));
}

Status pack_weight(const Tensor& weight, std::span<float> packed) noexcept {
  if (auto ok = weight.check(DType::f32, "pack_weight"); !ok) return ok;
  const bool matrix = weight.rank() == 2;
  if (packed.size() != packed_size(weight.shape()) || !(matrix || (weight.rank() == 4 && weight.contiguous()))) {
    return fail(Errc::invalid_size, "pack_weight", "needs a matrix or a dense [out, in, 3, 3], and packed_size floats",
                weight.shape().dims());
  }
  if (!matrix) {
    pack_conv(weight, packed.data());
    return {};
  }
  kernels::active().gemm_pack({.n = static_cast<std::size_t>(weight.dim(0)),
                               .k = static_cast<std::size_t>(weight.dim(1)),
                               .b = weight.f32(),
                               .b_row = weight.stride(1),
                               .b_col = weight.stride(0)},
                              packed.data());
  return {};
}

Result<Tensor> linear_packed(const Operand& x, const Operand& weight, const Tensor& packed, const Operand* bias,
                             Activation activation) noexcept {
  auto context = linear_context(x, weight, bias);
  if (!context) return fail(context.error());
  const bool narrow = weight->dtype() != DType::f32;
  if (auto ok = packed.check(narrow ? DType::u8 : DType::f32, "linear"); !ok) return fail(ok.error());
  if ((*context)->record) return bias ? linear(x, weight, *bias, activation) : linear(x, weight, activation);
  if (auto ok = check_sizes(x, weight); !ok) return fail(ok.error());
  const std::size_t size = narrow ? packed_bytes(weight->dtype(), weight->shape()) : packed_size(weight->shape());
  if (packed.numel() != size || (bias && (*bias)->shape() != Shape{weight->dim(0)})) {
    return fail(Errc::invalid_size, "linear", "the packed weight or the bias is of another size",
                weight->shape().dims());
  }
  Result<Tensor> dense = Tensor();
  if (bias) dense = contiguous(placed(*bias, **context));
  if (!dense) return dense;
  const Operand shift = dense;
  if (narrow) return linear_narrow(x, weight, &packed, bias ? &shift : nullptr, activation, **context);
  return run_linear(x, weight, bias ? &*dense : nullptr, activation, **context, packed.f32());
}

Result<Tensor> linear(const Operand& x, const Operand& weight, const Operand& bias, Activation activation) noexcept {
  auto context = linear_context(x, weight, &bias);
  if (!context) return fail(context.error());
  if (auto ok = check_sizes(x, weight); !ok) return fail(ok.error());
  if (bias->rank() != 1 || bias->dim(0) != weight->dim(0)) {
    return fail(Errc::invalid_size, "linear", "bias: [out] and weight: [out, in] must agree on out",
                bias->shape().dims(), weight->shape().dims());
  }
  if (weight->dtype() != DType::f32) return linear_narrow(x, weight, nullptr, &bias, activation, **context);
  auto dense = contiguous(placed(bias, **context));
  if (!dense) return dense;
  return run_linear(x, weight, &*dense, activation, **context);
}

Result<Tensor> linear(const Operand& x, const Operand& weight, Activation activation) noexcept {
  auto context = linear_context(x, weight, nullptr);
  if (!context) return fail(context.error());
  if (auto ok = check_sizes(x, weight); !ok) return fail(ok.error());
  if (weight->dtype() != DType::f32) return linear_narrow(x, weight, nullptr, nullptr, activation, **context);
  return run_linear(x, weight, nullptr, activation, **context);
}

}  // namespace ops
}  // namespace qorus
