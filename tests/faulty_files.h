// Makes the system calls with which files are written fail: open (for writing), write, fsync, rename. Linked in by CMake for programs that
// include this; not with sanitizers, which bring calls of their own.
#pragma once
#include <cstdint>

#ifdef QORUS_TEST_SANITIZED
#define QORUS_NEEDS_FAULTY_FILES() GTEST_SKIP() << "a sanitizer has its own system calls"
#else
#define QORUS_NEEDS_FAULTY_FILES() static_cast<void>(0)
#endif

namespace qorus_test {

constexpr int k_short_write = -1;  // write takes half of what it was given; the other calls succeed

// While it lives, the call-th of these calls (from 0) of this process fails with the error, once.
class FailingFiles {
 public:
  FailingFiles(std::uint64_t call, int error) noexcept;
  ~FailingFiles();
  FailingFiles(const FailingFiles&) = delete;
  FailingFiles& operator=(const FailingFiles&) = delete;
  [[nodiscard]] bool reached() const noexcept;
};

}  // namespace qorus_test
