// Bodies of qorus.data:csv: JSON lines. They are read twice: for their keys, and to write them down as CSV, all fields quoted, which
// then decides on the types.
module qorus.data;
import qorus.std;
import qorus.trust;

namespace qorus::data {
namespace {

// Lines of objects, from front to back. What reads gives false once something failed; `failure_` says what.
class JsonLines {
 public:
  explicit JsonLines(std::string_view text) noexcept : text_(text) {
    if (text_.starts_with("\xEF\xBB\xBF")) text_.remove_prefix(3);
  }

  Result<Table> run() noexcept {
    const std::string_view whole = text_;
    bool good = read_lines(false);
    if (good && names_.empty()) good = broken("nothing in it");
    text_ = whole;
    good = good && write_names() && read_lines(true);
    if (!good) return fail(failure_);
    return Table::parse({csv_.data(), csv_.size()});
  }

 private:
  struct Name {
    std::size_t begin, size;  // in letters_
  };
  // A value of the present line, in value_text_.
  struct Value {
    std::size_t begin = 0, size = 0, row = 0;  // row: of which it is, from 1
  };

  bool broken(const char* why, Errc code = Errc::corrupt) noexcept {
    Text line;
    if (line_ > 0) (line += "line ") += static_cast<std::int64_t>(line_);
    failure_ = fail(code, "json lines", why, line.view()).value();
    return false;
  }
  bool kept(const Status& status) noexcept {
    if (!status) failure_ = status.error();
    return status.has_value();
  }
  bool put(List<char>& to, char c) noexcept { return kept(to.push(c)); }
  bool put(List<char>& to, std::string_view text) noexcept {
    return kept(to.append(std::span(text.data(), text.size())));
  }

  void skip_blanks() noexcept {
    while (at_ < line_text_.size() && (line_text_[at_] == ' ' || line_text_[at_] == '\t' || line_text_[at_] == '\r'))
      ++at_;
  }
  bool take(char c) noexcept {
    skip_blanks();
    if (at_ == line_text_.size() || line_text_[at_] != c) return false;
    ++at_;
    return true;
  }

  bool read_lines(bool writes) noexcept {
    line_ = rows_ = 0;
    while (!text_.empty()) {
      ++line_;
      const std::size_t end = std::min(text_.find('\n'), text_.size());
      line_text_ = std::string_view(text_.data(), end);
      text_.remove_prefix(std::min(end + 1, text_.size()));
      at_ = 0;
      skip_blanks();
      if (at_ == line_text_.size()) continue;
      if (++rows_ > limits::csv_rows) return broken("too many rows or columns", Errc::unsupported);
      if (!read_object() || (writes && !write_row())) return false;
    }
    line_ = 0;
    return true;
  }

  bool read_object() noexcept {
    value_text_.clear();
    if (!take('{')) return broken("a line is no JSON object");
    for (bool first = true; !take('}'); first = false) {
      if (!first && !take(',')) return broken("a comma or the object's end is missing");
      if (!read_pair()) return false;
    }
    skip_blanks();
    if (at_ != line_text_.size()) return broken("something follows the object");
    return true;
  }

  bool read_pair() noexcept {
    key_.clear();
    if (!take('"')) return broken("a key is a string");
    if (!read_string(key_)) return false;
    if (!take(':')) return broken("a colon is missing");
    std::size_t column = 0;
    if (!find_column({key_.data(), key_.size()}, column)) return false;
    Value& value = values_[column];
    if (value.row == rows_) return broken("a key occurs twice");
    value.row = rows_;
    value.begin = value_text_.size();
    if (!read_value()) return false;
    value.size = value_text_.size() - value.begin;
    return true;
  }

  // Appends the value as text; nothing for null.
  bool read_value() noexcept {
    if (take('"')) return read_string(value_text_);
    const std::size_t begin = at_;
    while (at_ < line_text_.size() && line_text_[at_] != ',' && line_text_[at_] != '}' && line_text_[at_] > ' ') ++at_;
    const std::string_view word(line_text_.data() + begin, at_ - begin);
    const char first = word.empty() ? '\0' : word[0];
    if (first == '{' || first == '[')
      return broken("a value is an object or a list: tables are flat", Errc::unsupported);
    if (word == "null") return true;
    if (word != "true" && word != "false") {
      float number = 0;
      const char* const last = word.data() + word.size();
      const auto [end, failure] = std::from_chars(word.data(), last, number);
      const bool digits = first == '-' || (first >= '0' && first <= '9');
      if (!digits || word.back() > '9' || failure == std::errc::invalid_argument || end != last)
        return broken("a value is no JSON");
    }
    return put(value_text_, word);
  }

  // Appends the string whose opening quote was taken.
  bool read_string(List<char>& to) noexcept {
    while (at_ < line_text_.size()) {
      const char c = line_text_[at_++];
      if (c == '"') return true;
      if (static_cast<unsigned char>(c) < 0x20) return broken("a control character within a string");
      if (c == '\\' ? !read_escape(to) : !put(to, c)) return false;
    }
    return broken("a string is not closed");
  }
  bool read_escape(List<char>& to) noexcept {
    constexpr std::string_view k_letters = "\"\\/bfnrt", k_meanings = "\"\\/\b\f\n\r\t";
    const char c = at_ < line_text_.size() ? line_text_[at_++] : '\0';
    if (const auto i = k_letters.find(c); i != k_letters.npos) return put(to, k_meanings[i]);
    std::uint32_t code = 0, low = 0;
    if (c != 'u' || !read_hex(code)) return broken("no escape of JSON");
    if (code >= 0xd800 && code < 0xe000) {
      const bool pair = code < 0xdc00 && at_ + 1 < line_text_.size() && line_text_[at_] == '\\' &&
                        line_text_[at_ + 1] == 'u' && (at_ += 2, read_hex(low)) && low >= 0xdc00 && low < 0xe000;
      if (!pair) return broken("half of a surrogate pair");
      code = 0x10000 + ((code - 0xd800) << 10) + (low - 0xdc00);
    }
    const int more = code < 0x80 ? 0 : code < 0x800 ? 1 : code < 0x10000 ? 2 : 3;  // bytes of UTF-8 after the first
    constexpr std::uint32_t k_lead[] = {0, 0xc0, 0xe0, 0xf0};
    bool good = put(to, static_cast<char>(k_lead[more] | code >> (6 * more)));
    for (int i = more - 1; i >= 0 && good; --i) good = put(to, static_cast<char>(0x80 | ((code >> (6 * i)) & 0x3f)));
    return good;
  }
  bool read_hex(std::uint32_t& code) noexcept {
    constexpr std::string_view k_digits = "0123456789abcdef";
    for (int i = 0; i < 4; ++i, ++at_) {
      const char c = at_ < line_text_.size() ? line_text_[at_] : ' ';
      const std::size_t digit = k_digits.find(c >= 'A' && c <= 'F' ? static_cast<char>(c + ('a' - 'A')) : c);
      if (digit == k_digits.npos) return false;
      code = code << 4 | static_cast<std::uint32_t>(digit);
    }
    return true;
  }

  // The column of this name, a new one if there is none.
  bool find_column(std::string_view name, std::size_t& column) noexcept {
    std::size_t low = 0, high = sorted_.size();
    while (low < high) {
      const std::size_t middle = (low + high) / 2;
      if (name_of(sorted_[middle]) < name) {
        low = middle + 1;
      } else {
        high = middle;
      }
    }
    column = low < sorted_.size() ? sorted_[low] : 0;
    if (low < sorted_.size() && name_of(column) == name) return true;
    column = names_.size();
    if (column == limits::csv_columns) return broken("too many rows or columns", Errc::unsupported);
    if (!kept(names_.push({letters_.size(), name.size()})) || !put(letters_, name) || !kept(values_.push({})) ||
        !kept(sorted_.push(0)))
      return false;
    for (std::size_t i = sorted_.size() - 1; i > low; --i) sorted_[i] = sorted_[i - 1];
    sorted_[low] = static_cast<std::uint32_t>(column);
    return true;
  }
  std::string_view name_of(std::size_t i) const noexcept { return {letters_.data() + names_[i].begin, names_[i].size}; }

  bool write_field(std::string_view text, char after) noexcept {
    if (!put(csv_, '"')) return false;
    for (const char c : text) {
      if (c == '"' && !put(csv_, c)) return false;
      if (!put(csv_, c)) return false;
    }
    return put(csv_, '"') && put(csv_, after);
  }
  char after(std::size_t column) const noexcept { return column + 1 < names_.size() ? ',' : '\n'; }
  bool write_names() noexcept {
    bool good = true;
    for (std::size_t i = 0; i < names_.size() && good; ++i) good = write_field(name_of(i), after(i));
    for (Value& value : values_) value.row = 0;
    return good;
  }
  // Nothing between the commas where a value is missing.
  bool write_row() noexcept {
    bool good = true;
    for (std::size_t i = 0; i < values_.size() && good; ++i) {
      const Value& value = values_[i];
      const bool missing = value.row != rows_ || value.size == 0;
      good = missing ? put(csv_, after(i)) : write_field({value_text_.data() + value.begin, value.size}, after(i));
    }
    return good;
  }

  std::string_view text_, line_text_;
  std::size_t at_ = 0, line_ = 0, rows_ = 0;
  List<char> key_, value_text_, letters_, csv_;
  List<Name> names_;
  List<std::uint32_t> sorted_;  // columns by name
  List<Value> values_;          // of the present line, by column
  Error failure_;
};

}  // namespace

Result<Table> Table::parse_json_lines(std::string_view text) noexcept { return JsonLines(text).run(); }

}  // namespace qorus::data
