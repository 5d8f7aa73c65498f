// A data set that draws itself: handwritten-looking digits, for demonstrations and tests that download nothing.
export module qorus.data:digits;
import qorus.std;
import qorus.tensor;
import :dataset;

export namespace qorus::data {

struct DigitsOptions {
  std::size_t train = 20000, test = 4000;  // examples, at least 1 each
};

// Digits 0 to 9 as pen strokes of varied slant, size, place, pen and wobble: u8 [n, 28, 28], 0 is paper, scaled to [0,
// 1] in batches; ten classes. An example depends on the seed and its number alone, and no number is in both parts.
// About 20 us an example. Errors: invalid_argument (0 or more than 2^31 examples), out_of_memory.
[[nodiscard]] Result<Split> digits(std::uint64_t seed, const DigitsOptions& options = {}) noexcept;

}  // namespace qorus::data
