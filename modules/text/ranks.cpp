// Bodies of qorus.text:load: ranks of tiktoken as the merges that give the same pieces, for formats that know merges alone.
module qorus.text;
import qorus.std;
import :load;
import :tokenizer;
import :vocabulary;
import :vocabulary_maker;

namespace qorus::text {
namespace {

constexpr std::uint32_t k_none = std::numeric_limits<std::uint32_t>::max();
constexpr std::size_t k_longest = 512;  // bytes of a piece; known files have 128

// Which rank a text of bytes has.
class Ranks {
 public:
  [[nodiscard]] Status fill(std::span<const std::string_view> pieces) noexcept {
    if (auto room = sorted_.reserve(pieces.size()); !room) return room;
    for (std::size_t i = 0; i < pieces.size(); ++i) {
      if (auto kept = sorted_.push({pieces[i], static_cast<std::uint32_t>(i)}); !kept) return kept;
    }
    std::sort(sorted_.begin(), sorted_.end());
    return {};
  }
  [[nodiscard]] std::uint32_t of(std::string_view text) const noexcept {
    const auto* found = std::lower_bound(sorted_.begin(), sorted_.end(), text,
                                         [](const auto& one, std::string_view wanted) { return one.first < wanted; });
    return found != sorted_.end() && found->first == text ? found->second : k_none;
  }

 private:
  List<std::pair<std::string_view, std::uint32_t>> sorted_;
};

// Where a piece falls in two when it is merged from its bytes by the ranks before its own; 0 if it is a byte, or stays in more parts.
std::size_t border_of(std::string_view piece, std::uint32_t rank, const Ranks& ranks) noexcept {
  std::size_t begin[k_longest + 1];     // of the parts, and the end
  std::uint32_t joined[k_longest + 1];  // the rank of a part and its right neighbour
  std::size_t count = piece.size();
  const auto look = [&](std::size_t i) {
    const std::uint32_t both = i + 1 < count ? ranks.of({piece.data() + begin[i], begin[i + 2] - begin[i]}) : k_none;
    joined[i] = both < rank ? both : k_none;
  };
  for (std::size_t i = 0; i <= count; ++i) begin[i] = i;
  for (std::size_t i = 0; i < count; ++i) look(i);
  while (count > 2) {
    const auto best = static_cast<std::size_t>(std::min_element(joined, joined + count) - joined);
    if (joined[best] == k_none) return 0;
    std::copy(begin + best + 2, begin + count + 1, begin + best + 1);
    std::copy(joined + best + 2, joined + count, joined + best + 1);
    --count;
    look(best);
    if (best > 0) look(best - 1);
  }
  return count == 2 ? begin[1] : 0;
}

}  // namespace

Status show_ranks(std::span<const std::string_view> pieces, std::string_view pre_tokenizer,
                  const VocabularyVisitor& visitor) noexcept {
  Ranks ranks;
  if (auto filled = ranks.fill(pieces); !filled) return filled;
  // llama.cpp's names for the two that only tiktoken calls so.
  const std::string_view name = pre_tokenizer == "cl100k"  ? "dbrx"
                                : pre_tokenizer == "o200k" ? "gpt-4o"
                                                           : pre_tokenizer;
  VocabularyMaker maker(Algorithm::byte_bpe, name);
  for (std::size_t i = 0; i < pieces.size(); ++i) {
    const std::string_view piece = pieces[i];
    if (piece.size() > k_longest) return fail(Errc::unsupported, "ranks", "a piece of more than 512 bytes");
    if (auto added = maker.bytes(piece); !added) return added;
    const std::size_t border = border_of(piece, static_cast<std::uint32_t>(i), ranks);
    if (border == 0) continue;
    const std::string_view left(piece.data(), border), right(piece.data() + border, piece.size() - border);
    if (auto added = maker.merge(left, right); !added) return added;
  }
  if (auto added = maker.spelled(k_end_of_text, PieceKind::control); !added) return added;
  const auto end = static_cast<std::int32_t>(pieces.size());
  auto made = maker.finish(end, end, -1);
  return made ? visitor.visit(visitor.user, made->spec()) : Status(fail(made.error()));
}

}  // namespace qorus::text
