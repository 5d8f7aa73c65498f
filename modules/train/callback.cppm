// Callbacks: plain values that are told what happens in a run, and may steer it.
export module qorus.train:callback;
import qorus.std;
import qorus.nn;
import :metric;

export namespace qorus::train {

// What one epoch came to.
struct EpochRecord {
  int epoch = 0;                   // from 1
  std::size_t step = 0;            // optimizer steps of the run so far
  double loss = 0, accuracy = -1;  // over the training examples as they were seen; accuracy -1: not a classifier
  double validation_loss = -1, validation_accuracy = -1;  // -1: no validation
  std::array<double, Metrics::k_most> metrics{};          // of the validation examples
  double lr = 0;                                          // of the last step
  double gradient_norm = -1;                              // of the last step; -1: not measured (FitOptions)
  double seconds = 0, examples_per_second = 0;
};

// run_begin; then, where a run is resumed, epoch_replayed for each epoch of the checkpoint, so that callbacks can bring themselves up to
// date (keep_best is ignored then); then the epochs; and run_end, which comes after a failure as well.
enum class Moment : std::uint8_t { run_begin, epoch_replayed, epoch_begin, step_end, epoch_end, run_end };

// Where the run stands. Callbacks read it, and write what stands at its end.
struct Event {
  Moment moment = Moment::run_begin;
  int epoch = 0, epochs = 0;        // epoch from 1
  std::size_t step = 0, steps = 0;  // batches within the epoch; step from 1
  std::size_t total_step = 0;       // optimizer steps of the run so far
  std::size_t examples = 0;         // seen in this epoch
  double loss = 0, accuracy = -1;   // means over this epoch so far
  float last_loss = 0, lr = 0;
  float gradient_norm = -1;                    // of the last step, before clipping; -1: not measured
  double seconds = 0;                          // since the epoch began
  double run_seconds = 0;                      // since fit began
  EpochRecord record;                          // at epoch_end and epoch_replayed: complete
  const Metrics* metrics = nullptr;            // the names of record.metrics
  const Confusion* confusion = nullptr;        // of the validation examples, at epoch_end; null or of 0 classes without
  const List<EpochRecord>* history = nullptr;  // the epochs before this one; at run_end all of them
  const nn::Parameters* parameters = nullptr;

  bool stop = false;          // end the run after this epoch (step, at step_end)
  bool keep_best = false;     // at epoch_end: remember the parameters as they are now
  bool restore_best = false;  // at run_end: put the remembered ones back
  float lr_scale = 1;         // of the learning rate, on top of the schedule; stays until it is changed
  Error failure;  // set by a callback that cannot do its work: the run ends with it; set at run_end if the run failed
};

// Anything callable with an Event&, kept inside without allocation: at most 192 bytes, copyable and movable without throwing.
class Callback {
 public:
  template <class F>
    requires(!std::is_same_v<std::remove_cvref_t<F>, Callback>) &&
            std::is_nothrow_invocable_v<std::remove_cvref_t<F>&, Event&>
  Callback(F&& f) noexcept {  // NOLINT(google-explicit-constructor): any such function is a callback
    using Plain = std::remove_cvref_t<F>;
    static_assert(sizeof(Plain) <= k_size && alignof(Plain) <= alignof(std::max_align_t));
    static_assert(std::is_nothrow_copy_constructible_v<Plain> && std::is_nothrow_destructible_v<Plain>);
    new (place_) Plain(std::forward<F>(f));
    call_ = [](void* self, Event& event) noexcept { (*static_cast<Plain*>(self))(event); };
    copy_ = [](const void* from, void* to) noexcept { new (to) Plain(*static_cast<const Plain*>(from)); };
    destroy_ = [](void* self) noexcept { static_cast<Plain*>(self)->~Plain(); };
  }
  Callback(const Callback& other) noexcept : call_(other.call_), copy_(other.copy_), destroy_(other.destroy_) {
    copy_(other.place_, place_);
  }
  Callback& operator=(const Callback& other) noexcept {
    if (this == &other) return *this;
    destroy_(place_);
    call_ = other.call_;
    copy_ = other.copy_;
    destroy_ = other.destroy_;
    copy_(other.place_, place_);
    return *this;
  }
  ~Callback() { destroy_(place_); }
  void operator()(Event& event) noexcept { call_(place_, event); }

 private:
  static constexpr std::size_t k_size = 192;
  alignas(std::max_align_t) std::byte place_[k_size];
  void (*call_)(void*, Event&) noexcept = nullptr;
  void (*copy_)(const void*, void*) noexcept = nullptr;
  void (*destroy_)(void*) noexcept = nullptr;
};

// Up to 16 callbacks, called in order. More than that is an error of fit.
class Callbacks {
 public:
  static constexpr std::size_t k_most = 16;
  Callbacks() noexcept = default;
  Callbacks(std::initializer_list<Callback> list) noexcept : Callbacks(std::span(list.begin(), list.size())) {}
  Callbacks(const Callbacks& other) noexcept : Callbacks(std::span<const Callback>(other.begin(), other.count_)) {}
  Callbacks& operator=(const Callbacks&) = delete;
  ~Callbacks() {
    for (std::size_t i = 0; i < count_; ++i) begin()[i].~Callback();
  }
  [[nodiscard]] bool too_many() const noexcept { return too_many_; }
  void operator()(Event& event) noexcept {
    for (std::size_t i = 0; i < count_; ++i) begin()[i](event);
  }

 private:
  explicit Callbacks(std::span<const Callback> list) noexcept : too_many_(list.size() > k_most) {
    for (const Callback& callback : list) {
      if (count_ < k_most) new (begin() + count_++) Callback(callback);
    }
  }
  [[nodiscard]] Callback* begin() noexcept { return std::launder(reinterpret_cast<Callback*>(place_)); }
  [[nodiscard]] const Callback* begin() const noexcept {
    return std::launder(reinterpret_cast<const Callback*>(place_));
  }
  alignas(Callback) std::byte place_[k_most * sizeof(Callback)];
  std::size_t count_ = 0;
  bool too_many_ = false;
};

// What a callback watches of an epoch's record: the validation loss (the training loss without validation), or a metric by its place
// in FitOptions::metrics.
struct Watch {
  int metric = -1;       // -1: the loss
  double min_delta = 0;  // what counts as an improvement
  // Tells whether the record is better than the best so far, and remembers it if so.
  [[nodiscard]] bool improved(const Event& event) noexcept;
  double best = 0;
  bool seen = false;
};

struct EarlyStoppingOptions {
  int patience = 3;          // epochs without improvement before the run stops
  double min_delta = 0;      // what counts as an improvement
  bool restore_best = true;  // end with the best epoch's parameters
  int metric = -1;           // what is watched: see Watch
};

// Stops when what it watches has not improved for `patience` epochs.
class EarlyStopping {
 public:
  explicit EarlyStopping(const EarlyStoppingOptions& options) noexcept
      : options_(options), watch_{.metric = options.metric, .min_delta = options.min_delta} {}
  void operator()(Event& event) noexcept;

 private:
  EarlyStoppingOptions options_;
  Watch watch_;
  int waited_ = 0;
};
[[nodiscard]] inline EarlyStopping early_stopping(const EarlyStoppingOptions& options = {}) noexcept {
  return EarlyStopping(options);
}

struct ReduceOnPlateauOptions {
  float factor = 0.1f;      // the rate is multiplied by it …
  int patience = 10;        // … after so many epochs in a row without improvement
  double min_delta = 0;     // what counts as an improvement
  int cooldown = 0;         // epochs after a reduction that are not counted
  float min_scale = 1e-6f;  // of all reductions together
  int metric = -1;          // what is watched: see Watch
};
// Lowers the learning rate when what it watches stops improving.
class ReduceOnPlateau {
 public:
  explicit ReduceOnPlateau(const ReduceOnPlateauOptions& options) noexcept
      : options_(options), watch_{.metric = options.metric, .min_delta = options.min_delta} {}
  void operator()(Event& event) noexcept;

 private:
  ReduceOnPlateauOptions options_;
  Watch watch_;
  int waited_ = 0, cooling_ = 0;
};
[[nodiscard]] inline ReduceOnPlateau reduce_on_plateau(const ReduceOnPlateauOptions& options = {}) noexcept {
  return ReduceOnPlateau(options);
}

// Ends the run quietly, instead of with Errc::diverged, when a loss is not finite; the parameters are those before the epoch.
struct TerminateOnNan {
  void operator()(Event& event) noexcept;
};
[[nodiscard]] inline TerminateOnNan terminate_on_nan() noexcept { return {}; }

// Ends the run after the step in which so many seconds are over.
struct TimeLimit {
  double seconds;
  void operator()(Event& event) noexcept;
};
[[nodiscard]] inline TimeLimit time_limit(double seconds) noexcept { return {seconds}; }

// Sets the factor of the learning rate, on top of the schedule, at each epoch's begin: f(epoch), epoch from 1.
template <class F>
  requires std::is_nothrow_invocable_r_v<float, F&, int>
struct LearningRate {
  F f;
  void operator()(Event& event) noexcept {
    if (event.moment == Moment::epoch_begin) event.lr_scale = f(event.epoch);
  }
};
template <class F>
[[nodiscard]] LearningRate<F> learning_rate(F f) noexcept {
  return {std::move(f)};
}

struct ModelCheckpointOptions {
  std::string_view path = "model.safetensors";  // must outlive the run; {epoch} in it becomes the epoch's number
  bool best_only = false;                       // write only when what is watched has improved
  int keep = 0;                                 // with {epoch}: remove files older than the last so many; 0: none
  int metric = -1;                              // what is watched: see Watch
};
// Saves the model's parameters after each epoch, for other programs to use. A run that is to go on after a crash wants
// FitOptions::checkpoints. A file that cannot be written ends the run with its error.
class ModelCheckpoint {
 public:
  explicit ModelCheckpoint(const ModelCheckpointOptions& options) noexcept
      : options_(options), watch_{.metric = options.metric} {}
  void operator()(Event& event) noexcept;

 private:
  static constexpr int k_most_kept = 16;
  ModelCheckpointOptions options_;
  Watch watch_;
  std::array<int, k_most_kept> written_{};  // epochs, oldest first
  int count_ = 0;
};
[[nodiscard]] inline ModelCheckpoint model_checkpoint(const ModelCheckpointOptions& options = {}) noexcept {
  return ModelCheckpoint(options);
}

}  // namespace qorus::train
