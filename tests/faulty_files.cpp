// The system calls behind files, with a fault put in on demand.
#include "tests/faulty_files.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
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
constinit std::atomic<bool> g_all{false};
constinit std::atomic<std::uint64_t> g_looks{k_never};

// The error that this call is to fail with; 0: none. `always`: a call that writing means, too.
[[maybe_unused]] int fault(bool always) noexcept {
  if (g_left.load() == k_never || !(always || g_all.load())) return 0;
  return g_left.fetch_sub(1) == 0 ? g_error.load() : 0;
}
// Calls that the kernel begins again after an interrupt fail by one only where all calls fail in every way.
[[maybe_unused]] int restarted(int error) noexcept { return error == EINTR && !g_all.load() ? 0 : error; }

}  // namespace

namespace qorus_test {

FailingFiles::FailingFiles(std::uint64_t call, int error, Calls calls) noexcept {
  g_error = error;
  g_all = calls == Calls::all;
  g_left = call;
}
FailingFiles::~FailingFiles() { g_left = k_never; }
ShorterFile::ShorterFile(std::uint64_t look) noexcept { g_looks = look; }
ShorterFile::~ShorterFile() { g_looks = k_never; }
bool ShorterFile::reached() const noexcept { return g_looks.load() > k_never / 2; }

// Counted past zero, and so wrapped around.
bool FailingFiles::reached() const noexcept { return g_left.load() > k_never / 2; }

}  // namespace qorus_test

#ifndef QORUS_TEST_SANITIZED
extern "C" {
ssize_t write(int file, const void* bytes, size_t count) {
  const int error = fault(true);
  if (error > 0) return errno = error, -1;
  if (error == qorus_test::k_nothing_written) return 0;
  if (error == qorus_test::k_short_write && count > 1) count /= 2;
  return ::syscall(SYS_write, file, bytes, count);
}
ssize_t read(int file, void* bytes, size_t count) {
  const int error = fault(false);
  if (error > 0) return errno = error, -1;
  if (error == qorus_test::k_short_write && count > 1) count /= 2;
  return ::syscall(SYS_read, file, bytes, count);
}
int fsync(int file) {
  const int error = restarted(fault(true));
  if (error > 0) return errno = error, -1;
  return static_cast<int>(::syscall(SYS_fsync, file));
}
int close(int file) {
  const int error = fault(false), done = static_cast<int>(::syscall(SYS_close, file));
  if (error > 0) return errno = error, -1;  // closed all the same, as Linux does it
  return done;
}
int rename(const char* from, const char* to) {
  const int error = restarted(fault(true));
  if (error > 0) return errno = error, -1;
  return static_cast<int>(::syscall(SYS_renameat2, AT_FDCWD, from, AT_FDCWD, to, 0));
}
int fstat(int file, struct stat* facts) {
  const int error = fault(false);
  if (error > 0) return errno = error, -1;
  const int done = static_cast<int>(::syscall(SYS_fstat, file, facts));
  if (g_looks.load() != k_never && g_looks.fetch_sub(1) == 0 && facts->st_size > 0) --facts->st_size;
  return done;
}
int stat(const char* path, struct stat* facts) {
  const int error = fault(false);
  if (error > 0) return errno = error, -1;
  return static_cast<int>(::syscall(SYS_newfstatat, AT_FDCWD, path, facts, 0));
}
int mkdir(const char* path, mode_t mode) {
  const int error = fault(false);
  if (error > 0) return errno = error, -1;
  return static_cast<int>(::syscall(SYS_mkdirat, AT_FDCWD, path, mode));
}
void* mmap(void* place, size_t size, int protection, int flags, int file, off_t offset) {
  const int error = flags & MAP_FIXED ? 0 : fault(false);
  if (error > 0) return errno = error, MAP_FAILED;
  return reinterpret_cast<void*>(::syscall(SYS_mmap, place, size, protection, flags, file, offset));
}
int open(const char* path, int flags, ...) {
  mode_t mode = 0;
  if (flags & O_CREAT) {
    va_list rest;
    va_start(rest, flags);
    mode = va_arg(rest, mode_t);
    va_end(rest);
  }
  const int error = fault((flags & O_CREAT) != 0);
  if (error > 0) return errno = error, -1;
  return static_cast<int>(::syscall(SYS_openat, AT_FDCWD, path, flags, mode));
}
}
#endif
