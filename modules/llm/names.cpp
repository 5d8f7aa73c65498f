// Bodies of qorus.llm:weights: what Hugging Face's files call the tensors.
module qorus.llm;
import qorus.std;

namespace qorus::llm {
namespace {

struct Name {
  std::string_view ours, theirs;
};

// Most models. Of a block, what follows "blk.N." and "model.layers.N."
constexpr Name k_names[] = {{"token_embd", "embed_tokens"},
                            {"output_norm", "norm"},
                            {"attn_norm", "input_layernorm"},
                            {"attn_q", "self_attn.q_proj"},
                            {"attn_k", "self_attn.k_proj"},
                            {"attn_v", "self_attn.v_proj"},
                            {"attn_qkv", "self_attn.qkv_proj"},
                            {"attn_output", "self_attn.o_proj"},
                            {"attn_q_norm", "self_attn.q_norm"},
                            {"attn_k_norm", "self_attn.k_norm"},
                            {"ffn_norm", "post_attention_layernorm"},
                            {"ffn_gate", "mlp.gate_proj"},
                            {"ffn_up", "mlp.up_proj"},
                            {"ffn_down", "mlp.down_proj"},
                            {"ffn_gate_up", "mlp.gate_up_proj"},
                            {"ffn_gate_inp", "mlp.gate"},
                            {"shared.ffn_gate", "mlp.shared_expert.gate_proj"},
                            {"shared.ffn_up", "mlp.shared_expert.up_proj"},
                            {"shared.ffn_down", "mlp.shared_expert.down_proj"},
                            {"ffn_gate_inp_shexp", "mlp.shared_expert_gate"}};
constexpr Name k_expert[] = {{"ffn_gate", "mlp.experts.E.gate_proj"},
                             {"ffn_up", "mlp.experts.E.up_proj"},
                             {"ffn_down", "mlp.experts.E.down_proj"}};
// Where a model differs.
constexpr Name k_gemma[] = {{"post_attention_norm", "post_attention_layernorm"},
                            {"ffn_norm", "pre_feedforward_layernorm"},
                            {"post_ffw_norm", "post_feedforward_layernorm"}};
constexpr Name k_mixtral[] = {{"ffn_gate_inp", "block_sparse_moe.gate"}};
constexpr Name k_mixtral_expert[] = {{"ffn_gate", "block_sparse_moe.experts.E.w1"},
                                     {"ffn_up", "block_sparse_moe.experts.E.w3"},
                                     {"ffn_down", "block_sparse_moe.experts.E.w2"}};
constexpr Name k_starcoder2[] = {{"ffn_up", "mlp.c_fc"}, {"ffn_down", "mlp.c_proj"}};
constexpr Name k_gpt2[] = {{"token_embd", "wte"},          {"position_embd", "wpe"},    {"output_norm", "ln_f"},
                           {"attn_norm", "ln_1"},          {"attn_qkv", "attn.c_attn"}, {"ffn_norm", "ln_2"},
                           {"attn_output", "attn.c_proj"}, {"ffn_up", "mlp.c_fc"},      {"ffn_down", "mlp.c_proj"}};

std::string_view look_up(std::span<const Name> names, std::string_view ours) noexcept {
  for (const Name& name : names) {
    if (name.ours == ours) return name.theirs;
  }
  return {};
}

std::string_view part_name(const Architecture& a, std::string_view part) noexcept {
  std::string_view found;
  if (a.learned_positions) return look_up(k_gpt2, part);
  if (a.post_norms) found = look_up(k_gemma, part);
  if (a.hugging_face == "mixtral") found = look_up(k_mixtral, part);
  if (a.hugging_face == "starcoder2") found = look_up(k_starcoder2, part);
  return found.empty() ? look_up(k_names, part) : found;
}

// The text up to a dot, which is taken away.
std::string_view take_word(std::string_view& text) noexcept {
  const std::size_t dot = text.find('.');
  const std::string_view word(text.data(), dot == text.npos ? text.size() : dot);
  text.remove_prefix(dot == text.npos ? text.size() : dot + 1);
  return word;
}

}  // namespace

Text hugging_face_name(const Architecture& a, std::string_view name) noexcept {
  Text full;
  if (name.starts_with("output.")) {
    name.remove_prefix(7);
    return (full += "lm_head.") += name;
  }
  const std::string_view model = a.learned_positions ? "" : "model.";
  const std::size_t dot = name.rfind('.');
  if (dot == name.npos) return full;
  const std::string_view tail(name.data() + dot, name.size() - dot);
  std::string_view part(name.data(), dot);
  full += model;
  std::string_view expert;
  if (part.starts_with("blk.")) {
    take_word(part);
    full += a.learned_positions ? "h." : "layers.";
    (full += take_word(part)) += ".";
    if (part.starts_with("experts.")) {
      take_word(part);
      expert = take_word(part);
    }
  }
  if (expert.empty()) {
    const std::string_view theirs = part_name(a, part);
    if (theirs.empty()) return {};
    return (full += theirs) += tail;
  }
  std::string_view theirs =
      look_up(a.hugging_face == "mixtral" ? std::span<const Name>(k_mixtral_expert) : k_expert, part);
  const std::size_t place = theirs.find(".E.");
  if (place == theirs.npos) return {};
  full += std::string_view(theirs.data(), place + 1);
  full += expert;
  theirs.remove_prefix(place + 2);
  return (full += theirs) += tail;
}

}  // namespace qorus::llm
