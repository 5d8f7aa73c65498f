// What is told about a model in a folder of safetensors: config.json and a SentencePiece model, from GGUF's metadata.
module;
#include <cstdint>
module qorus.llm;
import qorus.std;
import :convert_plan;

namespace qorus::llm {

// --- config.json ---

namespace {

// Members of an object, one after the other.
class Members {
 public:
  explicit Members(List<char>& out) noexcept : out_(out) {}
  void text(const char* key, std::string_view value) noexcept {
    name(key);
    if (status_) status_ = io::append_json_string(out_, value);
  }
  void number(const char* key, std::int64_t value) noexcept {
    name(key);
    Text digits;
    digits += value;
    raw(digits.view());
  }
  void real(const char* key, float value) noexcept {
    std::array<char, 32> digits{};
    const auto end = std::to_chars(digits.data(), digits.data() + digits.size(), value).ptr;
    name(key);
    raw({digits.data(), static_cast<std::size_t>(end - digits.data())});
  }
  void flag(const char* key, bool value) noexcept {
    name(key);
    raw(value ? "true" : "false");
  }
  void reals(const char* key, std::span<const float> values) noexcept {
    name(key);
    raw("[");
    for (std::size_t i = 0; i < values.size(); ++i) {
      std::array<char, 32> digits{};
      const auto end = std::to_chars(digits.data(), digits.data() + digits.size(), values[i]).ptr;
      if (i) raw(",");
      raw({digits.data(), static_cast<std::size_t>(end - digits.data())});
    }
    raw("]");
  }
  void open(const char* key) noexcept {
    if (key) name(key);
    raw("{");
    first_ = true;
  }
  void close() noexcept {
    raw("}");
    first_ = false;
  }
  [[nodiscard]] const Status& status() const noexcept { return status_; }

 private:
  void raw(std::string_view text) noexcept {
    if (status_) status_ = out_.append(std::span(text.data(), text.size()));
  }
  void name(const char* key) noexcept {
    raw(first_ ? "\n  \"" : ",\n  \"");
    first_ = false;
    raw(key);
    raw("\": ");
  }
  List<char>& out_;
  bool first_ = true;
  Status status_;
};

constexpr struct {
  std::string_view type, named;
} k_classes[] = {{"llama", "LlamaForCausalLM"},
                 {"mistral", "MistralForCausalLM"},
                 {"mixtral", "MixtralForCausalLM"},
                 {"qwen2", "Qwen2ForCausalLM"},
                 {"qwen2_moe", "Qwen2MoeForCausalLM"},
                 {"qwen3", "Qwen3ForCausalLM"},
                 {"qwen3_moe", "Qwen3MoeForCausalLM"},
                 {"gemma", "GemmaForCausalLM"},
                 {"gemma2", "Gemma2ForCausalLM"},
                 {"gemma3_text", "Gemma3ForCausalLM"},
                 {"phi3", "Phi3ForCausalLM"},
                 {"gpt2", "GPT2LMHeadModel"},
                 {"gpt_bigcode", "GPTBigCodeForCausalLM"},
                 {"starcoder2", "Starcoder2ForCausalLM"}};

void rope_json(Members& json, const Config& c) noexcept {
  const RopeScaling& s = c.rope.scaling;
  using Kind = RopeScaling::Kind;
  json.real("rope_theta", c.rope.base);
  if (c.rope.dim != c.head_dim)
    json.real("partial_rotary_factor", static_cast<float>(c.rope.dim) / static_cast<float>(c.head_dim));
  if (c.architecture->gguf == "gemma3") json.real("rope_local_base_freq", c.local_rope.base);
  if (s.kind == Kind::none) return;
  if (s.kind == Kind::longrope)
    json.number("original_max_position_embeddings", static_cast<std::int64_t>(s.original_context));
  json.open("rope_scaling");
  json.text("rope_type", s.kind == Kind::linear ? "linear" : s.kind == Kind::yarn ? "yarn" : "longrope");
  if (s.kind == Kind::longrope) {
    json.reals("long_factor", c.long_factors.span());
    json.reals("short_factor", c.short_factors.span());
    json.number("original_max_position_embeddings", static_cast<std::int64_t>(s.original_context));
  } else {
    json.real("factor", s.factor);
  }
  if (s.attention_factor > 0) json.real("attention_factor", s.attention_factor);
  if (s.kind == Kind::yarn) {
    json.number("original_max_position_embeddings", static_cast<std::int64_t>(s.original_context));
    json.real("beta_fast", s.beta_fast);
    json.real("beta_slow", s.beta_slow);
  }
  json.close();
}

void sizes_json(Members& json, const Config& c, const Architecture& a) noexcept {
  const bool old = a.learned_positions;  // the names of GPT-2
  json.number("vocab_size", c.vocab);
  json.number(old ? "n_embd" : "hidden_size", c.d_model);
  json.number(old ? "n_layer" : "num_hidden_layers", c.layers);
  json.number(old ? "n_head" : "num_attention_heads", c.heads);
  json.number(old ? "n_inner" : "intermediate_size", c.d_ff);
  json.number(old ? "n_positions" : "max_position_embeddings", c.context);
  json.real(!a.layer_norm                    ? "rms_norm_eps"
            : a.hugging_face == "starcoder2" ? "norm_epsilon"
                                             : "layer_norm_epsilon",
            c.norm_eps);
  if (a.hugging_face == "gpt_bigcode") json.flag("multi_query", true);
  if (old) return;
  json.number("num_key_value_heads", c.kv_heads);
  json.number("head_dim", c.head_dim);
  if (a.gguf == "llama" || a.gguf == "qwen3" || a.gguf == "qwen3moe") json.flag("attention_bias", false);
}

}  // namespace

Status describe_json(const io::Gguf* file, const Config& c, const Architecture& a, DType dtype, bool tied,
                     List<char>& to) noexcept {
  Members json(to);
  json.open(nullptr);
  json.text("model_type", a.hugging_face);
  for (const auto& known : k_classes) {
    if (known.type != a.hugging_face) continue;
    if (auto put = json.status(); !put) return put;
    constexpr std::string_view key = ",\n  \"architectures\": [\"";
    for (const std::string_view part : {key, known.named, std::string_view("\"]")}) {
      if (auto put = to.append(std::span(part.data(), part.size())); !put) return put;
    }
  }
  sizes_json(json, c, a);
  constexpr std::string_view k_activations[] = {"silu", "gelu", "gelu_pytorch_tanh", "relu"};
  const std::string_view activation = c.activation == Activation::silu        ? k_activations[0]
                                      : c.activation == Activation::gelu      ? k_activations[1]
                                      : c.activation == Activation::gelu_tanh ? k_activations[2]
                                                                              : k_activations[3];
  json.text(a.learned_positions ? "activation_function" : "hidden_act", activation);
  if (a.scales_embedding) json.text("hidden_activation", activation);
  if (!a.learned_positions) rope_json(json, c);
  if (c.window > 0) json.number("sliding_window", c.window);
  if (c.window > 0 && a.gguf.starts_with("qwen")) json.flag("use_sliding_window", true);
  if (c.attention_cap > 0) json.real("attn_logit_softcapping", c.attention_cap);
  if (c.logit_cap > 0) json.real("final_logit_softcapping", c.logit_cap);
  const bool scalar = a.gguf == "gemma2" || a.gguf == "gemma3";
  if (scalar)
    json.real("query_pre_attn_scalar",
              c.attention_scale > 0 ? 1 / (c.attention_scale * c.attention_scale) : static_cast<float>(c.head_dim));
  if (c.experts > 0) {
    json.number(a.hugging_face == "mixtral" ? "num_local_experts" : "num_experts", c.experts);
    json.number("num_experts_per_tok", c.experts_used);
    if (a.hugging_face != "mixtral") json.number("moe_intermediate_size", c.expert_ff);
    if (c.shared_ff > 0) json.number("shared_expert_intermediate_size", c.shared_ff);
    json.flag("norm_topk_prob", c.normalises_experts);
  }
  json.flag("tie_word_embeddings", tied);
  json.text("torch_dtype", dtype == DType::f16 ? "float16" : dtype == DType::bf16 ? "bfloat16" : "float32");
  const struct {
    const char *key, *ours;
  } ids[] = {{"tokenizer.ggml.bos_token_id", "bos_token_id"}, {"tokenizer.ggml.eos_token_id", "eos_token_id"}};
  for (const auto& id : ids) {
    const auto value = file ? file->u32(id.key, UINT32_MAX) : Result<std::uint32_t>(UINT32_MAX);
    if (value && *value != UINT32_MAX) json.number(id.ours, *value);
  }
  json.close();
  return json.status();
}

// --- SentencePiece ---

namespace {

// Fields of a protobuf message.
class Message {
 public:
  void varint(std::uint64_t value) noexcept {
    for (; value >= 128; value >>= 7) byte(static_cast<std::uint8_t>(value) | 128);
    byte(static_cast<std::uint8_t>(value));
  }
  void number(unsigned field, std::uint64_t value) noexcept {
    varint(field << 3);
    varint(value);
  }
  void real(unsigned field, float value) noexcept {
    varint(field << 3 | 5);
    std::array<char, 4> bytes{};
    std::memcpy(bytes.data(), &value, 4);
    append({bytes.data(), 4});
  }
  void bytes(unsigned field, std::string_view value) noexcept {
    varint(field << 3 | 2);
    varint(value.size());
    append(value);
  }
  void clear() noexcept { out_.clear(); }
  [[nodiscard]] std::string_view view() const noexcept { return {out_.data(), out_.size()}; }
  [[nodiscard]] const Status& status() const noexcept { return status_; }

 private:
  void byte(std::uint8_t value) noexcept {
    const char c = static_cast<char>(value);
    append({&c, 1});
  }
  void append(std::string_view text) noexcept {
    if (status_) status_ = out_.append(std::span(text.data(), text.size()));
  }
  List<char> out_;
  Status status_;
};

// Of an array that a file may lack: that there was no memory for it.
template <class T>
bool is_lost(const Result<T>& array) noexcept {
  return !array && array.error().code == Errc::out_of_memory;
}

}  // namespace

Status describe_pieces(const io::Gguf& file, List<char>& to) noexcept {
  if (file.text("tokenizer.ggml.model", "").value_or("") != "llama") return {};
  const auto tokens = file.texts("tokenizer.ggml.tokens");
  auto scores = file.reals("tokenizer.ggml.scores");
  auto kinds = file.integers("tokenizer.ggml.token_type");
  if (is_lost(tokens)) return fail(tokens.error());
  if (is_lost(scores)) return fail(scores.error());
  if (is_lost(kinds)) return fail(kinds.error());
  if (!tokens || !scores || !kinds) return {};
  const std::size_t count = (*tokens)->size();
  if (scores->size() != count || kinds->size() != count) return {};
  Message model, part;
  for (std::size_t i = 0; i < count; ++i) {
    part.clear();
    part.bytes(1, (**tokens)[i]);
    part.real(2, (*scores)[i]);
    part.number(3, static_cast<std::uint64_t>(std::clamp((*kinds)[i], 1, 6)));
    if (!part.status()) return part.status();
    model.bytes(1, part.view());
  }
  part.clear();
  part.number(3, 2);   // BPE
  part.number(35, 1);  // pieces for bytes
  const struct {
    unsigned field;
    const char* key;
    std::uint32_t usual;
  } ids[] = {{40, "tokenizer.ggml.unknown_token_id", 0},
             {41, "tokenizer.ggml.bos_token_id", 1},
             {42, "tokenizer.ggml.eos_token_id", 2}};
  for (const auto& id : ids) part.number(id.field, file.u32(id.key, id.usual).value_or(id.usual));
  model.bytes(2, part.view());
  part.clear();
  part.number(3, file.boolean("tokenizer.ggml.add_space_prefix", true).value_or(true));
  part.number(4, 0);
  part.number(5, 1);
  model.bytes(3, part.view());
  if (!part.status()) return part.status();
  if (!model.status()) return model.status();
  return to.append(std::span(model.view().data(), model.view().size()));
}

// --- tokenizer.json ---

namespace {

bool is_added(std::int32_t kind) noexcept {
  return kind == static_cast<std::int32_t>(text::PieceKind::control) ||
         kind == static_cast<std::int32_t>(text::PieceKind::user_defined);
}

void added_tokens(io::JsonText& json, std::span<const std::string_view> tokens,
                  std::span<const std::int32_t> kinds) noexcept {
  json << R"("added_tokens": [)";
  bool first = true;
  for (std::size_t i = 0; i < tokens.size(); ++i) {
    if (!is_added(kinds[i])) continue;
    const bool control = kinds[i] == static_cast<std::int32_t>(text::PieceKind::control);
    (json << (first ? "\n" : ",\n") << R"({"id": )" << i << R"(, "content": )").quoted(tokens[i])
        << R"(, "single_word": false, "lstrip": false, "rstrip": false, "normalized": false, "special": )"
        << (control ? "true}" : "false}");
    first = false;
  }
  json << "],\n";
}

// How words are found, and what stands before a text.
Status steps(io::JsonText& json, const io::Gguf& file, std::span<const std::string_view> tokens) noexcept {
  auto expressions = text::expressions_of(file.text("tokenizer.ggml.pre", "default").value_or("default"));
  if (!expressions) return fail(expressions.error());
  json << R"("normalizer": null, "pre_tokenizer": {"type": "Sequence", "pretokenizers": [)";
  for (const std::string_view expression : expressions->span()) {
    (json << R"({"type": "Split", "pattern": {"Regex": )").quoted(expression)
        << R"(}, "behavior": "Isolated", "invert": false},)" << "\n";
  }
  json << R"({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": false}]},)" << "\n";
  const auto bos = file.u32("tokenizer.ggml.bos_token_id", UINT32_MAX);
  const bool adds = file.boolean("tokenizer.ggml.add_bos_token", false).value_or(false) && bos && *bos < tokens.size();
  if (adds) {
    const std::string_view token = tokens[*bos];
    (json << R"("post_processor": {"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": )").quoted(token)
        << R"(, "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}], "pair": [{"Sequence": {"id": "A", "type_id": 0}}, )"
        << R"({"Sequence": {"id": "B", "type_id": 1}}], "special_tokens": {)";
    (json.quoted(token) << R"(: {"id": )").quoted(token) << R"(, "ids": [)" << std::size_t{*bos} << R"(], "tokens": [)";
    json.quoted(token) << "]}}},\n";
  }
  json << R"("decoder": {"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true},)"
       << "\n";
  return json.status();
}

}  // namespace

Status describe_merges(const io::Gguf& file, List<char>& to) noexcept {
  if (file.text("tokenizer.ggml.model", "").value_or("") != "gpt2") return {};
  const auto tokens = file.texts("tokenizer.ggml.tokens"), merges = file.texts("tokenizer.ggml.merges");
  auto kinds = file.integers("tokenizer.ggml.token_type");
  if (is_lost(tokens)) return fail(tokens.error());
  if (is_lost(merges)) return fail(merges.error());
  if (is_lost(kinds)) return fail(kinds.error());
  if (!tokens || !merges || !kinds || kinds->size() != (*tokens)->size()) return {};
  io::JsonText json(to);
  json << "{\"version\": \"1.0\", \"truncation\": null, \"padding\": null,\n";
  added_tokens(json, (*tokens)->span(), kinds->span());
  if (auto done = steps(json, file, (*tokens)->span()); !done) return done;
  const std::string_view pre = file.text("tokenizer.ggml.pre", "default").value_or("default");
  const bool whole = pre.starts_with("llama") || pre == "tekken";
  json << R"("model": {"type": "BPE", "dropout": null, "unk_token": null, "fuse_unk": false, "byte_fallback": false, )"
       << R"("ignore_merges": )" << (whole ? "true" : "false") << R"(, "vocab": {)";
  bool first = true;
  for (std::size_t i = 0; i < (*tokens)->size(); ++i) {
    if (is_added((*kinds)[i])) continue;
    (json << (first ? "\n" : ",\n")).quoted((**tokens)[i]) << ": " << i;
    first = false;
  }
  json << "},\n\"merges\": [";
  for (std::size_t i = 0; i < (*merges)->size(); ++i) (json << (i ? ",\n" : "\n")).quoted((**merges)[i]);
  json << "]}}\n";
  return json.status();
}

}  // namespace qorus::llm
