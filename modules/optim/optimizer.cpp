// Bodies of qorus.optim:optimizer.
module;
#include "kernels/kernels.h"
module qorus.optim;
import qorus.std;

namespace qorus {
namespace {

constexpr std::size_t k_piece = 65536;  // floats per task
constexpr float k_no_limit = std::numeric_limits<float>::infinity();

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
  for (std::size_t i = 0; i < spec.group_count && i < OptimizerSpec::k_most_groups; ++i)
    good = good && in_range(spec.groups[i].lr_scale, 0, infinite);
  if (!good) return fail(Errc::invalid_argument, "optimizer", "a learning rate, momentum or decay is out of range");
  if (spec.group_count > OptimizerSpec::k_most_groups)
    return fail(Errc::invalid_argument, "optimizer", "at most six groups of parameters");
  return {};
}

// Whether a name fits a pattern in which * stands for any characters. Linear in the name for each *.
bool fits(std::string_view pattern, std::string_view name) noexcept {
  std::size_t p = 0, n = 0, star = pattern.npos, resume = 0;
  while (n < name.size()) {
    if (p < pattern.size() && pattern[p] == '*') {
      star = p++;
      resume = n;
    } else if (p < pattern.size() && pattern[p] == name[n]) {
      ++p;
      ++n;
    } else if (star != pattern.npos) {
      p = star + 1;
      n = ++resume;
    } else {
      return false;
    }
  }
  while (p < pattern.size() && pattern[p] == '*') ++p;
  return p == pattern.size();
}

const ParameterGroup* group_of(const OptimizerSpec& spec, const nn::Parameter& parameter) noexcept {
  for (std::size_t i = 0; i < spec.group_count && i < OptimizerSpec::k_most_groups; ++i) {
    const ParameterGroup& group = spec.groups[i];
    if (parameter.tensor.rank() <= group.max_rank && fits(group.pattern, parameter.name.view())) return &group;
  }
  return nullptr;
}

// 32 random bits that belong to an element in a step.
std::uint32_t drawn(std::uint64_t step, std::size_t element) noexcept {
  std::uint64_t x = (step << 40 ^ element) * 0x9e3779b97f4a7c15u;
  x = (x ^ x >> 32) * 0xd6e8feb86659fd93u;
  return static_cast<std::uint32_t>(x >> 32);
}

// x as bf16: away from zero with a chance of what would be cut off, in its last digits; chance: 16 random bits.
std::uint16_t rounded(float x, std::uint32_t chance) noexcept {
  const auto bits = std::bit_cast<std::uint32_t>(x);
  constexpr std::uint32_t k_exponent = 0x7f800000;
  if ((bits & k_exponent) == k_exponent) return static_cast<std::uint16_t>(bits >> 16 | (bits & 0xffff ? 0x40 : 0));
  return static_cast<std::uint16_t>((bits + chance) >> 16);
}

// The moments of some neighbours, in f32 for the kernel's time.
struct ShortMoments {
  std::uint16_t *m, *v;
  std::uint64_t step;

  // Elements first to first + count - 1 of the slab, the first of which p and g are.
  void adam(float* p, const float* g, std::size_t first, std::size_t count,
            const kernels::AdamStep& how) const noexcept {
    constexpr std::size_t k_most = 1024;
    float means[k_most], squares[k_most];
    const kernels::Table& table = kernels::active();
    for (std::size_t done = 0; done < count; done += k_most) {
      const std::size_t at = first + done, part = std::min(k_most, count - done);
      table.bf16_to_f32(m + at, means, part);
      table.bf16_to_f32(v + at, squares, part);
      kernels::training().adam(p + done, g + done, means, squares, part, how);
      for (std::size_t i = 0; i < part; ++i) {
        const std::uint32_t chances = drawn(step, at + i);
        m[at + i] = rounded(means[i], chances & 0xffff);
        v[at + i] = rounded(squares[i], chances >> 16);
      }
    }
  }
};

// What a range of the slab is stepped with.
struct Rates {
  float lr_scale;
  bool decay;
  float scale, limit;  // of the gradients
};

tl::unexpected<Error> foreign() noexcept {
  return fail(Errc::invalid_argument, "optimizer", "this is not the model that the optimizer was made for");
}

kernels::AdamStep adam_step(const OptimizerSpec& spec, std::uint64_t step, const Rates& rates) noexcept {
  const AdamOptions& o = spec.adam;
  const bool decoupled = spec.kind == OptimizerSpec::Kind::adamw;
  const auto t = static_cast<double>(step);
  const float decay = rates.decay ? o.weight_decay : 0;
  return {.lr = o.lr * rates.lr_scale,
          .beta1 = o.beta1,
          .beta2 = o.beta2,
          .eps = o.eps,
          .correction1 = static_cast<float>(1 - std::pow(static_cast<double>(o.beta1), t)),
          .correction2 = static_cast<float>(1 - std::pow(static_cast<double>(o.beta2), t)),
          .weight_decay = decoupled ? decay : 0,
          .l2 = decoupled ? 0 : decay,
          .l1 = rates.decay ? o.l1 : 0,
          .grad_scale = rates.scale,
          .grad_limit = rates.limit};
}

kernels::SgdStep sgd_step(const OptimizerSpec& spec, std::uint64_t step, const Rates& rates) noexcept {
  const SgdOptions& o = spec.sgd;
  return {.lr = o.lr * rates.lr_scale,
          .momentum = o.momentum,
          .dampening = o.dampening,
          .nesterov = o.nesterov,
          .first = step == 1,
          .l2 = rates.decay ? o.weight_decay : 0,
          .l1 = rates.decay ? o.l1 : 0,
          .grad_scale = rates.scale,
          .grad_limit = rates.limit};
}

}  // namespace

Optimizer::Optimizer(const OptimizerSpec& spec, const nn::Parameters& model) noexcept
    : spec_(spec), floats_(model.block().floats), ready_(check(spec)) {
  const int moments = spec.kind != OptimizerSpec::Kind::sgd ? 2 : spec.sgd.momentum > 0 ? 1 : 0;
  for (int i = 0; i < moments && ready_; ++i) {
    auto slab = Slab::create(floats_ * (short_moments() ? sizeof(std::uint16_t) : sizeof(float)));
    if (slab) {
      moments_[i] = std::move(*slab);
    } else {
      ready_ = fail(slab.error());
    }
  }
  if (ready_) ready_ = divide(model);
}

std::span<float> Optimizer::moment(int i) noexcept {
  if (i < 0 || i > 1 || short_moments()) return {};
  return {reinterpret_cast<float*>(moments_[i].data()), moments_[i].size() / sizeof(float)};
}

std::span<std::uint16_t> Optimizer::short_moment(int i) noexcept {
  if (i < 0 || i > 1 || !short_moments()) return {};
  return {reinterpret_cast<std::uint16_t*>(moments_[i].data()), moments_[i].size() / sizeof(std::uint16_t)};
}

// Cuts the slab where the treatment changes. Parameters lie in it in the order of the list; padding goes with the one before.
Status Optimizer::divide(const nn::Parameters& model) noexcept {
  ranges_.clear();
  if (spec_.group_count == 0) return ranges_.push({0, floats_, 1, true});
  std::size_t begin = 0;
  for (const nn::Parameter& parameter : model.parameters()) {
    if (!parameter.trainable) continue;
    const ParameterGroup* group = group_of(spec_, parameter);
    const float scale = group ? group->lr_scale : 1;
    const bool decay = group ? group->decay : true;
    begin = parameter.offset;
    if (!ranges_.empty()) ranges_.back().end = begin;
    if (!ranges_.empty() && ranges_.back().lr_scale == scale && ranges_.back().decay == decay) continue;
    if (auto pushed = ranges_.push({begin, floats_, scale, decay}); !pushed) return pushed;
  }
  if (!ranges_.empty()) ranges_.back().end = floats_;
  return {};
}

Status Optimizer::check_model(const nn::Parameters& model) const noexcept {
  if (!ready_) return ready_;
  if (auto good = check(spec_); !good) return good;
  return model.block().floats == floats_ ? Status{} : Status(foreign());
}

Status Optimizer::step(nn::Parameters& model, const Gradients& gradients) noexcept {
  if (!ready_) return ready_;
  auto slab = gradients.slab(model.block());
  if (!slab) return fail(slab.error());
  if (auto done = step(model, *slab, gradients.context(), gradients.scale, gradients.limit); !done) return done;
  model.apply(gradients.state_updates());
  return {};
}

Status Optimizer::step(nn::Parameters& model, std::span<const float> gradients, const Context& context, float scale,
                       float limit) noexcept {
  if (auto good = check_model(model); !good) return good;
  if (gradients.size() != floats_) return foreign();
  if (context.planning) return {};
  float* const parameters = model.trainable_slab().data();
  ++steps_;
  for (const Range& range : ranges_)
    update(context, range, range.begin, range.end, parameters, gradients.data() + range.begin, scale, limit);
  return {};
}

Status Optimizer::step(nn::Parameters& model, const Tensor& loss) noexcept {
  if (auto good = check_model(model); !good) return good;
  // The slab ends no tensor's life before the backward has read the last of them.
  auto* const parameters = const_cast<float*>(model.block().base);
  const std::uint64_t before = steps_++;
  bool changed = false;
  auto updates = backward_each(loss, model.block(), [&](const Leaf& leaf, const float* gradient) {
    const Range* range = ranges_.begin();
    while (range->end <= leaf.offset) ++range;
    update(*loss.context(), *range, leaf.offset, leaf.offset + leaf.count, parameters, gradient, 1, k_no_limit);
    changed = true;
  });
  if (changed)
    static_cast<void>(model.trainable_slab());
  else
    steps_ = before;  // an error, or planning
  if (!updates) return fail(updates.error());
  if (changed) model.apply(*updates);
  return {};
}

void Optimizer::update(const Context& context, const Range& range, std::size_t begin, std::size_t end,
                       float* parameters, const float* gradient, float scale, float limit) noexcept {
  float* const m = moment(0).data();
  float* const v = moment(1).data();
  const ShortMoments shorts{short_moment(0).data(), short_moment(1).data(), steps_};
  const Rates rates{range.lr_scale, range.decay, scale, limit};
  const auto adam = adam_step(spec_, steps_, rates);
  const auto sgd = sgd_step(spec_, steps_, rates);
  parallel_chunks(context, end - begin, k_piece, [&](std::size_t first, std::size_t last) {
    const std::size_t at = begin + first, count = last - first;
    float* const p = parameters + at;
    const float* const g = gradient + first;
    if (spec_.kind == OptimizerSpec::Kind::sgd) {
      kernels::training().sgd(p, g, m ? m + at : nullptr, count, sgd);
    } else if (shorts.m) {
      shorts.adam(p, g, at, count, adam);
    } else {
      kernels::training().adam(p, g, m + at, v + at, count, adam);
    }
  });
}

}  // namespace qorus
