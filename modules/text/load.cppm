// Tokenizers from the files they come in.
module;
#include <cstddef>
#include <span>
#include <string_view>
export module qorus.text:load;
import qorus.memory;
import :tokenizer;

export namespace qorus::text {

// All of these check everything before they use it. Errors: corrupt, unsupported (a part of the format that is not done, by name),
// overflow, out_of_memory, and those of Tokenizer::create.

// tokenizer.json of Hugging Face's tokenizers: BPE (byte-level, or of characters with a marker for spaces), Unigram, WordPiece.
[[nodiscard]] Result<Tokenizer> from_json(std::string_view text) noexcept;
// A .model of SentencePiece: BPE and unigram.
[[nodiscard]] Result<Tokenizer> from_sentencepiece(std::span<const std::byte> bytes) noexcept;
// tokenizer.bin of llama2.c.
[[nodiscard]] Result<Tokenizer> from_llama2c(std::span<const std::byte> bytes) noexcept;
// A rank file of tiktoken, lines of base64 and rank. It has no special pieces; `pre_tokenizer` as in VocabularySpec.
[[nodiscard]] Result<Tokenizer> from_tiktoken(std::string_view text, std::string_view pre_tokenizer) noexcept;

// Any of these, and the vocabulary of a GGUF file, told by the content; of tiktoken's those whose number of ranks says what they are:
// r50k, p50k, cl100k, o200k, Llama 3's and Qwen's. Errors, with the file's name: also not_found, io.
[[nodiscard]] Result<Tokenizer> open(std::string_view path) noexcept;

}  // namespace qorus::text
