// Any bytes read as a table, CSV or JSON lines: an error, or columns of one length that numbers can be made of.
#include <cstddef>
#include <cstdint>
#include <string_view>

import qorus.data;

using namespace qorus;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* bytes, std::size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(bytes), size);
  const auto table = text.starts_with('{') ? data::Table::parse_json_lines(text)  // what else begins so is dull as CSV
                                           : data::Table::parse(text, {.header = size % 2 == 0});
  if (!table || table->rows() == 0) return 0;
  const std::uint32_t rows[] = {0, static_cast<std::uint32_t>(table->rows() - 1)};
  for (const data::Column& column : table->columns()) {
    const bool codes = column.kind == data::ColumnKind::category;
    if (column.kind != data::ColumnKind::text && (codes ? column.codes.size() : column.numbers.size()) != table->rows())
      __builtin_trap();
    const auto fit = data::Tabular::fit(*table, rows, {.target = column.name.view(), .classes = codes});
    if (fit && fit->features() > 0) static_cast<void>(fit->apply(*table, rows));
  }
  return 0;
}
