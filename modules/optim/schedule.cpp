// Bodies of qorus.optim:schedule.
module qorus.optim;
import qorus.std;

namespace qorus {
namespace {

using Kind = ScheduleStage::Kind;

// From 1 to 0 along half a cosine.
double fall(double q) noexcept { return (1 + std::cos(std::numbers::pi * std::clamp(q, 0.0, 1.0))) / 2; }

double restarts(const ScheduleStage& stage, double epoch) noexcept {
  constexpr int k_most = 100'000;  // restarts: a period of nothing must not take for ever
  double period = std::max(stage.period, 1e-9);
  if (stage.growth <= 1) return stage.end + (1 - stage.end) * fall(std::fmod(epoch, period) / period);
  for (int i = 0; epoch >= period && i < k_most; ++i) {
    epoch -= period;
    period *= stage.growth;
  }
  return stage.end + (1 - stage.end) * fall(epoch / period);
}

// The rise ends with step rise * steps - 1, the fall with the last step: as PyTorch counts.
double one_cycle(const ScheduleStage& stage, double step, double steps) noexcept {
  const double top = std::max(stage.rise * steps - 1, 0.0), last = std::max(steps - 1, top);
  if (step <= top) return 1 + (stage.start - 1) * fall(top > 0 ? step / top : 1);
  return stage.end + (1 - stage.end) * fall(last > top ? (step - top) / (last - top) : 1);
}

// At q of the stage, with so many epochs and steps gone in it, of so many steps.
double at(const ScheduleStage& stage, double q, double epoch, double step, double steps) noexcept {
  // A step that is the first of an epoch must not fall into the one before by a rounding.
  const double whole = std::floor(epoch + 1e-9);
  switch (stage.kind) {
    case Kind::constant: return stage.end;
    case Kind::polynomial: return stage.end + (stage.start - stage.end) * std::pow(1 - q, stage.power);
    case Kind::rise: return stage.start + (stage.end - stage.start) * std::pow(q, stage.power);
    case Kind::cosine: return stage.end + (1 - stage.end) * fall(q);
    case Kind::restarts: return restarts(stage, epoch);
    case Kind::step: return std::pow(stage.gamma, std::floor(whole / std::max(stage.period, 1e-9)));
    case Kind::multi_step: {
      const auto past = std::count_if(stage.at.begin(), stage.at.end(),
                                      [&](double milestone) { return milestone > 0 && whole >= milestone; });
      return std::pow(stage.gamma, static_cast<double>(past));
    }
    case Kind::exponential: return std::pow(stage.gamma, whole);
    case Kind::one_cycle: return one_cycle(stage, step, steps);
    case Kind::inverse_sqrt: {
      const double warm = std::max(stage.period, 1.0);
      return step < warm ? step / warm : std::sqrt(warm / step);
    }
  }
  return 1;
}

}  // namespace

float Schedule::factor(double progress, double epochs, double steps) const noexcept {
  const std::span<const ScheduleStage> all(stages.data(), std::min(count, k_most));
  if (all.empty()) return 1;
  double taken = 0, open = 0;
  for (const ScheduleStage& stage : all) {
    taken += stage.share;
    open += stage.share > 0 ? 0 : 1;
  }
  const double each = open > 0 ? std::max(1 - taken, 0.0) / open : 0;
  double begin = 0;
  for (const ScheduleStage& stage : all) {
    const double length = stage.share > 0 ? stage.share : each;
    const bool last = &stage == &all.back();
    if (progress < begin + length || last) {
      const double gone = std::max(progress - begin, 0.0), q = length > 0 ? std::min(gone / length, 1.0) : 1;
      return static_cast<float>(at(stage, q, gone * epochs, gone * steps, length * steps));
    }
    begin += length;
  }
  return 1;
}

}  // namespace qorus
