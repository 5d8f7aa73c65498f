// Any text as a chat template: an error, or a program that ends within its bounds.
#include <cstddef>
#include <cstdint>
#include <string_view>

import qorus.text;

using namespace qorus;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const auto made = text::ChatTemplate::parse({reinterpret_cast<const char*>(data), size});
  if (!made) return 0;
  const text::ChatMessage talk[] = {{"system", "Be brief."}, {"user", "Hi <there> \xc3\xa9\xff"}, {"assistant", ""}};
  (void)made->render(talk, {.bos = "<s>", .eos = "</s>", .now = 0, .steps = 20'000, .memory = 1 << 20});
  return 0;
}
