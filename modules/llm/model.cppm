// A language model: layers bound to the weights of a file, with its tokenizer. So far the Llama architecture, from GGUF.
module;
#include <cstddef>
#include <cstdint>
#include <string_view>
export module qorus.llm:model;
import qorus.nn;
import qorus.io;
import qorus.text;
import :weights;

export namespace qorus::llm {

// The numbers of an architecture, as its file gives them.
struct Config {
  std::int64_t layers = 0, d_model = 0, heads = 0, kv_heads = 0, head_dim = 0, d_ff = 0, vocab = 0;
  std::int64_t context = 0;   // positions that the model was trained for
  std::int64_t rope_dim = 0;  // elements of a head that turn
  float rope_base = 10000, norm_eps = 1e-5f;
};

// One block of Llama: x + o_proj(attention), then x + down_proj(silu(gate x) up x), each after an RMS norm.
struct LlamaBlock {
  nn::RmsNorm input_norm, post_attention_norm;
  nn::Linear q_proj, k_proj, v_proj, o_proj;
  nn::Linear gate_proj, up_proj, down_proj;
  static constexpr auto fields() {
    return nn::fields("attn_norm", &LlamaBlock::input_norm, "attn_q", &LlamaBlock::q_proj, "attn_k",
                      &LlamaBlock::k_proj, "attn_v", &LlamaBlock::v_proj, "attn_output", &LlamaBlock::o_proj,
                      "ffn_norm", &LlamaBlock::post_attention_norm, "ffn_gate", &LlamaBlock::gate_proj, "ffn_up",
                      &LlamaBlock::up_proj, "ffn_down", &LlamaBlock::down_proj);
  }
};

// Parameters are named as in GGUF: token_embd.weight, blk.0.attn_q.weight, …
struct Llama {
  nn::Embedding embedding;
  List<LlamaBlock> blocks;
  nn::RmsNorm norm;
  nn::Linear head;  // shares the embedding's weight where the file has none of its own

  template <class Self, class F>
  static void visit_parts(Self& self, F&& f) {
    f(std::string_view("token_embd"), self.embedding);
    for (std::size_t i = 0; i < self.blocks.size(); ++i) {
      Text name;
      (name += "blk.") += static_cast<std::int64_t>(i);
      f(name.view(), self.blocks[i]);
    }
    f(std::string_view("output_norm"), self.norm);
    f(std::string_view("output"), self.head);
  }
};

// Movable. Weights stay in the types that the file has them in.
class Model {
 public:
  [[nodiscard]] const Config& config() const noexcept { return config_; }
  [[nodiscard]] const text::Tokenizer& tokenizer() const noexcept { return tokenizer_; }
  // Whether a token ends a text.
  [[nodiscard]] bool ends_text(std::int32_t id) const noexcept { return id == tokenizer_.eos(); }
  [[nodiscard]] const Llama& layers() const noexcept { return layers_; }

 private:
  friend class Opener;
  io::Gguf file_;
  Weights weights_;
  Config config_;
  Llama layers_;
  text::Tokenizer tokenizer_;
};

// Opens a GGUF file. Errors: those of read_gguf and of the tokenizer; unsupported (an architecture, by name, or a kind of rope scaling),
// not_found (a tensor, by name), invalid_size (a tensor of another shape, both named), invalid_argument (numbers that make no model),
// out_of_memory.
[[nodiscard]] Result<Model> open(std::string_view path) noexcept;

}  // namespace qorus::llm
