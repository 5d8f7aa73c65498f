// malloc and its relatives, counted and handed on to the C library (whose operator new comes here as well).
#include "tests/allocation_counter.h"

#include <malloc.h>

#include <atomic>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <limits>

namespace {

constinit std::atomic<std::uint64_t> g_count{0};
constexpr std::uint64_t k_never = std::numeric_limits<std::uint64_t>::max();
constinit thread_local std::uint64_t t_left = k_never;     // allocations of this thread until they fail
constinit thread_local std::uint64_t t_failing = k_never;  // how many then fail
constinit thread_local bool t_failed = false;
constinit std::atomic<std::size_t> g_live{0}, g_peak{0};  // bytes

// Counts one allocation; false if it is to fail.
[[maybe_unused]] bool admit() noexcept {
  g_count.fetch_add(1, std::memory_order_relaxed);
  if (t_left == k_never) return true;
  if (t_left == 0) {
    t_failed = true;
    if (--t_failing == 0) t_left = k_never;
    errno = ENOMEM;  // as the C library's own callers take for granted
    return false;
  }
  --t_left;
  return true;
}

[[maybe_unused]] void* given(void* place) noexcept {
  if (!place) return place;
  const std::size_t size = ::malloc_usable_size(place), live = g_live.fetch_add(size, std::memory_order_relaxed) + size;
  std::size_t peak = g_peak.load(std::memory_order_relaxed);
  while (live > peak && !g_peak.compare_exchange_weak(peak, live, std::memory_order_relaxed)) {}
  return place;
}
[[maybe_unused]] void* taken_back(void* place) noexcept {
  if (place) g_live.fetch_sub(::malloc_usable_size(place), std::memory_order_relaxed);
  return place;
}

}  // namespace

namespace qorus_test {

HeapPeak::HeapPeak() noexcept : before_(g_live.load()) { g_peak.store(before_); }
std::size_t HeapPeak::bytes() const noexcept { return g_peak.load() - before_; }

std::uint64_t allocations() noexcept { return g_count.load(std::memory_order_relaxed); }
std::size_t heap_in_use() noexcept { return g_live.load(); }
FailingAllocations::FailingAllocations(std::uint64_t first, std::uint64_t count) noexcept {
  t_left = first;
  t_failing = count;
  t_failed = false;
}
bool FailingAllocations::reached() const noexcept { return t_failed; }
FailingAllocations::~FailingAllocations() { t_left = k_never; }

}  // namespace qorus_test

#ifndef QORUS_TEST_SANITIZED
extern "C" {
void* __libc_malloc(std::size_t size);
void* __libc_calloc(std::size_t count, std::size_t size);
void* __libc_realloc(void* place, std::size_t size);
void* __libc_memalign(std::size_t alignment, std::size_t size);
void __libc_free(void* place);

void* malloc(std::size_t size) { return admit() ? given(__libc_malloc(size)) : nullptr; }
void* calloc(std::size_t count, std::size_t size) { return admit() ? given(__libc_calloc(count, size)) : nullptr; }
void* realloc(void* place, std::size_t size) {
  return admit() ? given(__libc_realloc(taken_back(place), size)) : nullptr;
}
void free(void* place) { __libc_free(taken_back(place)); }
void* memalign(std::size_t alignment, std::size_t size) {
  return admit() ? given(__libc_memalign(alignment, size)) : nullptr;
}
void* aligned_alloc(std::size_t alignment, std::size_t size) {
  return admit() ? given(__libc_memalign(alignment, size)) : nullptr;
}
int posix_memalign(void** place, std::size_t alignment, std::size_t size) {
  void* found = admit() ? given(__libc_memalign(alignment, size)) : nullptr;
  if (!found) return ENOMEM;
  *place = found;
  return 0;
}
}
#endif
