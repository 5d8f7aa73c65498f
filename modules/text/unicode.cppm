// Characters and what they are, from text that need not be UTF-8. The tables are utf8proc's.
module qorus.text:unicode;
import qorus.std;
import qorus.memory;

namespace qorus::text {

enum Class : std::uint8_t {
  k_letter = 1,   // L
  k_number = 2,   // N
  k_space = 4,    // White_Space
  k_punct = 8,    // P
  k_symbol = 16,  // S
  k_mark = 32,    // M
  k_upper = 64,   // Lu Lt Lm Lo M
  k_lower = 128,  // Ll Lm Lo M
};

// A character, or a byte that is no part of one.
struct Char {
  std::uint32_t code = 0;  // k_no_char for such a byte
  std::uint8_t size = 0;   // bytes; 0 at the end of the text
  std::uint8_t kind = 0;   // Class bits; 0 for such a byte and at the end

  [[nodiscard]] constexpr bool is(unsigned classes) const noexcept { return (kind & classes) != 0; }
  [[nodiscard]] constexpr bool newline() const noexcept { return code == '\n' || code == '\r'; }
};
inline constexpr std::uint32_t k_no_char = 0xffffffff;

inline constexpr std::array<std::uint8_t, 128> k_ascii = [] {
  std::array<std::uint8_t, 128> kinds{};
  constexpr std::string_view symbols = "$+<=>^`|~";
  for (unsigned c = '!'; c <= '~'; ++c) {
    const bool symbol = symbols.find(static_cast<char>(c)) != symbols.npos;
    kinds[c] = c >= '0' && c <= '9'   ? k_number
               : c >= 'A' && c <= 'Z' ? k_letter | k_upper
               : c >= 'a' && c <= 'z' ? k_letter | k_lower
               : symbol               ? k_symbol
                                      : k_punct;
  }
  for (const char c : {'\t', '\n', '\v', '\f', '\r', ' '}) kinds[static_cast<unsigned char>(c)] = k_space;
  return kinds;
}();

// Class bits of any character.
[[nodiscard]] std::uint8_t classify(std::uint32_t code) noexcept;
// The character at `at`, which is not ASCII.
[[nodiscard]] Char read_wide(const char* at, const char* end) noexcept;

[[nodiscard]] inline Char read(const char* at, const char* end) noexcept {
  if (at == end) return {};
  const auto byte = static_cast<std::uint8_t>(*at);
  if (byte < 128) return {byte, 1, k_ascii[byte]};
  return read_wide(at, end);
}

// Bytes of the UTF-8 character at `at`, or 0 if there is none (RFC 3629). `cut` is set if the text ends within what may be one.
[[nodiscard]] std::size_t utf8_size(const char* at, const char* end, bool* cut = nullptr) noexcept;
[[nodiscard]] Status append_char(List<char>& out, std::uint32_t code) noexcept;

enum class Form : std::uint8_t { nfc, nfd, nfkc, nfkd };
// Appends the text in one of Unicode's forms; bytes that are no characters stay. Errors: out_of_memory.
[[nodiscard]] Status normalize(std::string_view text, Form form, List<char>& out) noexcept;
// Appends the text in lower case, character by character.
[[nodiscard]] Status lower(std::string_view text, List<char>& out) noexcept;
[[nodiscard]] std::uint32_t lower(std::uint32_t code) noexcept;
[[nodiscard]] std::uint32_t upper(std::uint32_t code) noexcept;

}  // namespace qorus::text
