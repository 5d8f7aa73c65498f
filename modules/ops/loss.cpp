// Bodies of qorus.ops:loss.
module;
#include "kernels/kernels.h"
module qorus.ops;
import qorus.std;
import :rules;
import :loops;

namespace qorus {
namespace {

enum class Pointwise : std::uint8_t { mse, l1, huber, bce };

struct PointwiseSaved {
  GradRef x, target;
  const float *input, *wanted;
  std::size_t n;
  Pointwise loss;
  float parameter;  // delta, or the positive weight
  bool each;        // Reduce::none
  float factor;     // of each element's loss in a reduced result
};

constexpr std::size_t k_piece = 512;

// softplus(-x)
void softplus_of_minus(const float* x, float* y, std::size_t n) noexcept {
  kernels::active().unary(kernels::Unary::neg, x, y, n, 0);
  kernels::active().unary(kernels::Unary::softplus, y, y, n, 0);
}

// y[i] = loss(x[i], t[i]), n <= k_piece
void losses(Pointwise loss, float parameter, const float* x, const float* t, float* y, std::size_t n) noexcept {
  switch (loss) {
    case Pointwise::mse:
      for (std::size_t i = 0; i < n; ++i) y[i] = (x[i] - t[i]) * (x[i] - t[i]);
      break;
    case Pointwise::l1:
      for (std::size_t i = 0; i < n; ++i) y[i] = std::fabs(x[i] - t[i]);
      break;
    case Pointwise::huber:
      for (std::size_t i = 0; i < n; ++i) {
        const float size = std::fabs(x[i] - t[i]);
        y[i] = size <= parameter ? size * size / 2 : parameter * (size - parameter / 2);
      }
      break;
    case Pointwise::bce:
      softplus_of_minus(x, y, n);
      for (std::size_t i = 0; i < n; ++i) y[i] = (1 - t[i]) * x[i] + (1 + (parameter - 1) * t[i]) * y[i];
      break;
  }
}

// y[i] = d loss / d x[i] (or, for by_target, d loss / d t[i])
void slopes(Pointwise loss, float parameter, bool by_target, const float* x, const float* t, float* y,
            std::size_t n) noexcept {
  const float sign = by_target ? -1.0f : 1.0f;
  switch (loss) {
    case Pointwise::mse:
      for (std::size_t i = 0; i < n; ++i) y[i] = sign * 2 * (x[i] - t[i]);
      break;
    case Pointwise::l1:
      for (std::size_t i = 0; i < n; ++i) y[i] = x[i] == t[i] ? 0 : std::copysign(1.0f, x[i] - t[i]) * sign;
      break;
    case Pointwise::huber:
      for (std::size_t i = 0; i < n; ++i) y[i] = sign * std::clamp(x[i] - t[i], -parameter, parameter);
      break;
    case Pointwise::bce:
      if (by_target) {
        softplus_of_minus(x, y, n);
        for (std::size_t i = 0; i < n; ++i) y[i] = (parameter - 1) * y[i] - x[i];
      } else {  // d softplus(-x) / dx = sigmoid(x) - 1
        kernels::active().unary(kernels::Unary::sigmoid, x, y, n, 0);
        for (std::size_t i = 0; i < n; ++i) y[i] = (1 - t[i]) + (1 + (parameter - 1) * t[i]) * (y[i] - 1);
      }
      break;
  }
}

// The sum over pieces of one task, and then over tasks, in order.
void sum_losses(const Context& context, const PointwiseSaved& s, float* partial, float* result) noexcept {
  parallel_chunks(context, s.n, k_grain, [&](std::size_t begin, std::size_t end) {
    float piece[k_piece];
    double total = 0;
    for (std::size_t i = begin; i < end; i += k_piece) {
      const std::size_t n = std::min(k_piece, end - i);
      float sum = 0;
      losses(s.loss, s.parameter, s.input + i, s.wanted + i, piece, n);
      kernels::active().reduce(kernels::Reduce::sum, piece, &sum, 1, n, 1);
      total += static_cast<double>(sum);
    }
    partial[begin / k_grain] = static_cast<float>(total);
  });
  parallel(context, 1, [&](std::uint32_t, int) {
    kernels::active().reduce(kernels::Reduce::sum, partial, result, 1, (s.n + k_grain - 1) / k_grain, 1);
    *result *= s.factor;
  });
}

Result<Tensor> pointwise(const char* op, Pointwise loss, float parameter, ops::Reduce reduce, const Operand& x,
                         const Operand& target) noexcept {
  auto context = float_context(op, {&x, &target});
  if (!context) return fail(context.error());
  if (x->shape() != target->shape()) {
    return fail(Errc::invalid_size, op, "prediction and target are of one shape", x->shape().dims(),
                target->shape().dims());
  }
  auto input = ops::contiguous(placed(x, **context));
  if (!input) return input;
  auto wanted = ops::contiguous(placed(target, **context));
  if (!wanted) return wanted;
  const std::size_t n = input->numel();
  const bool each = reduce == ops::Reduce::none;
  const float factor = reduce == ops::Reduce::mean && n ? 1 / static_cast<float>(n) : 1;
  const PointwiseSaved saved{
      input->grad_ref(), wanted->grad_ref(), input->f32(), wanted->f32(), n, loss, parameter, each, factor};
  auto y = Fresh::make(**context, each ? input->shape() : Shape{});
  if (!y) return fail(y.error());
  if (each) {
    parallel_chunks(**context, n, k_piece * 32, [&](std::size_t begin, std::size_t end) {
      losses(loss, parameter, saved.input + begin, saved.wanted + begin, y->f32() + begin, end - begin);
    });
  } else {
    const std::size_t mark = (*context)->scratch->mark();
    auto partial = (*context)->scratch->take((n + k_grain - 1) / k_grain * sizeof(float));
    if (!partial) return fail(partial.error());
    sum_losses(**context, saved, reinterpret_cast<float*>(partial->data), y->f32());
    (*context)->scratch->shrink_to(mark);
  }
  return std::move(*y).freeze(rule(RuleId::pointwise_loss), {&*input, &*wanted}, saved);
}

void give_slopes(const PointwiseSaved& s, Grads& grads, bool by_target, const Into& to) noexcept {
  parallel_elements(grads.context(), s.n, [&](std::size_t begin, std::size_t end) {
    float piece[k_piece];
    for (std::size_t i = begin; i < end; i += k_piece) {
      const std::size_t n = std::min(k_piece, end - i);
      slopes(s.loss, s.parameter, by_target, s.input + i, s.wanted + i, piece, n);
      for (std::size_t j = 0; j < n; ++j) {
        const float g = piece[j] * (s.each ? grads.out()[i + j] : *grads.out() * s.factor);
        to.data[i + j] = to.accumulate ? to.data[i + j] + g : g;
      }
    }
  });
}

struct NllSaved {
  GradRef x;
  const std::int32_t* target;
  const float* weight;  // or null
  std::size_t rows, classes;
  std::int32_t ignore;
  bool each;
  float factor;
};

// What row r's log-probability is multiplied by in its loss; 0 if it is ignored.
float nll_weight(const NllSaved& s, std::size_t r) noexcept {
  if (s.target[r] == s.ignore) return 0;
  return s.weight ? -s.weight[s.target[r]] : -1;
}

Status check_nll(const Operand& x, const Operand& target, const Operand* weight) noexcept {
  if (auto ok = x->check(DType::f32, "nll"); !ok) return ok;
  if (auto ok = target->check(DType::i32, "nll"); !ok) return ok;
  if (x->rank() < 1 || x->dim(-1) == 0 || x->shape().without(-1) != target->shape()) {
    return fail(Errc::invalid_size, "nll", "x: [..., classes] needs targets: [...]", x->shape().dims(),
                target->shape().dims());
  }
  if (!weight) return {};
  if (auto ok = (*weight)->check(DType::f32, "nll"); !ok) return ok;
  if ((*weight)->shape() != Shape{x->dim(-1)}) {
    return fail(Errc::invalid_size, "nll", "x: [..., classes] needs weight: [classes]", x->shape().dims(),
                (*weight)->shape().dims());
  }
  return {};
}

// The factor of a mean; the targets are checked on the way.
Result<float> nll_factor(const Context& context, const NllSaved& s, ops::Reduce reduce, const Shape& shape) noexcept {
  if (context.planning) return 1.0f;
  double total = 0;
  for (std::size_t r = 0; r < s.rows; ++r) {
    if (s.target[r] != s.ignore && (s.target[r] < 0 || static_cast<std::size_t>(s.target[r]) >= s.classes)) {
      return fail(Errc::invalid_argument, "nll", "a target is not a class", shape.dims());
    }
    total -= static_cast<double>(nll_weight(s, r));
  }
  if (reduce != ops::Reduce::mean) return 1.0f;
  return total == 0 ? 0.0f : static_cast<float>(1 / total);
}

Result<Tensor> run_nll(const Operand& x, const Operand& target, const Operand* weight,
                       const ops::NllOptions& options) noexcept {
  auto context = weight ? common_context("nll", {&x, &target, weight}) : common_context("nll", {&x, &target});
  if (!context) return fail(context.error());
  if (auto ok = check_nll(x, target, weight); !ok) return fail(ok.error());
  auto input = ops::contiguous(placed(x, **context));
  if (!input) return input;
  auto labels = ops::contiguous(placed(target, **context));
  if (!labels) return labels;
  Result<Tensor> weights = Tensor();
  if (weight) weights = ops::contiguous(ops::detach(placed(*weight, **context)));
  if (!weights) return weights;
  const bool each = options.reduce == ops::Reduce::none;
  NllSaved saved{input->grad_ref(),
                 labels->i32(),
                 weight ? weights->f32() : nullptr,
                 labels->numel(),
                 static_cast<std::size_t>(input->dim(-1)),
                 options.ignore_index,
                 each,
                 1};
  auto factor = nll_factor(**context, saved, options.reduce, labels->shape());
  if (!factor) return fail(factor.error());
  saved.factor = *factor;
  auto y = Fresh::make(**context, each ? labels->shape() : Shape{});
  if (!y) return fail(y.error());
  parallel(**context, 1, [&](std::uint32_t, int) {
    double total = 0;
    for (std::size_t r = 0; r < saved.rows; ++r) {
      const float w = nll_weight(saved, r),
                  loss = w == 0 ? 0 : w * input->f32()[r * saved.classes + static_cast<std::size_t>(saved.target[r])];
      total += static_cast<double>(loss);
      if (each) y->f32()[r] = loss;
    }
    if (!each) *y->f32() = static_cast<float>(total * static_cast<double>(saved.factor));
  });
  return std::move(*y).freeze(rule(RuleId::nll), {&*input, &*labels, &*weights}, saved);
}

}  // namespace

void rules::pointwise_loss(const void* saved, Grads& grads) noexcept {
  const auto& s = *static_cast<const PointwiseSaved*>(saved);
  if (const Into dx = grads.into(s.x)) give_slopes(s, grads, false, dx);
  if (const Into dt = grads.into(s.target)) give_slopes(s, grads, true, dt);
}

void rules::nll(const void* saved, Grads& grads) noexcept {
  const auto& s = *static_cast<const NllSaved*>(saved);
  const Into dx = grads.into(s.x);
  if (!dx) return;
  parallel_chunks(grads.context(), s.rows, row_grain(s.classes), [&](std::size_t begin, std::size_t end) {
    if (!dx.accumulate) std::memset(dx.data + begin * s.classes, 0, (end - begin) * s.classes * sizeof(float));
    for (std::size_t r = begin; r < end; ++r) {
      const float w = nll_weight(s, r);
      if (w != 0)
        dx.data[r * s.classes + static_cast<std::size_t>(s.target[r])] +=
            w * (s.each ? grads.out()[r] : *grads.out() * s.factor);
    }
  });
}

namespace ops {

Result<Tensor> mse(const Operand& x, const Operand& target, Reduce reduce) noexcept {
  return pointwise("mse", Pointwise::mse, 0, reduce, x, target);
}
Result<Tensor> l1(const Operand& x, const Operand& target, Reduce reduce) noexcept {
  return pointwise("l1", Pointwise::l1, 0, reduce, x, target);
}
Result<Tensor> huber(const Operand& x, const Operand& target, float delta, Reduce reduce) noexcept {
  if (!(delta > 0)) return fail(Errc::invalid_argument, "huber", "delta must be positive");
  return pointwise("huber", Pointwise::huber, delta, reduce, x, target);
}
Result<Tensor> bce_with_logits(const Operand& x, const Operand& target, float positive_weight, Reduce reduce) noexcept {
  return pointwise("bce_with_logits", Pointwise::bce, positive_weight, reduce, x, target);
}
Result<Tensor> nll(const Operand& x, const Operand& target, const NllOptions& options) noexcept {
  return run_nll(x, target, nullptr, options);
}
Result<Tensor> nll(const Operand& x, const Operand& target, const Operand& weight, const NllOptions& options) noexcept {
  return run_nll(x, target, &weight, options);
}

}  // namespace ops
}  // namespace qorus
