// Bodies of qorus.ops:channel_norm. Both norms are a mean and a scale for each population (a channel of all examples, or a group of
// channels of one), then an affine map of each plane; so are their gradients.
module;
#include "kernels/kernels.h"
module qorus.ops;
import qorus.std;
import :rules;
import :loops;

namespace qorus {
namespace {

struct Sizes {
  std::size_t batch, channels, places;
  std::size_t
      groups;  // of channels, with statistics for each example; 0: one population for each channel of all examples
  [[nodiscard]] std::size_t populations() const noexcept { return groups ? batch * groups : channels; }
  [[nodiscard]] std::size_t population(std::size_t n, std::size_t c) const noexcept {
    return groups ? n * groups + c / (channels / groups) : c;
  }
  // Elements of one.
  [[nodiscard]] std::size_t count() const noexcept { return groups ? channels / groups * places : batch * places; }
};

struct ChannelSaved {
  GradRef x, weight, bias;
  const float *input, *weights;
  const float* relu_of;      // the result, or null without a relu
  const float *mean, *rstd;  // of each population
  Sizes sizes;
  bool constant;  // mean and rstd do not depend on x
  // What the running statistics are to become: places in a model, and the batch's values. Null for none.
  const float *running_mean, *running_var, *batch_var;
  float momentum;
};

float inverse_root(float variance, float eps) noexcept {
  return static_cast<float>(1 / std::sqrt(static_cast<double>(variance) + static_cast<double>(eps)));
}

// y = (x - mean) rstd weight + bias, plane by plane.
void map_planes(const Context& context, const ChannelSaved& s, const float* bias, float* y) noexcept {
  const Sizes& z = s.sizes;
  parallel_chunks(context, z.places ? z.batch * z.channels : 0, row_grain(z.places),
                  [&](std::size_t begin, std::size_t end) {
                    for (std::size_t i = begin; i < end; ++i) {
                      const std::size_t c = i % z.channels, p = z.population(i / z.channels, c);
                      kernels::active().affine(s.input + i * z.places, y + i * z.places, z.places, s.mean[p],
                                               s.rstd[p] * s.weights[c], bias[c], s.relu_of != nullptr);
                    }
                  });
}

// Mean, variance and rstd of each population, of the elements at hand.
void measure(const Context& context, const Sizes& z, const float* x, float eps, float* mean, float* variance,
             float* rstd) noexcept {
  parallel_chunks(context, z.count() ? z.populations() : 0, row_grain(z.count()),
                  [&](std::size_t begin, std::size_t end) {
                    for (std::size_t p = begin; p < end; ++p) {
                      if (z.groups)
                        kernels::active().moments(x + p * z.count(), 1, z.count(), 0, mean + p, variance + p);
                      else
                        kernels::active().moments(x + p * z.places, z.batch, z.places, z.channels * z.places, mean + p,
                                                  variance + p);
                      rstd[p] = inverse_root(variance[p], eps);
                    }
                  });
}

Result<Sizes> sizes_of(const char* op, const Tensor& x, const Tensor& weight, const Tensor& bias,
                       std::int64_t groups) noexcept {
  if (x.rank() < 2 || weight.shape() != Shape{x.dim(1)} || bias.shape() != weight.shape()) {
    return fail(Errc::invalid_size, op, "x: [batch, channels, ...] and weight, bias: [channels] must agree on channels",
                x.shape().dims(), weight.shape().dims());
  }
  if (groups > 0 && x.dim(1) % groups != 0)
    return fail(Errc::invalid_argument, op, "the channels must be a multiple of the groups", x.shape().dims());
  const auto batch = static_cast<std::size_t>(x.dim(0)), channels = static_cast<std::size_t>(x.dim(1));
  std::size_t places = 1;
  for (int d = 2; d < x.rank(); ++d) places *= static_cast<std::size_t>(x.dim(d));
  return Sizes{batch, channels, places, static_cast<std::size_t>(groups)};
}

// Whether the activation goes into the pass; the others follow it.
bool fuses(Activation activation) noexcept { return activation == Activation::relu; }
Activation after(Activation activation) noexcept { return fuses(activation) ? Activation::none : activation; }

struct Statistics {
  float *mean, *variance, *rstd;
};
Result<Statistics> make_statistics(Context& context, std::size_t populations) noexcept {
  const auto count = static_cast<std::int64_t>(populations);
  auto all = Fresh::make(context, Shape{3, count});
  if (!all) return fail(all.error());
  float* first = all->f32();
  return Statistics{first, first + count, first + 2 * count};
}

// The sums that every gradient here is made of, by example and channel (by channel where that is the population): sum of d, and of
// d (x - mean).
void sum_planes(const Context& context, const ChannelSaved& s, const float* dy, float* sum_d, float* sum_dx) noexcept {
  const Sizes& z = s.sizes;
  const std::size_t segments = z.groups ? 1 : z.batch, all = z.groups ? z.batch * z.channels : z.channels;
  parallel_chunks(context, all, row_grain(segments * z.places), [&](std::size_t begin, std::size_t end) {
    for (std::size_t i = begin; i < end; ++i) {
      const std::size_t at = i * z.places, p = z.groups ? z.population(i / z.channels, i % z.channels) : i;
      kernels::training().affine_sums(s.input + at, dy + at, s.relu_of ? s.relu_of + at : nullptr, segments, z.places,
                                      z.channels * z.places, s.mean[p], sum_d + i, sum_dx + i);
    }
  });
}

// dweight and dbias: over the examples, in order.
void add_vectors(const ChannelSaved& s, const float* sum_d, const float* sum_dx, const Into& dw,
                 const Into& db) noexcept {
  const Sizes& z = s.sizes;
  for (std::size_t c = 0; c < z.channels; ++c) {
    double w = 0, b = 0;
    for (std::size_t n = 0; n < (z.groups ? z.batch : 1); ++n) {
      const std::size_t i = n * z.channels + c;
      w += static_cast<double>(sum_dx[i]) * static_cast<double>(s.rstd[z.population(n, c)]);
      b += static_cast<double>(sum_d[i]);
    }
    if (dw) dw.data[c] = static_cast<float>(w) + (dw.accumulate ? dw.data[c] : 0);
    if (db) db.data[c] = static_cast<float>(b) + (db.accumulate ? db.data[c] : 0);
  }
}

// For each population, b and c of dx = weight rstd d + b (x - mean) + c.
void solve(const ChannelSaved& s, const float* sum_d, const float* sum_dx, float* b, float* c) noexcept {
  const Sizes& z = s.sizes;
  std::memset(b, 0, z.populations() * sizeof(float));
  std::memset(c, 0, z.populations() * sizeof(float));
  if (s.constant) return;
  const float count = static_cast<float>(z.count());
  for (std::size_t i = 0; i < (z.groups ? z.batch * z.channels : z.channels); ++i) {
    const std::size_t channel = i % z.channels, p = z.population(i / z.channels, channel);
    const float r = s.rstd[p], scale = -s.weights[channel] * r / count;
    b[p] += scale * r * r * sum_dx[i];
    c[p] += scale * sum_d[i];
  }
}

}  // namespace

void rules::channel_norm(const void* saved, Grads& grads) noexcept {
  const auto& s = *static_cast<const ChannelSaved*>(saved);
  const Sizes& z = s.sizes;
  if (s.running_mean) {
    grads.update_state({s.running_mean, s.mean, z.channels, 1 - s.momentum, s.momentum});
    const auto count = static_cast<float>(z.count());
    grads.update_state({s.running_var, s.batch_var, z.channels, 1 - s.momentum, s.momentum * count / (count - 1)});
  }
  const Into dx = grads.into(s.x), dw = grads.into(s.weight), db = grads.into(s.bias);
  const std::size_t sums = z.groups ? z.batch * z.channels : z.channels;
  float* sum_d = grads.temporary(2 * (sums + z.populations()));
  if (!sum_d) return;
  float *sum_dx = sum_d + sums, *b = sum_dx + sums, *c = b + z.populations();
  Context& context = grads.context();
  sum_planes(context, s, grads.out(), sum_d, sum_dx);
  parallel(context, 1, [&](std::uint32_t, int) {
    add_vectors(s, sum_d, sum_dx, dw, db);
    solve(s, sum_d, sum_dx, b, c);
  });
  if (!dx) return;
  const float* dy = grads.out();
  parallel_chunks(
      context, z.places ? z.batch * z.channels : 0, row_grain(z.places), [&](std::size_t begin, std::size_t end) {
        for (std::size_t i = begin; i < end; ++i) {
          const std::size_t channel = i % z.channels, p = z.population(i / z.channels, channel), at = i * z.places;
          kernels::training().affine_bwd(s.input + at, dy + at, s.relu_of ? s.relu_of + at : nullptr, dx.data + at,
                                         z.places, s.mean[p], s.weights[channel] * s.rstd[p], b[p], c[p],
                                         dx.accumulate);
        }
      });
}

namespace ops {

Result<Tensor> batch_norm(const Operand& x, const Operand& weight, const Operand& bias, const Operand& running_mean,
                          const Operand& running_var, const BatchNormOptions& options) noexcept {
  constexpr const char* op = "batch_norm";
  auto context = float_context(op, {&x, &weight, &bias, &running_mean, &running_var});
  if (!context) return fail(context.error());
  if (!(options.eps > 0)) return fail(Errc::invalid_argument, op, "eps must be positive");
  auto sizes = sizes_of(op, *x, *weight, *bias, 0);
  if (!sizes) return fail(sizes.error());
  if (running_mean->shape() != weight->shape() || running_var->shape() != weight->shape())
    return fail(Errc::invalid_size, op, "the running statistics are of another size", running_mean->shape().dims(),
                weight->shape().dims());
  const bool train = (*context)->training && !options.frozen;
  if (train && sizes->count() == 1)
    return fail(Errc::invalid_size, op, "one element has no variance to train with", x->shape().dims());
  auto in = contiguous(placed(x, **context)), w = contiguous(placed(weight, **context)),
       b = contiguous(placed(bias, **context)), mean = contiguous(placed(running_mean, **context)),
       var = contiguous(placed(running_var, **context));
  for (const auto* operand : {&in, &w, &b, &mean, &var})
    if (!*operand) return *operand;
  auto y = Fresh::make(**context, in->shape());
  if (!y) return fail(y.error());
  auto own = make_statistics(**context, sizes->channels);
  if (!own) return fail(own.error());
  if (train) {
    measure(**context, *sizes, in->f32(), options.eps, own->mean, own->variance, own->rstd);
  } else {
    parallel(**context, 1, [&](std::uint32_t, int) {
      for (std::size_t c = 0; c < sizes->channels; ++c) {
        own->mean[c] = mean->f32()[c];
        own->rstd[c] = inverse_root(var->f32()[c], options.eps);
      }
    });
  }
  const bool updates = train && sizes->count() > 1;
  const ChannelSaved saved{in->grad_ref(),
                           w->grad_ref(),
                           b->grad_ref(),
                           in->f32(),
                           w->f32(),
                           fuses(options.activation) ? y->f32() : nullptr,
                           own->mean,
                           own->rstd,
                           *sizes,
                           !train,
                           updates ? mean->f32() : nullptr,
                           updates ? var->f32() : nullptr,
                           own->variance,
                           options.momentum};
  map_planes(**context, saved, b->f32(), y->f32());
  return ops::activate(std::move(*y).freeze(rule(RuleId::channel_norm), {&*in, &*w, &*b}, saved),
                       after(options.activation));
}

Result<Tensor> group_norm(const Operand& x, const Operand& weight, const Operand& bias,
                          const GroupNormOptions& options) noexcept {
  constexpr const char* op = "group_norm";
  auto context = float_context(op, {&x, &weight, &bias});
  if (!context) return fail(context.error());
  if (!(options.eps > 0) || options.groups < 1)
    return fail(Errc::invalid_argument, op, "eps must be positive, and groups at least 1");
  auto sizes = sizes_of(op, *x, *weight, *bias, options.groups);
  if (!sizes) return fail(sizes.error());
  auto in = contiguous(placed(x, **context)), w = contiguous(placed(weight, **context)),
       b = contiguous(placed(bias, **context));
  for (const auto* operand : {&in, &w, &b})
    if (!*operand) return *operand;
  auto y = Fresh::make(**context, in->shape());
  if (!y) return fail(y.error());
  auto own = make_statistics(**context, sizes->populations());
  if (!own) return fail(own.error());
  measure(**context, *sizes, in->f32(), options.eps, own->mean, own->variance, own->rstd);
  const ChannelSaved saved{in->grad_ref(), w->grad_ref(),
                           b->grad_ref(),  in->f32(),
                           w->f32(),       fuses(options.activation) ? y->f32() : nullptr,
                           own->mean,      own->rstd,
                           *sizes,         false,
                           nullptr,        nullptr,
                           nullptr,        0};
  map_planes(**context, saved, b->f32(), y->f32());
  return ops::activate(std::move(*y).freeze(rule(RuleId::channel_norm), {&*in, &*w, &*b}, saved),
                       after(options.activation));
}

}  // namespace ops
}  // namespace qorus
