// Any bytes as a SentencePiece model: an error, or a tokenizer that gives ids of its vocabulary and takes them back.
#include <cstddef>
#include <cstdint>

import qorus.text;

using namespace qorus;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const auto tokenizer = text::from_sentencepiece({reinterpret_cast<const std::byte*>(data), size});
  if (!tokenizer) return 0;
  const auto ids = tokenizer->encode(" ab  a<0x41> \xe2\x96\x81 \xff", {.bos = true, .special = true});
  if (!ids) return 0;
  for (const std::int32_t id : *ids)
    if (id < 0 || static_cast<std::size_t>(id) >= tokenizer->size()) __builtin_trap();
  if (!tokenizer->decode({ids->data(), ids->size()}, {.special = true})) __builtin_trap();
  return 0;
}
