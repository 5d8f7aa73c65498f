// ops::gated, ops::gated_linear, ops::activated_linear and their rules.
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

// What h = activation(gate) up is made of, n elements each; ups: null for h = activation(gate).
struct Gate {
  GradRef gate, up;
  const float *gates, *ups;
  std::size_t n;
  Activation activation;

  [[nodiscard]] Gate piece(std::size_t first, std::size_t count) const noexcept {
    const auto from = static_cast<std::ptrdiff_t>(first);
    return {gate, up, past(gates, from), past(ups, from), count, activation};
  }
};
struct GatedLinearSaved {
  Gate gate;
  GradRef residual;
  LinearWeights weights;
  std::size_t rows;
  bool spends;
};

constexpr std::size_t k_piece = 1024;  // elements that stay in the first-level cache from one step to the next

// Rows whose h is in memory at a time: so many that what a product does once for its weights is little beside it.
std::size_t run_of(const Context& context, std::size_t rows) noexcept {
  return std::min(rows, 128 * std::max<std::size_t>(4, static_cast<std::size_t>(context.executor.width)));
}

// Runs f(begin, count) over pieces of n elements, on all workers.
template <class F>
void each_piece(const Context& context, std::size_t n, const F& f) {
  parallel_elements(context, n, [&](std::size_t begin, std::size_t end) {
    for (std::size_t i = begin; i < end; i += k_piece) f(i, std::min(k_piece, end - i));
  });
}

void product_of(const float* a, const float* b, float* y, std::size_t n) noexcept {
  kernels::active().binary(kernels::Binary::mul, a, 1, b, 1, y, n);
}

// The kernel of the gate's function, for a parameter of 1.
kernels::Unary kernel_of(Activation activation) noexcept {
  return activation == Activation::none ? kernels::Unary::mul : unary_of(activation);
}

// h = activation(gate) up
void gate_elements(const Context& context, const Gate& g, float* h) noexcept {
  each_piece(context, g.n, [&](std::size_t at, std::size_t count) {
    kernels::active().unary(kernel_of(g.activation), g.gates + at, h + at, count, 1);
    if (g.ups) product_of(h + at, g.ups + at, h + at, count);
  });
}

// d gate = dh up activation'(gate), d up = dh activation(gate)
void gate_slopes(const Context& context, const Gate& g, const float* dh, const Into& dg, const Into& du) noexcept {
  const bool by_value = g.activation == Activation::sigmoid || g.activation == Activation::tanh;
  each_piece(context, g.n, [&](std::size_t at, std::size_t count) {
    float value[k_piece], slope[k_piece];
    if (by_value || du) kernels::active().unary(kernel_of(g.activation), g.gates + at, value, count, 1);
    if (dg) {
      if (g.ups) product_of(dh + at, g.ups + at, slope, count);
      kernels::training().unary_bwd(kernel_of(g.activation), g.gates + at, value, g.ups ? slope : dh + at, dg.data + at,
                                    count, 1, dg.accumulate);
    }
    if (!du) return;
    product_of(dh + at, value, du.accumulate ? value : du.data + at, count);
    if (du.accumulate) kernels::active().axpy(1, value, du.data + at, count);
  });
}

// gate and, if it is there, up: of one shape, placed and dense.
struct Pair {
  Tensor gate, up;
  [[nodiscard]] Gate saved(Activation activation) const noexcept {
    const bool two = up.shape().valid();
    return {gate.grad_ref(), up.grad_ref(), gate.f32(), two ? up.f32() : nullptr, gate.numel(), activation};
  }
};
Result<Pair> pair_of(const char* op, const Operand& gate, const Operand* up, Context& context) noexcept {
  if (up && gate->shape() != (*up)->shape())
    return fail(Errc::invalid_size, op, "gate and up are of one shape", gate->shape().dims(), (*up)->shape().dims());
  auto g = ops::contiguous(placed(gate, context));
  if (!g) return fail(g.error());
  if (!up) return Pair{*g, {}};
  auto u = ops::contiguous(placed(*up, context));
  if (!u) return fail(u.error());
  return Pair{*g, *u};
}

// ops::gated_linear, or without `up` ops::activated_linear.
Result<Tensor> linear_of(const char* op, const Operand& gate, const Operand* up, const Operand& weight,
                         const ops::LinearParts& parts) noexcept {
  ops::LinearParts plain = parts;
  plain.activation = Activation::none;
  if (weight.ok() && weight->dtype() != DType::f32)
    return ops::linear(up ? ops::gated(gate, *up, parts.activation) : ops::activate(gate, parts.activation), weight,
                       plain);
  auto context = up ? float_context(op, {&gate, up, &weight}) : float_context(op, {&gate, &weight});
  if (!context) return fail(context.error());
  const auto pair = pair_of(op, gate, up, **context);
  if (!pair) return fail(pair.error());
  auto call = linear_call(gate, weight, plain);
  if (!call) return fail(call.error());
  auto y = Fresh::make(**context, gate->shape().with(-1, weight->dim(0)));
  if (!y) return fail(y.error());
  const GatedLinearSaved saved{pair->saved(parts.activation), call->residual.grad_ref(), call->weights(),
                               call->rows(y->shape()), parts.spends};
  const std::size_t mark = (*context)->scratch->mark();
  const std::size_t run = run_of(**context, saved.rows), in = saved.weights.in, out = saved.weights.out;
  auto room = (*context)->scratch->take(run * in * sizeof(float));
  if (!room) return fail(room.error());
  auto* const h = reinterpret_cast<float*>(room->data);
  const auto done = each_run(saved.rows, run, [&](std::size_t first, std::size_t count) {
    gate_elements(**context, saved.gate.piece(first * in, count * in), h);
    return call->run(h, {first, count}, Activation::none, nullptr, y->f32() + first * out);
  });
  if (!done) return fail(done.error());
  (*context)->scratch->shrink_to(mark);
  return std::move(*y).freeze(rule(RuleId::gated_linear),
                              {&pair->gate, &pair->up, &*weight, &call->bias, &call->residual}, saved);
}

}  // namespace

void rules::gated(const void* saved, Grads& grads) noexcept {
  const auto& s = *static_cast<const Gate*>(saved);
  const Into dg = grads.into(s.gate), du = grads.into(s.up);
  if (dg || du) gate_slopes(grads.context(), s, grads.out(), dg, du);
}

void rules::gated_linear(const void* saved, Grads& grads) noexcept {
  const auto& s = *static_cast<const GatedLinearSaved*>(saved);
  const auto place = [&](const GradRef& ref, const float* values) {
    return s.spends ? grads.into_spent(ref, values) : grads.into(ref);
  };
  const Into dg = place(s.gate.gate, s.gate.gates), du = place(s.gate.up, s.gate.ups);
  s.weights.give_bias(grads, grads.out(), s.rows);
  Into dw = grads.into(s.weights.weight);
  Context& context = grads.context();
  const std::size_t run = run_of(context, s.rows), in = s.weights.in;
  float* const h = grads.temporary(run * in);
  if (!h) return;
  grads.settle(each_run(s.rows, run, [&](std::size_t first, std::size_t count) -> Status {
    const Gate piece = s.gate.piece(first * in, count * in);
    const float* const dz = grads.out() + first * s.weights.out;
    if (dw) {
      gate_elements(context, piece, h);
      if (auto done = run_product(context, s.weights.weight_gemm(dz, h, count, dw)); !done) return done;
      dw.accumulate = true;
    }
    if (!dg && !du) return {};
    if (auto done = run_product(context, s.weights.input_gemm(dz, count, {h, false})); !done) return done;
    gate_slopes(context, piece, h, dg.from(first * in), du.from(first * in));
    return {};
  }));
  grads.pass(s.residual);
}

Status rules::remake_gated(const void* saved, const Context& context, float* result) noexcept {
  gate_elements(context, *static_cast<const Gate*>(saved), result);
  return {};
}

namespace ops {

Result<Tensor> gated(const Operand& gate, const Operand& up, Activation activation) noexcept {
  auto context = float_context("gated", {&gate, &up});
  if (!context) return fail(context.error());
  const auto pair = pair_of("gated", gate, &up, **context);
  if (!pair) return fail(pair.error());
  auto y = Fresh::make_remade(**context, gate->shape(), pair->gate.tracked() || pair->up.tracked());
  if (!y) return fail(y.error());
  const Gate saved = pair->saved(activation);
  gate_elements(**context, saved, y->f32());
  return std::move(*y).freeze(rule(RuleId::gated), {&pair->gate, &pair->up}, saved);
}

Result<Tensor> gated_linear(const Operand& gate, const Operand& up, const Operand& weight,
                            const LinearParts& parts) noexcept {
  return linear_of("gated_linear", gate, &up, weight, parts);
}

Result<Tensor> activated_linear(const Operand& x, const Operand& weight, const LinearParts& parts) noexcept {
  return linear_of("activated_linear", x, nullptr, weight, parts);
}

}  // namespace ops
}  // namespace qorus
