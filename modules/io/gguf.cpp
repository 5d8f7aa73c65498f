// Reading of qorus.io:gguf. Layout: "GGUF", u32 version, u64 tensors, u64 entries of metadata; the entries: key, u32 type, value; the
// table: name, u32 dimensions, a u64 each (innermost first), u32 format, u64 offset; the data, from the next multiple of the
// alignment on. A text is a u64 length and its bytes, an array a u32 type, a u64 count and its values.
module;
#include <cstdint>
module qorus.io;
import qorus.std;
import qorus.trust;
import :json;
import :gguf_format;

namespace qorus::io {
namespace {

static_assert(std::endian::native == std::endian::little, "the files' numbers are used where they lie");

constexpr const GgufLimits& k_most = k_gguf_limits;
constexpr std::uint64_t k_least_entry = 8 + 1 + 4 + 1, k_least_tensor = 8 + 1 + 4 + 4 + 8;  // bytes

const Format* format_of(std::string_view name) noexcept {
  return std::find_if(std::begin(k_formats), std::end(k_formats), [&](const Format& f) { return f.name == name; });
}

bool is_name(std::string_view name) noexcept {
  for (std::size_t i = 0; i < name.size(); ++i) {
    if (is_control(name.substr(i))) return false;
  }
  return !name.empty() && is_utf8(name);
}

// The indices of a list in the order of a property; false in `distinct` if two have the same.
template <class T, class Property>
Result<List<std::uint32_t>> sorted_by(const List<T>& list, const Property& property, std::uint32_t& twice) noexcept {
  List<std::uint32_t> order;
  if (auto ok = order.resize(list.size()); !ok) return fail(ok.error());
  std::iota(order.begin(), order.end(), 0u);
  const auto of = [&](std::uint32_t i) -> const auto& { return property(list[i]); };
  sort_mapped(order.begin(), order.end(), [&](auto a, auto b) { return of(a) < of(b); });
  const auto* same = std::adjacent_find(order.begin(), order.end(), [&](auto a, auto b) { return of(a) == of(b); });
  twice = same == order.end() ? UINT32_MAX : *same;
  return order;
}

}  // namespace

// Builds the tables of one file.
class GgufReader {
 public:
  explicit GgufReader(std::string_view path) noexcept : path_(path) {}

  Result<Gguf> read() noexcept {
    auto file = MappedFile::open(path_);
    if (!file) return fail(file.error());
    made_.file_ = std::move(*file);
    return finish(read_all());
  }
  Result<Gguf> assemble(MappedFile file, std::span<const std::byte> metadata, std::uint64_t entries,
                        std::span<const GgufLine> lines, std::uint32_t alignment) noexcept {
    made_.file_ = std::move(file);
    made_.version_ = 3;
    rest_ = metadata;
    return finish(assemble_all(entries, lines, alignment));
  }

 private:
  Result<Gguf> finish(const Status& done) noexcept {
    if (auto there = made_.file_.whole("read_gguf", path_); !there) return fail(there.error());
    if (done) return std::move(made_);
    Error error = done.error();
    error.op = "read_gguf";
    return fail(error.subject[0] ? error : error.about(path_));
  }
  [[nodiscard]] tl::unexpected<Error> corrupt(const char* text) const noexcept {
    return fail(Errc::corrupt, "", text, path_);
  }
  [[nodiscard]] tl::unexpected<Error> unsupported(const char* text) const noexcept {
    return fail(Errc::unsupported, "", text, path_);
  }
  // About a key or tensor of the file: the ends of both names.
  [[nodiscard]] tl::unexpected<Error> about(std::string_view name, Errc code, const char* text) const noexcept {
    const auto end_of = [](std::string_view s) { return s.substr(s.size() - std::min<std::size_t>(s.size(), 150)); };
    Text subject;
    ((subject += end_of(path_)) += ": ") += end_of(name);
    return fail(code, "", text, subject.view());
  }

  Status read_all() noexcept {
    rest_ = made_.file_.bytes();
    std::uint64_t tensors = 0, entries = 0;
    if (auto ok = read_header(tensors, entries); !ok) return ok;
    if (auto ok = read_metadata(entries); !ok) return ok;
    if (auto ok = read_alignment(); !ok) return ok;
    if (auto ok = made_.entries_.reserve(static_cast<std::size_t>(tensors)); !ok) return ok;
    for (std::uint64_t i = 0; i < tensors; ++i) {
      if (auto ok = read_tensor(); !ok) return ok;
    }
    if (auto ok = index_names(); !ok) return ok;
    const std::size_t size = made_.file_.bytes().size();
    return place_tensors(Checked(size - rest_.size()).aligned(made_.alignment_));
  }

  Status read_metadata(std::uint64_t entries) noexcept {
    if (auto ok = made_.metadata_.reserve(static_cast<std::size_t>(entries)); !ok) return ok;
    for (std::uint64_t i = 0; i < entries; ++i) {
      if (auto ok = read_entry(); !ok) return ok;
    }
    return index_keys();
  }

  Status assemble_all(std::uint64_t entries, std::span<const GgufLine> lines, std::uint32_t alignment) noexcept {
    if (auto ok = check_count(entries, k_least_entry, k_most.entries, "more than 16384 entries of metadata"); !ok)
      return ok;
    if (auto ok = read_metadata(entries); !ok) return ok;
    if (!rest_.empty()) return corrupt("bytes after the metadata");
    made_.alignment_ = alignment;
    if (auto ok = made_.entries_.reserve(lines.size()); !ok) return ok;
    for (const GgufLine& line : lines) {
      if (!is_name(line.name) || line.name.size() > k_most.name)
        return corrupt("a tensor's name that is empty, too long, or not UTF-8, or has control characters");
      if (!line.shape.valid())
        return about(line.name, Errc::overflow, "a tensor of more elements than can be addressed");
      if (line.offset % alignment != 0) return about(line.name, Errc::misaligned, "a tensor that is not aligned");
      TensorEntry entry{.name = line.name, .shape = line.shape, .offset = static_cast<std::size_t>(line.offset)};
      if (auto ok = read_format(entry, line.format); !ok) return ok;
      if (entry.bytes != line.bytes) return about(line.name, Errc::corrupt, "not as many bytes as shape and type need");
      if (auto ok = made_.entries_.push(entry); !ok) return ok;
    }
    if (auto ok = index_names(); !ok) return ok;
    return place_tensors(0);
  }

  // --- pieces: everything is looked at against the bytes that are left ---

  template <class T>
  Status take(T& value) noexcept {
    if (rest_.size() < sizeof value) return corrupt("the file ends within its tables");
    std::memcpy(&value, rest_.data(), sizeof value);
    rest_ = rest_.subspan(sizeof value);
    return {};
  }
  Result<std::string_view> take_text(std::uint64_t most, const char* too_long) noexcept {
    std::uint64_t length = 0;
    if (auto ok = take(length); !ok) return fail(ok.error());
    if (length > rest_.size()) return corrupt("a text goes past the end of the file");
    if (length > most) return unsupported(too_long);
    const std::string_view text(reinterpret_cast<const char*>(rest_.data()), static_cast<std::size_t>(length));
    rest_ = rest_.subspan(text.size());
    return text;
  }
  Status check_count(std::uint64_t count, std::uint64_t least_bytes, std::uint64_t most,
                     const char* too_many) const noexcept {
    if (count > rest_.size() / least_bytes) return corrupt("it claims more than the file can hold");
    return count > most ? unsupported(too_many) : Status{};
  }

  Status read_header(std::uint64_t& tensors, std::uint64_t& entries) noexcept {
    std::array<char, 4> magic{};
    if (auto ok = take(magic); !ok || std::string_view(magic.data(), 4) != "GGUF") return corrupt("not a GGUF file");
    if (auto ok = take(made_.version_); !ok) return ok;
    if (made_.version_ == 0) return corrupt("there is no version 0");
    if (made_.version_ == 1) return unsupported("version 1; versions 2 and 3 are read");
    if ((made_.version_ & 0xffff) == 0) return unsupported("a big-endian file");
    if (made_.version_ > 3) return unsupported("a version after 3; versions 2 and 3 are read");
    if (auto ok = take(tensors); !ok) return ok;
    if (auto ok = take(entries); !ok) return ok;
    if (auto ok = check_count(tensors, k_least_tensor, k_most.tensors, "more than 65536 tensors"); !ok) return ok;
    return check_count(entries, k_least_entry, k_most.entries, "more than 16384 entries of metadata");
  }

  // --- metadata ---

  Status read_entry() noexcept {
    const auto key = take_text(k_most.key, "a key of more than 65535 bytes");
    if (!key) return fail(key.error());
    if (!is_name(*key)) return corrupt("a key that is empty, or not UTF-8, or has control characters");
    GgufEntry entry{.key = *key};
    std::uint32_t type = 0;
    if (auto ok = take(type); !ok) return ok;
    entry.array = type == static_cast<std::uint32_t>(GgufType::array);
    if (entry.array) {
      std::uint64_t count = 0;
      if (auto ok = take(type); !ok) return ok;
      if (type == static_cast<std::uint32_t>(GgufType::array))
        return about(*key, Errc::unsupported, "an array of arrays");
      if (auto ok = take(count); !ok) return ok;
      if (count > rest_.size()) return about(*key, Errc::corrupt, "an array goes past the end of the file");
      if (count > k_most.array) return about(*key, Errc::unsupported, "an array of more than 2^24 elements");
      entry.count = static_cast<std::size_t>(count);
    }
    if (type >= std::size(k_widths)) return about(*key, Errc::unsupported, "a type of value that is not known");
    entry.type = static_cast<GgufType>(type);
    if (auto ok = entry.type == GgufType::text ? read_texts(entry) : read_numbers(entry); !ok) return ok;
    return made_.metadata_.push(std::move(entry));
  }

  Status read_texts(GgufEntry& entry) noexcept {
    if (entry.count > rest_.size() / sizeof(std::uint64_t))
      return about(entry.key, Errc::corrupt, "an array goes past the end of the file");
    if (entry.array) {
      if (auto ok = entry.texts.reserve(entry.count); !ok) return ok;
    }
    for (std::size_t i = 0; i < entry.count; ++i) {
      const auto text = take_text(k_most.text, "a text of more than 32 MiB");
      if (!text) return about(entry.key, text.error().code, text.error().text);
      if (!entry.array) {
        entry.text = *text;
      } else if (auto ok = entry.texts.push(*text); !ok) {
        return ok;
      }
    }
    return {};
  }

  Status read_numbers(GgufEntry& entry) noexcept {
    const std::size_t width = k_widths[static_cast<int>(entry.type)];
    if (entry.count > rest_.size() / width)
      return about(entry.key, Errc::corrupt,
                   entry.array ? "an array goes past the end of the file" : "the file ends within its tables");
    entry.data = rest_.data();
    const auto bytes = rest_.first(entry.count * width);
    rest_ = rest_.subspan(bytes.size());
    if (entry.type == GgufType::boolean &&
        std::any_of(bytes.begin(), bytes.end(), [](std::byte b) { return b > std::byte{1}; })) {
      return about(entry.key, Errc::corrupt, "a boolean is 0 or 1");
    }
    return {};
  }

  Status index_keys() noexcept {
    std::uint32_t twice = 0;
    auto order = sorted_by(made_.metadata_, [](const GgufEntry& e) -> const auto& { return e.key; }, twice);
    if (!order) return fail(order.error());
    if (twice != UINT32_MAX) return about(made_.metadata_[twice].key, Errc::corrupt, "a key stands twice");
    made_.by_key_ = std::move(*order);
    return {};
  }

  Status read_alignment() noexcept {
    constexpr const char* k_key = "general.alignment";
    const GgufEntry* entry = made_.metadata(k_key);
    if (!entry) return {};
    if (entry->array || entry->type != GgufType::u32) return about(k_key, Errc::corrupt, "the alignment is a u32");
    std::memcpy(&made_.alignment_, entry->data, sizeof made_.alignment_);
    if (!std::has_single_bit(made_.alignment_) || made_.alignment_ < 8)
      return about(k_key, Errc::corrupt, "the alignment is a power of two and at least 8");
    if (made_.alignment_ > k_most.alignment) return about(k_key, Errc::unsupported, "an alignment of more than 1 MiB");
    return {};
  }

  // --- tensors ---

  Status read_tensor() noexcept {
    const auto name = take_text(k_most.name, "a tensor's name of more than 255 bytes");
    if (!name) return fail(name.error());
    if (!is_name(*name)) return corrupt("a tensor's name that is empty, or not UTF-8, or has control characters");
    TensorEntry entry{.name = *name};
    std::uint32_t dimensions = 0, number = 0;
    if (auto ok = take(dimensions); !ok) return ok;
    if (dimensions > k_most.dimensions) return about(*name, Errc::unsupported, "a tensor of more than 4 dimensions");
    std::array<std::int64_t, k_max_rank> extents{};
    for (std::uint32_t d = dimensions; d-- > 0;) {  // the innermost comes first
      std::uint64_t extent = 0;
      if (auto ok = take(extent); !ok) return ok;
      if (extent > INT64_MAX) return about(*name, Errc::overflow, "an extent does not fit");
      extents[d] = static_cast<std::int64_t>(extent);
    }
    entry.shape = Shape(std::span(extents.data(), dimensions));
    if (!entry.shape.valid()) return about(*name, Errc::overflow, "a tensor of more elements than can be addressed");
    std::uint64_t offset = 0;
    if (auto ok = take(number); !ok) return ok;
    if (auto ok = take(offset); !ok) return ok;
    if (auto ok = read_format(entry, number); !ok) return ok;
    if (offset % made_.alignment_ != 0)
      return about(*name, Errc::misaligned, "a tensor's offset is a multiple of the file's alignment");
    entry.offset = static_cast<std::size_t>(offset);  // from the beginning of the data, which is not known yet
    return made_.entries_.push(entry);
  }

  Status read_format(TensorEntry& entry, std::uint32_t number) noexcept {
    const bool known = number < std::size(k_formats);
    const Format format = known ? k_formats[number] : Format{};
    if (format.elements == 0) {
      Text name;
      ((name += entry.name) += ", type ") += static_cast<std::int64_t>(number);
      if (known) ((name += " (") += format.name) += ")";
      return about(name.view(), Errc::unsupported,
                   known ? "a retired tensor format" : "a tensor format that is not known");
    }
    entry.type = format.name;
    const std::int64_t row = entry.shape.rank() > 0 ? entry.shape[-1] : 1;
    if (row % format.elements != 0)
      return about(entry.name, Errc::corrupt, "rows that are not whole blocks of their format");
    entry.bytes = entry.shape.numel() / format.elements * format.bytes;  // at most 2^47 elements, of 8 bytes
    return {};
  }

  Status index_names() noexcept {
    std::uint32_t twice = 0;
    auto order = sorted_by(made_.entries_, [](const TensorEntry& e) -> const auto& { return e.name; }, twice);
    if (!order) return fail(order.error());
    if (twice != UINT32_MAX) return about(made_.entries_[twice].name, Errc::corrupt, "two tensors have the same name");
    made_.by_name_ = std::move(*order);
    return {};
  }

  // Each inside the file, none on another's bytes.
  Status place_tensors(Checked begin) noexcept {
    const std::size_t size = made_.file_.bytes().size();
    for (TensorEntry& entry : made_.entries_) {
      const Checked at = begin + entry.offset, end = at + entry.bytes;
      if (!end.ok()) return about(entry.name, Errc::overflow, "a tensor's offset does not fit");
      if (end.value_or(0) > size) return about(entry.name, Errc::corrupt, "a tensor's bytes are not inside the file");
      entry.offset = static_cast<std::size_t>(at.value_or(0));
    }
    std::uint32_t same_place = 0;  // allowed where nothing is stored
    auto order = sorted_by(made_.entries_, [](const TensorEntry& e) -> const auto& { return e.offset; }, same_place);
    if (!order) return fail(order.error());
    std::size_t end = 0;
    for (const std::uint32_t i : *order) {
      const TensorEntry& entry = made_.entries_[i];
      if (entry.bytes == 0) continue;
      if (entry.offset < end) return about(entry.name, Errc::corrupt, "two tensors share bytes");
      end = entry.offset + entry.bytes;
    }
    return {};
  }

  std::string_view path_;
  std::span<const std::byte> rest_;
  Gguf made_;
};

const TensorEntry* Gguf::find(std::string_view name) const noexcept {
  const auto* found =
      std::lower_bound(by_name_.begin(), by_name_.end(), name,
                       [&](std::uint32_t i, std::string_view wanted) { return entries_[i].name < wanted; });
  return found == by_name_.end() || entries_[*found].name != name ? nullptr : &entries_[*found];
}

Result<Tensor> Gguf::tensor(std::string_view name) const noexcept {
  if (auto there = whole(); !there) return fail(there.error().about(name));
  const TensorEntry* entry = find(name);
  if (!entry) return fail(Errc::not_found, "gguf", "no tensor of this name", name);
  const Format& format = *format_of(entry->type);
  if (!format.usable) {
    Text subject;
    ((subject += name) += ", ") += entry->type;
    return fail(Errc::unsupported, "gguf", "tensors do not have this format", subject.view());
  }
  return Tensor(file_.bytes().data() + entry->offset, format.dtype, Layout::dense(entry->shape), file_.lifetime());
}

Result<Gguf> read_gguf(std::string_view path) noexcept { return GgufReader(path).read(); }

int gguf_format(DType dtype) noexcept {
  const auto* found = std::find_if(std::begin(k_formats), std::end(k_formats),
                                   [&](const Format& format) { return format.usable && format.dtype == dtype; });
  return found == std::end(k_formats) ? -1 : static_cast<int>(found - std::begin(k_formats));
}

Result<Gguf> gguf_of(MappedFile file, std::string_view path, std::span<const std::byte> metadata, std::uint64_t entries,
                     std::span<const GgufLine> lines, std::uint32_t alignment) noexcept {
  return GgufReader(path).assemble(std::move(file), metadata, entries, lines, alignment);
}

}  // namespace qorus::io
