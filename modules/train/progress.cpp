// Bodies of qorus.train:progress.
module;
#include <unistd.h>

#include <cstdio>
module qorus.train;
import qorus.std;

namespace qorus::train {
namespace {

constexpr double k_redraw = 0.1;  // seconds
constexpr int k_width = 24;       // of the bar

}  // namespace

Progress::Progress() noexcept {
  const char* none = std::getenv("NO_COLOR");
  terminal_ = ::isatty(STDERR_FILENO) == 1;
  colour_ = terminal_ && !(none && *none);
}

void Progress::operator()(Event& event) noexcept {
  if (event.moment == Moment::epoch_begin) drawn_ = -1;
  if (event.moment == Moment::step_end && terminal_ && event.seconds - drawn_ >= k_redraw) draw(event);
  if (event.moment == Moment::epoch_end) finish(event);
}

void Progress::draw(const Event& event) noexcept {
  drawn_ = event.seconds;
  const double share = event.steps ? static_cast<double>(event.step) / static_cast<double>(event.steps) : 0;
  const int full = std::clamp(static_cast<int>(share * k_width), 0, k_width);
  char bar[k_width + 1];
  std::memset(bar, '=', sizeof bar);
  std::memset(bar + full, ' ', static_cast<std::size_t>(k_width - full));
  bar[k_width] = 0;
  const double rate = static_cast<double>(event.examples) / std::max(event.seconds, 1e-9);
  const double left = share > 0 ? event.seconds / share - event.seconds : 0;
  char accuracy[32] = "";
  if (event.accuracy >= 0) std::snprintf(accuracy, sizeof accuracy, "  accuracy %.4f", event.accuracy);
  std::fprintf(stderr, "\r%sepoch %d/%d%s [%s] %zu/%zu  loss %.4f%s  %.0f/s  %.0f s left\x1b[K",
               colour_ ? "\x1b[1m" : "", event.epoch, event.epochs, colour_ ? "\x1b[0m" : "", bar, event.step,
               event.steps, event.loss, accuracy, rate, left);
  std::fflush(stderr);
}

void Progress::finish(const Event& event) const noexcept {
  const EpochRecord& r = event.record;
  std::fprintf(stderr, "%sepoch %d/%d  loss %.4f", terminal_ ? "\r\x1b[K" : "", event.epoch, event.epochs, r.loss);
  if (r.accuracy >= 0) std::fprintf(stderr, "  accuracy %.4f", r.accuracy);
  if (r.validation_loss >= 0) std::fprintf(stderr, "  validation loss %.4f", r.validation_loss);
  if (r.validation_accuracy >= 0)
    std::fprintf(stderr, "  %svalidation accuracy %.4f%s", colour_ ? "\x1b[32m" : "", r.validation_accuracy,
                 colour_ ? "\x1b[0m" : "");
  std::fprintf(stderr, "  %.0f examples/s  %.1f s\n", r.examples_per_second, r.seconds);
}

}  // namespace qorus::train
