// Bodies of qorus.llm:session: the cache and the forward pass.
module;
#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <utility>
module qorus.llm;

namespace qorus::llm {

Result<KvCache> KvCache::create(const Config& c, std::int64_t positions) noexcept {
  const auto size = [](std::int64_t n) { return static_cast<std::uint64_t>(n); };
  auto bytes = (Checked(2 * sizeof(float)) * size(c.layers) * size(c.kv_heads) * size(positions) * size(c.head_dim))
                   .get("KvCache");
  if (!bytes) return fail(bytes.error());
  auto slab = Slab::create(*bytes);
  if (!slab) return fail(slab.error());
  KvCache cache;
  cache.slab_ = std::move(*slab);
  cache.kv_heads_ = c.kv_heads;
  cache.head_dim_ = c.head_dim;
  cache.capacity_ = positions;
  return cache;
}

Tensor KvCache::view(std::int64_t half, std::int64_t positions) const noexcept {
  Layout layout{.shape = Shape{1, kv_heads_, positions, head_dim_}};
  layout.stride = {kv_heads_ * capacity_ * head_dim_, capacity_ * head_dim_, head_dim_, 1};
  layout.offset = half * layout.stride[0];
  return Tensor(slab_.data(), DType::f32, layout, slab_.lifetime());
}

Status KvCache::append(std::int64_t layer, const Tensor& keys, const Tensor& values) noexcept {
  for (const Tensor* part : {&keys, &values}) {
    if (auto ok = part->check(DType::f32, "KvCache"); !ok) return ok;
    const Shape& shape = part->shape();
    if (shape.rank() != 4 || shape[0] != 1 || shape[1] != kv_heads_ || shape[3] != head_dim_ ||
        size_ + shape[2] > capacity_) {
      return fail(Errc::invalid_size, "KvCache", "needs [1, kv_heads, n, head_dim] and room for n positions",
                  shape.dims());
    }
    const std::int64_t half = 2 * layer + (part == &values);
    for (std::int64_t h = 0; h < kv_heads_; ++h) {
      auto* to = reinterpret_cast<float*>(slab_.data()) + ((half * kv_heads_ + h) * capacity_ + size_) * head_dim_;
      for (std::int64_t p = 0; p < shape[2]; ++p, to += head_dim_) {
        std::memcpy(to, part->f32() + h * part->stride(1) + p * part->stride(2),
                    static_cast<std::size_t>(head_dim_) * sizeof(float));
      }
    }
  }
  return {};
}

Result<Session> Session::create(const Model& model, const SessionOptions& options) noexcept {
  const std::int64_t context = options.context ? options.context : model.config().context;
  constexpr std::int64_t k_longest = 1 << 20;
  if (context < 1 || context > k_longest || options.batch < 1) {
    return fail(Errc::invalid_argument, "Session", "the context lies between 1 and 2^20, the batch is at least 1");
  }
  // The scratch that the largest batch at the end of the context takes; address space, so a bound will do.
  const Config& c = model.config();
  const auto size = [](std::int64_t n) { return static_cast<std::uint64_t>(n); };
  const std::int64_t batch = std::min(options.batch, context);
  const Checked per_token = Checked(size(c.d_model)) * 8 +
                            Checked(size(c.heads + 2 * c.kv_heads)) * size(c.head_dim) * 4 + Checked(size(c.d_ff)) * 4;
  const Checked weights = Checked(size(std::max(c.vocab, c.d_ff))) * size(c.d_model);
  const Checked floats = per_token * size(batch) * size(c.layers + 1) + Checked(size(c.vocab)) * size(batch) +
                         weights * 2 + Checked(size(context)) * 1024;
  auto scratch = (floats * sizeof(float) + 64_MiB).get("Session");
  if (!scratch) return fail(scratch.error());
  Session session(model, Workspace{{.scratch = *scratch, .threads = options.threads}});
  if (auto ready = session.workspace_.status(); !ready) return fail(ready.error());
  auto cache = KvCache::create(c, context);
  if (!cache) return fail(cache.error());
  session.cache_ = std::move(*cache);
  session.batch_ = batch;
  if (auto done = session.tabulate(context); !done) return fail(done.error());
  if (auto room = session.logits_.resize(static_cast<std::size_t>(c.vocab)); !room) return fail(room.error());
  return session;
}

// angle(p, i) = p base^(-2 i / rope_dim), in double.
Status Session::tabulate(std::int64_t positions) noexcept {
  const Config& c = model_->config();
  const Shape shape{positions, c.rope_dim / 2};
  auto cosine = Owned::zeros(shape), sine = Owned::zeros(shape);
  if (!cosine) return fail(cosine.error());
  if (!sine) return fail(sine.error());
  const std::span<float> cosines = cosine->fill<float>(), sines = sine->fill<float>();
  const auto half = static_cast<std::size_t>(c.rope_dim / 2);
  for (std::size_t i = 0; i < half; ++i) {
    const double turn =
        std::pow(static_cast<double>(c.rope_base), -2.0 * static_cast<double>(i) / static_cast<double>(c.rope_dim));
    for (std::size_t at = i; at < cosines.size(); at += half) {
      const std::size_t position = at / half;
      const double angle = static_cast<double>(position) * turn;
      cosines[at] = static_cast<float>(std::cos(angle));
      sines[at] = static_cast<float>(std::sin(angle));
    }
  }
  cosine_ = std::move(*cosine);
  sine_ = std::move(*sine);
  return {};
}

Result<Tensor> Session::forward(Scope& frame, const Tensor& ids, bool last_only) noexcept {
  const Config& c = model_->config();
  const Llama& net = model_->layers();
  const std::int64_t n = ids.dim(1), past = cache_.size();
  auto cosine = frame.input(cosine_).and_then([&](const Tensor& t) { return ops::slice(t, 0, past, past + n); });
  auto sine = frame.input(sine_).and_then([&](const Tensor& t) { return ops::slice(t, 0, past, past + n); });
  const auto heads_of = [&](const Result<Tensor>& y, std::int64_t heads) {
    return ops::transpose(ops::reshape(y, {1, n, heads, c.head_dim}), 1, 2);
  };
  Result<Tensor> x = frame.input(ids) | net.embedding;
  for (std::int64_t layer = 0; layer < c.layers && x; ++layer) {
    const LlamaBlock& block = net.blocks[static_cast<std::size_t>(layer)];
    auto h = x | block.input_norm;
    auto q = ops::rope(heads_of(h | block.q_proj, c.heads), cosine, sine);
    auto k = ops::rope(heads_of(h | block.k_proj, c.kv_heads), cosine, sine);
    auto v = heads_of(h | block.v_proj, c.kv_heads);
    if (!k) return k;
    if (!v) return v;
    if (auto kept = cache_.append(layer, *k, *v); !kept) return fail(kept.error());
    auto seen_keys = frame.input(cache_.keys(layer, past + n)),
         seen_values = frame.input(cache_.values(layer, past + n));
    auto y = ops::attention(q, seen_keys, seen_values, {.causal = true});
    x = x + (ops::reshape(ops::transpose(y, 1, 2), {1, n, c.heads * c.head_dim}) | block.o_proj);
    auto g = x | block.post_attention_norm;
    x = x + ((ops::mul(g | block.gate_proj | nn::silu(), g | block.up_proj)) | block.down_proj);
  }
  if (last_only) x = ops::slice(x, 1, n - 1, n);
  return x | net.norm | net.head;
}

Status Session::feed_piece(std::span<const std::int32_t> ids, std::size_t first, See see, void* user) noexcept {
  auto frame = workspace_.frame();
  const Tensor input = Tensor::borrow(ids, Shape{1, static_cast<std::int64_t>(ids.size())});
  auto logits = forward(frame, input, !see);
  if (!logits) return fail(logits.error());
  auto values = logits->values<float>();
  if (!values) return fail(values.error());
  const std::size_t vocab = logits_.size();
  for (std::size_t row = 0; see && row < ids.size(); ++row) see(user, first + row, values->subspan(row * vocab, vocab));
  std::copy_n(values->end() - static_cast<std::ptrdiff_t>(vocab), vocab, logits_.begin());
  cache_.advance(static_cast<std::int64_t>(ids.size()));
  return {};
}

Result<std::span<const float>> Session::feed_all(std::span<const std::int32_t> ids, See see, void* user) noexcept {
  if (ids.empty()) return fail(Errc::invalid_argument, "feed", "no tokens");
  if (static_cast<std::int64_t>(ids.size()) > cache_.capacity() - cache_.size()) {
    return fail(Errc::invalid_argument, "feed", "more tokens than the context has room for",
                Dims{.extent = {static_cast<std::int64_t>(ids.size()), cache_.capacity() - cache_.size()}, .rank = 2});
  }
  for (const std::int32_t id : ids) {
    if (id < 0 || id >= model_->config().vocab)
      return fail(Errc::invalid_argument, "feed", "a token outside the vocabulary", Dims{.extent = {id}, .rank = 1});
  }
  const auto batch = static_cast<std::size_t>(batch_);
  for (std::size_t first = 0; first < ids.size(); first += batch) {
    if (auto done = feed_piece(ids.subspan(first, std::min(batch, ids.size() - first)), first, see, user); !done)
      return fail(done.error());
  }
  return logits_.span();
}

Result<std::span<const float>> Session::feed(std::span<const std::int32_t> ids) noexcept {
  return feed_all(ids, nullptr, nullptr);
}

}  // namespace qorus::llm
