// Bodies of qorus.nn:layers.
module qorus.nn;
import qorus.std;

namespace qorus::nn {

Tensor Param::good_packed() const noexcept { return packed.shape().valid() && packed.alive() ? packed : Tensor(); }

namespace {

// The weight; where only its packed copy is there (nn::packed) and that will be read instead, the copy's memory in the weight's shape.
Result<Tensor> weight_or_copy(const Linear& layer, const Tensor& packed, std::int64_t width, const Tensor& x) noexcept {
  auto w = use(layer.weight, Shape{width, x.dim(-1)}, x, "linear");
  if (!w || w->alive() || !packed.shape().valid() || recorded(x) || !x.context()) return w;
  return Tensor(packed.data(), DType::f32, Layout::dense(w->shape()), packed.lifetime()).in(*x.context());
}

// Calls call(weight, parts) with what the layer has beside x.
template <class F>
Result<Tensor> with_parts(const Linear& layer, const Tensor& x, std::int64_t width, ops::LinearParts& parts,
                          const F& call) noexcept {
  if (x.rank() < 1) return fail(Errc::invalid_size, "linear", "needs at least one axis", x.shape().dims());
  const Tensor packed = layer.weight.good_packed();
  const auto w = weight_or_copy(layer, packed, width, x);
  const Result<Tensor> b = layer.has_bias ? use(layer.bias, Shape{width}, x, "linear") : w;
  const Operand shift = b;
  if (layer.has_bias) parts.bias = &shift;
  if (packed.shape().valid()) parts.packed = &packed;
  return call(w, parts);
}

}  // namespace

Result<Tensor> Linear::to(const Tensor& x, std::int64_t width, ops::LinearParts parts) const noexcept {
  return with_parts(*this, x, width, parts,
                    [&](const Result<Tensor>& w, const ops::LinearParts& all) { return ops::linear(x, w, all); });
}

Result<Tensor> Linear::gated(const Tensor& gate, const Tensor& up, std::int64_t width,
                             ops::LinearParts parts) const noexcept {
  return with_parts(*this, gate, width, parts, [&](const Result<Tensor>& w, const ops::LinearParts& all) {
    return ops::gated_linear(gate, up, w, all);
  });
}

Result<Tensor> Linear::after(const Tensor& x, std::int64_t width, ops::LinearParts parts) const noexcept {
  return with_parts(*this, x, width, parts, [&](const Result<Tensor>& w, const ops::LinearParts& all) {
    return ops::activated_linear(x, w, all);
  });
}

Result<Tensor> Embedding::logits(const Tensor& x) const noexcept {
  const auto w = use(weight, Shape{vocab, d_model}, x, k_name.data());
  const Tensor packed = weight.good_packed();
  return ops::linear(x, w, {.packed = packed.shape().valid() ? &packed : nullptr});
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
