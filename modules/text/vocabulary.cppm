// Vocabularies that are made here, where models come with theirs: bytes, characters, and byte-pair encoding trained on texts.
export module qorus.text:vocabulary;
import qorus.std;
import qorus.memory;
import :tokenizer;

export namespace qorus::text {

// A vocabulary with its memory. Movable.
class Vocabulary {
 public:
  Vocabulary() noexcept = default;
  // For Tokenizer::create and put_vocabulary. Valid as long as this lives, also where it is moved.
  [[nodiscard]] VocabularySpec spec() const noexcept;
  [[nodiscard]] std::size_t size() const noexcept { return pieces_.size(); }
  [[nodiscard]] std::size_t merges() const noexcept { return merges_.size(); }
  [[nodiscard]] std::int32_t end_of_text() const noexcept { return end_; }  // what stands between two texts

 private:
  friend class VocabularyMaker;
  Algorithm algorithm_ = Algorithm::byte_bpe;
  List<char> bytes_;
  List<std::string_view> pieces_, merges_;  // of bytes_
  List<float> scores_;
  List<std::int32_t> kinds_;
  std::string_view pre_tokenizer_;  // a literal
  std::int32_t begin_ = -1, end_ = -1, unknown_ = -1;
};

// The 256 bytes, each its own id, and 256, the end of a text. Errors: out_of_memory.
[[nodiscard]] Result<Vocabulary> byte_vocabulary() noexcept;

// The characters of these texts in the order of their code points, from id 259 on. Before them <unk>, <s>, </s> (which ends a text) and the
// 256 bytes, of which whatever else there is is spelled: every text has ids, and they mean the same bytes, but for U+2581, which comes
// back as a space: the format's pieces (SentencePiece's, which llama.cpp reads with equal ids) spell a space with it.
// Errors: overflow (no known text has so many), out_of_memory.
[[nodiscard]] Result<Vocabulary> character_vocabulary(std::span<const std::string_view> texts) noexcept;

struct BpeOptions {
  std::int64_t vocabulary = 2048;            // pieces at most, with the 256 bytes and the end of a text
  std::string_view pre_tokenizer = "gpt-2";  // how texts are cut into words, as VocabularySpec has it: a literal
  std::int64_t fewest = 2;                   // pairs that occur less often do not merge
};
// Byte-pair encoding (Sennrich et al. 2016; on bytes Radford et al. 2019): ids 0 to 255 are the bytes; then, again and again, the
// two neighbours within words that occur most often in the texts become a piece; among equals those of the smaller left id, then of
// the smaller right one. The last id is the end of a text. A merge into a piece that is there already adds none. Of words of more
// than 1024 bytes each 1024 count as one. Time O(n log n), nearly: counts of pairs are kept up to date as words change. The same texts
// give the same vocabulary. Errors: invalid_argument (fewer pieces than 257, or more than 2^24), unsupported (a pre-tokenizer that is not
// known; a text made to collide), overflow (4 GiB of different words), out_of_memory.
[[nodiscard]] Result<Vocabulary> train_bpe(std::span<const std::string_view> texts,
                                           const BpeOptions& options = {}) noexcept;

}  // namespace qorus::text
