// How a model is put together: its layers bound to tensors, and what lies beside the weights.
module qorus.llm:binder;
import qorus.std;
import qorus.nn;
import qorus.text;
import :config;
import :network;
import :weights;
import :packing;
import :sampler;

namespace qorus::llm {

// Makes the layers that the numbers and the file's tensors ask for, each parameter bound to its tensor, whose shape is checked.
class Binder {
 public:
  Binder(const Weights& weights, const Config& config, Network& net, List<Owned>& converted, PackedWeights& packed,
         bool lay_out) noexcept
      : weights_(weights), c_(config), net_(net), converted_(converted), packed_(packed), lay_out_(lay_out) {}
  [[nodiscard]] Status run() noexcept;

 private:
  // Some rows of a tensor of the file: all of them, or a part of one that holds several parameters.
  struct Source {
    Tensor tensor;
    Text name;
  };
  [[nodiscard]] Status bind_block(std::int64_t layer) noexcept;
  [[nodiscard]] Status bind_attention(Block& block) noexcept;
  [[nodiscard]] Status bind_qkv(Block& block) noexcept;
  [[nodiscard]] Status bind_feed(Feed& feed, const char* under, std::int64_t width) noexcept;
  [[nodiscard]] Status bind_fused_feed(Feed& feed, const char* fused, std::int64_t width) noexcept;
  [[nodiscard]] Status bind_experts(Experts& experts) noexcept;
  [[nodiscard]] Status bind_expert(Feed& feed, std::int64_t index) noexcept;
  [[nodiscard]] Status bind_linear(nn::Linear& linear, const char* part, std::int64_t out, std::int64_t in,
                                   bool bias_needed) noexcept;
  [[nodiscard]] Status bind_norm(Norm& norm, const char* part, std::int64_t size, Norm::Kind kind) noexcept;
  [[nodiscard]] Status bind_head() noexcept;
  void note_laying(Block& block) const noexcept;  // of its projections

  [[nodiscard]] Text name_of(const char* part, const char* tail) const noexcept;
  [[nodiscard]] Result<Tensor> find(const Text& name) noexcept;
  // Binds a parameter to rows [first, first + shape[0]) of a tensor.
  [[nodiscard]] Status place(nn::Param& param, const Text& name, const Tensor& stored, std::int64_t first,
                             const Shape& shape) noexcept;
  [[nodiscard]] Status place(nn::Param& param, const Text& name, const Shape& shape) noexcept;
  // Rows of a tensor of the file, from `first` on.
  [[nodiscard]] Status pack(nn::Param& param, const Text& name, std::int64_t first) noexcept;
  [[nodiscard]] bool take_laid_out(nn::Param& param, const Text& name, std::int64_t first) const noexcept;
  [[nodiscard]] Result<Tensor> convert(const Tensor& stored, float add) noexcept;

  const Weights& weights_;
  const Config& c_;
  Network& net_;
  List<Owned>& converted_;
  PackedWeights& packed_;
  bool lay_out_;             // matrices for products; otherwise they stay as they are stored
  std::int64_t layer_ = -1;  // the block at work
};

// What comes with the weights: tokenizer, the tokens that end a text, the chat template.
class Companions {
 public:
  Companions(const Weights& weights, std::string_view path) noexcept : weights_(weights), path_(path) {}
  [[nodiscard]] Result<text::Tokenizer> tokenizer(std::string_view given, std::int64_t vocab) const noexcept;
  [[nodiscard]] Status ends(const text::Tokenizer& tokenizer, List<std::int32_t>& out) const noexcept;
  [[nodiscard]] Status chat_template(List<char>& out) const noexcept;
  [[nodiscard]] Status sampling(GenerateOptions& out) const noexcept;

 private:
  const Weights& weights_;
  std::string_view path_;
};

}  // namespace qorus::llm
