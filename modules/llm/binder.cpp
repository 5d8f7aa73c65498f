// Bodies of Binder.
module qorus.llm;
import qorus.std;
import :binder;

namespace qorus::llm {

Status Binder::run() noexcept {
  const Architecture& a = *c_.architecture;
  net_.embedding = nn::embedding(c_.vocab, c_.d_model);
  Text name = name_of("token_embd", "weight");
  if (auto done = place(net_.embedding.weight, name, Shape{c_.vocab, c_.d_model}); !done) return done;
  if (a.learned_positions) {
    net_.positions = nn::embedding(c_.context, c_.d_model);
    name = name_of("position_embd", "weight");
    if (auto done = place(net_.positions.weight, name, Shape{c_.context, c_.d_model}); !done) return done;
  }
  for (std::int64_t i = 0; i < c_.layers; ++i) {
    if (auto done = bind_block(i); !done) return done;
    if (auto done = packed_.end_layer(); !done) return done;
    note_laying(net_.blocks.back());
  }
  layer_ = -1;
  const auto kind = a.layer_norm ? Norm::Kind::layer : Norm::Kind::rms;
  if (auto done = bind_norm(net_.norm, "output_norm", c_.d_model, kind); !done) return done;
  if (auto done = bind_head(); !done) return done;
  net_.head.laying = packed_.laying_of(net_.head.weight);
  return {};
}

Status Binder::bind_head() noexcept {
  static_cast<nn::Linear&>(net_.head) = nn::linear(c_.vocab, {.bias = false});
  if (weights_.has("output.weight")) return bind_linear(net_.head, "output", c_.vocab, c_.d_model, false);
  net_.head.weight.tensor = net_.embedding.weight.tensor;  // tied
  return pack(net_.head.weight, name_of("token_embd", "weight"), 0);
}

void Binder::note_laying(Block& block) const noexcept {
  const auto note = [&](Projection& p) { p.laying = packed_.laying_of(p.weight); };
  for (Projection* p : {&block.q_proj, &block.k_proj, &block.v_proj, &block.o_proj}) note(*p);
  const auto note_feed = [&](Feed& feed) {
    for (Projection* p : {&feed.gate, &feed.up, &feed.down}) note(*p);
  };
  note_feed(block.feed);
  note_feed(block.experts.shared);
  for (Feed& feed : block.experts.each.span()) note_feed(feed);
}

Status Binder::bind_block(std::int64_t layer) noexcept {
  layer_ = layer;
  if (auto made = net_.blocks.push(Block()); !made) return made;
  Block& block = net_.blocks.back();
  const Architecture& a = *c_.architecture;
  const auto kind = a.layer_norm ? Norm::Kind::layer : Norm::Kind::rms;
  block.window = c_.windowed(layer) ? c_.window : 0;
  if (auto done = bind_norm(block.attn_norm, "attn_norm", c_.d_model, kind); !done) return done;
  if (auto done = bind_attention(block); !done) return done;
  if (auto done = bind_norm(block.ffn_norm, "ffn_norm", c_.d_model, kind); !done) return done;
  if (a.post_norms) {
    if (auto done = bind_norm(block.attn_post_norm, "post_attention_norm", c_.d_model, kind); !done) return done;
    if (auto done = bind_norm(block.ffn_post_norm, "post_ffw_norm", c_.d_model, kind); !done) return done;
  }
  return c_.has_experts(layer) ? bind_experts(block.experts) : bind_feed(block.feed, "", c_.d_ff);
}

Status Binder::bind_attention(Block& block) noexcept {
  const Architecture& a = *c_.architecture;
  const std::int64_t q = c_.heads * c_.head_dim, kv = c_.kv_heads * c_.head_dim;
  const bool needed = a.all_bias || a.qkv_bias;
  if (weights_.has(name_of("attn_qkv", "weight").view())) {
    if (auto done = bind_qkv(block); !done) return done;
  } else {
    if (auto done = bind_linear(block.q_proj, "attn_q", q, c_.d_model, needed); !done) return done;
    if (auto done = bind_linear(block.k_proj, "attn_k", kv, c_.d_model, needed); !done) return done;
    if (auto done = bind_linear(block.v_proj, "attn_v", kv, c_.d_model, needed); !done) return done;
  }
  if (a.qk_norm) {
    if (auto done = bind_norm(block.q_norm, "attn_q_norm", c_.head_dim, Norm::Kind::rms); !done) return done;
    if (auto done = bind_norm(block.k_norm, "attn_k_norm", c_.head_dim, Norm::Kind::rms); !done) return done;
  }
  return bind_linear(block.o_proj, "attn_output", c_.d_model, q, a.all_bias);
}

// One tensor with the rows of all three.
Status Binder::bind_qkv(Block& block) noexcept {
  const std::int64_t q = c_.heads * c_.head_dim, kv = c_.kv_heads * c_.head_dim;
  const struct {
    nn::Linear& linear;
    std::int64_t first, rows;
  } parts[] = {{block.q_proj, 0, q}, {block.k_proj, q, kv}, {block.v_proj, q + kv, kv}};
  const Text name = name_of("attn_qkv", "weight"), bias_name = name_of("attn_qkv", "bias");
  auto weight = find(name);
  if (!weight) return fail(weight.error());
  const bool bias = c_.architecture->all_bias || c_.architecture->qkv_bias || weights_.has(bias_name.view());
  auto shift = bias ? find(bias_name) : weight;
  if (!shift) return fail(shift.error());
  if (weight->dim(0) != q + 2 * kv || (bias && shift->dim(0) != q + 2 * kv))
    return fail(Errc::invalid_size, "open", "queries, keys and values in one have another number of rows", name.view());
  for (const auto& part : parts) {
    part.linear = nn::linear(part.rows, {.bias = bias});
    if (auto done = place(part.linear.weight, name, *weight, part.first, Shape{part.rows, c_.d_model}); !done)
      return done;
    if (!bias) continue;
    if (auto done = place(part.linear.bias, bias_name, *shift, part.first, Shape{part.rows}); !done) return done;
  }
  return {};
}

Status Binder::bind_feed(Feed& feed, const char* under, std::int64_t width) noexcept {
  feed.gated = c_.architecture->gated;
  feed.activation = c_.activation;
  const auto part = [&](const char* name) {
    Text full;
    (full += under) += name;
    return full;
  };
  if (feed.gated && *under == 0 && !weights_.has(name_of("ffn_gate", "weight").view())) {
    const bool own_name = weights_.has(name_of("ffn_gate_up", "weight").view());
    if (auto done = bind_fused_feed(feed, own_name ? "ffn_gate_up" : "ffn_up", width); !done) return done;
  } else {
    const bool needed = c_.architecture->all_bias;
    if (feed.gated) {
      if (auto done = bind_linear(feed.gate, part("ffn_gate").c_str(), width, c_.d_model, needed); !done) return done;
    }
    if (auto done = bind_linear(feed.up, part("ffn_up").c_str(), width, c_.d_model, needed); !done) return done;
  }
  return bind_linear(feed.down, part("ffn_down").c_str(), c_.d_model, width, c_.architecture->all_bias);
}

// One tensor with the rows of the gate, then those of up.
Status Binder::bind_fused_feed(Feed& feed, const char* fused, std::int64_t width) noexcept {
  const Text name = name_of(fused, "weight");
  auto weight = find(name);
  if (!weight) return fail(weight.error());
  if (weight->dim(0) != 2 * width)
    return fail(Errc::invalid_size, "open", "gate and up in one have another number of rows", name.view());
  for (nn::Linear* part : {static_cast<nn::Linear*>(&feed.gate), static_cast<nn::Linear*>(&feed.up)})
    *part = nn::linear(width, {.bias = false});
  if (auto done = place(feed.gate.weight, name, *weight, 0, Shape{width, c_.d_model}); !done) return done;
  return place(feed.up.weight, name, *weight, width, Shape{width, c_.d_model});
}

Status Binder::bind_experts(Experts& experts) noexcept {
  experts.used = c_.experts_used;
  experts.normalised = c_.normalises_experts;
  if (auto done = bind_linear(experts.router, "ffn_gate_inp", c_.experts, c_.d_model, false); !done) return done;
  for (std::int64_t e = 0; e < c_.experts; ++e) {
    Feed feed;
    feed.activation = c_.activation;
    if (auto done = bind_expert(feed, e); !done) return done;
    if (auto pushed = experts.each.push(feed); !pushed) return pushed;
  }
  experts.has_shared = c_.shared_ff > 0;
  if (!experts.has_shared) return {};
  if (auto done = bind_feed(experts.shared, "shared.", c_.shared_ff); !done) return done;
  const Text name = name_of("ffn_gate_inp_shexp", "weight");
  auto gate = find(name);
  if (!gate) return fail(gate.error());
  experts.shared_gate = nn::linear(1, {.bias = false});
  const Tensor row = gate->rank() == 1 ? gate->seen_as(Layout::dense(Shape{1, gate->dim(0)})) : *gate;
  return place(experts.shared_gate.weight, name, row, 0, Shape{1, c_.d_model});
}

// An expert's three matrices: one of many in a tensor of rank 3, or tensors of their own under either kind of name.
Status Binder::bind_expert(Feed& feed, std::int64_t index) noexcept {
  const struct {
    const char* part;
    nn::Linear& linear;
    std::int64_t out, in;
  } parts[] = {{"ffn_gate", feed.gate, c_.expert_ff, c_.d_model},
               {"ffn_up", feed.up, c_.expert_ff, c_.d_model},
               {"ffn_down", feed.down, c_.d_model, c_.expert_ff}};
  for (const auto& p : parts) {
    p.linear = nn::linear(p.out, {.bias = false});
    Text own, together;
    ((own += "experts.") += index) += ".";
    own += p.part;
    (together += p.part) += "_exps";
    const Text joint = name_of(together.c_str(), "weight");
    if (weights_.kind() != Weights::Kind::gguf || !weights_.has(joint.view())) {
      if (weights_.kind() == Weights::Kind::gguf) ((own = Text()) += p.part) += ".", own += index;
      if (auto done = place(p.linear.weight, name_of(own.c_str(), "weight"), Shape{p.out, p.in}); !done) return done;
      continue;
    }
    auto all = find(joint);
    if (!all) return fail(all.error());
    if (all->shape() != Shape{c_.experts, p.out, p.in})
      return fail(Errc::invalid_size, "open", "experts of another number or size", joint.view());
    const Tensor rows = all->seen_as(Layout::dense(Shape{c_.experts * p.out, p.in}));
    if (auto done = place(p.linear.weight, joint, rows, index * p.out, Shape{p.out, p.in}); !done) return done;
  }
  return {};
}

Status Binder::bind_linear(nn::Linear& linear, const char* part, std::int64_t out, std::int64_t in,
                           bool bias_needed) noexcept {
  const Text bias_name = name_of(part, "bias");
  linear = nn::linear(out, {.bias = bias_needed || weights_.has(bias_name.view())});
  if (auto done = place(linear.weight, name_of(part, "weight"), Shape{out, in}); !done) return done;
  return linear.has_bias ? place(linear.bias, bias_name, Shape{out}) : Status{};
}

Status Binder::bind_norm(Norm& norm, const char* part, std::int64_t size, Norm::Kind kind) noexcept {
  norm.kind = kind;
  norm.eps = c_.norm_eps;
  if (auto done = place(norm.weight, name_of(part, "weight"), Shape{size}); !done) return done;
  return kind == Norm::Kind::layer ? place(norm.bias, name_of(part, "bias"), Shape{size}) : Status{};
}

Text Binder::name_of(const char* part, const char* tail) const noexcept {
  Text name;
  if (layer_ >= 0) ((name += "blk.") += layer_) += ".";
  return ((name += part) += ".") += tail;
}

// The tensor as [out, in], however the file has it.
Result<Tensor> Binder::find(const Text& name) noexcept {
  auto stored = weights_.tensor(name.view());
  if (!stored && stored.error().code == Errc::misaligned) {
    auto copy = weights_.copy(name.view());
    if (!copy) return fail(copy.error());
    stored = copy->tensor();
    if (auto kept = converted_.push(std::move(*copy)); !kept) return fail(kept.error());
  }
  if (!stored) return fail(stored.error().about(name.view()));
  const bool turned = weights_.kind() == Weights::Kind::safetensors && c_.architecture->transposed &&
                      stored->rank() == 2 && name.view().starts_with("blk.");
  if (!turned) return stored;
  Layout layout{.shape = Shape{stored->dim(1), stored->dim(0)}};
  layout.stride = {stored->stride(1), stored->stride(0)};
  return stored->seen_as(layout);
}

Status Binder::place(nn::Param& param, const Text& name, const Shape& shape) noexcept {
  auto stored = find(name);
  if (!stored) return fail(stored.error());
  if (stored->shape() != shape) {
    return fail(fail(Errc::invalid_size, "open", "the first is the file's, the second what the model needs",
                     stored->shape().dims(), shape.dims())
                    .value()
                    .about(name.view()));
  }
  return place(param, name, *stored, 0, shape);
}

Status Binder::place(nn::Param& param, const Text& name, const Tensor& stored, std::int64_t first,
                     const Shape& shape) noexcept {
  Layout layout = stored.layout();
  if (stored.rank() != shape.rank() || first + shape[0] > stored.dim(0) ||
      (shape.rank() == 2 && stored.dim(1) != shape[1])) {
    return fail(fail(Errc::invalid_size, "open", "the first is the file's, the second a part of what the model needs",
                     stored.shape().dims(), shape.dims())
                    .value()
                    .about(name.view()));
  }
  layout.offset = first * layout.stride[0];
  layout.shape = shape;
  const Tensor part = stored.seen_as(layout);
  const bool lacks_one = weights_.kind() == Weights::Kind::safetensors && c_.architecture->norms_lack_one &&
                         name.view().find("norm.weight") != std::string_view::npos;
  if (part.dtype() == DType::f32 && part.contiguous() && !lacks_one) {
    param.tensor = part;
    return {};
  }
  const bool readable = PackedWeights::takes(part) ||
                        (!lay_out_ && part.rank() == 2 && part.contiguous() &&
                         (is_block(part.dtype()) || part.dtype() == DType::f16 || part.dtype() == DType::bf16));
  if (!lacks_one && readable) {  // an embedding's rows are looked up as they are stored
    param.tensor = part;
    return pack(param, name, first);
  }
  auto made = convert(part, lacks_one ? 1 : 0);
  if (!made) return fail(made.error().about(name.view()));
  param.tensor = *made;
  return {};
}

// What products read, laid out for them; the file's bytes are not needed then, but for rows that an embedding looks up.
Status Binder::pack(nn::Param& param, const Text& name, std::int64_t first) noexcept {
  const bool looked_up = &param == &net_.embedding.weight || &param == &net_.positions.weight;
  if (!lay_out_ || looked_up || !PackedWeights::takes(param.tensor)) return {};
  if (take_laid_out(param, name, first)) return {};
  return packed_.pack(param, weights_.kind() == Weights::Kind::gguf);
}

// What the file has laid out ahead, if the rows are whole panels of it.
bool Binder::take_laid_out(nn::Param& param, const Text& name, std::int64_t first) const noexcept {
  constexpr std::int64_t k_panel = 16;
  const formats::LaidOut* all = weights_.laid_out(name.view());
  const std::int64_t rows = param.tensor.dim(0);
  if (!all || first % k_panel != 0 || (rows % k_panel != 0 && first + rows != all->rows)) return false;
  const std::size_t bytes = ops::packed_bytes(param.tensor.dtype(), param.tensor.shape());
  const std::size_t panel = all->bytes.numel() / static_cast<std::size_t>((all->rows + k_panel - 1) / k_panel);
  const std::size_t begin = static_cast<std::size_t>(first / k_panel) * panel;
  if (param.tensor.dim(1) != all->columns || begin + bytes > all->bytes.numel()) return false;
  param.packed = Tensor(all->bytes.data() + begin, DType::u8, Layout::dense(Shape{static_cast<std::int64_t>(bytes)}),
                        all->bytes.lifetime());
  return true;
}

// A copy in f32, row-major, with a number added.
Result<Tensor> Binder::convert(const Tensor& stored, float add) noexcept {
  Workspace workspace{{.scratch = stored.numel() * 3 * sizeof(float) + 1_MiB, .threads = 1}};
  auto frame = workspace.frame();
  auto made = ops::cast(ops::contiguous(frame.input(stored)), DType::f32);
  auto kept = (add != 0 ? made + add : made).and_then(keep);
  if (!kept) return fail(kept.error());
  const Tensor result = kept->tensor();
  if (auto pushed = converted_.push(std::move(*kept)); !pushed) return fail(pushed.error());
  return result;
}

}  // namespace qorus::llm
