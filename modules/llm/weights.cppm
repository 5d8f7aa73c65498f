// Where a model's weights lie: tensors of a mapped file, or of several, all asked for by the names that GGUF gives them.
export module qorus.llm:weights;
import qorus.std;
import qorus.tensor;
import qorus.io;
import qorus.formats;
import qorus.text;
import :config;

export namespace qorus::llm {

// A checkpoint of llama2.c (https://github.com/karpathy/llama2.c), version 0: seven numbers, then f32 tensors in a fixed order.
class Llama2c {
 public:
  // Maps the file and checks that it is exactly as long as its numbers say. Errors: not_found, io, corrupt, unsupported.
  [[nodiscard]] static Result<Llama2c> open(std::string_view path) noexcept;
  [[nodiscard]] Result<Config> config() const noexcept;
  [[nodiscard]] Result<Tensor> tensor(std::string_view name) const noexcept;
  [[nodiscard]] Status whole() const noexcept;

 private:
  [[nodiscard]] Checked floats_wanted() const noexcept;
  MappedFile file_;
  std::int64_t d_model_ = 0, d_ff_ = 0, layers_ = 0, heads_ = 0, kv_heads_ = 0, vocab_ = 0, context_ = 0;
  bool tied_ = true;
};

// Borrowed tensors are valid as long as it lives, also when it is moved.
class Weights {
 public:
  enum class Kind : std::uint8_t { gguf, safetensors, llama2c };  // gguf: `.qorus` too
  // A GGUF or `.qorus` file, a folder with config.json and safetensors (one file, or several with their index), one file of such a folder, or a
  // checkpoint of llama2.c. Errors: those of the readers; not_found (a folder without them), corrupt (no such file at all).
  [[nodiscard]] static Result<Weights> open(std::string_view path) noexcept;

  [[nodiscard]] Kind kind() const noexcept { return kind_; }
  // Errc::io if one of the files has shrunk, or could not be read, since it was opened.
  [[nodiscard]] Status whole() const noexcept;
  [[nodiscard]] Result<Config> config() const noexcept;
  // "blk.3.attn_q.weight"; of experts "blk.3.experts.7.ffn_up.weight", of shared ones "blk.3.shared.ffn_up.weight". As the file has
  // them, which may be transposed or several in one. Errors: not_found, those of the readers.
  [[nodiscard]] Result<Tensor> tensor(std::string_view name) const noexcept;
  // A copy, which a tensor needs that does not stand where its elements may be read.
  [[nodiscard]] Result<Owned> copy(std::string_view name) const noexcept;
  [[nodiscard]] bool has(std::string_view name) const noexcept;
  [[nodiscard]] std::size_t bytes()
      const noexcept;  // of all tensors, as they are stored or laid out, whichever is more
  [[nodiscard]] const io::Gguf& gguf() const noexcept { return native_.gguf; }
  [[nodiscard]] const List<io::SafeTensors>& shards() const noexcept { return shards_; }
  // All of it will be read: what is not in memory yet comes in huge pages, where the system has them for files. A hint.
  void expect_reading() const noexcept;
  // A copy of a matrix in the order that products read, where the file has one; else null.
  [[nodiscard]] const formats::LaidOut* laid_out(std::string_view name) const noexcept;
  // The folder of a safetensors model, or of the file.
  [[nodiscard]] std::string_view folder() const noexcept { return {folder_.data(), folder_.size()}; }

 private:
  [[nodiscard]] Status open_folder(std::string_view file) noexcept;
  [[nodiscard]] Status open_shards(std::string_view index) noexcept;
  [[nodiscard]] Status open_shard(std::string_view name) noexcept;
  [[nodiscard]] Text name_in_file(std::string_view name) const noexcept;
  [[nodiscard]] const io::SafeTensors* shard_with(std::string_view name) const noexcept;

  Kind kind_ = Kind::gguf;
  formats::Native native_;  // of a GGUF file: with nothing laid out
  Llama2c llama2c_;
  List<io::SafeTensors> shards_;
  List<char> folder_;
  MappedFile config_file_;
  const Architecture* architecture_ = nullptr;
  std::string_view prefix_;  // of every name in the files
};

// The name of one of our tensors in Hugging Face's files, without the prefix that all of them may have. Empty if it has none.
[[nodiscard]] Text hugging_face_name(const Architecture& architecture, std::string_view name) noexcept;

struct FilePath {
  std::array<char, k_max_path> bytes{};
  std::size_t size = 0;
  [[nodiscard]] std::string_view view() const noexcept { return {bytes.data(), size}; }
};
// "folder/name", or the name alone in the current folder. Empty if it is too long.
[[nodiscard]] FilePath path_in(std::string_view folder, std::string_view name) noexcept;
[[nodiscard]] bool is_file(std::string_view path) noexcept;

}  // namespace qorus::llm
