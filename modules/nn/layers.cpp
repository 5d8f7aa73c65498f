// Bodies of qorus.nn:layers.
module;
#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <span>
module qorus.nn;

namespace qorus::nn {

Result<Tensor> Linear::with(const Tensor& x, Activation activation) const noexcept {
  if (x.rank() < 1) return fail(Errc::invalid_size, "linear", "needs at least one axis", x.shape().dims());
  auto w = use(weight, Shape{out_features, x.dim(-1)}, x, "linear");
  if (!has_bias) return ops::linear(x, w, activation);
  return ops::linear(x, w, use(bias, Shape{out_features}, x, "linear"), activation);
}

Result<Tensor> Reshape::operator()(const Tensor& x) const noexcept {
  if (x.rank() < 1 || count >= k_max_rank) return fail(Errc::invalid_size, "reshape", "needs a batch axis and at most five more", x.shape().dims());
  std::array<std::int64_t, k_max_rank> list{x.dim(0)};
  std::copy_n(extents.begin(), count, list.begin() + 1);
  return ops::reshape(x, std::span<const std::int64_t>(list.data(), count + 1));
}

Reshape reshape(std::initializer_list<std::int64_t> extents) noexcept {
  Reshape layer{.count = extents.size()};
  std::copy_n(extents.begin(), std::min<std::size_t>(extents.size(), k_max_rank), layer.extents.begin());
  return layer;
}

}  // namespace qorus::nn
