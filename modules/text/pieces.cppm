// Where a vocabulary lies and how it is looked up: byte strings one after the other, and hash tables of open addressing. A table
// gives up on a vocabulary that was made to collide, so that neither loading nor looking up has a bad case.
module qorus.text:pieces;
import qorus.std;
import qorus.memory;

namespace qorus::text {

// text.substr, which throws if it begins behind the end; here it is empty then.
[[nodiscard]] constexpr std::string_view part_of(std::string_view text, std::size_t begin,
                                                 std::size_t size = std::string_view::npos) noexcept {
  return begin < text.size() ? text.substr(begin, size) : std::string_view();
}

// Byte strings in one block.
class Pieces {
 public:
  [[nodiscard]] Status reserve(std::size_t count, std::size_t bytes) noexcept;
  // Errors: overflow (4 GiB in all), out_of_memory.
  [[nodiscard]] Status add(std::string_view piece) noexcept;
  [[nodiscard]] std::size_t size() const noexcept { return ends_.size(); }
  [[nodiscard]] inline std::string_view operator[](std::size_t i) const noexcept {
    const std::uint32_t begin = i ? ends_[i - 1] : 0;
    return {bytes_.data() + begin, ends_[i] - begin};
  }

 private:
  List<char> bytes_;
  List<std::uint32_t> ends_;
};

[[nodiscard]] inline std::uint64_t mixed(std::uint64_t x) noexcept {
  x *= 0x9e3779b97f4a7c15u;
  return x ^ x >> 32;
}

[[nodiscard]] inline std::uint64_t hash(std::string_view text) noexcept {
  const char* at = text.data();
  std::size_t left = text.size();
  std::uint64_t sum = left, word;
  for (; left >= 8; at += 8, left -= 8) {
    std::memcpy(&word, at, 8);
    sum = mixed(sum ^ word);
  }
  if (left >= 4) {
    std::uint32_t low, high;
    std::memcpy(&low, at, 4);
    std::memcpy(&high, at + left - 4, 4);
    word = std::uint64_t{high} << 32 | low;
  } else if (left) {
    const auto byte = [at](std::size_t i) { return std::uint64_t{static_cast<std::uint8_t>(at[i])}; };
    word = byte(0) | byte(left / 2) << 8 | byte(left - 1) << 16;
  } else {
    return mixed(sum);
  }
  return mixed(mixed(sum ^ word));
}

// From a byte string to its index in Pieces.
class PieceTable {
 public:
  // Room for `count` entries.
  [[nodiscard]] Status reserve(std::size_t count) noexcept;
  // Gives the index that was there before, or -1. Errors: unsupported (a vocabulary made to collide).
  [[nodiscard]] Result<std::int32_t> add(const Pieces& pieces, std::int32_t index) noexcept;
  // The index, or -1.
  [[nodiscard]] inline std::int32_t find(const Pieces& pieces, std::string_view text) const noexcept {
    if (slots_.empty()) return -1;
    const std::uint64_t sum = hash(text);
    const auto tag = static_cast<std::uint32_t>(sum >> 32);
    for (std::size_t i = sum & mask_;; i = (i + 1) & mask_) {
      const Slot& slot = slots_[i];
      if (slot.index < 0) return -1;
      if (slot.tag == tag && pieces[static_cast<std::size_t>(slot.index)] == text) return slot.index;
    }
  }

 private:
  struct Slot {
    std::uint32_t tag = 0;
    std::int32_t index = -1;
  };
  List<Slot> slots_;
  std::size_t mask_ = 0;
};

struct Merge {
  std::uint32_t rank =
      std::numeric_limits<std::uint32_t>::max();  // the lowest comes first; the largest: these two do not merge
  std::int32_t id = -1;
};

// From two neighbours to what they merge to.
class MergeTable {
 public:
  [[nodiscard]] Status reserve(std::size_t count) noexcept;
  // The first of two merges of the same pieces stays. Errors: unsupported (a vocabulary made to collide).
  [[nodiscard]] Status add(std::int32_t left, std::int32_t right, const Merge& merge) noexcept;
  [[nodiscard]] inline Merge find(std::int32_t left, std::int32_t right) const noexcept {
    if (left < 0 || right < 0 || slots_.empty()) return {};
    const std::uint64_t key = key_of(left, right);
    for (std::size_t i = mixed(key) & mask_;; i = (i + 1) & mask_) {
      const Slot& slot = slots_[i];
      if (slot.key == key) return slot.merge;
      if (slot.key == k_free) return {};
    }
  }

 private:
  static constexpr std::uint64_t k_free = ~std::uint64_t{0};
  struct Slot {
    std::uint64_t key = k_free;
    Merge merge;
  };
  [[nodiscard]] static constexpr std::uint64_t key_of(std::int32_t left, std::int32_t right) noexcept {
    return std::uint64_t{static_cast<std::uint32_t>(left)} << 32 | static_cast<std::uint32_t>(right);
  }
  List<Slot> slots_;
  std::size_t mask_ = 0;
};

// The pieces that a text begins with: a sorted list, narrowed byte by byte.
class PrefixIndex {
 public:
  // `indices` of `pieces`, which must stay where it is; empty pieces are left out. Errors: unsupported (a piece of more than 1024
  // bytes), out_of_memory.
  [[nodiscard]] Status build(const Pieces& pieces, std::span<const std::int32_t> indices) noexcept;
  [[nodiscard]] bool empty() const noexcept { return sorted_.empty(); }
  // Whether a piece begins with this byte.
  [[nodiscard]] bool begins(char byte) const noexcept {
    const auto b = static_cast<std::uint8_t>(byte);
    return first_[b] != first_[b + 1];
  }
  // Calls visit(index, bytes) for each piece that [at, end) begins with, the shortest first.
  template <class F>
  void each_prefix(const char* at, const char* end, F&& visit) const noexcept {
    if (at == end || sorted_.empty()) return;
    const auto byte = static_cast<std::uint8_t>(*at);
    const std::int32_t *low = sorted_.begin() + first_[byte], *high = sorted_.begin() + first_[byte + 1];
    const auto size = static_cast<std::size_t>(end - at);
    for (std::size_t depth = 1; low != high; ++depth) {
      const std::string_view first = piece(*low);
      if (first.size() == depth) visit(*low++, depth);
      if (depth == size) return;
      narrow(low, high, depth, static_cast<std::uint8_t>(at[depth]));
    }
  }

 private:
  [[nodiscard]] std::string_view piece(std::int32_t index) const noexcept {
    return (*pieces_)[static_cast<std::size_t>(index)];
  }
  // Keeps those of [low, high), all longer than `depth` and alike before it, that have this byte there.
  void narrow(const std::int32_t*& low, const std::int32_t*& high, std::size_t depth, std::uint8_t byte) const noexcept;

  const Pieces* pieces_ = nullptr;
  List<std::int32_t> sorted_;  // no two are the same text
  std::uint32_t first_[257] = {};
};

}  // namespace qorus::text
