// Callbacks: plain values that are told what happens in a run, and may stop it.
module;
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <new>
#include <span>
#include <type_traits>
#include <utility>
export module qorus.train:callback;
import qorus.nn;

export namespace qorus::train {

// What one epoch came to.
struct EpochRecord {
  int epoch = 0;                   // from 1
  double loss = 0, accuracy = -1;  // over the training examples as they were seen; accuracy -1: not a classifier
  double validation_loss = -1, validation_accuracy = -1;  // -1: no validation
  double seconds = 0, examples_per_second = 0;
};

enum class Moment : std::uint8_t { run_begin, epoch_begin, step_end, epoch_end, run_end };

// Where the run stands. Callbacks read it, and write `stop`, `keep_best`, `restore_best`.
struct Event {
  Moment moment = Moment::run_begin;
  int epoch = 0, epochs = 0;        // epoch from 1
  std::size_t step = 0, steps = 0;  // within the epoch; step from 1
  std::size_t examples = 0;         // seen in this epoch
  double loss = 0, accuracy = -1;   // means over this epoch so far
  float last_loss = 0, lr = 0;
  double seconds = 0;  // since the epoch began
  EpochRecord record;  // at epoch_end: complete
  const nn::Parameters* parameters = nullptr;

  bool stop = false;          // end the run after this epoch (step, at step_end)
  bool keep_best = false;     // remember the parameters as they are now
  bool restore_best = false;  // at run_end: put the remembered ones back
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

struct EarlyStoppingOptions {
  int patience = 3;          // epochs without improvement before the run stops
  double min_delta = 0;      // what counts as an improvement
  bool restore_best = true;  // end with the best epoch's parameters
};

// Watches the validation loss (the training loss without validation), stops when it has not improved for `patience` epochs.
class EarlyStopping {
 public:
  explicit EarlyStopping(const EarlyStoppingOptions& options) noexcept : options_(options) {}
  void operator()(Event& event) noexcept;

 private:
  EarlyStoppingOptions options_;
  double best_ = 0;
  int waited_ = 0;
  bool seen_ = false;
};
[[nodiscard]] inline EarlyStopping early_stopping(const EarlyStoppingOptions& options = {}) noexcept {
  return EarlyStopping(options);
}

}  // namespace qorus::train
