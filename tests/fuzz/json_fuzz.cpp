// Any text as JSON: an error, or a tree that is a model's configuration or an error, and a structure of layers or an error.
#include <cstddef>
#include <cstdint>
#include <string_view>

import qorus.llm;

using namespace qorus;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view chars(reinterpret_cast<const char*>(data), size);
  text::JsonTree tree;
  if (tree.parse(chars)) (void)llm::read_config(tree.root());
  (void)nn::from_json(chars);
  return 0;
}
