// Bodies of qorus.data:csv.
module qorus.data;
import qorus.std;
import qorus.trust;

namespace qorus::data {
namespace {

constexpr float k_missing = std::numeric_limits<float>::quiet_NaN();

bool lower_is(std::string_view field, std::string_view word) noexcept {
  return std::equal(field.begin(), field.end(), word.begin(), word.end(),
                    [](char a, char b) { return (a >= 'A' && a <= 'Z' ? a + ('a' - 'A') : a) == b; });
}

// Whether the field reads as a number (1), a truth value (2), or neither (0).
int read_number(std::string_view field, float& value) noexcept {
  while (!field.empty() && field.front() == ' ') field.remove_prefix(1);
  while (!field.empty() && field.back() == ' ') field.remove_suffix(1);
  if (lower_is(field, "true") || lower_is(field, "false")) {
    value = field.size() == 4 ? 1.0f : 0.0f;
    return 2;
  }
  if (!field.empty() && field.front() == '+') field.remove_prefix(1);
  const auto [end, failure] = std::from_chars(field.data(), field.data() + field.size(), value);
  return failure == std::errc() && end == field.data() + field.size() && std::isfinite(value) ? 1 : 0;
}

// Takes a number of `digits` digits and what must follow it, one of `ends` (or nothing). -1: is none.
int take_number(std::string_view& field, std::size_t digits, std::string_view ends, char& end) noexcept {
  if (field.size() < digits) return -1;
  int value = 0;
  for (std::size_t i = 0; i < digits; ++i) {
    if (field[i] < '0' || field[i] > '9') return -1;
    value = value * 10 + (field[i] - '0');
  }
  field.remove_prefix(digits);
  end = '\0';
  if (field.empty()) return value;
  end = field.front();
  if (ends.find(end) == std::string_view::npos) return -1;
  field.remove_prefix(1);
  return value;
}

// Days from 1970-01-01 in the Gregorian calendar: years of 365 days from March on, and a day for each leap year before.
int days_of(int year, int month, int day) noexcept {
  const int y = month <= 2 ? year - 1 : year, from_march = (month + 9) % 12;
  return 365 * y + y / 4 - y / 100 + y / 400 + (153 * from_march + 2) / 5 + day - 1 - 719468;
}

struct Date {
  float value = 0;  // days since 1970-01-01
  bool has_day = false, has_hour = false;
};
bool read_time(std::string_view text, float& part) noexcept {
  if (text.ends_with('Z')) text.remove_suffix(1);
  char end = '\0';
  const int hour = take_number(text, 2, ":", end), minute = end ? take_number(text, 2, ":", end) : -1;
  const int second = end ? take_number(text, 2, ".", end) : 0;
  for (const char c : text) {
    if (c < '0' || c > '9') return false;  // of a second's fraction, which a column of days does not resolve
  }
  part = static_cast<float>((hour * 60 + minute) * 60 + second) / 86400.0f;
  return hour >= 0 && hour < 24 && minute >= 0 && minute < 60 && second >= 0 && second < 61;
}
bool read_date(std::string_view field, Date& date) noexcept {
  constexpr int k_lengths[] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
  char end = '\0', next = '\0';
  const int year = take_number(field, 4, "-/", end);
  const int month = end ? take_number(field, 2, end == '-' ? "-" : "/", next) : -1;
  if (year < 1 || month < 1 || month > 12) return false;
  const bool leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
  date.has_day = next != '\0';
  const int day = date.has_day ? take_number(field, 2, "T ", end) : 1;
  if (day < 1 || day > k_lengths[month - 1] + (month == 2 && leap ? 1 : 0)) return false;
  date.has_hour = date.has_day && end != '\0';
  float part = 0;
  if (date.has_hour && !read_time(field, part)) return false;
  date.value = static_cast<float>(days_of(year, month, day)) + part;
  return true;
}

}  // namespace

// Fields are kept as one text with their ends, then each column is looked at as a whole.
class CsvParser {
 public:
  CsvParser(std::string_view text, const CsvOptions& options) noexcept : text_(text), options_(options) {
    if (text_.starts_with("\xEF\xBB\xBF")) text_.remove_prefix(3);
  }

  Result<Table> run() noexcept {
    if (auto read = read_fields(); !read) return fail(read.error());
    if (width_ == 0) return fail(Errc::corrupt, "csv", "nothing in it");
    const std::size_t lines = ends_.size() / width_, first = options_.header ? 1 : 0;
    Table table;
    table.rows_ = lines - std::min(lines, first);
    for (std::size_t c = 0; c < width_; ++c) {
      Column column;
      if (options_.header) {
        column.name += field(c);
      } else {
        column.name += static_cast<std::int64_t>(c);
      }
      if (auto made = make(column, c, first, lines); !made) return fail(made.error());
      if (auto kept = table.columns_.push(std::move(column)); !kept) return fail(kept.error());
    }
    return table;
  }

 private:
  tl::unexpected<Error> broken(const char* why) const noexcept {
    Text line;
    line += "line ";
    line += static_cast<std::int64_t>(line_);
    return fail(Errc::corrupt, "csv", why, line.view());
  }
  std::string_view field(std::size_t i) const noexcept {
    const std::size_t begin = i ? ends_[i - 1] : 0;
    return {plain_.data() + begin, ends_[i] - begin};
  }

  // One field from at_ on; gives what ended it: the separator, '\n', or '\0' for the end of the text.
  Result<char> read_field() noexcept {
    const bool quoted = at_ < text_.size() && text_[at_] == '"';
    if (quoted) ++at_;
    bool open = quoted;
    while (at_ < text_.size()) {
      const char c = text_[at_];
      if (open) {
        if (c == '"' && at_ + 1 < text_.size() && text_[at_ + 1] == '"') {
          ++at_;
        } else if (c == '"') {
          open = false;
          ++at_;
          continue;
        }
      } else if (c == options_.separator || c == '\n' ||
                 (c == '\r' && at_ + 1 < text_.size() && text_[at_ + 1] == '\n')) {
        at_ += c == '\r' ? 2 : 1;
        return c == options_.separator ? c : '\n';
      } else if (quoted) {
        return broken("text after a closing quote");
      }
      if (auto kept = plain_.push(c); !kept) return fail(kept.error());
      breaks_ += c == '\n' ? 1 : 0;
      ++at_;
    }
    if (open) return broken("a quote is not closed");
    return '\0';
  }

  Status read_fields() noexcept {
    while (at_ < text_.size()) {
      std::size_t fields = 0;
      line_ += 1 + breaks_;
      breaks_ = 0;
      char end = options_.separator;
      const std::size_t begin = at_, before = plain_.size();
      while (end == options_.separator) {
        auto ended = read_field();
        if (!ended) return fail(ended.error());
        end = *ended;
        if (auto kept = ends_.push(plain_.size()); !kept) return kept;
        ++fields;
      }
      const bool blank = fields == 1 && plain_.size() == before && text_[begin] != '"' && width_ != 1;
      if (blank) {
        while (fields--) shorten();
        continue;
      }
      if (width_ == 0) width_ = fields;
      if (fields != width_) return broken("a line has another number of fields");
      if (width_ > limits::csv_columns || line_ > limits::csv_rows)
        return fail(Errc::unsupported, "csv", "too many rows or columns");
    }
    return {};
  }
  void shorten() noexcept {
    const auto shorter = ends_.resize(ends_.size() - 1);
    static_cast<void>(shorter);  // making a list shorter cannot fail
  }

  Status make(Column& column, std::size_t c, std::size_t first, std::size_t lines) noexcept {
    bool numbers = true, truths = true, dates = true;
    for (std::size_t r = first; r < lines && (numbers || truths || dates); ++r) {
      const std::string_view text = field(r * width_ + c);
      if (text.empty()) continue;
      float value = 0;
      Date date;
      const int kind = numbers || truths ? read_number(text, value) : 0;
      numbers = numbers && kind == 1;
      truths = truths && kind == 2;
      dates = dates && read_date(text, date);
    }
    if (!numbers && !truths && !dates) return categorize(column, c, first, lines);
    column.kind = numbers || truths ? ColumnKind::number : ColumnKind::date;
    for (std::size_t r = first; r < lines; ++r) {
      const std::string_view text = field(r * width_ + c);
      float value = k_missing;
      Date date;
      if (column.kind == ColumnKind::date && read_date(text, date)) {
        value = date.value;
        column.has_days = column.has_days || date.has_day;
        column.has_hours = column.has_hours || date.has_hour;
      } else if (!text.empty()) {
        read_number(text, value);
      }
      if (auto kept = column.numbers.push(value); !kept) return kept;
    }
    return {};
  }

  Status categorize(Column& column, std::size_t c, std::size_t first, std::size_t lines) noexcept {
    column.kind = ColumnKind::category;
    List<std::string_view> sorted;
    for (std::size_t r = first; r < lines; ++r) {
      const std::string_view text = field(r * width_ + c);
      if (auto kept = text.empty() ? Status() : sorted.push(text); !kept) return kept;
    }
    std::sort(sorted.begin(), sorted.end());
    const std::string_view* const begin = sorted.begin();
    const std::string_view* const last = std::unique(sorted.begin(), sorted.end());
    categories_ += static_cast<std::size_t>(last - begin);
    if (categories_ > limits::csv_categories) {
      categories_ -= static_cast<std::size_t>(last - begin);
      column.kind = ColumnKind::text;
      return {};
    }
    if (auto room = column.categories.reserve(static_cast<std::size_t>(last - begin)); !room) return room;
    for (const std::string_view* name = begin; name != last; ++name) {
      Text text;
      text += *name;
      if (auto kept = column.categories.push(text); !kept) return kept;
    }
    for (std::size_t r = first; r < lines; ++r) {
      const std::string_view text = field(r * width_ + c);
      const auto code = text.empty() ? -1 : std::lower_bound(begin, last, text) - begin;
      if (auto kept = column.codes.push(static_cast<std::int32_t>(code)); !kept) return kept;
    }
    return {};
  }

  std::string_view text_;
  CsvOptions options_;
  std::size_t at_ = 0, line_ = 0, breaks_ = 0, width_ = 0;  // breaks_: lines that the present record has above one
  std::size_t categories_ = 0;                              // of all columns: each takes a Text
  List<char> plain_;
  List<std::size_t> ends_;
};

Result<Table> Table::parse(std::string_view text, const CsvOptions& options) noexcept {
  return CsvParser(text, options).run();
}

Result<Table> Table::read(std::string_view path, const CsvOptions& options) noexcept { return read_as(path, &options); }
Result<Table> Table::read_json_lines(std::string_view path) noexcept { return read_as(path, nullptr); }

Result<Table> Table::read_as(std::string_view path, const CsvOptions* csv) noexcept {
  auto file = MappedFile::open(path);
  if (!file) return fail(file.error());
  const auto bytes = file->bytes();
  const std::string_view text(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  auto table = csv ? parse(text, *csv) : parse_json_lines(text);
  if (auto there = file->whole("csv", path); !there) return fail(there.error());
  if (!table) {  // the line, if one is named, and the file
    Text name;
    name += path;
    const std::string_view line(table.error().subject.data());
    if (!line.empty()) name += ", ";
    name += line;
    return fail(table.error().about(name.view()));
  }
  return table;
}

Result<const Column*> Table::column(std::string_view name) const noexcept {
  for (const Column& column : columns_) {
    if (column.name.view() == name) return &column;
  }
  return fail(Errc::not_found, "table", "no column of this name", name);
}

Result<std::span<float>> Table::append(std::string_view name) noexcept {
  if (column(name)) return fail(Errc::invalid_argument, "table", "there is a column of this name", name);
  if (columns_.size() >= limits::csv_columns) return fail(Errc::unsupported, "table", "more than 4096 columns", name);
  Column made;
  made.name += name;
  Status good = made.numbers.resize(rows_);
  if (good) good = columns_.push(std::move(made));
  if (!good) return fail(good.error());
  return columns_[columns_.size() - 1].numbers.span();
}

}  // namespace qorus::data
