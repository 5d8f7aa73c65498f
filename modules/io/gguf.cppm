// GGUF (https://github.com/ggml-org/ggml/blob/master/docs/gguf.md), versions 2 and 3, little-endian: metadata under keys, and named
// tensors, plain or in block formats. Read by mapping: nothing is copied, and per tensor nothing is done but its line of the table.
export module qorus.io:gguf;
import qorus.std;
import qorus.tensor;
import qorus.trust;
import :safetensors;

export namespace qorus::io {

// What a file may have at most (qorus::limits); more is Errc::unsupported.
struct GgufLimits {
  std::uint64_t entries = limits::gguf_entries;
  std::uint64_t key = limits::gguf_key;
  std::uint64_t text = limits::gguf_text;
  std::uint64_t array = limits::gguf_array;
  std::uint64_t tensors = limits::gguf_tensors;
  std::uint64_t name = limits::gguf_name;
  std::uint64_t dimensions = limits::gguf_dimensions;
  std::uint64_t alignment = limits::gguf_alignment;
};
inline constexpr GgufLimits k_gguf_limits;

enum class GgufType : std::uint8_t { u8, i8, u16, i16, u32, i32, f32, boolean, text, array, u64, i64, f64 };
[[nodiscard]] std::string_view to_string(GgufType type) noexcept;

// A line of the metadata. Texts and numbers lie in the file and live as long as the Gguf.
struct GgufEntry {
  std::string_view key;
  GgufType type = GgufType::u8;  // of the value, or of an array's elements; never `array`
  bool array = false;
  std::size_t count = 1;            // an array's elements
  const std::byte* data = nullptr;  // the numbers, little-endian, at any address; null for texts
  std::string_view text;            // of a single text
  List<std::string_view> texts;     // of an array of texts

  // The value as a person reads it, shortened: `"llama"`, `[0, 1, 2, …] of 512`.
  [[nodiscard]] Text preview() const noexcept;
};

// An open file. Its tensors are views of the mapped bytes: valid as long as it lives, and they stay so when it is moved.
class Gguf {
 public:
  Gguf() noexcept = default;

  [[nodiscard]] std::uint32_t version() const noexcept { return version_; }
  [[nodiscard]] std::uint32_t alignment() const noexcept { return alignment_; }
  [[nodiscard]] const List<GgufEntry>& metadata() const noexcept { return metadata_; }  // as in the file
  // As in the file's table. Shapes are in our order, outermost first: [out, in] where the file says in, out.
  [[nodiscard]] const List<TensorEntry>& entries() const noexcept { return entries_; }

  // Null if there is none.
  [[nodiscard]] const GgufEntry* metadata(std::string_view key) const noexcept;
  [[nodiscard]] const TensorEntry* find(std::string_view name) const noexcept;
  // Errc::io if the file has shrunk, or could not be read, since it was opened: tensors may have been read as zeros then.
  [[nodiscard]] Status whole() const noexcept { return file_.whole("gguf", {}); }
  // A view, no copy. Errors: not_found, unsupported (a format that tensors do not have: IQ2_XS, I64, …), io (of whole()).
  [[nodiscard]] Result<Tensor> tensor(std::string_view name) const noexcept;

  // The value under a key. Errors, with the key: not_found; invalid_dtype (another kind of value); overflow (an integer that does
  // not fit). Integers are taken from any integer type, f32 from f32 and f64.
  [[nodiscard]] Result<std::uint32_t> u32(std::string_view key) const noexcept;
  [[nodiscard]] Result<std::int32_t> i32(std::string_view key) const noexcept;
  [[nodiscard]] Result<std::uint64_t> u64(std::string_view key) const noexcept;
  [[nodiscard]] Result<std::int64_t> i64(std::string_view key) const noexcept;
  [[nodiscard]] Result<float> f32(std::string_view key) const noexcept;
  [[nodiscard]] Result<bool> boolean(std::string_view key) const noexcept;
  [[nodiscard]] Result<std::string_view> text(std::string_view key) const noexcept;
  // The same, or `absent` where there is no such key.
  [[nodiscard]] Result<std::uint32_t> u32(std::string_view key, std::uint32_t absent) const noexcept;
  [[nodiscard]] Result<std::int32_t> i32(std::string_view key, std::int32_t absent) const noexcept;
  [[nodiscard]] Result<float> f32(std::string_view key, float absent) const noexcept;
  [[nodiscard]] Result<bool> boolean(std::string_view key, bool absent) const noexcept;
  [[nodiscard]] Result<std::string_view> text(std::string_view key, std::string_view absent) const noexcept;
  // Arrays. Numbers are copied, integers from any integer type or booleans. Errors: also out_of_memory.
  [[nodiscard]] Result<const List<std::string_view>*> texts(std::string_view key) const noexcept;
  [[nodiscard]] Result<List<std::int32_t>> integers(std::string_view key) const noexcept;
  [[nodiscard]] Result<List<float>> reals(std::string_view key) const noexcept;

 private:
  friend class GgufReader;
  [[nodiscard]] Result<const GgufEntry*> wanted(std::string_view key, bool array) const noexcept;
  template <class T>
  [[nodiscard]] Result<T> integer(std::string_view key) const noexcept;

  MappedFile file_;
  std::uint32_t version_ = 0, alignment_ = 32;
  List<GgufEntry> metadata_;
  List<TensorEntry> entries_;
  List<std::uint32_t> by_key_, by_name_;  // indices of the two, sorted
};

// Maps a file and checks all of it before anything is used: counts and lengths against the bytes left and against k_gguf_limits; keys
// and names (UTF-8 without control characters, none twice); every tensor's bytes as many as shape and format need, aligned as the
// file says, inside it, without overlap. Texts are not checked for UTF-8. Memory: the tables, exactly as long as they need be; 16
// bytes for each text of an array, in one piece. Errors, with the file's name and the key or tensor: not_found, io, corrupt,
// overflow, misaligned, out_of_memory, unsupported (another version, big-endian, arrays of arrays, more than the limits, a tensor
// format that is retired or not known).
[[nodiscard]] Result<Gguf> read_gguf(std::string_view path) noexcept;

// The number that GGUF files have for tensors of a type; -1 if they have none (u8).
[[nodiscard]] int gguf_format(DType dtype) noexcept;

// A line of another format's table of tensors: what GGUF says of them, at any place of the file.
struct GgufLine {
  std::string_view name;
  std::uint32_t format = 0;  // by GGUF's number
  Shape shape;               // outermost first
  std::uint64_t offset = 0, bytes = 0;
};
// A file of another format that has GGUF's metadata and tensors: `metadata` is so many entries and nothing else, both it and the names lie
// inside the file. All is checked as in read_gguf; the bytes must be as many as shape and format need, and begin at multiples of
// `alignment`. Errors, with `path`: as there.
[[nodiscard]] Result<Gguf> gguf_of(MappedFile file, std::string_view path, std::span<const std::byte> metadata,
                                   std::uint64_t entries, std::span<const GgufLine> lines,
                                   std::uint32_t alignment) noexcept;

}  // namespace qorus::io
