// train_bpe. Words are counted once; each is a row of symbols. For every pair of neighbours its number is kept, and the words in which it
// occurs; a merge looks at those words alone. The next pair comes from a heap whose entries may be out of date: what is popped is
// pushed again with its present number if that is another one.
module;
#include <cstdint>
module qorus.text;
import qorus.std;
import :pieces;
import :split;
import :vocabulary;
import :vocabulary_maker;

namespace qorus::text {
namespace {

constexpr const char* k_op = "train_bpe";
constexpr std::size_t k_longest_word = 1024;
constexpr std::size_t k_longest_chain = 4096;  // honest tables, half full, have chains of some dozens
constexpr std::uint32_t k_none = UINT32_MAX;

// Finds or adds entries of a list by a hash; the list itself is the user's.
class Index {
 public:
  // The number of the entry that `same` says yes to, or of a new one, `count`, for which `added` is set. rehash(i): entry i's hash.
  template <class Same, class Rehash>
  [[nodiscard]] Result<std::uint32_t> find(std::uint64_t hash, std::size_t count, bool& added, const Same& same,
                                           const Rehash& rehash) noexcept {
    if (2 * count >= slots_.size()) {
      if (auto ok = grow(count, rehash); !ok) return fail(ok.error());
    }
    for (std::size_t step = 0; step < k_longest_chain; ++step) {
      std::uint32_t& slot = slots_[(hash + step) & (slots_.size() - 1)];
      added = slot == 0;
      if (added) slot = static_cast<std::uint32_t>(count + 1);
      if (added || same(slot - 1)) return slot - 1;
    }
    return collides();
  }

 private:
  [[nodiscard]] static tl::unexpected<Error> collides() noexcept {
    return fail(Errc::unsupported, k_op, "a text whose words collide in a hash table");
  }
  template <class Rehash>
  [[nodiscard]] Status grow(std::size_t count, const Rehash& rehash) noexcept {
    constexpr std::size_t k_fewest = 1024, k_most = std::size_t{1} << 31;
    if (count >= k_most / 4) return fail(Errc::overflow, k_op, "too many different words");
    slots_.clear();
    if (auto ok = slots_.resize(std::bit_ceil(std::max(4 * count, k_fewest))); !ok) return ok;
    for (std::size_t i = 0; i < count; ++i) {
      std::size_t step = 0;
      const std::uint64_t hash = rehash(i);
      while (step < k_longest_chain && slots_[(hash + step) & (slots_.size() - 1)] != 0) ++step;
      if (step == k_longest_chain) return collides();
      slots_[(hash + step) & (slots_.size() - 1)] = static_cast<std::uint32_t>(i + 1);
    }
    return {};
  }
  List<std::uint32_t> slots_;  // an entry's number plus 1; 0: free
};

// Different texts, numbered in the order in which they came.
class Texts {
 public:
  [[nodiscard]] Result<std::uint32_t> add(std::string_view text, bool& added) noexcept {
    auto found = index_.find(
        hash(text), pieces_.size(), added, [&](std::size_t i) { return pieces_[i] == text; },
        [&](std::size_t i) { return hash(pieces_[i]); });
    if (found && added) {
      if (auto ok = pieces_.add(text); !ok) return fail(ok.error());
    }
    return found;
  }
  [[nodiscard]] std::size_t size() const noexcept { return pieces_.size(); }
  [[nodiscard]] std::string_view operator[](std::size_t i) const noexcept { return pieces_[i]; }

 private:
  Pieces pieces_;
  Index index_;
};

class BpeTrainer {
 public:
  explicit BpeTrainer(const BpeOptions& options) noexcept
      : options_(options), maker_(Algorithm::byte_bpe, options.pre_tokenizer) {}

  [[nodiscard]] Result<Vocabulary> train(std::span<const std::string_view> texts, const Splitter& splitter) noexcept {
    Status done = count_words(texts, splitter);
    if (done) done = begin_pieces();
    if (done) done = begin_pairs();
    if (done) done = merge_all();
    for (std::size_t i = 0; done && i < pieces_.size(); ++i) done = maker_.bytes(pieces_[i]);
    if (done) done = maker_.spelled(k_end_of_text, PieceKind::control);
    if (!done) return fail(done.error());
    const auto end = static_cast<std::int32_t>(pieces_.size());
    return maker_.finish(end, end, -1);
  }

 private:
  struct Word {
    std::size_t begin = 0;  // within symbols_
    std::uint32_t size = 0;
    std::int64_t count = 0;
  };
  struct Pair {
    std::uint64_t key = 0;
    std::int64_t count = 0;
    std::uint32_t places = k_none;  // the newest of its list
    bool touched = false;           // by the merge at work
  };
  struct Place {
    std::uint32_t word, next;
  };
  struct Candidate {  // of the heap
    std::int64_t count;
    std::uint64_t key;
    std::uint32_t pair;
    friend bool operator<(const Candidate& a, const Candidate& b) noexcept {
      return a.count != b.count ? a.count < b.count : a.key > b.key;
    }
  };
  [[nodiscard]] static std::uint64_t key_of(std::uint32_t left, std::uint32_t right) noexcept {
    return std::uint64_t{left} << 32 | right;
  }

  [[nodiscard]] Status count_words(std::span<const std::string_view> texts, const Splitter& splitter) noexcept {
    for (const std::string_view text : texts) {
      auto done = splitter.each_word(text.data(), text.data() + text.size(), [&](const char* at, const char* end) {
        Status status;
        while (status && at != end) {
          const std::size_t size = std::min<std::size_t>(static_cast<std::size_t>(end - at), k_longest_word);
          status = count_word({at, size});
          at += size;
        }
        return status;
      });
      if (!done) return done;
    }
    return {};
  }
  [[nodiscard]] Status count_word(std::string_view word) noexcept {
    bool added = false;
    auto found = spelled_.add(word, added);
    if (!found) return fail(found.error());
    if (added) {
      if (auto ok = words_.push({}); !ok) return ok;
    }
    ++words_[*found].count;
    return {};
  }

  // The bytes, and the words in them.
  [[nodiscard]] Status begin_pieces() noexcept {
    bool added = false;
    for (int b = 0; b < 256; ++b) {
      const char c = static_cast<char>(b);
      if (auto ok = pieces_.add({&c, 1}, added); !ok) return fail(ok.error());
    }
    for (std::size_t i = 0; i < words_.size(); ++i) {
      const std::string_view word = spelled_[i];
      words_[i].begin = symbols_.size();
      words_[i].size = static_cast<std::uint32_t>(word.size());
      for (const char c : word) {
        if (auto ok = symbols_.push(static_cast<std::uint8_t>(c)); !ok) return ok;
      }
    }
    return {};
  }

  [[nodiscard]] Status begin_pairs() noexcept {
    for (std::uint32_t w = 0; w < words_.size(); ++w) {
      for (std::uint32_t i = 0; i + 1 < words_[w].size; ++i) {
        auto pair = pair_at(w, i);
        if (!pair) return fail(pair.error());
        pairs_[*pair].count += words_[w].count;
        if (auto ok = note_place(*pair, w); !ok) return ok;
      }
    }
    for (std::uint32_t p = 0; p < pairs_.size(); ++p) {
      if (auto ok = heap_.push({pairs_[p].count, pairs_[p].key, p}); !ok) return ok;
    }
    std::make_heap(heap_.begin(), heap_.end());
    return {};
  }

  [[nodiscard]] Result<std::uint32_t> pair_at(std::uint32_t word, std::uint32_t i) noexcept {
    const std::uint32_t* symbols = symbols_.data() + words_[word].begin + i;
    const std::uint64_t key = key_of(symbols[0], symbols[1]);
    bool added = false;
    auto found = pair_index_.find(
        mixed(key), pairs_.size(), added, [&](std::size_t p) { return pairs_[p].key == key; },
        [&](std::size_t p) { return mixed(pairs_[p].key); });
    if (found && added) {
      if (auto ok = pairs_.push({.key = key}); !ok) return fail(ok.error());
    }
    return found;
  }
  [[nodiscard]] Status note_place(std::uint32_t pair, std::uint32_t word) noexcept {
    const std::uint32_t newest = pairs_[pair].places;
    if (newest != k_none && places_[newest].word == word) return {};
    if (places_.size() >= k_none) return fail(Errc::overflow, k_op, "too many different words");
    pairs_[pair].places = static_cast<std::uint32_t>(places_.size());
    return places_.push({word, newest});
  }

  [[nodiscard]] Status merge_all() noexcept {
    const auto most = static_cast<std::size_t>(options_.vocabulary) - 1;  // the last id is the end of a text
    while (pieces_.size() < most && !heap_.empty()) {
      std::pop_heap(heap_.begin(), heap_.end());
      const Candidate best = heap_.back();
      if (auto ok = heap_.resize(heap_.size() - 1); !ok) return ok;
      if (best.count < std::max<std::int64_t>(options_.fewest, 1)) return {};
      if (const std::int64_t now = pairs_[best.pair].count; now != best.count) {
        if (auto ok = push_candidate(best.pair); !ok) return ok;
        continue;
      }
      if (auto ok = merge(best.pair); !ok) return ok;
    }
    return {};
  }
  [[nodiscard]] Status push_candidate(std::uint32_t pair) noexcept {
    if (pairs_[pair].count <= 0) return {};
    if (auto ok = heap_.push({pairs_[pair].count, pairs_[pair].key, pair}); !ok) return ok;
    std::push_heap(heap_.begin(), heap_.end());
    return {};
  }

  [[nodiscard]] Status merge(std::uint32_t pair) noexcept {
    const auto left = static_cast<std::uint32_t>(pairs_[pair].key >> 32),
               right = static_cast<std::uint32_t>(pairs_[pair].key);
    joined_.clear();
    for (const std::uint32_t part : {left, right}) {
      const std::string_view text = pieces_[part];
      if (auto ok = joined_.append(std::span(text.data(), text.size())); !ok) return ok;
    }
    bool added = false;
    auto both = pieces_.add({joined_.data(), joined_.size()}, added);
    if (!both) return fail(both.error());
    if (auto ok = maker_.merge(pieces_[left], pieces_[right]); !ok) return ok;
    touched_.clear();
    std::uint32_t place = std::exchange(pairs_[pair].places, k_none);
    for (; place != k_none; place = places_[place].next) {
      if (auto ok = merge_in(places_[place].word, left, right, *both); !ok) return ok;
    }
    const List<std::uint32_t>& touched = touched_;
    for (const std::uint32_t p : touched) {
      pairs_[p].touched = false;
      if (auto ok = push_candidate(p); !ok) return ok;
    }
    return {};
  }

  // Only pairs with the new piece can have become more.
  [[nodiscard]] Status merge_in(std::uint32_t w, std::uint32_t left, std::uint32_t right, std::uint32_t both) noexcept {
    Word& word = words_[w];
    std::uint32_t* symbols = symbols_.data() + word.begin;
    bool found = false;
    for (std::uint32_t i = 0; i + 1 < word.size && !found; ++i) found = symbols[i] == left && symbols[i + 1] == right;
    if (!found) return {};  // a merge in between has taken it
    for (std::uint32_t i = 0; i + 1 < word.size; ++i) {
      auto pair = pair_at(w, i);
      if (!pair) return fail(pair.error());
      pairs_[*pair].count -= word.count;
    }
    std::uint32_t size = 0;
    for (std::uint32_t i = 0; i < word.size; ++i) {
      const bool here = i + 1 < word.size && symbols[i] == left && symbols[i + 1] == right;
      symbols[size++] = here ? both : symbols[i];
      i += here;
    }
    word.size = size;
    for (std::uint32_t i = 0; i + 1 < size; ++i) {
      auto pair = pair_at(w, i);
      if (!pair) return fail(pair.error());
      pairs_[*pair].count += word.count;
      if (symbols[i] != both && symbols[i + 1] != both) continue;
      if (auto ok = note_place(*pair, w); !ok) return ok;
      if (std::exchange(pairs_[*pair].touched, true)) continue;
      if (auto ok = touched_.push(*pair); !ok) return ok;
    }
    return {};
  }

  const BpeOptions& options_;
  VocabularyMaker maker_;
  Texts spelled_, pieces_;
  List<Word> words_;
  List<std::uint32_t> symbols_;
  List<Pair> pairs_;
  Index pair_index_;
  List<Place> places_;
  List<Candidate> heap_;
  List<std::uint32_t> touched_;
  List<char> joined_;
};

}  // namespace

Result<Vocabulary> train_bpe(std::span<const std::string_view> texts, const BpeOptions& options) noexcept {
  constexpr std::int64_t k_fewest = 257, k_most = 1 << 24;
  if (options.vocabulary < k_fewest || options.vocabulary > k_most)
    return fail(Errc::invalid_argument, k_op,
                "a vocabulary has from 257 pieces, the bytes and the end of a text, to 2^24");
  const auto splitter = splitter_of(options.pre_tokenizer);
  if (!splitter) return fail(splitter.error());
  return BpeTrainer(options).train(texts, *splitter);
}

}  // namespace qorus::text
