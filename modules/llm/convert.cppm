// A model's file as a file of another format.
export module qorus.llm:convert;
import qorus.std;
import qorus.nn;
import qorus.formats;
import qorus.io;

export namespace qorus::llm {

enum class Container : std::uint8_t { gguf, native, safetensors, npz, llama2c };
// By the end of its name: .gguf, .qorus, .safetensors, .npz, .bin; anything else is a folder with safetensors.
[[nodiscard]] Container container_of(std::string_view path) noexcept;

struct ConvertOptions {
  Container to = Container::gguf;
  // Types of the matrices; null: as they are where the format holds them, else f32.
  const formats::Scheme* scheme = nullptr;
  std::uint64_t shard_bytes =
      0;  // safetensors in a folder: files of at most so many bytes of tensors (but of one tensor at least); 0: one file
  bool laid_out =
      false;  // `.qorus`: matrices a second time, as products read them, so that opening it lays nothing out
  // Called after each tensor; false ends it (invalid_argument, and no file is left).
  bool (*progress)(void* user, std::string_view tensor, std::size_t done, std::size_t tensors) = nullptr;
  void* user = nullptr;
  int threads = cpu_count();
};
struct Converted {
  std::size_t tensors = 0;
  std::uint64_t bytes = 0;  // of the new tensors
};

// Reads a GGUF or `.qorus` file, a folder (or file) of safetensors, a checkpoint of llama2.c or an npz archive and writes one of the others. Of a
// language model that llm::open knows, names, the order of rotary pairs, experts and everything else that the formats have differently are
// translated, the configuration and the tokenizer too; other files keep their names. Tensors keep their bits wherever the new format has their type. In GGUF files and
// archives made here the original's own texts (config.json, tokenizer.json, …) lie under "qorus.file.*", and are put back by the way back. Memory: 64 MiB and the
// largest tensor. Errors: those of the readers and writers; unsupported (a model that the new format cannot tell), not_found (a tensor that
// the architecture has and the file lacks, or the other way round; both with the name).
[[nodiscard]] Result<Converted> convert(std::string_view from, std::string_view to,
                                        const ConvertOptions& options) noexcept;

// The vocabulary of a tokenizer's file (what text::read_vocabulary reads) under tokenizer.ggml.*, as llama.cpp's converter tells it.
// Errors: those of text::read_vocabulary; unsupported (what GGUF cannot tell, by name).
[[nodiscard]] Status put_vocabulary(std::string_view path, io::GgufMetadata& to) noexcept;

}  // namespace qorus::llm
