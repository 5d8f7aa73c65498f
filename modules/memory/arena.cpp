// Bodies of qorus.memory:arena.
module;
#include <sys/mman.h>

#include <cstdint>
#if defined(__has_feature)
#if __has_feature(address_sanitizer)
#include <sanitizer/asan_interface.h>
#define QORUS_ASAN 1
#endif
#endif
module qorus.memory;
import qorus.std;

namespace qorus {
namespace {

// Under the address sanitizer, memory that is not handed out may not be touched. Only an arena's first part is watched: the
// sanitizer writes a byte for every eight, and an arena for planning has terabytes of addresses.
#ifdef QORUS_ASAN
constexpr std::size_t k_watched = 16_MiB;
std::size_t watched(const std::byte* arena, const std::byte* data, std::size_t bytes) noexcept {
  const auto at = static_cast<std::size_t>(data - arena);
  return at < k_watched ? std::min(bytes, k_watched - at) : 0;
}
#endif
void open_range([[maybe_unused]] const std::byte* arena, [[maybe_unused]] std::byte* data,
                [[maybe_unused]] std::size_t bytes) noexcept {
#ifdef QORUS_ASAN
  ASAN_UNPOISON_MEMORY_REGION(data, watched(arena, data, bytes));
#endif
}
void close_range([[maybe_unused]] const std::byte* arena, [[maybe_unused]] std::byte* data,
                 [[maybe_unused]] std::size_t bytes) noexcept {
#ifdef QORUS_ASAN
  ASAN_POISON_MEMORY_REGION(data, watched(arena, data, bytes));
#endif
}

}  // namespace

Result<Arena> Arena::create(std::size_t bytes) noexcept {
  auto size = Checked(bytes ? bytes : 1).aligned(4096).get("Arena");
  if (!size) return fail(size.error());
  Arena arena;
  const auto acquire = [](Block*& block) -> Status {
    auto taken = acquire_block();
    if (!taken) return fail(taken.error());
    block = *taken;
    return {};
  };
  for (Block** block : {&arena.far_block_, &arena.transient_block_}) {
    if (auto taken = acquire(*block); !taken) return fail(taken.error());
  }
  for (Block*& block : arena.blocks_) {
    if (auto taken = acquire(block); !taken) return fail(taken.error());
  }
  void* place = mmap(nullptr, *size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (place == MAP_FAILED) return fail(Errc::out_of_memory, "Arena", "the system has no address space of this size");
  arena.data_ = static_cast<std::byte*>(place);
  arena.size_ = arena.counters_.capacity = *size;
  close_range(arena.data_, arena.data_, arena.size_);
  return arena;
}

Arena::Arena(Arena&& other) noexcept { *this = std::move(other); }

Arena& Arena::operator=(Arena&& other) noexcept {
  std::swap(data_, other.data_);
  std::swap(size_, other.size_);
  std::swap(used_, other.used_);
  std::swap(far_, other.far_);
  std::swap(far_block_, other.far_block_);
  std::swap(transient_block_, other.transient_block_);
  std::swap(depth_, other.depth_);
  std::swap(blocks_, other.blocks_);
  std::swap(counters_, other.counters_);
  return *this;
}

Arena::~Arena() {
  for (Block* block : blocks_) release_block(block);
  release_block(far_block_);
  release_block(transient_block_);
  if (data_) {
    open_range(data_, data_, size_);
    munmap(data_, size_);
  }
}

Status Arena::grow(std::size_t& end, std::size_t bytes) noexcept {
  const std::uint64_t more = Checked(bytes).aligned(k_alignment).value_or(UINT64_MAX);
  if (more > size_ - used_ - far_)
    return fail(Errc::out_of_memory, "Arena", "the workspace's scratch is too small for this step");
  end += static_cast<std::size_t>(more);
  counters_.in_use = used_ + far_;
  counters_.high_water = std::max(counters_.high_water, counters_.in_use);
  ++counters_.takes;
  return {};
}

Result<Slice> Arena::take(std::size_t bytes) noexcept {
  std::byte* const start = data_ + used_;
  if (auto room = grow(used_, bytes); !room) return fail(room.error());
  open_range(data_, start, bytes);
  return Slice{start, bytes, lifetime_of(blocks_[std::min(depth_, k_max_depth - 1)])};
}

Result<Slice> Arena::take_far(std::size_t bytes, bool transient) noexcept {
  if (auto room = grow(far_, bytes); !room) return fail(room.error());
  std::byte* const start = data_ + (size_ - far_);
  open_range(data_, start, bytes);
  return Slice{start, bytes, lifetime_of(transient ? transient_block_ : far_block_)};
}

void Arena::prefer_huge_pages(bool huge) noexcept {
  madvise(data_, size_, huge ? MADV_HUGEPAGE : MADV_NOHUGEPAGE);  // a hint: a system that refuses it is no failure
}

void Arena::reset() noexcept {
  shrink_to(0);
  shrink_far_to(0);
  for (Block* block : blocks_) {
    if (block) block->generation.fetch_add(1, std::memory_order_acq_rel);
  }
  ++counters_.rewinds;
}

void Arena::shrink_to(std::size_t mark) noexcept {
  if (mark >= used_) return;
  close_range(data_, data_ + mark, used_ - mark);
  used_ = mark;
  counters_.in_use = used_ + far_;
}

void Arena::shrink_far_to(std::size_t mark) noexcept {
  if (mark >= far_) return;
  close_range(data_, data_ + (size_ - far_), far_ - mark);
  far_ = mark;
  counters_.in_use = used_ + far_;
  if (far_ == 0) far_block_->generation.fetch_add(1, std::memory_order_acq_rel);
}

void Arena::end_transients(std::size_t mark) noexcept {
  shrink_far_to(mark);
  transient_block_->generation.fetch_add(1, std::memory_order_acq_rel);
}

Frame::Frame(Arena& arena) noexcept : arena_(&arena), mark_(arena.mark()), far_mark_(arena.far_mark()) {
  ++arena.depth_;
}

Frame::~Frame() {
  Block* block = arena_->blocks_[std::min(arena_->depth_, Arena::k_max_depth - 1)];
  if (block) block->generation.fetch_add(1, std::memory_order_acq_rel);
  arena_->shrink_to(mark_);
  arena_->shrink_far_to(far_mark_);
  --arena_->depth_;
  ++arena_->counters_.rewinds;
}

}  // namespace qorus
