// Texts as sequences of characters: an alphabet, and data sets of windows or lines to predict the next character of. Time series the
// same way.
export module qorus.data:characters;
import qorus.std;
import qorus.tensor;
import :dataset;

export namespace qorus::data {

// The bytes that occur in a text, in rising order, numbered from `first` on.
class Alphabet {
 public:
  Alphabet() noexcept = default;
  explicit Alphabet(std::string_view text, int first = 0) noexcept;

  [[nodiscard]] int size() const noexcept { return count_; }  // with the numbers below `first`
  // -1: does not occur.
  [[nodiscard]] int id(char c) const noexcept { return ids_[static_cast<unsigned char>(c)]; }
  // '\0': no character has this number.
  [[nodiscard]] char character(int id) const noexcept {
    return id >= 0 && id < count_ ? characters_[static_cast<std::size_t>(id)] : '\0';
  }

 private:
  std::array<std::int16_t, 256> ids_{};
  std::array<char, 512> characters_{};
  int count_ = 0;
};

// A whole file, at most 1 GiB. Errors: not_found, io, unsupported (longer), out_of_memory.
[[nodiscard]] Result<List<char>> read_text(std::string_view path) noexcept;

// Windows of `context` characters, one every `step`: inputs [n, context] i32, targets the characters that follow each. Errors:
// invalid_size (a text shorter than one window), invalid_argument (a character that the alphabet lacks), out_of_memory.
[[nodiscard]] Result<Dataset> windows(std::string_view text, const Alphabet& alphabet, std::int64_t context,
                                      std::int64_t step) noexcept;

// The lines of a text, each as 0, its characters … to its characters, 0; filled up to the longest with 0 and targets `ignore`. The
// alphabet numbers from 1. Errors: as windows.
[[nodiscard]] Result<Dataset> lines(std::string_view text, const Alphabet& alphabet,
                                    std::int32_t ignore = -100) noexcept;

// Windows of a series: inputs [n, context, 1] f32, targets [n, 1] the next value. Errors: invalid_size, out_of_memory.
[[nodiscard]] Result<Dataset> series(std::span<const float> values, std::int64_t context) noexcept;

}  // namespace qorus::data
