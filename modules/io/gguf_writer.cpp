// Bodies of qorus.io:gguf_writer. The layout is told where it is read (gguf.cpp).
module qorus.io;
import qorus.std;
import :json;
import :gguf_format;

namespace qorus::io {
namespace {

constexpr const char* k_op = "write_gguf";
constexpr std::uint32_t k_version = 3;

tl::unexpected<Error> refuse(const char* text, std::string_view subject = {}) noexcept {
  return fail(Errc::invalid_argument, k_op, text, subject);
}

// Appends to bytes; after a failure nothing more.
class Into {
 public:
  explicit Into(List<std::byte>& bytes) noexcept : bytes_(&bytes) {}
  Into& operator<<(std::span<const std::byte> more) noexcept {
    if (status_) status_ = bytes_->append(more);
    return *this;
  }
  template <class T>
  Into& number(T value) noexcept {
    return *this << std::as_bytes(std::span(&value, 1));
  }
  Into& text(std::string_view text) noexcept {
    return number(std::uint64_t{text.size()}) << std::as_bytes(std::span(text.data(), text.size()));
  }
  [[nodiscard]] const Status& status() const noexcept { return status_; }

 private:
  List<std::byte>* bytes_;
  Status status_;
};

// Whether the name may stand in a file: what read_gguf takes.
bool is_name(std::string_view name, std::uint64_t most) noexcept {
  if (name.empty() || name.size() > most || !is_utf8(name)) return false;
  for (; !name.empty(); name.remove_prefix(1)) {
    if (is_control(name)) return false;
  }
  return true;
}

}  // namespace

Result<GgufWriter> GgufWriter::create(std::string_view path) noexcept {
  auto file = AtomicFile::create(path);
  if (!file) return fail(file.error());
  return GgufWriter(std::move(*file));
}

Status GgufMetadata::put_key(std::string_view key, GgufType type) noexcept {
  if (begun_) return refuse("metadata after begin", key);
  if (!is_name(key, k_gguf_limits.key)) return refuse("a key is UTF-8 without control characters", key);
  if (auto pushed = keys_.push({entries_.size() + sizeof(std::uint64_t), key.size()}); !pushed) return pushed;
  return Into(entries_).text(key).number(static_cast<std::uint32_t>(type)).status();
}

Status GgufMetadata::put_bytes(std::string_view key, GgufType type, std::span<const std::byte> value) noexcept {
  if (auto done = put_key(key, type); !done) return done;
  return (Into(entries_) << value).status();
}

Status GgufMetadata::put_array(std::string_view key, GgufType type, std::size_t count,
                               std::span<const std::byte> values) noexcept {
  if (auto done = put_key(key, GgufType::array); !done) return done;
  return (Into(entries_).number(static_cast<std::uint32_t>(type)).number(std::uint64_t{count}) << values).status();
}

Status GgufMetadata::put_texts(std::string_view key, std::span<const std::string_view> texts) noexcept {
  if (auto done = put_array(key, GgufType::text, texts.size(), {}); !done) return done;
  Into into(entries_);
  for (const std::string_view text : texts) into.text(text);
  return into.status();
}

Status GgufMetadata::put(std::string_view key, std::uint32_t value) noexcept {
  if (key == "general.alignment") {
    if (value < 8 || value > k_gguf_limits.alignment || (value & (value - 1)) != 0)
      return refuse("an alignment is a power of two from 8 on", key);
    alignment_ = value;
  }
  return put_bytes(key, GgufType::u32, std::as_bytes(std::span(&value, 1)));
}
Status GgufMetadata::put(std::string_view key, std::int32_t value) noexcept {
  return put_bytes(key, GgufType::i32, std::as_bytes(std::span(&value, 1)));
}
Status GgufMetadata::put(std::string_view key, std::uint64_t value) noexcept {
  return put_bytes(key, GgufType::u64, std::as_bytes(std::span(&value, 1)));
}
Status GgufMetadata::put(std::string_view key, float value) noexcept {
  return put_bytes(key, GgufType::f32, std::as_bytes(std::span(&value, 1)));
}
Status GgufMetadata::put_bool(std::string_view key, bool value) noexcept {
  return put_bytes(key, GgufType::boolean, std::as_bytes(std::span(&value, 1)));
}
Status GgufMetadata::put_text(std::string_view key, std::string_view value) noexcept {
  if (auto done = put_key(key, GgufType::text); !done) return done;
  return Into(entries_).text(value).status();
}
Status GgufMetadata::put(std::string_view key, std::span<const std::string_view> texts) noexcept {
  return put_texts(key, texts);
}
Status GgufMetadata::put(std::string_view key, std::span<const std::int32_t> numbers) noexcept {
  return put_array(key, GgufType::i32, numbers.size(), std::as_bytes(numbers));
}
Status GgufMetadata::put(std::string_view key, std::span<const float> numbers) noexcept {
  return put_array(key, GgufType::f32, numbers.size(), std::as_bytes(numbers));
}

Status GgufMetadata::put(const GgufEntry& entry) noexcept {
  const bool text = entry.type == GgufType::text;
  if (entry.array && text) return put_texts(entry.key, entry.texts.span());
  if (text) return put_text(entry.key, entry.text);
  if (entry.key == "general.alignment" && entry.type == GgufType::u32 && !entry.array) {
    std::uint32_t value = 0;
    std::memcpy(&value, entry.data, sizeof value);
    return put(entry.key, value);
  }
  const std::span<const std::byte> bytes(entry.data, entry.count * k_widths[static_cast<std::size_t>(entry.type)]);
  return entry.array ? put_array(entry.key, entry.type, entry.count, bytes) : put_bytes(entry.key, entry.type, bytes);
}

Status GgufWriter::declare(std::string_view name, DType dtype, const Shape& shape) noexcept {
  if (begun_) return refuse("a tensor after begin", name);
  if (!is_name(name, k_gguf_limits.name)) return refuse("a name is UTF-8 without control characters", name);
  const int format = gguf_format(dtype);
  if (format < 0) return fail(Errc::unsupported, k_op, "the format has no such element type", name);
  const int rank = shape.rank();
  if (rank < 1 || rank > static_cast<int>(k_gguf_limits.dimensions))
    return fail(Errc::unsupported, k_op, "1 to 4 extents", name);
  if (!shape.valid() || static_cast<std::size_t>(shape[rank - 1]) % block_size(dtype) != 0)
    return fail(fail(Errc::invalid_size, k_op, "rows must be whole blocks", shape.dims()).value().about(name));
  const std::size_t bytes = row_bytes(dtype, shape.numel());
  const Checked end = Checked(offset_) + bytes;
  const Checked next = end.aligned(static_cast<std::size_t>(alignment_));
  if (!next.ok()) return fail(Errc::overflow, k_op, "the sum of all sizes does not fit 64 bits", name);
  if (auto pushed = names_.push({table_.size() + sizeof(std::uint64_t), name.size()}); !pushed) return pushed;
  if (auto pushed = pieces_.push({bytes, static_cast<std::size_t>(next.value_or(0) - end.value_or(0))}); !pushed)
    return pushed;
  Into into(table_);
  into.text(name).number(static_cast<std::uint32_t>(rank));
  for (int d = rank; d-- > 0;) into.number(static_cast<std::uint64_t>(shape[d]));
  into.number(static_cast<std::uint32_t>(format)).number(offset_);
  offset_ = next.value_or(0);
  return into.status();
}

Status GgufMetadata::check_once(List<Name>& names, const List<std::byte>& bytes) noexcept {
  const auto text = [&](const Name& name) {
    return std::string_view(reinterpret_cast<const char*>(bytes.data()) + name.offset, name.size);
  };
  std::sort(names.begin(), names.end(), [&](const Name& a, const Name& b) { return text(a) < text(b); });
  const auto* twice =
      std::adjacent_find(names.begin(), names.end(), [&](const Name& a, const Name& b) { return text(a) == text(b); });
  return twice == names.end() ? Status() : refuse("a name stands twice", text(*twice));
}

Status GgufMetadata::close() noexcept {
  if (auto good = check_once(keys_, entries_); !good) return good;
  begun_ = true;
  return {};
}

Status GgufWriter::begin() noexcept {
  if (begun_) return refuse("begun before");
  if (auto good = check_once(names_, table_); !good) return good;
  if (auto good = close(); !good) return good;
  List<std::byte> header;
  Into into(header);
  into << std::as_bytes(std::span("GGUF", 4));
  into.number(k_version).number(std::uint64_t{pieces_.size()}).number(std::uint64_t{keys_.size()});
  if (!into.status()) return into.status();
  for (const auto* part : {&header, &entries_, &table_}) {
    if (auto done = file_.write(part->span()); !done) return done;
  }
  const std::size_t size = header.size() + entries_.size() + table_.size();
  return write_padding((static_cast<std::size_t>(alignment_) - size % alignment_) % alignment_);
}

Status GgufWriter::write_padding(std::size_t bytes) noexcept {
  constexpr std::size_t k_piece = 256;
  const std::byte zeros[k_piece]{};
  for (; bytes > 0; bytes -= std::min(bytes, k_piece)) {
    if (auto done = file_.write(std::span(zeros, std::min(bytes, k_piece))); !done) return done;
  }
  return {};
}

Status GgufWriter::write(std::span<const std::byte> bytes) noexcept {
  if (!begun_) return refuse("a tensor's bytes before begin");
  if (bytes.empty()) return {};
  skip_empty();
  if (piece_ == pieces_.size() || bytes.size() > pieces_[piece_].bytes - done_)
    return refuse("more bytes than the tensor has");
  if (auto done = file_.write(bytes); !done) return done;
  done_ += bytes.size();
  if (done_ < pieces_[piece_].bytes) return {};
  done_ = 0;
  return write_padding(pieces_[piece_++].padding);
}

Status GgufWriter::commit() noexcept {
  skip_empty();
  if (!begun_ || piece_ < pieces_.size()) return refuse("not complete");
  return file_.commit();
}

}  // namespace qorus::io
