// Bodies of qorus.formats:npz.
module;
#include <zlib.h>

#include <cstdint>
module qorus.formats;
import qorus.std;

namespace qorus::formats {
namespace {

constexpr const char* k_op = "npz";
constexpr std::string_view k_ending = ".npy";
constexpr std::uint32_t k_local = 0x04034b50, k_central = 0x02014b50, k_end = 0x06054b50, k_end64 = 0x06064b50,
                        k_locator = 0x07064b50;
constexpr std::size_t k_local_bytes = 30, k_end64_bytes = 56;
constexpr std::uint16_t k_extra64 = 1;

// Records put together byte by byte.
class Record {
 public:
  template <class T>
  Record& operator<<(T value) noexcept {
    std::memcpy(bytes_.data() + size_, &value, sizeof value);
    size_ += sizeof value;
    return *this;
  }
  [[nodiscard]] std::span<const std::byte> bytes() const noexcept { return {bytes_.data(), size_}; }

 private:
  std::array<std::byte, 128> bytes_{};
  std::size_t size_ = 0;
};

constexpr std::uint16_t k_wide_version = 45, k_late_sum = 8;  // the checksum stands in the directory only
constexpr std::uint16_t u16(std::size_t value) noexcept { return static_cast<std::uint16_t>(value); }
constexpr std::uint32_t k_all_ones = UINT32_MAX;

}  // namespace

Result<NpzWriter> NpzWriter::create(std::string_view path) noexcept {
  auto file = AtomicFile::create(path);
  if (!file) return fail(file.error());
  return NpzWriter(std::move(*file));
}

Status NpzWriter::put(std::span<const std::byte> bytes) noexcept {
  offset_ += bytes.size();
  return file_.write(bytes);
}

Status NpzWriter::begin(std::string_view name, DType dtype, const Shape& shape) noexcept {
  const auto refuse = [&](const char* text) { return fail(Errc::invalid_argument, k_op, text, name); };
  if (left_ != 0) return refuse("the array before is not complete");
  if (name.empty() || name.size() > 4096) return refuse("a name has 1 to 4096 bytes");
  const bool there = std::any_of(entries_.begin(), entries_.end(), [&](const Entry& entry) {
    return entry.letters == name.size() + k_ending.size() && name_of(entry).starts_with(name);
  });
  if (there) return refuse("a name stands twice");
  const Text header = io::npy_header(dtype, shape);
  if (header.size == 0) return fail(Errc::invalid_dtype, k_op, "npy has no such element type", name);
  Entry entry{.name = names_.size(), .letters = name.size() + k_ending.size(), .offset = offset_};
  entry.bytes = header.size + row_bytes(dtype, shape.numel());
  if (auto kept = names_.append(std::span(name.data(), name.size())); !kept) return kept;
  if (auto kept = names_.append(std::span(k_ending.data(), k_ending.size())); !kept) return kept;
  if (auto kept = entries_.push(entry); !kept) return kept;
  // Sizes always of 64 bits. The extra field's end is where the array's header begins: a multiple of 64 for arrays that are mapped.
  constexpr std::size_t k_field = 20;
  const std::size_t before = static_cast<std::size_t>(offset_) + k_local_bytes + entry.letters + k_field + 4;
  const std::size_t filling = align_up(before) - before;
  Record local;
  local << k_local << k_wide_version << k_late_sum << u16(0) << u16(0) << u16(33) << std::uint32_t{0} << k_all_ones
        << k_all_ones << u16(entry.letters) << u16(k_field + 4 + filling);
  if (auto done = put(local.bytes()); !done) return done;
  if (auto done = put(std::as_bytes(std::span(names_.data() + entry.name, entry.letters))); !done) return done;
  Record field;
  field << k_extra64 << u16(16) << entry.bytes << entry.bytes << u16(0x4b51)
        << u16(filling);  // the second: ours, zeros
  for (std::size_t i = 0; i < filling; ++i) field << std::uint8_t{0};
  if (auto done = put(field.bytes()); !done) return done;
  left_ = entry.bytes;
  return write(std::as_bytes(std::span(header.bytes.data(), header.size)));
}

Status NpzWriter::write(std::span<const std::byte> bytes) noexcept {
  if (bytes.size() > left_) return fail(Errc::invalid_argument, k_op, "more bytes than the array has");
  if (bytes.empty()) return {};
  Entry& entry = entries_.back();
  entry.sum =
      static_cast<std::uint32_t>(::crc32_z(entry.sum, reinterpret_cast<const Bytef*>(bytes.data()), bytes.size()));
  left_ -= bytes.size();
  return put(bytes);
}

Status NpzWriter::commit() noexcept {
  if (left_ != 0) return fail(Errc::invalid_argument, k_op, "an array is not complete");
  const std::uint64_t directory = offset_, count = entries_.size();
  for (const Entry& entry : entries_) {
    Record central;
    central << k_central << k_wide_version << k_wide_version << k_late_sum << u16(0) << u16(0) << u16(33) << entry.sum
            << k_all_ones << k_all_ones << u16(entry.letters) << u16(28) << u16(0) << u16(0) << u16(0)
            << std::uint32_t{0} << k_all_ones;
    if (auto done = put(central.bytes()); !done) return done;
    if (auto done = put(std::as_bytes(std::span(names_.data() + entry.name, entry.letters))); !done) return done;
    Record field;
    field << k_extra64 << u16(24) << entry.bytes << entry.bytes << entry.offset;
    if (auto done = put(field.bytes()); !done) return done;
  }
  const std::uint64_t end = offset_;
  const bool wide = count >= UINT16_MAX || end >= UINT32_MAX;
  Record last;
  if (wide) {
    last << k_end64 << std::uint64_t{k_end64_bytes - 12} << k_wide_version << k_wide_version << std::uint32_t{0}
         << std::uint32_t{0} << count << count << (end - directory) << directory;
    last << k_locator << std::uint32_t{0} << end << std::uint32_t{1};
  }
  const std::uint16_t few = wide ? UINT16_MAX : u16(count);
  last << k_end << u16(0) << u16(0) << few << few << (wide ? k_all_ones : static_cast<std::uint32_t>(end - directory))
       << (wide ? k_all_ones : static_cast<std::uint32_t>(directory)) << u16(0);
  if (auto done = put(last.bytes()); !done) return done;
  return file_.commit();
}

}  // namespace qorus::formats
