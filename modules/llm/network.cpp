// Bodies of qorus.llm:network.
module qorus.llm;
import qorus.std;
import :product;

namespace qorus::llm {

Result<Tensor> Norm::operator()(const Tensor& x) const noexcept {
  if (kind == Kind::none) return x;
  const Shape cols{x.dim(-1)};
  auto w = nn::use(weight, cols, x, "norm");
  if (kind == Kind::rms) return ops::rms_norm(x, w, eps);
  return ops::layer_norm(x, w, nn::use(bias, cols, x, "norm"), eps);
}

Result<Tensor> Projection::with(const Tensor& x, Activation activation, bool transient) const noexcept {
  if (x.rank() < 1) return fail(Errc::invalid_size, "linear", "needs at least one axis", x.shape().dims());
  const bool adapted = lora_a.bound(), packed = is_packed(*this, x);
  transient = transient && activation == Activation::none;
  const auto stored = [&](const Tensor& t, Activation last, bool passes) -> Result<Tensor> {
    if (packed) {
      Tensor product;
      const Factor factor{this, last};
      if (auto done = products(t, {&factor, 1}, {&product, 1}); !done) return fail(done.error());
      return product;
    }
    if (!weight.bound() || weight.tensor.dtype() == DType::f32)
      return to(t, out_features, {.activation = last, .transient = passes});
    auto w = nn::use(weight, Shape{out_features, t.dim(-1)}, t, "linear");
    const Result<Tensor> b = has_bias ? nn::use(bias, Shape{out_features}, t, "linear") : w;
    const Operand shift = b;
    return ops::activate(frozen_linear(t, w, has_bias ? &shift : nullptr, passes), last);
  };
  if (!adapted) return stored(x, activation, transient);
  const auto changed = [&](const Tensor& t) -> Result<Tensor> {
    const auto product = stored(t, Activation::none, true);
    const Operand plain = product;
    auto a = nn::use(lora_a, lora_a.tensor.shape(), t, "lora"), b = nn::use(lora_b, lora_b.tensor.shape(), t, "lora");
    return ops::linear(ops::linear(t, a) * lora_scale, b, {.residual = &plain, .transient = transient});
  };
  return ops::activate(with_transients(x, changed), activation);
}

Result<Tensor> Feed::run(const Tensor& x, bool transient) const noexcept {
  const auto out = [&](const Tensor& h) { return down.with(h, Activation::none, transient); };
  if (!gated) return up.with(x, activation).and_then(out);
  Tensor both[2];
  const bool again = recorded(x);  // the backward computes the activation again: nothing is kept of it
  const Factor factors[] = {{&gate, again ? Activation::none : activation}, {&up}};
  if (auto done = project(x, factors, both); !done) return fail(done.error());
  if (!again) return ops::mul(both[0], both[1]).and_then(out);
  return rematerialize(both[0], [&](const Tensor& g) { return ops::gated(g, both[1], activation); }, out);
}

Result<Tensor> Block::feed_forward(const Tensor& x) const noexcept {
  const auto feeds = [&](const Tensor& h) {
    return experts.each.empty() ? feed.run(h, ffn_post_norm.kind == Norm::Kind::none) : experts(h);
  };
  return rematerialize(x, ffn_norm, feeds) | ffn_post_norm;
}

Result<Tensor> Block::around(const Tensor& x, const Result<Tensor>& attended) const noexcept {
  const bool transient = attn_post_norm.kind == Norm::Kind::none;
  const auto project = [&](const Tensor& t) { return o_proj.with(t, Activation::none, transient) | attn_post_norm; };
  const auto attend = [&](const Tensor& t) { return t + attended.and_then(project); };
  const auto feed_on = [&](const Tensor& t) { return t + feed_forward(t); };
  return with_transients(x, attend).and_then([&](const Tensor& sum) { return with_transients(sum, feed_on); });
}

namespace {

// The softmax of one row, in place.
void to_shares(std::span<float> row) noexcept {
  const float most = *std::max_element(row.begin(), row.end());
  float sum = 0;
  for (float& x : row) sum += x = std::exp(x - most);
  for (float& x : row) x /= sum;
}

// Keeps the largest `used` shares, the first of equals; the others become 0.
void keep_largest(std::span<float> row, std::int64_t used, bool normalised) noexcept {
  float chosen[64] = {};
  std::size_t which[64] = {};
  float sum = 0;
  const auto count = static_cast<std::size_t>(used);
  for (std::size_t k = 0; k < count; ++k) {
    const auto best = static_cast<std::size_t>(std::max_element(row.begin(), row.end()) - row.begin());
    which[k] = best;
    chosen[k] = row[best];
    sum += chosen[k];
    row[best] = -1;
  }
  std::fill(row.begin(), row.end(), 0.0f);
  for (std::size_t k = 0; k < count; ++k) row[which[k]] = normalised && sum > 0 ? chosen[k] / sum : chosen[k];
}

// y[row] += share[row] part[i] for the i-th row that the expert has a share of.
Status add_expert(const Tensor& x, const Feed& expert, std::span<const float> shares, std::size_t experts,
                  float* y) noexcept {
  Context& context = *x.context();
  const std::size_t rows = static_cast<std::size_t>(x.dim(0)), cols = static_cast<std::size_t>(x.dim(1));
  std::int64_t count = 0;
  for (std::size_t row = 0; row < rows; ++row) count += shares[row * experts] != 0;
  if (count == 0) return {};
  auto index = Fresh::make(context, Shape{count}, DType::i32);
  if (!index) return fail(index.error());
  std::int32_t* next = index->i32();
  for (std::size_t row = 0; row < rows; ++row) {
    if (shares[row * experts] != 0) *next++ = static_cast<std::int32_t>(row);
  }
  const Tensor chosen = std::move(*index).freeze();
  auto part = ops::take(x, chosen) | expert;
  if (!part) return fail(part.error());
  const float* from = part->f32();
  for (std::int64_t i = 0; i < count; ++i, from += cols) {
    const auto row = static_cast<std::size_t>(chosen.i32()[i]);
    float* to = y + row * cols;
    for (std::size_t c = 0; c < cols; ++c) to[c] += shares[row * experts] * from[c];
  }
  return {};
}

// A small linear layer, whatever its weight is stored as.
Result<Tensor> rate(const nn::Linear& layer, const Tensor& x) noexcept {
  if (!layer.weight.bound() || layer.weight.tensor.dtype() == DType::f32 || layer.has_bias) return x | layer;
  return frozen_linear(x, nn::use(layer.weight, Shape{layer.out_features, x.dim(-1)}, x, "linear"), nullptr);
}

// The matrices of one kind, of all experts, as they are stored. Errors: unsupported (biases), out_of_memory.
Result<std::span<const Tensor>> matrices(const List<Feed>& each, Projection Feed::* kind, const Tensor& x) noexcept {
  Context& context = *x.context();
  auto place = context.scratch->take(each.size() * sizeof(Tensor));
  if (!place) return fail(place.error());
  auto* const first = reinterpret_cast<Tensor*>(place->data);
  for (std::size_t e = 0; e < each.size(); ++e) {
    const Projection& p = each[e].*kind;
    if (p.has_bias) return fail(Errc::unsupported, "experts", "biases of experts, where gradients pass");
    auto w = nn::use(p.weight, p.weight.tensor.shape(), x, "experts");
    if (!w) return fail(w.error());
    new (first + e) Tensor(*w);
  }
  return std::span<const Tensor>(first, each.size());
}

// As operations, so that gradients pass and sizes depend on shapes alone: a token's choices are rows of their own, sorted by expert.
Result<Tensor> as_operations(const Experts& experts, const Tensor& x) noexcept {
  const List<Feed>& each = experts.each;
  auto shares = ops::softmax(rate(experts.router, x));
  auto routing = ops::route(shares, {.top_k = experts.used});
  if (!routing) return fail(routing.error());
  auto share = ops::gather(shares, routing->choice, 1);
  if (experts.normalised) share = share / ops::sum(share, 1, true);
  auto rows = ops::take(x, routing->token);
  const auto through = [&](const Result<Tensor>& in, Projection Feed::* kind) -> Result<Tensor> {
    auto weights = matrices(each, kind, x);
    if (!weights) return fail(weights.error());
    return frozen_experts(in, *weights, routing->ends);
  };
  const Activation activation = each[0].activation;
  auto inner = each[0].gated ? ops::gated(through(rows, &Feed::gate), through(rows, &Feed::up), activation)
                             : ops::activate(through(rows, &Feed::up), activation);
  auto results = ops::take(through(inner, &Feed::down), routing->place);  // [rows, used, d_model]
  auto y = ops::sum(results * ops::unsqueeze(share, 2), 1);
  if (!experts.has_shared) return y;
  return y + ops::mul(x | experts.shared, ops::sigmoid(rate(experts.shared_gate, x)));
}

}  // namespace

Result<Tensor> Experts::operator()(const Tensor& x) const noexcept {
  const Context* context = x.context();
  if (context && (context->record || context->planning || !each[0].down.weight.packed.shape().valid()))
    return as_operations(*this, x);
  auto rated = x | router;
  if (!rated) return rated;
  const auto scores = rated->values<float>();
  if (!scores) return fail(scores.error());
  auto shares = Fresh::make(*x.context(), rated->shape());
  if (!shares) return fail(shares.error());
  const std::size_t count = each.size();
  const std::span<float> table(shares->f32(), scores->size());
  std::copy(scores->begin(), scores->end(), table.begin());
  for (std::size_t at = 0; at < table.size(); at += count) {
    to_shares(table.subspan(at, count));
    keep_largest(table.subspan(at, count), used, normalised);
  }
  auto y = Fresh::make(*x.context(), x.shape());
  if (!y) return fail(y.error());
  std::fill_n(y->f32(), x.numel(), 0.0f);
  for (std::size_t e = 0; e < count; ++e) {
    if (auto done = add_expert(x, each[e], table.subspan(e), count, y->f32()); !done) return fail(done.error());
  }
  auto sum = std::move(*y).freeze();
  if (!has_shared) return sum;
  return sum + ops::mul(x | shared, x | shared_gate | nn::sigmoid());
}

}  // namespace qorus::llm
