// Layer norm and RMS norm over the vector type, row by row; a row is read from memory once and then from the cache.
// Include a vec.h first. Sums over a row: fold's four accumulators (forward: runs of 4096 in f64).
#pragma once
#include <cstddef>
#include "kernels/parts.h"
#include "kernels/simd/each.h"
#include "kernels/simd/math.h"

namespace qorus::kernels {
namespace {

constexpr float k_one = 1, k_zero = 0;
constexpr auto k_add = [](auto a, auto b) { return a + b; };

// What an array, or `number` for all where there is none, stands for.
QORUS_INLINE Spread array_or(const float* array, const float& number) {
  return Spread(array ? array : &number, array ? 1 : 0);
}
QORUS_INLINE float inverse_sqrt(double x) { return first(set(1.0f) / sqrt(set(float(x)))); }

void layer_norm(const float* x, const float* w, const float* b, float* y, float* mean, float* rstd, std::size_t rows,
                std::size_t cols, float eps) noexcept {
  const Write how = how_to_write(rows * cols, x != y);
  const Spread weight = array_or(w, k_one), bias = array_or(b, k_zero);
  for (std::size_t r = 0; r < rows; ++r, x += cols, y += cols) {
    const auto value = [&](std::size_t i, auto part) { return load(x + i, part); };
    const float center = float(total(cols, value) / double(cols));
    const auto square = [&](std::size_t i, auto part) {
      const F32 d = pad(load(x + i, part), set(center), part) - set(center);
      return d * d;
    };
    const float scale = inverse_sqrt(total(cols, square) / double(cols) + eps);
    put_row(y, cols, how, [&](std::size_t i, auto part) {
      const F32 z = (load(x + i, part) - set(center)) * set(scale);
      return fma(z, weight.at(i, part), bias.at(i, part));
    });
    if (mean) mean[r] = center;
    if (rstd) rstd[r] = scale;
  }
  if (how == Write::streamed) end_stream();
}

// With z = x scale + shift and g = dy w:  dx (+)= rstd (g - mean(g) - z mean(g z)),  dw += dy z,  db += dy.
// layer norm: scale = rstd, shift = -mean rstd; RMS norm: scale = rstd, shift = 0 and no mean(g).
template <bool centered>
QORUS_INLINE void norm_bwd(const float* x, const float* w, const float* mean, const float* rstd, const float* dy,
                           float* dx, float* dw, float* db, std::size_t rows, std::size_t cols, std::size_t whole,
                           bool accumulate) {
  const Write how = accumulate ? Write::add : how_to_write(whole, dx != x && dx != dy);
  const Spread weight = array_or(w, k_one);
  for (std::size_t r = 0; r < rows; ++r, x += cols, dy += cols, dx += cols) {
    const F32 center = set(centered ? mean[r] : 0), scale = set(rstd[r]);
    const auto normal = [&](std::size_t i, auto part) { return (load(x + i, part) - center) * scale; };
    const auto sums = [&](std::size_t i, auto part) {
      const F32 d = load(dy + i, part), z = normal(i, part), g = d * weight.at(i, part);
      if (dw) store(dw + i, fma(d, z, load(dw + i, part)), part);
      if (centered && db) store(db + i, load(db + i, part) + d, part);
      return Pair{g, g * z};
    };
    const Pair all = fold(cols, Pair{set(0.0f), set(0.0f)}, sums, k_add);
    const F32 mean_g = set(centered ? sum(all.a) / float(cols) : 0), mean_gz = set(sum(all.b) / float(cols));
    const auto slope = [&](std::size_t i, auto part) {
      const F32 g = load(dy + i, part) * weight.at(i, part);
      return fnma(normal(i, part), mean_gz, centered ? g - mean_g : g) * scale;
    };
    put_row(dx, cols, how, slope);
  }
  if (how == Write::streamed) end_stream();
}

void layer_norm_bwd(const float* x, const float* w, const float* mean, const float* rstd, const float* dy, float* dx,
                    float* dw, float* db, std::size_t rows, std::size_t cols, std::size_t whole,
                    bool accumulate) noexcept {
  norm_bwd<true>(x, w, mean, rstd, dy, dx, dw, db, rows, cols, whole, accumulate);
}

void rms_norm(const float* x, const float* w, float* y, float* rstd, std::size_t rows, std::size_t cols,
              float eps) noexcept {
  const Write how = how_to_write(rows * cols, x != y);
  const Spread weight = array_or(w, k_one);
  for (std::size_t r = 0; r < rows; ++r, x += cols, y += cols) {
    const auto square = [&](std::size_t i, auto part) {
      const F32 v = load(x + i, part);
      return v * v;
    };
    const float scale = inverse_sqrt(total(cols, square) / double(cols) + eps);
    put_row(y, cols, how,
            [&](std::size_t i, auto part) { return load(x + i, part) * set(scale) * weight.at(i, part); });
    if (rstd) rstd[r] = scale;
  }
  if (how == Write::streamed) end_stream();
}

void rms_norm_bwd(const float* x, const float* w, const float* rstd, const float* dy, float* dx, float* dw,
                  std::size_t rows, std::size_t cols, std::size_t whole, bool accumulate) noexcept {
  norm_bwd<false>(x, w, nullptr, rstd, dy, dx, dw, nullptr, rows, cols, whole, accumulate);
}

void moments(const float* x, std::size_t segments, std::size_t n, std::size_t step, float* mean,
             float* variance) noexcept {
  const double count = double(segments) * double(n);
  double all = 0, squares = 0;
  for (std::size_t s = 0; s < segments; ++s)
    all += total(n, [&](std::size_t i, auto part) { return load(x + s * step + i, part); });
  const F32 center = set(float(all / count));
  for (std::size_t s = 0; s < segments; ++s)
    squares += total(n, [&](std::size_t i, auto part) {
      const F32 d = pad(load(x + s * step + i, part), center, part) - center;
      return d * d;
    });
  *mean = first(center);
  *variance = float(squares / count);
}

void affine(const float* x, float* y, std::size_t n, float center, float scale, float shift, bool relu) noexcept {
  const F32 c = set(center), a = set(scale), b = set(shift), low = set(relu ? 0.0f : -__builtin_inff());
  each4(n, [&](std::size_t i, auto part) { store(y + i, max(low, fma(load(x + i, part) - c, a, b)), part); });
}

// use(d) with d(i, part) = dy, or 0 where relu_of is not above 0.
template <class F>
QORUS_INLINE void with_passed(const float* dy, const float* relu_of, F use) {
  if (relu_of)
    use([=](std::size_t i, auto part) { return where(load(dy + i, part), load(relu_of + i, part) > set(0.0f)); });
  else
    use([=](std::size_t i, auto part) { return load(dy + i, part); });
}

void affine_sums(const float* x, const float* dy, const float* relu_of, std::size_t segments, std::size_t n,
                 std::size_t step, float center, float* sum_d, float* sum_dx) noexcept {
  constexpr std::size_t run = 4096;
  double all_d = 0, all_dx = 0;
  with_passed(dy, relu_of, [&](auto d) {
    for (std::size_t s = 0; s < segments; ++s)
      for (std::size_t from = s * step; from < s * step + n; from += run) {
        const std::size_t left = s * step + n - from;
        const Pair sums = fold(
            left < run ? left : run, Pair{set(0.0f), set(0.0f)},
            [&](std::size_t i, auto part) {
              const F32 value = d(from + i, part);
              return Pair{value, value * (load(x + from + i, part) - set(center))};
            },
            k_add);
        all_d += sum(sums.a);
        all_dx += sum(sums.b);
      }
  });
  *sum_d = float(all_d);
  *sum_dx = float(all_dx);
}

void affine_bwd(const float* x, const float* dy, const float* relu_of, float* dx, std::size_t n, float center, float a,
                float b, float c, bool accumulate) noexcept {
  with_passed(dy, relu_of, [&](auto d) {
    const auto slope = [&](std::size_t i, auto part) {
      return fma(d(i, part), set(a), fma(load(x + i, part) - set(center), set(b), set(c)));
    };
    if (accumulate)
      each(n, [&](std::size_t i, auto part) { store(dx + i, load(dx + i, part) + slope(i, part), part); });
    else
      each4(n, [&](std::size_t i, auto part) { store(dx + i, slope(i, part), part); });
  });
}

}  // namespace
}  // namespace qorus::kernels
