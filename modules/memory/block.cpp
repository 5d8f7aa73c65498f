// The pool of immortal blocks, and slabs on top of it.
module;
#include <sched.h>
#include <stdlib.h>
#include <unistd.h>

#include <sys/mman.h>

#include <cstdint>

module qorus.memory;
import qorus.std;
import :guard;

namespace qorus {
namespace {

constexpr std::size_t k_blocks_per_chunk = 64;

// Constant-initialised and trivially destroyed, so that statics of the host may use it at any time.
constinit std::atomic_flag g_locked;
constinit Block* g_free = nullptr;

// Held for a few instructions only, so waiting is yielding (the atomic's own wait() may throw).
class PoolLock {
 public:
  PoolLock() noexcept {
    while (g_locked.test_and_set(std::memory_order_acquire)) ::sched_yield();
  }
  ~PoolLock() { g_locked.clear(std::memory_order_release); }
  PoolLock(const PoolLock&) = delete;
  PoolLock& operator=(const PoolLock&) = delete;
};

}  // namespace

Result<Block*> acquire_block() noexcept {
  const PoolLock lock;
  if (!g_free) {
    auto* chunk = new (std::nothrow) Block[k_blocks_per_chunk];
    if (!chunk) return fail(Errc::out_of_memory, "acquire_block", "no memory for lifetime records");
    for (std::size_t i = 0; i < k_blocks_per_chunk; ++i) chunk[i].next_free = i ? &chunk[i - 1] : nullptr;
    g_free = &chunk[k_blocks_per_chunk - 1];
  }
  return std::exchange(g_free, g_free->next_free);
}

void release_block(Block* block) noexcept {
  if (!block) return;
  block->generation.fetch_add(1, std::memory_order_acq_rel);
  block->generation.fetch_and(~k_torn, std::memory_order_acq_rel);
  block->base = nullptr;
  block->leaves = nullptr;
  block->floats = block->leaf_count = 0;
  const PoolLock lock;
  block->next_free = std::exchange(g_free, block);
}

Result<Slab> Slab::create(std::size_t bytes) noexcept {
  const Checked wanted = Checked(bytes ? bytes : 1).aligned(k_alignment);
  auto size = wanted.get("Slab");
  if (!size) return fail(size.error());
  auto block = acquire_block();
  if (!block) return fail(block.error());
  Slab slab;
  slab.block_ = *block;
  constexpr std::size_t k_huge = 2_MiB;
  const bool huge = *size >= 2 * k_huge;
  const std::size_t alignment = huge ? k_huge : k_alignment;
  auto room = (Checked(*size) + Checked(alignment)).get("Slab");
  if (!room) return fail(room.error());
  slab.taken_ = ::calloc(*room, 1);  // a large piece is fresh pages of the system, zero and untouched
  if (!slab.taken_) return fail(Errc::out_of_memory, "Slab", "the system has no more memory");
  const auto start = reinterpret_cast<std::uintptr_t>(slab.taken_);
  slab.data_ = static_cast<std::byte*>(slab.taken_) + (align_up(start, alignment) - start);
  if (huge) ::madvise(slab.data_, *size, MADV_HUGEPAGE);  // a hint: a system that refuses it is no failure
  slab.size_ = bytes;
  return slab;
}

void Slab::discard(std::size_t begin, std::size_t end) noexcept {
  const auto page = static_cast<std::size_t>(::sysconf(_SC_PAGESIZE));
  const auto start = reinterpret_cast<std::uintptr_t>(data_);
  const std::uintptr_t first = align_up(start + begin, page), last = (start + end) / page * page;
  if (first < last) ::madvise(data_ + (first - start), last - first, MADV_DONTNEED);  // where it fails, memory is kept
}

Slab::Slab(Slab&& other) noexcept
    : taken_(std::exchange(other.taken_, nullptr)),
      data_(std::exchange(other.data_, nullptr)),
      size_(std::exchange(other.size_, 0)),
      block_(std::exchange(other.block_, nullptr)) {}

Slab& Slab::operator=(Slab&& other) noexcept {
  std::swap(taken_, other.taken_);
  std::swap(data_, other.data_);
  std::swap(size_, other.size_);
  std::swap(block_, other.block_);
  return *this;
}

Slab::~Slab() {
  release_block(block_);
  std::free(taken_);
}

}  // namespace qorus
