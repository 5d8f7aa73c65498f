// Any text and any ids, for a tokenizer of each algorithm: the first byte chooses one. What is encoded are ids of the vocabulary; bytes that
// all have pieces come back as they were; ids that a vocabulary does not have are an error.
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

import qorus.text;

using namespace qorus;

namespace {

struct Vocabulary {
  std::vector<std::string> texts;
  std::vector<std::string_view> pieces, merges;
  std::vector<float> scores;
  std::vector<std::int32_t> kinds;
  void add(const std::string& piece, float score, std::int32_t kind) {
    texts.push_back(piece);
    scores.push_back(score);
    kinds.push_back(kind);
  }
  Result<text::Tokenizer> make(text::Algorithm algorithm) {
    pieces.assign(texts.begin(), texts.end());
    text::VocabularySpec spec{
        .algorithm = algorithm, .pieces = pieces, .scores = scores, .kinds = kinds, .bos = 1, .eos = 2, .unknown = 0};
    spec.pre_tokenizer = "gpt-2";
    if (algorithm == text::Algorithm::byte_bpe) {
      spec.raw_bytes = spec.whole_words = true;
    }
    spec.space_marker = algorithm != text::Algorithm::byte_bpe;
    return text::Tokenizer::create(spec);
  }
};

Result<text::Tokenizer> make(text::Algorithm algorithm) {
  Vocabulary v;
  v.add("<unk>", 0, 2);
  v.add("<s>", 0, 3);
  v.add("</s>", 0, 3);
  v.add("<|user|>", 0, 4);
  for (int b = 0; b < 256 && algorithm != text::Algorithm::wordpiece; ++b) {
    char name[8];
    static constexpr char digits[] = "0123456789ABCDEF";
    const char spelled[] = {'<', '0', 'x', digits[b >> 4], digits[b & 15], '>', 0};
    std::memcpy(name, spelled, sizeof spelled);
    if (algorithm == text::Algorithm::byte_bpe) {
      v.add(std::string(1, static_cast<char>(b)), static_cast<float>(-b), 1);
    } else {
      v.add(name, 0, 6);
    }
  }
  for (const char* piece :
       {"ab", "abc", "the", " the", "\xe2\x96\x81", "\xe2\x96\x81the", "\xc3\xa9", "\xe2\x82\xac", "12", "\n\n", "  "})
    v.add(piece, -static_cast<float>(v.texts.size()), 1);
  return v.make(algorithm);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using text::Algorithm;
  static const std::array<Result<text::Tokenizer>, 4> all = {make(Algorithm::byte_bpe), make(Algorithm::char_bpe),
                                                             make(Algorithm::unigram), make(Algorithm::wordpiece)};
  if (size == 0) return 0;
  const auto& tokenizer = all[data[0] % 4];
  if (!tokenizer) __builtin_trap();
  const std::string_view text(reinterpret_cast<const char*>(data + 1), size - 1);
  const auto ids = tokenizer->encode(text, {.special = data[0] % 8 < 4});
  if (ids) {
    for (const std::int32_t id : *ids)
      if (id < 0 || static_cast<std::size_t>(id) >= tokenizer->size()) __builtin_trap();
    const auto back = tokenizer->decode({ids->data(), ids->size()}, {.special = true});
    if (!back) __builtin_trap();
    if (data[0] % 4 == 0 && std::string_view(back->data(), back->size()) != text) __builtin_trap();
  }
  std::vector<std::int32_t> any((size - 1) / 4);
  if (!any.empty()) std::memcpy(any.data(), data + 1, any.size() * 4);
  (void)tokenizer->decode(any);
  for (std::size_t i = 0; i < any.size(); ++i)
    any[i] = static_cast<std::int32_t>(static_cast<std::uint32_t>(any[i]) % tokenizer->size());
  if (!tokenizer->decode(any, {.special = true})) __builtin_trap();
  return 0;
}
