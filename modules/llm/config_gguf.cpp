// Bodies of qorus.llm:config: the metadata of GGUF files. What a file leaves unsaid is as llama.cpp takes it.
module qorus.llm;
import qorus.std;

namespace qorus::llm {
namespace {

class GgufConfig {
 public:
  explicit GgufConfig(const io::Gguf& file) noexcept : file_(file) {}

  [[nodiscard]] Result<Config> read() noexcept {
    auto name = file_.text("general.architecture");
    if (!name) return fail(name.error());
    name_ = *name;
    c_.architecture = architecture_of_gguf(name_);
    if (!c_.architecture) return fail(Errc::unsupported, "open", "no such architecture here", name_);
    c_.activation = c_.architecture->activation;
    read_sizes();
    if (status_) read_attention();
    if (status_) read_rope();
    if (status_) read_experts();
    if (!status_) return fail(status_.error());
    return std::move(c_);
  }

 private:
  [[nodiscard]] Text key_of(const char* key) const noexcept {
    Text full;
    ((full += name_) += ".") += key;
    return full;
  }
  [[nodiscard]] bool has(const char* key) const noexcept { return file_.metadata(key_of(key).view()) != nullptr; }
  // Reads the number, or leaves it as it is where there is none.
  void number(std::int64_t& to, const char* key, bool needed = false) noexcept {
    if (!status_ || (!needed && !has(key))) return;
    const auto value = file_.u32(key_of(key).view());
    if (value) to = *value;
    if (!value) status_ = fail(value.error());
  }
  void number(float& to, const char* key) noexcept {
    if (!status_ || !has(key)) return;
    const auto value = file_.f32(key_of(key).view());
    if (value) to = *value;
    if (!value) status_ = fail(value.error());
  }
  // A number, or a list of the same number for each layer.
  void uniform(std::int64_t& to, const char* key, bool needed = false) noexcept {
    const io::GgufEntry* entry = file_.metadata(key_of(key).view());
    if (!entry || !entry->array) return number(to, key, needed);
    const auto all = file_.integers(key_of(key).view());
    if (!all) {
      status_ = fail(all.error());
      return;
    }
    const auto list = all->span();
    if (list.empty() || std::any_of(list.begin(), list.end(), [&](std::int32_t n) { return n != list[0]; })) {
      status_ = fail(Errc::unsupported, "open", "layers of different sizes", key_of(key).view());
      return;
    }
    to = list[0];
  }

  void read_sizes() noexcept {
    number(c_.layers, "block_count", true);
    number(c_.d_model, "embedding_length", true);
    number(c_.context, "context_length", true);
    uniform(c_.heads, "attention.head_count", true);
    uniform(c_.d_ff, "feed_forward_length", true);
    c_.kv_heads = c_.heads;
    uniform(c_.kv_heads, "attention.head_count_kv");
    number(c_.norm_eps,
           c_.architecture->layer_norm ? "attention.layer_norm_epsilon" : "attention.layer_norm_rms_epsilon");
    if (!status_) return;
    if (c_.heads < 1 || (!has("attention.key_length") && c_.d_model % c_.heads != 0)) {
      status_ = fail(Errc::invalid_argument, "open", "d_model must be a multiple of heads");
      return;
    }
    c_.head_dim = c_.d_model / c_.heads;
    number(c_.head_dim, "attention.key_length");
    std::int64_t value_dim = c_.head_dim;
    number(value_dim, "attention.value_length");
    if (status_ && value_dim != c_.head_dim)
      status_ = fail(Errc::unsupported, "open", "values of another length than keys",
                     key_of("attention.value_length").view());
    if (c_.architecture->scales_embedding) c_.embedding_scale = std::sqrt(static_cast<float>(c_.d_model));
  }

  void read_attention() noexcept {
    number(c_.attention_cap, "attn_logit_softcapping");
    number(c_.logit_cap, "final_logit_softcapping");
    number(c_.window, "attention.sliding_window");
    c_.window_period = c_.architecture->window_period;
    if (name_ == "gemma2") {
      if (!has("attn_logit_softcapping")) c_.attention_cap = 50;
      if (!has("final_logit_softcapping")) c_.logit_cap = 30;
      if (!has("attention.sliding_window")) c_.window = 4096;
    }
    // The largest of both families scale by d_model / heads, which no key tells.
    if ((name_ == "gemma2" && c_.layers == 46) || (name_ == "gemma3" && c_.layers == 62))
      c_.attention_scale = std::sqrt(static_cast<float>(c_.heads) / static_cast<float>(c_.d_model));
    number(c_.attention_scale, "attention.scale");
  }

  void read_rope() noexcept {
    c_.pairs = c_.architecture->interleaved ? ops::RopePairs::interleaved : ops::RopePairs::halves;
    Rope& rope = c_.rope;
    rope.dim = c_.head_dim;
    number(rope.dim, "rope.dimension_count");
    number(rope.base, "rope.freq_base");
    c_.local_rope = rope;  // with a window: no scaling
    if (name_ == "gemma3") c_.local_rope.base = 10000;
    number(c_.local_rope.base, "rope.freq_base_swa");
    RopeScaling& s = rope.scaling;
    const auto kind = file_.text(key_of("rope.scaling.type").view(), "none");
    if (!kind) {
      status_ = fail(kind.error());
      return;
    }
    using Kind = RopeScaling::Kind;
    if (*kind == "linear") s.kind = Kind::linear;
    if (*kind == "yarn") s.kind = Kind::yarn;
    if (*kind == "longrope") s.kind = Kind::longrope;
    if (s.kind == Kind::none && *kind != "none") {
      status_ = fail(Errc::unsupported, "open", "a kind of rope scaling that is not known", *kind);
      return;
    }
    number(s.factor, "rope.scaling.factor");
    if (has("rope.scale_linear")) {  // as files had it before there were kinds
      number(s.factor, "rope.scale_linear");
      if (s.kind == Kind::none && s.factor != 1) s.kind = Kind::linear;
    }
    number(s.attention_factor, "rope.scaling.attn_factor");
    number(s.beta_fast, "rope.scaling.yarn_beta_fast");
    number(s.beta_slow, "rope.scaling.yarn_beta_slow");
    std::int64_t original = c_.context;
    number(original, "rope.scaling.original_context_length");
    s.original_context = static_cast<float>(original);
    // llama.cpp multiplies yarn's own factor by this one.
    if (s.kind == Kind::yarn && s.attention_factor > 0) s.attention_factor *= 1 + 0.1f * std::log(s.factor);
    read_factors();
    if (name_ != "gemma3") c_.local_rope = rope;
  }

  // Factors of single pairs: tensors, whose kind no key tells.
  void read_factors() noexcept {
    const struct {
      const char* name;
      List<float>* lists[2];
    } sources[] = {{"rope_freqs.weight", {&c_.long_factors, &c_.short_factors}},
                   {"rope_factors_long.weight", {&c_.long_factors, nullptr}},
                   {"rope_factors_short.weight", {&c_.short_factors, nullptr}}};
    for (const auto& source : sources) {
      if (!status_ || !file_.find(source.name)) continue;
      auto values = file_.tensor(source.name).and_then([](const Tensor& t) { return t.values<float>(); });
      if (!values) {
        status_ = fail(values.error().about(source.name));
        return;
      }
      for (List<float>* list : source.lists) {
        if (list && status_) status_ = list->append(*values);
      }
      if (c_.rope.scaling.attention_factor == 0 && c_.rope.scaling.kind == RopeScaling::Kind::none)
        c_.rope.scaling.attention_factor = 1;
      c_.rope.scaling.kind = RopeScaling::Kind::longrope;
    }
  }

  void read_experts() noexcept {
    number(c_.experts, "expert_count");
    if (c_.experts == 0) return;
    number(c_.experts_used, "expert_used_count", true);
    c_.expert_ff = c_.d_ff;
    number(c_.expert_ff, "expert_feed_forward_length");
    number(c_.shared_ff, "expert_shared_feed_forward_length");
    if (name_ == "qwen2moe" && !has("expert_shared_feed_forward_length")) c_.shared_ff = c_.d_ff;
    c_.normalises_experts = c_.architecture->normalises_experts;
  }

  const io::Gguf& file_;
  std::string_view name_;
  Config c_;
  Status status_;
};

}  // namespace

Result<Config> read_config(const io::Gguf& file) noexcept { return GgufConfig(file).read(); }

}  // namespace qorus::llm
