// What makes a Vocabulary: pieces and merges are collected as bytes, and become views of them in the end.
module qorus.text:vocabulary_maker;
import qorus.std;
import qorus.memory;
import :tokenizer;
import :vocabulary;

namespace qorus::text {

class VocabularyMaker {
 public:
  VocabularyMaker(Algorithm algorithm, std::string_view pre_tokenizer) noexcept {
    made_.algorithm_ = algorithm;
    made_.pre_tokenizer_ = pre_tokenizer;
  }
  // A piece as its file will spell it.
  [[nodiscard]] Status spelled(std::string_view piece, PieceKind kind) noexcept;
  // A piece of a byte-level vocabulary, which stands for these bytes.
  [[nodiscard]] Status bytes(std::string_view meaning) noexcept;
  [[nodiscard]] Status merge(std::string_view left, std::string_view right) noexcept;  // what both stand for
  [[nodiscard]] Status score(float score) noexcept { return made_.scores_.push(score); }
  // Ids, -1 for none.
  [[nodiscard]] Result<Vocabulary> finish(std::int32_t begin, std::int32_t end, std::int32_t unknown) noexcept;

 private:
  struct Part {
    std::size_t begin, size;
  };
  [[nodiscard]] Status add_bytes(std::string_view meaning) noexcept;

  Vocabulary made_;
  List<Part> pieces_, merges_;
};

// What ends a text in vocabularies of bytes.
inline constexpr std::string_view k_end_of_text = "<|endoftext|>";

}  // namespace qorus::text
