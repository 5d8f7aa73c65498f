// The progress bar: a callback that writes to the standard error stream.
export module qorus.train:progress;
import qorus.std;
import :callback;

export namespace qorus::train {

// On a terminal: one line that redraws itself, with loss, accuracy, rate and time left, and one line that stays for each epoch;
// colours unless NO_COLOR is set. Elsewhere: one plain line an epoch.
class Progress {
 public:
  Progress() noexcept;
  void operator()(Event& event) noexcept;

 private:
  void draw(const Event& event) noexcept;
  void finish(const Event& event) const noexcept;
  bool terminal_, colour_;
  double drawn_ = -1;  // seconds into the epoch when it was drawn last
};
[[nodiscard]] inline Progress progress() noexcept { return {}; }

}  // namespace qorus::train
