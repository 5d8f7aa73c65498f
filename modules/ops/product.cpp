// Bodies of qorus.ops:product.
module;
#include "kernels/kernels.h"
module qorus.ops;
import qorus.std;
import :product;

namespace qorus {
namespace {

using kernels::Gemm;
using kernels::GemmPlan;

constexpr std::size_t k_small = std::size_t{1} << 21;  // multiply-adds of a product that one worker should do whole

// Product i of the batch.
Gemm at(const Gemm& first, const Batch& batch, std::size_t i) noexcept {
  Gemm gemm = first;
  bool again = false;  // c was written by an earlier product
  for (int d = batch.shape.rank() - 1; d >= 0; --d) {
    const auto extent = static_cast<std::size_t>(batch.shape[d]);
    const auto index = static_cast<std::int64_t>(i % extent);
    i /= extent;
    gemm.a += index * batch.a[d];
    gemm.b += index * batch.b[d];
    gemm.c += index * batch.c[d];
    again = again || (batch.c[d] == 0 && index > 0);
  }
  gemm.accumulate = first.accumulate || again;
  return gemm;
}

bool adds_up(const Batch& batch) noexcept {
  for (int d = 0; d < batch.shape.rank(); ++d) {
    if (batch.c[d] == 0 && batch.shape[d] > 1) return true;
  }
  return false;
}

// Sums of no products, where c has elements all the same: zeros.
Status clear(Context& context, const Gemm& gemm, const Batch& batch) noexcept {
  std::array<std::int64_t, k_max_rank> extents{};
  for (int d = 0; d < batch.shape.rank(); ++d) extents[d] = batch.c[d] == 0 ? 1 : batch.shape[d];
  Batch kept = batch;
  kept.shape = Shape(std::span<const std::int64_t>(extents.data(), static_cast<std::size_t>(batch.shape.rank())));
  Gemm none = gemm;
  none.k = 0;
  for (std::size_t i = 0; i < kept.shape.numel(); ++i) {
    if (auto done = run_product(context, at(none, kept, i)); !done) return done;
  }
  return {};
}

// How many steps of k to take at a time. A weight's gradient, A^T B, is summed over the rows in runs whose copies of A stay small: c, which
// is passed once for each, goes on where the run before left it, so that the bits are those of one run.
std::size_t steps_of(const Gemm& g) noexcept {
  constexpr std::size_t k_copy = std::size_t{1} << 18;  // floats
  constexpr std::size_t k_least = 384;                  // steps, a multiple of what the kernels take
  const bool transposed = g.a_row == 1 && g.a_col != 1,
             plain = !g.bias && !g.pre && !g.residual && g.act == kernels::Act::none;
  if (!transposed || !plain || g.b_packed || g.k < 2 * g.n) return g.k;
  return std::max(k_least, k_copy / g.m / k_least * k_least);
}

Status run_whole(Context& context, const Gemm& gemm) noexcept {
  const kernels::Table& table = kernels::active();
  const GemmPlan plan = table.gemm_plan(gemm);
  const std::size_t mark = context.scratch->mark(), worker_bytes = align_up(plan.worker_bytes);
  auto scratch = context.scratch->take(align_up(plan.shared_bytes) +
                                       worker_bytes * static_cast<std::size_t>(context.executor.width));
  if (!scratch) return fail(scratch.error());
  std::byte* own = scratch->data + align_up(plan.shared_bytes);
  for (std::uint32_t phase = 0; phase < plan.phases; ++phase) {
    parallel(context, plan.tasks[phase], [&](std::uint32_t task, int worker) {
      table.gemm_task(gemm, plan, phase, task, scratch->data, own + worker_bytes * static_cast<std::size_t>(worker));
    });
  }
  context.scratch->shrink_to(mark);
  return {};
}

}  // namespace

Status run_product(Context& context, const Gemm& gemm) noexcept {
  if (gemm.m == 0 || gemm.n == 0) return {};
  return each_run(gemm.k, steps_of(gemm), [&](std::size_t first, std::size_t count) {
    Gemm part = gemm;
    part.a = past(gemm.a, static_cast<std::ptrdiff_t>(first) * gemm.a_col);
    part.b = past(gemm.b, static_cast<std::ptrdiff_t>(first) * gemm.b_row);
    part.k = count;
    part.accumulate = gemm.accumulate || first > 0;
    return run_whole(context, part);
  });
}

std::size_t alone_bytes(const Gemm& gemm) noexcept {
  if (gemm.m == 0 || gemm.n == 0) return 0;
  const GemmPlan plan = kernels::active().gemm_plan(gemm);
  return align_up(plan.shared_bytes) + align_up(plan.worker_bytes);
}

void run_alone(const Gemm& gemm, void* scratch) noexcept {
  if (gemm.m == 0 || gemm.n == 0) return;
  const kernels::Table& table = kernels::active();
  const GemmPlan plan = table.gemm_plan(gemm);
  auto* shared = static_cast<std::byte*>(scratch);
  for (std::uint32_t phase = 0; phase < plan.phases; ++phase) {
    for (std::uint32_t task = 0; task < plan.tasks[phase]; ++task)
      table.gemm_task(gemm, plan, phase, task, shared, shared + align_up(plan.shared_bytes));
  }
}

Status run_products(Context& context, const Gemm& gemm, const Batch& batch) noexcept {
  const std::size_t count = batch.shape.numel();
  if (gemm.m == 0 || gemm.n == 0) return {};
  if (count == 0) return gemm.accumulate ? Status{} : clear(context, gemm, batch);
  if (count == 1 || adds_up(batch) || gemm.m * gemm.n * gemm.k > k_small) {
    for (std::size_t i = 0; i < count; ++i) {
      if (auto done = run_product(context, at(gemm, batch, i)); !done) return done;
    }
    return {};
  }
  const kernels::Table& table = kernels::active();
  const GemmPlan plan = table.gemm_plan(gemm);
  const std::size_t mark = context.scratch->mark(), shared = align_up(plan.shared_bytes),
                    each = shared + align_up(plan.worker_bytes);
  auto scratch = context.scratch->take(each * static_cast<std::size_t>(context.executor.width));
  if (!scratch) return fail(scratch.error());
  const std::size_t grain = std::max<std::size_t>(1, k_small / 8 / std::max<std::size_t>(1, gemm.m * gemm.n * gemm.k));
  parallel(context, static_cast<std::uint32_t>((count + grain - 1) / grain), [&](std::uint32_t piece, int worker) {
    std::byte* own = scratch->data + each * static_cast<std::size_t>(worker);
    for (std::size_t i = piece * grain; i < std::min(count, (piece + 1) * grain); ++i) {
      run_alone(at(gemm, batch, i), own);
    }
  });
  context.scratch->shrink_to(mark);
  return {};
}

}  // namespace qorus
