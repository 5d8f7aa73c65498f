// Bodies of qorus.text:pieces.
module;
#include <cstdint>
module qorus.text;
import qorus.std;
import qorus.trust;
import :pieces;

namespace qorus::text {
namespace {

constexpr std::size_t k_longest_chain = 4096;  // honest tables, half full, have chains of some dozens
constexpr std::size_t k_longest_indexed = 1024;

// A power of two, so that `count` entries fill at most half of it.
Result<std::size_t> slots_for(std::size_t count) noexcept {
  if (count > (std::size_t{1} << 30)) return fail(Errc::overflow, "tokenizer", "more pieces than a table can have");
  return std::bit_ceil(std::max<std::size_t>(count * 2, 16));
}

tl::unexpected<Error> collides() noexcept {
  return fail(Errc::unsupported, "tokenizer", "a vocabulary whose entries collide in a hash table");
}

}  // namespace

Status Pieces::reserve(std::size_t count, std::size_t bytes) noexcept {
  auto room = bytes_.reserve(bytes);
  return room ? ends_.reserve(count) : room;
}

Status Pieces::add(std::string_view piece) noexcept {
  if (bytes_.size() + piece.size() > UINT32_MAX)
    return fail(Errc::overflow, "tokenizer", "a vocabulary of more than 4 GiB");
  if (auto ok = bytes_.append(std::span(piece.data(), piece.size())); !ok) return ok;
  return ends_.push(static_cast<std::uint32_t>(bytes_.size()));
}

Status PieceTable::reserve(std::size_t count) noexcept {
  const auto slots = slots_for(count);
  if (!slots) return fail(slots.error());
  mask_ = *slots - 1;
  return slots_.resize(*slots);
}

Result<std::int32_t> PieceTable::add(const Pieces& pieces, std::int32_t index) noexcept {
  const std::string_view text = pieces[static_cast<std::size_t>(index)];
  const std::uint64_t sum = hash(text);
  const auto tag = static_cast<std::uint32_t>(sum >> 32);
  for (std::size_t step = 0; step < k_longest_chain; ++step) {
    Slot& slot = slots_[(sum + step) & mask_];
    if (slot.index < 0) {
      slot = {tag, index};
      return -1;
    }
    if (slot.tag == tag && pieces[static_cast<std::size_t>(slot.index)] == text) return slot.index;
  }
  return collides();
}

Status MergeTable::reserve(std::size_t count) noexcept {
  const auto slots = slots_for(count);
  if (!slots) return fail(slots.error());
  mask_ = *slots - 1;
  return slots_.resize(*slots);
}

Status MergeTable::add(std::int32_t left, std::int32_t right, const Merge& merge) noexcept {
  const std::uint64_t key = key_of(left, right);
  for (std::size_t step = 0; step < k_longest_chain; ++step) {
    Slot& slot = slots_[(mixed(key) + step) & mask_];
    if (slot.key == key) return {};
    if (slot.key == k_free) {
      slot = {key, merge};
      return {};
    }
  }
  return collides();
}

Status PrefixIndex::build(const Pieces& pieces, std::span<const std::int32_t> indices) noexcept {
  pieces_ = &pieces;
  if (auto ok = sorted_.reserve(indices.size()); !ok) return ok;
  for (const std::int32_t index : indices) {
    const std::string_view text = piece(index);
    if (text.size() > k_longest_indexed)
      return fail(Errc::unsupported, "tokenizer", "a piece of more than 1024 bytes", text);
    if (text.empty()) continue;
    if (auto ok = sorted_.push(index); !ok) return ok;
  }
  sort_mapped(sorted_.begin(), sorted_.end(), [this](std::int32_t a, std::int32_t b) {
    const int order = piece(a).compare(piece(b));
    return order != 0 ? order < 0 : a < b;
  });
  const auto* last =
      std::unique(sorted_.begin(), sorted_.end(), [this](auto a, auto b) { return piece(a) == piece(b); });
  if (auto ok = sorted_.resize(static_cast<std::size_t>(last - sorted_.begin())); !ok) return ok;
  for (const std::int32_t index : sorted_) ++first_[static_cast<std::uint8_t>(piece(index)[0]) + 1];
  for (std::size_t byte = 0; byte < 256; ++byte) first_[byte + 1] += first_[byte];
  return {};
}

void PrefixIndex::narrow(const std::int32_t*& low, const std::int32_t*& high, std::size_t depth,
                         std::uint8_t byte) const noexcept {
  const auto at = [&](std::int32_t index) { return static_cast<std::uint8_t>(piece(index)[depth]); };
  low = std::lower_bound(low, high, byte, [&](std::int32_t index, std::uint8_t wanted) { return at(index) < wanted; });
  high = std::upper_bound(low, high, byte, [&](std::uint8_t wanted, std::int32_t index) { return wanted < at(index); });
}

}  // namespace qorus::text
