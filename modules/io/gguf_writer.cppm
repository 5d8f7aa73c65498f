// Writing of GGUF, version 3: metadata, then the table, then the tensors one after the other, so that a file of any size is written with
// the memory of its largest piece.
export module qorus.io:gguf_writer;
import qorus.std;
import qorus.tensor;
import :gguf;

export namespace qorus::io {

// Metadata as GGUF files have it, put together entry by entry.
class GgufMetadata {
 public:
  // Errors of all: invalid_argument (a key that is not UTF-8, or empty; after close), out_of_memory.
  [[nodiscard]] Status put(std::string_view key, std::uint32_t value) noexcept;
  [[nodiscard]] Status put(std::string_view key, std::int32_t value) noexcept;
  [[nodiscard]] Status put(std::string_view key, std::uint64_t value) noexcept;
  [[nodiscard]] Status put(std::string_view key, float value) noexcept;
  [[nodiscard]] Status put_bool(std::string_view key, bool value) noexcept;
  [[nodiscard]] Status put_text(std::string_view key, std::string_view value) noexcept;
  [[nodiscard]] Status put(std::string_view key, std::span<const std::string_view> texts) noexcept;
  [[nodiscard]] Status put(std::string_view key, std::span<const std::int32_t> numbers) noexcept;
  [[nodiscard]] Status put(std::string_view key, std::span<const float> numbers) noexcept;
  // An entry of another file as it is.
  [[nodiscard]] Status put(const GgufEntry& entry) noexcept;

  // No more entries. Errors: invalid_argument (a key twice).
  [[nodiscard]] Status close() noexcept;
  [[nodiscard]] std::size_t count() const noexcept { return keys_.size(); }
  [[nodiscard]] std::span<const std::byte> bytes() const noexcept { return entries_.span(); }

 protected:
  struct Name {
    std::size_t offset, size;  // within the bytes
  };
  // Sorts the names. Errors: invalid_argument.
  [[nodiscard]] static Status check_once(List<Name>& names, const List<std::byte>& bytes) noexcept;

  List<std::byte> entries_;  // as they will stand in the file
  List<Name> keys_;
  std::uint64_t alignment_ = 32;
  bool begun_ = false;

 private:
  [[nodiscard]] Status put_bytes(std::string_view key, GgufType type, std::span<const std::byte> value) noexcept;
  [[nodiscard]] Status put_array(std::string_view key, GgufType type, std::size_t count,
                                 std::span<const std::byte> values) noexcept;
  [[nodiscard]] Status put_texts(std::string_view key, std::span<const std::string_view> texts) noexcept;
  [[nodiscard]] Status put_key(std::string_view key, GgufType type) noexcept;
};

// `put` the metadata and `declare` every tensor, in the order in which they shall stand; then `begin`; then `write` every tensor's
// bytes, in that order, in pieces as it pleases; then `commit`. Out of order is invalid_argument. The file is replaced as a whole or not at
// all (AtomicFile). Data begins at multiples of 32, or of what "general.alignment" says, if it is put first. Movable.
class GgufWriter : public GgufMetadata {
 public:
  // Errors: not_found (no such folder), io.
  [[nodiscard]] static Result<GgufWriter> create(std::string_view path) noexcept;

  // Shape outermost first, at most 4 extents. Errors: invalid_argument (as of put), unsupported (more extents, u8), invalid_size (rows that
  // are not whole blocks), out_of_memory.
  [[nodiscard]] Status declare(std::string_view name, DType dtype, const Shape& shape) noexcept;
  // Writes header and table. Errors: io, overflow, invalid_argument (a key or a name twice).
  [[nodiscard]] Status begin() noexcept;
  // Appends to the tensor at hand; with its last byte the next one's turn comes. Errors: io; invalid_argument (more than it has).
  [[nodiscard]] Status write(std::span<const std::byte> bytes) noexcept;
  // Errors: invalid_argument (a tensor is not complete), io.
  [[nodiscard]] Status commit() noexcept;

 private:
  struct Piece {
    std::size_t bytes, padding;  // after it
  };
  explicit GgufWriter(AtomicFile file) noexcept : file_(std::move(file)) {}
  [[nodiscard]] Status write_padding(std::size_t bytes) noexcept;
  void skip_empty() noexcept {  // tensors of no elements
    while (piece_ < pieces_.size() && pieces_[piece_].bytes == 0) ++piece_;
  }

  AtomicFile file_;
  List<std::byte> table_;  // as it will stand in the file
  List<Name> names_;
  List<Piece> pieces_;
  std::uint64_t offset_ = 0;
  std::size_t piece_ = 0, done_ = 0;  // the tensor at hand, and how much of it is written
};

}  // namespace qorus::io
