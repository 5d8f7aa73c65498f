// Bodies of qorus.formats:native. FORMAT.md has the layout.
module;
#include <string.h>
#include <zlib.h>

#include <cstdint>
module qorus.formats;
import qorus.std;
import qorus.trust;

namespace qorus::formats {

namespace {

constexpr const char* k_op = "native";
constexpr std::string_view k_magic("QORUS\r\n\x1a", 8), k_end = "QORUSEND";
// The order of laid-out lines that is written, and the one before, which had fewer types.
constexpr std::string_view k_layouts[] = {"panels16.own", "panels16.14"}, k_layout = k_layouts[0];
constexpr std::uint32_t k_version = 1;
constexpr std::size_t k_trailer = 16;
constexpr std::size_t k_piece = 1 << 18;  // bytes whose checksum one worker makes

// The first 128 bytes.
struct Header {
  std::array<char, 8> magic{};
  std::uint32_t version = k_version, tensors = 0, laid_out = 0, entries = 0;
  std::uint64_t file = 0;                          // bytes of all
  std::uint64_t metadata = 0, metadata_bytes = 0;  // offsets from the beginning of the file
  std::uint64_t table = 0, names = 0, names_bytes = 0;
  std::uint64_t data = 0, sums = 0;
  std::array<char, 16> layout{};
  std::uint32_t metadata_sum = 0, table_sum = 0;
  std::array<std::uint32_t, 3> zero{};
  std::uint32_t sum = 0;  // of all before it
};
static_assert(sizeof(Header) == 128);

std::uint32_t sum_of(const Header& header) noexcept {
  return io::crc32(std::as_bytes(std::span(&header, 1)).first(sizeof(Header) - sizeof header.sum));
}
std::uint64_t aligned(std::uint64_t offset) noexcept {
  return Checked(offset).aligned(k_alignment).value_or(UINT64_MAX);
}

// Where everything stands follows from the sizes.
void place(Header& header, std::uint64_t data_bytes) noexcept {
  const std::uint64_t lines = std::uint64_t{header.tensors} + header.laid_out;
  header.metadata = sizeof(Header);
  header.table = aligned(header.metadata + header.metadata_bytes);
  header.names = header.table + lines * 64;
  header.data = aligned(header.names + header.names_bytes);
  header.sums = aligned(header.data + data_bytes);
  header.file = header.sums + lines * sizeof(std::uint32_t) + k_trailer;
}

std::uint32_t joined(std::uint32_t first, std::uint32_t second, std::size_t second_bytes) noexcept {
  return static_cast<std::uint32_t>(::crc32_combine(first, second, static_cast<z_off_t>(second_bytes)));
}

// All matrices of a tensor below one another.
Shape stacked(const Shape& shape) noexcept { return shape.rank() == 3 ? Shape{shape[0] * shape[1], shape[2]} : shape; }

}  // namespace

std::size_t laid_out_bytes(DType dtype, const Shape& shape) noexcept {
  constexpr std::int64_t k_panel = 16;
  if (shape.rank() < 2 || shape.rank() > 3 || (shape.rank() == 3 && shape[1] % k_panel != 0)) return 0;
  return ops::packed_bytes(dtype, stacked(shape));
}

std::uint32_t checksum(const Context* context, std::span<const std::byte> bytes) noexcept {
  constexpr std::size_t k_most = 64;
  if (!context || bytes.size() < 2 * k_piece) return io::crc32(bytes);
  const std::size_t piece = std::max(k_piece, (bytes.size() + k_most - 1) / k_most);
  std::array<std::uint32_t, k_most> sums{};
  parallel_chunks(*context, bytes.size(), piece, [&](std::size_t begin, std::size_t end) {
    sums[begin / piece] = io::crc32(bytes.subspan(begin, end - begin));
  });
  std::uint32_t sum = sums[0];
  for (std::size_t begin = piece; begin < bytes.size(); begin += piece)
    sum = joined(sum, sums[begin / piece], std::min(piece, bytes.size() - begin));
  return sum;
}

const LaidOut* Native::find_laid_out(std::string_view name) const noexcept {
  const auto* found = std::lower_bound(laid_out.begin(), laid_out.end(), name,
                                       [](const LaidOut& one, std::string_view wanted) { return one.name < wanted; });
  return found == laid_out.end() || found->name != name ? nullptr : found;
}

bool is_native(std::span<const std::byte> bytes) noexcept {
  return bytes.size() >= k_magic.size() && std::memcmp(bytes.data(), k_magic.data(), k_magic.size()) == 0;
}

// --- reading ---

class NativeReader {
 public:
  explicit NativeReader(std::string_view path) noexcept : path_(path) {}

  [[nodiscard]] Result<Native> read() noexcept {
    auto file = MappedFile::open(path_);
    if (!file) return fail(file.error());
    bytes_ = file->bytes();
    for (const auto step : {&NativeReader::read_header, &NativeReader::read_table}) {
      const Status good = (this->*step)();
      if (auto there = file->whole(k_op, path_); !there) return fail(there.error());
      if (!good) return fail(good.error());
    }
    const auto metadata = part(header_.metadata, header_.metadata_bytes);
    const Lifetime lifetime = file->lifetime();
    auto gguf = io::gguf_of(std::move(*file), path_, metadata, header_.entries, plain_.span(), k_alignment);
    if (!gguf) return fail(gguf.error());
    Native made{std::move(*gguf), {}};
    if (auto done = take_laid_out(made, lifetime); !done) return fail(done.error());
    return made;
  }

  // After read(): the bytes against their sums.
  [[nodiscard]] Status verify() noexcept {
    if (io::crc32(part(header_.metadata, header_.metadata_bytes)) != header_.metadata_sum)
      return corrupt("the metadata does not fit its checksum");
    const auto sums = part(header_.sums, count() * sizeof(std::uint32_t));
    std::uint32_t sum = 0;
    std::memcpy(&sum, part(header_.file - k_trailer + 8, 4).data(), sizeof sum);
    if (io::crc32(sums) != sum) return corrupt("the checksums do not fit theirs");
    std::optional<Workspace> workspace;  // threads are begun where there is work for them
    for (std::size_t i = 0; i < count(); ++i) {
      std::memcpy(&sum, sums.data() + i * sizeof sum, sizeof sum);
      const Line own = line(i);
      const auto bytes = part(own.offset, own.bytes);
      if (!workspace && bytes.size() >= 2 * k_piece) {
        workspace.emplace(WorkspaceOptions{.scratch = 1_MiB});
        if (auto ready = workspace->status(); !ready) return ready;
      }
      if (checksum(workspace ? &workspace->context() : nullptr, bytes) != sum)
        return fail(Errc::corrupt, k_op, "a tensor does not fit its checksum", plain_[own.layout ? own.of : i].name);
      MappedFile::let_go(bytes);
    }
    return {};
  }

 private:
  using Line = NativeWriter::Line;
  static_assert(sizeof(Line) == 64);

  [[nodiscard]] tl::unexpected<Error> corrupt(const char* text) const noexcept {
    return fail(Errc::corrupt, k_op, text, path_);
  }
  [[nodiscard]] std::span<const std::byte> part(std::uint64_t offset, std::uint64_t bytes) const noexcept {
    return bytes_.subspan(static_cast<std::size_t>(offset), static_cast<std::size_t>(bytes));
  }
  [[nodiscard]] std::size_t count() const noexcept { return std::size_t{header_.tensors} + header_.laid_out; }
  [[nodiscard]] Line line(std::size_t i) const noexcept {
    Line line;
    std::memcpy(&line, part(header_.table + i * sizeof line, sizeof line).data(), sizeof line);
    return line;
  }

  [[nodiscard]] Status read_header() noexcept {
    if (!is_native(bytes_)) return corrupt("not a .qorus file");
    if (bytes_.size() < sizeof header_ + k_trailer) return corrupt("the file ends within its header");
    std::memcpy(&header_, bytes_.data(), sizeof header_);
    if (header_.version == 0) return corrupt("there is no version 0");
    if (header_.version > k_version) return fail(Errc::unsupported, k_op, "a later version of the format", path_);
    if (sum_of(header_) != header_.sum) return corrupt("the header does not fit its checksum");
    if (header_.file != bytes_.size()) return corrupt("the file is not as long as it says");
    if (header_.tensors > io::k_gguf_limits.tensors || header_.laid_out > header_.tensors)
      return fail(Errc::unsupported, k_op, "more than 65536 tensors", path_);
    if (header_.metadata_bytes > bytes_.size() || header_.names_bytes > bytes_.size() || header_.data > bytes_.size() ||
        header_.sums < header_.data || header_.sums > bytes_.size())
      return corrupt("its parts are not inside the file");
    Header wanted = header_;
    place(wanted, header_.sums - header_.data);
    if (std::memcmp(&wanted, &header_, sizeof wanted) != 0) return corrupt("its parts are not where they belong");
    const auto trailer = part(header_.file - k_trailer, k_trailer);
    if (std::memcmp(trailer.data(), k_end.data(), k_end.size()) != 0 ||
        std::memcmp(trailer.data() + 12, &header_.sum, sizeof header_.sum) != 0)
      return corrupt("no trailer: it was never finished");
    if (io::crc32(part(header_.table, header_.names + header_.names_bytes - header_.table)) != header_.table_sum)
      return corrupt("the table does not fit its checksum");
    return {};
  }

  // Lines, names and data follow one another without gaps.
  [[nodiscard]] Status read_table() noexcept {
    if (auto room = plain_.reserve(header_.tensors); !room) return room;
    std::uint64_t name = 0;
    Checked at = header_.data;
    for (std::size_t i = 0; i < count(); ++i) {
      const Line own = line(i);
      const bool laid_out = i >= header_.tensors;
      if (own.offset != at.value_or(0) || own.layout != static_cast<std::uint8_t>(laid_out) || own.rank > 4 ||
          own.zero != 0)
        return corrupt("a line of the table is broken");
      const Checked end = at + own.bytes;
      if (end.value_or(UINT64_MAX) > header_.sums) return corrupt("a tensor's bytes are not inside the data");
      at = end.aligned(k_alignment);
      if (laid_out) {
        if (own.of >= header_.tensors || own.letters != 0) return corrupt("a line of the table is broken");
        continue;
      }
      if (own.name != name || own.letters > header_.names_bytes - name) return corrupt("a name is not among the names");
      if (auto kept = keep(own); !kept) return kept;
      name += own.letters;
    }
    if (name != header_.names_bytes || at.value_or(0) != header_.sums) return corrupt("bytes that belong to nothing");
    return {};
  }

  [[nodiscard]] Status keep(const Line& own) noexcept {
    std::array<std::int64_t, 4> extents{};
    for (std::size_t d = 0; d < 4; ++d) {
      if (own.extents[d] > INT64_MAX) return fail(Errc::overflow, k_op, "an extent does not fit", path_);
      extents[d] = static_cast<std::int64_t>(own.extents[d]);
    }
    const auto name = part(header_.names + own.name, own.letters);
    return plain_.push({.name = {reinterpret_cast<const char*>(name.data()), name.size()},
                        .format = own.format,
                        .shape = Shape(std::span(extents.data(), own.rank)),
                        .offset = own.offset,
                        .bytes = own.bytes});
  }

  [[nodiscard]] Status take_laid_out(Native& made, const Lifetime& lifetime) const noexcept {
    const std::string_view layout(header_.layout.data(), ::strnlen(header_.layout.data(), header_.layout.size()));
    if (std::find(std::begin(k_layouts), std::end(k_layouts), layout) == std::end(k_layouts))
      return {};  // another order than this version's: the tensors are there all the same
    for (std::size_t i = header_.tensors; i < count(); ++i) {
      const Line own = line(i);
      auto tensor = made.gguf.tensor(plain_[own.of].name);
      if (!tensor) return fail(tensor.error());
      if (own.bytes == 0 || own.bytes != laid_out_bytes(tensor->dtype(), tensor->shape()))
        return corrupt("a matrix laid out has another size");
      const Shape shape = stacked(tensor->shape());
      const Tensor bytes(bytes_.data() + own.offset, DType::u8,
                         Layout::dense(Shape{static_cast<std::int64_t>(own.bytes)}), lifetime);
      if (auto kept = made.laid_out.push({plain_[own.of].name, shape[0], shape[1], bytes}); !kept) return kept;
    }
    const auto before = [](const LaidOut& a, const LaidOut& b) { return a.name < b.name; };
    sort_mapped(made.laid_out.begin(), made.laid_out.end(), before);
    const auto same = [](const LaidOut& a, const LaidOut& b) { return a.name == b.name; };
    return std::adjacent_find(made.laid_out.begin(), made.laid_out.end(), same) == made.laid_out.end()
               ? Status()
               : corrupt("a matrix is laid out twice");
  }

  std::string_view path_;
  std::span<const std::byte> bytes_;
  Header header_;
  List<io::GgufLine> plain_;
};

Result<Native> read_native(std::string_view path) noexcept { return NativeReader(path).read(); }

Status verify_native(std::string_view path) noexcept {
  NativeReader reader(path);
  const auto file = reader.read();  // keeps the mapping
  if (!file) return fail(file.error());
  const Status good = reader.verify();
  if (auto there = file->gguf.whole(); !there) return there;
  return good;
}

// --- writing ---

Result<NativeWriter> NativeWriter::create(std::string_view path) noexcept {
  auto file = AtomicFile::create(path);
  if (!file) return fail(file.error());
  return NativeWriter(std::move(*file));
}

Status NativeWriter::declare(std::string_view name, DType dtype, const Shape& shape) noexcept {
  if (begun_ || lines_.size() > plain_) return fail(Errc::invalid_argument, k_op, "a tensor too late", name);
  if (name.empty() || name.size() > io::k_gguf_limits.name)
    return fail(Errc::invalid_argument, k_op, "a name has 1 to 255 bytes", name);
  const int format = io::gguf_format(dtype), rank = shape.rank();
  if (format < 0 || rank > 4) return fail(Errc::unsupported, k_op, "such a tensor is not stored", name);
  if (!shape.valid() || (rank > 0 ? static_cast<std::size_t>(shape[-1]) : 1) % block_size(dtype) != 0)
    return fail(Errc::invalid_size, k_op, "rows must be whole blocks", name);
  Line line{.name = static_cast<std::uint32_t>(names_.size()),
            .letters = static_cast<std::uint16_t>(name.size()),
            .format = static_cast<std::uint16_t>(format),
            .rank = static_cast<std::uint8_t>(rank),
            .offset = end_,
            .bytes = row_bytes(dtype, shape.numel())};
  for (int d = 0; d < rank; ++d) line.extents[static_cast<std::size_t>(d)] = static_cast<std::uint64_t>(shape[d]);
  const Checked end = (Checked(end_) + line.bytes).aligned(k_alignment);
  if (!end.ok() || end.value_or(0) > INT64_MAX)
    return fail(Errc::overflow, k_op, "the sum of all sizes does not fit", name);
  end_ = end.value_or(0);
  ++plain_;
  if (auto kept = name_places_.push({names_.size(), name.size()}); !kept) return kept;
  if (auto kept = names_.append(std::as_bytes(std::span(name.data(), name.size()))); !kept) return kept;
  return lines_.push(line);
}

Status NativeWriter::declare_laid_out(std::size_t index) noexcept {
  if (begun_ || index >= plain_) return fail(Errc::invalid_argument, k_op, "no such tensor to lay out");
  const Line& plain = lines_[index];
  std::array<std::int64_t, 4> extents{};
  std::copy(plain.extents.begin(), plain.extents.end(), extents.begin());
  std::size_t bytes = 0;
  for (int i = 0; i < k_dtype_count; ++i) {
    const auto dtype = static_cast<DType>(i);
    if (io::gguf_format(dtype) == plain.format)
      bytes = laid_out_bytes(dtype, Shape(std::span(extents.data(), plain.rank)));
  }
  if (bytes == 0) return fail(Errc::invalid_argument, k_op, "a tensor that is not laid out");
  Line line{.layout = 1, .of = static_cast<std::uint32_t>(index), .offset = end_, .bytes = bytes};
  line.format = plain.format;
  const Checked end = (Checked(end_) + bytes).aligned(k_alignment);
  if (!end.ok() || end.value_or(0) > INT64_MAX) return fail(Errc::overflow, k_op, "the sum of all sizes does not fit");
  end_ = end.value_or(0);
  return lines_.push(line);
}

Status NativeWriter::begin() noexcept {
  if (begun_) return fail(Errc::invalid_argument, k_op, "begun before");
  if (auto good = check_once(name_places_, names_); !good) return good;
  if (auto good = close(); !good) return good;
  Header header;
  k_magic.copy(header.magic.data(), k_magic.size());
  k_layout.copy(header.layout.data(), k_layout.size());
  header.tensors = plain_;
  header.laid_out = static_cast<std::uint32_t>(lines_.size()) - plain_;
  header.entries = static_cast<std::uint32_t>(count());
  header.metadata_bytes = bytes().size();
  header.names_bytes = names_.size();
  place(header, end_);
  for (Line& line : lines_) line.offset += header.data;
  const auto table = std::as_bytes(lines_.span());
  header.metadata_sum = io::crc32(bytes());
  header.table_sum = joined(io::crc32(table), io::crc32(names_.span()), names_.size());
  header.sum = header_sum_ = sum_of(header);
  if (auto done = file_.write(std::as_bytes(std::span(&header, 1))); !done) return done;
  if (auto done = file_.write(bytes()); !done) return done;
  if (auto done = pad(header.table - header.metadata - header.metadata_bytes); !done) return done;
  if (auto done = file_.write(table); !done) return done;
  if (auto done = file_.write(names_.span()); !done) return done;
  if (auto done = pad(header.data - header.names - header.names_bytes); !done) return done;
  return finish_lines();
}

Status NativeWriter::pad(std::uint64_t count) noexcept {
  const std::array<std::byte, k_alignment> zeros{};
  return file_.write(std::span(zeros.data(), static_cast<std::size_t>(count)));
}

// Steps over lines that are complete: the one at hand, and those of no bytes.
Status NativeWriter::finish_lines() noexcept {
  for (; line_ < lines_.size() && done_ == lines_[line_].bytes; ++line_) {
    if (auto kept = sums_.push(sum_); !kept) return kept;
    if (auto done = pad(aligned(done_) - done_); !done) return done;
    done_ = 0;
    sum_ = 0;
  }
  return {};
}

Status NativeWriter::write(std::span<const std::byte> more) noexcept {
  if (!begun_) return fail(Errc::invalid_argument, k_op, "a tensor's bytes before begin");
  if (more.empty()) return {};
  if (line_ == lines_.size() || more.size() > lines_[line_].bytes - done_)
    return fail(Errc::invalid_argument, k_op, "more bytes than the tensor has");
  if (auto done = file_.write(more); !done) return done;
  sum_ = joined(sum_, checksum(context_, more), more.size());
  done_ += more.size();
  return finish_lines();
}

Status NativeWriter::commit() noexcept {
  if (!begun_ || line_ < lines_.size()) return fail(Errc::invalid_argument, k_op, "not complete");
  const auto sums = std::as_bytes(sums_.span());
  const std::array<std::uint32_t, 2> both{io::crc32(sums), header_sum_};
  if (auto done = file_.write(sums); !done) return done;
  if (auto done = file_.write(k_end); !done) return done;
  if (auto done = file_.write(std::as_bytes(std::span(both))); !done) return done;
  return file_.commit();
}

}  // namespace qorus::formats
