// qorus verify: whether a file is a valid one of its kind.
#include <algorithm>
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
    if (bytes == "QORUS\r\n\x1a") return "qorus";
    if (bytes.substr(0, 4) == "PK\x03\x04") return "npz";
  }
  if (ends_with(path, ".safetensors")) return "safetensors";
  if (ends_with(path, ".npy")) return "npy";
  if (ends_with(path, "ubyte") || ends_with(path, "ubyte.gz") || ends_with(path, ".idx")) return "idx";
  for (const char* kind : {"gguf", "qorus", "npz", "csv", "jsonl"}) {
    if (ends_with(path, std::string(".") + kind)) return kind;
  }
  if (ends_with(path, ".model")) return "sentencepiece";
  if (ends_with(path, ".json") && !ends_with(path, "tokenizer.json")) return "json";
  return "tokenizer";
}

// The model-level rules, where the file says that it is a language model with weights.
Status verify_model_of(const io::Gguf& file, const std::string& path) {
  if (file.entries().empty() || !file.metadata("general.architecture")) return {};
  const auto model = llm::open(path);
  return model ? Status() : fail(model.error());
}

Status verify_gguf(const std::string& path) {
  const auto file = io::read_gguf(path);
  if (!file) return fail(file.error());
  return verify_model_of(*file, path);
}

Status verify_native(const std::string& path) {
  if (auto good = formats::verify_native(path); !good) return good;
  const auto file = formats::read_native(path);
  return file ? verify_model_of(file->gguf, path) : fail(file.error());
}

// Every array of an archive.
Status verify_npz(const std::string& path) {
  const auto file = io::Npz::open(path);
  if (!file) return fail(file.error());
  for (std::size_t i = 0; i < file->size(); ++i) {
    if (const auto array = file->read(file->name(i)); !array) return fail(array.error());
  }
  return {};
}

// One value, or one on each line that is not blank.
Status verify_json(const std::string& path, bool lines) {
  const auto file = MappedFile::open(path);
  if (!file) return fail(file.error());
  std::string_view rest(reinterpret_cast<const char*>(file->bytes().data()), file->bytes().size());
  for (std::size_t number = 1; lines ? !rest.empty() : number == 1; ++number) {
    const std::string_view line = lines ? rest.substr(0, rest.find('\n')) : rest;
    rest.remove_prefix(std::min(rest.size(), line.size() + 1));
    if (lines && line.find_first_not_of(" \t\r") == line.npos) continue;
    text::JsonTree tree;
    if (auto parsed = tree.parse(line); !parsed)
      return fail(parsed.error().about(lines ? path + ", line " + std::to_string(number) : path));
  }
  return {};
}

Status verify_pieces(const std::string& path) {
  const auto file = MappedFile::open(path);
  if (!file) return fail(file.error());
  const auto made = text::from_sentencepiece(file->bytes());
  return made ? Status() : fail(made.error().about(path));
}

template <class T>
Status status_of(const Result<T>& result) {
  return result ? Status() : fail(result.error());
}

Status verify(const std::string& path, const std::string& kind) {
  if (kind == "gguf") return verify_gguf(path);
  if (kind == "safetensors") return status_of(io::read_safetensors(path));
  if (kind == "checkpoint") return status_of(io::read_sealed(path));
  if (kind == "qorus") return verify_native(path);
  if (kind == "npz") return verify_npz(path);
  if (kind == "csv") return status_of(data::Table::read(path));
  if (kind == "json" || kind == "jsonl") return verify_json(path, kind == "jsonl");
  if (kind == "sentencepiece") return verify_pieces(path);
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
