// Bodies of qorus.llm:config: config.json of Hugging Face's transformers, as its versions 4 and 5 write it.
module qorus.llm;
import qorus.std;
import qorus.trust;

namespace qorus::llm {
namespace {

using text::JsonType;
using text::JsonValue;

class JsonConfig {
 public:
  explicit JsonConfig(const JsonValue& json) noexcept : json_(json) {}

  [[nodiscard]] Result<Config> read() noexcept {
    if (json_["text_config"].is(JsonType::object))
      json_ = json_["text_config"];  // the part of a model of images and text
    type_ = json_["model_type"].string();
    if (type_.empty()) return fail(Errc::not_found, "open", "config.json has no such text", "model_type");
    c_.architecture = architecture_of_hugging_face(type_);
    if (!c_.architecture) return fail(Errc::unsupported, "open", "no such architecture here", type_);
    using Step = Status (JsonConfig::*)();
    for (const Step step : {&JsonConfig::read_sizes, &JsonConfig::read_activation, &JsonConfig::read_attention,
                            &JsonConfig::read_windows, &JsonConfig::read_ropes, &JsonConfig::read_experts}) {
      if (auto done = (this->*step)(); !done) return fail(done.error());
    }
    return std::move(c_);
  }

 private:
  // A value under the first of two names that is there and not null.
  [[nodiscard]] JsonValue at(const char* name, const char* other = nullptr) const noexcept {
    const JsonValue value = json_[name];
    if ((value && !value.is(JsonType::null)) || !other) return value;
    return json_[other];
  }
  [[nodiscard]] Status need(std::int64_t& to, const char* name, const char* other = nullptr) const noexcept {
    to = at(name, other).integer(to);
    if (to > limits::model_size)  // before anything is computed from it
      return fail(Errc::invalid_argument, "open", "sizes lie between 1 and 2^24", name);
    if (to >= 1) return {};
    return fail(Errc::not_found, "open", "config.json has no such number", name);
  }
  [[nodiscard]] static float f32(double x) noexcept { return static_cast<float>(x); }

  [[nodiscard]] Status read_sizes() noexcept {
    const bool gemma3 = c_.architecture->hugging_face == "gemma3_text";
    if (gemma3) c_.heads = 8, c_.kv_heads = 4, c_.head_dim = 256, c_.context = 131072;  // what its files leave out
    if (auto ok = need(c_.layers, "num_hidden_layers", "n_layer"); !ok) return ok;
    if (auto ok = need(c_.d_model, "hidden_size", "n_embd"); !ok) return ok;
    if (auto ok = need(c_.heads, "num_attention_heads", "n_head"); !ok) return ok;
    if (auto ok = need(c_.context, "max_position_embeddings", "n_positions"); !ok) return ok;
    c_.vocab = at("vocab_size").integer(0);
    c_.d_ff = at("intermediate_size", "n_inner").integer(0);
    if (c_.d_ff == 0) {
      if (!c_.architecture->learned_positions) return need(c_.d_ff, "intermediate_size");
      c_.d_ff = 4 * c_.d_model;
    }
    if (!gemma3) c_.kv_heads = c_.heads;
    if (type_ == "gpt_bigcode") {
      if (!at("multi_query").flag(true))
        return fail(Errc::unsupported, "open", "only with one key head for all queries", "multi_query");
      c_.kv_heads = 1;
    }
    c_.kv_heads = at("num_key_value_heads").integer(c_.kv_heads);
    if (!gemma3) c_.head_dim = c_.d_model / c_.heads;
    c_.head_dim = std::clamp<std::int64_t>(at("head_dim").integer(c_.head_dim), -1, limits::model_size + 1);
    const double eps = c_.architecture->layer_norm ? 1e-5 : 1e-6;
    c_.norm_eps = f32(at("rms_norm_eps", type_ == "starcoder2" ? "norm_epsilon" : "layer_norm_epsilon").number(eps));
    if (c_.architecture->scales_embedding) c_.embedding_scale = std::sqrt(f32(static_cast<double>(c_.d_model)));
    return {};
  }

  [[nodiscard]] Status read_activation() noexcept {
    c_.activation = c_.architecture->activation;
    JsonValue value = at("hidden_activation", "hidden_act");
    if (value.string().empty()) value = at("activation_function");
    const std::string_view name = value.string();
    const struct {
      std::string_view name;
      Activation activation;
    } known[] = {{"silu", Activation::silu},
                 {"swish", Activation::silu},
                 {"gelu_new", Activation::gelu_tanh},
                 {"gelu_pytorch_tanh", Activation::gelu_tanh},
                 {"gelu_fast", Activation::gelu_tanh},
                 {"gelu", Activation::gelu},
                 {"relu", Activation::relu}};
    if (name.empty() || type_ == "gemma") return {};  // the first Gemma's files say gelu and mean its approximation
    for (const auto& k : known) {
      if (k.name != name) continue;
      c_.activation = k.activation;
      return {};
    }
    return fail(Errc::unsupported, "open", "an activation that is not known", name);
  }

  [[nodiscard]] Status read_attention() noexcept {
    for (const char* name : {"scale_attn_by_inverse_layer_idx", "use_bidirectional_attention"}) {
      if (at(name).flag(false)) return fail(Errc::unsupported, "open", "a kind of attention that is not done", name);
    }
    const double query = at("query_pre_attn_scalar").number(0);
    if (query > 0) c_.attention_scale = f32(1 / std::sqrt(query));
    if (!at("scale_attn_weights").flag(true)) c_.attention_scale = 1;
    c_.attention_cap = f32(at("attn_logit_softcapping").number(0));
    c_.logit_cap = f32(at("final_logit_softcapping").number(0));
    return {};
  }

  [[nodiscard]] Status read_windows() noexcept {
    c_.window = at("sliding_window").integer(type_ == "gemma3_text" ? 1024 : 0);
    const bool qwen = type_.starts_with("qwen");
    if (qwen && !at("use_sliding_window").flag(false)) c_.window = 0;
    if (qwen) c_.first_windowed = at("max_window_layers").integer(0);
    c_.window_period = c_.architecture->window_period;
    c_.window_period = at("sliding_window_pattern", "_sliding_window_pattern").integer(c_.window_period);
    const JsonValue types = json_["layer_types"];
    if (!types.is(JsonType::array) || c_.window == 0) return {};
    return read_layer_types(types);
  }

  // A list with a word for each layer must be what one of our two rules says.
  [[nodiscard]] Status read_layer_types(const JsonValue& types) noexcept {
    List<bool> windows;
    if (auto done = types.each([&](const JsonValue& word) -> Status {
          const bool sliding = word.string() == "sliding_attention";
          if (!sliding && word.string() != "full_attention")
            return fail(Errc::unsupported, "open", "a kind of layer that is not known", word.string());
          return windows.push(sliding);
        });
        !done)
      return done;
    const auto list = windows.span();
    const std::int64_t first_full = std::find(list.begin(), list.end(), false) - list.begin(),
                       first_sliding = std::find(list.begin(), list.end(), true) - list.begin();
    const struct {
      std::int64_t period, first;
    } rules[] = {{c_.window_period, c_.first_windowed}, {first_full + 1, 0}, {0, first_sliding}};
    for (const auto& rule : rules) {
      c_.window_period = rule.period;
      c_.first_windowed = rule.first;
      bool same = true;
      for (std::size_t i = 0; i < list.size(); ++i) same &= c_.windowed(static_cast<std::int64_t>(i)) == list[i];
      if (same) return {};
    }
    return fail(Errc::unsupported, "open", "an order of layers that is not known", "layer_types");
  }

  [[nodiscard]] Status read_ropes() noexcept {
    c_.pairs = ops::RopePairs::halves;
    const bool gemma3 = c_.architecture->hugging_face == "gemma3_text";
    const JsonValue parameters = json_["rope_parameters"];
    const JsonValue full = parameters["full_attention"], sliding = parameters["sliding_attention"];
    const double base = at("rope_theta").number(gemma3 ? 1e6 : 1e4);
    if (auto ok = read_rope(c_.rope, full ? full : parameters ? parameters : json_["rope_scaling"], base); !ok)
      return ok;
    if (sliding) return read_rope(c_.local_rope, sliding, 1e4);
    if (!gemma3) return read_rope(c_.local_rope, parameters ? parameters : json_["rope_scaling"], base);
    return read_rope(c_.local_rope, JsonValue(), at("rope_local_base_freq").number(1e4));
  }

  [[nodiscard]] Status read_rope(Rope& rope, const JsonValue& from, double base) noexcept {
    rope.base = f32(from["rope_theta"].number(base));
    const double share = from["partial_rotary_factor"].number(at("partial_rotary_factor").number(1));
    if (!(share > 0 && share <= 1))
      return fail(Errc::invalid_argument, "open", "partial_rotary_factor lies between 0 and 1");
    rope.dim = static_cast<std::int64_t>(static_cast<double>(c_.head_dim) * share);
    RopeScaling& s = rope.scaling;
    const std::string_view kind = from["rope_type"] ? from["rope_type"].string() : from["type"].string();
    using Kind = RopeScaling::Kind;
    const struct {
      std::string_view name;
      Kind kind;
    } kinds[] = {
        {"", Kind::none},     {"default", Kind::none},  {"linear", Kind::linear},     {"dynamic", Kind::dynamic},
        {"yarn", Kind::yarn}, {"llama3", Kind::llama3}, {"longrope", Kind::longrope}, {"su", Kind::longrope}};
    const auto* known = std::find_if(std::begin(kinds), std::end(kinds), [&](const auto& k) { return k.name == kind; });
    if (known == std::end(kinds))
      return fail(Errc::unsupported, "open", "a kind of rope scaling that is not known", kind);
    s.kind = known->kind;
    if (s.kind == Kind::none) return {};
    const auto context = static_cast<double>(c_.context);
    const double other = at("original_max_position_embeddings").number(context);
    s.original_context = f32(from["original_max_position_embeddings"].number(other));
    s.factor =
        f32(from["factor"].number(s.kind == Kind::longrope ? context / static_cast<double>(s.original_context) : 1));
    s.low_freq = f32(from["low_freq_factor"].number(1));
    s.high_freq = f32(from["high_freq_factor"].number(4));
    s.beta_fast = f32(from["beta_fast"].number(32));
    s.beta_slow = f32(from["beta_slow"].number(1));
    s.truncate = from["truncate"].flag(true);
    s.attention_factor = f32(from["attention_factor"].number(0));
    const double m = from["mscale"].number(0), all = from["mscale_all_dim"].number(0);
    if (s.kind == Kind::yarn && m > 0 && all > 0 && s.attention_factor == 0 && s.factor > 1) {
      const double grown = std::log(static_cast<double>(s.factor));
      s.attention_factor = f32((0.1 * m * grown + 1) / (0.1 * all * grown + 1));
    }
    if (s.kind != Kind::longrope || !c_.long_factors.empty()) return {};
    if (auto ok = read_list(c_.long_factors, from["long_factor"]); !ok) return ok;
    return read_list(c_.short_factors, from["short_factor"]);
  }

  [[nodiscard]] static Status read_list(List<float>& to, const JsonValue& from) noexcept {
    return from.each([&](const JsonValue& value) { return to.push(f32(value.number(0))); });
  }

  [[nodiscard]] Status read_experts() noexcept {
    c_.normalises_experts = at("norm_topk_prob").flag(c_.architecture->normalises_experts);
    if (c_.architecture->hugging_face == "qwen3_moe") c_.normalises_experts = at("norm_topk_prob").flag(false);
    if (type_ != "mixtral" && type_.find("moe") == type_.npos) return {};
    if (auto ok = need(c_.experts, "num_local_experts", "num_experts"); !ok) return ok;
    if (auto ok = need(c_.experts_used, "num_experts_per_tok"); !ok) return ok;
    c_.expert_ff = at("moe_intermediate_size").integer(c_.d_ff);
    c_.shared_ff = at("shared_expert_intermediate_size").integer(0);
    c_.expert_period = at("decoder_sparse_step").integer(1);
    if (json_["mlp_only_layers"].size() > 0)
      return fail(Errc::unsupported, "open", "single layers without experts", "mlp_only_layers");
    return {};
  }

  JsonValue json_;
  std::string_view type_;
  Config c_;
};

}  // namespace

Result<Config> read_config(const text::JsonValue& config) noexcept { return JsonConfig(config).read(); }

}  // namespace qorus::llm
