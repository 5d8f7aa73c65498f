// Bodies of qorus.ops:norm.
module;
#include "kernels/kernels.h"
module qorus.ops;
import qorus.std;
import :loops;
import :rules;

namespace qorus {
namespace {

struct NormSaved {
  GradRef x, weight, bias;
  const float *input, *weights, *shift;  // shift: null without a bias
  float *mean, *rstd;                    // mean is null for rms_norm
  std::size_t rows, cols;
  float eps;
  bool spends;
};

// y, and the statistics of its rows.
void run_norm(const Context& context, const NormSaved& s, float* y) noexcept {
  parallel_row_chunks(context, s.rows, s.cols, [&](std::size_t begin, std::size_t end) {
    const float* const in = s.input + begin * s.cols;
    float* const out = y + begin * s.cols;
    if (s.mean) {
      kernels::active().layer_norm(in, s.weights, s.shift, out, s.mean + begin, s.rstd + begin, end - begin, s.cols,
                                   s.eps);
    } else {
      kernels::active().rms_norm(in, s.weights, out, s.rstd + begin, end - begin, s.cols, s.eps);
    }
  });
}

Status check_vector(const char* op, const Tensor& x, const Tensor& vector) noexcept {
  if (x.rank() < 1 || x.dim(-1) == 0 || vector.rank() != 1 || vector.dim(0) != x.dim(-1)) {
    return fail(Errc::invalid_size, op, "x: [..., cols] and weight, bias: [cols] must agree on cols", x.shape().dims(),
                vector.shape().dims());
  }
  return {};
}

// Both norms; weight and bias are dense.
Result<Tensor> normalize(RuleId id, Context& context, const Operand& operand, const Tensor& weight, const Tensor* bias,
                         float eps, bool spends) noexcept {
  auto x = ops::contiguous(operand);
  if (!x) return x;
  auto y = Fresh::make_remade(context, x->shape(), x->tracked() || weight.tracked() || (bias && bias->tracked()));
  if (!y) return fail(y.error());
  const auto cols = static_cast<std::size_t>(x->dim(-1));
  const std::size_t rows = x->numel() / cols;
  const auto count = static_cast<std::int64_t>(rows);
  auto rstd = Fresh::make(context, Shape{count});
  if (!rstd) return fail(rstd.error());
  const bool centred = id == RuleId::layer_norm;
  auto mean = Fresh::make(context, Shape{centred ? count : 0});
  if (!mean) return fail(mean.error());
  const Tensor none;
  const NormSaved saved{x->grad_ref(),
                        weight.grad_ref(),
                        bias ? bias->grad_ref() : GradRef{},
                        x->f32(),
                        weight.f32(),
                        bias ? bias->f32() : nullptr,
                        centred ? mean->f32() : nullptr,
                        rstd->f32(),
                        rows,
                        cols,
                        eps,
                        spends && x->data() == operand->data()};
  run_norm(context, saved, y->f32());
  return std::move(*y).freeze(rule(id), {&*x, &weight, bias ? bias : &none}, saved);
}

// dx row by row; those of dweight and dbias that are wanted summed within blocks of rows first, k_most_blocks at most, then over the
// blocks in order.
template <class Run>
void normalize_rule(const NormSaved& s, Grads& grads, const Run& run) noexcept {
  Context& context = grads.context();
  const Into dx = s.spends ? grads.into_spent(s.x, s.input) : grads.into_out(s.x), dw = grads.into(s.weight),
             db = grads.into(s.bias);
  constexpr std::size_t k_most_blocks = 64;
  const std::size_t grain = std::max(row_grain(s.cols), (s.rows + k_most_blocks - 1) / k_most_blocks),
                    blocks = (s.rows + grain - 1) / grain, own = (dw ? s.cols : 0) + (db ? s.cols : 0);
  float* scratch_dx = dx ? nullptr : grads.temporary(grain * s.cols * static_cast<std::size_t>(context.executor.width));
  float* partial = grads.temporary(blocks * own);
  if (!partial || (!dx && !scratch_dx)) return;
  parallel(context, static_cast<std::uint32_t>(blocks), [&](std::uint32_t block, int worker) {
    const std::size_t begin = block * grain, count = begin + grain < s.rows ? grain : s.rows - begin;
    float* const weights = partial + block * own;
    std::memset(weights, 0, own * sizeof(float));
    float* out = dx ? dx.data + begin * s.cols : scratch_dx + static_cast<std::size_t>(worker) * grain * s.cols;
    run(s, begin, count, grads.out() + begin * s.cols, out, dw ? weights : nullptr,
        db ? weights + own - s.cols : nullptr, dx ? s.rows * s.cols : 0, dx && dx.accumulate);
  });
  parallel(context, 1, [&](std::uint32_t, int) {
    const auto add = [&](const Into& to, std::size_t offset) {
      if (!to) return;
      if (!to.accumulate) std::memset(to.data, 0, s.cols * sizeof(float));
      for (std::size_t block = 0; block < blocks; ++block)
        kernels::active().axpy(1, partial + block * own + offset, to.data, s.cols);
    };
    add(dw, 0);
    add(db, own - s.cols);
  });
}

Result<Tensor> run_layer_norm(const Operand& x, const Operand& weight, const Operand* bias, float eps, bool spends,
                              Context& context) noexcept {
  if (!(eps > 0)) return fail(Errc::invalid_argument, "layer_norm", "eps must be positive");
  if (auto fits = check_vector("layer_norm", *x, *weight); !fits) return fail(fits.error());
  if (bias) {
    if (auto fits = check_vector("layer_norm", *x, **bias); !fits) return fail(fits.error());
  }
  auto w = ops::contiguous(weight);
  if (!w) return w;
  const Result<Tensor> b = bias ? ops::contiguous(*bias) : w;
  if (!b) return b;
  return normalize(RuleId::layer_norm, context, x, *w, bias ? &*b : nullptr, eps, spends);
}

}  // namespace

Status rules::remake_norm(const void* saved, const Context& context, float* result) noexcept {
  run_norm(context, *static_cast<const NormSaved*>(saved), result);
  return {};
}

void rules::layer_norm(const void* saved, Grads& grads) noexcept {
  normalize_rule(*static_cast<const NormSaved*>(saved), grads,
                 [](const NormSaved& s, std::size_t begin, std::size_t count, const float* dy, float* dx, float* dw,
                    float* db, std::size_t whole, bool accumulate) {
                   kernels::training().layer_norm_bwd(s.input + begin * s.cols, s.weights, s.mean + begin,
                                                      s.rstd + begin, dy, dx, dw, db, count, s.cols, whole, accumulate);
                 });
}

void rules::rms_norm(const void* saved, Grads& grads) noexcept {
  normalize_rule(*static_cast<const NormSaved*>(saved), grads,
                 [](const NormSaved& s, std::size_t begin, std::size_t count, const float* dy, float* dx, float* dw,
                    float*, std::size_t whole, bool accumulate) {
                   kernels::training().rms_norm_bwd(s.input + begin * s.cols, s.weights, s.rstd + begin, dy, dx, dw,
                                                    count, s.cols, whole, accumulate);
                 });
}

namespace ops {

Result<Tensor> layer_norm(const Operand& x, const Operand& weight, const Operand& bias, float eps,
                          bool spends) noexcept {
  auto context = float_context("layer_norm", {&x, &weight, &bias});
  if (!context) return fail(context.error());
  return run_layer_norm(x, weight, &bias, eps, spends, **context);
}

Result<Tensor> layer_norm(const Operand& x, const Operand& weight, float eps, bool spends) noexcept {
  auto context = float_context("layer_norm", {&x, &weight});
  if (!context) return fail(context.error());
  return run_layer_norm(x, weight, nullptr, eps, spends, **context);
}

Result<Tensor> rms_norm(const Operand& x, const Operand& weight, float eps, bool spends) noexcept {
  auto context = float_context("rms_norm", {&x, &weight});
  if (!context) return fail(context.error());
  if (!(eps > 0)) return fail(Errc::invalid_argument, "rms_norm", "eps must be positive");
  if (auto fits = check_vector("rms_norm", *x, *weight); !fits) return fail(fits.error());
  auto w = contiguous(weight);
  if (!w) return w;
  return normalize(RuleId::rms_norm, **context, x, *w, nullptr, eps, spends);
}

}  // namespace ops
}  // namespace qorus
