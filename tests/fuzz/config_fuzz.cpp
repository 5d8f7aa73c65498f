// Any text as config.json: an error, or a configuration that check_config accepts or refuses.
#include <cstddef>
#include <cstdint>
#include <string_view>

import qorus.llm;

using namespace qorus;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  text::JsonTree tree;
  if (!tree.parse({reinterpret_cast<const char*>(data), size})) return 0;
  if (const auto config = llm::read_config(tree.root())) (void)llm::check_config(*config);
  return 0;
}
