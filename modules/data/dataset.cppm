// Dataset: inputs and targets in memory. Examples: a view of some of them, in some order. Neither makes batches
// (:batch).
export module qorus.data:dataset;
import qorus.std;
import qorus.tensor;
import :augment;

export namespace qorus::data {

// How stored numbers become the model's: u8 inputs are multiplied and shifted when a batch is made (y = x scale +
// shift), so that images stay a byte per pixel in memory; f32 too, unless scale is 1 and shift 0.
struct Encoding {
  float scale = 1.0f, shift = 0.0f;
  int classes = 0;  // of i32 targets; 0: not known, or the targets are no classes
};

// One example as it is stored (not scaled): views into the data set, valid as long as it is.
struct Example {
  Tensor input, target;
};

// Some examples of a data set, in a fixed order or reshuffled each epoch: a view, which copies no data. It is checked:
// once the data set is gone, what it gives is stale. Movable; clone() copies the index list, if it has one.
class Examples {
 public:
  Examples() noexcept = default;  // none: status() says so
  // Views of tensors that somebody else owns (mapped files, say): inputs f32, u8 or i32 [n, …], targets i32 or f32 [n,
  // …], both contiguous. What does not fit shows in status(): invalid_size, invalid_dtype, invalid_argument,
  // stale_tensor.
  Examples(const Tensor& inputs, const Tensor& targets, const Encoding& encoding = {}) noexcept;

  [[nodiscard]] std::size_t size() const noexcept { return count_; }
  [[nodiscard]] Shape input_shape() const noexcept;   // of one example; not valid if there are none
  [[nodiscard]] Shape target_shape() const noexcept;  // of one example: rank 0 for classes
  [[nodiscard]] DType input_dtype() const noexcept { return inputs_.dtype(); }  // as stored
  [[nodiscard]] DType target_dtype() const noexcept { return targets_.dtype(); }
  [[nodiscard]] int classes() const noexcept { return encoding_.classes; }
  [[nodiscard]] const Encoding& encoding() const noexcept { return encoding_; }
  // The i-th in this view's order. If shuffled, that of its present epoch, which is worked out anew by each call (and
  // allocates). Errors: status(), invalid_argument (no such example), out_of_memory.
  [[nodiscard]] Result<Example> example(std::size_t i) const noexcept;
  // Why there is nothing to read, if so. Errors: invalid_size (empty, counts differ), invalid_dtype, invalid_argument,
  // out_of_memory, stale_tensor.
  [[nodiscard]] Status status() const noexcept;
  [[nodiscard]] Examples clone()
      const noexcept;  // allocates if this is a selection; a failure shows in the copy's status()

  // The steps of a pipeline, also spelled `examples | take(n) | shuffle(seed)`. Each applies to what the steps before
  // it give.
  [[nodiscard]] Examples taken(std::size_t count) && noexcept;  // the first `count`, or all if there are fewer
  [[nodiscard]] Examples shuffled(std::uint64_t seed, std::uint64_t epoch) && noexcept;
  [[nodiscard]] Examples augmented(const Augment& options) && noexcept;  // as batches are made; see Augment

 private:
  friend class Batches;
  friend struct Selector;

  // Writes the indices of this view in `epoch` to `order`, which has room for reach() of them.
  void write_order(std::span<std::uint32_t> order, std::uint64_t epoch) const noexcept;
  [[nodiscard]] std::size_t reach() const noexcept { return base_count_; }
  [[nodiscard]] Status settle() noexcept;  // makes the present order the base order

  Tensor inputs_, targets_;
  Encoding encoding_;
  Augment augment_;
  List<std::uint32_t> chosen_;  // the base order; empty: 0, 1, 2, …
  std::size_t base_count_ = 0;  // examples before the shuffle
  std::size_t count_ = 0;       // the first so many of them after it
  bool shuffle_ = false;
  std::uint64_t seed_ = 0, epoch_ = 0;
  Error failure_{.code = Errc::invalid_size, .op = "data", .text = "an empty data set"};
};

// Inputs [n, …] and targets [n, …] with their memory. Movable.
class Dataset {
 public:
  Dataset() noexcept = default;
  // inputs: f32, u8 or i32 (token ids, handed on as they are). targets: i32 (classes when of rank 1) or f32. Where
  // encoding.classes is 0 and the targets are i32 [n], it becomes the largest one + 1. Allocates nothing. Errors:
  // invalid_size (no examples, counts differ), invalid_dtype, invalid_argument (a class below 0 or not below
  // encoding.classes).
  [[nodiscard]] static Result<Dataset> create(Owned inputs, Owned targets, Encoding encoding = {}) noexcept;

  [[nodiscard]] std::size_t size() const noexcept { return examples().size(); }
  [[nodiscard]] Shape input_shape() const noexcept { return examples().input_shape(); }
  [[nodiscard]] Shape target_shape() const noexcept { return examples().target_shape(); }
  [[nodiscard]] int classes() const noexcept { return encoding_.classes; }
  [[nodiscard]] const Encoding& encoding() const noexcept { return encoding_; }
  // As it is stored. Errors: invalid_argument.
  [[nodiscard]] Result<Example> example(std::size_t i) const noexcept { return examples().example(i); }
  [[nodiscard]] Tensor inputs() const noexcept { return inputs_.tensor(); }    // [n, …], not scaled
  [[nodiscard]] Tensor targets() const noexcept { return targets_.tensor(); }  // [n, …]
  [[nodiscard]] Examples examples() const noexcept { return {inputs_.tensor(), targets_.tensor(), encoding_}; }
  operator Examples() const noexcept {
    return examples();
  }  // NOLINT(google-explicit-constructor): a data set is all its examples
  // Takes it apart again.
  struct Pieces {
    Owned inputs, targets;
    Encoding encoding;
  };
  [[nodiscard]] Pieces release() && noexcept {
    return {std::move(inputs_), std::move(targets_), std::exchange(encoding_, {})};
  }

 private:
  Owned inputs_, targets_;
  Encoding encoding_;
};

struct Split {
  Dataset train, test;
};

// Two views of one data set.
struct Parts {
  Examples train, test;
};

// Cuts a data set in two without copying it: round(fraction size) examples for train, drawn without repetition, the
// others for test. The same seed gives the same cut. Allocates two index lists. Errors: invalid_argument (fraction not
// in (0, 1), or a part would be empty), out_of_memory, and those of status().
[[nodiscard]] Result<Parts> split(const Examples& examples, double fraction, std::uint64_t seed) noexcept;

// k cuts of a data set for cross-validation: the i-th has the i-th k-th part, drawn by the seed, as its test part and all others for train.
// Every example is in one test part. Sizes differ by one at most. Errors: invalid_argument (k below 2 or above the number of examples),
// out_of_memory, and those of status().
[[nodiscard]] Result<List<Parts>> k_fold(const Examples& examples, int k, std::uint64_t seed) noexcept;
// The same, stratified: every test part has as many of each class as any other, but for one. Errors: also invalid_dtype,
// invalid_size (targets that are not one class each).
[[nodiscard]] Result<List<Parts>> stratified_k_fold(const Examples& examples, int k, std::uint64_t seed) noexcept;

// Steps: `dataset | take(1000) | shuffle(7) | batch(64)`.
struct Take {
  std::size_t count;
};
struct Shuffle {
  std::uint64_t seed, epoch;
};
[[nodiscard]] constexpr Take take(std::size_t count) noexcept { return {count}; }
// Fisher-Yates; another permutation for each seed and each epoch. Epochs are counted from the given one.
[[nodiscard]] constexpr Shuffle shuffle(std::uint64_t seed, std::uint64_t epoch = 0) noexcept { return {seed, epoch}; }

[[nodiscard]] inline Examples operator|(Examples&& examples, Take step) noexcept {
  return std::move(examples).taken(step.count);
}
[[nodiscard]] inline Examples operator|(Examples&& examples, Shuffle step) noexcept {
  return std::move(examples).shuffled(step.seed, step.epoch);
}
[[nodiscard]] inline Examples operator|(Examples&& examples, const Augment& step) noexcept {
  return std::move(examples).augmented(step);
}
[[nodiscard]] inline Examples operator|(const Examples& examples, Take step) noexcept {
  return examples.clone() | step;
}
[[nodiscard]] inline Examples operator|(const Examples& examples, const Augment& step) noexcept {
  return examples.clone() | step;
}
[[nodiscard]] inline Examples operator|(const Examples& examples, Shuffle step) noexcept {
  return examples.clone() | step;
}
[[nodiscard]] inline Examples operator|(const Dataset& dataset, Take step) noexcept {
  return dataset.examples() | step;
}
[[nodiscard]] inline Examples operator|(const Dataset& dataset, Shuffle step) noexcept {
  return dataset.examples() | step;
}
[[nodiscard]] inline Examples operator|(const Dataset& dataset, const Augment& step) noexcept {
  return dataset.examples() | step;
}
// A temporary data set would be gone before its examples are read: give it a name first.
Examples operator|(Dataset&& dataset, Take step) = delete;
Examples operator|(Dataset&& dataset, Shuffle step) = delete;
Examples operator|(Dataset&& dataset, const Augment& step) = delete;

}  // namespace qorus::data
