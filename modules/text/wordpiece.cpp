// WordPiece as BERT has it: words without accents and case, punctuation and Chinese characters alone; of each word the longest piece
// it begins with, again and again. The vocabulary spells the begin of a word as U+2581 and its rest plainly, as GGUF does.
module qorus.text;
import qorus.std;
import :model;
import :pieces;
import :unicode;

namespace qorus::text {
namespace {

constexpr std::string_view k_marker = "\xe2\x96\x81";

bool chinese(std::uint32_t code) noexcept {
  const auto in = [&](std::uint32_t low, std::uint32_t high) { return code >= low && code <= high; };
  return in(0x4e00, 0x9fff) || in(0x3400, 0x4dbf) || in(0x20000, 0x2a6df) || in(0x2a700, 0x2b73f) ||
         in(0x2b740, 0x2b81f) || in(0x2b920, 0x2ceaf) || in(0xf900, 0xfaff) || in(0x2f800, 0x2fa1f);
}

// Collects the words in scratch.text; scratch.start has where each begins.
class BasicWords {
 public:
  explicit BasicWords(Scratch& scratch) noexcept : scratch_(scratch) {}

  [[nodiscard]] Status add(const Model& model, const Char& c) noexcept {
    if (c.is(k_space)) {
      open_ = false;
      return {};
    }
    if (c.code == 0 || c.code == 0xfffd || c.kind == 0) return {};  // control characters, and bytes that are none
    if (c.is(k_mark) && model.lower_case) return {};
    const bool alone = c.is(k_punct) || (c.code < 128 && c.is(k_symbol)) || chinese(c.code);
    if (!open_ || alone) {
      if (auto ok = scratch_.start.push(static_cast<std::uint32_t>(scratch_.text.size())); !ok) return ok;
      if (auto ok = scratch_.text.append(std::span(k_marker.data(), k_marker.size())); !ok) return ok;
    }
    open_ = !alone;
    return append_char(scratch_.text, model.lower_case ? lower(c.code) : c.code);
  }

 private:
  Scratch& scratch_;
  bool open_ = false;
};

Status encode_word(const Model& model, std::string_view word, List<std::int32_t>& ids) noexcept {
  const std::size_t before = ids.size();
  while (!word.empty()) {
    std::int32_t best = -1;
    std::size_t size = 0;
    model.dictionary.each_prefix(word.data(), word.data() + word.size(), [&](std::int32_t id, std::size_t bytes) {
      best = id;
      size = bytes;
    });
    if (best < 0) {
      if (auto ok = ids.resize(before); !ok) return ok;
      if (model.unknown < 0)
        return fail(Errc::invalid_argument, "encode", "the vocabulary has no piece for this", word);
      return ids.push(model.unknown);
    }
    if (auto ok = ids.push(best); !ok) return ok;
    word.remove_prefix(size);
  }
  return {};
}

}  // namespace

Status encode_wordpiece(const Model& model, std::string_view text, Scratch& scratch, List<std::int32_t>& ids) noexcept {
  scratch.text.clear();
  scratch.start.clear();
  scratch.part.clear();
  if (model.lower_case) {
    if (auto ok = normalize(text, Form::nfd, scratch.part); !ok) return ok;
    text = {scratch.part.data(), scratch.part.size()};
  }
  BasicWords words(scratch);
  const char *at = text.data(), *const end = at + text.size();
  for (Char c = read(at, end); c.size; c = read(at, end)) {
    if (auto ok = words.add(model, c); !ok) return ok;
    at += c.size;
  }
  if (auto ok = scratch.start.push(static_cast<std::uint32_t>(scratch.text.size())); !ok) return ok;
  for (std::size_t i = 0; i + 1 < scratch.start.size(); ++i) {
    const std::uint32_t begin = scratch.start[i];
    if (auto ok = encode_word(model, {scratch.text.data() + begin, scratch.start[i + 1] - begin}, ids); !ok) return ok;
  }
  return {};
}

}  // namespace qorus::text
