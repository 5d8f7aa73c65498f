// A model that was trained as a GGUF file, which llm::open and llama.cpp read.
export module qorus.tune:write;
import qorus.std;
import qorus.nn;
import qorus.io;
import qorus.text;

export namespace qorus::tune {

struct WriteOptions {
  // How the matrices are stored, by a name that formats::scheme_of knows: "f32", "f16", "q8_0", "q4_k_m", …; norms stay f32, and rows that
  // are no whole blocks get what llama.cpp would give them.
  std::string_view type = "f32";
  std::string_view name = {};  // general.name
  std::int64_t context = 0;    // positions that it was trained for: the shape it was built for, if 0
  int threads = cpu_count();
};
// Writes a model of Llama's kind (nn::llama: RMS norms, rotary positions, SwiGLU, no biases; the head its own or tied) as GGUF version 3:
// hyperparameters, vocabulary, tensors. Rows of queries and keys stand as the format has them, whichever pairs turn. Memory: 32
// MiB, and a matrix. Errors: unsupported (a model of another kind; a type that is not known), invalid_size (another number of pieces
// than the model's vocabulary has), and those of io::GgufWriter.
[[nodiscard]] Status write_gguf(const nn::Model<nn::LanguageModel>& model, const text::VocabularySpec& vocabulary,
                                std::string_view path, const WriteOptions& options = {}) noexcept;
// The same with the vocabulary of another GGUF file. Errors: also not_found (it has none).
[[nodiscard]] Status write_gguf(const nn::Model<nn::LanguageModel>& model, const io::Gguf& vocabulary,
                                std::string_view path, const WriteOptions& options = {}) noexcept;

}  // namespace qorus::tune
