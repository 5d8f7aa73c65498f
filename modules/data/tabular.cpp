// Bodies of qorus.data:csv about rows: cutting them in parts, and making a model's inputs of them.
module qorus.data;
import qorus.std;
import :random;

namespace qorus::data {
namespace {

bool categorical(const Column& column) noexcept { return column.kind == ColumnKind::category; }

// Index of a name in a list of them; -1: is not there.
std::int32_t index_of(const List<Text>& names, std::string_view name) noexcept {
  for (std::size_t i = 0; i < names.size(); ++i) {
    if (names[i].view() == name) return static_cast<std::int32_t>(i);
  }
  return -1;
}

// For each of a column's categories its index among `names`, or -1.
Result<List<std::int32_t>> places(const Column& column, const List<Text>& names) noexcept {
  List<std::int32_t> places;
  for (const Text& category : column.categories) {
    if (auto kept = places.push(index_of(names, category.view())); !kept) return fail(kept.error());
  }
  return places;
}

Status check_rows(const Table& table, std::span<const std::uint32_t> rows) noexcept {
  if (rows.empty()) return fail(Errc::invalid_size, "tabular", "no rows");
  for (const std::uint32_t r : rows) {
    if (r >= table.rows()) return fail(Errc::invalid_argument, "tabular", "a row that is not there");
  }
  return {};
}

// 0, 1, 2, …
Result<List<std::uint32_t>> numbered(std::size_t rows) noexcept {
  List<std::uint32_t> order;
  if (auto room = order.resize(rows); !room) return fail(room.error());
  for (std::size_t i = 0; i < rows; ++i) order[i] = static_cast<std::uint32_t>(i);
  return order;
}

// Cuts rows by the shares and hands them out.
Status deal(std::span<const std::uint32_t> rows, double train, double validation, RowParts& parts) noexcept {
  const auto count = static_cast<double>(rows.size());
  const auto first = static_cast<std::size_t>(std::llround(train * count)),
             second = std::min(static_cast<std::size_t>(std::llround((train + validation) * count)), rows.size());
  Status status = parts.train.append(rows.first(first));
  if (status) status = parts.validation.append(rows.subspan(first, second - first));
  if (status) status = parts.test.append(rows.subspan(second));
  return status;
}

constexpr const char* k_parts = "each of the three parts must have rows";
bool shares_fit(double train, double validation) noexcept {
  return train > 0 && validation > 0 && train + validation < 1;
}
Result<RowParts> checked(RowParts&& parts) noexcept {
  if (parts.train.empty() || parts.validation.empty() || parts.test.empty())
    return fail(Errc::invalid_argument, "split_rows", k_parts);
  return std::move(parts);
}

}  // namespace

Result<RowParts> split_rows(std::size_t rows, double train, double validation, std::uint64_t seed) noexcept {
  if (!shares_fit(train, validation)) return fail(Errc::invalid_argument, "split_rows", k_parts);
  auto order = numbered(rows);
  if (!order) return fail(order.error());
  shuffle_front(order->span(), rows, Random(seed, 0));
  RowParts parts;
  if (auto dealt = deal(std::as_const(*order).span(), train, validation, parts); !dealt) return fail(dealt.error());
  return checked(std::move(parts));
}

Result<RowParts> split_rows(const Table& table, std::string_view column, double train, double validation,
                            std::uint64_t seed) noexcept {
  if (!shares_fit(train, validation)) return fail(Errc::invalid_argument, "split_rows", k_parts);
  auto strata = table.column(column);
  if (!strata) return fail(strata.error());
  if ((*strata)->kind != ColumnKind::number && !categorical(**strata))
    return fail(Errc::invalid_argument, "split_rows", "cannot stratify by dates or texts", column);
  auto order = numbered(table.rows());
  if (!order) return fail(order.error());
  const auto value = [&](std::uint32_t row) {  // missing: below all others
    if (categorical(**strata)) return static_cast<float>((*strata)->codes[row]);
    const float v = (*strata)->numbers[row];
    return std::isnan(v) ? -std::numeric_limits<float>::infinity() : v;
  };
  // Rows of one stratum beside each other, shuffled: in the order of a number that each draws.
  const auto drawn = [&](std::uint32_t row) { return Random(seed, row).bits(); };
  std::sort(order->begin(), order->end(), [&](std::uint32_t a, std::uint32_t b) {
    const float x = value(a), y = value(b);
    return x != y ? x < y : drawn(a) < drawn(b);
  });
  RowParts parts;
  const std::span<const std::uint32_t> rows = std::as_const(*order).span();
  for (std::size_t begin = 0, end = 0; begin < rows.size(); begin = end) {
    while (end < rows.size() && value(rows[end]) == value(rows[begin])) ++end;
    auto dealt = deal(rows.subspan(begin, end - begin), train, validation, parts);
    if (!dealt) return fail(dealt.error());
  }
  return checked(std::move(parts));
}

Status Tabular::learn(const Column& column, std::span<const std::uint32_t> rows) noexcept {
  Input input{.column = column.name, .kind = column.kind, .at = width_};
  if (categorical(column)) {
    List<std::uint8_t> seen;
    if (auto room = seen.resize(column.categories.size()); !room) return room;
    std::fill(seen.begin(), seen.end(), std::uint8_t{0});
    for (const std::uint32_t r : rows) {
      if (column.codes[r] >= 0) seen[static_cast<std::size_t>(column.codes[r])] = 1;
    }
    for (std::size_t k = 0; k < seen.size(); ++k) {
      if (auto kept = seen[k] ? input.categories.push(column.categories[k]) : Status(); !kept) return kept;
    }
    width_ += static_cast<std::int64_t>(input.categories.size());
    return inputs_.push(std::move(input));
  }
  double sum = 0, squares = 0, count = 0;
  for (const std::uint32_t r : rows) {
    const double v = static_cast<double>(column.numbers[r]);
    sum += std::isnan(v) ? 0 : v;
    count += std::isnan(v) ? 0 : 1;
  }
  const double mean = count > 0 ? sum / count : 0;
  for (const std::uint32_t r : rows) {
    const double d = static_cast<double>(column.numbers[r]) - mean;
    squares += std::isnan(d) ? 0 : d * d;
  }
  const double deviation = count > 0 ? std::sqrt(squares / count) : 0;
  input.mean = static_cast<float>(mean);
  input.deviation = deviation > 0 ? static_cast<float>(deviation) : 1;
  input.flags_missing = count < static_cast<double>(rows.size());
  input.weeks = column.has_days;
  input.days = column.has_hours;
  width_ += 1 + (column.kind == ColumnKind::date ? 2 : 0) + (input.weeks ? 2 : 0) + (input.days ? 2 : 0) +
            (input.flags_missing ? 1 : 0);
  return inputs_.push(std::move(input));
}

Status Tabular::learn_target(const Column& column, const TableOptions& options) noexcept {
  target_ = column.name;
  const bool number = column.kind == ColumnKind::number;
  if (!number && !(options.classes && categorical(column)))
    return fail(Errc::invalid_argument, "tabular", "the target has no such values", options.target);
  if (!options.classes) return {};
  if (categorical(column)) {
    classes_ = static_cast<int>(column.categories.size());
    return known_.append(column.categories.span());
  }
  float low = std::numeric_limits<float>::max(), high = -low;
  for (const float v : column.numbers.span()) {
    if (std::isnan(v)) continue;
    if (v != std::floor(v))
      return fail(Errc::invalid_argument, "tabular", "classes are whole numbers or categories", options.target);
    low = std::min(low, v);
    high = std::max(high, v);
  }
  if (!(high >= low && high - low < 65536))
    return fail(Errc::invalid_argument, "tabular", "too many classes, or none", options.target);
  lowest_ = low;
  classes_ = static_cast<int>(high - low) + 1;
  return {};
}

Result<Tabular> Tabular::fit(const Table& table, std::span<const std::uint32_t> rows,
                             const TableOptions& options) noexcept {
  auto target = table.column(options.target);
  if (!target) return fail(target.error());
  for (const std::string_view name : options.drop) {
    if (auto there = table.column(name); !there) return fail(there.error());
  }
  if (auto there = check_rows(table, rows); !there) return fail(there.error());
  Tabular made;
  if (auto learned = made.learn_target(**target, options); !learned) return fail(learned.error());
  for (const Column& column : table.columns()) {
    const bool dropped = std::find(options.drop.begin(), options.drop.end(), column.name.view()) != options.drop.end();
    if (dropped || &column == *target || column.kind == ColumnKind::text ||
        column.categories.size() > options.most_categories)
      continue;
    if (auto learned = made.learn(column, rows); !learned) return fail(learned.error());
  }
  if (made.width_ == 0) return fail(Errc::invalid_argument, "tabular", "nothing to predict from", options.target);
  return made;
}

Status Tabular::write(const Input& input, const Column& column, std::span<const std::uint32_t> rows, float* out,
                      std::size_t stride) noexcept {
  constexpr double k_year = 365.2425;
  if (input.kind == ColumnKind::category) {
    auto at = places(column, input.categories);
    if (!at) return fail(at.error());
    for (const std::uint32_t r : rows) {
      const std::int32_t code = column.codes[r];
      const std::int32_t place = code < 0 ? -1 : (*at)[static_cast<std::size_t>(code)];
      if (place >= 0) out[place] = 1;
      out += stride;
    }
    return {};
  }
  for (const std::uint32_t r : rows) {
    const float v = column.numbers[r];
    const bool missing = std::isnan(v);
    float* cell = out;
    *cell++ = missing ? 0 : (v - input.mean) / input.deviation;
    const auto turn = [&](double days) {
      const double angle = 2 * std::numbers::pi * static_cast<double>(v) / days;
      *cell++ = missing ? 0 : static_cast<float>(std::sin(angle));
      *cell++ = missing ? 0 : static_cast<float>(std::cos(angle));
    };
    if (input.kind == ColumnKind::date) turn(k_year);
    if (input.weeks) turn(7);
    if (input.days) turn(1);
    if (input.flags_missing) *cell = missing ? 1 : 0;
    out += stride;
  }
  return {};
}

Status Tabular::write_targets(const Column& column, std::span<const std::uint32_t> rows, Owned& out) const noexcept {
  auto at = places(column, known_);
  if (!at) return fail(at.error());
  for (std::size_t i = 0; i < rows.size(); ++i) {
    float v = std::numeric_limits<float>::quiet_NaN();
    if (!categorical(column)) {
      v = column.numbers[rows[i]] - lowest_;
    } else if (const std::int32_t code = column.codes[rows[i]]; code >= 0) {
      v = static_cast<float>((*at)[static_cast<std::size_t>(code)]);
    }
    if (std::isnan(v) || (classes_ && !(v >= 0 && v < static_cast<float>(classes_))))
      return fail(Errc::invalid_argument, "tabular", "the target of a row is missing or of no known class",
                  target_.view());
    if (classes_) {
      out.fill<std::int32_t>()[i] = static_cast<std::int32_t>(v);
    } else {
      out.fill<float>()[i] = v;
    }
  }
  return {};
}

Result<Dataset> Tabular::apply(const Table& table, std::span<const std::uint32_t> rows) const noexcept {
  if (auto there = check_rows(table, rows); !there) return fail(there.error());
  const auto count = static_cast<std::int64_t>(rows.size());
  auto x = Owned::zeros({count, width_});
  auto y = classes_ ? Owned::zeros({count}, DType::i32) : Owned::zeros({count, 1});
  if (!x || !y) return fail(!x ? x.error() : y.error());
  auto target = table.column(target_.view());
  if (!target) return fail(target.error());
  if (categorical(**target) != !known_.empty() || (known_.empty() && (*target)->kind != ColumnKind::number))
    return fail(Errc::invalid_argument, "tabular", "a column is of another kind", target_.view());
  for (const Input& input : inputs_) {
    auto column = table.column(input.column.view());
    if (!column) return fail(column.error());
    if ((*column)->kind != input.kind)
      return fail(Errc::invalid_argument, "tabular", "a column is of another kind", input.column.view());
    auto written = write(input, **column, rows, x->fill<float>().data() + input.at, static_cast<std::size_t>(width_));
    if (!written) return fail(written.error());
  }
  if (auto written = write_targets(**target, rows, *y); !written) return fail(written.error());
  return Dataset::create(std::move(*x), std::move(*y), {.classes = classes_});
}

}  // namespace qorus::data
