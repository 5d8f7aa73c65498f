// ops::linear_cross_entropy and its rule.
module;
#include "kernels/kernels.h"
module qorus.ops;
import qorus.std;
import :rules;
import :loops;
import :product;

namespace qorus {
namespace {

// Gradients made in the forward, of a loss whose slope is 1.
struct HeadSaved {
  GradRef x, weight;
  const float *dx, *dweight;
};

// Losses and gradients of some rows after the others.
struct HeadPieces {
  Context& context;
  const LinearCall& call;
  const ops::CrossEntropyOptions& options;
  const float *x, *factor;
  const std::int32_t* target;
  float *each, *log_sum, *scores, *dx, *dweight;  // dx, dweight: null if they are not wanted

  [[nodiscard]] Status run(std::size_t first, std::size_t count) const noexcept {
    const LinearWeights w = call.weights();
    const float* const from = past(x, static_cast<std::ptrdiff_t>(first * w.in));
    if (auto done = call.run(from, {0, count}, Activation::none, nullptr, scores); !done) return done;
    parallel_chunks(context, count, row_grain(w.out), [&](std::size_t begin, std::size_t end) {
      const std::size_t at = first + begin, n = end - begin;
      float* const s = scores + begin * w.out;
      kernels::active().cross_entropy(s, target + at, each + at, log_sum + at, n, w.out, options.label_smoothing,
                                      options.ignore_index);
      if (!dx && !dweight) return;
      kernels::training().cross_entropy_bwd(s, target + at, log_sum + at, factor, 0, s, n, w.out,
                                            options.label_smoothing, options.ignore_index, false);
    });
    if (dweight) {
      if (auto done = run_product(context, w.weight_gemm(scores, from, count, {dweight, first > 0})); !done)
        return done;
    }
    return dx ? run_product(context, w.input_gemm(scores, count, {dx + first * w.in, false})) : Status();
  }
};

}  // namespace

void rules::linear_cross_entropy(const void* saved, Grads& grads) noexcept {
  const auto& s = *static_cast<const HeadSaved*>(saved);
  grads.give(s.x, s.dx);
  grads.give(s.weight, s.dweight);
}

namespace ops {

Result<Tensor> linear_cross_entropy(const Operand& input, const Operand& weight, const Operand& target,
                                    const CrossEntropyOptions& options) noexcept {
  if (options.reduce == Reduce::none || (weight.ok() && weight->dtype() != DType::f32))
    return ops::cross_entropy(linear(input, weight), target, options);
  auto shared = common_context("cross_entropy", {&input, &weight, &target});
  if (!shared) return fail(shared.error());
  Context& context = **shared;
  auto call = linear_call(input, weight, {});
  if (!call) return fail(call.error());
  auto x = contiguous(placed(input, context));
  if (!x) return x;
  const auto targets = targets_of(context, x->shape().with(-1, weight->dim(0)), target, options);
  if (!targets) return fail(targets.error());
  auto loss = Fresh::make(context, Shape{});
  if (!loss) return fail(loss.error());
  const auto slopes = [&](const Tensor& of) -> Result<float*> {
    if (!context.record || !of.tracked()) return nullptr;
    auto fresh = Fresh::make(context, of.shape());
    if (!fresh) return fail(fresh.error());
    return fresh->f32();
  };
  const auto dx = slopes(*x), dweight = slopes(*weight);
  if (!dx || !dweight) return fail(!dx ? dx.error() : dweight.error());
  constexpr std::size_t k_scores = std::size_t{1} << 21, k_fewest = 64;
  const auto classes = static_cast<std::size_t>(weight->dim(0));
  const std::size_t rows = targets->labels.numel(), piece = std::min(rows, std::max(k_fewest, k_scores / classes)),
                    mark = context.scratch->mark();
  auto room = context.scratch->take((piece * classes + 2 * rows) * sizeof(float));
  if (!room) return fail(room.error());
  auto* const scores = reinterpret_cast<float*>(room->data);
  float* const each = scores + piece * classes;
  const HeadPieces pieces{context, *call,       options, x->f32(), &targets->factor, targets->labels.i32(),
                          each,    each + rows, scores,  *dx,      *dweight};
  const auto done =
      each_run(rows, piece, [&](std::size_t first, std::size_t count) { return pieces.run(first, count); });
  if (!done) return fail(done.error());
  parallel(context, 1, [&](std::uint32_t, int) {
    kernels::active().reduce(kernels::Reduce::sum, each, loss->f32(), 1, rows, 1);
    *loss->f32() *= targets->factor;
  });
  context.scratch->shrink_to(mark);
  return std::move(*loss).freeze(rule(RuleId::linear_cross_entropy), {&*x, &*weight, &targets->labels},
                                 HeadSaved{x->grad_ref(), weight->grad_ref(), *dx, *dweight});
}

}  // namespace ops
}  // namespace qorus
