// Any bytes read as GGUF: an error, or a file all of whose metadata and tensors can be looked up, whose configuration is one or an error,
// and whose tokenizer, if it has one, gives every text ids and the text back.
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "tests/fuzz/memory_file.h"

import qorus.llm;

using namespace qorus;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const MemoryFile bytes(data, size);
  if (!bytes.good()) return 0;
  const auto file = io::read_gguf(bytes.path());
  if (!file) return 0;
  for (const auto& line : file->metadata()) {
    if (file->metadata(line.key) != &line || line.preview().size == 0) __builtin_trap();
    (void)file->i64(line.key);
    (void)file->integers(line.key);
    (void)file->reals(line.key);
    (void)file->texts(line.key);
  }
  for (const auto& line : file->entries()) {
    if (file->find(line.name) != &line) __builtin_trap();
    unsigned sum = 0;
    if (const auto view = file->tensor(line.name)) {
      for (std::size_t i = 0; i < line.bytes; ++i) sum += static_cast<unsigned>(view->data()[i]);
    }
    if (sum == 1u << 31) __builtin_trap();  // so that the bytes are read
  }
  (void)llm::read_config(*file);
  if (const auto tokenizer = text::from_gguf(*file)) {
    const auto ids = tokenizer->encode("Hello, w\xc3\xb6rld \xff 123");
    if (ids && !tokenizer->decode({ids->data(), ids->size()})) __builtin_trap();
  }
  return 0;
}
