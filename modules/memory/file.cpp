// Bodies of qorus.memory:file, over plain POSIX calls.
module;
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
module qorus.memory;
import qorus.std;
import :guard;

namespace qorus {
namespace {

// A descriptor that closes itself.
struct Descriptor {
  int value = -1;
  ~Descriptor() {
    if (value >= 0) ::close(value);
  }
};

int open_retrying(const char* path, int flags, mode_t mode = 0) noexcept {
  int descriptor;
  do descriptor = ::open(path, flags | O_CLOEXEC, mode);
  while (descriptor < 0 && errno == EINTR);
  return descriptor;
}

// A path as the C library wants it. Errors: invalid_argument.
Result<std::array<char, 4096>> terminated(std::string_view path, const char* op) noexcept {
  if (path.empty() || path.size() > k_max_path || path.find('\0') != path.npos) {
    return fail(Errc::invalid_argument, op, "a path has 1 to 4000 bytes, none of them zero", path);
  }
  std::array<char, 4096> copy{};
  path.copy(copy.data(), path.size());
  return copy;
}

std::array<char, 4096> folder_of(std::array<char, 4096> path) noexcept {
  char* slash = std::strrchr(path.data(), '/');
  if (!slash) return {'.'};
  slash[slash == path.data() ? 1 : 0] = 0;
  return path;
}

}  // namespace

Result<MappedFile> MappedFile::open(std::string_view path) {
  const auto name = terminated(path, "open");
  if (!name) return fail(name.error());
  Descriptor file{open_retrying(name->data(), O_RDONLY | O_NONBLOCK)};  // a pipe must not make us wait
  if (file.value < 0) return fail_system(errno, "open", "cannot read", path);
  struct stat facts{};
  if (::fstat(file.value, &facts) != 0) return fail_system(errno, "open", "cannot read", path);
  if (!S_ISREG(facts.st_mode)) return fail(Errc::io, "open", "not a regular file", path);
  MappedFile mapped;
  auto block = acquire_block();
  if (!block) return fail(block.error());
  mapped.block_ = *block;
  if (facts.st_size == 0) return mapped;
  const auto size = static_cast<std::size_t>(facts.st_size);
  void* place = ::mmap(nullptr, size, PROT_READ, MAP_PRIVATE, file.value, 0);
  if (place == MAP_FAILED) return fail_system(errno, "open", "cannot map", path);
  mapped.data_ = static_cast<const std::byte*>(place);
  mapped.size_ = size;
  if (auto watched = watch(mapped.data_, size, mapped.block_, std::exchange(file.value, -1)); !watched)
    return fail(watched.error().about(path));
  return mapped;
}

MappedFile::MappedFile(MappedFile&& other) noexcept { *this = std::move(other); }

MappedFile& MappedFile::operator=(MappedFile&& other) noexcept {
  std::swap(data_, other.data_);
  std::swap(size_, other.size_);
  std::swap(block_, other.block_);
  return *this;
}

Status MappedFile::whole(const char* op, std::string_view path) const noexcept {
  if (!data_ || mapping_is_whole(data_)) return {};
  return fail(Errc::io, op, "the file shrank, or could not be read, while it was open", path);
}

void MappedFile::let_go(std::span<const std::byte> part) noexcept {
  constexpr std::uintptr_t k_page = 4096;
  const auto begin = reinterpret_cast<std::uintptr_t>(part.data());
  const auto first = align_up(begin, k_page), last = (begin + part.size()) / k_page * k_page;
  if (first < last) ::madvise(const_cast<std::byte*>(part.data()) + (first - begin), last - first, MADV_DONTNEED);
}

MappedFile::~MappedFile() {
  if (data_) unwatch(data_);
  release_block(block_);
  if (data_) ::munmap(const_cast<std::byte*>(data_), size_);
}

Result<AtomicFile> AtomicFile::create(std::string_view path) {
  static std::atomic<unsigned> counter{0};
  const auto name = terminated(path, "save");
  if (!name) return fail(name.error());
  AtomicFile file;
  file.path_ = *name;
  struct stat facts{};
  if (::stat(name->data(), &facts) == 0 && !S_ISREG(facts.st_mode)) {
    return fail(Errc::io, "save",
                S_ISDIR(facts.st_mode) ? "is a folder" : "is a device or a pipe, not a file to replace", path);
  }
  Path temporary{};
  std::snprintf(temporary.data(), temporary.size(), "%s.tmp-%d-%u", name->data(), static_cast<int>(::getpid()),
                counter.fetch_add(1));
  file.descriptor_ = open_retrying(temporary.data(), O_WRONLY | O_CREAT | O_EXCL, 0666);
  if (file.descriptor_ < 0) return fail_system(errno, "save", "cannot create a file in this folder", path);
  file.temporary_ = temporary;
  return file;
}

AtomicFile::AtomicFile(AtomicFile&& other) noexcept
    : path_(other.path_),
      temporary_(std::exchange(other.temporary_, {})),
      descriptor_(std::exchange(other.descriptor_, -1)),
      broken_(other.broken_) {}

AtomicFile::~AtomicFile() {
  if (descriptor_ >= 0) ::close(descriptor_);
  if (temporary_[0]) ::unlink(temporary_.data());
}

Status AtomicFile::write(std::span<const std::byte> bytes) noexcept {
  while (!bytes.empty()) {
    const ssize_t done = ::write(descriptor_, bytes.data(), bytes.size());
    if (done < 0 && errno == EINTR) continue;
    if (done <= 0) {
      broken_ = true;
      if (done < 0) return fail_system(errno, "save", "cannot write", path_.data());
      return fail(Errc::io, "save", "the system wrote nothing", path_.data());
    }
    bytes = bytes.subspan(static_cast<std::size_t>(done));
  }
  return {};
}

Status AtomicFile::write(std::string_view text) noexcept {
  return write(std::as_bytes(std::span(text.data(), text.size())));
}

Status AtomicFile::commit() noexcept {
  if (broken_) return fail(Errc::io, "save", "not put in place: a write failed before", path_.data());
  if (descriptor_ < 0) return fail(Errc::invalid_argument, "save", "already in place", path_.data());
  if (::fsync(descriptor_) != 0) return fail_system(errno, "save", "cannot flush", path_.data());
  if (::close(std::exchange(descriptor_, -1)) != 0) return fail_system(errno, "save", "cannot close", path_.data());
  if (::rename(temporary_.data(), path_.data()) != 0) return fail_system(errno, "save", "cannot rename", path_.data());
  temporary_ = {};
  const Descriptor folder{open_retrying(folder_of(path_).data(), O_RDONLY | O_DIRECTORY)};
  if (folder.value < 0 || ::fsync(folder.value) != 0)
    return fail_system(errno, "save", "cannot flush the folder", path_.data());
  return {};
}

}  // namespace qorus
