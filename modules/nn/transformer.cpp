// Bodies of qorus.nn:transformer.
module qorus.nn;
import qorus.std;

namespace qorus::nn {
namespace {

bool given(const Result<Tensor>& t) noexcept { return !t || t->shape().valid(); }

Activation activation_of(FeedForwardKind kind) noexcept {
  switch (kind) {
    case FeedForwardKind::relu: return Activation::relu;
    case FeedForwardKind::gelu:
    case FeedForwardKind::geglu: return Activation::gelu;
    case FeedForwardKind::gelu_tanh: return Activation::gelu_tanh;
    case FeedForwardKind::silu:
    case FeedForwardKind::swiglu: break;
  }
  return Activation::silu;
}

// [batch, seq, heads head_dim] to [batch, heads, seq, head_dim].
Result<Tensor> split(const Result<Tensor>& x, std::int64_t heads, std::int64_t head_dim) noexcept {
  if (!x) return x;
  return ops::transpose(ops::reshape(x, {x->dim(0), x->dim(1), heads, head_dim}), 1, 2);
}

}  // namespace

Attention attention(std::int64_t d_model, std::int64_t heads, const AttentionOptions& options) noexcept {
  const std::int64_t kv_heads = options.kv_heads ? options.kv_heads : heads;
  const std::int64_t head_dim = options.head_dim                    ? options.head_dim
                                : heads > 0 && d_model % heads == 0 ? d_model / heads
                                                                    : -1;
  const LinearOptions plain{.bias = options.bias};
  return {linear(heads * head_dim, plain),
          linear(kv_heads * head_dim, plain),
          linear(kv_heads * head_dim, plain),
          linear(d_model, plain),
          heads,
          options};
}

Result<AttentionResult> Attention::run(const Tensor& x, const AttentionInputs& in, const Operand* residual,
                                       const Norm* norm) const noexcept {
  const std::int64_t kv_heads = options.kv_heads ? options.kv_heads : heads;
  if (heads < 1 || kv_heads < 1 || q_proj.out_features < heads)
    return fail(Errc::invalid_argument, "attention", "d_model must be a multiple of heads",
                Shape{q_proj.out_features, heads}.dims());
  const bool crosses = given(in.memory), continues = given(in.past_keys) || given(in.past_values);
  if (!in.memory) return fail(in.memory.error());
  const Tensor& source = crosses ? *in.memory : x;
  if (x.rank() != 3 || source.rank() != 3)
    return fail(Errc::invalid_size, "attention", "needs x: [batch, seq, d_model]", x.shape().dims(),
                source.shape().dims());
  const std::int64_t head_dim = q_proj.out_features / heads;
  if (!in.past_keys) return fail(in.past_keys.error());
  if (given(in.past_keys) != given(in.past_values))
    return fail(Errc::invalid_argument, "attention", "past keys and values come together");
  const std::int64_t past = continues ? in.past_keys->dim(2) : 0;
  Context* context = x.alive() ? x.context() : nullptr;
  Result<Tensor> k, v;
  const auto project = [&](const Tensor& t) -> Result<Tensor> {  // to q
    const Tensor& from = crosses ? source : t;
    v = split(v_proj(from), kv_heads, head_dim);
    if (!(options.rope > 0 && context)) {
      k = split(k_proj(from), kv_heads, head_dim);
      return split(q_proj(t), heads, head_dim);
    }
    auto tables = ops::rope_tables(*context, from.dim(1), head_dim / 2, options.rope, past);
    if (!tables) return fail(tables.error());
    // No rule reads what is turned.
    const auto turned = [&](const Linear& projection, const Tensor& of, std::int64_t count) {
      return with_transients(of, [&](const Tensor& all) {
        const std::int64_t seq = all.dim(1);
        return ops::rope(split(projection.to(all, projection.out_features, {.transient = true}), count, head_dim),
                         ops::slice(tables->cosine, 0, 0, seq), ops::slice(tables->sine, 0, 0, seq), options.pairs);
      });
    };
    k = turned(k_proj, from, kv_heads);
    return turned(q_proj, t, heads);
  };
  const auto q = norm ? rematerialize(x, *norm, project) : project(x);
  if (continues) {
    k = ops::concat({in.past_keys, k}, 2);
    v = ops::concat({in.past_values, v}, 2);
  }
  ops::AttentionOptions all{.causal = options.causal && !crosses,
                            .scale = options.scale,
                            .window = options.window,
                            .softcap = options.softcap,
                            .mask = in.mask,
                            .lengths = in.lengths};
  // Padding ends a sequence; where it begins is the same for all.
  if (all.causal) all.past = past;
  if (options.alibi && context) all.slopes = ops::alibi_slopes(*context, heads);
  all.joined = true;
  if (!q || !k || !v) return fail(!q ? q.error() : !k ? k.error() : v.error());
  auto y = rematerialize(
      *q, [&](const Tensor& queries) { return ops::attention(queries, k, v, all); },
      [&](const Tensor& joined) { return o_proj.to(joined, o_proj.out_features, {.residual = residual}); });
  if (!y) return fail(y.error());
  return AttentionResult{*y, *k, *v};
}

Result<Tensor> Attention::operator()(const Tensor& x) const noexcept {
  auto all = run(x);
  if (!all) return fail(all.error());
  return all->y;
}

Result<Tensor> FeedForward::run(const Tensor& x, const Operand* residual) const noexcept {
  if (x.rank() < 1) return fail(Errc::invalid_size, "feed_forward", "needs at least one axis", x.shape().dims());
  const Activation f = activation_of(kind);
  if (!gated()) {
    // relu's slope wants its result alone.
    const auto rows = x.numel() / std::size_t(std::max<std::int64_t>(x.dim(-1), 1)),
               width = std::size_t(std::max<std::int64_t>(up_proj.out_features, 1));
    if (f != Activation::relu && rows >= k_again_from / width && recorded(x)) {
      auto inner = up_proj(x);
      return inner ? down_proj.after(*inner, x.dim(-1), {.residual = residual, .activation = f, .spends = true})
                   : inner;
    }
    auto inner = up_proj.with(x, f);
    return inner ? down_proj.to(*inner, x.dim(-1), {.residual = residual}) : inner;
  }
  auto gate = gate_proj(x);
  if (!gate) return gate;
  auto up = up_proj(x);
  return up ? down_proj.gated(*gate, *up, x.dim(-1), {.residual = residual, .activation = f, .spends = true}) : up;
}

Result<Tensor> Norm::run(const Tensor& x, bool spends) const noexcept {
  if (x.rank() < 1) return fail(Errc::invalid_size, "norm", "needs at least one axis", x.shape().dims());
  const Shape cols{x.dim(-1)};
  auto w = use(weight, cols, x, "norm");
  if (rms) return ops::rms_norm(x, w, eps, spends);
  return has_bias ? ops::layer_norm(x, w, use(bias, cols, x, "norm"), eps, spends) : ops::layer_norm(x, w, eps, spends);
}

TransformerBlock transformer_block(std::int64_t d_model, std::int64_t heads,
                                   const TransformerOptions& options) noexcept {
  const Norm norm{.rms = options.rms, .has_bias = options.bias, .eps = options.eps};
  AttentionOptions cross = options.attention;
  cross.rope = 0;
  cross.alibi = false;
  cross.window = 0;
  return {.attn_norm = norm,
          .attn = attention(d_model, heads, options.attention),
          .cross_norm = norm,
          .cross = attention(d_model, heads, cross),
          .ffn_norm = norm,
          .ffn = feed_forward(options.d_ff ? options.d_ff : 4 * d_model, {.kind = options.kind, .bias = options.bias}),
          .experts = nn::experts(options.experts, options.d_ff ? options.d_ff : 4 * d_model, options.mixture),
          .pre_norm = options.pre_norm,
          .decodes = options.cross,
          .sparse = options.experts > 0,
          .dropout = options.dropout};
}

Result<Tensor> TransformerBlock::run(const Tensor& x, const AttentionInputs& self,
                                     const AttentionInputs& over) const noexcept {
  // The halves take turns in memory where nothing is recorded; a tape keeps whole blocks, or none.
  const bool whole = recorded(x);
  const std::byte* const parts = free_memory(x);
  const auto part = [&](const Result<Tensor>& in, const Norm& norm, const auto& body) -> Result<Tensor> {
    if (!in) return in;
    const auto run = [&](const Tensor& t) -> Result<Tensor> {
      const Operand around = t;
      auto sum = body(t, dropout > 0 ? nullptr : &around, pre_norm ? &norm : nullptr);
      if (dropout > 0) sum = ops::add(t, ops::dropout(sum, dropout));
      return pre_norm || !sum ? sum : norm(*sum);
    };
    return whole ? run(*in) : in_own_frame(*in, run, parts);
  };
  const auto attend = [](const Attention& layer, const AttentionInputs& inputs) {
    return [&](const Tensor& in, const Operand* around, const Norm* norm) -> Result<Tensor> {
      auto all = layer.run(in, inputs, around, norm);
      if (!all) return fail(all.error());
      return all->y;
    };
  };
  const auto feed = [&](const Tensor& in, const Operand* around, const Norm* norm) {
    const auto inner = [&](const Tensor& t) -> Result<Tensor> {
      if (!sparse) return ffn.run(t, around);
      auto y = experts(t);
      return around ? ops::add(*around, y) : y;
    };
    return norm ? rematerialize(in, *norm, inner) : inner(in);
  };
  auto y = part(x, attn_norm, attend(attn, self));
  if (decodes) {
    // While a model is built by running it on x alone, x stands for the memory.
    AttentionInputs from = over;
    if (!given(from.memory)) from.memory = x;
    y = part(y, cross_norm, attend(cross, from));
  }
  return part(y, ffn_norm, feed);
}

namespace {

Result<Tensor> through(const Transformer& all, const Tensor& x, const AttentionInputs& self,
                       const AttentionInputs& over) noexcept {
  if (all.blocks.layers().size() != all.blocks.count())
    return fail(Errc::not_built, "transformer", "nn::build the model first", x.shape().dims());
  Result<Tensor> y = x;
  const std::byte* const steps = free_memory(x);
  for (const TransformerBlock& block : all.blocks.layers()) {
    if (y) y = in_own_frame(*y, [&](const Tensor& in) { return block.run(in, self, over); }, steps);
  }
  return y;
}

}  // namespace

Result<Tensor> Transformer::before_norm(const Tensor& x) const noexcept {
  if (!recompute || !recorded(x) || blocks.layers().size() != blocks.count()) return through(*this, x, {}, {});
  Result<Tensor> y = x;
  for (const TransformerBlock& block : blocks.layers()) {
    if (y) y = recompute(*y, body_of(block));
  }
  return y;
}

Result<Tensor> Transformer::operator()(const Tensor& x) const noexcept {
  auto y = before_norm(x);
  return normed && y ? norm(*y) : y;
}

Result<Tensor> Transformer::run(const Tensor& x, const AttentionInputs& self,
                                const AttentionInputs& over) const noexcept {
  auto y = through(*this, x, self, over);
  return normed && y ? norm(*y) : y;
}

namespace {

Transformer stack(std::size_t layers, std::int64_t d_model, std::int64_t heads,
                  const TransformerOptions& options) noexcept {
  return {.blocks = repeat(layers, transformer_block(d_model, heads, options)),
          .norm = {.rms = options.rms, .has_bias = options.bias, .eps = options.eps},
          .normed = options.pre_norm,
          .recompute = options.recompute};
}

}  // namespace

Transformer encoder(std::size_t layers, std::int64_t d_model, std::int64_t heads, TransformerOptions options) noexcept {
  options.attention.causal = false;
  return stack(layers, d_model, heads, options);
}

Transformer decoder(std::size_t layers, std::int64_t d_model, std::int64_t heads, TransformerOptions options) noexcept {
  options.attention.causal = true;
  return stack(layers, d_model, heads, options);
}

Result<Tensor> Positions::operator()(const Tensor& x) const noexcept {
  if (x.rank() != 3 || x.dim(1) > context)
    return fail(Errc::invalid_size, "positions", "needs x: [batch, seq, d_model], seq at most the context",
                x.shape().dims(), Shape{context}.dims());
  return x + ops::slice(use(weight, Shape{context, x.dim(2)}, x, "positions"), 0, 0, x.dim(1));
}

Result<Tensor> Sinusoids::operator()(const Tensor& x) const noexcept {
  if (x.rank() != 3) return fail(Errc::invalid_size, "sinusoids", "needs x: [batch, seq, d_model]", x.shape().dims());
  const Operand in = x;
  auto context = common_context("sinusoids", {&in});
  if (!context) return fail(context.error());
  return x + ops::sinusoids(**context, x.dim(1), x.dim(2));
}

Result<Tensor> Bilinear::operator()(const Tensor& a, const Tensor& b) const noexcept {
  if (a.rank() != 2 || b.rank() != 2 || a.dim(0) != b.dim(0))
    return fail(Errc::invalid_size, "bilinear", "needs a: [batch, in_a] and b: [batch, in_b]", a.shape().dims(),
                b.shape().dims());
  const std::int64_t batch = a.dim(0), rows = out_features * a.dim(1);
  auto w = use(weight, Shape{out_features, a.dim(1), b.dim(1)}, a, "bilinear");
  auto inner = ops::reshape(ops::linear(b, ops::reshape(w, {rows, b.dim(1)})), {batch, out_features, a.dim(1)});
  auto y = ops::reshape(ops::matmul(inner, ops::unsqueeze(a, 2)), {batch, out_features});
  return has_bias ? y + use(bias, Shape{out_features}, a, "bilinear") : y;
}

}  // namespace qorus::nn
