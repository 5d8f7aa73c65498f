// Any bytes as a .qorus file: an error, or one whose tensors can be looked up and read. The first byte is not the file's: if it is odd, the
// checksums are put right, so that what lies behind them is met as well.
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <vector>

#include "tests/fuzz/memory_file.h"

import qorus.formats;

using namespace qorus;

namespace {

// Sums where modules/formats/FORMAT.md has them, as far as the file's parts lie inside it.
class Sums {
 public:
  explicit Sums(std::vector<std::uint8_t>& bytes) : bytes_(bytes) {}
  void put_right() {
    if (bytes_.size() < 128 + 16) return;
    const std::uint64_t end = bytes_.size() - 16, table = get<std::uint64_t>(48), names = get<std::uint64_t>(56),
                        sums = get<std::uint64_t>(80);
    const std::uint64_t lines = std::uint64_t{get<std::uint32_t>(12)} + get<std::uint32_t>(16);
    put<std::uint64_t>(24, bytes_.size());
    for (std::uint64_t i = 0; i < lines && i < 64; ++i) {
      const std::uint64_t line = table + i * 64, sum = sums + i * 4;
      if (inside(line, 64) && inside(sum, 4))
        put(sum, sum_of(get<std::uint64_t>(line + 48), get<std::uint64_t>(line + 56)));
    }
    put(104, sum_of(get<std::uint64_t>(32), get<std::uint64_t>(40)));
    put(108, sum_of(table, names + get<std::uint64_t>(64) - table));
    put(124, sum_of(0, 124));
    std::memcpy(bytes_.data() + end, "QORUSEND", 8);
    put(end + 8, sum_of(sums, end - sums));
    put(end + 12, get<std::uint32_t>(124));
  }

 private:
  [[nodiscard]] bool inside(std::uint64_t at, std::uint64_t size) const {
    return at <= bytes_.size() && size <= bytes_.size() - at;
  }
  template <class T>
  [[nodiscard]] T get(std::uint64_t at) const {
    T value;
    std::memcpy(&value, bytes_.data() + at, sizeof value);
    return value;
  }
  template <class T>
  void put(std::uint64_t at, T value) {
    std::memcpy(bytes_.data() + at, &value, sizeof value);
  }
  [[nodiscard]] std::uint32_t sum_of(std::uint64_t at, std::uint64_t size) const {
    if (!inside(at, size)) return 0;
    return io::crc32(std::as_bytes(std::span(bytes_)).subspan(at, size));
  }
  std::vector<std::uint8_t>& bytes_;
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size == 0) return 0;
  std::vector<std::uint8_t> bytes(data + 1, data + size);
  if (data[0] % 2 == 1) Sums(bytes).put_right();
  const MemoryFile file(bytes.data(), bytes.size());
  if (!file.good()) return 0;
  const auto read = formats::read_native(file.path());
  (void)formats::verify_native(file.path());
  if (!read) return 0;
  unsigned sum = 0;
  for (const auto& line : read->gguf.entries()) {
    if (read->gguf.find(line.name) != &line) __builtin_trap();
    if (const auto view = read->gguf.tensor(line.name)) {
      for (std::size_t i = 0; i < line.bytes; ++i) sum += static_cast<unsigned>(view->data()[i]);
    }
  }
  for (const formats::LaidOut& one : read->laid_out) {
    if (read->find_laid_out(one.name) != &one) __builtin_trap();
    for (std::size_t i = 0; i < one.bytes.numel(); ++i) sum += static_cast<unsigned>(one.bytes.data()[i]);
  }
  if (sum == 1u << 31) __builtin_trap();  // so that the bytes are read
  return 0;
}
