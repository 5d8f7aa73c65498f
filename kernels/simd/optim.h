// The optimizers' steps over the vector type: one walk, every array read and written once. Include a vec.h first.
#pragma once
#include <cstddef>
#include "kernels/parts.h"
#include "kernels/simd/each.h"
#include "kernels/simd/unary.h"

namespace qorus::kernels {
namespace {

// The gradient as the step sees it: scaled, limited, and with the penalties' slopes where there are any. A NaN stays
// one.
template <class Step>
struct Prepared {
  F32 scale, limit, l2, l1;
  explicit Prepared(const Step& s) : scale(set(s.grad_scale)), limit(set(s.grad_limit)), l2(set(s.l2)), l1(set(s.l1)) {}
  template <bool penalties>
  QORUS_INLINE F32 at(F32 g, F32 p) const {
    const F32 limited = min(limit, max(-limit, g * scale));
    if constexpr (penalties) return fma(l1, sign(p), fma(l2, p, limited));
    return limited;
  }
};

// m' = b1 m + (1-b1) g,  v' = b2 v + (1-b2) g^2,  p' = p (1 - lr wd) - (lr/c1) m' / (sqrt(v') / sqrt(c2) + eps).
template <bool penalties>
void adam_with(float* p, const float* g, float* m, float* v, std::size_t n, const AdamStep& s) noexcept {
  const Prepared<AdamStep> prepared(s);
  const F32 beta1 = set(s.beta1), rest1 = set(float(1 - double(s.beta1)));
  const F32 beta2 = set(s.beta2), rest2 = set(float(1 - double(s.beta2)));
  const F32 keep = set(float(1 - double(s.lr) * s.weight_decay)), rate = set(s.lr / s.correction1);
  const F32 root = set(1.0f) / sqrt(set(s.correction2)), eps = set(s.eps);
  each(n, [&](std::size_t i, auto part) {
    const F32 weight = load(p + i, part);
    const F32 gradient = prepared.template at<penalties>(load(g + i, part), weight);
    const F32 m_new = fma(beta1, load(m + i, part), rest1 * gradient);
    const F32 v_new = fma(beta2, load(v + i, part), rest2 * gradient * gradient);
    store(m + i, m_new, part);
    store(v + i, v_new, part);
    store(p + i, fnma(rate, m_new / fma(sqrt(v_new), root, eps), keep * weight), part);
  });
}

void adam(float* p, const float* g, float* m, float* v, std::size_t n, const AdamStep& s) noexcept {
  if (s.l2 != 0 || s.l1 != 0)
    adam_with<true>(p, g, m, v, n, s);
  else
    adam_with<false>(p, g, m, v, n, s);
}

// b' = first ? g : momentum b + (1 - dampening) g,  p' = p - lr (nesterov ? g + momentum b' : b').
void sgd(float* p, const float* g, float* momentum, std::size_t n, const SgdStep& s) noexcept {
  const Prepared<SgdStep> prepared(s);
  const F32 rate = set(s.lr), inertia = set(s.momentum), rest = set(float(1 - double(s.dampening)));
  const bool penalties = s.l2 != 0 || s.l1 != 0, first_step = s.first, nesterov = s.nesterov;
  each(n, [&](std::size_t i, auto part) {
    const F32 weight = load(p + i, part), raw = load(g + i, part);
    const F32 gradient = penalties ? prepared.template at<true>(raw, weight) : prepared.template at<false>(raw, weight);
    F32 direction = gradient;
    if (momentum) {
      const F32 b = first_step ? gradient : fma(inertia, load(momentum + i, part), rest * gradient);
      store(momentum + i, b, part);
      direction = nesterov ? fma(inertia, b, gradient) : b;
    }
    store(p + i, fnma(rate, direction, weight), part);
  });
}

}  // namespace
}  // namespace qorus::kernels
