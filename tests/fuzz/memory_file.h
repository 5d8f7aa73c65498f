// A file that exists in memory only and has a path, for readers that take paths. One and the same for all inputs, one after the other.
#pragma once
#include <sys/mman.h>
#include <unistd.h>

#include <cstddef>
#include <cstdint>
#include <string>

class MemoryFile {
 public:
  MemoryFile(const std::uint8_t* data, std::size_t size) {
    good_ = ::ftruncate(descriptor(), static_cast<off_t>(size)) == 0 &&
            ::pwrite(descriptor(), data, size, 0) == static_cast<ssize_t>(size);
  }
  [[nodiscard]] bool good() const { return good_; }
  [[nodiscard]] static std::string path() { return "/proc/self/fd/" + std::to_string(descriptor()); }

 private:
  static int descriptor() {
    static const int kept = ::memfd_create("fuzz", MFD_CLOEXEC);
    return kept;
  }
  bool good_ = false;
};
