// Makes the system calls with which files are read and written fail: open, fstat, stat, mmap, mkdir, read, write, fsync, close, rename. Linked in by
// CMake for programs that include this; not with sanitizers, which bring calls of their own.
#pragma once
#include <cstdint>

#ifdef QORUS_TEST_SANITIZED
#define QORUS_NEEDS_FAULTY_FILES() GTEST_SKIP() << "a sanitizer has its own system calls"
#else
#define QORUS_NEEDS_FAULTY_FILES() static_cast<void>(0)
#endif

namespace qorus_test {

constexpr int k_short_write = -1;  // write takes half of what it was given; the other calls succeed

constexpr int k_nothing_written = -2;  // write says so; the other calls succeed

enum class Calls {
  writing,  // open of new files, write, fsync, rename; an interrupt meets only those that begin again
  all,      // every call of the above, and in every way
};

// While it lives, the call-th of these calls (from 0) of this process fails with the error, once.
class FailingFiles {
 public:
  FailingFiles(std::uint64_t call, int error, Calls calls = Calls::writing) noexcept;
  ~FailingFiles();
  FailingFiles(const FailingFiles&) = delete;
  FailingFiles& operator=(const FailingFiles&) = delete;
  [[nodiscard]] bool reached() const noexcept;
};

// While it lives, the look-th time (from 0) that this process asks how long an open file is, it is told one byte less, once.
class ShorterFile {
 public:
  explicit ShorterFile(std::uint64_t look) noexcept;
  ~ShorterFile();
  ShorterFile(const ShorterFile&) = delete;
  ShorterFile& operator=(const ShorterFile&) = delete;
  [[nodiscard]] bool reached() const noexcept;
};

}  // namespace qorus_test
