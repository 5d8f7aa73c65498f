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
  GradRef x, residual;
  LinearWeights weights;
  const float* input;
  const float* before;  // the activation's input (or, for relu, its output, which has the same sign)
  const float* after;
  std::size_t rows;
  Activation activation;
};

// The operands' workspace; x, bias and residual are f32, the weight of a floating type or in a block format.
Result<Context*> linear_context(const Operand& x, const Operand& weight, const ops::LinearParts& parts) noexcept {
  Context* shared = nullptr;
  for (const Operand* operand : {&x, &weight, parts.bias, parts.residual}) {
    if (!operand) continue;
    if (auto ok = join_context("linear", *operand, shared); !ok) return fail(ok.error());
  }
  auto context = joined_context("linear", shared);
  if (!context) return context;
  for (const Operand* operand : {&x, parts.bias, parts.residual}) {
    if (!operand) continue;
    if (auto ok = (*operand)->check(DType::f32, "linear"); !ok) return fail(ok.error());
  }
  const DType dtype = weight->dtype();
  if (dtype != DType::f16 && dtype != DType::bf16 && !is_block(dtype)) {
    if (auto ok = weight->check(DType::f32, "linear"); !ok) return fail(ok.error());
  }
  return context;
}

Status check_sizes(const Operand& x, const Operand& weight, const ops::LinearParts& parts,
                   const Context& context) noexcept {
  if (weight->rank() != 2 || x->rank() < 1 || x->dim(-1) != weight->dim(1)) {
    return fail(Errc::invalid_size, "linear", "x: [..., in] and weight: [out, in] must agree on in", x->shape().dims(),
                weight->shape().dims());
  }
  if (parts.bias && (*parts.bias)->shape() != Shape{weight->dim(0)}) {
    return fail(Errc::invalid_size, "linear", "bias: [out] and weight: [out, in] must agree on out",
                (*parts.bias)->shape().dims(), weight->shape().dims());
  }
  if (const Shape y = x->shape().with(-1, weight->dim(0)); parts.residual && (*parts.residual)->shape() != y)
    return fail(Errc::invalid_size, "linear", "the residual is not of the result's shape",
                (*parts.residual)->shape().dims(), y.dims());
  if (!parts.packed || context.record) return {};
  const bool narrow = weight->dtype() != DType::f32;
  if (auto ok = parts.packed->check(narrow ? DType::u8 : DType::f32, "linear"); !ok) return ok;
  const std::size_t size =
      narrow ? ops::packed_bytes(weight->dtype(), weight->shape()) : ops::packed_size(weight->shape());
  if (parts.packed->numel() != size)
    return fail(Errc::invalid_size, "linear", "the packed weight is of another size", weight->shape().dims());
  return {};
}

}  // namespace

Result<LinearCall> linear_call(const Operand& x, const Operand& weight, const ops::LinearParts& parts) noexcept {
  auto context = linear_context(x, weight, parts);
  if (!context) return fail(context.error());
  if (auto ok = check_sizes(x, weight, parts, **context); !ok) return fail(ok.error());
  LinearCall call{.context = *context, .weight = *weight, .packed = nullptr};
  const auto dense = [&](const Operand* from, Tensor& to) -> Status {
    if (!from) return {};
    auto t = ops::contiguous(placed(*from, **context));
    if (!t) return fail(t.error());
    to = *t;
    return {};
  };
  if (auto ok = dense(parts.bias, call.bias); !ok) return fail(ok.error());
  if (auto ok = dense(parts.residual, call.residual); !ok) return fail(ok.error());
  if (parts.packed && !(*context)->record) call.packed = parts.packed;
  return call;
}

LinearWeights LinearCall::weights() const noexcept {
  return {weight.grad_ref(),
          bias.shape().valid() ? bias.grad_ref() : GradRef{},
          weight.f32(),
          static_cast<std::size_t>(weight.dim(1)),
          static_cast<std::size_t>(weight.dim(0)),
          weight.stride(0),
          weight.stride(1)};
}

Status LinearCall::run(const float* x, Rows rows, Activation activation, float* before, float* y) const noexcept {
  const std::int64_t in = weight.dim(1), out = weight.dim(0);
  const float* const around = residual.shape().valid() ? residual.f32() : nullptr;
  return run_product(*context, {.m = rows.count,
                                .n = static_cast<std::size_t>(out),
                                .k = static_cast<std::size_t>(in),
                                .a = x,
                                .a_row = in,
                                .a_col = 1,
                                .b = weight.f32(),
                                .b_row = weight.stride(1),
                                .b_col = weight.stride(0),
                                .b_packed = packed ? packed->f32() : nullptr,
                                .c = y,
                                .c_row = out,
                                .bias = bias.shape().valid() ? bias.f32() : nullptr,
                                .act = kernel_of(activation),
                                .pre = before,
                                .pre_row = out,
                                .residual = past(around, static_cast<std::ptrdiff_t>(rows.first) * out),
                                .residual_row = out});
}

Gemm LinearWeights::weight_gemm(const float* dz, const float* x, std::size_t rows, const Into& dw) const noexcept {
  return {.m = out,
          .n = in,
          .k = rows,
          .a = dz,
          .a_row = 1,
          .a_col = static_cast<std::ptrdiff_t>(out),
          .b = x,
          .b_row = static_cast<std::ptrdiff_t>(in),
          .b_col = 1,
          .c = dw.data,
          .c_row = static_cast<std::ptrdiff_t>(in),
          .accumulate = dw.accumulate};
}

Gemm LinearWeights::input_gemm(const float* dz, std::size_t rows, const Into& dx) const noexcept {
  return {.m = rows,
          .n = in,
          .k = out,
          .a = dz,
          .a_row = static_cast<std::ptrdiff_t>(out),
          .a_col = 1,
          .b = data,
          .b_row = row,
          .b_col = col,
          .c = dx.data,
          .c_row = static_cast<std::ptrdiff_t>(in),
          .accumulate = dx.accumulate};
}

void LinearWeights::give(Grads& grads, const float* dz, const float* x, std::size_t rows) const noexcept {
  give_bias(grads, dz, rows);
  if (const Into dw = grads.into(weight)) grads.settle(run_product(grads.context(), weight_gemm(dz, x, rows, dw)));
}

void LinearWeights::give_bias(Grads& grads, const float* dz, std::size_t rows) const noexcept {
  const Shape wide{static_cast<std::int64_t>(out)};
  if (const Into db = grads.into(bias)) sum_to(grads, dz, wide.inserted(0, static_cast<std::int64_t>(rows)), wide, db);
}

// dz = dy activation'; dbias = sum over rows of dz; dweight = dz^T x; dx = dz weight; the residual's is dy.
void rules::linear(const void* saved, Grads& grads) noexcept {
  const auto& s = *static_cast<const LinearSaved*>(saved);
  const std::size_t n = s.rows * s.weights.out;
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
  const Into dx = grads.into(s.x);  // the larger one takes its place first
  s.weights.give(grads, dz, s.input, s.rows);
  if (dx) grads.settle(run_product(grads.context(), s.weights.input_gemm(dz, s.rows, dx)));
  grads.pass(s.residual);
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

Result<Tensor> linear(const Operand& input, const Operand& weight, const LinearParts& parts) noexcept {
  if (parts.residual && parts.activation != Activation::none) {
    LinearParts inner = parts;
    inner.residual = nullptr;
    return add(*parts.residual, linear(input, weight, inner));
  }
  auto call = linear_call(input, weight, parts);
  if (!call) return fail(call.error());
  if (weight->dtype() != DType::f32) return linear_narrow(input, *call, parts.activation);
  Context& context = *call->context;
  auto x = contiguous(placed(input, context));
  if (!x) return x;
  auto y = Fresh::make_transient(context, x->shape().with(-1, weight->dim(0)),
                                 parts.transient && parts.activation == Activation::none);
  if (!y) return fail(y.error());
  const bool tracked =
      context.record && (x->tracked() || weight->tracked() || call->bias.tracked() || call->residual.tracked());
  float* before = nullptr;
  if (tracked && needs_input(parts.activation)) {
    auto kept = Fresh::make(context, y->shape());
    if (!kept) return fail(kept.error());
    before = kept->f32();
  }
  const std::size_t rows = call->rows(y->shape());
  if (auto done = call->run(x->f32(), {0, rows}, parts.activation, before, y->f32()); !done) return fail(done.error());
  const LinearSaved saved{
      x->grad_ref(), call->residual.grad_ref(), call->weights(), x->f32(), before ? before : y->f32(), y->f32(),
      rows,          parts.activation};
  const Tensor around = call->residual.unread();
  return std::move(*y).freeze(rule(RuleId::linear), {&*x, &*weight, &call->bias, &around}, saved);
}

}  // namespace ops
}  // namespace qorus
