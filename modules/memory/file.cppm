// Files: read by mapping, written so that a reader finds either the old content or the new, never a part.
export module qorus.memory:file;
import qorus.std;
import :error;
import :block;

export namespace qorus {

inline constexpr std::size_t k_max_path = 4000;  // bytes; a longer path is invalid_argument

// A file mapped read-only; tensors may point into it and are stale once it is gone. Never written through.
class MappedFile {
 public:
  MappedFile() noexcept = default;
  // Errors: not_found, io (a folder, no permission), out_of_memory. An empty file is valid.
  [[nodiscard]] static Result<MappedFile> open(std::string_view path);
  MappedFile(MappedFile&& other) noexcept;
  MappedFile& operator=(MappedFile&& other) noexcept;
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;
  ~MappedFile();

  [[nodiscard]] std::span<const std::byte> bytes() const noexcept { return {data_, size_}; }
  [[nodiscard]] Lifetime lifetime() const noexcept { return lifetime_of(block_); }
  // Whether all bytes could be read so far, and the file is as long as it was. When a file shrinks while it is mapped, or its disk fails, the
  // bytes that are gone read as zeros, the tensors in it are stale, and this gives Errc::io: to be asked after the last read of what is handed
  // on. Costs a system call.
  [[nodiscard]] Status whole(const char* op, std::string_view path) const noexcept;
  // The process keeps none of these bytes of a mapped file in memory until they are read again. A hint, to whole pages.
  static void let_go(std::span<const std::byte> part) noexcept;

 private:
  const std::byte* data_ = nullptr;
  std::size_t size_ = 0;
  Block* block_ = nullptr;
};

// Writes a new file beside `path` and puts it in its place only at commit(): temporary file in the same folder, fsync,
// rename, fsync of the folder. Dropped without commit (or after an error) it removes the temporary file; what stood at
// `path` is untouched.
class AtomicFile {
 public:
  // Errors: not_found (no such folder), io (no permission; a folder, device or pipe stands there already).
  [[nodiscard]] static Result<AtomicFile> create(std::string_view path);
  AtomicFile(AtomicFile&& other) noexcept;
  AtomicFile& operator=(AtomicFile&&) = delete;
  ~AtomicFile();

  // Appends. Errors: io (a full disk, a broken device).
  [[nodiscard]] Status write(std::span<const std::byte> bytes) noexcept;
  [[nodiscard]] Status write(std::string_view text) noexcept;
  // Puts the file in its place. Errors: io; also after a write that failed, whoever looked at its result.
  [[nodiscard]] Status commit() noexcept;

 private:
  AtomicFile() = default;
  using Path = std::array<char, 4096>;
  Path path_{}, temporary_{};  // temporary_ is empty when there is nothing to remove
  int descriptor_ = -1;
  bool broken_ = false;  // a write failed
};

}  // namespace qorus
