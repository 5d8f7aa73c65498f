// Bodies of qorus.io:npy. Layout: "\x93NUMPY", major, minor, header length (u16, from version 2 on u32), header, elements. The
// header is a Python literal: {'descr': '<f4', 'fortran_order': False, 'shape': (3, 4), }.
module;
#include <cstdint>
module qorus.io;
import qorus.std;
import qorus.trust;

namespace qorus::io {
namespace {

static_assert(std::endian::native == std::endian::little, "the files' numbers are used as they lie");

constexpr std::string_view k_magic = "\x93NUMPY";
constexpr const char* k_op = "read_npy";

// The element types: the letter and width of the file, the type in memory.
struct ElementType {
  std::string_view name;
  std::uint8_t width;
  DType dtype;
  bool as_is = false;
};
constexpr ElementType k_types[] = {
    {"<f4", 4, DType::f32, true}, {"<f2", 2, DType::f16, true}, {"<i4", 4, DType::i32, true},
    {"|i1", 1, DType::i8, true},  {"|u1", 1, DType::u8, true},  {"<f8", 8, DType::f32},
    {"|b1", 1, DType::u8},        {"<i8", 8, DType::i32},       {"<i2", 2, DType::i32},
    {"<u2", 2, DType::i32},       {"<u4", 4, DType::i32},       {"<u8", 8, DType::i32}};

struct Header {
  const ElementType* type = nullptr;
  bool fortran = false;
  Shape shape{-1};
};

// Reads the header's literal from front to back.
class HeaderReader {
 public:
  HeaderReader(std::string_view text, std::string_view path) noexcept : text_(text), path_(path) {}

  Result<Header> read() noexcept {
    Header header;
    unsigned seen = 0;
    if (!take('{')) return corrupt("the header is not a dictionary");
    while (!take('}')) {
      const std::string_view key = quoted();
      const unsigned field = key == "descr" ? 1 : key == "fortran_order" ? 2 : key == "shape" ? 4 : 0;
      if (field == 0 || (seen & field) || !take(':'))
        return corrupt("the header has descr, fortran_order and shape, each once");
      seen |= field;
      auto ok = field == 1 ? read_type(header) : field == 2 ? read_order(header) : read_shape(header);
      if (!ok) return fail(ok.error());
      if (!take(',') && !next_is('}')) return corrupt("the header is broken");
    }
    skip_blanks();
    if (!text_.empty()) return corrupt("the header is broken");
    if (seen != 7) return corrupt("the header has descr, fortran_order and shape, each once");
    return header;
  }

 private:
  [[nodiscard]] tl::unexpected<Error> corrupt(const char* text) const noexcept {
    return fail(Errc::corrupt, k_op, text, path_);
  }
  [[nodiscard]] tl::unexpected<Error> unsupported(const char* text) const noexcept {
    return fail(Errc::unsupported, k_op, text, path_);
  }

  void skip_blanks() noexcept { text_.remove_prefix(std::min(text_.find_first_not_of(" \t\n\r"), text_.size())); }
  bool next_is(char c) noexcept {
    skip_blanks();
    return !text_.empty() && text_[0] == c;
  }
  bool take(char c) noexcept {
    if (!next_is(c)) return false;
    text_.remove_prefix(1);
    return true;
  }
  bool take_word(std::string_view word) noexcept {
    skip_blanks();
    if (!text_.starts_with(word)) return false;
    text_.remove_prefix(word.size());
    return true;
  }
  // A string in either kind of quotes, without escapes; empty if there is none.
  std::string_view quoted() noexcept {
    const char quote = next_is('"') ? '"' : '\'';
    if (!take(quote)) return {};
    const auto end = text_.find(quote);
    if (end == text_.npos) return {};
    const std::string_view found = std::string_view(text_.data(), end);
    text_.remove_prefix(end + 1);
    return found;
  }

  Status read_type(Header& header) noexcept {
    if (next_is('[')) return unsupported("an array of records");
    const std::string_view name = quoted();
    if (name.size() < 2) return corrupt("an element type like '<f4' is needed");
    if (name[0] == '>') return unsupported("big-endian numbers");
    std::string_view kind = name;
    kind.remove_prefix(1);
    // A single byte has no order, whatever the first letter says.
    const auto same = [&](const ElementType& t) {
      return t.name.size() == name.size() && t.name.ends_with(kind) &&
             (t.name[0] == name[0] || name[0] == '=' || t.width == 1);
    };
    const auto* found = std::find_if(std::begin(k_types), std::end(k_types), same);
    if (found == std::end(k_types)) return unsupported("an element type that tensors do not have");
    header.type = found;
    return {};
  }
  Status read_order(Header& header) noexcept {
    header.fortran = take_word("True");
    if (!header.fortran && !take_word("False")) return corrupt("fortran_order is True or False");
    return {};
  }
  Status read_shape(Header& header) noexcept {
    std::array<std::int64_t, k_max_rank> extents{};
    std::size_t rank = 0;
    if (!take('(')) return corrupt("a shape like (3, 4) is needed");
    for (bool comma = true; !take(')'); comma = take(',')) {
      if (!comma) return corrupt("a shape like (3, 4) is needed");
      if (rank == k_max_rank) return unsupported("more than 6 dimensions");
      skip_blanks();
      std::uint64_t extent = 0;
      const auto [end, problem] = std::from_chars(text_.data(), text_.data() + text_.size(), extent);
      if (problem == std::errc::result_out_of_range || extent > INT64_MAX)
        return fail(Errc::overflow, k_op, "an extent does not fit", path_);
      if (problem != std::errc{}) return corrupt("a shape like (3, 4) is needed");
      text_.remove_prefix(static_cast<std::size_t>(end - text_.data()));
      extents[rank++] = static_cast<std::int64_t>(extent);
    }
    header.shape = Shape(std::span(extents.data(), rank));
    if (!header.shape.valid()) return fail(Errc::overflow, k_op, "more elements than can be addressed", path_);
    return {};
  }

  std::string_view text_, path_;
};

// The header, and what follows it.
struct File {
  Header header;
  std::span<const std::byte> data;
};

Result<File> parse(std::span<const std::byte> bytes, std::string_view path) noexcept {
  const auto corrupt = [&](const char* text) { return fail(Errc::corrupt, k_op, text, path); };
  const std::string_view all(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  if (!all.starts_with(k_magic) || all.size() < 10) return corrupt("not an npy file");
  const auto major = static_cast<std::uint8_t>(all[6]);
  if (major < 1 || major > 3) return fail(Errc::unsupported, k_op, "versions 1 to 3", path);
  const std::size_t width = major == 1 ? 2 : 4, begin = 8 + width;
  std::uint32_t length = 0;
  if (all.size() < begin) return corrupt("the file ends within its header");
  std::memcpy(&length, all.data() + 8, width);
  if (length > all.size() - begin) return corrupt("the file ends within its header");
  if (length > limits::npy_header) return fail(Errc::unsupported, k_op, "a header of more than 64 KiB", path);
  const auto header = HeaderReader(std::string_view(all.data() + begin, length), path).read();
  if (!header) return fail(header.error());
  const auto data = bytes.subspan(begin + length);
  const std::uint64_t needed = std::uint64_t{header->shape.numel()} * header->type->width;  // at most 2^50
  if (data.size() < needed) return corrupt("fewer bytes than its shape needs");
  if (data.size() > needed) return corrupt("more bytes than its shape needs");
  return File{*header, data};
}

template <class T>
T load(const std::byte* from) noexcept {
  T value;
  std::memcpy(&value, from, sizeof value);
  return value;
}

// Integers of type T as i32. False if one does not fit.
template <class T>
bool narrow(std::span<const std::byte> from, std::span<std::int32_t> to) noexcept {
  for (std::size_t i = 0; i < to.size(); ++i) {
    const T value = load<T>(from.data() + i * sizeof(T));
    if (!std::in_range<std::int32_t>(value)) return false;
    to[i] = static_cast<std::int32_t>(value);
  }
  return true;
}

// Fills `to` from elements of another type. False if one does not fit.
bool convert(const ElementType& type, std::span<const std::byte> from, Owned& to) noexcept {
  if (type.name == "<f8") {
    const auto reals = to.fill<float>();
    for (std::size_t i = 0; i < reals.size(); ++i) reals[i] = static_cast<float>(load<double>(from.data() + i * 8));
    return true;
  }
  if (type.name == "|b1") {
    const auto bytes = to.fill<std::uint8_t>();
    std::transform(from.begin(), from.end(), bytes.begin(), [](std::byte b) { return b == std::byte{0} ? 0 : 1; });
    return true;
  }
  const auto integers = to.fill<std::int32_t>();
  if (type.name == "<i2") return narrow<std::int16_t>(from, integers);
  if (type.name == "<u2") return narrow<std::uint16_t>(from, integers);
  if (type.name == "<u4") return narrow<std::uint32_t>(from, integers);
  if (type.name == "<u8") return narrow<std::uint64_t>(from, integers);
  return narrow<std::int64_t>(from, integers);
}

Shape reversed(const Shape& shape) noexcept {
  std::array<std::int64_t, k_max_rank> extents{};
  const auto given = shape.extents();
  std::reverse_copy(given.begin(), given.end(), extents.begin());
  return Shape(std::span(extents.data(), given.size()));
}

// The dense elements of `data`, first index fastest, seen as `shape`.
Result<Layout> fortran_layout(const Shape& shape) noexcept {
  constexpr int k_axes[k_max_rank + 1][k_max_rank] = {
      {}, {0}, {1, 0}, {2, 1, 0}, {3, 2, 1, 0}, {4, 3, 2, 1, 0}, {5, 4, 3, 2, 1, 0}};
  return Layout::dense(reversed(shape))
      .permuted(std::span(k_axes[shape.rank()], static_cast<std::size_t>(shape.rank())));
}

std::string_view type_name(DType dtype) noexcept {
  const auto* found = std::find_if(std::begin(k_types), std::end(k_types),
                                   [&](const ElementType& t) { return t.as_is && t.dtype == dtype; });
  return found == std::end(k_types) ? std::string_view{} : found->name;
}

}  // namespace

Result<Owned> read_npy(std::string_view path) noexcept {
  const auto mapped = MappedFile::open(path);
  if (!mapped) return fail(mapped.error());
  auto made = npy_of(mapped->bytes(), path);
  if (auto there = mapped->whole(k_op, path); !there) return fail(there.error());
  return made;
}

Result<MappedNpy> MappedNpy::open(std::string_view path) noexcept {
  auto mapped = MappedFile::open(path);
  if (!mapped) return fail(mapped.error());
  const auto file = parse(mapped->bytes(), path);
  if (auto there = mapped->whole(k_op, path); !there) return fail(there.error());
  if (!file) return fail(file.error());
  const ElementType& type = *file->header.type;
  const bool aligned = reinterpret_cast<std::uintptr_t>(file->data.data()) % type.width == 0;
  if (!type.as_is || file->header.fortran || !aligned)
    return fail(Errc::unsupported, k_op, "an array that cannot be used where it lies: read_npy", path);
  MappedNpy npy;
  npy.tensor_ = Tensor(file->data.data(), type.dtype, Layout::dense(file->header.shape), mapped->lifetime());
  npy.file_ = std::move(*mapped);
  return npy;
}

Result<Owned> npy_of(std::span<const std::byte> bytes, std::string_view path) noexcept {
  const auto file = parse(bytes, path);
  if (!file) return fail(file.error());
  const Header& header = file->header;
  const ElementType& type = *header.type;
  auto layout = header.fortran ? fortran_layout(header.shape) : Result<Layout>(Layout::dense(header.shape));
  if (!layout) return fail(layout.error().about(path));
  const std::byte* data = file->data.data();
  Owned converted;
  if (!type.as_is) {
    auto made = Owned::zeros(header.fortran ? reversed(header.shape) : header.shape, type.dtype);
    if (!made) return fail(made.error().about(path));
    if (!convert(type, file->data, *made)) return fail(Errc::overflow, k_op, "a number does not fit i32", path);
    if (!header.fortran) return made;
    converted = std::move(*made);
    data = converted.tensor().data();
  }
  auto made = keep(Tensor(data, type.dtype, *layout, {}));
  if (!made) return fail(made.error().about(path));
  return made;
}

Text npy_header(DType dtype, const Shape& shape) noexcept {
  Text text;
  const std::string_view type = type_name(dtype);
  if (type.empty()) return text;
  text += std::string_view("\x93NUMPY\x01\0\0\0", 10);  // version 1.0; the length follows
  (text += "{'descr': '") += type;
  text += "', 'fortran_order': False, 'shape': (";
  for (int d = 0; d < shape.rank(); ++d) (text += shape[d]) += d == 0 || d + 1 < shape.rank() ? ", " : "";
  text += "), }";
  while ((text.size + 1) % k_alignment != 0) text += " ";
  text += "\n";
  text.bytes[8] = static_cast<char>((text.size - 10) & 255);
  text.bytes[9] = static_cast<char>((text.size - 10) >> 8);
  return text;
}

Status write_npy(std::string_view path, const Tensor& tensor) noexcept {
  if (auto ok = tensor.check("write_npy"); !ok) return fail(ok.error().about(path));
  const Text header = npy_header(tensor.dtype(), tensor.shape());
  if (header.size == 0) return fail(Errc::invalid_dtype, "write_npy", "npy has no such element type", path);
  Owned dense;
  Tensor written = tensor;
  if (!tensor.contiguous()) {
    auto copy = keep(tensor);
    if (!copy) return fail(copy.error().about(path));
    dense = std::move(*copy);
    written = dense.tensor();
  }
  auto file = AtomicFile::create(path);
  if (!file) return fail(file.error());
  if (auto ok = file->write(header.view()); !ok) return ok;
  if (auto ok = file->write(std::span(written.data(), written.numel() * size_of(written.dtype()))); !ok) return ok;
  return file->commit();
}

}  // namespace qorus::io
