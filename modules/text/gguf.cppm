// Tokenizers from the metadata of GGUF files, and into it.
export module qorus.text:gguf;
import qorus.io;
import :tokenizer;

export namespace qorus::text {

// The vocabulary under tokenizer.ggml.*; what a file leaves unsaid is as llama.cpp takes it. Errors, with the key or the name at fault:
// not_found (a file without a vocabulary), invalid_dtype, unsupported (another model than gpt2, llama, t5 and bert; a pre-tokenizer
// that is not known), and those of Tokenizer::create.
[[nodiscard]] Result<Tokenizer> from_gguf(const io::Gguf& file) noexcept;

// Puts a vocabulary under tokenizer.ggml.*, so that from_gguf, and llama.cpp, make the same tokenizer of it. Errors: unsupported (settings
// that the format has no key for), and those of GgufWriter::put.
[[nodiscard]] Status put_vocabulary(io::GgufWriter& writer, const VocabularySpec& vocabulary) noexcept;
// That of another file as it is. Errors: not_found (it has none).
[[nodiscard]] Status put_vocabulary(io::GgufWriter& writer, const io::Gguf& from) noexcept;

}  // namespace qorus::text
