// Bodies of qorus.text:vocabulary but for the training.
module;
#include <cstdio>
module qorus.text;
import qorus.std;
import :unicode;
import :vocabulary;
import :vocabulary_maker;

namespace qorus::text {
namespace {

// GPT-2's alphabet: the printable character that spells each byte.
constexpr std::array<std::uint16_t, 256> k_character_of = [] {
  std::array<std::uint16_t, 256> characters{};
  std::uint16_t next = 256;
  for (std::size_t b = 0; b < 256; ++b) {
    const bool printable = (b >= '!' && b <= '~') || (b >= 0xa1 && b <= 0xac) || b >= 0xae;
    characters[b] = printable ? static_cast<std::uint16_t>(b) : next++;
  }
  return characters;
}();

constexpr std::uint32_t k_marker = 0x2581;  // spells a space
constexpr std::size_t k_codes = 0x110000;

// A bit for each code point that occurs. Bytes that are no characters are passed over.
void note_characters(std::string_view text, List<std::uint64_t>& seen) noexcept {
  const char *at = text.data(), *const end = at + text.size();
  while (at != end) {
    const Char c = read(at, end);
    if (c.code < k_codes && c.code != k_marker) seen[c.code / 64] |= std::uint64_t{1} << (c.code % 64);
    at += c.size;
  }
}

}  // namespace

VocabularySpec Vocabulary::spec() const noexcept {
  return {.algorithm = algorithm_,
          .pieces = pieces_.span(),
          .scores = scores_.span(),
          .kinds = kinds_.span(),
          .merges = merges_.span(),
          .pre_tokenizer = pre_tokenizer_,
          .bos = begin_,
          .eos = end_,
          .unknown = unknown_};
}

Status VocabularyMaker::spelled(std::string_view piece, PieceKind kind) noexcept {
  if (auto ok = pieces_.push({made_.bytes_.size(), piece.size()}); !ok) return ok;
  if (auto ok = made_.kinds_.push(static_cast<std::int32_t>(kind)); !ok) return ok;
  return made_.bytes_.append(std::span(piece.data(), piece.size()));
}

Status VocabularyMaker::add_bytes(std::string_view meaning) noexcept {
  for (const char c : meaning) {
    if (auto ok = append_char(made_.bytes_, k_character_of[static_cast<std::uint8_t>(c)]); !ok) return ok;
  }
  return {};
}

Status VocabularyMaker::bytes(std::string_view meaning) noexcept {
  const std::size_t begin = made_.bytes_.size();
  if (auto ok = add_bytes(meaning); !ok) return ok;
  if (auto ok = made_.kinds_.push(static_cast<std::int32_t>(PieceKind::normal)); !ok) return ok;
  return pieces_.push({begin, made_.bytes_.size() - begin});
}

Status VocabularyMaker::merge(std::string_view left, std::string_view right) noexcept {
  const std::size_t begin = made_.bytes_.size();
  if (auto ok = add_bytes(left); !ok) return ok;
  if (auto ok = made_.bytes_.push(' '); !ok) return ok;
  if (auto ok = add_bytes(right); !ok) return ok;
  return merges_.push({begin, made_.bytes_.size() - begin});
}

Result<Vocabulary> VocabularyMaker::finish(std::int32_t begin, std::int32_t end, std::int32_t unknown) noexcept {
  for (auto [parts, views] : {std::pair{&pieces_, &made_.pieces_}, std::pair{&merges_, &made_.merges_}}) {
    if (auto ok = views->reserve(parts->size()); !ok) return fail(ok.error());
    const List<Part>& list = *parts;
    for (const Part& part : list) {
      if (auto ok = views->push({made_.bytes_.data() + part.begin, part.size}); !ok) return fail(ok.error());
    }
  }
  made_.begin_ = begin;
  made_.end_ = end;
  made_.unknown_ = unknown;
  return std::move(made_);
}

Result<Vocabulary> byte_vocabulary() noexcept {
  VocabularyMaker maker(Algorithm::byte_bpe, "gpt-2");
  Status status;
  for (int b = 0; b < 256 && status; ++b) {
    const char c = static_cast<char>(b);
    status = maker.bytes({&c, 1});
  }
  if (status) status = maker.spelled(k_end_of_text, PieceKind::control);
  if (!status) return fail(status.error());
  return maker.finish(256, 256, -1);
}

Result<Vocabulary> character_vocabulary(std::span<const std::string_view> texts) noexcept {
  List<std::uint64_t> seen;
  if (auto room = seen.resize(k_codes / 64); !room) return fail(room.error());
  for (const std::string_view text : texts) note_characters(text, seen);
  VocabularyMaker maker(Algorithm::char_bpe, {});
  constexpr std::pair<std::string_view, PieceKind> k_special[] = {
      {"<unk>", PieceKind::unknown}, {"<s>", PieceKind::control}, {"</s>", PieceKind::control}};
  Status status;
  const auto add = [&](std::string_view piece, PieceKind kind) {
    if (status) status = maker.spelled(piece, kind);
    if (status) status = maker.score(0);
  };
  for (const auto& [piece, kind] : k_special) add(piece, kind);
  for (unsigned b = 0; b < 256; ++b) {
    char name[8];
    std::snprintf(name, sizeof name, "<0x%02X>", b);
    add({name, 6}, PieceKind::byte);
  }
  List<char> piece;
  for (std::size_t code = 1; code < k_codes && status; ++code) {  // 0 stays a byte: some readers end a piece there
    if (!(seen[code / 64] >> (code % 64) & 1)) continue;
    piece.clear();
    status = append_char(piece, code == ' ' ? k_marker : static_cast<std::uint32_t>(code));
    add({piece.data(), piece.size()}, PieceKind::normal);
  }
  if (!status) return fail(status.error());
  return maker.finish(1, 2, 0);
}

}  // namespace qorus::text
