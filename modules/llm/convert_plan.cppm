// How a conversion goes: where tensors come from, what becomes of each, and what is told about the model besides.
module qorus.llm:convert_plan;
import qorus.std;
import qorus.nn;
import qorus.io;
import qorus.formats;
import qorus.text;
import :config;
import :weights;
import :convert;

namespace qorus::llm {

enum class Turn : std::uint8_t {
  none,
  pair,       // rows of a head's two halves become neighbours: safetensors to GGUF
  unpair,     // the other way
  transpose,  //
  plus_one,   //
  minus_one,  //
  stack,      // matrices one after the other; '#' in the source's name is the number of each
  part,       // one matrix of a tensor of three extents
};

// A tensor of the new file.
struct Step {
  Text name, source;
  DType dtype = DType::f32, stored = DType::f32;
  Shape shape;
  Turn turn = Turn::none;
  std::int64_t number = 0;  // heads of a pair, matrices of a stack, which part
};

// The file that is read.
class Origin {
 public:
  enum class Kind : std::uint8_t { gguf, llama2c, hugging_face, safetensors, npz };
  [[nodiscard]] static Result<Origin> open(std::string_view path) noexcept;
  [[nodiscard]] Kind kind() const noexcept { return kind_; }
  [[nodiscard]] const Weights& weights() const noexcept { return weights_; }
  // Errc::io if it could not be read to its end.
  [[nodiscard]] Status whole() const noexcept { return kind_ == Kind::safetensors ? plain_.whole() : weights_.whole(); }
  // GGUF's metadata; null if it has none.
  [[nodiscard]] const io::Gguf* metadata() const noexcept;
  // Whether it says that it is a language model, and its numbers.
  [[nodiscard]] bool is_model() const noexcept;
  [[nodiscard]] Result<Config> config() const noexcept;
  // Calls visit(name, dtype, shape) -> Status for each tensor, by the names of the file.
  template <class F>
  [[nodiscard]] Status each(F&& visit) const noexcept;
  // A view, or a copy that is kept. Names of safetensors models are the file's if `by_file`, else GGUF's.
  [[nodiscard]] Result<Tensor> tensor(std::string_view name, bool by_file, Owned& kept) const noexcept;

 private:
  Kind kind_ = Kind::gguf;
  Weights weights_;
  io::SafeTensors plain_;
  io::Npz npz_;
  Owned npz_bytes_;
  io::Gguf npz_metadata_;
  bool npz_told_ = false;
};

// An element type of safetensors as ours. Errors: unsupported.
[[nodiscard]] Result<DType> dtype_of_safetensors(const io::TensorEntry& entry) noexcept;
// The key under which a text file of the original lies in GGUF's metadata.
inline constexpr std::string_view k_file_prefix = "qorus.file.", k_source_types = "qorus.source.types",
                                  k_npz_metadata = "__metadata__";
// The text files that make a folder of Hugging Face complete.
inline constexpr std::string_view k_companions[] = {
    "config.json",         "generation_config.json",  "tokenizer.json", "tokenizer.model", "tokenizer_config.json",
    "chat_template.jinja", "special_tokens_map.json", "vocab.json",     "merges.txt",      "added_tokens.json"};

// GGUF's metadata of a safetensors model or a checkpoint of llama2.c. Errors: unsupported (what GGUF cannot tell, by name).
[[nodiscard]] Status describe_model(const Origin& origin, const Config& config, io::GgufMetadata& to) noexcept;
// config.json of a model that came without one; `file` may be null. Errors: unsupported, out_of_memory.
[[nodiscard]] Status describe_json(const io::Gguf* file, const Config& config, const Architecture& architecture,
                                   DType dtype, bool tied, List<char>& to) noexcept;
// A SentencePiece model, or a tokenizer.json of merged bytes, if the file has such a vocabulary; else nothing.
[[nodiscard]] Status describe_pieces(const io::Gguf& file, List<char>& to) noexcept;
[[nodiscard]] Status describe_merges(const io::Gguf& file, List<char>& to) noexcept;

template <class F>
Status Origin::each(F&& visit) const noexcept {
  if (kind_ == Kind::gguf) {
    for (const io::TensorEntry& entry : weights_.gguf().entries()) {
      auto tensor = weights_.gguf().tensor(entry.name);
      if (!tensor) return fail(tensor.error());
      if (auto done = visit(entry.name, tensor->dtype(), entry.shape); !done) return done;
    }
  }
  if (kind_ == Kind::npz) {
    for (std::size_t i = 0; i < npz_.size(); ++i) {
      if (npz_.name(i) == k_npz_metadata) continue;
      auto array = npz_.read(npz_.name(i));
      if (!array) return fail(array.error());
      if (auto done = visit(npz_.name(i), array->tensor().dtype(), array->tensor().shape()); !done) return done;
    }
  }
  const auto each_of = [&](const io::SafeTensors& file) -> Status {
    for (const io::TensorEntry& entry : file.entries()) {
      const auto dtype = dtype_of_safetensors(entry);
      if (!dtype) return fail(dtype.error());
      if (auto done = visit(entry.name, *dtype, entry.shape); !done) return done;
    }
    return {};
  };
  if (kind_ == Kind::safetensors) return each_of(plain_);
  for (const io::SafeTensors& shard : weights_.shards()) {
    if (auto done = each_of(shard); !done) return done;
  }
  if (kind_ != Kind::llama2c) return {};
  const auto config = this->config();
  if (!config) return fail(config.error());
  const auto show = [&](std::string_view name) -> Status {
    auto tensor = weights_.tensor(name);
    return tensor ? visit(name, tensor->dtype(), tensor->shape()) : Status();
  };
  for (const char* name : {"token_embd.weight", "output_norm.weight", "output.weight"}) {
    if (auto done = show(name); !done) return done;
  }
  for (std::int64_t layer = 0; layer < config->layers; ++layer) {
    for (const char* part :
         {"attn_norm", "attn_q", "attn_k", "attn_v", "attn_output", "ffn_norm", "ffn_gate", "ffn_down", "ffn_up"}) {
      Text name;
      ((((name += "blk.") += layer) += ".") += part) += ".weight";
      if (auto done = show(name.view()); !done) return done;
    }
  }
  return {};
}

}  // namespace qorus::llm
