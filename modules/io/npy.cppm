// npy, the array files of NumPy (https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html), and npz, zip archives of them.
export module qorus.io:npy;
import qorus.std;
import qorus.tensor;

export namespace qorus::io {

// One array, in row-major order whatever the file's: f2, f4, i4, i1, u1 as they are; f8 becomes f32; bool becomes u8; i2 and
// u2 become i32, and so do i8, u4 and u8 where all numbers fit. Versions 1 to 3, little-endian. Errors, with the file's name:
// not_found, io, corrupt (not npy, a broken header, fewer or more bytes than the shape needs), unsupported (another type, big
// endian, more than 6 dimensions), overflow (too many elements, a number outside i32), out_of_memory.
[[nodiscard]] Result<Owned> read_npy(std::string_view path) noexcept;

// Any tensor but a bf16 one, version 1, row-major; the file is replaced as a whole or not at all (AtomicFile). Allocates a copy
// of a tensor that is not contiguous. Errors: invalid_dtype, stale_tensor, invalid_size, not_found (no such folder), io.
[[nodiscard]] Status write_npy(std::string_view path, const Tensor& tensor) noexcept;

// What stands before the elements of such a file, a multiple of 64 bytes; empty for a type that npy does not have (bf16, blocks).
[[nodiscard]] Text npy_header(DType dtype, const Shape& shape) noexcept;

// An npy file whose array is used where it lies, however large: nothing is copied or read until it is looked at. Tensors are stale once
// this is gone. For data sets beyond memory: `data::Examples(inputs->tensor(), targets->tensor())`.
class MappedNpy {
 public:
  // Errors: as read_npy; unsupported (numbers that would have to be converted, turned round or moved: f2, f4, i4, i1 and u1 in row-major
  // order do not, as NumPy writes them).
  [[nodiscard]] static Result<MappedNpy> open(std::string_view path) noexcept;
  [[nodiscard]] const Tensor& tensor() const noexcept { return tensor_; }

 private:
  MappedFile file_;
  Tensor tensor_;
};

// The arrays of an npz file (numpy.savez and savez_compressed), by name. Entries stored or deflated, zip64 as well; checked by their CRC-32.
class Npz {
 public:
  // Maps the file and reads its directory. Errors: not_found, io, corrupt, unsupported (parts on other disks), out_of_memory.
  [[nodiscard]] static Result<Npz> open(std::string_view path) noexcept;
  [[nodiscard]] std::size_t size() const noexcept { return entries_.size(); }
  // Without ".npy"; as long as this lives.
  [[nodiscard]] std::string_view name(std::size_t i) const noexcept { return entries_[i].name; }
  // Errors: not_found (no array of this name), and those of read_npy; unsupported also: encryption, another compression. An entry takes no
  // more memory than its compressed bytes can hold.
  [[nodiscard]] Result<Owned> read(std::string_view name) const noexcept;

 private:
  struct Entry {
    std::string_view name;
    std::uint64_t offset, packed, size;  // of its local header; bytes in the file, and unpacked
    std::uint32_t crc;
    std::uint16_t method, flags;
  };
  [[nodiscard]] Status read_directory() noexcept;
  [[nodiscard]] tl::unexpected<Error> broken(const char* text, Errc code = Errc::corrupt) const noexcept;
  MappedFile file_;
  Text path_;
  List<Entry> entries_;
};

}  // namespace qorus::io

// Within the module only.
namespace qorus::io {
// The array of an npy file's bytes; `path` is for errors.
[[nodiscard]] Result<Owned> npy_of(std::span<const std::byte> bytes, std::string_view path) noexcept;
}  // namespace qorus::io
