// Bodies of qorus.train:callback.
module;
#include <unistd.h>

module qorus.train;
import qorus.std;
import qorus.io;

namespace qorus::train {
namespace {

constexpr std::size_t k_longest_path = 380;  // what a Text holds, with a number

bool epoch_is_over(const Event& event) noexcept {
  return event.moment == Moment::epoch_end || event.moment == Moment::epoch_replayed;
}

// The path with {epoch} replaced.
Text path_of(std::string_view pattern, int epoch) noexcept {
  constexpr std::string_view k_mark = "{epoch}";
  const auto at = pattern.find(k_mark);
  Text path;
  if (at == pattern.npos) {
    path += pattern;
    return path;
  }
  path += std::string_view(pattern.data(), at);
  path += std::int64_t{epoch};
  pattern.remove_prefix(at + k_mark.size());
  path += pattern;
  return path;
}

}  // namespace

bool Watch::improved(const Event& event) noexcept {
  const EpochRecord& r = event.record;
  double value = r.validation_loss >= 0 ? r.validation_loss : r.loss;
  if (metric >= 0 && event.metrics && static_cast<std::size_t>(metric) < event.metrics->count) {
    const auto i = static_cast<std::size_t>(metric);
    value = event.metrics->list[i].larger_is_better() ? -r.metrics[i] : r.metrics[i];
  }
  if (seen && !(value < best - min_delta)) return false;
  best = value;
  seen = true;
  return true;
}

void EarlyStopping::operator()(Event& event) noexcept {
  if (event.moment == Moment::run_end)
    event.restore_best = event.restore_best || (options_.restore_best && watch_.seen);
  if (!epoch_is_over(event)) return;
  if (watch_.improved(event)) {
    waited_ = 0;
    event.keep_best = event.keep_best || options_.restore_best;
  } else if (++waited_ >= options_.patience) {
    event.stop = true;
  }
}

void ReduceOnPlateau::operator()(Event& event) noexcept {
  if (!epoch_is_over(event)) return;
  const bool better = watch_.improved(event);
  if (cooling_ > 0) {
    --cooling_;
    waited_ = 0;
  }
  if (better || cooling_ > 0) {
    waited_ = 0;
    return;
  }
  if (++waited_ < options_.patience) return;
  event.lr_scale = std::max(event.lr_scale * options_.factor, options_.min_scale);
  cooling_ = options_.cooldown;
  waited_ = 0;
}

void TerminateOnNan::operator()(Event& event) noexcept {
  if (event.moment == Moment::step_end && !std::isfinite(event.last_loss)) event.stop = true;
}

void TimeLimit::operator()(Event& event) noexcept {
  if (event.moment == Moment::step_end && event.run_seconds >= seconds) event.stop = true;
}

void ModelCheckpoint::operator()(Event& event) noexcept {
  if (!epoch_is_over(event)) return;
  const bool better = watch_.improved(event);
  if (event.moment == Moment::epoch_replayed || (options_.best_only && !better) || !event.parameters) return;
  if (options_.path.size() > k_longest_path) {
    event.failure =
        fail(Errc::invalid_argument, "model_checkpoint", "a path of at most 380 bytes", options_.path).value();
    return;
  }
  const Text path = path_of(options_.path, event.epoch);
  if (auto saved = io::save(*event.parameters, path.view()); !saved) {
    event.failure = saved.error();
    return;
  }
  const int most = std::min(options_.keep, k_most_kept);
  if (most <= 0 || options_.path.find("{epoch}") == options_.path.npos) return;
  if (count_ == most) {
    ::unlink(path_of(options_.path, written_[0]).c_str());
    std::copy(written_.begin() + 1, written_.begin() + count_, written_.begin());
    --count_;
  }
  written_[static_cast<std::size_t>(count_++)] = event.epoch;
}

}  // namespace qorus::train
