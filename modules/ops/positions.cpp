// Bodies of qorus.ops:positions.
module;
#include "kernels/kernels.h"
module qorus.ops;
import qorus.std;

namespace qorus::ops {
namespace {

// out[p, i] = angle (first + p) rate_i plus a phase, brought into [-pi, pi] in double precision before it is rounded.
template <class Rate>
void fill_angles(float* out, std::size_t seq, std::size_t cols, std::int64_t first, const Rate& rate) noexcept {
  constexpr double turn = 2 * std::numbers::pi;
  for (std::size_t i = 0; i < cols; ++i) {
    const auto [speed, phase] = rate(i);
    for (std::size_t p = 0; p < seq; ++p) {
      const double angle = static_cast<double>(first + static_cast<std::int64_t>(p)) * speed + phase;
      out[p * cols + i] = static_cast<float>(angle - turn * std::nearbyint(angle / turn));
    }
  }
}

}  // namespace

Result<RopeTables> rope_tables(Context& context, std::int64_t seq, std::int64_t half, float base,
                               std::int64_t first) noexcept {
  if (!(base > 0) || half < 0) return fail(Errc::invalid_argument, "rope_tables", "the base must be positive");
  auto cosine = Fresh::make(context, Shape{seq, half}), sine = Fresh::make(context, Shape{seq, half});
  if (!cosine || !sine) return fail(!cosine ? cosine.error() : sine.error());
  const auto rows = static_cast<std::size_t>(seq), cols = static_cast<std::size_t>(half);
  if (!context.planning) {
    fill_angles(sine->f32(), rows, cols, first, [&](std::size_t i) {
      return std::pair{std::pow(static_cast<double>(base), -static_cast<double>(i) / static_cast<double>(half)), 0.0};
    });
    kernels::active().unary(kernels::Unary::cos, sine->f32(), cosine->f32(), rows * cols, 0);
    kernels::active().unary(kernels::Unary::sin, sine->f32(), sine->f32(), rows * cols, 0);
  }
  return RopeTables{std::move(*cosine).freeze(), std::move(*sine).freeze()};
}

Result<Tensor> sinusoids(Context& context, std::int64_t seq, std::int64_t d_model, std::int64_t first) noexcept {
  auto table = Fresh::make(context, Shape{seq, d_model});
  if (!table) return fail(table.error());
  const auto rows = static_cast<std::size_t>(seq), cols = static_cast<std::size_t>(d_model);
  if (!context.planning) {
    fill_angles(table->f32(), rows, cols, first, [&](std::size_t i) {
      const double pair = static_cast<double>(i & ~std::size_t{1}) / static_cast<double>(d_model);
      return std::pair{std::pow(10000.0, -pair), i % 2 ? std::numbers::pi / 2 : 0.0};
    });
    kernels::active().unary(kernels::Unary::sin, table->f32(), table->f32(), rows * cols, 0);
  }
  return std::move(*table).freeze();
}

Result<Tensor> alibi_slopes(Context& context, std::int64_t heads) noexcept {
  auto slopes = Fresh::make(context, Shape{heads});
  if (!slopes) return fail(slopes.error());
  std::int64_t power = 1;
  while (power * 2 <= heads) power *= 2;
  for (std::int64_t h = 0; h < heads && !context.planning; ++h) {
    const double step = h < power ? static_cast<double>(h + 1) / static_cast<double>(power)
                                  : static_cast<double>(2 * (h - power) + 1) / static_cast<double>(2 * power);
    slopes->f32()[h] = static_cast<float>(std::exp2(-8 * step));
  }
  return std::move(*slopes).freeze();
}

Result<Tensor> counting(Context& context, std::int64_t count, std::int64_t first) noexcept {
  auto numbers = Fresh::make(context, Shape{count}, DType::i32);
  if (!numbers) return fail(numbers.error());
  for (std::int64_t i = 0; i < count && !context.planning; ++i)
    numbers->i32()[i] = static_cast<std::int32_t>(first + i);
  return std::move(*numbers).freeze();
}

}  // namespace qorus::ops
