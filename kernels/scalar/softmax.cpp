// The definition of softmax, its logarithm and cross-entropy, row by row. Sums run over the columns in index order, in
// double.
#include <cmath>
#include <cstddef>
#include <cstdint>

#include "kernels/parts.h"

namespace qorus::kernels {
namespace {

// log of the sum of exp(scale x[c]), from the largest so that nothing overflows.
double log_sum_exp(const float* x, std::size_t cols, float scale = 1) {
  double largest = x[0] * scale;
  for (std::size_t c = 1; c < cols; ++c) largest = x[c] * scale > largest || std::isnan(x[c]) ? x[c] * scale : largest;
  double sum = 0;
  for (std::size_t c = 0; c < cols; ++c) sum += std::exp(x[c] * scale - largest);
  return largest + std::log(sum);
}

void put(float& out, double value, bool accumulate) { out = float(accumulate ? out + value : value); }

void softmax(const float* x, float* y, std::size_t rows, std::size_t cols, float scale) noexcept {
  for (std::size_t r = 0; r < rows; ++r, x += cols, y += cols) {
    const double total = log_sum_exp(x, cols, scale);
    for (std::size_t c = 0; c < cols; ++c) y[c] = float(std::exp(x[c] * scale - total));
  }
}

void softmax_bwd(const float* y, const float* dy, float* dx, std::size_t rows, std::size_t cols, float scale,
                 bool accumulate) noexcept {
  for (std::size_t r = 0; r < rows; ++r, y += cols, dy += cols, dx += cols) {
    double dot = 0;
    for (std::size_t c = 0; c < cols; ++c) dot += double(dy[c]) * y[c];
    for (std::size_t c = 0; c < cols; ++c) put(dx[c], y[c] * (dy[c] - dot) * scale, accumulate);
  }
}

void log_softmax(const float* x, float* y, std::size_t rows, std::size_t cols) noexcept {
  for (std::size_t r = 0; r < rows; ++r, x += cols, y += cols) {
    const double total = log_sum_exp(x, cols);
    for (std::size_t c = 0; c < cols; ++c) y[c] = float(x[c] - total);
  }
}

void log_softmax_bwd(const float* y, const float* dy, float* dx, std::size_t rows, std::size_t cols,
                     bool accumulate) noexcept {
  for (std::size_t r = 0; r < rows; ++r, y += cols, dy += cols, dx += cols) {
    double sum = 0;
    for (std::size_t c = 0; c < cols; ++c) sum += dy[c];
    for (std::size_t c = 0; c < cols; ++c) put(dx[c], dy[c] - std::exp(double(y[c])) * sum, accumulate);
  }
}

void cross_entropy(const float* x, const std::int32_t* target, float* loss, float* log_sum, std::size_t rows,
                   std::size_t cols, float smoothing, std::int32_t ignore) noexcept {
  for (std::size_t r = 0; r < rows; ++r, x += cols) {
    const double total = log_sum_exp(x, cols);
    log_sum[r] = float(total);
    loss[r] = 0;
    if (target[r] == ignore) continue;
    double value = -(1 - double(smoothing)) * (x[target[r]] - total);
    if (smoothing != 0)  // otherwise 0 times an infinite log p would be a NaN
      for (std::size_t c = 0; c < cols; ++c) value -= double(smoothing) / double(cols) * (x[c] - total);
    loss[r] = float(value);
  }
}

void cross_entropy_bwd(const float* x, const std::int32_t* target, const float* log_sum, const float* dloss,
                       std::size_t dloss_step, float* dx, std::size_t rows, std::size_t cols, float smoothing,
                       std::int32_t ignore, bool accumulate) noexcept {
  for (std::size_t r = 0; r < rows; ++r, x += cols, dx += cols)
    for (std::size_t c = 0; c < cols; ++c) {
      const double one_hot = target[r] == std::int32_t(c) ? 1 : 0;
      const double p = std::exp(double(x[c]) - log_sum[r]);
      const double slope = p - (1 - double(smoothing)) * one_hot - double(smoothing) / double(cols);
      put(dx[c], target[r] == ignore ? 0 : dloss[r * dloss_step] * slope, accumulate);
    }
}

}  // namespace

extern constinit const SoftmaxPart softmax_scalar{softmax, log_softmax, cross_entropy};
extern constinit const SoftmaxTraining softmax_training_scalar{softmax_bwd, log_softmax_bwd, cross_entropy_bwd};

}  // namespace qorus::kernels
