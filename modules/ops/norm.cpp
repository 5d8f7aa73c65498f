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
  const float *input, *weights;
  const float *mean, *rstd;  // mean is null for rms_norm
  std::size_t rows, cols;
};

Status check_vector(const char* op, const Tensor& x, const Tensor& vector) noexcept {
  if (x.rank() < 1 || x.dim(-1) == 0 || vector.rank() != 1 || vector.dim(0) != x.dim(-1)) {
    return fail(Errc::invalid_size, op, "x: [..., cols] and weight, bias: [cols] must agree on cols", x.shape().dims(),
                vector.shape().dims());
  }
  return {};
}

// Both norms: `mean` is wanted for layer_norm alone. `run(begin row, rows, y, mean, rstd)` calls the kernel.
template <class Run>
Result<Tensor> normalize(RuleId id, Context& context, const Operand& operand, const Tensor& weight, const Tensor* bias,
                         bool centred, const Run& run) noexcept {
  auto x = ops::contiguous(operand);
  if (!x) return x;
  auto y = Fresh::make(context, x->shape());
  if (!y) return fail(y.error());
  const auto cols = static_cast<std::size_t>(x->dim(-1));
  const std::size_t rows = x->numel() / cols;
  const auto count = static_cast<std::int64_t>(rows);
  auto rstd = Fresh::make(context, Shape{count});
  if (!rstd) return fail(rstd.error());
  auto mean = Fresh::make(context, Shape{centred ? count : 0});
  if (!mean) return fail(mean.error());
  parallel_chunks(context, rows, row_grain(cols, rows), [&](std::size_t begin, std::size_t end) {
    run(x->f32() + begin * cols, y->f32() + begin * cols, centred ? mean->f32() + begin : nullptr, rstd->f32() + begin,
        end - begin, cols);
  });
  const Tensor none;
  const NormSaved saved{x->grad_ref(),
                        weight.grad_ref(),
                        bias ? bias->grad_ref() : GradRef{},
                        x->f32(),
                        weight.f32(),
                        centred ? mean->f32() : nullptr,
                        rstd->f32(),
                        rows,
                        cols};
  return std::move(*y).freeze(rule(id), {&*x, &weight, bias ? bias : &none}, saved);
}

// dx row by row; dweight and dbias summed within blocks of rows first, then over the blocks in order.
template <class Run>
void normalize_rule(const NormSaved& s, Grads& grads, const Run& run) noexcept {
  Context& context = grads.context();
  const Into dx = grads.into(s.x), dw = grads.into(s.weight), db = grads.into(s.bias);
  const std::size_t grain = row_grain(s.cols), blocks = (s.rows + grain - 1) / grain;
  float* scratch_dx = dx ? nullptr : grads.temporary(grain * s.cols * static_cast<std::size_t>(context.executor.width));
  float* partial = grads.temporary(2 * blocks * s.cols);
  if (!partial || (!dx && !scratch_dx)) return;
  parallel(context, static_cast<std::uint32_t>(blocks), [&](std::uint32_t block, int worker) {
    const std::size_t begin = block * grain, count = begin + grain < s.rows ? grain : s.rows - begin;
    float* own = partial + 2 * block * s.cols;
    std::memset(own, 0, 2 * s.cols * sizeof(float));
    float* out = dx ? dx.data + begin * s.cols : scratch_dx + static_cast<std::size_t>(worker) * grain * s.cols;
    run(s, begin, count, grads.out() + begin * s.cols, out, own, own + s.cols, dx && dx.accumulate);
  });
  parallel(context, 1, [&](std::uint32_t, int) {
    const auto add = [&](const Into& to, std::size_t offset) {
      if (!to) return;
      if (!to.accumulate) std::memset(to.data, 0, s.cols * sizeof(float));
      for (std::size_t block = 0; block < blocks; ++block)
        kernels::active().axpy(1, partial + 2 * block * s.cols + offset, to.data, s.cols);
    };
    add(dw, 0);
    add(db, s.cols);
  });
}

Result<Tensor> run_layer_norm(const Operand& x, const Operand& weight, const Operand* bias, float eps,
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
  const float* shift = bias ? b->f32() : nullptr;
  return normalize(RuleId::layer_norm, context, x, *w, bias ? &*b : nullptr, true,
                   [&](const float* in, float* out, float* mean, float* rstd, std::size_t rows, std::size_t cols) {
                     kernels::active().layer_norm(in, w->f32(), shift, out, mean, rstd, rows, cols, eps);
                   });
}

}  // namespace

void rules::layer_norm(const void* saved, Grads& grads) noexcept {
  normalize_rule(*static_cast<const NormSaved*>(saved), grads,
                 [](const NormSaved& s, std::size_t begin, std::size_t count, const float* dy, float* dx, float* dw,
                    float* db, bool accumulate) {
                   kernels::training().layer_norm_bwd(s.input + begin * s.cols, s.weights, s.mean + begin,
                                                      s.rstd + begin, dy, dx, dw, db, count, s.cols, accumulate);
                 });
}

void rules::rms_norm(const void* saved, Grads& grads) noexcept {
  normalize_rule(*static_cast<const NormSaved*>(saved), grads,
                 [](const NormSaved& s, std::size_t begin, std::size_t count, const float* dy, float* dx, float* dw,
                    float*, bool accumulate) {
                   kernels::training().rms_norm_bwd(s.input + begin * s.cols, s.weights, s.rstd + begin, dy, dx, dw,
                                                    count, s.cols, accumulate);
                 });
}

namespace ops {

Result<Tensor> layer_norm(const Operand& x, const Operand& weight, const Operand& bias, float eps) noexcept {
  auto context = float_context("layer_norm", {&x, &weight, &bias});
  if (!context) return fail(context.error());
  return run_layer_norm(x, weight, &bias, eps, **context);
}

Result<Tensor> layer_norm(const Operand& x, const Operand& weight, float eps) noexcept {
  auto context = float_context("layer_norm", {&x, &weight});
  if (!context) return fail(context.error());
  return run_layer_norm(x, weight, nullptr, eps, **context);
}

Result<Tensor> rms_norm(const Operand& x, const Operand& weight, float eps) noexcept {
  auto context = float_context("rms_norm", {&x, &weight});
  if (!context) return fail(context.error());
  if (!(eps > 0)) return fail(Errc::invalid_argument, "rms_norm", "eps must be positive");
  if (auto fits = check_vector("rms_norm", *x, *weight); !fits) return fail(fits.error());
  auto w = contiguous(weight);
  if (!w) return w;
  return normalize(RuleId::rms_norm, **context, x, *w, nullptr, false,
                   [&](const float* in, float* out, float*, float* rstd, std::size_t rows, std::size_t cols) {
                     kernels::active().rms_norm(in, w->f32(), out, rstd, rows, cols, eps);
                   });
}

}  // namespace ops
}  // namespace qorus
