// Byte-pair encoding: of all neighbours that merge, those of the lowest rank merge first, the leftmost among equals. Words of up to
// k_short symbols by looking at all pairs each time; longer ones with a heap, in O(n log n).
module;
#include <cstdint>
module qorus.text;
import qorus.std;
import :model;
import :pieces;
import :split;
import :unicode;

namespace qorus::text {
namespace {

constexpr std::uint32_t k_never = UINT32_MAX;
constexpr std::size_t k_short = 64;
constexpr std::size_t k_cached_text = 512, k_fewest_seen = 64, k_most_seen = 16384;

// What two neighbours merge to: by the list of merges, or by the score of the piece that they spell together.
struct ByList {
  const Model& model;
  [[nodiscard]] inline Merge operator()(std::int32_t left, std::int32_t right, std::string_view) const noexcept {
    return model.merges.find(left, right);
  }
};
struct ByScore {
  const Model& model;
  [[nodiscard]] inline Merge operator()(std::int32_t, std::int32_t, std::string_view both) const noexcept {
    const std::int32_t id = model.by_text.find(model.text, both);
    return id < 0 ? Merge{} : Merge{model.ranks[static_cast<std::size_t>(id)], id};
  }
};

// The first symbols of a word: its bytes, or its characters.
struct Bytes {
  const Model& model;
  [[nodiscard]] inline std::size_t size(const char*, const char*) const noexcept { return 1; }
  [[nodiscard]] inline std::int32_t id(std::string_view symbol) const noexcept {
    return model.byte_ids[static_cast<std::uint8_t>(symbol[0])];
  }
};
struct Chars {
  const Model& model;
  [[nodiscard]] inline std::size_t size(const char* at, const char* end) const noexcept {
    return std::max<std::size_t>(utf8_size(at, end), 1);
  }
  [[nodiscard]] inline std::int32_t id(std::string_view symbol) const noexcept {
    return model.by_text.find(model.text, symbol);
  }
};

template <class Symbols, class Find>
class WordEncoder {
 public:
  WordEncoder(const Model& model, Scratch& scratch, Emitter& out) noexcept
      : model_(model), symbols_{model}, find_{model}, scratch_(scratch), out_(out) {}

  // Makes ready for the words of a text.
  [[nodiscard]] Status begin(std::string_view text) noexcept {
    text_ = text;
    scratch_.seen.clear();
    mask_ = 0;
    if (text.size() < k_cached_text) return {};
    const std::size_t slots = std::bit_ceil(std::clamp(text.size() / 8, k_fewest_seen, k_most_seen));
    mask_ = slots - 1;
    return scratch_.seen.resize(slots);
  }

  // A word that was seen lately is copied from where its ids stand.
  [[nodiscard]] Status word(const char* at, const char* end) noexcept {
    const std::string_view word(at, static_cast<std::size_t>(end - at));
    if (mask_ == 0 || word.size() < 2) return fresh(word);
    Scratch::Word& seen = scratch_.seen[hash(word) & mask_];
    List<std::int32_t>& ids = out_.ids;
    if (seen.size == word.size() && std::memcmp(text_.data() + seen.at, at, word.size()) == 0) {
      out_.after_unknown = false;
      for (std::size_t i = 0; i < seen.count; ++i) {
        if (auto ok = ids.push(ids[seen.ids + i]); !ok) return ok;
      }
      return {};
    }
    const std::size_t before = ids.size();
    unknown_ = false;
    auto ok = fresh(word);
    if (!unknown_) {
      seen = {static_cast<std::uint32_t>(at - text_.data()), static_cast<std::uint32_t>(word.size()),
              static_cast<std::uint32_t>(before), static_cast<std::uint32_t>(ids.size() - before)};
    }
    return ok;
  }

 private:
  [[nodiscard]] Status fresh(std::string_view word) noexcept {
    if (model_.whole_words) {
      const std::int32_t id = model_.by_text.find(model_.text, word);
      if (id >= 0) return out_.piece(id);
    }
    return word.size() <= k_short ? short_word(word) : long_word(word);
  }

  [[nodiscard]] inline Status emit(std::int32_t id, std::string_view symbol) noexcept {
    if (id >= 0) return out_.piece(id);
    unknown_ = true;
    return out_.uncovered(symbol);
  }

  [[nodiscard]] Status short_word(std::string_view word) noexcept {
    std::uint32_t start[k_short + 1], rank[k_short];
    std::int32_t id[k_short], merged[k_short];
    std::size_t count = 0;
    const char* const base = word.data();
    for (std::size_t at = 0; at < word.size(); ++count) {
      const std::size_t size = symbols_.size(base + at, base + word.size());
      start[count] = static_cast<std::uint32_t>(at);
      id[count] = symbols_.id({base + at, size});
      at += size;
    }
    start[count] = static_cast<std::uint32_t>(word.size());
    const auto look = [&](std::size_t i) {
      const Merge merge = find_(id[i], id[i + 1], {base + start[i], start[i + 2] - start[i]});
      rank[i] = merge.rank;
      merged[i] = merge.id;
    };
    for (std::size_t i = 0; i + 1 < count; ++i) look(i);
    while (count > 1) {
      std::size_t best = 0;
      for (std::size_t i = 1; i + 1 < count; ++i) best = rank[i] < rank[best] ? i : best;
      if (rank[best] == k_never) break;
      id[best] = merged[best];
      --count;
      for (std::size_t i = best + 1; i < count; ++i) {
        start[i] = start[i + 1];
        id[i] = id[i + 1];
        rank[i] = rank[i + 1];
        merged[i] = merged[i + 1];
      }
      start[count] = start[count + 1];
      if (best > 0) look(best - 1);
      if (best + 1 < count) look(best);
    }
    for (std::size_t i = 0; i < count; ++i) {
      if (auto ok = emit(id[i], {base + start[i], start[i + 1] - start[i]}); !ok) return ok;
    }
    return {};
  }

  [[nodiscard]] Status long_word(std::string_view word) noexcept {
    auto ready = fill(word);
    if (!ready) return ready;
    Scratch& s = scratch_;
    const std::size_t count = s.id.size();
    const auto later = std::greater<>();
    for (std::size_t i = 0; i + 1 < count; ++i) {
      look(word, i);
      if (s.rank[i] == k_never) continue;
      if (auto ok = s.heap.push(entry(i)); !ok) return ok;
    }
    std::make_heap(s.heap.begin(), s.heap.end(), later);
    while (!s.heap.empty()) {
      std::pop_heap(s.heap.begin(), s.heap.end(), later);
      const std::uint64_t top = s.heap.back();
      if (auto ok = s.heap.resize(s.heap.size() - 1); !ok) return ok;
      const std::size_t i = top & UINT32_MAX;
      if (s.rank[i] != top >> 32) continue;  // not so any more
      const std::size_t gone = s.next[i], after = s.next[gone];
      s.id[i] = s.merged[i];
      s.rank[gone] = k_never;
      s.next[i] = static_cast<std::uint32_t>(after);
      if (after < count) s.previous[after] = static_cast<std::uint32_t>(i);
      for (const std::size_t pair : {i, i > 0 ? std::size_t{s.previous[i]} : i}) {
        look(word, pair);
        if (s.rank[pair] != k_never) {
          if (auto ok = s.heap.push(entry(pair)); !ok) return ok;
          std::push_heap(s.heap.begin(), s.heap.end(), later);
        }
        if (i == 0) break;
      }
    }
    for (std::size_t i = 0; i < count; i = s.next[i]) {
      if (auto ok = emit(s.id[i], part_of(word, s.start[i], s.start[s.next[i]] - s.start[i])); !ok) return ok;
    }
    return {};
  }

  // The symbols of a word as a list in both directions; start has one more.
  [[nodiscard]] Status fill(std::string_view word) noexcept {
    Scratch& s = scratch_;
    std::size_t count = 0;
    const char* const base = word.data();
    s.start.clear();
    s.id.clear();
    s.heap.clear();
    for (std::size_t at = 0; at < word.size(); ++count) {
      const std::size_t size = symbols_.size(base + at, base + word.size());
      if (auto ok = s.start.push(static_cast<std::uint32_t>(at)); !ok) return ok;
      if (auto ok = s.id.push(symbols_.id({base + at, size})); !ok) return ok;
      at += size;
    }
    if (auto ok = s.start.push(static_cast<std::uint32_t>(word.size())); !ok) return ok;
    for (List<std::uint32_t>* list : {&s.next, &s.previous, &s.rank}) {
      if (auto ok = list->resize(count); !ok) return ok;
    }
    if (auto ok = s.merged.resize(count); !ok) return ok;
    for (std::size_t i = 0; i < count; ++i) {
      s.next[i] = static_cast<std::uint32_t>(i + 1);
      s.previous[i] = static_cast<std::uint32_t>(i - 1);
    }
    s.rank[count - 1] = k_never;
    return {};
  }

  // Looks up what symbol i and the next merge to.
  void look(std::string_view word, std::size_t i) noexcept {
    Scratch& s = scratch_;
    const std::size_t j = s.next[i];
    Merge merge;
    if (j < s.id.size()) merge = find_(s.id[i], s.id[j], part_of(word, s.start[i], s.start[s.next[j]] - s.start[i]));
    s.rank[i] = merge.rank;
    s.merged[i] = merge.id;
  }
  [[nodiscard]] std::uint64_t entry(std::size_t i) const noexcept { return std::uint64_t{scratch_.rank[i]} << 32 | i; }

  const Model& model_;
  Symbols symbols_;
  Find find_;
  Scratch& scratch_;
  Emitter& out_;
  std::string_view text_;
  std::size_t mask_ = 0;
  bool unknown_ = false;
};

// The end of the stretch at `at` in which any two neighbours may merge.
const char* joined_word(const Model& model, const char* at, const char* end) noexcept {
  do ++at;
  while (at != end && model.joined(at[-1], at[0]));
  return at;
}

template <class Find>
Status encode_chars_by(const Model& model, std::string_view text, Scratch& scratch, List<std::int32_t>& ids) noexcept {
  Emitter out{model, ids};
  WordEncoder<Chars, Find> words(model, scratch, out);
  if (auto ok = words.begin(text); !ok) return ok;
  const char *at = text.data(), *const end = at + text.size();
  while (at != end) {
    const char* next = joined_word(model, at, end);
    if (auto ok = words.word(at, next); !ok) return ok;
    at = next;
  }
  return {};
}

template <class Find>
Status encode_bytes_by(const Model& model, std::string_view text, Scratch& scratch, List<std::int32_t>& ids) noexcept {
  Emitter out{model, ids};
  WordEncoder<Bytes, Find> words(model, scratch, out);
  if (auto ok = words.begin(text); !ok) return ok;
  return model.splitter.each_word(text.data(), text.data() + text.size(),
                                  [&](const char* at, const char* end) { return words.word(at, end); });
}

}  // namespace

Status Emitter::uncovered(std::string_view bytes) noexcept {
  bool all = true;
  for (const char c : bytes) all = all && model.byte_ids[static_cast<std::uint8_t>(c)] >= 0;
  if (all) {
    for (const char c : bytes) {
      if (auto ok = piece(model.byte_ids[static_cast<std::uint8_t>(c)]); !ok) return ok;
    }
    return {};
  }
  if (model.unknown < 0) return fail(Errc::invalid_argument, "encode", "the vocabulary has no piece for this", bytes);
  if (after_unknown && model.fuse_unknown) return {};
  after_unknown = true;
  return ids.push(model.unknown);
}

Status encode_bytes(const Model& model, std::string_view text, Scratch& scratch, List<std::int32_t>& ids) noexcept {
  return model.by_scores ? encode_bytes_by<ByScore>(model, text, scratch, ids)
                         : encode_bytes_by<ByList>(model, text, scratch, ids);
}

Status encode_chars(const Model& model, std::string_view text, Scratch& scratch, List<std::int32_t>& ids) noexcept {
  return model.by_scores ? encode_chars_by<ByScore>(model, text, scratch, ids)
                         : encode_chars_by<ByList>(model, text, scratch, ids);
}

}  // namespace qorus::text
