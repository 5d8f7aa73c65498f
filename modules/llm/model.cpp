// Bodies of qorus.llm:model: from metadata to numbers, from names to weights.
module;
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <string_view>
#include <utility>
module qorus.llm;

namespace qorus::llm {

// Opens one file, step by step; the first error ends it.
class Opener {
 public:
  [[nodiscard]] Status run(std::string_view path) noexcept {
    auto file = io::read_gguf(path);
    if (!file) return fail(file.error());
    model.file_ = std::move(*file);
    auto done = configure();
    if (done) done = check();
    if (done) done = bind();
    if (!done) return done;
    auto tokenizer = text::from_gguf(model.file_);
    if (!tokenizer) return fail(tokenizer.error());
    if (tokenizer->size() != static_cast<std::size_t>(model.config_.vocab)) {
      return fail(Errc::invalid_size, "open", "the tokenizer and the embedding have vocabularies of different sizes",
                  path);
    }
    model.tokenizer_ = std::move(*tokenizer);
    return {};
  }

  Model model;

 private:
  [[nodiscard]] Status configure() noexcept {
    auto name = model.file_.text("general.architecture");
    if (!name) return fail(name.error());
    if (*name != "llama")
      return fail(Errc::unsupported, "open", "no such architecture here yet; there is llama", *name);
    Config& c = model.config_;
    Status status;
    const auto read = [&](std::int64_t& to, const char* key, std::int64_t absent) {
      if (!status) return;
      Text full;
      (full += "llama.") += key;
      auto value =
          absent >= 0 ? model.file_.u32(full.view(), static_cast<std::uint32_t>(absent)) : model.file_.u32(full.view());
      if (value) to = *value;
      if (!value) status = fail(value.error());
    };
    read(c.layers, "block_count", -1);
    read(c.d_model, "embedding_length", -1);
    read(c.heads, "attention.head_count", -1);
    read(c.d_ff, "feed_forward_length", -1);
    read(c.context, "context_length", -1);
    read(c.kv_heads, "attention.head_count_kv", c.heads);
    if (!status) return status;
    if (c.heads < 1 || c.d_model < 1 || c.d_model % c.heads != 0)
      return nonsense("d_model must be a multiple of heads");
    read(c.head_dim, "attention.key_length", c.d_model / c.heads);
    read(c.rope_dim, "rope.dimension_count", c.head_dim);
    auto base = model.file_.f32("llama.rope.freq_base", 10000),
         eps = model.file_.f32("llama.attention.layer_norm_rms_epsilon", 1e-5f);
    if (!base) return fail(base.error());
    if (!eps) return fail(eps.error());
    c.rope_base = *base;
    c.norm_eps = *eps;
    if (auto scaling = model.file_.text("llama.rope.scaling.type", "none"); !scaling || *scaling != "none") {
      return fail(Errc::unsupported, "open", "a kind of rope scaling that is not done yet",
                  scaling ? *scaling : "llama.rope.scaling.type");
    }
    return status;
  }

  [[nodiscard]] Status check() noexcept {
    Config& c = model.config_;
    constexpr std::int64_t k_most = 1 << 24;  // of anything that a model counts
    for (const std::int64_t number : {c.layers, c.d_model, c.d_ff, c.context, c.head_dim}) {
      if (number < 1 || number > k_most) return nonsense("sizes lie between 1 and 2^24");
    }
    if (c.layers > 4096) return nonsense("at most 4096 layers");
    if (c.kv_heads < 1 || c.heads % c.kv_heads != 0) return nonsense("heads must be a multiple of kv_heads");
    if (c.rope_dim < 0 || c.rope_dim > c.head_dim || c.rope_dim % 2 != 0)
      return nonsense("rope turns an even number of a head's elements");
    if (!(c.rope_base > 0) || !std::isfinite(c.rope_base) || !(c.norm_eps > 0))
      return nonsense("rope's base and the norm's eps must be positive");
    const io::TensorEntry* embedding = model.file_.find("token_embd.weight");
    if (!embedding || embedding->shape.rank() != 2)
      return fail(Errc::not_found, "open", "the file has no embedding", "token_embd.weight");
    c.vocab = embedding->shape[0];
    return {};
  }
  [[nodiscard]] static Status nonsense(const char* why) noexcept { return fail(Errc::invalid_argument, "open", why); }

  [[nodiscard]] Status bind() noexcept {
    const Config& c = model.config_;
    Llama& net = model.layers_;
    const nn::LinearOptions plain{.bias = false};
    const std::int64_t q = c.heads * c.head_dim, kv = c.kv_heads * c.head_dim;
    net.embedding = nn::embedding(c.vocab, c.d_model);
    net.norm = nn::rms_norm(c.norm_eps);
    net.head = nn::linear(c.vocab, plain);
    const LlamaBlock block{nn::rms_norm(c.norm_eps),  nn::rms_norm(c.norm_eps),  nn::linear(q, plain),
                           nn::linear(kv, plain),     nn::linear(kv, plain),     nn::linear(c.d_model, plain),
                           nn::linear(c.d_ff, plain), nn::linear(c.d_ff, plain), nn::linear(c.d_model, plain)};
    for (std::int64_t i = 0; i < c.layers; ++i) {
      if (auto pushed = net.blocks.push(block); !pushed) return pushed;
    }
    Checked bytes = 0;
    for (const io::TensorEntry& entry : model.file_.entries()) bytes = bytes + entry.bytes;
    auto weights = bytes.get("open").and_then(Weights::create);
    if (!weights) return fail(weights.error());
    model.weights_ = std::move(*weights);
    Status status;
    nn::visit(net, [&](std::string_view name, nn::Param& param) {
      if (status) status = bind_one(name, param);
    });
    model.weights_.finish();
    return status;
  }

  // The shape that a parameter must have, from the end of its name.
  [[nodiscard]] Shape shape_of(std::string_view name) const noexcept {
    const Config& c = model.config_;
    const auto is = [&](std::string_view end) { return name.ends_with(end); };
    if (is("norm.weight")) return {c.d_model};
    if (is("attn_q.weight")) return {c.heads * c.head_dim, c.d_model};
    if (is("attn_k.weight") || is("attn_v.weight")) return {c.kv_heads * c.head_dim, c.d_model};
    if (is("attn_output.weight")) return {c.d_model, c.heads * c.head_dim};
    if (is("ffn_gate.weight") || is("ffn_up.weight")) return {c.d_ff, c.d_model};
    if (is("ffn_down.weight")) return {c.d_model, c.d_ff};
    return {c.vocab, c.d_model};  // token_embd, output
  }

  [[nodiscard]] Status bind_one(std::string_view name, nn::Param& param) noexcept {
    if (name.ends_with(".bias")) return {};
    if (name == "output.weight" && !model.file_.find(name)) {  // tied
      param.tensor = model.layers_.embedding.weight.tensor;
      return pack(name, param);
    }
    auto stored = model.file_.tensor(name);
    if (!stored) return fail(stored.error().about(name));
    const Shape wanted = shape_of(name);
    if (stored->shape() != wanted) {
      return fail(fail(Errc::invalid_size, "open", "the first is the file's, the second what the model needs",
                       stored->shape().dims(), wanted.dims())
                      .value()
                      .about(name));
    }
    if (auto bound = model.weights_.bind(param, *stored); !bound) return fail(bound.error().about(name));
    return pack(name, param);
  }

  [[nodiscard]] Status pack(std::string_view name, nn::Param& param) noexcept {
    auto packed = model.weights_.pack(param);
    if (!packed) return fail(packed.error().about(name));
    if (*packed) model.file_.let_go(param.tensor);
    return {};
  }
};

Result<Model> open(std::string_view path) noexcept {
  Opener opener;
  if (auto done = opener.run(path); !done) return fail(done.error());
  return std::move(opener.model);
}

}  // namespace qorus::llm
