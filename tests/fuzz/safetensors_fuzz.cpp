// Any bytes read as safetensors: an error, or tensors that can all be looked up and copied.
#include <cstddef>
#include <cstdint>
#include <span>

#include "tests/fuzz/memory_file.h"

import qorus.io;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const MemoryFile file(data, size);
  if (!file.good()) return 0;
  const auto read = qorus::io::read_safetensors(file.path());
  if (!read) return 0;
  for (const auto& entry : read->entries()) {
    if (read->find(entry.name) == nullptr) __builtin_trap();
    (void)read->tensor(entry.name);
    (void)read->copy(entry.name);
  }
  for (const auto& [key, value] : read->metadata()) (void)read->text(key);
  return 0;
}
