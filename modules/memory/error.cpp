// Bodies of qorus.memory:error: how an error reads when somebody prints it.
module;
#include <string.h>
module qorus.memory;
import qorus.std;

namespace qorus {
namespace {

void append(Text& line, const Dims& dims) noexcept {
  line += "[";
  for (int i = 0; i < dims.rank && i < k_max_rank; ++i) {
    if (i) line += ",";
    line += dims.extent[i];
  }
  line += "]";
}

}  // namespace

Text& Text::operator+=(std::string_view more) noexcept {
  const std::size_t room = bytes.size() - 1 - size;
  const std::size_t count = std::min(more.size(), room);
  std::copy_n(more.data(), count, bytes.data() + size);
  size += static_cast<std::uint32_t>(count);
  return *this;
}

Text& Text::operator+=(std::int64_t number) noexcept {
  char digits[24];
  const auto end = std::to_chars(digits, digits + sizeof digits, number).ptr;
  return *this += std::string_view(digits, static_cast<std::size_t>(end - digits));
}

std::string_view to_string(Errc code) noexcept {
  constexpr std::string_view names[k_errc_count] = {
      "ok",
      "invalid argument",
      "aliasing",
      "overflow",
      "misaligned",
      "invalid dtype",
      "invalid size",
      "out of memory",
      "stale tensor",
      "no workspace",
      "not built",
      "not found",
      "input/output error",
      "corrupt",
      "unsupported",
      "diverged",
  };
  const auto index = static_cast<std::size_t>(code);
  return index < k_errc_count ? names[index] : "unknown";
}

Error Error::about(std::string_view name) const noexcept {
  Error named = *this;
  named.subject = {};
  const std::size_t room = named.subject.size() - 1;
  if (name.size() <= room) {
    std::copy_n(name.data(), name.size(), named.subject.data());
  } else {  // the end of a long path says more than its beginning
    std::string_view end = name.substr(name.size() - (room - 3));
    while (!end.empty() && (static_cast<unsigned char>(end[0]) & 0xC0) == 0x80)
      end.remove_prefix(1);  // whole UTF-8 letters
    std::copy_n("...", 3, named.subject.data());
    std::copy(end.begin(), end.end(), named.subject.data() + 3);
  }
  return named;
}

Text Error::message() const noexcept {
  Text line;
  if (*op) (line += op) += ": ";
  if (subject[0]) (line += subject.data()) += ": ";
  line += to_string(code);
  if (first.rank >= 0) append(line += ": ", first);
  if (second.rank >= 0) append(line += " and ", second);
  if (*text) (line += ": ") += text;
  if (system) {
    const char* reason = strerrordesc_np(system);
    (line += ": ") += reason ? reason : "unknown error";
  }
  return line;
}

tl::unexpected<Error> fail_system(int system, const char* op, const char* text, std::string_view subject,
                                  std::source_location where) noexcept {
  constexpr int k_enoent = 2, k_enomem = 12;
  const Errc code = system == k_enoent ? Errc::not_found : system == k_enomem ? Errc::out_of_memory : Errc::io;
  return tl::unexpected<Error>(
      Error{.code = code, .system = system, .op = op, .text = text, .where = where}.about(subject));
}

}  // namespace qorus
