// Bodies of qorus.tune:write.
module qorus.tune;
import qorus.std;
import :write;
import qorus.formats;

namespace qorus::tune {
namespace {

constexpr const char* k_op = "write_gguf";

tl::unexpected<Error> refuse(const char* why) noexcept { return fail(Errc::unsupported, k_op, why); }

// What Llama's architecture has nothing for.
Status check(const nn::LanguageModel& model) noexcept {
  const nn::TransformerBlock& block = model.decoder.blocks.pattern();
  const nn::AttentionOptions& attention = block.attn.options;
  if (model.placed) return refuse("learned positions");
  if (!block.attn_norm.rms || !block.ffn_norm.rms || !model.decoder.norm.rms)
    return refuse("norms other than RMS norms");
  if (block.attn_norm.has_bias || block.ffn_norm.has_bias || model.decoder.norm.has_bias)
    return refuse("norms with a bias");
  if (!block.pre_norm || !model.decoder.normed || block.decodes || block.sparse)
    return refuse("a block other than attention and feed-forward, each after its norm");
  if (block.ffn.kind != nn::FeedForwardKind::swiglu) return refuse("a feed-forward layer other than SwiGLU");
  if (block.ffn.up_proj.has_bias || block.attn.q_proj.has_bias || block.attn.o_proj.has_bias) return refuse("biases");
  if (attention.rope <= 0 || !attention.causal || attention.alibi || attention.softcap > 0 || attention.window > 0 ||
      attention.scale != 0)
    return refuse("attention other than causal with rotary positions");
  return {};
}

// Where a part of a block stands in the file.
struct Name {
  std::string_view ours, theirs;
};
constexpr Name k_parts[] = {
    {"attn_norm", "attn_norm"},    {"attn.q_proj", "attn_q"},      {"attn.k_proj", "attn_k"},
    {"attn.v_proj", "attn_v"},     {"attn.o_proj", "attn_output"}, {"ffn_norm", "ffn_norm"},
    {"ffn.gate_proj", "ffn_gate"}, {"ffn.up_proj", "ffn_up"},      {"ffn.down_proj", "ffn_down"}};
constexpr Name k_ends[] = {{"tokens.weight", "token_embd.weight"},
                           {"decoder.norm.weight", "output_norm.weight"},
                           {"head.weight", "output.weight"}};

// What follows a word that the text begins with, or nothing.
bool take(std::string_view& text, std::string_view word) noexcept {
  if (!text.starts_with(word)) return false;
  text.remove_prefix(word.size());
  return true;
}

// "decoder.blocks.3.attn.q_proj.weight" is "blk.3.attn_q.weight". Empty if there is no such tensor.
Text file_name(std::string_view name) noexcept {
  Text full;
  for (const Name& end : k_ends) {
    if (name == end.ours) return full += end.theirs;
  }
  if (!take(name, "decoder.blocks.")) return full;
  const std::size_t dot = name.find('.');
  if (dot == name.npos) return full;
  const std::string_view layer(name.data(), dot);
  name.remove_prefix(dot + 1);
  for (const Name& part : k_parts) {
    std::string_view rest = name;
    if (take(rest, part.ours) && rest == ".weight")
      return ((((full += "blk.") += layer) += ".") += part.theirs) += ".weight";
  }
  return full;
}

class ModelWriter {
 public:
  ModelWriter(const nn::Model<nn::LanguageModel>& model, io::GgufWriter writer, const formats::Scheme& scheme,
              const WriteOptions& options) noexcept
      : model_(model),
        layers_(model.layers()),
        writer_(std::move(writer)),
        scheme_(scheme),
        options_(options),
        workspace_({.scratch = 32_MiB, .threads = options.threads}) {}

  [[nodiscard]] io::GgufWriter& writer() noexcept { return writer_; }

  [[nodiscard]] Status put_numbers(std::size_t pieces) noexcept {
    const nn::TransformerBlock& block = layers_.decoder.blocks.pattern();
    const auto width = model_.parameter("tokens.weight"), ff = model_.parameter("decoder.blocks.0.ffn.up_proj.weight"),
               keys = model_.parameter("decoder.blocks.0.attn.k_proj.weight"),
               queries = model_.parameter("decoder.blocks.0.attn.q_proj.weight");
    for (const auto* part : {&width, &ff, &keys, &queries}) {
      if (!*part) return fail(part->error());
    }
    if (width->dim(0) != static_cast<std::int64_t>(pieces))
      return fail(Errc::invalid_size, k_op, "the model has another vocabulary than this one",
                  Dims{{width->dim(0), static_cast<std::int64_t>(pieces)}, 2});
    const std::int64_t heads = block.attn.heads;
    head_dim_ = queries->dim(0) / heads;
    half_pairs_ = block.attn.options.pairs == ops::RopePairs::halves;
    const std::int64_t context = options_.context > 0 ? options_.context : model_.input_shape()[0];
    const std::pair<std::string_view, std::int64_t> numbers[] = {
        {"llama.block_count", static_cast<std::int64_t>(layers_.decoder.blocks.count())},
        {"llama.context_length", context},
        {"llama.embedding_length", width->dim(1)},
        {"llama.feed_forward_length", ff->dim(0)},
        {"llama.attention.head_count", heads},
        {"llama.attention.head_count_kv", keys->dim(0) / head_dim_},
        {"llama.attention.key_length", head_dim_},
        {"llama.attention.value_length", head_dim_},
        {"llama.rope.dimension_count", head_dim_},
        {"llama.vocab_size", width->dim(0)}};
    Status done = writer_.put_text("general.architecture", "llama");
    if (done && !options_.name.empty()) done = writer_.put_text("general.name", options_.name);
    for (const auto& [key, number] : numbers) {
      if (done) done = writer_.put(key, static_cast<std::uint32_t>(number));
    }
    if (done) done = writer_.put("llama.attention.layer_norm_rms_epsilon", block.attn_norm.eps);
    if (done) done = writer_.put("llama.rope.freq_base", block.attn.options.rope);
    if (done) done = writer_.put("general.file_type", scheme_.file_type);
    if (done && is_block(scheme_.dtype)) done = writer_.put("general.quantization_version", std::uint32_t{2});
    facts_ = {.layers = static_cast<std::int64_t>(layers_.decoder.blocks.count()),
              .heads = heads,
              .kv_heads = keys->dim(0) / head_dim_,
              .llama = true,
              .has_output = !layers_.tied};
    return done;
  }

  [[nodiscard]] Status write_tensors() noexcept {
    if (auto ready = workspace_.status(); !ready) return ready;
    List<DType> types;
    for (const nn::Parameter& parameter : model_.parameters()) {
      const Text name = file_name(parameter.name.view());
      const Shape& shape = parameter.tensor.shape();
      if (name.view().empty())
        return fail(Errc::unsupported, k_op, "a parameter that Llama lacks", parameter.name.view());
      const DType dtype = shape.rank() < 2 ? DType::f32 : scheme_.choose(facts_, name.view(), shape, DType::f32, false);
      if (auto pushed = types.push(dtype); !pushed) return pushed;
      if (auto done = writer_.declare(name.view(), dtype, shape); !done) return done;
    }
    if (auto begun = writer_.begin(); !begun) return begun;
    for (std::size_t i = 0; i < types.size(); ++i) {
      const nn::Parameter& parameter = model_.parameters()[i];
      if (auto done = write_tensor(parameter, types[i]); !done) return fail(done.error().about(parameter.name.view()));
    }
    return writer_.commit();
  }

 private:
  [[nodiscard]] Status write_tensor(const nn::Parameter& parameter, DType dtype) noexcept {
    const std::string_view name = parameter.name.view();
    const bool turns = name.ends_with("attn.q_proj.weight") || name.ends_with("attn.k_proj.weight");
    if (!half_pairs_ || !turns) return write_as(parameter.tensor, dtype);
    auto turned = Owned::zeros(parameter.tensor.shape());
    if (!turned) return fail(turned.error());
    const auto columns = static_cast<std::size_t>(parameter.tensor.dim(1));
    float* to = turned->fill<float>().data();
    for (std::size_t row = 0; row < static_cast<std::size_t>(parameter.tensor.dim(0)); ++row)
      std::copy_n(parameter.tensor.f32() + row_before(row) * columns, columns, to + row * columns);
    return write_as(turned->tensor(), dtype);
  }
  [[nodiscard]] Status write_as(const Tensor& tensor, DType dtype) noexcept {
    const formats::Sink sink{&writer_, [](void* self, std::span<const std::byte> bytes) {
                               return static_cast<io::GgufWriter*>(self)->write(bytes);
                             }};
    return formats::recode(workspace_, tensor, dtype, {}, sink);
  }

  // The file has the two elements of a rotary pair beside each other; halves has them half a head apart.
  [[nodiscard]] std::size_t row_before(std::size_t row) const noexcept {
    const auto dim = static_cast<std::size_t>(head_dim_);
    const std::size_t within = row % dim;
    return row - within + within / 2 + within % 2 * (dim / 2);
  }

  const nn::Model<nn::LanguageModel>& model_;
  const nn::LanguageModel& layers_;
  io::GgufWriter writer_;
  const formats::Scheme& scheme_;
  const WriteOptions& options_;
  formats::ModelFacts facts_;
  Workspace workspace_;
  std::int64_t head_dim_ = 1;
  bool half_pairs_ = false;
};

template <class Put>
Status write(const nn::Model<nn::LanguageModel>& model, std::size_t pieces, std::string_view path,
             const WriteOptions& options, const Put& put_vocabulary) noexcept {
  if (auto good = check(model.layers()); !good) return good;
  const formats::Scheme* scheme = formats::scheme_of(options.type);
  if (!scheme) return fail(Errc::unsupported, k_op, "a type that is not known", options.type);
  auto file = io::GgufWriter::create(path);
  if (!file) return fail(file.error());
  ModelWriter writer(model, std::move(*file), *scheme, options);
  Status done = writer.put_numbers(pieces);
  if (done) done = put_vocabulary(writer.writer());
  return done ? writer.write_tensors() : done;
}

}  // namespace

Status write_gguf(const nn::Model<nn::LanguageModel>& model, const text::VocabularySpec& vocabulary,
                  std::string_view path, const WriteOptions& options) noexcept {
  return write(model, vocabulary.pieces.size(), path, options,
               [&](io::GgufWriter& writer) { return text::put_vocabulary(writer, vocabulary); });
}

Status write_gguf(const nn::Model<nn::LanguageModel>& model, const io::Gguf& vocabulary, std::string_view path,
                  const WriteOptions& options) noexcept {
  const auto pieces = vocabulary.texts("tokenizer.ggml.tokens");
  if (!pieces) return fail(pieces.error());
  return write(model, (*pieces)->size(), path, options,
               [&](io::GgufWriter& writer) { return text::put_vocabulary(writer, vocabulary); });
}

}  // namespace qorus::tune
