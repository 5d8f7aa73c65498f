// qorus tokenize: the ids of a text by a model's vocabulary, or the text of ids.
#include <unistd.h>
#include <charconv>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <string>
#include <string_view>
#include <utility>

#include "language.h"

using namespace qorus;

namespace {

// One line of ids.
Result<List<char>> print_ids(const List<std::int32_t>& ids) {
  List<char> line;
  for (const std::int32_t id : ids) {
    char digits[16];
    char* begin = digits;
    if (!line.empty()) *begin++ = ' ';
    const auto end = std::to_chars(begin, digits + sizeof digits, id).ptr;
    if (auto ok = line.append({digits, static_cast<std::size_t>(end - digits)}); !ok) return fail(ok.error());
  }
  if (auto ok = line.push('\n'); !ok) return fail(ok.error());
  return line;
}

Result<List<char>> convert(const Options& options) {
  auto tokenizer = text::open(options.model);
  if (!tokenizer) return fail(tokenizer.error());
  List<char> content;
  if (!options.file.empty()) {
    auto read = read_input(options.file);
    if (!read) return read;
    content = std::move(*read);
  }
  const std::string_view text =
      options.file.empty() ? std::string_view(options.text) : std::string_view(content.data(), content.size());
  if (options.decode) {
    return parse_ids(text).and_then(
        [&](const List<std::int32_t>& ids) { return tokenizer->decode(ids.span(), {.special = options.special}); });
  }
  return tokenizer->encode(text, {.bos = options.bos, .special = options.special}).and_then(print_ids);
}

}  // namespace

int tokenize_command(const Options& options) {
  const auto made = convert(options);
  if (!made) return report(made);
  Output out;
  out.write({made->data(), made->size()});
  if (options.decode && isatty(STDOUT_FILENO)) out.write("\n");
  return out.finish();
}
