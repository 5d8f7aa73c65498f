// Writing of npz, NumPy's archives of arrays: zip files (https://pkware.cachefly.net/webdocs/casestudies/APPNOTE.TXT) of npy files, stored.
export module qorus.formats:npz;
import qorus.std;
import qorus.tensor;
import qorus.io;

export namespace qorus::formats {

// Arrays one after the other, stored: `begin`, `write` its bytes in pieces, `begin` the next; `commit`. zip64 where it is needed.
class NpzWriter {
 public:
  // Errors: not_found (no such folder), io.
  [[nodiscard]] static Result<NpzWriter> create(std::string_view path) noexcept;
  // Errors: invalid_argument (the array before is not complete; a name that is empty, too long or there already), invalid_dtype, io.
  [[nodiscard]] Status begin(std::string_view name, DType dtype, const Shape& shape) noexcept;
  // Errors: invalid_argument (more than it has), io.
  [[nodiscard]] Status write(std::span<const std::byte> bytes) noexcept;
  [[nodiscard]] Status commit() noexcept;

 private:
  struct Entry {
    std::size_t name = 0, letters = 0;
    std::uint64_t offset = 0, bytes = 0;
    std::uint32_t sum = 0;
  };
  explicit NpzWriter(AtomicFile file) noexcept : file_(std::move(file)) {}
  [[nodiscard]] Status put(std::span<const std::byte> bytes) noexcept;
  [[nodiscard]] std::string_view name_of(const Entry& entry) const noexcept {
    return {names_.data() + entry.name, entry.letters};
  }

  AtomicFile file_;
  List<Entry> entries_;
  List<char> names_;
  std::uint64_t offset_ = 0, left_ = 0;
};

}  // namespace qorus::formats
