// How a summary reads.
module;
#include <cstdio>
module qorus.nn;
import qorus.std;

namespace qorus::nn {
namespace {

void append(Text& text, const Shape& shape) noexcept {
  text += "[batch";
  for (int d = 1; d < shape.rank(); ++d) (text += ", ") += shape[d];
  text += "]";
}

}  // namespace

std::size_t Summary::format(std::span<char> out) const noexcept {
  std::size_t length = 0;
  const auto line = [&](const char* pattern, auto... values) {
    const std::size_t at = std::min(length, out.empty() ? 0 : out.size() - 1);
    const int written = std::snprintf(out.data() + at, out.size() - at, pattern, values...);
    length += written > 0 ? static_cast<std::size_t>(written) : 0;
  };
  line("%-12s %-14s %-22s %12s %12s\n", "name", "layer", "output", "parameters", "bytes");
  for (const SummaryRow& row : rows_) {
    Text shape;
    append(shape, row.output);
    line("%-12s %-14s %-22s %12zu %12zu\n", row.name.c_str(), row.kind.c_str(), shape.c_str(), row.parameters,
         row.parameters * sizeof(float));
  }
  line("%-12s %-14s %-22s %12zu %12zu\n", "total", "", "", parameters, parameters * sizeof(float));
  if (trainable != parameters) line("%-12s %-14s %-22s %12zu\n", "", "of them trained", "", trainable);
  return length;
}

}  // namespace qorus::nn
