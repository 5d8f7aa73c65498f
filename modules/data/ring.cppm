// How a batch is filled, and the ring of batches that a thread of its own fills ahead.
module;
#include <pthread.h>

module qorus.data:ring;
import qorus.std;
import qorus.tensor;
import :augment;
import :batch;
import :dataset;

namespace qorus::data {

// The memory of one batch.
struct Buffers {
  Slab x, y;
  // Ends the lifetimes of what was filled before.
  void renew() noexcept {
    x.renew();
    y.renew();
  }
};

// Where batches come from: what it takes to fill one, as plain data. Fills are independent of one another.
struct BatchSource {
  Tensor inputs, targets;
  Encoding encoding;
  Augment augment;
  std::uint64_t key = 0, epoch = 0;  // of the augmentation's draws
  float* spare = nullptr;            // room for one image, if there is an augmentation

  // The dtype of a batch's inputs.
  [[nodiscard]] DType dtype() const noexcept { return inputs.dtype() == DType::u8 ? DType::f32 : inputs.dtype(); }
  // Errors: overflow, out_of_memory.
  [[nodiscard]] Result<Buffers> make_buffers(std::size_t rows) const noexcept;
  // Errors: stale_tensor.
  [[nodiscard]] Result<Batch> fill(std::span<const std::uint32_t> indices, Buffers& into) const noexcept;
};

// One thread fills, one takes. Sleeps while there is nothing to fill. Allocates when it is made, and never again.
class Ring {
 public:
  Ring() noexcept;
  Ring(const Ring&) = delete;
  Ring& operator=(const Ring&) = delete;
  ~Ring();
  // Makes room for `ahead` batches besides the one in use, and the thread. Errors: out_of_memory, overflow.
  [[nodiscard]] Status start(const BatchSource& source, std::size_t ahead, std::size_t rows) noexcept;
  // Begins with new batches: those of `order`, `batch` examples each, which must stay until the next begin or drop.
  void begin(const BatchSource& source, std::span<const std::uint32_t> order, std::size_t batch) noexcept;
  // Gives up the batch in use and those made ahead; nothing of the source or the order is read afterwards.
  void drop() noexcept;
  // Gives up the batch in use, waits for the next one and gives that. Only as often as there are batches.
  [[nodiscard]] Result<Batch> next() noexcept;

 private:
  struct Place {
    Buffers buffers;
    Result<Batch> batch;
  };
  void serve() noexcept;

  pthread_mutex_t mutex_;
  pthread_cond_t changed_;
  pthread_t thread_{};
  bool running_ = false, filling_ = false, stop_ = false, in_use_ = false;
  BatchSource source_;
  std::span<const std::uint32_t> order_;            // of what is not filled yet
  std::size_t batch_ = 1, filled_ = 0, taken_ = 0;  // filled_: since begin; taken_: given up again
  List<Place> places_;
};

}  // namespace qorus::data
