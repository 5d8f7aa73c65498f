// Language models ready to build: ids [batch, seq] i32 to logits [batch, seq, vocab].
export module qorus.nn:language;
import qorus.std;
import qorus.ops;
import :param;
import :layers;
import :loss;
import :chain;
import :transformer;

export namespace qorus::nn {

struct LanguageOptions {
  std::int64_t vocab = 0, context = 0, d_model = 0, heads = 1;
  std::size_t layers = 1;
  TransformerOptions block = {};
  bool positions = true;  // learned ones are added to the embeddings
  bool tied = true;       // the head's weight is the embedding's
};

// Embeddings (and learned positions), a causal transformer, logits.
struct LanguageModel {
  static constexpr std::string_view k_name = "language_model";
  Embedding tokens;
  Positions positions;
  Transformer decoder;
  Linear head;
  bool placed = true, tied = true;
  float dropout = 0;

  static constexpr auto fields() {
    return nn::fields("tokens", &LanguageModel::tokens, "positions", &LanguageModel::positions, "decoder",
                      &LanguageModel::decoder, "head", &LanguageModel::head);
  }
  [[nodiscard]] Result<Tensor> operator()(const Tensor& ids) const noexcept {
    auto x = hidden(ids);
    if (!x) return x;
    return tied ? tokens.logits(*x) : head(*x);
  }
  // loss((*this)(ids)), without all logits in memory.
  [[nodiscard]] Result<Tensor> loss(const Tensor& ids, const BoundLoss& loss) const noexcept;
  // What the blocks get, and what the head makes logits of: [batch, seq, d_model].
  [[nodiscard]] Result<Tensor> embedded(const Tensor& ids) const noexcept {
    const auto both = [&](const Tensor& t) {
      auto rows = tokens.rows(t, true);
      return rows ? positions(*rows) : rows;
    };
    const Result<Tensor> x = placed ? with_transients(ids, both) : tokens(ids);
    return dropout > 0 ? ops::dropout(x, dropout) : x;
  }
  [[nodiscard]] Result<Tensor> hidden(const Tensor& ids) const noexcept {
    auto x = embedded(ids);
    return x ? decoder(*x) : x;
  }
};
[[nodiscard]] inline LanguageModel language_model(const LanguageOptions& o) noexcept {
  return {.tokens = embedding(o.vocab, o.d_model),
          .positions = nn::positions(o.context),
          .decoder = nn::decoder(o.layers, o.d_model, o.heads, o.block),
          .head = linear(o.vocab, {.bias = false}),
          .placed = o.positions,
          .tied = o.tied,
          .dropout = o.block.dropout};
}
// As GPT-2: learned positions, layer norm before each part, gelu, the head tied. Radford et al. 2019.
[[nodiscard]] inline LanguageModel gpt(const LanguageOptions& options) noexcept { return language_model(options); }
// As Llama: rotary positions, RMS norm, SwiGLU, no biases, a head of its own; options.block.attention.kv_heads groups the queries.
// Touvron et al. 2023.
[[nodiscard]] inline LanguageModel llama(LanguageOptions options) noexcept {
  options.block.rms = true;
  options.block.kind = FeedForwardKind::swiglu;
  if (options.block.attention.rope <= 0) options.block.attention.rope = 10000;
  options.positions = false;
  options.tied = false;
  return language_model(options);
}

}  // namespace qorus::nn
