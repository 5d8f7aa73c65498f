// Importance matrices of llama.cpp: for each column of a weight, how large the numbers are that it meets.
export module qorus.formats:importance;
import qorus.std;
import qorus.memory;
import qorus.io;

export namespace qorus::formats {

class Importance {
 public:
  Importance() noexcept = default;
  // Either of llama.cpp's two kinds of file: GGUF (tensors NAME.in_sum2 and NAME.counts), or the older one (.dat). Errors, with the file's
  // name: those of read_gguf; not_found, io, corrupt (neither of them; a name twice; numbers that are negative or none), out_of_memory.
  [[nodiscard]] static Result<Importance> open(std::string_view path) noexcept;

  // The mean squares of a tensor's columns, of one matrix after the other; empty if the file does not know it.
  [[nodiscard]] std::span<const float> find(std::string_view tensor) const noexcept;
  [[nodiscard]] std::size_t size() const noexcept { return lines_.size(); }

 private:
  struct Line {
    std::size_t name = 0, letters = 0, first = 0, count = 0;
  };
  [[nodiscard]] Status add(std::string_view name, std::size_t count) noexcept;
  [[nodiscard]] Status read_gguf(std::string_view path) noexcept;
  [[nodiscard]] Status read_dat(std::string_view path, std::span<const std::byte> bytes) noexcept;
  [[nodiscard]] Status finish(std::string_view path) noexcept;
  [[nodiscard]] std::string_view name_of(const Line& line) const noexcept {
    return {names_.data() + line.name, line.letters};
  }

  List<Line> lines_;  // sorted by name
  List<char> names_;
  List<float> values_;
};

}  // namespace qorus::formats
