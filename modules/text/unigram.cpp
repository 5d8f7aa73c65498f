// Unigram: of all ways to cut a text into pieces, the one whose scores (logarithms of probabilities) sum up highest, found by
// dynamic programming from left to right (Kudo, Subword Regularization, 2018).
module qorus.text;
import qorus.std;
import :model;
import :pieces;
import :unicode;

namespace qorus::text {

Status encode_unigram(const Model& model, std::string_view text, Scratch& s, List<std::int32_t>& ids) noexcept {
  constexpr std::int32_t k_unknown = -1;
  const std::size_t size = text.size();
  s.score.clear();
  if (auto ok = s.score.resize(size + 1); !ok) return ok;
  if (auto ok = s.from.resize(size + 1); !ok) return ok;
  if (auto ok = s.id.resize(size + 1); !ok) return ok;
  std::fill(s.score.begin() + 1, s.score.end(), -std::numeric_limits<double>::infinity());
  const char *const base = text.data(), *const end = base + size;
  for (std::size_t at = 0; at < size;) {
    const auto offer = [&](std::size_t bytes, std::int32_t id, double score) {
      const std::size_t to = at + bytes;
      const double sum = s.score[at] + score;
      if (sum <= s.score[to]) return;
      s.score[to] = sum;
      s.from[to] = static_cast<std::uint32_t>(at);
      s.id[to] = id;
    };
    const std::size_t character = read(base + at, end).size;
    bool covered = false;
    model.dictionary.each_prefix(base + at, end, [&](std::int32_t id, std::size_t bytes) {
      covered = covered || bytes == character;
      offer(bytes, id, model.scores[static_cast<std::size_t>(id)]);
    });
    if (!covered) offer(character, k_unknown, model.unknown_score);
    at += character;
  }
  // Backwards from the end; then the way forwards is kept in `next`.
  if (auto ok = s.next.resize(size + 1); !ok) return ok;
  for (std::size_t at = size; at > 0; at = s.from[at]) s.next[s.from[at]] = static_cast<std::uint32_t>(at);
  Emitter out{model, ids};
  for (std::size_t at = 0; at < size; at = s.next[at]) {
    const std::size_t to = s.next[at];
    auto ok = s.id[to] == k_unknown ? out.uncovered(part_of(text, at, to - at)) : out.piece(s.id[to]);
    if (!ok) return ok;
  }
  return {};
}

}  // namespace qorus::text
