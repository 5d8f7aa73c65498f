// qorus inspect: what a safetensors or GGUF file holds, and if that is a language model, the memory that it takes.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <string>
#include <system_error>
#include <vector>

#include "options.h"

import qorus;
import qorus.llm;

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

// The files of a folder of safetensors.
std::vector<std::string> shards_in(const std::string& folder) {
  std::vector<std::string> files;
  std::error_code error;
  for (std::filesystem::directory_iterator at(folder, error), end; !error && at != end; at.increment(error)) {
    if (at->path().extension() == ".safetensors") files.push_back(at->path().string());
  }
  std::sort(files.begin(), files.end());
  return files;
}

// Nothing, if it is no language model.
void print_plan(const std::string& path) {
  const auto weights = llm::Weights::open(path);
  if (!weights) return;
  const auto config = weights->config();
  if (!config) return;
  const llm::Config& c = *config;
  const std::string name(c.architecture->gguf);
  const auto n = [](std::int64_t x) { return static_cast<long long>(x); };
  std::printf("\n%s: %lld layers of %lld, %lld heads of %lld (%lld of keys and values), context %lld\n", name.c_str(),
              n(c.layers), n(c.d_model), n(c.heads), n(c.head_dim), n(c.kv_heads), n(c.context));
  std::printf("weights %.1f MB; cache of the whole context:", static_cast<double>(weights->bytes()) / 1e6);
  for (const DType dtype : {DType::f32, DType::f16, DType::q8_0}) {
    const std::string type(to_string(dtype));
    const auto row = static_cast<double>(row_bytes(dtype, static_cast<std::size_t>(c.head_dim)));
    if (dtype == DType::q8_0 && c.head_dim % 32 != 0) continue;
    std::printf(" %s %.1f MB", type.c_str(), row * 2 * static_cast<double>(c.layers * c.kv_heads * c.context) / 1e6);
  }
  std::printf("\n");
}

}  // namespace

int inspect_command(const Options& options) {
  if (is_gguf(options.model)) {
    const auto file = io::read_gguf(options.model);
    if (!file) return report(file);
    print_metadata(*file);
    print_tensors(file->entries());
    print_plan(options.model);
    return 0;
  }
  if (const auto shards = shards_in(options.model); !shards.empty()) {
    for (const std::string& shard : shards) {
      const auto file = io::read_safetensors(shard);
      if (!file) return report(file);
      std::printf("%s\n", shard.c_str());
      print_tensors(file->entries());
    }
    print_plan(options.model);
    return 0;
  }
  const auto file = io::read_safetensors(options.model);
  if (!file) return report(file);
  print_tensors(file->entries());
  return 0;
}
