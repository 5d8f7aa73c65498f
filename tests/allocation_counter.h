// Counts the heap allocations of the whole process (malloc and all that ends there, operator new too) and their bytes, and makes them fail.
// For tests that prove "no allocation here" and "out of memory is an error value". A sanitizer brings its own malloc: there,
// k_counts_allocations is false and such tests skip.
#pragma once
#include <cstddef>
#include <cstdint>

namespace qorus_test {

#if defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer) || __has_feature(memory_sanitizer)
#define QORUS_TEST_SANITIZED 1
#endif
#endif
#ifdef QORUS_TEST_SANITIZED
inline constexpr bool k_counts_allocations = false;
#else
inline constexpr bool k_counts_allocations = true;
#endif

// Allocations since the process began, by any thread.
std::uint64_t allocations() noexcept;

// Bytes that the heap has given to the process; and at most at once, above what it had given when this was made.
[[nodiscard]] std::size_t heap_in_use() noexcept;
class HeapPeak {
 public:
  HeapPeak() noexcept;
  [[nodiscard]] std::size_t bytes() const noexcept;

 private:
  std::size_t before_;
};

// While it lives, this thread's allocations number `first`, `first + 1`, … (counted from 0) give null. Assert nothing meanwhile.
class FailingAllocations {
 public:
  explicit FailingAllocations(std::uint64_t first = 0, std::uint64_t count = UINT64_MAX) noexcept;  // so many of them
  ~FailingAllocations();
  FailingAllocations(const FailingAllocations&) = delete;
  FailingAllocations& operator=(const FailingAllocations&) = delete;
  [[nodiscard]] bool reached() const noexcept;  // whether one has failed
};

// What f() allocates, in calls.
template <class F>
std::uint64_t allocations_of(F&& f) {
  const std::uint64_t before = allocations();
  f();
  return allocations() - before;
}

}  // namespace qorus_test
