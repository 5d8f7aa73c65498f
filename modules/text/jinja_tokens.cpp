// Templates cut into tokens: text, and what stands in {{ }} and {% %}. Blanks around the tags go as trim_blocks and lstrip_blocks say.
module qorus.text;
import qorus.std;
import :jinja;
import :pieces;
import :unicode;

namespace qorus::text {

Result<Store> Store::create(std::size_t bytes) noexcept {
  auto arena = Arena::create(bytes);
  if (!arena) return fail(arena.error());
  Store store;
  store.arena_ = std::move(*arena);
  return store;
}

Result<std::byte*> Store::take(std::size_t bytes) noexcept {
  constexpr std::size_t k_chunk = 32_KiB, k_align = 16;
  bytes = (bytes + k_align - 1) & ~(k_align - 1);
  if (bytes > left_) {
    auto slice = arena_.take(std::max(bytes, k_chunk));
    if (!slice) return fail(Errc::overflow, "chat template", "takes more memory than it may");
    next_ = slice->data;
    left_ = std::max(bytes, k_chunk);
  }
  std::byte* const place = next_;
  next_ += bytes;
  left_ -= bytes;
  return place;
}

Result<std::string_view> Store::text(std::string_view a, std::string_view b) noexcept {
  auto place = take(a.size() + b.size());
  if (!place) return fail(place.error());
  char* to = reinterpret_cast<char*>(*place);
  std::copy(b.begin(), b.end(), std::copy(a.begin(), a.end(), to));
  return std::string_view(to, a.size() + b.size());
}

namespace {

constexpr std::string_view k_blanks = " \t\r\n\v\f";

bool letter(char c) noexcept {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_' || static_cast<std::uint8_t>(c) >= 128;
}
bool digit(char c) noexcept { return c >= '0' && c <= '9'; }

class Lexer {
 public:
  Lexer(std::string_view source, Store& store) noexcept : text_(source), store_(store) {}

  [[nodiscard]] Result<List<Token>> run() noexcept {
    if (text_.ends_with('\n')) text_.remove_suffix(1);  // one newline at the end is the editor's
    while (at_ < text_.size()) {
      if (auto done = data(); !done) return fail(done.error());
    }
    if (auto done = push(TokenKind::end, {}); !done) return fail(done.error());
    return std::move(tokens_);
  }

 private:
  [[nodiscard]] tl::unexpected<Error> bad(const char* why) const noexcept {
    return tl::unexpected<Error>(
        fail(Errc::corrupt, "chat template", why, Dims{.extent = {static_cast<std::int64_t>(line_)}, .rank = 1})
            .value()
            .about(part_of(text_, at_, 40)));
  }
  [[nodiscard]] Status push(TokenKind kind, std::string_view text) noexcept {
    return tokens_.push({kind, text, line_});
  }
  void advance(std::size_t count) noexcept {
    line_ += static_cast<std::uint32_t>(std::count(text_.begin() + static_cast<std::ptrdiff_t>(at_),
                                                   text_.begin() + static_cast<std::ptrdiff_t>(at_ + count), '\n'));
    at_ += count;
  }
  [[nodiscard]] bool follows(std::string_view what) const noexcept { return part_of(text_, at_, what.size()) == what; }

  // Text up to the next tag, and that tag.
  [[nodiscard]] Status data() noexcept {
    std::size_t open = at_;
    for (;; ++open) {
      open = text_.find('{', open);
      if (open == text_.npos || open + 1 >= text_.size()) break;
      const char c = text_[open + 1];
      if (c == '{' || c == '%' || c == '#') break;
    }
    const bool found = open != text_.npos && open + 1 < text_.size();
    std::string_view piece = part_of(text_, at_, found ? open - at_ : text_.npos);
    if (!found) {
      auto done = add(piece);
      at_ = text_.size();
      return done;
    }
    const char kind = text_[open + 1], sign = open + 2 < text_.size() ? text_[open + 2] : '\0';
    piece = without_end(piece, kind, sign);
    if (auto done = add(piece); !done) return done;
    advance(open - at_ + 2 + (sign == '-' || sign == '+'));
    if (kind == '#') return comment();
    if (auto done = push(kind == '{' ? TokenKind::open_print : TokenKind::open_block, {}); !done) return done;
    return inside(kind == '{' ? "}}" : "%}");
  }
  [[nodiscard]] Status add(std::string_view piece) noexcept {
    return piece.empty() ? Status{} : push(TokenKind::data, piece);
  }

  // What of the text before a tag goes: all blanks before {%-; those of its line, if there is nothing else in it, before {%.
  [[nodiscard]] std::string_view without_end(std::string_view piece, char kind, char sign) const noexcept {
    if (sign == '-') return part_of(piece, 0, piece.find_last_not_of(k_blanks) + 1);
    if (kind == '{' || sign == '+') return piece;
    const std::size_t last = piece.find_last_not_of(" \t");
    const bool begins_line = last == piece.npos ? at_ == 0 || text_[at_ - 1] == '\n' : piece[last] == '\n';
    return begins_line ? part_of(piece, 0, last == piece.npos ? 0 : last + 1) : piece;
  }

  // What of the text after a tag goes.
  void skip_after(char sign, bool print) noexcept {
    if (sign == '-') {
      const std::size_t next = text_.find_first_not_of(k_blanks, at_);
      advance((next == text_.npos ? text_.size() : next) - at_);
    } else if (!print && sign != '+' && follows("\n")) {
      advance(1);
    }
  }

  [[nodiscard]] Status comment() noexcept {
    const std::size_t end = text_.find("#}", at_);
    if (end == text_.npos) return bad("a comment without an end");
    const char sign = end > at_ ? text_[end - 1] : '\0';
    advance(end + 2 - at_);
    skip_after(sign, false);
    return {};
  }

  // The tokens of one tag. {% raw %} is text up to its end.
  [[nodiscard]] Status inside(std::string_view close) noexcept {
    const std::size_t first = tokens_.size();
    int brackets = 0;
    for (;;) {
      const std::size_t next = text_.find_first_not_of(k_blanks, at_);
      if (next == text_.npos) return bad("a tag without an end");
      advance(next - at_);
      const bool sign = (text_[at_] == '-' || text_[at_] == '+') && part_of(text_, at_ + 1, 2) == close;
      if (brackets <= 0 && (sign || follows(close))) {
        const char c = sign ? text_[at_] : '\0';
        const bool raw = tokens_.size() == first + 1 && tokens_[first].text == "raw" && close == "%}";
        advance(sign ? 3 : 2);
        skip_after(c, close == "}}");
        if (raw) return raw_text(first);
        return push(close == "}}" ? TokenKind::close_print : TokenKind::close_block, {});
      }
      if (auto done = token(brackets); !done) return done;
    }
  }

  [[nodiscard]] Status raw_text(std::size_t first) noexcept {
    static_cast<void>(tokens_.resize(first - 1));  // the tag itself is nothing
    for (std::size_t open = text_.find("{%", at_); open != text_.npos; open = text_.find("{%", open + 2)) {
      std::size_t end = open + 2;
      const char sign = end < text_.size() ? text_[end] : '\0';
      end += sign == '-' || sign == '+';
      end = std::min(text_.find_first_not_of(k_blanks, end), text_.size());
      if (part_of(text_, end, 6) != "endraw") continue;
      end = text_.find("%}", end);
      if (end == text_.npos) break;
      if (auto done = add(without_end(part_of(text_, at_, open - at_), '%', sign)); !done) return done;
      const char after = text_[end - 1];
      advance(end + 2 - at_);
      skip_after(after, false);
      return {};
    }
    return bad("raw without endraw");
  }

  [[nodiscard]] Status token(int& brackets) noexcept {
    const char c = text_[at_];
    std::size_t size = 1;
    if (letter(c)) {
      while (at_ + size < text_.size() && (letter(text_[at_ + size]) || digit(text_[at_ + size]))) ++size;
      return take(TokenKind::name, size);
    }
    if (digit(c)) return number();
    if (c == '"' || c == '\'') return string(c);
    constexpr std::string_view two[] = {"==", "!=", "<=", ">=", "//", "**"}, one = "+-*/%~<>=.,:|()[]{}";
    for (const std::string_view op : two) {
      if (follows(op)) return take(TokenKind::op, 2);
    }
    if (one.find(c) == one.npos) return bad("a character that no expression has");
    brackets += c == '(' || c == '[' || c == '{';
    brackets -= c == ')' || c == ']' || c == '}';
    return take(TokenKind::op, 1);
  }
  [[nodiscard]] Status take(TokenKind kind, std::size_t size) noexcept {
    auto done = push(kind, part_of(text_, at_, size));
    advance(size);
    return done;
  }

  [[nodiscard]] Status number() noexcept {
    std::size_t size = 0;
    const auto digits = [&] {
      while (at_ + size < text_.size() && (digit(text_[at_ + size]) || text_[at_ + size] == '_')) ++size;
    };
    digits();
    bool real = false;
    if (at_ + size + 1 < text_.size() && text_[at_ + size] == '.' && digit(text_[at_ + size + 1])) {
      real = true;
      ++size;
      digits();
    }
    if (at_ + size + 1 < text_.size() && (text_[at_ + size] == 'e' || text_[at_ + size] == 'E')) {
      const std::size_t sign = text_[at_ + size + 1] == '-' || text_[at_ + size + 1] == '+';
      if (at_ + size + 1 + sign < text_.size() && digit(text_[at_ + size + 1 + sign])) {
        real = true;
        size += 1 + sign;
        digits();
      }
    }
    return take(real ? TokenKind::real : TokenKind::integer, size);
  }

  [[nodiscard]] Status string(char quote) noexcept {
    std::size_t end = at_ + 1;
    bool escaped = false;
    while (end < text_.size() && text_[end] != quote) {
      escaped |= text_[end] == '\\';
      end += text_[end] == '\\' ? 2 : 1;
    }
    if (end >= text_.size()) return bad("a string without an end");
    std::string_view content = part_of(text_, at_ + 1, end - at_ - 1);
    if (escaped) {
      auto meant = unescape(content);
      if (!meant) return fail(meant.error());
      content = *meant;
    }
    auto done = push(TokenKind::string, content);
    advance(end + 1 - at_);
    return done;
  }

  // As Python reads it: an escape that it does not know stays as it is.
  [[nodiscard]] Result<std::string_view> unescape(std::string_view content) noexcept {
    List<char> out;
    Status status;
    for (std::size_t i = 0; i < content.size() && status; ++i) {
      if (content[i] != '\\') {  // something follows one: a quote that does would not have ended the string
        status = out.push(content[i]);
        continue;
      }
      constexpr std::string_view names = "ntrfvba0\\'\"";
      const char c = content[++i];
      const std::size_t known = names.find(c);
      if (c == '\n') continue;  // a line that goes on
      if (c == 'x' || c == 'u' || c == 'U') {
        status = coded(content, i, c == 'x' ? 2 : c == 'u' ? 4 : 8, out);
        continue;
      }
      if (known == names.npos) {
        status = out.push('\\');
        if (status) status = out.push(c);
      } else {
        constexpr char table[] = "\n\t\r\f\v\b\a\0\\'\"";
        status = out.push(table[known]);
      }
    }
    if (!status) return fail(status.error());
    return store_.text({out.data(), out.size()});
  }
  [[nodiscard]] Status coded(std::string_view content, std::size_t& i, std::size_t digits,
                             List<char>& out) const noexcept {
    std::uint32_t code = 0;
    for (std::size_t d = 0; d < digits; ++d) {
      const char c = i + 1 < content.size() ? content[++i] : '?';
      const bool hex = digit(c) || (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F');
      if (!hex) return bad("an escape of other than hexadecimal digits");
      code = code * 16 + static_cast<std::uint32_t>(digit(c) ? c - '0' : (c | 32) - 'a' + 10);
    }
    if (code > 0x10ffff || (code >= 0xd800 && code < 0xe000)) return bad("an escape that is no character");
    return append_char(out, code);
  }

  std::string_view text_;
  Store& store_;
  std::size_t at_ = 0;
  std::uint32_t line_ = 1;
  List<Token> tokens_;
};

}  // namespace

Result<List<Token>> jinja_tokens(std::string_view source, Store& store) noexcept { return Lexer(source, store).run(); }

}  // namespace qorus::text
