// Writing of safetensors tensor by tensor, for files of any size.
export module qorus.formats:safetensors_writer;
import qorus.std;
import qorus.tensor;
import qorus.io;

export namespace qorus::formats {

// `put` texts and `declare` every tensor, wide elements before narrow ones so that all are aligned; `begin`; `write` all bytes in that order;
// `commit`. The data begins at a multiple of 64. The file is replaced as a whole or not at all.
class SafetensorsWriter {
 public:
  // Errors: not_found (no such folder), io.
  [[nodiscard]] static Result<SafetensorsWriter> create(std::string_view path) noexcept;
  // Errors of both: invalid_argument (after begin, not UTF-8, empty), out_of_memory; of declare also invalid_dtype (a block format).
  [[nodiscard]] Status put(std::string_view key, std::string_view text) noexcept;
  [[nodiscard]] Status declare(std::string_view name, DType dtype, const Shape& shape) noexcept;
  // Errors: io.
  [[nodiscard]] Status begin() noexcept;
  // Errors: io; invalid_argument (before begin, or more than was declared).
  [[nodiscard]] Status write(std::span<const std::byte> bytes) noexcept;
  // Errors: io; invalid_argument (not complete).
  [[nodiscard]] Status commit() noexcept;
  [[nodiscard]] std::uint64_t bytes() const noexcept { return end_; }  // of the tensors declared

 private:
  explicit SafetensorsWriter(AtomicFile file) noexcept : file_(std::move(file)) {}
  AtomicFile file_;
  List<char> texts_, table_;
  std::uint64_t end_ = 0, done_ = 0;
  bool begun_ = false;
};

}  // namespace qorus::formats
