// Bodies of qorus.tune:tuner: rows on their way through the layers, all positions at once and without a cache.
module qorus.tune;
import qorus.std;
import qorus.nn;
import :tuner;
import :head;

namespace qorus::tune {
namespace {

constexpr const char* k_op = "finetune";

// u8 [batch, 1, seq, seq]: 1 where a place and another are of one sample. No tensor (of an invalid shape) where every row is one sample alone.
// numbers: [batch, seq].
Result<Tensor> sample_mask(const Tensor& numbers) noexcept {
  Context& context = *numbers.context();
  const auto seq = static_cast<std::size_t>(numbers.dim(1)), batch = static_cast<std::size_t>(numbers.dim(0));
  const std::int32_t* const from = numbers.i32();
  bool several = context.planning;
  for (std::size_t i = 0; i < batch && !several; ++i)
    several = std::any_of(from + i * seq, from + (i + 1) * seq, [&](std::int32_t n) { return n != from[i * seq]; });
  if (!several) return Tensor();
  auto mask = Fresh::make(context, Shape{numbers.dim(0), 1, numbers.dim(1), numbers.dim(1)}, DType::u8);
  if (!mask) return fail(mask.error());
  constexpr std::size_t k_rows = 32;  // of a task
  parallel_chunks(context, batch * seq, k_rows, [&](std::size_t begin, std::size_t end) {
    for (std::size_t row = begin; row < end; ++row) {
      const std::int32_t* const others = from + row / seq * seq;
      std::uint8_t* const to = mask->u8() + row * seq;
      for (std::size_t k = 0; k < seq; ++k) to[k] = others[k] == from[row];
    }
  });
  return std::move(*mask).freeze();
}

// i32 [batch seq]: places counted from the beginning of each sample.
Result<Tensor> sample_positions(const Tensor& numbers) noexcept {
  Context& context = *numbers.context();
  const auto seq = static_cast<std::size_t>(numbers.dim(1)), count = static_cast<std::size_t>(numbers.numel());
  auto made = Fresh::make(context, Shape{static_cast<std::int64_t>(count)}, DType::i32);
  if (!made) return fail(made.error());
  std::int32_t at = 0;
  for (std::size_t i = 0; i < count && !context.planning; ++i) {
    const bool begins = i % seq == 0 || numbers.i32()[i] != numbers.i32()[i - 1];
    at = begins ? 0 : at + 1;
    made->i32()[i] = at;
  }
  return std::move(*made).freeze();
}

}  // namespace

// angle(p, i) = p turn(i), in double, as sessions have them.
Status Tuner::make_tables() noexcept {
  const llm::Config& c = model_->config();
  if (c.architecture->learned_positions) return {};
  const llm::Rope* const ropes[2] = {&c.rope, &c.local_rope};
  for (std::size_t kind = 0; kind < 2; ++kind) {
    auto made = llm::frequencies(*ropes[kind], c, c.context);
    if (!made) return fail(made.error());
    const std::span<const double> turns = std::as_const(made->turn).span();
    const Shape shape{c.context, static_cast<std::int64_t>(turns.size())};
    auto cosine = Owned::zeros(shape), sine = Owned::zeros(shape);
    if (!cosine) return fail(cosine.error());
    if (!sine) return fail(sine.error());
    const std::span<float> cosines = cosine->fill<float>(), sines = sine->fill<float>();
    const auto scale = static_cast<double>(made->scale);
    for (std::size_t i = 0; i < cosines.size(); ++i) {
      const std::size_t position = i / turns.size();
      const double angle = static_cast<double>(position) * turns[i % turns.size()];
      cosines[i] = static_cast<float>(std::cos(angle) * scale);
      sines[i] = static_cast<float>(std::sin(angle) * scale);
    }
    cosine_[kind] = std::move(*cosine);
    sine_[kind] = std::move(*sine);
  }
  return {};
}

Result<Tensor> Tuner::embed(const Tensor& ids, const Tensor& numbers) const noexcept {
  const llm::Config& c = model_->config();
  auto x = ids | std::as_const(*model_).layers().embedding;
  if (c.embedding_scale != 1) x = x * c.embedding_scale;
  if (c.architecture->learned_positions)
    x = x + (sample_positions(numbers) | std::as_const(*model_).layers().positions);
  return x;
}

// x: [batch seq, d_model] to [batch seq, heads head_dim].
Result<Tensor> Tuner::attend(const llm::Block& block, const Tensor& x, const Tensor& mask,
                             std::int64_t batch) const noexcept {
  const llm::Config& c = model_->config();
  const std::int64_t rows = x.dim(0), seq = rows / batch;
  const std::size_t kind = block.window > 0 ? 1 : 0;
  const auto heads_of = [&](const Result<Tensor>& y, std::int64_t heads) {
    return ops::reshape(y, {batch, seq, heads, c.head_dim});
  };
  const bool turns = !c.architecture->learned_positions;
  const auto turned = [&](const llm::Projection& projection, std::int64_t heads, const llm::Norm& norm) {
    const bool transient = turns && norm.kind == llm::Norm::Kind::none;
    return with_transients(x, [&](const Tensor& h) {
      auto t = ops::transpose(heads_of(projection.with(h, Activation::none, transient), heads) | norm, 1, 2);
      if (!turns) return t;
      Context& context = *h.context();
      return ops::rope(t, ops::slice(cosine_[kind].tensor().in(context), 0, 0, seq),
                       ops::slice(sine_[kind].tensor().in(context), 0, 0, seq), c.pairs);
    });
  };
  auto q = turned(block.q_proj, c.heads, block.q_norm), k = turned(block.k_proj, c.kv_heads, block.k_norm),
       v = ops::transpose(heads_of(x | block.v_proj, c.kv_heads), 1, 2);
  auto y = ops::attention(q, k, v,
                          {.causal = true,
                           .scale = c.attention_scale,
                           .window = block.window,
                           .joined = true,
                           .softcap = c.attention_cap,
                           .mask = mask});
  return ops::reshape(y, {rows, c.heads * c.head_dim});
}

Result<Tensor> Tuner::block(const llm::Block& block, const Tensor& x, const Tensor& mask,
                            std::int64_t batch) const noexcept {
  return block.around(
      x, rematerialize(x, block.attn_norm, [&](const Tensor& h) { return attend(block, h, mask, batch); }));
}

struct Tuner::LayerCall {
  const Tuner* tuner;
  const llm::Block* layer;
  Tensor mask;
  std::int64_t batch;

  template <class Self, class F>
  static void visit_parts(Self& self, F&& f) {
    f(std::string_view("block"), const_cast<llm::Block&>(*self.layer));
  }
  [[nodiscard]] Result<Tensor> operator()(const Tensor& x) const noexcept {
    return tuner->block(*layer, x, mask, batch);
  }
};

// In a frame of its own where nothing is recorded; in training as the options say.
Result<Tensor> Tuner::run_block(const llm::Block& layer, const Tensor& x, const Tensor& mask, std::int64_t batch,
                                const std::byte* spent) const noexcept {
  Context& context = *x.context();
  const LayerCall call{this, &layer, mask, batch};
  if (!recompute_ || !context.record) return in_own_frame(x, call, spent);
  static_assert(std::is_trivially_destructible_v<LayerCall>);
  auto place = context.scratch->take(sizeof(LayerCall));  // as long as the tape
  if (!place) return fail(place.error());
  return nn::recompute(x, nn::body_of(*new (place->data) LayerCall(call)));
}

// The loss of rows that have passed the last norm. A head with adapters or a cap that is trained has its logits on the tape.
Result<Tensor> Tuner::head(const Tensor& x, const Tensor& targets) const noexcept {
  const llm::Projection& head = std::as_const(*model_).layers().head;
  const float cap = model_->config().logit_cap;
  if (!head.lora_a.bound() && !head.weight.tensor.tracked())
    return head_loss(x, head.weight.tensor.in(*x.context()), targets, cap);
  if (cap <= 0 && !head.lora_a.bound()) return head.loss(x, loss::cross_entropy(targets, {.ignore_index = -1}));
  auto logits = x | head;
  if (cap > 0) logits = ops::tanh(logits / cap) * cap;
  return ops::cross_entropy(logits, targets, {.ignore_index = -1});
}

Result<Tensor> Tuner::loss(const Tensor& x, const Tensor& y) const noexcept {
  if (x.rank() != 3 || x.dim(1) != 2 || y.rank() != 2 || y.dim(0) != x.dim(0) || y.dim(1) != x.dim(2))
    return fail(Errc::invalid_size, k_op, "inputs: [batch, 2, context] need targets [batch, context]", x.shape().dims(),
                y.shape().dims());
  const std::int64_t batch = x.dim(0), rows = batch * x.dim(2);
  if (x.dim(2) > model_->config().context)
    return fail(Errc::invalid_size, k_op, "rows longer than the model's context", x.shape().dims());
  auto ids = ops::reshape(ops::select(x, 1, 0), {rows}), numbers = ops::contiguous(ops::select(x, 1, 1)),
       targets = ops::reshape(y, {rows});
  if (!ids) return ids;
  if (!numbers) return numbers;
  if (!targets) return targets;
  auto mask = sample_mask(*numbers);
  if (!mask) return mask;
  auto h = embed(*ids, *numbers);
  const std::byte* const steps = h ? free_memory(*h) : nullptr;
  for (const llm::Block& layer : std::as_const(*model_).layers().blocks.span()) {
    if (!h) return h;
    h = run_block(layer, *h, *mask, batch, steps);
  }
  return (h | std::as_const(*model_).layers().norm).and_then([&](const Tensor& t) { return head(t, *targets); });
}

}  // namespace qorus::tune
