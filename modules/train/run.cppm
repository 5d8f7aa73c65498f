// One run of fit: its state, which a checkpoint holds, and its steps.
module qorus.train:run;
import qorus.std;
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

// A piece of each batch, computed on a workspace of its own. Its tape stays open until the gradients were summed.
struct Shard {
  std::optional<Workspace> workspace;
  std::optional<Tape> tape;
  data::Batch batch;  // rows of the run's batch
  std::size_t rows = 0;
  Tensor output;
  float loss = 0;
  std::span<const float> gradients;  // laid out as the slab
  const StateUpdate* updates = nullptr;
  Status status;
};
inline constexpr std::size_t k_most_shards = 32;

// Gradients that are the mean over so many examples.
struct MeanGradients {
  const float* values = nullptr;
  std::size_t examples = 0;
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
  Snapshot best, before, average;  // before: the epoch began, with a loss that was finite; for a run that diverges
  bool noted = false;              // whether `before` is of this epoch
  bool validates_here = false;     // the workspace has scratch enough for validation, too
  Watch best_on_disk;
  List<float> gathered;  // gradients of the batches (or shards) of this step so far, each times its examples
  std::size_t gathered_examples = 0, gathered_batches = 0;
  std::size_t total_steps = 1, steps_per_epoch = 1;
  Stopwatch watch = {}, epoch_watch = {};
  std::array<Shard, k_most_shards> shards = {};  // as many as the options say have a workspace, if more than one

  // All epochs, from where `history` and `event` stand.
  [[nodiscard]] Status go(const data::Examples& validation) noexcept;
  void tell(Moment moment) noexcept;
  // Makes the shards' workspaces. Errors: those of the model and the loss, out_of_memory.
  [[nodiscard]] Status make_shards(const data::Examples& train) noexcept;

 private:
  [[nodiscard]] Status epoch(const data::Examples& validation) noexcept;
  [[nodiscard]] bool has_all_steps() const noexcept { return options.steps && history.steps >= options.steps; }
  [[nodiscard]] Status step(const data::Batch& batch) noexcept;
  [[nodiscard]] Status own_step(const data::Batch& batch) noexcept;
  [[nodiscard]] Status step_by_shards(const data::Batch& batch) noexcept;
  [[nodiscard]] Status gather_shards(std::span<Shard> parts, std::size_t rows) noexcept;
  [[nodiscard]] Status gather(std::span<const MeanGradients> parts, const Context& context) noexcept;
  [[nodiscard]] Status note_good() noexcept;
  void set_rate() noexcept;
  void finish_step(const Context& context) noexcept;  // counts it, and averages the weights
  [[nodiscard]] Status update(std::span<const float> gradients, const Context& context, float scale,
                              float norm) noexcept;
  [[nodiscard]] Status validate(const data::Examples& validation) noexcept;
  [[nodiscard]] Status finish_epoch(const data::Examples& validation) noexcept;
};

[[nodiscard]] tl::unexpected<Error> diverged() noexcept;
// Whether a step needs all of its gradients before it updates the first parameter, or is the caller's own affair.
[[nodiscard]] inline bool keeps_gradients(const FitOptions& options) noexcept {
  return options.accumulate > 1 || options.shards > 1 || options.clip_norm > 0 || options.gradient_norm || options.step;
}
// How a run validates.
[[nodiscard]] EvaluateOptions validation_options(const FitOptions& options) noexcept;

// --- checkpoints (checkpoint.cpp) ---
// Writes the run as it stands between two steps, and removes the oldest files beyond `keep`. Allocates. Errors: those of write_sealed; io.
[[nodiscard]] Status save_checkpoint(Run& run) noexcept;
// Brings the run to where the newest valid checkpoint of its folder stands, if there is one; makes the folder if it is missing.
// Errors: io; invalid_argument, invalid_size, not_found (a checkpoint of another run or model).
[[nodiscard]] Status resume(Run& run) noexcept;

}  // namespace qorus::train
