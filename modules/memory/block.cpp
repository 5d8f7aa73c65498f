// The pool of immortal blocks, and slabs on top of it.
module;
#include <sched.h>
#include <stdlib.h>

#include <sys/mman.h>

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
  void* place = nullptr;  // not aligned_alloc: that one wants a size which is a multiple of the alignment
  if (::posix_memalign(&place, huge ? k_huge : k_alignment, *size) != 0) {
    return fail(Errc::out_of_memory, "Slab", "the system has no more memory");
  }
  slab.data_ = static_cast<std::byte*>(place);
  if (huge) ::madvise(slab.data_, *size, MADV_HUGEPAGE);  // a hint: a system that refuses it is no failure
  std::memset(slab.data_, 0, *size);
  slab.size_ = bytes;
  return slab;
}

Slab::Slab(Slab&& other) noexcept
    : data_(std::exchange(other.data_, nullptr)),
      size_(std::exchange(other.size_, 0)),
      block_(std::exchange(other.block_, nullptr)) {}

Slab& Slab::operator=(Slab&& other) noexcept {
  std::swap(data_, other.data_);
  std::swap(size_, other.size_);
  std::swap(block_, other.block_);
  return *this;
}

Slab::~Slab() {
  release_block(block_);
  std::free(data_);
}

}  // namespace qorus
