// Tokenizers from the files they come in.
export module qorus.text:load;
import qorus.std;
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

// What a file says of its vocabulary, for who writes it in another format. `spec` and what it refers to live until visit returns; the
// pre-tokenizer has a name as GGUF files have it, or none that fits.
struct VocabularyVisitor {
  void* user = nullptr;
  Status (*visit)(void* user, const VocabularySpec& spec) = nullptr;
};
// tokenizer.json, a .model of SentencePiece, tokenizer.bin of llama2.c, a rank file of tiktoken that `open` knows (as merges, in GPT-2's
// alphabet, and with the end of a text as its last piece). Errors: those of their readers and of the visitor; not_found, io.
[[nodiscard]] Status read_vocabulary(std::string_view path, const VocabularyVisitor& visitor) noexcept;
// The regular expressions of a pre-tokenizer that GGUF names, as a tokenizer.json spells them. Errors: unsupported, out_of_memory.
[[nodiscard]] Result<List<std::string_view>> expressions_of(std::string_view pre_tokenizer) noexcept;

// Any of these, and the vocabulary of a GGUF or `.qorus` file, told by the content; of tiktoken's those whose number of ranks says what they are:
// r50k, p50k, cl100k, o200k, Llama 3's and Qwen's. Errors, with the file's name: also not_found, io.
[[nodiscard]] Result<Tokenizer> open(std::string_view path) noexcept;

}  // namespace qorus::text

// Within the module only.
namespace qorus::text {

// Ranks as merges. Errors: unsupported (a piece of more than 512 bytes), out_of_memory, the visitor's.
[[nodiscard]] Status show_ranks(std::span<const std::string_view> pieces, std::string_view pre_tokenizer,
                                const VocabularyVisitor& visitor) noexcept;
[[nodiscard]] Status visit_json(std::string_view text, const VocabularyVisitor& visitor) noexcept;
// Makes the tokenizer, or, with a visitor, shows it the vocabulary and makes none.
[[nodiscard]] Result<Tokenizer> make_or_show(const VocabularySpec& spec, const VocabularyVisitor* visitor) noexcept;

}  // namespace qorus::text
