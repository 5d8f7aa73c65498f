// qorus inspect: what a file of tensors holds, and if that is a language model, the memory that it takes.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <string>
#include <vector>

#include "options.h"
#include "tensors.h"

using namespace qorus;

namespace {

void print_tensors(const std::vector<Tensors::Line>& lines) {
  std::size_t bytes = 0, elements = 0;
  std::printf("%-40s %-7s %-20s %14s\n", "tensor", "type", "shape", "bytes");
  for (const auto& line : lines) {
    Text shape;
    shape += "[";
    for (int d = 0; d < line.shape.rank(); ++d) (shape += d ? "," : "") += line.shape[d];
    shape += "]";
    std::printf("%-40s %-7s %-20s %14zu\n", line.name.c_str(), line.type.c_str(), shape.c_str(), line.bytes);
    bytes += line.bytes;
    elements += line.shape.numel();
  }
  std::printf("%zu tensors, %zu elements, %zu bytes\n", lines.size(), elements, bytes);
}

void print_metadata(const io::Gguf& file, bool gguf) {
  std::printf("%-40s %-7s %s\n", "key", "type", "value");
  for (const auto& entry : file.metadata()) {
    const std::string key(entry.key), type = std::string(io::to_string(entry.type)) + (entry.array ? "[]" : "");
    std::printf("%-40s %-7s %s\n", key.c_str(), type.c_str(), entry.preview().c_str());
  }
  std::printf("%s version %u, %zu entries of metadata\n\n", gguf ? "GGUF" : ".qorus", gguf ? file.version() : 1u,
              file.metadata().size());
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
  const auto file = Tensors::open(options.model);
  if (!file) return report(file);
  if (file->gguf()) print_metadata(*file->gguf(), file->format() == "gguf");
  print_tensors(file->lines());
  print_plan(options.model);
  return 0;
}
