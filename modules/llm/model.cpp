// Bodies of qorus.llm:model: from names to weights.
module qorus.llm;
import qorus.std;
import :binder;

namespace qorus::llm {

bool Model::ends_text(std::int32_t id) const noexcept {
  return std::find(ends_.begin(), ends_.end(), id) != ends_.end();
}

// Opens one model, step by step; the first error ends it.
class Opener {
 public:
  [[nodiscard]] Status run(std::string_view path, const OpenOptions& options) noexcept {
    auto weights = Weights::open(path);
    if (!weights) return fail(weights.error());
    model.weights_ = std::move(*weights);
    model.weights_.expect_reading();
    auto config = model.weights_.config();
    if (!config) return fail(config.error());
    model.config_ = std::move(*config);
    if (auto done = read_vocabulary_size(); !done) return done;
    if (auto good = check_config(model.config_); !good) return good;
    auto packed = PackedWeights::create(model.weights_.bytes());
    if (!packed) return fail(packed.error());
    model.packed_ = std::move(*packed);
    Binder binder(model.weights_, model.config_, model.layers_, model.converted_, model.packed_, options.lay_out);
    if (auto bound = binder.run(); !bound) return bound;
    if (!options.adapter.empty()) {
      auto adapter = read_adapter(options.adapter, model.config_);
      if (!adapter) return fail(adapter.error());
      auto added = add_adapter(model.layers_, *adapter, options.adapter_scale);
      if (!added) return added;
      for (AdapterPart& part : adapter->parts.span()) {
        for (Owned* owned : {&part.a, &part.b}) {
          if (auto kept = model.converted_.push(std::move(*owned)); !kept) return kept;
        }
      }
    }
    take_fingerprint();
    Companions companions(model.weights_, path);
    auto tokenizer = companions.tokenizer(options.tokenizer, model.config_.vocab);
    if (!tokenizer) return fail(tokenizer.error());
    model.tokenizer_ = std::move(*tokenizer);
    if (model.tokenizer_.size() > static_cast<std::size_t>(model.config_.vocab))
      return fail(Errc::invalid_size, "open", "the tokenizer has more pieces than the embedding has rows", path);
    if (auto done = companions.ends(model.tokenizer_, model.ends_); !done) return done;
    if (auto done = companions.sampling(model.suggested_); !done) return done;
    if (auto done = companions.chat_template(model.template_); !done) return done;
    return model.packed_.start();  // last, so that it does not keep the rest from its processor
  }

  Model model;

 private:
  [[nodiscard]] Status read_vocabulary_size() noexcept {
    auto embedding = model.weights_.tensor("token_embd.weight");
    if (!embedding) return fail(embedding.error());
    if (embedding->rank() != 2)
      return fail(Errc::invalid_size, "open", "an embedding is [vocabulary, d_model]", embedding->shape().dims());
    model.config_.vocab = embedding->dim(0);
    return {};
  }

  // FNV-1a of the sizes and of the first bytes of some weights.
  void take_fingerprint() noexcept {
    std::uint64_t hash = 0xcbf29ce484222325;
    const auto mix = [&](std::span<const std::byte> bytes) {
      for (const std::byte b : bytes) hash = (hash ^ static_cast<std::uint64_t>(b)) * 0x100000001b3;
    };
    const Config& c = model.config_;
    const std::int64_t sizes[] = {c.layers, c.d_model, c.heads, c.kv_heads, c.head_dim, c.d_ff, c.vocab, c.experts};
    mix(std::as_bytes(std::span(sizes)));
    for (const nn::Param* param :
         {&model.layers_.embedding.weight, &model.layers_.norm.weight, &model.layers_.blocks.back().attn_norm.weight}) {
      const Tensor& t = param->tensor;
      const auto bytes = static_cast<std::size_t>(element_offset(t.dtype(), static_cast<std::int64_t>(t.numel())));
      mix({t.data(), std::min<std::size_t>(bytes, 4096)});
    }
    model.fingerprint_ = hash;
  }
};

Result<Model> open(std::string_view path, const OpenOptions& options) noexcept {
  Opener opener;
  const Status done = opener.run(path, options);
  if (auto there = opener.model.whole(); !there) return fail(there.error().about(path));
  if (!done) return fail(done.error());
  return std::move(opener.model);
}

}  // namespace qorus::llm
