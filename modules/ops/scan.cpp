// Bodies of qorus.ops:scan.
module qorus.ops;
import qorus.std;
import :rules;
import :loops;

namespace qorus {
namespace {

constexpr std::size_t k_columns = 64;  // running sums side by side, on the stack

struct CumsumSaved {
  GradRef x;
  ReduceSizes sizes;
  ops::CumsumOptions options;
};

// y (+)= running sums of x: [outer, reduced, inner] over the middle, some columns at a time.
void run_cumsum(const Context& context, const ReduceSizes& sizes, const ops::CumsumOptions& options, const float* x,
                const Into& y) noexcept {
  const std::size_t blocks = (sizes.inner + k_columns - 1) / k_columns;
  const std::size_t work = sizes.reduced * std::min(sizes.inner, k_columns);
  parallel_chunks(context, sizes.outer * blocks, row_grain(work), [&](std::size_t begin, std::size_t end) {
    for (std::size_t block = begin; block < end; ++block) {
      const std::size_t column = block % blocks * k_columns, columns = std::min(k_columns, sizes.inner - column);
      const std::size_t base = block / blocks * sizes.reduced * sizes.inner + column;
      double sums[k_columns] = {};
      for (std::size_t step = 0; step < sizes.reduced; ++step) {
        const std::size_t at = base + (options.reverse ? sizes.reduced - 1 - step : step) * sizes.inner;
        for (std::size_t i = 0; i < columns; ++i) {
          const double before = sums[i];
          sums[i] += static_cast<double>(x[at + i]);
          const auto value = static_cast<float>(options.exclusive ? before : sums[i]);
          y.data[at + i] = y.accumulate ? y.data[at + i] + value : value;
        }
      }
    }
  });
}

}  // namespace

void rules::cumsum(const void* saved, Grads& grads) noexcept {
  const auto& s = *static_cast<const CumsumSaved*>(saved);
  const ops::CumsumOptions back{.exclusive = s.options.exclusive, .reverse = !s.options.reverse};
  if (const Into dx = grads.into_out(s.x)) run_cumsum(grads.context(), s.sizes, back, grads.out(), dx);
}

namespace ops {

Result<Tensor> cumsum(const Operand& operand, int axis, const CumsumOptions& options) noexcept {
  auto context = float_context("cumsum", {&operand});
  if (!context) return fail(context.error());
  auto at = normal_axis(axis, operand->rank(), "cumsum");
  if (!at) return fail(at.error());
  auto x = contiguous(operand);
  if (!x) return x;
  ReduceSizes sizes{.reduced = static_cast<std::size_t>(x->dim(*at))};
  for (int d = 0; d < x->rank(); ++d) {
    if (d != *at) (d < *at ? sizes.outer : sizes.inner) *= static_cast<std::size_t>(x->dim(d));
  }
  auto y = Fresh::make(**context, x->shape());
  if (!y) return fail(y.error());
  run_cumsum(**context, sizes, options, x->f32(), {y->f32(), false});
  return std::move(*y).freeze(rule(RuleId::cumsum), {&*x}, CumsumSaved{x->grad_ref(), sizes, options});
}

}  // namespace ops
}  // namespace qorus
