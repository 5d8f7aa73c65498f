// Any bytes opened as a language model: an error, or a model that takes a token and gives logits.
#include <cstddef>
#include <cstdint>

#include "tests/fuzz/memory_file.h"

import qorus.llm;

using namespace qorus;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const MemoryFile bytes(data, size);
  if (!bytes.good()) return 0;
  const auto model = llm::open(bytes.path());
  if (!model) return 0;
  auto session = llm::Session::create(*model, {.context = 4, .batch = 2, .threads = 1});
  if (!session) return 0;
  const std::int32_t ids[] = {0, 1};
  const auto logits = session->feed(ids);
  if (logits && logits->size() != static_cast<std::size_t>(model->config().vocab)) __builtin_trap();
  return 0;
}
