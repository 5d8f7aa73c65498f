// Tokenizers from the metadata of GGUF files.
export module qorus.text:gguf;
import qorus.io;
import :tokenizer;

export namespace qorus::text {

// The vocabulary under tokenizer.ggml.*; what a file leaves unsaid is as llama.cpp takes it. Errors, with the key or the name at fault:
// not_found (a file without a vocabulary), invalid_dtype, unsupported (another model than gpt2, llama, t5 and bert; a pre-tokenizer
// that is not known), and those of Tokenizer::create.
[[nodiscard]] Result<Tokenizer> from_gguf(const io::Gguf& file) noexcept;

}  // namespace qorus::text
