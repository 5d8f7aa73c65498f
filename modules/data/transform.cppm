// Changes of a whole data set: standardised inputs, one-hot targets.
export module qorus.data:transform;
import qorus.std;
import qorus.tensor;
import :dataset;

export namespace qorus::data {

enum class Per : std::uint8_t {
  feature,  // a mean and deviation for each position of an example (tables)
  set,      // one for all numbers (images: bytes stay bytes)
};

// x' = (x - mean) / deviation, with the mean and population deviation of the training part, applied to all others. A
// feature that never changes has deviation 1. Movable.
class Standardizer {
 public:
  Standardizer() noexcept = default;
  // Reads the examples once, sums in double. Allocates. Errors: status() of the examples, invalid_dtype (i32 inputs),
  // invalid_argument (a number that is not finite), out_of_memory.
  [[nodiscard]] static Result<Standardizer> fit(const Examples& examples, Per per = Per::feature) noexcept;
  // From numbers that were saved. Errors: invalid_size (lengths differ, empty), invalid_argument (a deviation not above
  // 0).
  [[nodiscard]] static Result<Standardizer> from(std::span<const float> mean,
                                                 std::span<const float> deviation) noexcept;

  // Changes the data set, whose tensors are stale then if its inputs were bytes and Per::feature makes them f32.
  // Errors: invalid_size (another number of features), invalid_dtype, out_of_memory; the data set is as before then.
  [[nodiscard]] Status apply(Dataset& dataset) const noexcept;
  // A copy of f32 inputs [n, …] or of one example, standardised. Errors: invalid_size, invalid_dtype, stale_tensor,
  // out_of_memory.
  [[nodiscard]] Result<Owned> apply(const Tensor& inputs) const noexcept;

  [[nodiscard]] std::span<const float> mean() const noexcept { return mean_.span(); }  // one, or one a feature
  [[nodiscard]] std::span<const float> deviation() const noexcept { return deviation_.span(); }  // as many

 private:
  List<float> mean_, deviation_;
};

// Fits on the training part, applies to both.
// Errors: as fit and apply.
[[nodiscard]] Result<Standardizer> standardize(Split& data, Per per = Per::feature) noexcept;

// labels i32 […] to f32 […, classes]: 1 at the label, 0 elsewhere. Errors: invalid_dtype, invalid_argument (a label not
// in [0, classes), classes below 1), invalid_size (rank 6), stale_tensor, out_of_memory.
[[nodiscard]] Result<Owned> one_hot(const Tensor& labels, int classes) noexcept;
// The same data with one-hot targets f32 [n, classes]. Errors: as above; invalid_argument if the classes are not known.
[[nodiscard]] Result<Dataset> one_hot(Dataset dataset) noexcept;

}  // namespace qorus::data
