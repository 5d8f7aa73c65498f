// Batches: examples gathered into tensors that a model takes. One pair of buffers, allocated once, refilled for every
// batch.
export module qorus.data:batch;
import qorus.std;
import qorus.tensor;
import :dataset;

namespace qorus::data {
struct BatchSource;  // what it takes to fill a batch
class Ring;          // batches that a thread of its own makes ahead
}  // namespace qorus::data

export namespace qorus::data {

// x: [batch, …] f32 (i32 if the inputs are), y: [batch, …] i32 or f32. Both are stale as soon as the next batch is
// made.
struct Batch {
  Tensor x, y;
};

// A place in a shuffled sequence: what a checkpoint keeps of it.
struct Position {
  std::uint64_t seed = 0, epoch = 0;
  std::uint64_t index = 0;  // examples of this epoch that were given out
  friend bool operator==(const Position&, const Position&) = default;
};

struct BatchOptions {
  bool drop_last = false;  // leave out the last batch where it would be smaller
};

// A lazy input range of Batch, for `for (auto const& [x, y] : batches)`. Each begin() goes over one epoch; when that
// came to its end, the next begin() goes over the next epoch, shuffled anew if there is a shuffle. All memory is taken
// when it is made: no batch and no epoch allocates. Movable while no iteration is under way. Where it cannot work (see
// status()), it gives a single batch of invalid tensors, which every operation refuses: a mistake is never an empty
// loop.
class Batches {
 public:
  class Iterator {
   public:
    using value_type = Batch;
    using reference = const Batch&;
    using pointer = const Batch*;
    using difference_type = std::ptrdiff_t;
    using iterator_category = std::input_iterator_tag;
    using iterator_concept = std::input_iterator_tag;

    Iterator() noexcept = default;
    const Batch& operator*() const noexcept { return batches_->batch_; }
    const Batch* operator->() const noexcept { return &batches_->batch_; }
    Iterator& operator++() noexcept {
      batches_->advance();
      return *this;
    }
    void operator++(int) noexcept { ++*this; }
    friend bool operator==(const Iterator& i, std::default_sentinel_t) noexcept {
      return !i.batches_ || i.batches_->done_;
    }

   private:
    friend class Batches;
    explicit Iterator(Batches* batches) noexcept : batches_(batches) {}
    Batches* batches_ = nullptr;
  };

  Batches() noexcept;
  Batches(Batches&& other) noexcept;
  Batches& operator=(Batches&& other) noexcept;
  ~Batches();
  // Allocates the buffers. Failures show in status(): those of the examples, invalid_argument (a batch of 0; with
  // drop_last, a batch larger than the data), overflow, out_of_memory.
  Batches(Examples examples, std::size_t batch, const BatchOptions& options) noexcept;

  // Makes the first batch of the epoch, or of the place that seek() named.
  [[nodiscard]] Iterator begin() noexcept;
  [[nodiscard]] std::default_sentinel_t end() const noexcept { return {}; }
  // What went wrong, at the start or on the way (stale_tensor: the data set is gone).
  [[nodiscard]] Status status() const noexcept;

  [[nodiscard]] std::size_t size() const noexcept;                                      // batches in an epoch
  [[nodiscard]] std::size_t examples() const noexcept;                                  // examples in an epoch
  [[nodiscard]] std::size_t batch_size() const noexcept { return batch_size_; }         // as asked for
  [[nodiscard]] Shape input_shape() const noexcept { return source_.input_shape(); }    // of one example
  [[nodiscard]] Shape target_shape() const noexcept { return source_.target_shape(); }  // of one example
  [[nodiscard]] int classes() const noexcept { return source_.classes(); }

  // The next begin() goes over this epoch.
  Batches& epoch(std::uint64_t epoch) noexcept;
  // Where the batch after the present one begins. Kept in a checkpoint and given to seek(), the same batches follow.
  [[nodiscard]] Position position() const noexcept { return {source_.seed_, source_.epoch_, next_}; }
  // The next begin() continues there. Errors: invalid_argument (past the end).
  [[nodiscard]] Status seek(const Position& position) noexcept;
  // Has a thread of its own make up to `count` batches ahead, in as many buffers more: the same batches, bit for bit. 0: none.
  // The data must stay until these batches are gone. Failures show in status(): out_of_memory, invalid_argument (more than 1024).
  [[nodiscard]] Batches prefetched(std::size_t count) && noexcept;

 private:
  void advance() noexcept;
  void give_up(const Error& error) noexcept;
  [[nodiscard]] Status allocate() noexcept;
  [[nodiscard]] BatchSource source() noexcept;
  [[nodiscard]] Result<Batch> fill(std::span<const std::uint32_t> indices) noexcept;
  [[nodiscard]] std::size_t limit() const noexcept;  // examples that an epoch gives out

  Examples source_;
  std::size_t batch_size_ = 0;
  bool drop_last_ = false;
  List<std::uint32_t> order_;
  List<float> spare_;  // an image on its way through an augmentation
  Slab x_, y_;
  Batch batch_;
  std::unique_ptr<Ring> ring_;
  std::size_t next_ = 0;
  bool sought_ = false, done_ = true;
  Error failure_{.code = Errc::invalid_size, .op = "batch", .text = "an empty data set"};
};

// Steps: `dataset | shuffle(7) | batch(64)`.
struct BatchStep {
  std::size_t size;
  BatchOptions options;
};
[[nodiscard]] constexpr BatchStep batch(std::size_t size, const BatchOptions& options = {}) noexcept {
  return {size, options};
}

// The last step of a pipeline: `dataset | shuffle(7) | batch(64) | prefetch(2)`.
struct Prefetch {
  std::size_t count;
};
[[nodiscard]] constexpr Prefetch prefetch(std::size_t count) noexcept { return {count}; }
[[nodiscard]] inline Batches operator|(Batches&& batches, Prefetch step) noexcept {
  return std::move(batches).prefetched(step.count);
}

[[nodiscard]] inline Batches operator|(Examples&& examples, const BatchStep& step) noexcept {
  return {std::move(examples), step.size, step.options};
}
[[nodiscard]] inline Batches operator|(const Examples& examples, const BatchStep& step) noexcept {
  return examples.clone() | step;
}
[[nodiscard]] inline Batches operator|(const Dataset& dataset, const BatchStep& step) noexcept {
  return dataset.examples() | step;
}
Batches operator|(Dataset&& dataset, const BatchStep& step) = delete;  // gone before it is read: give it a name first

}  // namespace qorus::data
