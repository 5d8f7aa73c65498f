// malloc and its relatives, counted and handed on to the C library (whose operator new comes here as well).
#include "tests/allocation_counter.h"

#include <atomic>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <limits>

namespace {

constinit std::atomic<std::uint64_t> g_count{0};
constexpr std::uint64_t k_never = std::numeric_limits<std::uint64_t>::max();
constinit thread_local std::uint64_t t_left = k_never;  // allocations of this thread until they fail

// Counts one allocation; false if it is to fail.
[[maybe_unused]] bool admit() noexcept {
  g_count.fetch_add(1, std::memory_order_relaxed);
  if (t_left == k_never) return true;
  if (t_left == 0) return false;
  --t_left;
  return true;
}

}  // namespace

namespace qorus_test {

std::uint64_t allocations() noexcept { return g_count.load(std::memory_order_relaxed); }
FailingAllocations::FailingAllocations(std::uint64_t first) noexcept { t_left = first; }
FailingAllocations::~FailingAllocations() { t_left = k_never; }

}  // namespace qorus_test

#ifndef QORUS_TEST_SANITIZED
extern "C" {
void* __libc_malloc(std::size_t size);
void* __libc_calloc(std::size_t count, std::size_t size);
void* __libc_realloc(void* place, std::size_t size);
void* __libc_memalign(std::size_t alignment, std::size_t size);

void* malloc(std::size_t size) { return admit() ? __libc_malloc(size) : nullptr; }
void* calloc(std::size_t count, std::size_t size) { return admit() ? __libc_calloc(count, size) : nullptr; }
void* realloc(void* place, std::size_t size) { return admit() ? __libc_realloc(place, size) : nullptr; }
void* memalign(std::size_t alignment, std::size_t size) { return admit() ? __libc_memalign(alignment, size) : nullptr; }
void* aligned_alloc(std::size_t alignment, std::size_t size) {
  return admit() ? __libc_memalign(alignment, size) : nullptr;
}
int posix_memalign(void** place, std::size_t alignment, std::size_t size) {
  void* found = admit() ? __libc_memalign(alignment, size) : nullptr;
  if (!found) return ENOMEM;
  *place = found;
  return 0;
}
}
#endif
