// The first byte chooses a format, the next two how much is the vocabulary's file; the rest is a text. An error, or a tokenizer that gives
// ids of its vocabulary and takes them back.
#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

import qorus.text;

using namespace qorus;

namespace {

Result<text::Tokenizer> read(unsigned format, std::span<const std::byte> bytes, std::string_view chars) {
  switch (format % 4) {
    case 0: return text::from_json(chars);
    case 1: return text::from_sentencepiece(bytes);
    case 2: return text::from_llama2c(bytes);
    default: return text::from_tiktoken(chars, "llama-bpe");
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size < 3) return 0;
  const unsigned format = data[0];
  const std::size_t behind = data[1] + 256u * data[2];
  data += 3, size -= 3;
  const std::size_t text_size = behind < size ? behind : 0;
  const auto* chars = reinterpret_cast<const char*>(data);
  const std::size_t cut = size - text_size;
  const auto tokenizer = read(format, {reinterpret_cast<const std::byte*>(data), cut}, {chars, cut});
  if (!tokenizer) return 0;
  const auto ids = tokenizer->encode({chars + cut, text_size}, {.bos = true, .special = text_size % 2 == 0});
  if (!ids) return 0;
  for (const std::int32_t id : *ids)
    if (id < 0 || static_cast<std::size_t>(id) >= tokenizer->size()) __builtin_trap();
  if (!tokenizer->decode({ids->data(), ids->size()}, {.special = true})) __builtin_trap();
  return 0;
}
