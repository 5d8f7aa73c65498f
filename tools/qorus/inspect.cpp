// qorus inspect: what a safetensors file holds.
#include <cstdint>
#include <cstdio>
#include <string>

#include "options.h"

import qorus;

using namespace qorus;

int inspect_command(const Options& options) {
  auto file = io::read_safetensors(options.model);
  if (!file) return report(file);
  std::size_t bytes = 0, elements = 0;
  std::printf("%-40s %-5s %-20s %14s\n", "tensor", "type", "shape", "bytes");
  for (const auto& entry : file->entries()) {
    Text shape;
    shape += "[";
    for (int d = 0; d < entry.shape.rank(); ++d) (shape += d ? "," : "") += entry.shape[d];
    shape += "]";
    const std::string name(entry.name), type(entry.type);
    std::printf("%-40s %-5s %-20s %14zu\n", name.c_str(), type.c_str(), shape.c_str(), entry.bytes);
    bytes += entry.bytes;
    elements += entry.shape.numel();
  }
  std::printf("%zu tensors, %zu elements, %zu bytes\n", file->entries().size(), elements, bytes);
  return 0;
}
