// safetensors (https://huggingface.co/docs/safetensors): a table of named tensors and their bytes. Read by mapping, written so
// that the old file or the new one is there at any moment.
export module qorus.io:safetensors;
import qorus.std;
import qorus.tensor;

export namespace qorus::io {

// A line of the table. The texts live as long as the SafeTensors they come from.
struct TensorEntry {
  std::string_view name;
  std::string_view type;  // as the format spells it: "F32", "BF16", "I64", …
  Shape shape;
  std::size_t offset = 0, bytes = 0;  // within the file
};
struct TextPair {
  std::string_view key, value;
};

// An open file. Its tensors are views of the mapped bytes: valid as long as it lives, and they stay so when it is moved.
class SafeTensors {
 public:
  SafeTensors() noexcept = default;

  [[nodiscard]] const List<TensorEntry>& entries() const noexcept { return entries_; }  // in the order of their data
  [[nodiscard]] const List<TextPair>& metadata() const noexcept { return metadata_; }   // sorted by key
  [[nodiscard]] const TensorEntry* find(std::string_view name) const noexcept;          // null if there is none
  // Errc::io if the file has shrunk, or could not be read, since it was opened: tensors may have been read as zeros then.
  [[nodiscard]] Status whole() const noexcept { return file_.whole("safetensors", {}); }
  // A view, no copy. Errors: io (of whole()), not_found, unsupported (an element type that tensors do not have: F64, I64, BOOL, …), misaligned
  // (bytes that do not stand at a multiple of their element's size: copy() takes them).
  [[nodiscard]] Result<Tensor> tensor(std::string_view name) const noexcept;
  // The same elements in memory of their own. Errors: io, not_found, unsupported, out_of_memory.
  [[nodiscard]] Result<Owned> copy(std::string_view name) const noexcept;
  // The text under a key of the metadata. Errors: not_found.
  [[nodiscard]] Result<std::string_view> text(std::string_view key) const noexcept;

 private:
  friend class SafeTensorsReader;

  MappedFile file_;
  List<TensorEntry> entries_;
  List<std::uint32_t> by_name_;  // indices of entries_, sorted by name
  List<TextPair> metadata_;
  List<char> decoded_;  // texts that the file spells with escapes
};

// Maps a file and checks all of it: a header of at most 100 MB that is strict JSON (no duplicate names, no unknown keys), every
// tensor's bytes as many as its shape and type need, all of them inside the file, without overlap and without a hole, as the
// reference implementation demands. Memory: at most about 4 times the header. Errors, with the file's name: not_found, io,
// corrupt, overflow, unsupported (more than 6 dimensions, an unknown element type), out_of_memory.
[[nodiscard]] Result<SafeTensors> read_safetensors(std::string_view path) noexcept;

struct NamedTensor {
  std::string_view name;
  Tensor tensor;
};
// An element type as the format spells it; empty for block formats.
[[nodiscard]] std::string_view safetensors_type(DType dtype) noexcept;

// Writes all tensors, in the given order but wide elements before narrow ones, so that each is aligned; the data begins at a
// multiple of 64. The same arguments give the same bytes. The file is replaced as a whole or not at all (AtomicFile). Allocates
// the header, and a copy of a tensor that is not contiguous. Errors: invalid_argument (a name twice, or not UTF-8, or
// "__metadata__"), invalid_dtype (a block format), stale_tensor, invalid_size, out_of_memory, not_found (no such folder), io (a full disk, no permission).
[[nodiscard]] Status write_safetensors(std::string_view path, std::span<const NamedTensor> tensors,
                                       std::span<const TextPair> metadata = {}) noexcept;

}  // namespace qorus::io
