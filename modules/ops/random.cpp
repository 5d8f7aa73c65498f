// Bodies of qorus.ops:random.
module;
#include "kernels/kernels.h"
module qorus.ops;
import qorus.std;
import :rules;
import :loops;

namespace qorus {
namespace {

struct DropoutSaved {
  GradRef x;
  std::uint64_t seed, first;
  std::size_t n;
  float p;
};

// y (+)= dropout of x; the mask is drawn again wherever it is needed.
void run_dropout(const Context& context, const DropoutSaved& s, const float* x, const Into& y) noexcept {
  parallel_elements(context, s.n, [&](std::size_t begin, std::size_t end) {
    kernels::active().dropout(x + begin, y.data + begin, end - begin, s.p, s.seed, s.first + begin, y.accumulate);
  });
}

}  // namespace

void rules::dropout(const void* saved, Grads& grads) noexcept {
  const auto& s = *static_cast<const DropoutSaved*>(saved);
  if (const Into dx = grads.into_out(s.x)) run_dropout(grads.context(), s, grads.out(), dx);
}

namespace ops {

Result<Tensor> dropout(const Operand& operand, float p) noexcept {
  auto context = float_context("dropout", {&operand});
  if (!context) return fail(context.error());
  if (!(p >= 0 && p < 1)) return fail(Errc::invalid_argument, "dropout", "needs 0 <= p < 1", operand->shape().dims());
  if (!(*context)->training || p == 0) return *operand;
  auto x = contiguous(operand);
  if (!x) return x;
  auto y = Fresh::make(**context, x->shape());
  if (!y) return fail(y.error());
  const DropoutSaved saved{x->grad_ref(), (*context)->seed, (*context)->draw(x->numel()), x->numel(), p};
  run_dropout(**context, saved, x->f32(), {y->f32(), false});
  return std::move(*y).freeze(rule(RuleId::dropout), {&*x}, saved);
}

Result<Tensor> uniform(Context& context, const Shape& shape, float low, float high) noexcept {
  auto y = Fresh::make(context, shape);
  if (!y) return fail(y.error());
  const std::uint64_t first = context.draw(shape.numel());
  parallel_elements(context, shape.numel(), [&](std::size_t begin, std::size_t end) {
    float* to = y->f32() + begin;
    kernels::active().random_uniform(to, end - begin, context.seed, first + begin);
    // A rounded sum may reach `high` itself, which is not part of the range.
    const float top = high > low ? std::nextafter(high, low) : high;
    for (std::size_t i = 0; i < end - begin; ++i) to[i] = std::min(low + (high - low) * to[i], high > low ? top : high);
  });
  return std::move(*y).freeze();
}

// Two normal numbers from two uniform ones. source: Box & Muller, A Note on the Generation of Random Normal Deviates, 1958.
Result<Tensor> normal(Context& context, const Shape& shape, float mean, float deviation) noexcept {
  auto y = Fresh::make(context, shape);
  if (!y) return fail(y.error());
  const std::uint64_t first = context.draw(shape.numel() + 1);  // an odd last element needs a partner
  parallel_elements(context, shape.numel(), [&](std::size_t begin, std::size_t end) {
    static_assert(k_grain % 64 == 0);
    float pair[64];
    for (std::size_t i = begin; i < end; i += 64) {
      const std::size_t n = std::min<std::size_t>(64, end - i);
      kernels::active().random_uniform(pair, n + n % 2, context.seed, first + i);
      for (std::size_t j = 0; j < n; ++j) {
        const double radius = std::sqrt(-2 * std::log(1 - static_cast<double>(pair[j & ~std::size_t{1}])));
        const double angle = 2 * std::numbers::pi * static_cast<double>(pair[j | 1]);
        y->f32()[i + j] = mean + deviation * static_cast<float>(radius * (j % 2 ? std::sin(angle) : std::cos(angle)));
      }
    }
  });
  return std::move(*y).freeze();
}

}  // namespace ops
}  // namespace qorus
