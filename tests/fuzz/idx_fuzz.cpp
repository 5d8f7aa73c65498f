// Any bytes read as IDX: an error or a tensor whose elements are all there.
#include <cstddef>
#include <cstdint>

#include "tests/fuzz/memory_file.h"

import qorus.data;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const MemoryFile file(data, size);
  if (!file.good()) return 0;
  if (const auto read = qorus::data::read_idx(file.path())) {
    if (const auto kept = qorus::keep(*read); !kept) __builtin_trap();
  }
  return 0;
}
