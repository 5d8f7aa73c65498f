// What the tests of training share. Textual: include after `import qorus.train;`.
#pragma once
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <span>
#include <utility>
#include <vector>

namespace qorus_test {

using namespace qorus;

inline data::Dataset table(std::span<const float> x, std::int64_t width, std::span<const float> y) {
  const auto n = static_cast<std::int64_t>(y.size());
  return std::move(
      *data::Dataset::create(std::move(*Owned::from<float>(x, {n, width})), std::move(*Owned::from<float>(y, {n, 1}))));
}
// y = 2 a - b, with a little of everything else.
inline data::Dataset plane(std::size_t n) {
  std::vector<float> x(2 * n), y(n);
  for (std::size_t i = 0; i < n; ++i) {
    const float a = std::sin(static_cast<float>(7 * i)), b = std::cos(static_cast<float>(5 * i));
    x[2 * i] = a;
    x[2 * i + 1] = b;
    y[i] = 2 * a - b + 0.05f * std::sin(static_cast<float>(31 * i));
  }
  return table(x, 2, y);
}
inline auto regression() { return nn::linear(4) | nn::tanh() | nn::linear(1); }

template <class M>
std::vector<float> weights_of(const M& model) {
  return {model.slab().begin(), model.slab().end()};
}

}  // namespace qorus_test
