// The definition of layer norm and RMS norm, row by row. Sums run over the columns in index order, in double.
#include <cmath>
#include <cstddef>

#include "kernels/parts.h"

namespace qorus::kernels {
namespace {

double at(const float* w, std::size_t c, double otherwise) { return w ? w[c] : otherwise; }
void put(float& out, double value, bool accumulate) { out = float(accumulate ? out + value : value); }

void layer_norm(const float* x, const float* w, const float* b, float* y, float* mean, float* rstd, std::size_t rows,
                std::size_t cols, float eps) noexcept {
  for (std::size_t r = 0; r < rows; ++r, x += cols, y += cols) {
    double sum = 0, squares = 0;
    for (std::size_t c = 0; c < cols; ++c) sum += x[c];
    const double center = sum / double(cols);
    for (std::size_t c = 0; c < cols; ++c) squares += (x[c] - center) * (x[c] - center);
    const double scale = 1 / std::sqrt(squares / double(cols) + eps);
    for (std::size_t c = 0; c < cols; ++c) y[c] = float((x[c] - center) * scale * at(w, c, 1) + at(b, c, 0));
    if (mean) mean[r] = float(center);
    if (rstd) rstd[r] = float(scale);
  }
}

// With z = (x - mean) rstd and g = dy w:  dx = rstd (g - mean(g) - z mean(g z)),  dw += dy z,  db += dy.
void layer_norm_bwd(const float* x, const float* w, const float* mean, const float* rstd, const float* dy, float* dx,
                    float* dw, float* db, std::size_t rows, std::size_t cols, std::size_t, bool accumulate) noexcept {
  for (std::size_t r = 0; r < rows; ++r, x += cols, dy += cols, dx += cols) {
    const auto z = [&](std::size_t c) { return (double(x[c]) - mean[r]) * rstd[r]; };
    double sum_g = 0, sum_gz = 0;
    for (std::size_t c = 0; c < cols; ++c) {
      sum_g += dy[c] * at(w, c, 1);
      sum_gz += dy[c] * at(w, c, 1) * z(c);
      if (dw) dw[c] = float(dw[c] + dy[c] * z(c));
      if (db) db[c] += dy[c];
    }
    for (std::size_t c = 0; c < cols; ++c)
      put(dx[c], rstd[r] * (dy[c] * at(w, c, 1) - sum_g / double(cols) - z(c) * sum_gz / double(cols)), accumulate);
  }
}

void rms_norm(const float* x, const float* w, float* y, float* rstd, std::size_t rows, std::size_t cols,
              float eps) noexcept {
  for (std::size_t r = 0; r < rows; ++r, x += cols, y += cols) {
    double squares = 0;
    for (std::size_t c = 0; c < cols; ++c) squares += double(x[c]) * x[c];
    const double scale = 1 / std::sqrt(squares / double(cols) + eps);
    for (std::size_t c = 0; c < cols; ++c) y[c] = float(x[c] * scale * at(w, c, 1));
    if (rstd) rstd[r] = float(scale);
  }
}

// With z = x rstd and g = dy w:  dx = rstd (g - z mean(g z)),  dw += dy z.
void rms_norm_bwd(const float* x, const float* w, const float* rstd, const float* dy, float* dx, float* dw,
                  std::size_t rows, std::size_t cols, std::size_t, bool accumulate) noexcept {
  for (std::size_t r = 0; r < rows; ++r, x += cols, dy += cols, dx += cols) {
    const auto z = [&](std::size_t c) { return double(x[c]) * rstd[r]; };
    double sum_gz = 0;
    for (std::size_t c = 0; c < cols; ++c) {
      sum_gz += dy[c] * at(w, c, 1) * z(c);
      if (dw) dw[c] = float(dw[c] + dy[c] * z(c));
    }
    for (std::size_t c = 0; c < cols; ++c)
      put(dx[c], rstd[r] * (dy[c] * at(w, c, 1) - z(c) * sum_gz / double(cols)), accumulate);
  }
}

void moments(const float* x, std::size_t segments, std::size_t n, std::size_t step, float* mean,
             float* variance) noexcept {
  const double count = double(segments) * double(n);
  double sum = 0, squares = 0;
  for (std::size_t s = 0; s < segments; ++s)
    for (std::size_t i = 0; i < n; ++i) sum += x[s * step + i];
  const double center = sum / count;
  for (std::size_t s = 0; s < segments; ++s)
    for (std::size_t i = 0; i < n; ++i) squares += (x[s * step + i] - center) * (x[s * step + i] - center);
  *mean = float(center);
  *variance = float(squares / count);
}

void affine(const float* x, float* y, std::size_t n, float center, float scale, float shift, bool relu) noexcept {
  for (std::size_t i = 0; i < n; ++i) {
    const double value = (double(x[i]) - center) * scale + shift;
    y[i] = float(relu && value < 0 ? 0 : value);
  }
}

double passed(const float* dy, const float* relu_of, std::size_t i) { return relu_of && !(relu_of[i] > 0) ? 0 : dy[i]; }

void affine_sums(const float* x, const float* dy, const float* relu_of, std::size_t segments, std::size_t n,
                 std::size_t step, float center, float* sum_d, float* sum_dx) noexcept {
  double d = 0, dx = 0;
  for (std::size_t s = 0; s < segments; ++s)
    for (std::size_t i = s * step; i < s * step + n; ++i) {
      d += passed(dy, relu_of, i);
      dx += passed(dy, relu_of, i) * (double(x[i]) - center);
    }
  *sum_d = float(d);
  *sum_dx = float(dx);
}

void affine_bwd(const float* x, const float* dy, const float* relu_of, float* dx, std::size_t n, float center, float a,
                float b, float c, bool accumulate) noexcept {
  for (std::size_t i = 0; i < n; ++i)
    put(dx[i], a * passed(dy, relu_of, i) + b * (double(x[i]) - center) + c, accumulate);
}

}  // namespace

extern constinit const NormPart norm_scalar{layer_norm, rms_norm, moments, affine};
extern constinit const NormTraining norm_training_scalar{layer_norm_bwd, rms_norm_bwd, affine_sums, affine_bwd};

}  // namespace qorus::kernels
