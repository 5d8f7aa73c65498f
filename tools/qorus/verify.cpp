// qorus verify: whether a file is a valid one of its kind.
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <string>
#include <string_view>

#include <sys/stat.h>

#include "options.h"

import qorus;
import qorus.llm;

using namespace qorus;

namespace {

bool ends_with(const std::string& text, std::string_view end) {
  return text.size() >= end.size() && std::string_view(text).substr(text.size() - end.size()) == end;
}

// By its content where that tells, else by its name.
std::string kind_of(const std::string& path) {
  struct stat facts{};
  if (::stat(path.c_str(), &facts) == 0 && S_ISDIR(facts.st_mode)) return "model";
  char start[8] = "";
  if (std::FILE* file = std::fopen(path.c_str(), "rb")) {
    const std::size_t read = std::fread(start, 1, sizeof start, file);
    std::fclose(file);
    const std::string_view bytes(start, read);
    if (bytes.substr(0, 4) == "GGUF") return "gguf";
    if (bytes.substr(0, 6) == "\x93NUMPY") return "npy";
  }
  if (ends_with(path, ".safetensors")) return "safetensors";
  if (ends_with(path, ".npy")) return "npy";
  if (ends_with(path, "ubyte") || ends_with(path, "ubyte.gz") || ends_with(path, ".idx")) return "idx";
  if (ends_with(path, ".gguf")) return "gguf";
  return "tokenizer";
}

// The model-level rules too, where the file says that it is a language model with weights.
Status verify_gguf(const std::string& path) {
  const auto file = io::read_gguf(path);
  if (!file) return fail(file.error());
  if (file->entries().empty() || !file->metadata("general.architecture")) return {};
  const auto model = llm::open(path);
  return model ? Status() : fail(model.error());
}

template <class T>
Status status_of(const Result<T>& result) {
  return result ? Status() : fail(result.error());
}

Status verify(const std::string& path, const std::string& kind) {
  if (kind == "gguf") return verify_gguf(path);
  if (kind == "safetensors") return status_of(io::read_safetensors(path));
  if (kind == "checkpoint") return status_of(io::read_sealed(path));
  if (kind == "npy") return status_of(io::read_npy(path));
  if (kind == "idx") return status_of(data::read_idx(path));
  if (kind == "model") return status_of(llm::open(path));
  return status_of(text::open(path));
}

}  // namespace

int verify_command(const Options& options) {
  const std::string kind = options.type_as.empty() ? kind_of(options.model) : options.type_as;
  if (const Status valid = verify(options.model, kind); !valid) return report(valid.error());
  std::printf("%s: a valid %s file\n", options.model.c_str(), kind.c_str());
  return 0;
}
