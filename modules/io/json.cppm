// A strict reader of JSON (RFC 8259) that builds nothing: the caller asks for what it expects next, so that a hostile text
// costs neither memory nor depth. Errors are Errc::corrupt without a subject; the caller knows the file.
export module qorus.io:json;
import qorus.std;
import qorus.tensor;

namespace qorus::io {

// A string as it stands between its quotes: valid UTF-8, valid escapes.
struct JsonString {
  std::string_view raw;
  bool escaped = false;  // contains a backslash: decode() gives what it means
};

class Json {
 public:
  explicit Json(std::string_view text) noexcept : text_(text) {}

  // Steps over an opening brace or bracket.
  [[nodiscard]] Status open(char bracket) noexcept;
  // Whether another element follows (and steps over the comma before it), or the closing bracket does (and steps over that).
  // `first` is true before the first element of an object or array.
  [[nodiscard]] Result<bool> more(char bracket, bool first) noexcept;
  // A key with its colon.
  [[nodiscard]] Result<JsonString> key() noexcept;
  [[nodiscard]] Result<JsonString> string() noexcept;
  // A number that is an integer from 0 to 2^64 - 1, in plain digits.
  [[nodiscard]] Result<std::uint64_t> integer() noexcept;
  // Nothing but blanks may follow.
  [[nodiscard]] Status finish() noexcept;

 private:
  void skip_blanks() noexcept;
  [[nodiscard]] bool take(char c) noexcept;
  [[nodiscard]] Status escape() noexcept;

  std::string_view text_;
  std::size_t at_ = 0;
};

// Appends what a string means. Errors: out_of_memory.
[[nodiscard]] Status decode(const JsonString& string, List<char>& out) noexcept;
// Appends a text as a JSON string with its quotes. Errors: invalid_argument (not UTF-8), out_of_memory.
export [[nodiscard]] Status append_json_string(List<char>& out, std::string_view text) noexcept;
// JSON put together at the end of a list; after a failure it takes nothing more and status() tells.
export class JsonText {
 public:
  explicit JsonText(List<char>& out) noexcept : out_(out) {}
  JsonText& operator<<(std::string_view text) noexcept;
  JsonText& operator<<(std::uint64_t number) noexcept;
  JsonText& quoted(std::string_view text) noexcept;
  [[nodiscard]] const Status& status() const noexcept { return status_; }

 private:
  List<char>& out_;
  Status status_;
};
[[nodiscard]] bool is_utf8(std::string_view text) noexcept;
// Whether UTF-8 text begins with a control character, one that a terminal may obey: U+0000 to U+001F, U+007F to U+009F.
[[nodiscard]] bool is_control(std::string_view text) noexcept;

}  // namespace qorus::io
