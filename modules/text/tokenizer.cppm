// Tokenizers: text to the ids of a model's vocabulary and back. The vocabulary comes from outside and may be anything: it is checked
// once, when the tokenizer is made; after that every text has ids, and every list of ids that the vocabulary has is a text.
export module qorus.text:tokenizer;
import qorus.std;
import qorus.memory;

namespace qorus::text {
struct Model;
struct Maker;
}  // namespace qorus::text

export namespace qorus::text {

// How text is cut into pieces.
enum class Algorithm : std::uint8_t {
  byte_bpe,   // merges of bytes within the words that a pre-tokenizer finds (GPT-2 and most models since)
  char_bpe,   // merges of characters, by score or by a list; a space is a character (SentencePiece's BPE)
  unigram,    // the most probable sequence of pieces (SentencePiece's unigram)
  wordpiece,  // the longest piece first, word by word (BERT)
};

// What a piece is for; the numbers are those of SentencePiece and GGUF.
enum class PieceKind : std::uint8_t { normal = 1, unknown = 2, control = 3, user_defined = 4, unused = 5, byte = 6 };

// A vocabulary as its file gives it, nothing checked yet. Views: they need to live only until Tokenizer::create returns.
struct VocabularySpec {
  Algorithm algorithm = Algorithm::byte_bpe;
  std::span<const std::string_view> pieces;  // the id is the index
  std::span<const float> scores;             // empty, or one for each piece; the higher is merged first
  std::span<const std::int32_t> kinds;       // empty (all normal), or a PieceKind for each piece
  std::span<const std::string_view> merges;  // "left right", the first is merged first; without any it goes by scores
  std::string_view
      pre_tokenizer;  // byte_bpe: a name as GGUF has it, "gpt-2", "llama-bpe", "qwen2", …; several with commas
  std::span<const std::byte> character_map;       // SentencePiece's precompiled normaliser, if any
  std::int64_t bos = -1, eos = -1, unknown = -1;  // ids, negative for none
  bool add_bos = false, add_eos = false;          // whether the model was trained with them
  bool space_prefix = false;                      // a text begins with a space, whether it does or not
  bool prefix_once = false;                       // … but not where it goes on after a user-defined piece
  bool space_suffix = false;                      // it ends with one instead
  bool squeeze_spaces = false;                    // runs of spaces become one, those at the ends go
  bool space_marker = true;                       // pieces spell a space as U+2581 (not byte_bpe)
  bool raw_bytes = false;                         // byte_bpe: pieces are bytes as they are, not in GPT-2's alphabet
  bool whole_words = false;  // byte_bpe: a word that is a piece is that piece, whatever the merges say
  bool fuse_unknown = true;  // neighbours without a piece become one unknown piece
  bool compose = false;      // the text is brought to Unicode's form NFC first
  bool lower_case = true;    // wordpiece: letters lose their case and accents
  std::span<const std::int32_t> strip_left, strip_right;  // ids of special pieces that take the blanks beside them
};

struct EncodeOptions {
  bool bos = false, eos = false;  // the vocabulary's own, if it has one
  bool special = false;  // control pieces that the text spells out are those pieces; otherwise they are plain text
};
struct DecodeOptions {
  bool special = false;    // control pieces are spelled out; otherwise they are nothing
  bool continues = false;  // the ids go on after others: the first space, where a model puts one, stays
};

// A vocabulary ready for use. Movable; const functions may be called from several threads at once.
class Tokenizer {
 public:
  Tokenizer() noexcept = default;
  // Errors: corrupt (a piece or merge that is not what it should be; the subject names it), unsupported (a pre-tokenizer that is
  // not known, by name; a piece of more than 64 KiB), overflow, out_of_memory.
  [[nodiscard]] static Result<Tokenizer> create(const VocabularySpec& spec) noexcept;
  Tokenizer(Tokenizer&& other) noexcept : model_(std::exchange(other.model_, nullptr)) {}
  Tokenizer& operator=(Tokenizer&& other) noexcept {
    std::swap(model_, other.model_);
    return *this;
  }
  Tokenizer(const Tokenizer&) = delete;
  Tokenizer& operator=(const Tokenizer&) = delete;
  ~Tokenizer();

  // Appends the ids of a text, which need not be UTF-8. Takes time O(n log n) at most. On an error `ids` is as it was. Errors:
  // overflow (2 GiB or more), invalid_argument (a byte that the vocabulary has no piece for, and no unknown piece), not_built (an
  // empty tokenizer), out_of_memory.
  [[nodiscard]] Status encode(std::string_view text, const EncodeOptions& options,
                              List<std::int32_t>& ids) const noexcept;
  [[nodiscard]] Result<List<std::int32_t>> encode(std::string_view text,
                                                  const EncodeOptions& options = {}) const noexcept;

  // Appends the text of ids. What encode gave without losses (byte_bpe, and char_bpe with pieces for bytes) comes back to the
  // byte. Errors: invalid_argument (an id outside the vocabulary; `text` is as it was), not_built, out_of_memory.
  [[nodiscard]] Status decode(std::span<const std::int32_t> ids, const DecodeOptions& options,
                              List<char>& text) const noexcept;
  [[nodiscard]] Result<List<char>> decode(std::span<const std::int32_t> ids,
                                          const DecodeOptions& options = {}) const noexcept;

  [[nodiscard]] std::size_t size() const noexcept;  // pieces of the vocabulary
  [[nodiscard]] std::string_view piece(
      std::int32_t id) const noexcept;  // as the vocabulary spells it; empty if it has no such id
  [[nodiscard]] std::int32_t id_of(std::string_view piece) const noexcept;  // the other way; -1 if there is none
  [[nodiscard]] bool is_control(std::int32_t id) const noexcept;            // nothing of it is shown
  [[nodiscard]] std::int32_t bos() const noexcept;                          // -1 if there is none, and so below
  [[nodiscard]] std::int32_t eos() const noexcept;
  [[nodiscard]] std::int32_t unknown() const noexcept;
  [[nodiscard]] bool adds_bos() const noexcept;  // whether the model was trained with them, for EncodeOptions
  [[nodiscard]] bool adds_eos() const noexcept;

 private:
  friend class StreamDecoder;
  friend struct Maker;
  Model* model_ = nullptr;
};

// Decodes one id after the other, as a model makes them. What it gives is whole UTF-8 characters: the bytes of one that is not
// complete yet wait. Bytes that are no part of a character come as they are. The tokenizer must outlive it.
class StreamDecoder {
 public:
  explicit StreamDecoder(const Tokenizer& tokenizer, const DecodeOptions& options = {}) noexcept
      : tokenizer_(&tokenizer), options_(options) {}
  // The text that is certain now, empty or not; valid until the next call. Allocates nothing once warm. Errors: those of decode.
  [[nodiscard]] Result<std::string_view> next(std::int32_t id) noexcept;
  // What was still waiting. The decoder can be used again, as new.
  [[nodiscard]] std::string_view finish() noexcept;

 private:
  const Tokenizer* tokenizer_;
  DecodeOptions options_;
  List<char> bytes_;
  std::size_t given_ = 0;  // of bytes_, by the last call
  bool started_ = false;
};

}  // namespace qorus::text
