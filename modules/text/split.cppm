// Pre-tokenizers: a text is cut into words before its bytes are merged, by the patterns that each family of models was trained
// with. Each pattern is a scanner written by hand, equal to the regular expression beside it and linear in the text. A pre-tokenizer
// is up to eight of them, each cutting further what the one before left; nothing is ever dropped.
module qorus.text:split;
import qorus.std;
import qorus.memory;

namespace qorus::text {

enum class Pattern : std::uint8_t {
  gpt2,  // 's|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+
  llama3,  // (?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+
  qwen2,   // the same with \p{N}
  gpt4o,   // words by case: [^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|…)?|…
  tekken,  // the same without 's and with \p{N}
  deepseek3,  // [!-/:-@\[-`{-~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+
  bloom,               // " ?[^(\s|.,!?…。，、।۔،)]+"
  number,              // \p{N}
  numbers,             // \p{N}+
  numbers3,            // \p{N}{1,3}
  digits3,             // [0-9][0-9][0-9]
  punctuation,         // [\p{P}\$\+<=>\^~\|`]+
  punctuation_old,     // [\p{P}\$\+<=>\^~\|]+
  newline,             // [\r\n]
  final_spaces,        // \s+$
  spaced_letters,      // \s?\p{L}+
  spaced_punctuation,  // \s?\p{P}+
  deepseek_letters,    // \s?[A-Za-zµÀ-ÖØ-öø-ƺ…]+
  deepseek_marks,      // \s?[!-/:-~！-／：-～‘-‟　-。]+
  cjk,                 // [一-龥ࠀ-一가-퟿]+
  cjk3,                // [一-龥぀-ゟ゠-ヿ]+
};

// The end of the word that begins at `at`, or of the stretch there that the pattern does not match. at < end.
[[nodiscard]] const char* scan(Pattern pattern, const char* at, const char* end) noexcept;
[[nodiscard]] const char* scan_gpt2(const char* at, const char* end) noexcept;
[[nodiscard]] const char* scan_llama3(const char* at, const char* end, int digits) noexcept;

struct Splitter {
  static constexpr std::size_t k_most = 8;
  std::array<Pattern, k_most> patterns{};
  std::uint8_t count = 0;   // 0: the text is one word
  bool keeps_words = true;  // none of the patterns cuts a word of ASCII letters, with a space before it or not

  // Errors: unsupported (more than 8).
  [[nodiscard]] Status add(Pattern pattern) noexcept;
  // Calls visit(begin, end) -> Status for each word; stops at an error.
  template <class F>
  [[nodiscard]] Status each_word(const char* at, const char* end, F&& visit) const noexcept {
    return level(0, at, end, visit);
  }

 private:
  [[nodiscard]] static inline bool plain_word(const char* at, const char* end) noexcept {
    if (at != end && *at == ' ') ++at;
    if (at == end) return false;
    while (at != end && (*at | 32) >= 'a' && (*at | 32) <= 'z') ++at;
    return at == end;
  }
  template <class F>
  [[nodiscard]] Status level(std::size_t depth, const char* at, const char* end, F& visit) const noexcept {
    if (depth == count || (depth > 0 && keeps_words && plain_word(at, end)))
      return at == end ? Status{} : visit(at, end);
    while (at != end) {
      const char* next = scan(patterns[depth], at, end);
      auto ok = depth + 1 == count ? visit(at, next) : level(depth + 1, at, next, visit);
      if (!ok) return ok;
      at = next;
    }
    return {};
  }
};

// By the names that GGUF has, one or several with commas between. Errors: unsupported, with the name.
[[nodiscard]] Result<Splitter> splitter_of(std::string_view names) noexcept;
// A name of GGUF files that stands for these patterns; empty if there is none. `whole_words`: as VocabularySpec has it.
[[nodiscard]] std::string_view name_of(const Splitter& splitter, bool whole_words) noexcept;
// By a regular expression of a tokenizer.json. Errors: unsupported, with the expression.
[[nodiscard]] Result<Pattern> pattern_of_expression(std::string_view expression) noexcept;

}  // namespace qorus::text
