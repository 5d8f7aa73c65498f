// What the loggers write with: a line of text built on the stack, and a file that is written whole or says why not.
module;
#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
module qorus.train:output;
import qorus.std;
import qorus.memory;

namespace qorus::train {

// Bytes of a fixed number at most; what does not fit is dropped, and full() tells.
template <std::size_t N>
class Buffer {
 public:
  Buffer& operator<<(std::string_view text) noexcept {
    if (size_ + text.size() > N) {
      full_ = true;
    } else {
      std::memcpy(bytes_.data() + size_, text.data(), text.size());
      size_ += text.size();
    }
    return *this;
  }
  Buffer& operator<<(std::uint64_t number) noexcept {
    char digits[24];
    const auto end = std::to_chars(digits, digits + sizeof digits, number).ptr;
    return *this << std::string_view(digits, static_cast<std::size_t>(end - digits));
  }
  // The shortest text that reads back as the same number; nothing for what is not finite.
  Buffer& operator<<(double number) noexcept {
    if (!std::isfinite(number)) return *this;
    char digits[32];
    const auto end = std::to_chars(digits, digits + sizeof digits, number).ptr;
    return *this << std::string_view(digits, static_cast<std::size_t>(end - digits));
  }
  template <class T>
  Buffer& raw(const T& value) noexcept {
    return *this << std::string_view(reinterpret_cast<const char*>(&value), sizeof value);
  }
  [[nodiscard]] std::string_view view() const noexcept { return {bytes_.data(), size_}; }
  [[nodiscard]] bool full() const noexcept { return full_; }
  void clear() noexcept { size_ = 0; }

 private:
  std::array<char, N> bytes_;
  std::size_t size_ = 0;
  bool full_ = false;
};

// Opens a file to be written from its begin. Errors: io, not_found, invalid_argument.
[[nodiscard]] inline Result<int> open_output(std::string_view path) noexcept {
  std::array<char, 4096> name{};
  if (path.empty() || path.size() >= name.size())
    return fail(Errc::invalid_argument, "log", "a path of 1 to 4095 bytes", path);
  std::memcpy(name.data(), path.data(), path.size());
  int file;
  do file = ::open(name.data(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
  while (file < 0 && errno == EINTR);
  if (file < 0) return fail_system(errno, "log", "cannot write", path);
  return file;
}
[[nodiscard]] inline Status write_output(int file, std::string_view text, std::string_view path) noexcept {
  while (!text.empty()) {
    const ssize_t done = ::write(file, text.data(), text.size());
    if (done < 0 && errno == EINTR) continue;
    if (done <= 0) return fail_system(done < 0 ? errno : EIO, "log", "cannot write", path);
    text.remove_prefix(static_cast<std::size_t>(done));
  }
  return {};
}
inline void close_output(int& file) noexcept {
  if (file >= 0) ::close(file);
  file = -1;
}

}  // namespace qorus::train
