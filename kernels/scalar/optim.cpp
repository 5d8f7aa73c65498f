// The definition of the optimizers' steps; the formulas stand beside AdamStep and SgdStep. Each new state is rounded
// once and the parameter is computed from the rounded state.
#include <cmath>
#include <cstddef>

#include "kernels/parts.h"

namespace qorus::kernels {
namespace {

// The gradient as the step sees it: scaled, limited, with the penalties' slopes added. A NaN stays one.
template <class Step>
double prepared(double g, double p, const Step& step) {
  const double limit = step.grad_limit;
  double scaled = g * step.grad_scale;
  scaled = scaled > limit ? limit : scaled < -limit ? -limit : scaled;
  return scaled + step.l2 * p + step.l1 * (double(p > 0) - double(p < 0));
}

void adam(float* p, const float* g, float* m, float* v, std::size_t n, const AdamStep& step) noexcept {
  for (std::size_t i = 0; i < n; ++i) {
    const double gradient = prepared(g[i], p[i], step);
    m[i] = float(step.beta1 * double(m[i]) + (1 - double(step.beta1)) * gradient);
    v[i] = float(step.beta2 * double(v[i]) + (1 - double(step.beta2)) * gradient * gradient);
    const double update = double(m[i]) / step.correction1 / (std::sqrt(double(v[i]) / step.correction2) + step.eps);
    p[i] = float(p[i] * (1 - double(step.lr) * step.weight_decay) - step.lr * update);
  }
}

void sgd(float* p, const float* g, float* momentum, std::size_t n, const SgdStep& step) noexcept {
  for (std::size_t i = 0; i < n; ++i) {
    const double gradient = prepared(g[i], p[i], step);
    double direction = gradient;
    if (momentum) {
      momentum[i] =
          float(step.first ? gradient : step.momentum * double(momentum[i]) + (1 - double(step.dampening)) * gradient);
      direction = step.nesterov ? gradient + step.momentum * double(momentum[i]) : momentum[i];
    }
    p[i] = float(p[i] - step.lr * direction);
  }
}

}  // namespace

extern constinit const OptimTraining optim_training_scalar{adam, sgd};

}  // namespace qorus::kernels
