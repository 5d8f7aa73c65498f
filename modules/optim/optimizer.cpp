// Bodies of qorus.optim:optimizer.
module;
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>
#include <utility>

#include "kernels/kernels.h"
module qorus.optim;

namespace qorus {
namespace {

constexpr std::size_t k_piece = 65536;  // floats per task

bool in_range(float value, float low, float high) noexcept { return value >= low && value <= high; }

Status check(const OptimizerSpec& spec) noexcept {
  const float infinite = std::numeric_limits<float>::max();
  bool good = in_range(spec.lr(), 0, infinite);
  if (spec.kind == OptimizerSpec::Kind::sgd) {
    const SgdOptions& o = spec.sgd;
    good = good && in_range(o.momentum, 0, 1) && in_range(o.dampening, 0, 1) && in_range(o.weight_decay, 0, infinite) &&
           in_range(o.l1, 0, infinite) && (!o.nesterov || (o.momentum > 0 && o.dampening == 0));
  } else {
    const AdamOptions& o = spec.adam;
    good = good && in_range(o.beta1, 0, 0.999999f) && in_range(o.beta2, 0, 0.9999999f) &&
           in_range(o.eps, 0, infinite) && in_range(o.weight_decay, 0, infinite) && in_range(o.l1, 0, infinite);
  }
  if (!good) return fail(Errc::invalid_argument, "optimizer", "a learning rate, momentum or decay is out of range");
  return {};
}

kernels::AdamStep adam_step(const OptimizerSpec& spec, std::uint64_t step, const Gradients& g) noexcept {
  const AdamOptions& o = spec.adam;
  const bool decoupled = spec.kind == OptimizerSpec::Kind::adamw;
  const auto t = static_cast<double>(step);
  return {.lr = o.lr,
          .beta1 = o.beta1,
          .beta2 = o.beta2,
          .eps = o.eps,
          .correction1 = static_cast<float>(1 - std::pow(static_cast<double>(o.beta1), t)),
          .correction2 = static_cast<float>(1 - std::pow(static_cast<double>(o.beta2), t)),
          .weight_decay = decoupled ? o.weight_decay : 0,
          .l2 = decoupled ? 0 : o.weight_decay,
          .l1 = o.l1,
          .grad_scale = g.scale,
          .grad_limit = g.limit};
}

}  // namespace

Optimizer::Optimizer(const OptimizerSpec& spec, const nn::Parameters& model) noexcept
    : spec_(spec), floats_(model.block().floats), ready_(check(spec)) {
  const int moments = spec.kind != OptimizerSpec::Kind::sgd ? 2 : spec.sgd.momentum > 0 ? 1 : 0;
  for (int i = 0; i < moments && ready_; ++i) {
    auto slab = Slab::create(floats_ * sizeof(float));
    if (slab) {
      moments_[i] = std::move(*slab);
    } else {
      ready_ = fail(slab.error());
    }
  }
}

std::span<float> Optimizer::moment(int i) noexcept {
  if (i < 0 || i > 1) return {};
  return {reinterpret_cast<float*>(moments_[i].data()), moments_[i].size() / sizeof(float)};
}

Status Optimizer::step(nn::Parameters& model, const Gradients& gradients) noexcept {
  if (!ready_) return ready_;
  if (auto good = check(spec_); !good) return good;
  auto slab = gradients.slab(model.block());
  if (!slab) return fail(slab.error());
  const std::span<float> p = model.trainable_slab();
  if (p.size() != floats_)
    return fail(Errc::invalid_argument, "optimizer", "this is not the model that the optimizer was made for");
  Context& context = gradients.context();
  if (context.planning) return {};
  ++steps_;
  const float* g = slab->data();
  float* m = moment(0).data();
  float* v = moment(1).data();
  if (spec_.kind == OptimizerSpec::Kind::sgd) {
    const SgdOptions& o = spec_.sgd;
    const kernels::SgdStep step{.lr = o.lr,
                                .momentum = o.momentum,
                                .dampening = o.dampening,
                                .nesterov = o.nesterov,
                                .first = steps_ == 1,
                                .l2 = o.weight_decay,
                                .l1 = o.l1,
                                .grad_scale = gradients.scale,
                                .grad_limit = gradients.limit};
    parallel_chunks(context, floats_, k_piece, [&](std::size_t begin, std::size_t end) {
      kernels::training().sgd(p.data() + begin, g + begin, m ? m + begin : nullptr, end - begin, step);
    });
  } else {
    const kernels::AdamStep step = adam_step(spec_, steps_, gradients);
    parallel_chunks(context, floats_, k_piece, [&](std::size_t begin, std::size_t end) {
      kernels::training().adam(p.data() + begin, g + begin, m + begin, v + begin, end - begin, step);
    });
  }
  return {};
}

}  // namespace qorus
