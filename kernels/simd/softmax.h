// Softmax, its logarithm and cross-entropy over the vector type. Include a vec.h first.
// Where only a row's sum is wanted, the row is walked in runs that stay in the first cache: the largest so far is known
// before a run's exponentials are summed, so each element is read from memory once and has one exp. Sums: fold's four
// accumulators per run, runs added in order.
#pragma once
#include <cstddef>
#include <cstdint>
#include "kernels/parts.h"
#include "kernels/simd/each.h"
#include "kernels/simd/math.h"

namespace qorus::kernels {
namespace {

constexpr auto k_add = [](auto a, auto b) { return a + b; };

// The largest of scale x[i], NaNs aside: they show in the sum.
QORUS_INLINE float row_largest(const float* x, std::size_t n, float scale = 1) {
  return largest(fold(
      n, set(-k_infinity), [&](std::size_t i, auto part) { return load(x + i, part) * set(scale); },
      [](F32 top, F32 v) { return max(v, top); }));
}

struct ExpSum {
  float top;      // the largest element
  float log_sum;  // log of the sum of exp(x - top)
};
QORUS_INLINE ExpSum exp_sum(const float* x, std::size_t cols) {
  constexpr std::size_t run = 2048;  // 8 KiB
  float top = -k_infinity, total = 0;
  for (std::size_t from = 0; from < cols; from += run) {
    const std::size_t n = cols - from < run ? cols - from : run;
    const float here = row_largest(x + from, n);
    if (here > top) {
      total *= first(exp_below(set(top - here)));
      top = here;
    }
    const F32 origin = set(top == -k_infinity ? 0 : top);  // -infinity alone so far: exp gives 0, not NaN
    total += sum(fold(
        n, set(0.0f), [&](std::size_t i, auto part) { return exp_below(load(x + from + i, part) - origin); }, k_add));
  }
  return {top, top == -k_infinity ? __builtin_nanf("") : first(log(set(total)))};
}

// The exponentials of a row of up to 4096 wait in an array of their own, so that y is written once.
void softmax(const float* x, float* y, std::size_t rows, std::size_t cols, float scale) noexcept {
  constexpr std::size_t longest = 4096;
  alignas(64) float buffer[longest];
  const Write how = how_to_write(rows * cols, cols <= longest && x != y);
  for (std::size_t r = 0; r < rows; ++r, x += cols, y += cols) {
    float* const powers = cols <= longest ? buffer : y;
    const F32 top = set(row_largest(x, cols, scale));
    const auto power = [&](std::size_t i, auto part) {
      const F32 e = exp_below(load(x + i, part) * set(scale) - top);
      store(powers + i, e, part);
      return e;
    };
    const F32 share = set(1 / sum(fold(cols, set(0.0f), power, k_add)));
    put_row(y, cols, how, [&](std::size_t i, auto part) { return load(powers + i, part) * share; });
  }
  if (how == Write::streamed) end_stream();
}

void softmax_bwd(const float* y, const float* dy, float* dx, std::size_t rows, std::size_t cols, float scale,
                 bool accumulate) noexcept {
  const Write how = accumulate ? Write::add : how_to_write(rows * cols, dx != y && dx != dy);
  for (std::size_t r = 0; r < rows; ++r, y += cols, dy += cols, dx += cols) {
    const auto product = [&](std::size_t i, auto part) { return load(dy + i, part) * load(y + i, part); };
    const F32 dot = set(sum(fold(cols, set(0.0f), product, k_add)));
    put_row(dx, cols, how,
            [&](std::size_t i, auto part) { return load(y + i, part) * (load(dy + i, part) - dot) * set(scale); });
  }
  if (how == Write::streamed) end_stream();
}

void log_softmax(const float* x, float* y, std::size_t rows, std::size_t cols) noexcept {
  const Write how = how_to_write(rows * cols, x != y);
  for (std::size_t r = 0; r < rows; ++r, x += cols, y += cols) {
    const ExpSum s = exp_sum(x, cols);
    const F32 top = set(s.top), log_sum = set(s.log_sum);
    put_row(y, cols, how, [&](std::size_t i, auto part) { return load(x + i, part) - top - log_sum; });
  }
  if (how == Write::streamed) end_stream();
}

void log_softmax_bwd(const float* y, const float* dy, float* dx, std::size_t rows, std::size_t cols,
                     bool accumulate) noexcept {
  const Write how = accumulate ? Write::add : how_to_write(rows * cols, dx != y && dx != dy);
  for (std::size_t r = 0; r < rows; ++r, y += cols, dy += cols, dx += cols) {
    const F32 all =
        set(sum(fold(cols, set(0.0f), [&](std::size_t i, auto part) { return load(dy + i, part); }, k_add)));
    put_row(dx, cols, how,
            [&](std::size_t i, auto part) { return fnma(exp_below(load(y + i, part)), all, load(dy + i, part)); });
  }
  if (how == Write::streamed) end_stream();
}

void cross_entropy(const float* x, const std::int32_t* target, float* loss, float* log_sum, std::size_t rows,
                   std::size_t cols, float smoothing, std::int32_t ignore) noexcept {
  for (std::size_t r = 0; r < rows; ++r, x += cols) {
    const ExpSum s = exp_sum(x, cols);
    log_sum[r] = s.top + s.log_sum;
    loss[r] = 0;
    if (target[r] == ignore) continue;
    double value = (1 - double(smoothing)) * (double(s.top) - x[target[r]] + s.log_sum);
    if (smoothing != 0) {  // otherwise 0 times an infinite log p would be a NaN
      const double mean = total(cols, [&](std::size_t i, auto part) { return load(x + i, part); }) / double(cols);
      value += double(smoothing) * (s.top - mean + s.log_sum);
    }
    loss[r] = float(value);
  }
}

void cross_entropy_bwd(const float* x, const std::int32_t* target, const float* log_sum, const float* dloss,
                       std::size_t dloss_step, float* dx, std::size_t rows, std::size_t cols, float smoothing,
                       std::int32_t ignore, bool accumulate) noexcept {
  const Write how = accumulate ? Write::add : how_to_write(rows * cols, dx != x);
  for (std::size_t r = 0; r < rows; ++r, x += cols, dx += cols) {
    if (target[r] == ignore) {
      if (!accumulate) each4(cols, [&](std::size_t i, auto part) { store(dx + i, set(0.0f), part); });
      continue;
    }
    const float slope = dloss[r * dloss_step];
    const F32 all = set(log_sum[r]), factor = set(slope), rest = set(slope * smoothing / float(cols));
    put_row(dx, cols, how,
            [&](std::size_t i, auto part) { return fms(exp_below(load(x + i, part) - all), factor, rest); });
    dx[target[r]] -= slope * (1 - smoothing);
  }
  if (how == Write::streamed) end_stream();
}

}  // namespace
}  // namespace qorus::kernels
