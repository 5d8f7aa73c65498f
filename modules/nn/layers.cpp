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
  const Result<Tensor> b = has_bias ? use(bias, Shape{out_features}, x, "linear") : w;
  if (weight.packed.shape().valid() && weight.packed.alive()) {
    const Operand shift = b;
    return ops::linear_packed(x, w, weight.packed, has_bias ? &shift : nullptr, activation);
  }
  return has_bias ? ops::linear(x, w, b, activation) : ops::linear(x, w, activation);
}

Result<Tensor> LayerNorm::operator()(const Tensor& x) const noexcept {
  if (x.rank() < 1) return fail(Errc::invalid_size, "layer_norm", "needs at least one axis", x.shape().dims());
  const Shape cols{x.dim(-1)};
  auto w = use(weight, cols, x, "layer_norm");
  if (!has_bias) return ops::layer_norm(x, w, eps);
  return ops::layer_norm(x, w, use(bias, cols, x, "layer_norm"), eps);
}

Result<Tensor> RmsNorm::operator()(const Tensor& x) const noexcept {
  if (x.rank() < 1) return fail(Errc::invalid_size, "rms_norm", "needs at least one axis", x.shape().dims());
  return ops::rms_norm(x, use(weight, Shape{x.dim(-1)}, x, "rms_norm"), eps);
}

Attention attention(std::int64_t d_model, std::int64_t heads, const AttentionOptions& options) noexcept {
  const std::int64_t kv_heads = options.kv_heads ? options.kv_heads : heads, head_dim = heads > 0 ? d_model / heads : 0;
  const LinearOptions plain{.bias = options.bias};
  return {linear(d_model, plain),
          linear(kv_heads * head_dim, plain),
          linear(kv_heads * head_dim, plain),
          linear(d_model, plain),
          heads,
          kv_heads,
          options.causal};
}

Result<Tensor> Attention::operator()(const Tensor& x) const noexcept {
  if (x.rank() != 3) return fail(Errc::invalid_size, "attention", "needs x: [batch, seq, d_model]", x.shape().dims());
  if (heads < 1 || q_proj.out_features % heads != 0) {
    return fail(Errc::invalid_argument, "attention", "d_model must be a multiple of heads",
                Shape{q_proj.out_features, heads}.dims());
  }
  const std::int64_t batch = x.dim(0), seq = x.dim(1), head_dim = q_proj.out_features / heads;
  const auto split = [&](const Result<Tensor>& y, std::int64_t count) {
    return ops::transpose(ops::reshape(y, {batch, seq, count, head_dim}), 1, 2);
  };
  auto y = ops::attention(split(q_proj(x), heads), split(k_proj(x), kv_heads), split(v_proj(x), kv_heads),
                          {.causal = causal});
  return ops::reshape(ops::transpose(y, 1, 2), {batch, seq, heads * head_dim}) | o_proj;
}

Result<Tensor> Reshape::operator()(const Tensor& x) const noexcept {
  if (x.rank() < 1 || count >= k_max_rank)
    return fail(Errc::invalid_size, "reshape", "needs a batch axis and at most five more", x.shape().dims());
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
