// A language model: layers bound to the weights of a file, with its tokenizer.
export module qorus.llm:model;
import qorus.std;
import qorus.nn;
import qorus.io;
import qorus.text;
import :config;
import :sampler;
import :network;
import :weights;
import :packing;

export namespace qorus::llm {

struct OpenOptions {
  // Any file that text::open takes; empty: the one of the GGUF file, or tokenizer.json, tokenizer.model or tokenizer.bin beside the
  // weights. Where there is none the model opens, and takes and gives ids only.
  std::string_view tokenizer = {};
  // False: matrices of all types stay as they are stored, in the mapped file, and products read them from there, more slowly for few
  // rows: for training, which has no use for a second copy in another order.
  bool lay_out = true;
  std::string_view adapter = {};  // a file or a folder that read_adapter takes: it is added to the model
  float adapter_scale = 1;        // times what the adapter says
};

// Movable. F32 weights and embeddings stay in the mapped file; f16, bf16 and block matrices are laid out for products, in as
// many bytes or less, while the program goes on.
class Model {
 public:
  Model() noexcept = default;
  Model(Model&&) noexcept = default;
  Model& operator=(Model&& other) noexcept {  // what lays out the old weights ends before they go
    if (this != &other) {
      std::destroy_at(this);
      std::construct_at(this, std::move(other));
    }
    return *this;
  }
  ~Model() = default;

  [[nodiscard]] const Config& config() const noexcept { return config_; }
  [[nodiscard]] const text::Tokenizer& tokenizer() const noexcept { return tokenizer_; }
  // Whether a token ends a text.
  [[nodiscard]] bool ends_text(std::int32_t id) const noexcept;
  // Their weights are laid out once ready() has said so; until then products read them as they are stored, more slowly.
  [[nodiscard]] const Network& layers() const noexcept { return layers_; }
  [[nodiscard]] Network& layers() noexcept { return layers_; }  // for who trains: parameters may be bound to others
  // Returns when the weights of a layer, or with -1 of all, are laid out, which goes on after open() has returned. Sessions ask for
  // what they need. Errors: out_of_memory.
  [[nodiscard]] Status ready(std::int64_t layer = -1) const noexcept { return packed_.wait(layer); }
  // For the first tokens of all: laying out waits until they are answered (empty for all later ones, who wait for it).
  [[nodiscard]] PackedWeights::Pause begin() const noexcept { return packed_.pause_once(); }
  // Errc::io if a file of its weights has shrunk, or could not be read, since it was opened. Sessions ask after every step.
  [[nodiscard]] Status whole() const noexcept { return weights_.whole(); }
  // Whether its file has a tensor of this name: some hold several matrices in one, blk.0.attn_qkv.weight.
  [[nodiscard]] bool stores(std::string_view tensor) const noexcept { return weights_.has(tensor); }
  // The chat template that came with it, in Jinja; empty if none did.
  [[nodiscard]] std::string_view chat_template() const noexcept { return {template_.data(), template_.size()}; }
  // How its authors would have it sampled (generation_config.json; general.sampling of GGUF files); greedy if they do not say.
  [[nodiscard]] const GenerateOptions& suggested() const noexcept { return suggested_; }
  // A number that other weights or another shape hardly have: of sizes and of parts of the weights.
  [[nodiscard]] std::uint64_t fingerprint() const noexcept { return fingerprint_; }

 private:
  friend class Opener;
  Weights weights_;
  List<Owned> converted_;
  PackedWeights packed_;  // after the weights, which it reads until it is destroyed
  Config config_;
  Network layers_;
  text::Tokenizer tokenizer_;
  List<std::int32_t> ends_;
  List<char> template_;
  GenerateOptions suggested_;
  std::uint64_t fingerprint_ = 0;
};

// Opens a GGUF file, a folder with config.json and safetensors, or a checkpoint of llama2.c. Errors: those of the readers and of the
// tokenizer; unsupported (an architecture, by name, or a kind of rope scaling), not_found (a tensor, by name), invalid_size (a tensor
// of another shape, both named), invalid_argument (numbers that make no model), out_of_memory; those of the adapter.
[[nodiscard]] Result<Model> open(std::string_view path, const OpenOptions& options = {}) noexcept;

}  // namespace qorus::llm
