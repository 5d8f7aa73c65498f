// What transformers are built of: attention layers, feed-forward layers, positions, blocks of encoders and decoders.
export module qorus.nn:transformer;
import qorus.std;
import qorus.ops;
import :param;
import :layers;
import :chain;
import :checkpoint;
import :experts;

export namespace qorus::nn {

struct AttentionOptions {
  std::int64_t kv_heads = 0;  // 0: as many as heads
  std::int64_t head_dim = 0;  // 0: d_model / heads
  bool causal = true;
  bool bias = false;  // of the projections
  float rope = 0;     // above 0: rotary positions with this base
  ops::RopePairs pairs = ops::RopePairs::halves;
  bool alibi = false;
  float softcap = 0;        // above 0: softcap tanh(scores / softcap)
  std::int64_t window = 0;  // above 0: the last so many keys
  float scale = 0;          // 0: 1 / sqrt(head_dim)
};
// What an attention layer may take beside x; each optional.
struct AttentionInputs {
  Result<Tensor> memory = Tensor();   // [batch, keys, features]: keys and values come from here (cross-attention)
  Result<Tensor> mask = Tensor();     // as ops::AttentionOptions has it
  Result<Tensor> lengths = Tensor();  // [batch] i32
  Result<Tensor> past_keys = Tensor(),
                 past_values = Tensor();  // [batch, kv_heads, past, head_dim]: come before the new ones
};
// y: [batch, seq, d_model]; keys, values: past and new ones, [batch, kv_heads, keys, head_dim].
struct AttentionResult {
  Tensor y, keys, values;
};

struct Norm;
// Multi-head attention with grouped queries; x, y: [batch, seq, d_model].
struct Attention {
  static constexpr std::string_view k_name = "attention";
  Linear q_proj, k_proj, v_proj, o_proj;
  std::int64_t heads = 1;
  AttentionOptions options = {};

  static constexpr auto fields() {
    return nn::fields("q_proj", &Attention::q_proj, "k_proj", &Attention::k_proj, "v_proj", &Attention::v_proj,
                      "o_proj", &Attention::o_proj);
  }
  template <class Self, class F>
  static void settings(Self& self, F&& f) {
    f("heads", self.heads);
    f("kv_heads", self.options.kv_heads);
    f("head_dim", self.options.head_dim);
    f("causal", self.options.causal);
    f("rope", self.options.rope);
    f("pairs", self.options.pairs);
    f("alibi", self.options.alibi);
    f("softcap", self.options.softcap);
    f("window", self.options.window);
    f("scale", self.options.scale);
  }
  [[nodiscard]] Result<Tensor> operator()(const Tensor& x) const noexcept;
  // residual, if given, is added to y; norm, if given, comes before the projections of x, and a tape makes its result again. Errors:
  // invalid_argument (heads), invalid_size, and those of ops::attention.
  [[nodiscard]] Result<AttentionResult> run(const Tensor& x, const AttentionInputs& inputs = {},
                                            const Operand* residual = nullptr,
                                            const Norm* norm = nullptr) const noexcept;
};
[[nodiscard]] Attention attention(std::int64_t d_model, std::int64_t heads,
                                  const AttentionOptions& options = {}) noexcept;

// up: [d_model] to [d_ff], a function, and back. Gated ones multiply by a second projection of x: down(f(gate x) up x), Shazeer 2020.
enum class FeedForwardKind : std::uint8_t { relu, gelu, gelu_tanh, silu, swiglu, geglu };
struct FeedForward {
  static constexpr std::string_view k_name = "feed_forward";
  Linear gate_proj, up_proj, down_proj;  // gate_proj: of the gated ones
  FeedForwardKind kind = FeedForwardKind::gelu;

  static constexpr auto fields() {
    return nn::fields("gate_proj", &FeedForward::gate_proj, "up_proj", &FeedForward::up_proj, "down_proj",
                      &FeedForward::down_proj);
  }
  [[nodiscard]] bool gated() const noexcept {
    return kind == FeedForwardKind::swiglu || kind == FeedForwardKind::geglu;
  }
  template <class Self, class F>
  static void settings(Self& self, F&& f) {
    f("form", self.kind);
  }
  [[nodiscard]] Result<Tensor> operator()(const Tensor& x) const noexcept { return run(x); }
  // residual, if given, is added to y.
  [[nodiscard]] Result<Tensor> run(const Tensor& x, const Operand* residual = nullptr) const noexcept;
};
struct FeedForwardOptions {
  FeedForwardKind kind = FeedForwardKind::gelu;
  bool bias = true;
};
[[nodiscard]] inline FeedForward feed_forward(std::int64_t d_ff, const FeedForwardOptions& options = {}) noexcept {
  const LinearOptions plain{.bias = options.bias};
  return {linear(d_ff, plain), linear(d_ff, plain), linear(0, plain), options.kind};
}

// Layer norm or RMS norm, chosen at run time.
struct Norm {
  static constexpr std::string_view k_name = "norm";
  static constexpr bool k_remakes = true;
  Param weight{.role = Role::gain}, bias{.role = Role::bias};
  bool rms = false, has_bias = true;
  float eps = 1e-5f;

  static constexpr auto fields() { return nn::fields("weight", &Norm::weight, "bias", &Norm::bias); }
  template <class Self, class F>
  static void settings(Self& self, F&& f) {
    f("rms", self.rms);
    f("bias", self.has_bias);
    f("eps", self.eps);
  }
  [[nodiscard]] Result<Tensor> operator()(const Tensor& x) const noexcept { return run(x, false); }
  // spends: as ops::layer_norm has it.
  [[nodiscard]] Result<Tensor> run(const Tensor& x, bool spends) const noexcept;
};

struct TransformerOptions {
  AttentionOptions attention = {};
  FeedForwardKind kind = FeedForwardKind::gelu;
  std::int64_t d_ff = 0;  // 0: 4 d_model
  bool pre_norm = true;   // norm before each part (GPT-2, Llama) or after the sum (Vaswani et al. 2017)
  bool rms = false;
  bool bias = false;  // of norms and feed-forward
  float dropout = 0;  // of each part's result
  float eps = 1e-5f;
  std::int64_t experts = 0;  // above 0: a sparse mixture of so many in place of the feed-forward layer
  ExpertsOptions mixture = {};
  bool cross = false;             // a decoder's block: attention over a memory between the two parts
  Recompute recompute = nullptr;  // nn::recompute: each block is computed again in its backward, as nn::checkpoint does
};

// x + attn(norm x), then (a decoder) x + cross(norm x, memory), then x + ffn(norm x); or each norm after its sum. x: [batch, seq, d_model].
struct TransformerBlock {
  static constexpr std::string_view k_name = "transformer_block";
  Norm attn_norm;
  Attention attn;
  Norm cross_norm;
  Attention cross;
  Norm ffn_norm;
  FeedForward ffn;
  Experts experts;
  bool pre_norm = true, decodes = false, sparse = false;
  float dropout = 0;

  static constexpr auto fields() {
    return nn::fields("attn_norm", &TransformerBlock::attn_norm, "attn", &TransformerBlock::attn, "cross_norm",
                      &TransformerBlock::cross_norm, "cross", &TransformerBlock::cross, "ffn_norm",
                      &TransformerBlock::ffn_norm, "ffn", &TransformerBlock::ffn, "experts",
                      &TransformerBlock::experts);
  }
  template <class Self, class F>
  static void settings(Self& self, F&& f) {
    f("pre_norm", self.pre_norm);
    f("decodes", self.decodes);
    f("sparse", self.sparse);
    f("dropout", self.dropout);
  }
  [[nodiscard]] Result<Tensor> operator()(const Tensor& x) const noexcept { return run(x); }
  // `self`: mask and lengths of x. `over`: the memory, with its mask and lengths.
  [[nodiscard]] Result<Tensor> run(const Tensor& x, const AttentionInputs& self = {},
                                   const AttentionInputs& over = {}) const noexcept;
};
[[nodiscard]] TransformerBlock transformer_block(std::int64_t d_model, std::int64_t heads,
                                                 const TransformerOptions& options = {}) noexcept;

// Blocks in a row with what they share: as a layer, y = blocks(x). norm: after the last block, where blocks norm before their parts.
struct Transformer {
  static constexpr std::string_view k_name = "transformer";
  Repeat<TransformerBlock> blocks;
  Norm norm;
  bool normed = true;
  Recompute recompute = nullptr;  // of blocks without masks, lengths or a memory

  static constexpr auto fields() { return nn::fields("blocks", &Transformer::blocks, "norm", &Transformer::norm); }
  template <class Self, class F>
  static void settings(Self& self, F&& f) {
    f("normed", self.normed);
  }
  [[nodiscard]] Result<Tensor> operator()(const Tensor& x) const noexcept;
  [[nodiscard]] Result<Tensor> before_norm(const Tensor& x) const noexcept;  // what the last norm is taken of
  [[nodiscard]] Result<Tensor> run(const Tensor& x, const AttentionInputs& self = {},
                                   const AttentionInputs& over = {}) const noexcept;
};
// Attention in both directions, whatever options.attention.causal says.
[[nodiscard]] Transformer encoder(std::size_t layers, std::int64_t d_model, std::int64_t heads,
                                  TransformerOptions options = {}) noexcept;
// Causal; options.cross makes it one that attends to a memory: decoder.run(x, {}, {.memory = encoded}).
[[nodiscard]] Transformer decoder(std::size_t layers, std::int64_t d_model, std::int64_t heads,
                                  TransformerOptions options = {}) noexcept;

// x + weight[position]; x: [batch, seq, d_model], weight: [context, d_model]. Errors: invalid_size (seq above context).
struct Positions {
  static constexpr std::string_view k_name = "positions";
  Param weight;
  std::int64_t context = 0;
  static constexpr auto fields() { return nn::fields("weight", &Positions::weight); }
  template <class Self, class F>
  static void settings(Self& self, F&& f) {
    f("context", self.context);
  }
  [[nodiscard]] Result<Tensor> operator()(const Tensor& x) const noexcept;
};
[[nodiscard]] inline Positions positions(std::int64_t context) noexcept { return {.context = context}; }

// x + ops::sinusoids.
struct Sinusoids {
  static constexpr std::string_view k_name = "sinusoids";
  [[nodiscard]] Result<Tensor> operator()(const Tensor& x) const noexcept;
};
[[nodiscard]] constexpr Sinusoids sinusoids() noexcept { return {}; }

// y[o] = a^T weight[o] b + bias[o]; a: [batch, in_a], b: [batch, in_b], weight: [out, in_a, in_b]. Alone with x: a = b = x.
struct Bilinear {
  static constexpr std::string_view k_name = "bilinear";
  Param weight, bias{.role = Role::bias};
  std::int64_t out_features = 0;
  bool has_bias = true;
  static constexpr auto fields() { return nn::fields("weight", &Bilinear::weight, "bias", &Bilinear::bias); }
  template <class Self, class F>
  static void settings(Self& self, F&& f) {
    f("out_features", self.out_features);
    f("bias", self.has_bias);
  }
  [[nodiscard]] Result<Tensor> operator()(const Tensor& a, const Tensor& b) const noexcept;
  [[nodiscard]] Result<Tensor> operator()(const Tensor& x) const noexcept { return (*this)(x, x); }
};
[[nodiscard]] inline Bilinear bilinear(std::int64_t out_features, const LinearOptions& options = {}) noexcept {
  return {.out_features = out_features, .has_bias = options.bias};
}

}  // namespace qorus::nn
