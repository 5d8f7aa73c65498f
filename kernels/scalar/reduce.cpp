// The definition of the reductions: one accumulator in double, elements in index order, rounded once at the end.
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>

#include "kernels/parts.h"

namespace qorus::kernels {
namespace {

template <class F>
void fold(const float* x, float* y, std::size_t outer, std::size_t reduced, std::size_t inner, double start, F f) {
  for (std::size_t o = 0; o < outer; ++o)
    for (std::size_t i = 0; i < inner; ++i) {
      double total = start;
      for (std::size_t r = 0; r < reduced; ++r) total = f(total, double(x[(o * reduced + r) * inner + i]));
      y[o * inner + i] = float(total);
    }
}

void reduce(Reduce op, const float* x, float* y, std::size_t outer, std::size_t reduced, std::size_t inner) noexcept {
  constexpr double infinity = std::numeric_limits<double>::infinity();
  const auto each = [&](double start, auto f) { fold(x, y, outer, reduced, inner, start, f); };
  switch (op) {
    case Reduce::sum: return each(0, [](double t, double v) { return t + v; });
    case Reduce::sum_abs: return each(0, [](double t, double v) { return t + std::fabs(v); });
    case Reduce::sum_square: return each(0, [](double t, double v) { return t + v * v; });
    case Reduce::max: return each(-infinity, [](double t, double v) { return v > t || std::isnan(v) ? v : t; });
    case Reduce::min: return each(infinity, [](double t, double v) { return v < t || std::isnan(v) ? v : t; });
    case Reduce::prod: return each(1, [](double t, double v) { return t * v; });
    case Reduce::count_: return;
  }
}

void arg_reduce(bool largest, const float* x, std::int32_t* y, std::size_t outer, std::size_t reduced,
                std::size_t inner) noexcept {
  const auto beats = [=](float v,
                         float best) {  // strictly, so that the first of equals stays; a NaN beats all but a NaN
    if (std::isnan(best)) return false;
    return std::isnan(v) || (largest ? v > best : v < best);
  };
  for (std::size_t o = 0; o < outer; ++o)
    for (std::size_t i = 0; i < inner; ++i) {
      const float* column = x + o * reduced * inner + i;
      std::size_t at = 0;
      for (std::size_t r = 1; r < reduced; ++r)
        if (beats(column[r * inner], column[at * inner])) at = r;
      y[o * inner + i] = std::int32_t(at);
    }
}

}  // namespace

extern constinit const ReducePart reduce_scalar{reduce, arg_reduce};

}  // namespace qorus::kernels
