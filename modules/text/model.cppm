// What a Tokenizer holds: the vocabulary, checked and indexed, and the ways to cut a text.
module qorus.text:model;
import qorus.std;
import qorus.memory;
import :pieces;
import :split;
import :tokenizer;

namespace qorus::text {

// What a call of encode needs besides its result; grows once, to the size of the longest text.
struct Scratch {
  struct Word {  // a word that was seen: where it stands in the text, where its ids stand in the result
    std::uint32_t at = 0, size = 0, ids = 0, count = 0;
  };
  List<char> text;  // normalised
  List<char> part;  // for steps of normalising
  List<Word> seen;  // direct-mapped by hash; empty for short texts
  List<std::uint32_t> next, previous, start, rank;
  List<std::int32_t> id, merged;
  List<std::uint64_t> heap;
  List<std::uint32_t> from;  // unigram: where the best piece that ends here begins
  List<double> score;
};

// SentencePiece's normaliser, compiled: a double-array trie from byte strings to replacements.
class CharacterMap {
 public:
  // Errors: corrupt.
  [[nodiscard]] Status load(std::span<const std::byte> blob) noexcept;
  [[nodiscard]] bool empty() const noexcept { return units_.empty(); }
  // The longest entry that [at, end) begins with: how many bytes (0: none), and what they become.
  struct Found {
    std::size_t size = 0;
    std::string_view text;
  };
  [[nodiscard]] Found find(const char* at, const char* end) const noexcept;

 private:
  List<std::uint32_t> units_;
  List<char> texts_;  // each ends with a zero byte
};

struct Model {
  Algorithm algorithm = Algorithm::byte_bpe;
  Pieces spelled;  // as the vocabulary has them
  Pieces text;     // what they mean, in bytes; what is matched
  List<PieceKind> kinds;
  List<std::uint32_t> ranks;  // BPE by scores: the rank of a merge that makes the piece
  List<double> scores;        // unigram
  PieceTable by_spelling, by_text;
  MergeTable merges;
  bool by_scores = false;
  List<std::uint64_t> joins;  // char_bpe: a bit for every two bytes that stand beside each other in a piece
  std::array<std::int32_t, 256> byte_ids{};
  PrefixIndex special;     // pieces to be found in the text before all else
  PrefixIndex dictionary;  // unigram, wordpiece
  double unknown_score = 0;
  Splitter splitter;
  CharacterMap character_map;
  std::int32_t bos = -1, eos = -1, unknown = -1;
  bool add_bos = false, add_eos = false, space_prefix = false, prefix_once = false, space_suffix = false,
       squeeze_spaces = false, space_marker = true, whole_words = false, fuse_unknown = true, compose = false,
       lower_case = true, has_user_defined = false;
  List<std::uint8_t> strips;  // per piece: 1 left, 2 right; empty if none does

  // char_bpe: whether a piece, or a character, may have `left` and then `right`: otherwise the text can be cut between them.
  [[nodiscard]] inline bool joined(char left, char right) const noexcept {
    const auto a = static_cast<std::uint8_t>(left), b = static_cast<std::uint8_t>(right);
    return (b & 0xc0) == 0x80 || (joins[a * 4u + b / 64u] >> (b % 64u) & 1) != 0;
  }
  [[nodiscard]] PieceKind kind(std::int32_t id) const noexcept { return kinds[static_cast<std::size_t>(id)]; }
  [[nodiscard]] bool has(std::int64_t id) const noexcept {
    return id >= 0 && static_cast<std::uint64_t>(id) < kinds.size();
  }
};

// Tokenizer::create with a pre-tokenizer that has no name.
struct Maker {
  [[nodiscard]] static Result<Tokenizer> make(const VocabularySpec& spec, const Splitter& splitter) noexcept;
};

// Appends the ids of a stretch of text in which no special piece is looked for, normalised but for wordpiece.
[[nodiscard]] Status encode_bytes(const Model& model, std::string_view text, Scratch& scratch,
                                  List<std::int32_t>& ids) noexcept;
[[nodiscard]] Status encode_chars(const Model& model, std::string_view text, Scratch& scratch,
                                  List<std::int32_t>& ids) noexcept;
[[nodiscard]] Status encode_unigram(const Model& model, std::string_view text, Scratch& scratch,
                                    List<std::int32_t>& ids) noexcept;
[[nodiscard]] Status encode_wordpiece(const Model& model, std::string_view text, Scratch& scratch,
                                      List<std::int32_t>& ids) noexcept;

// Where a stretch stands: at the begin of its text, at the end of it.
struct Place {
  bool first = true, last = true;
};
// The text as the vocabulary wants it, in scratch.text or as it was: character map or form, spaces, prefix.
[[nodiscard]] Result<std::string_view> normalized(const Model& model, std::string_view text, const Place& place,
                                                  Scratch& scratch) noexcept;

// Collects ids. What no piece covers becomes the pieces of its bytes, or the unknown piece: one for all neighbours if the model says so.
struct Emitter {
  const Model& model;
  List<std::int32_t>& ids;
  bool after_unknown = false;

  [[nodiscard]] inline Status piece(std::int32_t id) noexcept {
    after_unknown = false;
    return ids.push(id);
  }
  // Errors: invalid_argument (there is no unknown piece).
  [[nodiscard]] Status uncovered(std::string_view bytes) noexcept;
};

}  // namespace qorus::text
