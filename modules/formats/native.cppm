// `.qorus`, the native format: a model in one file that is mapped and used as it lies. FORMAT.md beside this file specifies it.
export module qorus.formats:native;
import qorus.std;
import qorus.nn;
import qorus.io;

export namespace qorus::formats {

// A matrix (of a tensor of three extents: all its matrices, one below the other) in the order that products read, as ops::pack_weight makes it.
struct LaidOut {
  std::string_view name;
  std::int64_t rows = 0, columns = 0;
  Tensor bytes;  // u8
};

// An open file: GGUF's metadata and tensors, views of the mapped bytes, and matrices laid out ahead, if it has some that this version reads.
struct Native {
  io::Gguf gguf;
  List<LaidOut> laid_out;  // sorted by name

  [[nodiscard]] const LaidOut* find_laid_out(std::string_view name) const noexcept;  // null if there is none
};

// Whether a file begins as these do.
[[nodiscard]] bool is_native(std::span<const std::byte> bytes) noexcept;
// Maps a file and checks header, table and metadata; the tensors' bytes are not read. Errors, with the file's name: those of read_gguf;
// unsupported (a later version), corrupt (also a header or table that does not fit its checksum, a file of another length than it says).
[[nodiscard]] Result<Native> read_native(std::string_view path) noexcept;
// The same, and every byte against its checksum. Errors: also corrupt (the tensor's name).
[[nodiscard]] Status verify_native(std::string_view path) noexcept;

// Used like io::GgufWriter: `put` the metadata, `declare` the tensors, then those that are to be laid out; `begin`; `write` all bytes in that
// order; `commit`.
class NativeWriter : public io::GgufMetadata {
 public:
  // Errors: not_found (no such folder), io.
  [[nodiscard]] static Result<NativeWriter> create(std::string_view path) noexcept;

  // Errors: invalid_argument (after begin; a name of no characters or more than 255 bytes), unsupported (u8, more than 4 extents),
  // invalid_size (rows that are not whole blocks), overflow, out_of_memory.
  [[nodiscard]] Status declare(std::string_view name, DType dtype, const Shape& shape) noexcept;
  // Another copy of the index-th tensor, laid out: as many bytes as laid_out_bytes says. Errors: invalid_argument (it cannot be).
  [[nodiscard]] Status declare_laid_out(std::size_t index) noexcept;
  // Writes header, metadata and table. Errors: io; invalid_argument (a key or a name twice).
  [[nodiscard]] Status begin() noexcept;
  // Errors: io; invalid_argument (out of order, or more than was declared).
  [[nodiscard]] Status write(std::span<const std::byte> bytes) noexcept;
  // Errors: invalid_argument (a tensor is not complete), io.
  [[nodiscard]] Status commit() noexcept;
  // Checksums are made by its workers.
  void use(const Context& context) noexcept { context_ = &context; }

 private:
  struct Line {  // as in the file
    std::uint32_t name = 0;
    std::uint16_t letters = 0, format = 0;
    std::uint8_t rank = 0, layout = 0;
    std::uint16_t zero = 0;
    std::uint32_t of = 0;
    std::array<std::uint64_t, 4> extents{};
    std::uint64_t offset = 0, bytes = 0;
  };
  friend class NativeReader;
  explicit NativeWriter(AtomicFile file) noexcept : file_(std::move(file)) {}
  [[nodiscard]] Status pad(std::uint64_t count) noexcept;
  [[nodiscard]] Status finish_lines() noexcept;

  AtomicFile file_;
  const Context* context_ = nullptr;
  List<Line> lines_;
  List<std::byte> names_;
  List<Name> name_places_;
  List<std::uint32_t> sums_;
  std::uint32_t plain_ = 0, header_sum_ = 0, sum_ = 0;
  std::uint64_t end_ = 0;  // of the data, from its beginning
  std::size_t line_ = 0;
  std::uint64_t done_ = 0;
};

// Bytes of a tensor's matrices laid out for products; 0 if they cannot be: another type, or matrices of three extents whose rows are no
// multiple of 16.
[[nodiscard]] std::size_t laid_out_bytes(DType dtype, const Shape& shape) noexcept;
// CRC-32 (zlib's), by all workers of a context.
[[nodiscard]] std::uint32_t checksum(const Context* context, std::span<const std::byte> bytes) noexcept;

}  // namespace qorus::formats
