// Any bytes as a .qorus file: an error, or one whose tensors can be looked up and read.
#include <cstddef>
#include <cstdint>

#include "tests/fuzz/memory_file.h"

import qorus.formats;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const MemoryFile file(data, size);
  if (!file.good()) return 0;
  const auto read = qorus::formats::read_native(file.path());
  (void)qorus::formats::verify_native(file.path());
  if (!read) return 0;
  unsigned sum = 0;
  for (const auto& line : read->gguf.entries()) {
    if (read->gguf.find(line.name) != &line) __builtin_trap();
    if (const auto view = read->gguf.tensor(line.name)) {
      for (std::size_t i = 0; i < line.bytes; ++i) sum += static_cast<unsigned>(view->data()[i]);
    }
  }
  if (sum == 1u << 31) __builtin_trap();  // so that the bytes are read
  return 0;
}
