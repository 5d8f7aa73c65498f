// Any bytes read as NPY: an error or a tensor whose elements are all there.
#include <cstddef>
#include <cstdint>

#include "tests/fuzz/memory_file.h"

import qorus.io;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const MemoryFile file(data, size);
  if (!file.good()) return 0;
  if (const auto read = qorus::io::read_npy(file.path())) {
    if (const auto kept = qorus::keep(*read); !kept) __builtin_trap();
  }
  if (const auto npz = qorus::io::Npz::open(file.path())) {
    for (std::size_t i = 0; i < npz->size() && i < 16; ++i) static_cast<void>(npz->read(npz->name(i)));
  }
  static_cast<void>(qorus::io::MappedNpy::open(file.path()));
  return 0;
}
