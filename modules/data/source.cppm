// A file's bytes in order, gzipped or not.
export module qorus.data:source;
import qorus.std;
import qorus.tensor;

namespace qorus::data {

// Opened by path; gzip is recognised by its first bytes. Errors carry the path.
class Source {
 public:
  Source() noexcept = default;
  [[nodiscard]] static Result<Source> open(std::string_view path) noexcept;
  Source(Source&& other) noexcept;
  Source& operator=(Source&& other) noexcept;
  ~Source();

  // Fills `out` wholly. Errors: corrupt (the file ends before, or its gzip is broken), out_of_memory.
  [[nodiscard]] Status read(std::span<std::byte> out) noexcept;
  // Nothing may be left. Errors: corrupt.
  [[nodiscard]] Status finish() noexcept;
  // Whether `bytes` more may be there: asked before memory is taken for them. A raw file knows; a gzipped one that
  // announces far more than it weighs is inflated once without being kept. Errors: corrupt.
  [[nodiscard]] Status expect(std::uint64_t bytes) noexcept;

  [[nodiscard]] tl::unexpected<Error> corrupt(const char* text) const noexcept;
  [[nodiscard]] std::string_view path() const noexcept { return path_.view(); }

 private:
  [[nodiscard]] Result<std::size_t> inflate_some(std::span<std::byte> out) noexcept;  // 0: the end
  [[nodiscard]] Status restart() noexcept;
  void close() noexcept;

  MappedFile file_;
  Text path_;
  std::size_t used_ = 0;      // bytes of the file taken
  std::uint64_t given_ = 0;   // bytes given out
  void* stream_ = nullptr;    // z_stream, if gzipped
  bool member_done_ = false;  // at the end of a gzip member
};

}  // namespace qorus::data
