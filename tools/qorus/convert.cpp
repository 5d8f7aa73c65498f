// qorus convert: a model's file as a file of another format.
#include <unistd.h>

#include <cctype>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <string_view>

#include "options.h"
#include "tensors.h"

using namespace qorus;

namespace {

bool progress(void* user, std::string_view tensor, std::size_t done, std::size_t tensors) {
  if (*static_cast<const bool*>(user)) show_progress(tensor, done, tensors);
  return true;
}

std::string lower(std::string text) {
  for (char& c : text) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  return text;
}

llm::Container container_of(const std::string& name, const std::string& path) {
  if (name == "gguf") return llm::Container::gguf;
  if (name == "qorus") return llm::Container::native;
  if (name == "npz") return llm::Container::npz;
  if (name == "llama2c") return llm::Container::llama2c;
  return name == "safetensors" ? llm::Container::safetensors : llm::container_of(path);
}

}  // namespace

int convert_command(const Options& options) {
  bool terminal = ::isatty(STDERR_FILENO) == 1;
  const Stopwatch watch;
  const auto done =
      llm::convert(options.model, options.out,
                   {.to = container_of(lower(options.to), options.out),
                    .scheme = options.type_as.empty() ? nullptr : formats::scheme_of(lower(options.type_as)),
                    .shard_bytes = std::strtoull(options.shard_size.c_str(), nullptr, 10),
                    .laid_out = options.laid_out,
                    .progress = progress,
                    .user = &terminal,
                    .threads = options.threads > 0 ? options.threads : cpu_count()});
  if (!done) return report(done);
  std::printf("%zu tensors, %.1f MB in %.2f s, at most %.1f MB resident\n", done->tensors,
              static_cast<double>(done->bytes) / 1e6, watch.seconds(), peak_megabytes());
  return 0;
}
