// Bodies of qorus.io:json.
module qorus.io;
import qorus.std;
import :json;

namespace qorus::io {
namespace {

// text.substr, which throws if it begins behind the end; here it is empty then.
std::string_view piece(std::string_view text, std::size_t at, std::size_t count = std::string_view::npos) noexcept {
  at = std::min(at, text.size());
  return {text.data() + at, std::min(count, text.size() - at)};
}

constexpr std::string_view k_blanks = " \t\n\r";

tl::unexpected<Error> bad(const char* text) noexcept { return fail(Errc::corrupt, "json", text); }

// Bytes of the UTF-8 character that `text`, which is not empty, begins with, or 0 if it begins with none. RFC 3629: no overlong forms, no
// surrogates, nothing above U+10FFFF.
std::size_t utf8_length(std::string_view text) noexcept {
  const auto byte = [&](std::size_t i) { return i < text.size() ? static_cast<std::uint8_t>(text[i]) : 0u; };
  const auto tail = [&](std::size_t i) { return (byte(i) & 0xc0) == 0x80; };
  const unsigned a = byte(0), b = byte(1);
  if (a < 0x80) return 1;
  if (a >= 0xc2 && a <= 0xdf) return tail(1) ? 2 : 0;
  if (a >= 0xe0 && a <= 0xef) {
    const unsigned low = a == 0xe0 ? 0xa0 : 0x80, high = a == 0xed ? 0x9f : 0xbf;
    return b >= low && b <= high && tail(2) ? 3 : 0;
  }
  if (a >= 0xf0 && a <= 0xf4) {
    const unsigned low = a == 0xf0 ? 0x90 : 0x80, high = a == 0xf4 ? 0x8f : 0xbf;
    return b >= low && b <= high && tail(2) && tail(3) ? 4 : 0;
  }
  return 0;
}

int hex_digit(char c) noexcept {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

// The four hexadecimal digits that `text` begins with, or -1.
int hex4(std::string_view text) noexcept {
  if (text.size() < 4) return -1;
  int value = 0;
  for (int i = 0; i < 4; ++i) {
    const int digit = hex_digit(text[static_cast<std::size_t>(i)]);
    if (digit < 0) return -1;
    value = value * 16 + digit;
  }
  return value;
}

bool is_high(int unit) noexcept { return unit >= 0xd800 && unit <= 0xdbff; }
bool is_low(int unit) noexcept { return unit >= 0xdc00 && unit <= 0xdfff; }

Status append_utf8(List<char>& out, unsigned code) noexcept {
  char bytes[4];
  std::size_t size = 0;
  if (code < 0x80) {
    bytes[size++] = static_cast<char>(code);
  } else if (code < 0x800) {
    bytes[size++] = static_cast<char>(0xc0 | code >> 6);
    bytes[size++] = static_cast<char>(0x80 | (code & 63));
  } else if (code < 0x10000) {
    bytes[size++] = static_cast<char>(0xe0 | code >> 12);
    bytes[size++] = static_cast<char>(0x80 | (code >> 6 & 63));
    bytes[size++] = static_cast<char>(0x80 | (code & 63));
  } else {
    bytes[size++] = static_cast<char>(0xf0 | code >> 18);
    bytes[size++] = static_cast<char>(0x80 | (code >> 12 & 63));
    bytes[size++] = static_cast<char>(0x80 | (code >> 6 & 63));
    bytes[size++] = static_cast<char>(0x80 | (code & 63));
  }
  return out.append(std::span<const char>(bytes, size));
}

// The character that a one-letter escape stands for, or 0.
char plain_escape(char letter) noexcept {
  constexpr std::string_view letters = "\"\\/bfnrt", meanings = "\"\\/\b\f\n\r\t";
  const auto at = letters.find(letter);
  return at == letters.npos ? '\0' : meanings[at];
}

}  // namespace

bool is_utf8(std::string_view text) noexcept {
  while (!text.empty()) {
    const std::size_t length = utf8_length(text);
    if (length == 0) return false;
    text.remove_prefix(length);
  }
  return true;
}

void Json::skip_blanks() noexcept {
  const auto next = text_.find_first_not_of(k_blanks, at_);
  at_ = next == text_.npos ? text_.size() : next;
}

bool Json::take(char c) noexcept {
  skip_blanks();
  if (at_ >= text_.size() || text_[at_] != c) return false;
  ++at_;
  return true;
}

Status Json::open(char bracket) noexcept {
  if (take(bracket)) return {};
  return bad(bracket == '{' ? "expected an object" : "expected an array");
}

Result<bool> Json::more(char bracket, bool first) noexcept {
  const char close = bracket == '{' ? '}' : ']';
  if (take(close)) return false;
  if (!first && !take(',')) return bad("expected a comma or a closing bracket");
  return true;
}

Result<JsonString> Json::key() noexcept {
  auto name = string();
  if (name && !take(':')) return bad("expected a colon");
  return name;
}

Result<JsonString> Json::string() noexcept {
  if (!take('"')) return bad("expected a string");
  const std::size_t begin = at_;
  JsonString found;
  while (at_ < text_.size() && text_[at_] != '"') {
    if (text_[at_] == '\\') {
      found.escaped = true;
      if (auto ok = escape(); !ok) return fail(ok.error());
      continue;
    }
    if (static_cast<std::uint8_t>(text_[at_]) < 0x20) return bad("a control character in a string");
    const std::size_t length = utf8_length(piece(text_, at_, 4));
    if (length == 0) return bad("a string is not UTF-8");
    at_ += length;
  }
  if (at_ >= text_.size()) return bad("a string does not end");
  found.raw = piece(text_, begin, at_ - begin);
  ++at_;
  return found;
}

Status Json::escape() noexcept {
  const std::string_view rest = piece(text_, at_ + 1);
  if (!rest.empty() && plain_escape(rest[0])) {
    at_ += 2;
    return {};
  }
  const int unit = !rest.empty() && rest[0] == 'u' ? hex4(piece(rest, 1)) : -1;
  if (unit < 0) return bad("an escape that JSON does not have");
  at_ += 6;
  if (is_low(unit)) return bad("half a surrogate pair");
  if (!is_high(unit)) return {};
  if (piece(text_, at_, 2) != "\\u" || !is_low(hex4(piece(text_, at_ + 2)))) return bad("half a surrogate pair");
  at_ += 6;
  return {};
}

Result<std::uint64_t> Json::integer() noexcept {
  skip_blanks();
  const std::size_t begin = at_;
  std::uint64_t value = 0;
  const char* const first = text_.data() + at_;
  const auto parsed = std::from_chars(first, text_.data() + text_.size(), value);
  const auto digits = static_cast<std::size_t>(parsed.ptr - first);
  at_ += digits;
  if (digits == 0 || (digits > 1 && text_[begin] == '0')) return bad("expected an integer that is not negative");
  if (parsed.ec == std::errc::result_out_of_range) return fail(Errc::overflow, "json", "a number does not fit 64 bits");
  if (at_ < text_.size() && std::string_view(".eE").find(text_[at_]) != std::string_view::npos) {
    return bad("expected an integer that is not negative");
  }
  return value;
}

Status Json::finish() noexcept {
  skip_blanks();
  if (at_ != text_.size()) return bad("something follows the end of the text");
  return {};
}

Status decode(const JsonString& string, List<char>& out) noexcept {
  std::string_view rest = string.raw;
  while (!rest.empty()) {
    const std::string_view plain = piece(rest, 0, rest.find('\\'));
    if (auto ok = out.append(std::span(plain.data(), plain.size())); !ok) return ok;
    rest.remove_prefix(plain.size());
    if (rest.empty()) break;
    unsigned code;
    if (rest[1] != 'u') {
      code = static_cast<std::uint8_t>(plain_escape(rest[1]));
      rest.remove_prefix(2);
    } else {
      code = static_cast<unsigned>(hex4(piece(rest, 2)));
      rest.remove_prefix(6);
      if (is_high(static_cast<int>(code))) {
        code = 0x10000 + ((code - 0xd800) << 10) + (static_cast<unsigned>(hex4(piece(rest, 2))) - 0xdc00);
        rest.remove_prefix(6);
      }
    }
    if (auto ok = append_utf8(out, code); !ok) return ok;
  }
  return {};
}

Status append_json_string(List<char>& out, std::string_view text) noexcept {
  if (!is_utf8(text)) return fail(Errc::invalid_argument, "json", "a text is not UTF-8", text);
  constexpr char k_hex[] = "0123456789abcdef";
  if (auto ok = out.push('"'); !ok) return ok;
  for (const char c : text) {
    Status ok;
    const auto code = static_cast<std::uint8_t>(c);
    if (c == '"' || c == '\\') {
      const char escaped[] = {'\\', c};
      ok = out.append(escaped);
    } else if (code < 0x20) {
      const char escaped[] = {'\\', 'u', '0', '0', k_hex[code >> 4], k_hex[code & 15]};
      ok = out.append(escaped);
    } else {
      ok = out.push(c);
    }
    if (!ok) return ok;
  }
  return out.push('"');
}

JsonText& JsonText::operator<<(std::string_view text) noexcept {
  if (status_) status_ = out_.append(std::span(text.data(), text.size()));
  return *this;
}
JsonText& JsonText::operator<<(std::uint64_t number) noexcept {
  char digits[24];
  const auto end = std::to_chars(digits, digits + sizeof digits, number).ptr;
  return *this << std::string_view(digits, static_cast<std::size_t>(end - digits));
}
JsonText& JsonText::quoted(std::string_view text) noexcept {
  if (status_) status_ = append_json_string(out_, text);
  return *this;
}

bool is_control(std::string_view text) noexcept {
  const auto byte = [&](std::size_t i) { return i < text.size() ? static_cast<unsigned char>(text[i]) : 0xff; };
  return byte(0) < 0x20 || byte(0) == 0x7f || (byte(0) == 0xc2 && byte(1) < 0xa0);
}

}  // namespace qorus::io
