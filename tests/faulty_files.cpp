// The system calls behind files, with a fault put in on demand.
#include "tests/faulty_files.h"

#include <fcntl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstdarg>
#include <cstddef>
#include <cstdint>
#include <limits>

namespace {

constexpr std::uint64_t k_never = std::numeric_limits<std::uint64_t>::max();
constinit std::atomic<std::uint64_t> g_left{k_never};
constinit std::atomic<int> g_error{0};

// The error that this call is to fail with; 0: none.
[[maybe_unused]] int fault() noexcept {
  if (g_left.load() == k_never) return 0;
  return g_left.fetch_sub(1) == 0 ? g_error.load() : 0;
}

}  // namespace

namespace qorus_test {

FailingFiles::FailingFiles(std::uint64_t call, int error) noexcept {
  g_error = error;
  g_left = call;
}
FailingFiles::~FailingFiles() { g_left = k_never; }
// Counted past zero, and so wrapped around.
bool FailingFiles::reached() const noexcept { return g_left.load() > k_never / 2; }

}  // namespace qorus_test

#ifndef QORUS_TEST_SANITIZED
extern "C" {
ssize_t write(int file, const void* bytes, size_t count) {
  const int error = fault();
  if (error > 0) return errno = error, -1;
  if (error == qorus_test::k_short_write && count > 1) count /= 2;
  return ::syscall(SYS_write, file, bytes, count);
}
int fsync(int file) {
  const int error = fault();
  if (error > 0 && error != EINTR) return errno = error, -1;
  return static_cast<int>(::syscall(SYS_fsync, file));
}
int rename(const char* from, const char* to) {
  const int error = fault();
  if (error > 0 && error != EINTR) return errno = error, -1;
  return static_cast<int>(::syscall(SYS_renameat2, AT_FDCWD, from, AT_FDCWD, to, 0));
}
int open(const char* path, int flags, ...) {
  mode_t mode = 0;
  if (flags & O_CREAT) {
    va_list rest;
    va_start(rest, flags);
    mode = va_arg(rest, mode_t);
    va_end(rest);
    const int error = fault();
    if (error > 0) return errno = error, -1;
  }
  return static_cast<int>(::syscall(SYS_openat, AT_FDCWD, path, flags, mode));
}
}
#endif
