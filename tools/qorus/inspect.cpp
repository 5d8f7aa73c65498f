// qorus inspect: what a safetensors or GGUF file holds.
#include <cstdint>
#include <cstdio>
#include <string>

#include "options.h"

import qorus;

using namespace qorus;

namespace {

void print_tensors(const List<io::TensorEntry>& entries) {
  std::size_t bytes = 0, elements = 0;
  std::printf("%-40s %-7s %-20s %14s\n", "tensor", "type", "shape", "bytes");
  for (const auto& entry : entries) {
    Text shape;
    shape += "[";
    for (int d = 0; d < entry.shape.rank(); ++d) (shape += d ? "," : "") += entry.shape[d];
    shape += "]";
    const std::string name(entry.name), type(entry.type);
    std::printf("%-40s %-7s %-20s %14zu\n", name.c_str(), type.c_str(), shape.c_str(), entry.bytes);
    bytes += entry.bytes;
    elements += entry.shape.numel();
  }
  std::printf("%zu tensors, %zu elements, %zu bytes\n", entries.size(), elements, bytes);
}

void print_metadata(const io::Gguf& file) {
  std::printf("%-40s %-7s %s\n", "key", "type", "value");
  for (const auto& entry : file.metadata()) {
    const std::string key(entry.key), type = std::string(io::to_string(entry.type)) + (entry.array ? "[]" : "");
    std::printf("%-40s %-7s %s\n", key.c_str(), type.c_str(), entry.preview().c_str());
  }
  std::printf("GGUF version %u, %zu entries of metadata\n\n", file.version(), file.metadata().size());
}

// By its first bytes; a file that cannot be read is left to its reader's error.
bool is_gguf(const std::string& path) {
  const auto file = MappedFile::open(path);
  if (!file || file->bytes().size() < 4) return false;
  const auto* first = reinterpret_cast<const char*>(file->bytes().data());
  return std::string(first, 4) == "GGUF";
}

}  // namespace

int inspect_command(const Options& options) {
  if (is_gguf(options.model)) {
    const auto file = io::read_gguf(options.model);
    if (!file) return report(file);
    print_metadata(*file);
    print_tensors(file->entries());
    return 0;
  }
  const auto file = io::read_safetensors(options.model);
  if (!file) return report(file);
  print_tensors(file->entries());
  return 0;
}
