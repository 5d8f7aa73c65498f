// Bodies of qorus.train:callback.
module qorus.train;

namespace qorus::train {

void EarlyStopping::operator()(Event& event) noexcept {
  if (event.moment == Moment::run_end) event.restore_best = event.restore_best || (options_.restore_best && seen_);
  if (event.moment != Moment::epoch_end) return;
  const double watched = event.record.validation_loss >= 0 ? event.record.validation_loss : event.record.loss;
  if (!seen_ || watched < best_ - options_.min_delta) {
    best_ = watched;
    seen_ = true;
    waited_ = 0;
    event.keep_best = event.keep_best || options_.restore_best;
  } else if (++waited_ >= options_.patience) {
    event.stop = true;
  }
}

}  // namespace qorus::train
