// Bodies of qorus.llm:config: the table of architectures, and what holds for numbers from any file.
module qorus.llm;
import qorus.std;
import qorus.trust;

namespace qorus::llm {
namespace {

constexpr Architecture k_architectures[] = {
    {.gguf = "llama", .hugging_face = "llama", .interleaved = true},
    {.gguf = "llama", .hugging_face = "mistral", .interleaved = true},
    {.gguf = "llama", .hugging_face = "mixtral", .interleaved = true},
    {.gguf = "qwen2", .hugging_face = "qwen2", .qkv_bias = true},
    {.gguf = "qwen2moe", .hugging_face = "qwen2_moe", .qkv_bias = true, .normalises_experts = false},
    {.gguf = "qwen3", .hugging_face = "qwen3", .qk_norm = true},
    {.gguf = "qwen3moe", .hugging_face = "qwen3_moe", .qk_norm = true},
    {.gguf = "gemma",
     .hugging_face = "gemma",
     .norms_lack_one = true,
     .scales_embedding = true,
     .activation = Activation::gelu_tanh},
    {.gguf = "gemma2",
     .hugging_face = "gemma2",
     .post_norms = true,
     .norms_lack_one = true,
     .scales_embedding = true,
     .window_period = 2,
     .activation = Activation::gelu_tanh},
    {.gguf = "gemma3",
     .hugging_face = "gemma3_text",
     .qk_norm = true,
     .post_norms = true,
     .norms_lack_one = true,
     .scales_embedding = true,
     .window_period = 6,
     .activation = Activation::gelu_tanh},
    {.gguf = "phi3", .hugging_face = "phi3"},
    {.gguf = "gpt2",
     .hugging_face = "gpt2",
     .layer_norm = true,
     .gated = false,
     .learned_positions = true,
     .all_bias = true,
     .transposed = true,
     .activation = Activation::gelu_tanh},
    {.gguf = "starcoder",
     .hugging_face = "gpt_bigcode",
     .layer_norm = true,
     .gated = false,
     .learned_positions = true,
     .all_bias = true,
     .activation = Activation::gelu_tanh},
    {.gguf = "starcoder2",
     .hugging_face = "starcoder2",
     .layer_norm = true,
     .gated = false,
     .activation = Activation::gelu_tanh},
};

Status nonsense(const char* why) noexcept { return fail(Errc::invalid_argument, "open", why); }

bool positive(float x) noexcept { return x > 0 && std::isfinite(x); }

Status check_rope(const Rope& rope, const Config& c) noexcept {
  if (rope.dim < 2 || rope.dim > c.head_dim || rope.dim % 2 != 0)
    return nonsense("rope turns an even number of a head's elements");
  const RopeScaling& s = rope.scaling;
  if (!positive(rope.base) || !positive(s.factor)) return nonsense("rope's base and factor must be positive");
  const bool stretches = s.kind == RopeScaling::Kind::yarn || s.kind == RopeScaling::Kind::llama3 ||
                         s.kind == RopeScaling::Kind::longrope || s.kind == RopeScaling::Kind::dynamic;
  if (stretches && !(s.original_context >= 1)) return nonsense("this rope scaling needs the original context");
  if (s.kind == RopeScaling::Kind::llama3 && !(positive(s.low_freq) && s.high_freq > s.low_freq))
    return nonsense("llama3's rope scaling needs low_freq_factor below high_freq_factor");
  if (s.kind == RopeScaling::Kind::yarn && !(positive(s.beta_fast) && positive(s.beta_slow) && rope.base > 1))
    return nonsense("yarn's betas must be positive");
  if (s.kind != RopeScaling::Kind::longrope) return {};
  for (const List<float>* list : {&c.long_factors, &c.short_factors}) {
    if (list->size() != static_cast<std::size_t>(rope.dim / 2))
      return nonsense("longrope needs a factor for each pair");
    for (const float factor : list->span()) {
      if (!positive(factor)) return nonsense("longrope's factors must be positive");
    }
  }
  return {};
}

}  // namespace

const Architecture* architecture_of_gguf(std::string_view name) noexcept {
  for (const Architecture& a : k_architectures) {
    if (a.gguf == name) return &a;
  }
  return nullptr;
}

const Architecture* architecture_of_hugging_face(std::string_view name) noexcept {
  if (name == "gemma3") name = "gemma3_text";
  for (const Architecture& a : k_architectures) {
    if (a.hugging_face == name) return &a;
  }
  return nullptr;
}

Status check_config(const Config& c) noexcept {
  for (const std::int64_t number : {c.layers, c.d_model, c.d_ff, c.context, c.head_dim, c.heads, c.kv_heads}) {
    if (number < 1 || number > limits::model_size) return nonsense("sizes lie between 1 and 2^24");
  }
  if (c.layers > limits::model_layers) return nonsense("at most 4096 layers");
  if (c.heads % c.kv_heads != 0) return nonsense("heads must be a multiple of kv_heads");
  if (!positive(c.norm_eps)) return nonsense("the norms' eps must be positive");
  if (c.window < 0 || c.window_period < 0 || c.first_windowed < 0) return nonsense("a window is not negative");
  for (const float scale : {c.attention_scale, c.attention_cap, c.logit_cap}) {
    if (!(scale >= 0) || !std::isfinite(scale)) return nonsense("scales and caps must not be negative");
  }
  if (c.experts != 0) {
    if (c.experts < 1 || c.experts > limits::model_experts || c.experts_used < 1 || c.experts_used > c.experts ||
        c.experts_used > limits::model_experts_used || c.expert_ff < 1 || c.expert_ff > limits::model_size ||
        c.shared_ff < 0 || c.shared_ff > limits::model_size || c.expert_period < 1 || c.first_expert < 0)
      return nonsense("experts: at most 4096, of which at most 64 are used");
  }
  if (c.architecture->learned_positions) return {};
  if (auto good = check_rope(c.rope, c); !good) return good;
  return check_rope(c.local_rope, c);
}

}  // namespace qorus::llm
