#include "language.h"

#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <string>
#include <string_view>

using namespace qorus;

namespace {
volatile std::sig_atomic_t g_asked = 0;
void on_interrupt(int) {
  g_asked = 1;
  std::signal(SIGINT, SIG_DFL);
}
}  // namespace

Interrupt::Interrupt() noexcept {
  g_asked = 0;
  std::signal(SIGINT, on_interrupt);
}
Interrupt::~Interrupt() { std::signal(SIGINT, SIG_DFL); }
bool Interrupt::asked() noexcept { return g_asked != 0; }

Result<llm::Model> open_model(const Options& options, bool lay_out) {
  const bool terminal = isatty(STDERR_FILENO);
  if (terminal) std::fprintf(stderr, "opening %s …", options.model.c_str());
  auto model = llm::open(options.model, {.tokenizer = options.tokenizer,
                                         .lay_out = lay_out,
                                         .adapter = options.adapter,
                                         .adapter_scale = static_cast<float>(options.adapter_scale)});
  if (terminal) std::fputs("\r\033[K", stderr);
  return model;
}

namespace {
constexpr NamedTemplate k_templates[] = {
    {"chatml",
     "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
     "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}",
     "<|im_end|>"},
    {"plain",
     "{% for m in messages %}{% if m.role == 'system' %}{{ m.content }}\n\n{% elif m.role == 'user' %}User: {{ "
     "m.content }}\n"
     "{% else %}Assistant: {{ m.content | trim }}\n{% endif %}{% endfor %}{% if add_generation_prompt %}Assistant:{% "
     "endif %}",
     "\nUser:"}};
}  // namespace

const NamedTemplate* find_template(std::string_view name) {
  for (const NamedTemplate& known : k_templates) {
    if (known.name == name) return &known;
  }
  return nullptr;
}

Result<List<char>> read_input(const std::string& path) {
  List<char> content;
  if (path != "-") {
    auto file = MappedFile::open(path);
    if (!file) return fail(file.error());
    if (auto ok = content.append({reinterpret_cast<const char*>(file->bytes().data()), file->bytes().size()}); !ok)
      return fail(ok.error());
    return content;
  }
  char chunk[4096];
  while (const std::size_t some = std::fread(chunk, 1, sizeof chunk, stdin)) {
    if (auto ok = content.append({chunk, some}); !ok) return fail(ok.error());
  }
  return content;
}

Result<List<std::int32_t>> parse_ids(std::string_view text) {
  constexpr std::string_view between = " ,\t\r\n";
  List<std::int32_t> ids;
  for (auto at = text.find_first_not_of(between); at != text.npos; at = text.find_first_not_of(between)) {
    text.remove_prefix(at);
    const std::string_view word(text.data(), std::min(text.find_first_of(between), text.size()));
    std::int32_t id = 0;
    const auto parsed = std::from_chars(word.data(), word.data() + word.size(), id);
    if (parsed.ec != std::errc() || parsed.ptr != word.data() + word.size())
      return fail(Errc::invalid_argument, "ids", "not an id", word);
    if (auto ok = ids.push(id); !ok) return fail(ok.error());
    text.remove_prefix(word.size());
  }
  return ids;
}

bool Output::write(std::string_view text) noexcept {
  if (error_ == 0 && (std::fwrite(text.data(), 1, text.size(), stdout) != text.size() || std::fflush(stdout) != 0))
    error_ = errno ? errno : EIO;
  return error_ == 0;
}

int Output::finish() noexcept {
  if (error_ == 0 && std::fflush(stdout) != 0) error_ = errno ? errno : EIO;
  if (error_ == 0 || error_ == EPIPE) return 0;
  return report(Status(fail_system(error_, "output", "the output could not be written", "standard output")));
}
