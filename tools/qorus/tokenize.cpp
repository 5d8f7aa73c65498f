// qorus tokenize: the ids of a text by a model's vocabulary, or the text of ids.
#include <unistd.h>
#include <charconv>
#include <cstdint>
#include <cstdio>
#include <string>
#include <string_view>

#include "options.h"

import qorus;

using namespace qorus;

namespace {

// Appends the content of a file, or of the standard input for "-".
Status read_input(const std::string& path, List<char>& out) {
  if (path != "-") {
    auto file = MappedFile::open(path);
    if (!file) return fail(file.error());
    return out.append({reinterpret_cast<const char*>(file->bytes().data()), file->bytes().size()});
  }
  char chunk[4096];
  while (const std::size_t some = std::fread(chunk, 1, sizeof chunk, stdin)) {
    if (auto ok = out.append({chunk, some}); !ok) return ok;
  }
  return {};
}

// Ids with blanks or commas between.
Result<List<std::int32_t>> parse_ids(std::string_view text) {
  constexpr std::string_view between = " ,\t\r\n";
  List<std::int32_t> ids;
  for (auto at = text.find_first_not_of(between); at != text.npos; at = text.find_first_not_of(between)) {
    text.remove_prefix(at);
    const std::string_view word = text.substr(0, text.find_first_of(between));
    std::int32_t id = 0;
    const auto parsed = std::from_chars(word.data(), word.data() + word.size(), id);
    if (parsed.ec != std::errc() || parsed.ptr != word.data() + word.size())
      return fail(Errc::invalid_argument, "tokenize", "not an id", word);
    if (auto ok = ids.push(id); !ok) return fail(ok.error());
    text.remove_prefix(word.size());
  }
  return ids;
}

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
    if (auto ok = read_input(options.file, content); !ok) return fail(ok.error());
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
  bool written = std::fwrite(made->data(), 1, made->size(), stdout) == made->size();
  if (options.decode && isatty(STDOUT_FILENO)) written = std::fputc('\n', stdout) != EOF && written;
  if (std::fflush(stdout) == 0 && written) return 0;
  return report(Status(fail(Errc::io, "tokenize", "the output could not be written")));
}
