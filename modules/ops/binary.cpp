// Operations of two and three broadcast operands: bodies of the second half of qorus.ops:elementwise.
module;
#include "kernels/kernels.h"
module qorus.ops;
import qorus.std;
import :rules;
import :loops;
import :joint;

namespace qorus {
namespace {

using kernels::Binary;
using kernels::Compare;

// The operands as the loops need them: broadcast to the common shape, each with innermost steps that kernels take.
template <int N>
struct Aligned {
  Context* context = nullptr;
  Shape shape;
  std::array<Tensor, N> operand;  // of the broadcast shape
  Joint<N> joint;
};

template <int N>
Result<Aligned<N>> align(const char* op, const std::array<const Operand*, N>& operands, Context* context) noexcept {
  Aligned<N> aligned{.context = context, .shape = (*operands[0])->shape()};
  for (const Operand* operand : operands) {
    const Shape both = broadcast(aligned.shape, (*operand)->shape());
    if (!both.valid())
      return fail(Errc::invalid_size, op, "the shapes do not broadcast", aligned.shape.dims(),
                  (*operand)->shape().dims());
    aligned.shape = both;
  }
  std::array<Layout, N> layouts;
  for (int pass = 0; pass < 2; ++pass) {
    for (int o = 0; o < N; ++o) {
      if (pass == 0) aligned.operand[o] = **operands[o];
      auto wide = aligned.operand[o].layout().broadcast_to(aligned.shape);
      if (!wide) return fail(wide.error());
      layouts[o] = *wide;
    }
    aligned.joint = join<N>(layouts);
    for (int o = 0; o < N && pass == 0; ++o) {
      if (aligned.joint.walkable(o)) continue;
      auto dense = ops::contiguous(placed(aligned.operand[o], *context));
      if (!dense) return fail(dense.error());
      aligned.operand[o] = *dense;
    }
  }
  return aligned;
}

// Runs f(offsets of the operands, offset of the output, length) over rows of the output.
template <int N, class F>
void for_rows(const Aligned<N>& aligned, const F& f) {
  const std::size_t n = aligned.shape.numel();
  if (n == 0) return;
  const Joint<N>& joint = aligned.joint;
  const std::size_t inner = joint.inner();
  if (inner >= n) {  // one long row: cut it
    parallel_elements(*aligned.context, n, [&](std::size_t begin, std::size_t end) {
      std::array<std::int64_t, N> offsets{};
      for (int o = 0; o < N; ++o) offsets[o] = static_cast<std::int64_t>(begin * joint.step(o));
      f(offsets, begin, end - begin);
    });
    return;
  }
  parallel_chunks(*aligned.context, n / inner, row_grain(inner), [&](std::size_t begin, std::size_t end) {
    for (std::size_t row = begin; row < end; ++row) f(joint.offsets(row), row * inner, inner);
  });
}

struct BinarySaved {
  Tensor a, b;
  const float* output;
  Shape shape;
  Binary op;
  bool rectified;  // max(a op b, 0)
};

constexpr std::size_t k_piece = 2048;  // elements that stay in the first-level cache from one step to the next

Result<Tensor> binary(Binary op, const char* name, const Operand& a, const Operand& b,
                      bool rectified = false) noexcept {
  auto context = float_context(name, {&a, &b});
  if (!context) return fail(context.error());
  auto aligned = align<2>(name, {&a, &b}, *context);
  if (!aligned) return fail(aligned.error());
  auto y = Fresh::make(**context, aligned->shape);
  if (!y) return fail(y.error());
  const Tensor& first = aligned->operand[0];
  const Tensor& second = aligned->operand[1];
  for_rows(*aligned, [&](const auto& offset, std::size_t at, std::size_t count) {
    const std::size_t steps[] = {aligned->joint.step(0), aligned->joint.step(1)};
    for (std::size_t done = 0, piece; done < count; done += piece) {
      piece = rectified ? std::min(k_piece, count - done) : count;
      float* const to = y->f32() + at + done;
      kernels::active().binary(op, first.f32() + offset[0] + done * steps[0], steps[0],
                               second.f32() + offset[1] + done * steps[1], steps[1], to, piece);
      if (rectified) kernels::active().unary(kernels::Unary::relu, to, to, piece, 0);
    }
  });
  const BinarySaved saved{first, second, y->f32(), aligned->shape, op, rectified};
  if (op != Binary::add && op != Binary::sub)
    return std::move(*y).freeze(rule(RuleId::binary), {&first, &second}, saved);
  const Tensor left = first.unread(), right = second.unread();
  return std::move(*y).freeze(rule(RuleId::binary), {&left, &right}, saved);
}

Result<Tensor> compare(Compare op, const char* name, const Operand& a, const Operand& b) noexcept {
  auto context = float_context(name, {&a, &b});
  if (!context) return fail(context.error());
  auto aligned = align<2>(name, {&a, &b}, *context);
  if (!aligned) return fail(aligned.error());
  auto y = Fresh::make(**context, aligned->shape, DType::u8);
  if (!y) return fail(y.error());
  for_rows(*aligned, [&](const auto& offset, std::size_t at, std::size_t count) {
    kernels::active().compare(op, aligned->operand[0].f32() + offset[0], aligned->joint.step(0),
                              aligned->operand[1].f32() + offset[1], aligned->joint.step(1), y->u8() + at, count);
  });
  return std::move(*y).freeze();
}

// An operand's elements, dense and of the output's shape: its own memory where it has that already.
const float* dense_elements(Grads& grads, const Tensor& operand, const Shape& shape) noexcept {
  if (operand.shape() == shape && operand.contiguous()) return operand.f32();
  auto wide = operand.layout().broadcast_to(shape);
  float* copy = grads.temporary(shape.numel());
  if (copy && wide) copy_dense(grads.context(), operand.seen_as(*wide), copy);
  return copy;
}

// to (+)= f(i) for i below n.
template <class F>
void emit(const Context& context, std::size_t n, const Into& to, const F& f) {
  parallel_elements(context, n, [&](std::size_t begin, std::size_t end) {
    if (to.accumulate) {
      for (std::size_t i = begin; i < end; ++i) to.data[i] += f(i);
    } else {
      for (std::size_t i = begin; i < end; ++i) to.data[i] = f(i);
    }
  });
}

// dL/d(operand) (+)= f(i), summed where the operand was repeated.
template <class F>
void give(Grads& grads, const Tensor& operand, const Shape& shape, const F& f) {
  const Into to = grads.into(operand.grad_ref());
  if (!to) return;
  if (operand.shape() == shape) return emit(grads.context(), shape.numel(), to, f);
  float* full = grads.temporary(shape.numel());
  if (!full) return;
  emit(grads.context(), shape.numel(), Into{full, false}, f);
  sum_to(grads, full, shape, operand.shape(), to);
}

void give_product(Grads& grads, const Tensor& operand, const Tensor& other, const Shape& shape) noexcept {
  const Into to = grads.into(operand.grad_ref());
  if (!to) return;
  const float* factor = dense_elements(grads, other, shape);
  const bool whole = operand.shape() == shape;
  float* product = whole ? to.data : grads.temporary(shape.numel());
  if (!factor || !product) return;
  parallel_elements(grads.context(), shape.numel(), [&](std::size_t begin, std::size_t end) {
    if (whole && to.accumulate) {
      kernels::active().fma(grads.out() + begin, factor + begin, product + begin, end - begin);
    } else {
      kernels::active().binary(Binary::mul, grads.out() + begin, 1, factor + begin, 1, product + begin, end - begin);
    }
  });
  if (!whole) sum_to(grads, product, shape, operand.shape(), to);
}

void give_sum(Grads& grads, const Tensor& operand, const Shape& shape) noexcept {
  if (operand.shape() == shape) return grads.pass(operand.grad_ref());
  if (const Into to = grads.into(operand.grad_ref())) sum_to(grads, grads.out(), shape, operand.shape(), to);
}

// Both operands' shares of the gradient of a^b.
void give_power(const BinarySaved& s, Grads& grads) noexcept {
  const float* a = dense_elements(grads, s.a, s.shape);
  const float* b = dense_elements(grads, s.b, s.shape);
  const float* dy = grads.out();
  if (!a || !b) return;
  if (s.a.tracked())
    give(grads, s.a, s.shape,
         [=](std::size_t i) { return b[i] == 0 ? 0.0f : dy[i] * b[i] * std::pow(a[i], b[i] - 1); });
  if (s.b.tracked()) {
    give(grads, s.b, s.shape,
         [=, y = s.output](std::size_t i) { return a[i] == 0 && b[i] >= 0 ? 0.0f : dy[i] * y[i] * std::log(a[i]); });
  }
}

void give_extreme(const BinarySaved& s, Grads& grads) noexcept {
  const float* a = dense_elements(grads, s.a, s.shape);
  const float* b = dense_elements(grads, s.b, s.shape);
  const float* dy = grads.out();
  if (!a || !b) return;
  const float sign = s.op == Binary::max ? 1.0f : -1.0f;
  const auto share = [=](float mine, float other, float g) {
    return mine == other ? g / 2 : sign * mine > sign * other ? g : 0.0f;
  };
  if (s.a.tracked()) give(grads, s.a, s.shape, [=](std::size_t i) { return share(a[i], b[i], dy[i]); });
  if (s.b.tracked()) give(grads, s.b, s.shape, [=](std::size_t i) { return share(b[i], a[i], dy[i]); });
}

struct SelectSaved {
  Tensor mask, a, b;  // mask of the output's shape
  Shape shape;
};

}  // namespace

void rules::binary(const void* saved, Grads& grads) noexcept {
  const auto& s = *static_cast<const BinarySaved*>(saved);
  if (s.rectified && !pass_relu(grads, s.output, s.shape.numel())) return;
  const float* dy = grads.out();
  switch (s.op) {
    case Binary::add:
      give_sum(grads, s.b, s.shape);
      give_sum(grads, s.a, s.shape);
      break;
    case Binary::sub:
      if (s.b.tracked()) give(grads, s.b, s.shape, [=](std::size_t i) { return -dy[i]; });
      give_sum(grads, s.a, s.shape);
      break;
    case Binary::mul:
      give_product(grads, s.a, s.b, s.shape);
      give_product(grads, s.b, s.a, s.shape);
      break;
    case Binary::div: {
      const float* b = dense_elements(grads, s.b, s.shape);
      if (!b) return;
      if (s.a.tracked()) give(grads, s.a, s.shape, [=](std::size_t i) { return dy[i] / b[i]; });
      if (s.b.tracked()) give(grads, s.b, s.shape, [=, y = s.output](std::size_t i) { return -dy[i] * y[i] / b[i]; });
      break;
    }
    case Binary::pow: give_power(s, grads); break;
    case Binary::max:
    case Binary::min: give_extreme(s, grads); break;
    case Binary::count_: break;
  }
}

void rules::select(const void* saved, Grads& grads) noexcept {
  const auto& s = *static_cast<const SelectSaved*>(saved);
  const float* dy = grads.out();
  const std::uint8_t* mask = s.mask.u8();
  if (s.a.tracked()) give(grads, s.a, s.shape, [=](std::size_t i) { return mask[i] ? dy[i] : 0.0f; });
  if (s.b.tracked()) give(grads, s.b, s.shape, [=](std::size_t i) { return mask[i] ? 0.0f : dy[i]; });
}

namespace ops {

Result<Tensor> add(const Operand& a, const Operand& b) noexcept { return binary(Binary::add, "add", a, b); }
Result<Tensor> add_relu(const Operand& a, const Operand& b) noexcept {
  return binary(Binary::add, "add_relu", a, b, true);
}
Result<Tensor> sub(const Operand& a, const Operand& b) noexcept { return binary(Binary::sub, "sub", a, b); }
Result<Tensor> mul(const Operand& a, const Operand& b) noexcept { return binary(Binary::mul, "mul", a, b); }
Result<Tensor> div(const Operand& a, const Operand& b) noexcept { return binary(Binary::div, "div", a, b); }
Result<Tensor> pow(const Operand& a, const Operand& b) noexcept { return binary(Binary::pow, "pow", a, b); }
Result<Tensor> maximum(const Operand& a, const Operand& b) noexcept { return binary(Binary::max, "maximum", a, b); }
Result<Tensor> minimum(const Operand& a, const Operand& b) noexcept { return binary(Binary::min, "minimum", a, b); }

Result<Tensor> equal(const Operand& a, const Operand& b) noexcept { return compare(Compare::eq, "equal", a, b); }
Result<Tensor> not_equal(const Operand& a, const Operand& b) noexcept {
  return compare(Compare::ne, "not_equal", a, b);
}
Result<Tensor> less(const Operand& a, const Operand& b) noexcept { return compare(Compare::lt, "less", a, b); }
Result<Tensor> less_equal(const Operand& a, const Operand& b) noexcept {
  return compare(Compare::le, "less_equal", a, b);
}
Result<Tensor> greater(const Operand& a, const Operand& b) noexcept { return compare(Compare::gt, "greater", a, b); }
Result<Tensor> greater_equal(const Operand& a, const Operand& b) noexcept {
  return compare(Compare::ge, "greater_equal", a, b);
}

Result<Tensor> where(const Operand& mask, const Operand& a, const Operand& b) noexcept {
  auto context = common_context("where", {&mask, &a, &b});
  if (!context) return fail(context.error());
  if (auto ok = mask->check(DType::u8, "where"); !ok) return fail(ok.error());
  for (const Operand* side : {&a, &b}) {
    if (auto ok = (*side)->check(DType::f32, "where"); !ok) return fail(ok.error());
  }
  auto first = align<3>("where", {&mask, &a, &b}, *context);
  if (!first) return fail(first.error());
  // The backward reads the mask densely, so a tape gets a mask of the full shape.
  Result<Tensor> full =
      broadcast_to(placed(mask, **context), first->shape).and_then([](const Tensor& wide) { return contiguous(wide); });
  if (!full) return full;
  const Operand dense_mask(full);
  auto aligned = align<3>("where", {&dense_mask, &a, &b}, *context);
  if (!aligned) return fail(aligned.error());
  auto y = Fresh::make(**context, aligned->shape);
  if (!y) return fail(y.error());
  const auto& [m, x, z] = aligned->operand;
  for_rows(*aligned, [&](const auto& offset, std::size_t at, std::size_t count) {
    kernels::active().select(m.u8() + offset[0], aligned->joint.step(0), x.f32() + offset[1], aligned->joint.step(1),
                             z.f32() + offset[2], aligned->joint.step(2), y->f32() + at, count);
  });
  return std::move(*y).freeze(rule(RuleId::select), {&m, &x, &z}, SelectSaved{m, x, z, aligned->shape});
}

}  // namespace ops
}  // namespace qorus
