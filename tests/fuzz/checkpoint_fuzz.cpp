// Any bytes read as a sealed checkpoint: an error, or tensors that can all be copied.
#include <cstddef>
#include <cstdint>

#include "tests/fuzz/memory_file.h"

import qorus.io;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const MemoryFile file(data, size);
  if (!file.good()) return 0;
  const auto read = qorus::io::read_sealed(file.path());
  if (!read) return 0;
  for (const auto& entry : read->entries()) (void)read->copy(entry.name);
  return 0;
}
