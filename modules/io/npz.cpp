// Bodies of qorus.io:npy: npz. A zip file (APPNOTE.TXT of PKWARE) ends with a directory: an entry's name, place, sizes and checksum stand
// there; what precedes its bytes is only stepped over. All numbers are little-endian, as this machine has them.
module;
#include <zlib.h>

#include <cstdint>
module qorus.io;
import qorus.std;
import qorus.trust;

namespace qorus::io {
namespace {

constexpr std::uint32_t k_end = 0x06054b50, k_end64 = 0x06064b50, k_end64_place = 0x07064b50, k_central = 0x02014b50,
                        k_local = 0x04034b50;
constexpr std::size_t k_end_size = 22, k_end64_size = 56, k_end64_place_size = 20, k_central_size = 46,
                      k_local_size = 30;
constexpr std::uint64_t k_max_ratio = 1040, k_usual_ratio = 16;  // deflate packs at most 1032 to 1

template <class T>
T number(const std::byte* from) noexcept {
  T value;
  std::memcpy(&value, from, sizeof value);
  return value;
}

// Whether [begin, begin + size) lies within the bytes.
bool holds(std::span<const std::byte> bytes, std::uint64_t begin, std::uint64_t size) noexcept {
  return begin <= bytes.size() && size <= bytes.size() - begin;
}

// Where the directory lies.
struct Directory {
  std::uint64_t begin, size, entries;
};

// The last record that calls itself the end and whose comment reaches the file's end. False: there is none.
bool find_end(std::span<const std::byte> bytes, std::size_t& at) noexcept {
  if (bytes.size() < k_end_size) return false;
  const std::size_t last = bytes.size() - k_end_size, first = last - std::min<std::size_t>(last, 65535);
  for (at = last + 1; at-- > first;) {
    if (number<std::uint32_t>(&bytes[at]) == k_end && number<std::uint16_t>(&bytes[at + 20]) == last - at) return true;
  }
  return false;
}

// Replaces sizes and offset that do not fit 32 bits by those of the entry's zip64 field.
bool widen(std::span<const std::byte> extra, std::uint64_t& size, std::uint64_t& packed,
           std::uint64_t& offset) noexcept {
  while (extra.size() >= 4) {
    const auto id = number<std::uint16_t>(extra.data());
    const std::size_t length = number<std::uint16_t>(extra.data() + 2);
    if (length > extra.size() - 4) return false;
    std::span<const std::byte> field = extra.subspan(4, length);
    extra = extra.subspan(4 + length);
    if (id != 1) continue;
    for (std::uint64_t* value : {&size, &packed, &offset}) {
      if (*value != UINT32_MAX) continue;
      if (field.size() < 8) return false;
      *value = number<std::uint64_t>(field.data());
      field = field.subspan(8);
    }
  }
  return size != UINT32_MAX && packed != UINT32_MAX && offset != UINT32_MAX;
}

// Names are there once. Entries do not overlap: thousands of them over the same bytes would unpack to a file without end.
template <class Entry>
Status check_entries(const List<Entry>& entries) noexcept {
  List<std::size_t> sorted;
  if (auto room = sorted.reserve(entries.size()); !room) return room;
  for (std::size_t i = 0; i < entries.size(); ++i) {
    if (auto kept = sorted.push(i); !kept) return kept;
  }
  sort_mapped(sorted.begin(), sorted.end(),
              [&](std::size_t a, std::size_t b) { return entries[a].name < entries[b].name; });
  for (std::size_t i = 1; i < sorted.size(); ++i) {
    if (entries[sorted[i - 1]].name == entries[sorted[i]].name)
      return fail(Errc::corrupt, "npz", "a name is there twice");
  }
  sort_mapped(sorted.begin(), sorted.end(),
              [&](std::size_t a, std::size_t b) { return entries[a].offset < entries[b].offset; });
  for (std::size_t i = 1; i < sorted.size(); ++i) {
    const Entry& before = entries[sorted[i - 1]];
    const Checked end = Checked(before.offset) + k_local_size + before.packed;
    if (end.value_or(UINT64_MAX) > entries[sorted[i]].offset) return fail(Errc::corrupt, "npz", "entries overlap");
  }
  return {};
}

// Inflates a whole raw stream to `to`, or if that is null counts what comes out: Z_STREAM_END, Z_MEM_ERROR, or another of zlib's numbers if
// it is broken or not of `size` bytes.
int inflate_all(std::span<const std::byte> from, char* to, std::uint64_t size) noexcept {
  constexpr std::uint64_t k_step = std::uint64_t{1} << 30;  // zlib counts in 32 bits
  std::array<char, 32768> window{};
  z_stream stream{};
  int state = inflateInit2(&stream, -15);
  if (state != Z_OK) return state;
  std::uint64_t read = 0, written = 0;
  while (state == Z_OK) {
    const std::uint64_t in = std::min(from.size() - read, k_step),
                        out = std::min(size - written, to ? k_step : window.size());
    stream.next_in = const_cast<Bytef*>(reinterpret_cast<const Bytef*>(from.data() + read));
    stream.avail_in = static_cast<uInt>(in);
    stream.next_out = reinterpret_cast<Bytef*>(to ? to + written : window.data());
    stream.avail_out = static_cast<uInt>(out);
    state = inflate(&stream, Z_NO_FLUSH);
    read += in - stream.avail_in;
    written += out - stream.avail_out;
  }  // without progress inflate says Z_BUF_ERROR
  inflateEnd(&stream);
  return state != Z_STREAM_END || (read == from.size() && written == size) ? state : Z_DATA_ERROR;
}

std::uint32_t checksum(std::span<const std::byte> bytes) noexcept {
  return static_cast<std::uint32_t>(crc32_z(0, reinterpret_cast<const Bytef*>(bytes.data()), bytes.size()));
}

}  // namespace

tl::unexpected<Error> Npz::broken(const char* text, Errc code) const noexcept {
  if (auto there = file_.whole("npz", path_.view()); !there) return fail(there.error());
  return fail(code, "npz", text, path_.view());
}

Result<Npz> Npz::open(std::string_view path) noexcept {
  auto mapped = MappedFile::open(path);
  if (!mapped) return fail(mapped.error());
  Npz npz;
  npz.file_ = std::move(*mapped);
  npz.path_ += path;
  if (auto read = npz.read_directory(); !read) return fail(read.error());
  return npz;
}

Status Npz::read_directory() noexcept {
  const std::span<const std::byte> bytes = file_.bytes();
  std::size_t end = 0;
  if (!find_end(bytes, end)) return broken("no zip file, or cut short");
  Directory directory{number<std::uint32_t>(&bytes[end + 16]), number<std::uint32_t>(&bytes[end + 12]),
                      number<std::uint16_t>(&bytes[end + 10])};
  if (directory.entries == UINT16_MAX || directory.size == UINT32_MAX || directory.begin == UINT32_MAX) {
    if (end < k_end64_place_size || number<std::uint32_t>(&bytes[end - k_end64_place_size]) != k_end64_place)
      return broken("the directory's place is missing");
    const auto at = number<std::uint64_t>(&bytes[end - k_end64_place_size + 8]);
    if (!holds(bytes, at, k_end64_size) || number<std::uint32_t>(&bytes[at]) != k_end64)
      return broken("the directory's place is missing");
    directory = {number<std::uint64_t>(&bytes[at + 48]), number<std::uint64_t>(&bytes[at + 40]),
                 number<std::uint64_t>(&bytes[at + 32])};
  } else if (number<std::uint16_t>(&bytes[end + 4]) != 0) {
    return broken("an archive in several parts", Errc::unsupported);
  }
  if (!holds(bytes, directory.begin, directory.size)) return broken("the directory lies outside the file");
  std::span<const std::byte> rest = bytes.subspan(directory.begin, directory.size);
  for (std::uint64_t i = 0; i < directory.entries; ++i) {
    if (rest.size() < k_central_size || number<std::uint32_t>(rest.data()) != k_central)
      return broken("the directory is broken");
    const std::size_t name = number<std::uint16_t>(&rest[28]), extra = number<std::uint16_t>(&rest[30]);
    const std::size_t whole = k_central_size + name + extra + number<std::uint16_t>(&rest[32]);
    if (whole > rest.size()) return broken("the directory is broken");
    Entry entry{.name = {reinterpret_cast<const char*>(rest.data()) + k_central_size, name},
                .offset = number<std::uint32_t>(&rest[42]),
                .packed = number<std::uint32_t>(&rest[20]),
                .size = number<std::uint32_t>(&rest[24]),
                .crc = number<std::uint32_t>(&rest[16]),
                .method = number<std::uint16_t>(&rest[10]),
                .flags = number<std::uint16_t>(&rest[8])};
    if (!widen(rest.subspan(k_central_size + name, extra), entry.size, entry.packed, entry.offset))
      return broken("the directory is broken");
    if (entry.name.ends_with(".npy")) entry.name.remove_suffix(4);
    if (auto kept = entries_.push(entry); !kept) return kept;
    rest = rest.subspan(whole);
  }
  if (auto good = check_entries(entries_); !good) return broken(good.error().text, good.error().code);
  return {};
}

Result<Owned> Npz::read(std::string_view name) const noexcept {
  const Entry* const entry =
      std::find_if(entries_.begin(), entries_.end(), [&](const Entry& e) { return e.name == name; });
  if (entry == entries_.end()) return fail(Errc::not_found, "npz", "no array of this name", name);
  const std::span<const std::byte> bytes = file_.bytes();
  if (!holds(bytes, entry->offset, k_local_size) || number<std::uint32_t>(&bytes[entry->offset]) != k_local)
    return broken("an entry lies elsewhere than the directory says");
  const std::uint64_t begin = entry->offset + k_local_size + number<std::uint16_t>(&bytes[entry->offset + 26]) +
                              number<std::uint16_t>(&bytes[entry->offset + 28]);
  if (!holds(bytes, begin, entry->packed)) return broken("an entry lies outside the file");
  if (entry->flags & 1) return broken("an encrypted entry", Errc::unsupported);
  std::span<const std::byte> content = bytes.subspan(begin, entry->packed);
  List<char> unpacked;
  if (entry->method == 8) {
    if (entry->size / k_max_ratio > entry->packed) return broken("an entry of another size than it says");
    // Much out of little is counted before there is memory for it.
    const bool examined = entry->size > limits::gzip_unexamined && entry->size / k_usual_ratio > entry->packed;
    int state = examined ? inflate_all(content, nullptr, entry->size) : Z_STREAM_END;
    if (state == Z_STREAM_END) {
      if (auto room = unpacked.resize(entry->size); !room) return fail(room.error());
      state = inflate_all(content, unpacked.data(), entry->size);
    }
    if (state == Z_MEM_ERROR) return broken("no memory to unpack an entry", Errc::out_of_memory);
    if (state != Z_STREAM_END) return broken("an entry's compressed bytes are broken");
    content = std::as_bytes(std::as_const(unpacked).span());
  } else if (entry->method != 0) {
    return broken("an entry that is neither stored nor deflated", Errc::unsupported);
  }
  if (content.size() != entry->size || checksum(content) != entry->crc)
    return broken("an entry's checksum or size is another");
  auto made = npy_of(content, path_.view());
  if (auto there = file_.whole("npz", path_.view()); !there) return fail(there.error());
  return made;
}

}  // namespace qorus::io
