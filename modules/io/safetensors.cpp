// Reading of qorus.io:safetensors. Layout: u64 header length n, little-endian; n bytes of JSON
// {"name": {"dtype": "F32", "shape": [2, 3], "data_offsets": [begin, end]}, …, "__metadata__": {"key": "text"}}; the data.
module;
#include <cstdint>
module qorus.io;
import qorus.std;
import qorus.trust;
import :json;

namespace qorus::io {
namespace {

static_assert(std::endian::native == std::endian::little, "the files' numbers are used where they lie");

constexpr std::string_view k_metadata = "__metadata__";

// The element types of the format, and whether tensors have them.
struct ElementType {
  std::string_view name;
  std::uint8_t bits = 0;
  bool usable = false;
  DType dtype = DType::f32;
};
constexpr ElementType k_types[] = {{"F32", 32, true, DType::f32},
                                   {"F16", 16, true, DType::f16},
                                   {"BF16", 16, true, DType::bf16},
                                   {"I32", 32, true, DType::i32},
                                   {"I8", 8, true, DType::i8},
                                   {"U8", 8, true, DType::u8},
                                   {"F64", 64},
                                   {"I64", 64},
                                   {"U64", 64},
                                   {"U32", 32},
                                   {"I16", 16},
                                   {"U16", 16},
                                   {"BOOL", 8},
                                   {"F8_E4M3", 8},
                                   {"F8_E5M2", 8},
                                   {"F8_E8M0", 8},
                                   {"C64", 64},
                                   {"F6_E2M3", 6},
                                   {"F6_E3M2", 6},
                                   {"F4", 4}};

// One of no bits if there is none of this name: also where the file changed after its name was read.
ElementType type_of(std::string_view name) noexcept {
  for (const ElementType& type : k_types) {
    if (type.name == name) return type;
  }
  return {};
}

}  // namespace

// Builds the table of one file.
class SafeTensorsReader {
 public:
  explicit SafeTensorsReader(std::string_view path) noexcept : path_(path) {}

  Result<SafeTensors> read() noexcept {
    auto file = MappedFile::open(path_);
    if (!file) return fail(file.error());
    made_.file_ = std::move(*file);
    const Status done = read_table();
    if (auto there = made_.file_.whole("read_safetensors", path_); !there) return fail(there.error());
    if (!done) {
      Error error = done.error();
      error.op = "read_safetensors";
      return fail(error.subject[0] ? error : error.about(path_));
    }
    return std::move(made_);
  }

 private:
  [[nodiscard]] tl::unexpected<Error> corrupt(const char* text) const noexcept {
    return fail(Errc::corrupt, "", text, path_);
  }

  Status read_table() noexcept {
    const auto bytes = made_.file_.bytes();
    std::uint64_t length = 0;
    if (bytes.size() < sizeof length) return corrupt("too short for a header");
    std::memcpy(&length, bytes.data(), sizeof length);
    if (length > limits::safetensors_header) return corrupt("a header of more than 100 MB");
    if (length > bytes.size() - sizeof length) return corrupt("the file ends within its header");
    data_begin_ = sizeof length + static_cast<std::size_t>(length);
    header_ = {reinterpret_cast<const char*>(bytes.data()) + sizeof length, static_cast<std::size_t>(length)};
    if (header_.empty() || header_[0] != '{') return corrupt("the header does not begin with {");
    if (auto ok = read_header(); !ok) return ok;
    if (auto ok = check_extents(); !ok) return ok;
    return index_names();
  }

  Status read_header() noexcept {
    Json json(header_);
    static_cast<void>(json.open('{'));  // it begins with one
    if (auto ok = made_.entries_.reserve(count_tensors()); !ok) return ok;
    for (bool first = true;; first = false) {
      const auto more = json.more('{', first);
      if (!more) return fail(more.error());
      if (!*more) return json.finish();
      const auto key = json.key();
      if (!key) return fail(key.error());
      const auto name = text(*key);
      if (!name) return fail(name.error());
      if (auto ok = *name == k_metadata ? read_metadata(json) : read_entry(json, *name); !ok) return ok;
    }
  }

  // At least as many as there are, so that the table grows only once.
  [[nodiscard]] std::size_t count_tensors() const noexcept {
    constexpr std::string_view k_mark = "\"data_offsets\"";
    std::size_t count = 0;
    for (auto at = header_.find(k_mark); at != header_.npos; at = header_.find(k_mark, at + k_mark.size())) ++count;
    return count;
  }

  Status read_metadata(Json& json) noexcept {
    if (std::exchange(has_metadata_, true)) return corrupt("__metadata__ stands twice");
    if (auto ok = json.open('{'); !ok) return ok;
    for (bool first = true;; first = false) {
      const auto more = json.more('{', first);
      if (!more) return fail(more.error());
      if (!*more) break;
      if (made_.metadata_.size() == limits::safetensors_metadata) return corrupt("more than 65536 texts of metadata");
      const auto raw_key = json.key();
      if (!raw_key) return fail(raw_key.error());
      const auto raw_value = json.string();
      if (!raw_value) return fail(raw_value.error());
      const auto key = text(*raw_key), value = text(*raw_value);
      if (!key || !value) return fail(key ? value.error() : key.error());
      if (auto ok = made_.metadata_.push({*key, *value}); !ok) return ok;
    }
    List<TextPair>& pairs = made_.metadata_;
    sort_mapped(pairs.begin(), pairs.end(), [](const TextPair& a, const TextPair& b) { return a.key < b.key; });
    const auto same = [](const TextPair& a, const TextPair& b) { return a.key == b.key; };
    if (std::adjacent_find(pairs.begin(), pairs.end(), same) != pairs.end())
      return corrupt("a key of the metadata stands twice");
    return {};
  }

  Status read_entry(Json& json, std::string_view name) noexcept {
    enum : unsigned { k_dtype = 1, k_shape = 2, k_offsets = 4 };
    TensorEntry entry{.name = name};
    unsigned seen = 0;
    if (auto ok = json.open('{'); !ok) return ok;
    for (bool first = true;; first = false) {
      const auto more = json.more('{', first);
      if (!more) return fail(more.error());
      if (!*more) break;
      const auto key = json.key();
      if (!key) return fail(key.error());
      const unsigned field = key->raw == "dtype"          ? k_dtype
                             : key->raw == "shape"        ? k_shape
                             : key->raw == "data_offsets" ? k_offsets
                                                          : 0;
      if (field == 0) return corrupt("a tensor has dtype, shape and data_offsets, nothing else");
      if (seen & field) return corrupt("a tensor has a field twice");
      seen |= field;
      auto ok = field == k_dtype   ? read_type(json, entry)
                : field == k_shape ? read_shape(json, entry)
                                   : read_offsets(json, entry);
      if (!ok) return ok;
    }
    if (seen != (k_dtype | k_shape | k_offsets)) return corrupt("a tensor lacks its dtype, shape or data_offsets");
    return made_.entries_.push(entry);
  }

  Status read_type(Json& json, TensorEntry& entry) noexcept {
    const auto name = json.string();
    if (!name) return fail(name.error());
    entry.type = name->raw;
    if (type_of(entry.type).bits == 0) return fail(Errc::unsupported, "", "an element type that is not known", path_);
    return {};
  }

  Status read_shape(Json& json, TensorEntry& entry) noexcept {
    std::array<std::int64_t, k_max_rank> extents{};
    std::size_t rank = 0;
    if (auto ok = json.open('['); !ok) return ok;
    while (true) {
      const auto more = json.more('[', rank == 0);
      if (!more) return fail(more.error());
      if (!*more) break;
      const auto extent = json.integer();
      if (!extent) return fail(extent.error());
      if (rank == k_max_rank) return fail(Errc::unsupported, "", "a tensor of more than 6 dimensions", path_);
      if (*extent > INT64_MAX) return fail(Errc::overflow, "", "an extent does not fit", path_);
      extents[rank++] = static_cast<std::int64_t>(*extent);
    }
    entry.shape = Shape(std::span(extents.data(), rank));
    if (!entry.shape.valid()) return fail(Errc::overflow, "", "a tensor of more elements than can be addressed", path_);
    return {};
  }

  Status read_offsets(Json& json, TensorEntry& entry) noexcept {
    std::array<std::uint64_t, 2> range{};
    if (auto ok = json.open('['); !ok) return ok;
    for (std::size_t i = 0;; ++i) {
      const auto more = json.more('[', i == 0);
      if (!more) return fail(more.error());
      if (*more != (i < range.size())) return corrupt("data_offsets are a begin and an end");
      if (i == range.size()) break;
      const auto number = json.integer();
      if (!number) return fail(number.error());
      range[i] = *number;
    }
    const std::size_t size = made_.file_.bytes().size() - data_begin_;
    if (range[0] > range[1] || range[1] > size) return corrupt("a tensor's bytes are not inside the file");
    entry.offset = data_begin_ + static_cast<std::size_t>(range[0]);
    entry.bytes = static_cast<std::size_t>(range[1] - range[0]);
    return {};
  }

  // As many bytes as shape and type say; one after the other, from the first byte of the data to the last.
  Status check_extents() noexcept {
    sort_mapped(made_.entries_.begin(), made_.entries_.end(), [](const TensorEntry& a, const TensorEntry& b) {
      return a.offset != b.offset ? a.offset < b.offset : a.bytes != b.bytes ? a.bytes < b.bytes : a.name < b.name;
    });
    std::size_t end = data_begin_;
    for (const TensorEntry& entry : made_.entries_) {
      const std::uint64_t bits = entry.shape.numel() * type_of(entry.type).bits;  // at most 2^47 elements
      if (bits != std::uint64_t{entry.bytes} * 8) {
        return corrupt("a tensor's bytes are not as many as its shape and type need");
      }
      if (entry.offset < end) return corrupt("two tensors share bytes");
      if (entry.offset > end) return corrupt("bytes that belong to no tensor");
      end += entry.bytes;
    }
    if (end != made_.file_.bytes().size()) return corrupt("bytes that belong to no tensor");
    return {};
  }

  Status index_names() noexcept {
    const auto entries = made_.entries_.span();
    if (auto ok = made_.by_name_.resize(entries.size()); !ok) return ok;
    for (std::size_t i = 0; i < entries.size(); ++i) made_.by_name_[i] = static_cast<std::uint32_t>(i);
    const auto name = [&](std::uint32_t i) { return entries[i].name; };
    sort_mapped(made_.by_name_.begin(), made_.by_name_.end(), [&](auto a, auto b) { return name(a) < name(b); });
    const auto* twice = std::adjacent_find(made_.by_name_.begin(), made_.by_name_.end(),
                                           [&](auto a, auto b) { return name(a) == name(b); });
    return twice == made_.by_name_.end() ? Status{} : corrupt("two tensors have the same name");
  }

  // What a string means: in the file itself, or, if it has escapes, in a buffer that is as long as all of them at most.
  Result<std::string_view> text(const JsonString& string) noexcept {
    if (!string.escaped) return string.raw;
    List<char>& buffer = made_.decoded_;
    if (buffer.data() == nullptr) {
      if (auto ok = buffer.reserve(header_.size()); !ok) return fail(ok.error());
    }
    const std::size_t begin = buffer.size();
    if (auto ok = decode(string, buffer); !ok) return fail(ok.error());
    return std::string_view(buffer.data() + begin, buffer.size() - begin);
  }

  std::string_view path_, header_;
  std::size_t data_begin_ = 0;
  bool has_metadata_ = false;
  SafeTensors made_;
};

const TensorEntry* SafeTensors::find(std::string_view name) const noexcept {
  const auto* found =
      std::lower_bound(by_name_.begin(), by_name_.end(), name,
                       [&](std::uint32_t i, std::string_view wanted) { return entries_[i].name < wanted; });
  if (found == by_name_.end() || entries_[*found].name != name) return nullptr;
  return &entries_[*found];
}

Result<Tensor> SafeTensors::tensor(std::string_view name) const noexcept {
  if (auto there = whole(); !there) return fail(there.error().about(name));
  const TensorEntry* entry = find(name);
  if (!entry) return fail(Errc::not_found, "safetensors", "no tensor of this name", name);
  const ElementType type = type_of(entry->type);
  if (!type.usable) return fail(Errc::unsupported, "safetensors", "tensors do not have this element type", name);
  if (row_bytes(type.dtype, entry->shape.numel()) != entry->bytes)  // checked before, when its type was another
    return fail(Errc::io, "safetensors", "the file changed while it was open", name);
  const std::byte* data = file_.bytes().data() + entry->offset;
  if (reinterpret_cast<std::uintptr_t>(data) % size_of(type.dtype) != 0) {
    return fail(Errc::misaligned, "safetensors", "not at a multiple of its element's size: copy() takes it", name);
  }
  return Tensor(data, type.dtype, Layout::dense(entry->shape), file_.lifetime());
}

Result<Owned> SafeTensors::copy(std::string_view name) const noexcept {
  auto there = whole();
  if (!there) return fail(there.error().about(name));
  const TensorEntry* entry = find(name);
  if (!entry) return fail(Errc::not_found, "safetensors", "no tensor of this name", name);
  const ElementType type = type_of(entry->type);
  if (!type.usable) return fail(Errc::unsupported, "safetensors", "tensors do not have this element type", name);
  if (row_bytes(type.dtype, entry->shape.numel()) != entry->bytes)  // checked before, when its type was another
    return fail(Errc::io, "safetensors", "the file changed while it was open", name);
  auto kept = keep(Tensor(file_.bytes().data() + entry->offset, type.dtype, Layout::dense(entry->shape), {}));
  there = whole();
  return there ? std::move(kept) : fail(there.error().about(name));
}

Result<std::string_view> SafeTensors::text(std::string_view key) const noexcept {
  const auto* found = std::lower_bound(metadata_.begin(), metadata_.end(), key,
                                       [](const TextPair& pair, std::string_view wanted) { return pair.key < wanted; });
  if (found != metadata_.end() && found->key == key) return found->value;
  return fail(Errc::not_found, "safetensors", "no metadata of this name", key);
}

Result<SafeTensors> read_safetensors(std::string_view path) noexcept { return SafeTensorsReader(path).read(); }

}  // namespace qorus::io
