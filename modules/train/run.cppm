// One run of fit: its state, which a checkpoint holds, and its steps.
module;
#include <cstddef>
#include <cstdint>
#include <span>
module qorus.train:run;
import qorus.data;
import qorus.nn;
import qorus.optim;
import :callback;
import :fit;
import :metric;

namespace qorus::train {

// A copy of the parameters: the best epoch's, or their moving average.
class Snapshot {
 public:
  [[nodiscard]] bool taken() const noexcept { return !values_.empty(); }
  [[nodiscard]] std::span<float> values() noexcept { return values_.span(); }
  [[nodiscard]] Status make_room(const nn::Parameters& model) noexcept { return values_.resize(model.slab().size()); }
  [[nodiscard]] Status keep(const nn::Parameters& model) noexcept;
  // Does nothing if none was taken.
  void restore(nn::Parameters& model) const noexcept;
  void swap_with(nn::Parameters& model) noexcept;

 private:
  List<float> values_;
};

// What lives as long as a run does.
struct Run {
  const ModelRef& model;
  const FitOptions& options;
  Workspace& workspace;
  data::Batches& batches;
  Optimizer optimizer;
  Callbacks callbacks;
  Event event;
  Meter meter;
  History history;
  Confusion confusion;
  Snapshot best, before, average;  // before: the epoch began; for a run that diverges
  Watch best_on_disk;
  List<float> gathered;  // gradients of the batches of this step so far, each times its examples
  std::size_t gathered_examples = 0, gathered_batches = 0;
  std::size_t total_steps = 1, steps_per_epoch = 1;
  Stopwatch watch = {}, epoch_watch = {};

  // All epochs, from where `history` and `event` stand.
  [[nodiscard]] Status go(const data::Examples& validation) noexcept;
  void tell(Moment moment) noexcept;

 private:
  [[nodiscard]] Status epoch(const data::Examples& validation) noexcept;
  [[nodiscard]] Status step(const data::Batch& batch) noexcept;
  [[nodiscard]] Status gather(const Gradients& gradients, const data::Batch& batch) noexcept;
  [[nodiscard]] Status update(std::span<const float> gradients, const Context& context, float scale,
                              float norm) noexcept;
  [[nodiscard]] Status validate(const data::Examples& validation) noexcept;
  [[nodiscard]] Status finish_epoch(const data::Examples& validation) noexcept;
};

// --- checkpoints (checkpoint.cpp) ---
// Writes the run as it stands between two steps, and removes the oldest files beyond `keep`. Allocates. Errors: those of write_sealed; io.
[[nodiscard]] Status save_checkpoint(Run& run) noexcept;
// Brings the run to where the newest valid checkpoint of its folder stands, if there is one; makes the folder if it is missing.
// Errors: io; invalid_argument, invalid_size, not_found (a checkpoint of another run or model).
[[nodiscard]] Status resume(Run& run) noexcept;

}  // namespace qorus::train
