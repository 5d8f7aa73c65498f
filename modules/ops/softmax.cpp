// Bodies of qorus.ops:softmax.
module;
#include "kernels/kernels.h"
module qorus.ops;
import qorus.std;
import :rules;
import :loops;

namespace qorus {
namespace {

struct SoftmaxSaved {
  GradRef x;
  const float* output;
  std::size_t rows, cols;
};

// A row-wise function of the last axis: kernel(x, y, rows, cols).
template <class Kernel>
Result<Tensor> softmax_rows(const char* op, RuleId id, const Operand& operand, int axis,
                            const Kernel& kernel) noexcept {
  auto context = float_context(op, {&operand});
  if (!context) return fail(context.error());
  auto at = normal_axis(axis, operand->rank(), op);
  if (!at) return fail(at.error());
  if (operand->dim(*at) == 0) return fail(Errc::invalid_size, op, "the axis has no elements", operand->shape().dims());
  if (*at != operand->rank() - 1) {
    auto last = softmax_rows(op, id, ops::transpose(operand, *at, -1), -1, kernel);
    return ops::transpose(last, *at, -1);
  }
  auto x = ops::contiguous(operand);
  if (!x) return x;
  auto y = Fresh::make(**context, x->shape());
  if (!y) return fail(y.error());
  const auto cols = static_cast<std::size_t>(x->dim(-1));
  const std::size_t rows = x->numel() / cols;
  parallel_row_chunks(**context, rows, cols, [&](std::size_t begin, std::size_t end) {
    kernel(x->f32() + begin * cols, y->f32() + begin * cols, end - begin, cols);
  });
  return std::move(*y).freeze(rule(id), {&*x}, SoftmaxSaved{x->grad_ref(), y->f32(), rows, cols});
}

// kernel(y, dy, dx, rows, cols, accumulate)
template <class Kernel>
void softmax_rule(const void* saved, Grads& grads, const Kernel& kernel) noexcept {
  const auto& s = *static_cast<const SoftmaxSaved*>(saved);
  const Into dx = grads.into(s.x);
  if (!dx) return;
  parallel_row_chunks(grads.context(), s.rows, s.cols, [&](std::size_t begin, std::size_t end) {
    const std::size_t at = begin * s.cols;
    kernel(s.output + at, grads.out() + at, dx.data + at, end - begin, s.cols, dx.accumulate);
  });
}

struct CrossEntropySaved {
  GradRef x;
  const float *input, *log_sum;
  const std::int32_t* target;
  std::size_t rows, cols;
  ops::CrossEntropyOptions options;
  float factor;  // of each row's loss in the result
};

}  // namespace

Result<Targets> targets_of(Context& context, const Shape& logits, const Operand& target,
                           const ops::CrossEntropyOptions& options) noexcept {
  constexpr const char* op = "cross_entropy";
  if (auto ok = target->check(DType::i32, op); !ok) return fail(ok.error());
  if (logits.rank() < 1 || logits[-1] == 0 || logits.without(-1) != target->shape()) {
    return fail(Errc::invalid_size, op, "logits: [..., classes] need targets: [...]", logits.dims(),
                target->shape().dims());
  }
  if (!(options.label_smoothing >= 0 && options.label_smoothing <= 1))
    return fail(Errc::invalid_argument, op, "label smoothing lies between 0 and 1");
  auto labels = ops::contiguous(placed(target, context));
  if (!labels) return fail(labels.error());
  std::size_t counted = labels->numel();
  bool good = true;
  for (std::size_t i = 0; i < labels->numel() && !context.planning; ++i) {
    const std::int32_t label = labels->i32()[i];
    const bool ignored = label == options.ignore_index;
    counted -= ignored;
    good = good && (ignored || (label >= 0 && label < logits[-1]));
  }
  if (!good) return fail(Errc::invalid_argument, op, "a target is not a class", labels->shape().dims());
  const float mean = counted ? 1 / static_cast<float>(counted) : 0;
  return Targets{*labels, options.reduce == ops::Reduce::mean ? mean : 1};
}

void rules::softmax(const void* saved, Grads& grads) noexcept {
  softmax_rule(saved, grads,
               [](const float* y, const float* dy, float* dx, std::size_t rows, std::size_t cols, bool accumulate) {
                 kernels::training().softmax_bwd(y, dy, dx, rows, cols, 1, accumulate);
               });
}

void rules::log_softmax(const void* saved, Grads& grads) noexcept {
  softmax_rule(saved, grads, kernels::training().log_softmax_bwd);
}

void rules::cross_entropy(const void* saved, Grads& grads) noexcept {
  const auto& s = *static_cast<const CrossEntropySaved*>(saved);
  const Into dx = grads.into(s.x);
  if (!dx) return;
  const bool each = s.options.reduce == ops::Reduce::none;
  float* dloss = grads.out_in_place();
  if (!dloss) return;
  if (!each) parallel(grads.context(), 1, [&](std::uint32_t, int) { *dloss *= s.factor; });
  parallel_row_chunks(grads.context(), s.rows, s.cols, [&](std::size_t begin, std::size_t end) {
    kernels::training().cross_entropy_bwd(s.input + begin * s.cols, s.target + begin, s.log_sum + begin,
                                          each ? dloss + begin : dloss, each ? 1 : 0, dx.data + begin * s.cols,
                                          end - begin, s.cols, s.options.label_smoothing, s.options.ignore_index,
                                          dx.accumulate);
  });
}

namespace ops {

Result<Tensor> softmax(const Operand& x, int axis) noexcept {
  return softmax_rows("softmax", RuleId::softmax, x, axis,
                      [](const float* from, float* to, std::size_t rows, std::size_t cols) {
                        kernels::active().softmax(from, to, rows, cols, 1);
                      });
}

Result<Tensor> log_softmax(const Operand& x, int axis) noexcept {
  return softmax_rows("log_softmax", RuleId::log_softmax, x, axis, kernels::active().log_softmax);
}

Result<Tensor> cross_entropy(const Operand& logits, const Operand& target,
                             const CrossEntropyOptions& options) noexcept {
  auto context = common_context("cross_entropy", {&logits, &target});
  if (!context) return fail(context.error());
  if (auto ok = logits->check(DType::f32, "cross_entropy"); !ok) return fail(ok.error());
  auto x = contiguous(placed(logits, **context));
  if (!x) return x;
  const auto targets = targets_of(**context, x->shape(), target, options);
  if (!targets) return fail(targets.error());
  const Tensor* const labels = &targets->labels;
  const auto cols = static_cast<std::size_t>(x->dim(-1));
  const std::size_t rows = labels->numel();
  const float factor = targets->factor;
  auto each = Fresh::make(**context, labels->shape());
  if (!each) return fail(each.error());
  auto log_sum = Fresh::make(**context, labels->shape());
  if (!log_sum) return fail(log_sum.error());
  parallel_row_chunks(**context, rows, cols, [&](std::size_t begin, std::size_t end) {
    kernels::active().cross_entropy(x->f32() + begin * cols, labels->i32() + begin, each->f32() + begin,
                                    log_sum->f32() + begin, end - begin, cols, options.label_smoothing,
                                    options.ignore_index);
  });
  const CrossEntropySaved saved{x->grad_ref(), x->f32(), log_sum->f32(), labels->i32(), rows, cols, options, factor};
  if (options.reduce == Reduce::none)
    return std::move(*each).freeze(rule(RuleId::cross_entropy), {&*x, &*labels}, saved);
  auto loss = Fresh::make(**context, Shape{});
  if (!loss) return fail(loss.error());
  parallel(**context, 1, [&](std::uint32_t, int) {
    kernels::active().reduce(kernels::Reduce::sum, each->f32(), loss->f32(), 1, rows, 1);
    *loss->f32() *= factor;
  });
  return std::move(*loss).freeze(rule(RuleId::cross_entropy), {&*x, &*labels}, saved);
}

}  // namespace ops
}  // namespace qorus
