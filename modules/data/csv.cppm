// Tables: CSV files (RFC 4180) and JSON lines with the columns' types inferred, and what makes numbers of them for a model: missing values, categories,
// dates, standardising, all learned from the training rows alone.
export module qorus.data:csv;
import qorus.std;
import qorus.tensor;
import :dataset;

export namespace qorus::data {

// What every field of a column reads as that is not missing. A column without any is of numbers.
enum class ColumnKind : std::uint8_t {
  number,    // 1, -2.5e3, +4; or all of them true or false: 1 or 0
  date,      // 1949-01, 1949-01-31, 1949/01/31 18:05, 1949-01-31T18:05:59Z: year first; a zone but Z is no date
  category,  // of at most 65,536 different ones, together with the columns before
  text,      // more: not kept
};

struct Column {
  Text name;
  ColumnKind kind = ColumnKind::number;
  List<float> numbers;       // numbers; of dates the days since 1970-01-01, with their part of a day; NaN: missing
  List<std::int32_t> codes;  // index of the category; -1: missing
  List<Text> categories;     // in the order of their bytes
  bool has_days = false;     // some dates name their day,
  bool has_hours = false;    // or the time of day as well
};

struct CsvOptions {
  char separator = ',';
  bool header = true;  // otherwise columns are named "0", "1", …
};

// Columns of one length. Movable.
class Table {
 public:
  // Quoted fields, doubled quotes, line breaks within quotes, LF or CRLF, empty lines left out (where there are several columns); fields of
  // no characters are missing. At most 4096 columns and 10 million rows. Errors: not_found, io, corrupt (a line with another number of
  // fields; an open quote; nothing at all; the line is named), unsupported (larger), out_of_memory.
  [[nodiscard]] static Result<Table> read(std::string_view path, const CsvOptions& options = {}) noexcept;
  [[nodiscard]] static Result<Table> parse(std::string_view text, const CsvOptions& options = {}) noexcept;

  // JSON lines: an object a line (empty lines left out), whose keys are the columns, in the order in which they first occur. A key that a
  // line lacks, null and "" are missing; types are inferred as for CSV. Errors: as read; corrupt (no JSON object, a key twice), unsupported (an
  // object or a list as a value); the line is named.
  [[nodiscard]] static Result<Table> read_json_lines(std::string_view path) noexcept;
  [[nodiscard]] static Result<Table> parse_json_lines(std::string_view text) noexcept;

  [[nodiscard]] std::size_t rows() const noexcept { return rows_; }
  [[nodiscard]] const List<Column>& columns() const noexcept { return columns_; }
  // Errors: not_found.
  [[nodiscard]] Result<const Column*> column(std::string_view name) const noexcept;

  // Appends a column of numbers, value(row) for each row, NaN where it is missing: a feature made of others. Errors: invalid_argument (there is
  // a column of this name), unsupported (more than 4096), out_of_memory.
  template <class F>
  [[nodiscard]] Status derive(std::string_view name, F&& value) noexcept {
    auto numbers = append(name);
    if (!numbers) return fail(numbers.error());
    for (std::size_t row = 0; row < rows_; ++row) (*numbers)[row] = static_cast<float>(value(row));
    return {};
  }

 private:
  friend class CsvParser;
  [[nodiscard]] static Result<Table> read_as(std::string_view path,
                                             const CsvOptions* csv) noexcept;  // null: JSON lines
  [[nodiscard]] Result<std::span<float>> append(std::string_view name) noexcept;
  List<Column> columns_;
  std::size_t rows_ = 0;
};

// Row numbers in three parts: shuffled by the seed, then cut. What the first two leave is the test part.
struct RowParts {
  List<std::uint32_t> train, validation, test;
};
// Errors: invalid_argument (shares that are not positive or add up to 1 or more; an empty part), out_of_memory.
[[nodiscard]] Result<RowParts> split_rows(std::size_t rows, double train, double validation,
                                          std::uint64_t seed) noexcept;
// The same, stratified: each category (or number) of the column is cut by these shares for itself, so that every part has as much of it,
// but for rounding. Errors: also not_found, and invalid_argument of a column of dates or texts.
[[nodiscard]] Result<RowParts> split_rows(const Table& table, std::string_view column, double train, double validation,
                                          std::uint64_t seed) noexcept;

struct TableOptions {
  std::string_view target;                            // the column to predict
  std::initializer_list<std::string_view> drop = {};  // columns that are not looked at
  bool classes = true;  // the target as classes (categories, or whole numbers from the least on), otherwise as a number
  std::size_t most_categories = 32;  // columns of more (names, tickets) are left out
};

// How rows become inputs. A number: (x - mean) / deviation, with 0 where it is missing. A category: one input for each that the training
// rows have, 1 or 0. A date: its days as a number, sine and cosine of the year and, where the column has them, of the week and of the
// day. Where the training rows lack some numbers or dates, one more input says so.
class Tabular {
 public:
  // Learns from those rows. Errors: not_found (the target, or what is dropped), invalid_argument (a row that is not there, a target of
  // texts or dates, of too many classes or of none, or nothing to predict from), invalid_size (no rows), out_of_memory.
  [[nodiscard]] static Result<Tabular> fit(const Table& table, std::span<const std::uint32_t> rows,
                                           const TableOptions& options) noexcept;
  // Inputs [rows, features] f32, targets [rows] i32 or [rows, 1] f32. Of a table with the same columns. Errors: not_found,
  // invalid_argument (a row that is not there, a target that is missing or of no known class), invalid_size (no rows), out_of_memory.
  [[nodiscard]] Result<Dataset> apply(const Table& table, std::span<const std::uint32_t> rows) const noexcept;
  [[nodiscard]] std::int64_t features() const noexcept { return width_; }
  [[nodiscard]] int classes() const noexcept { return classes_; }

 private:
  struct Input {
    Text column;
    ColumnKind kind = ColumnKind::number;
    bool flags_missing = false, weeks = false, days = false;
    float mean = 0, deviation = 1;
    List<Text> categories;  // that the training rows have
    std::int64_t at = 0;    // its first place among the inputs
  };
  [[nodiscard]] Status learn(const Column& column, std::span<const std::uint32_t> rows) noexcept;
  [[nodiscard]] Status learn_target(const Column& column, const TableOptions& options) noexcept;
  [[nodiscard]] static Status write(const Input& input, const Column& column, std::span<const std::uint32_t> rows,
                                    float* out, std::size_t stride) noexcept;
  [[nodiscard]] Status write_targets(const Column& column, std::span<const std::uint32_t> rows,
                                     Owned& out) const noexcept;
  List<Input> inputs_;
  Text target_;
  std::int64_t width_ = 0;
  int classes_ = 0;   // 0: the target is a number
  float lowest_ = 0;  // of a numeric target's classes
  List<Text> known_;  // a categorical target's classes
};

}  // namespace qorus::data
