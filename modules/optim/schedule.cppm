// Learning-rate schedules: a factor of the optimizer's rate for each moment of a run, composed of stages in a pipe.
export module qorus.optim:schedule;
import qorus.std;

export namespace qorus {

// One stage of a schedule. Within it, q runs from 0 to 1, e counts epochs and s steps from its begin; the factor is
//   constant      end
//   polynomial    end + (start - end) (1 - q)^power
//   rise          start + (end - start) q^power: a warm-up
//   cosine        end + (1 - end) (1 + cos(pi q)) / 2         (Loshchilov & Hutter 2017)
//   restarts      the same along periods of `period` epochs, each `growth` times as long as the one before
//   step          gamma^floor(e / period)
//   multi_step    gamma^(how many of the epochs `at` are past)
//   exponential   gamma^floor(e)
//   one_cycle     start -> 1 over the first `rise` of the steps, then 1 -> end, along half cosines (Smith & Topin 2018)
//   inverse_sqrt  sqrt(steps / max(s, steps)), a linear rise from 0 before (Vaswani et al. 2017)
struct ScheduleStage {
  enum class Kind : std::uint8_t {
    constant,
    polynomial,
    rise,
    cosine,
    restarts,
    step,
    multi_step,
    exponential,
    one_cycle,
    inverse_sqrt
  };
  static constexpr std::size_t k_most_epochs = 8;
  Kind kind = Kind::constant;
  double share = 0;  // of the run that it lasts; 0: what the others leave, in equal parts
  double start = 0, end = 1, power = 1, gamma = 1, period = 1, growth = 1, rise = 0.3;
  std::array<double, k_most_epochs> at{};  // of multi_step: epochs in rising order, 0 after the last
};

// Stages, one after the other: `schedule::linear_warmup(0.05) | schedule::cosine()`. Up to 6; more of them are dropped.
struct Schedule {
  static constexpr std::size_t k_most = 6;
  std::array<ScheduleStage, k_most> stages{};
  std::size_t count = 0;

  // progress: from 0 (the first step) to 1 (the end of a run of so many epochs and steps).
  [[nodiscard]] float factor(double progress, double epochs = 1, double steps = 1) const noexcept;

  friend constexpr Schedule operator|(Schedule first, const Schedule& then) noexcept {
    for (std::size_t i = 0; i < then.count && first.count < k_most; ++i) first.stages[first.count++] = then.stages[i];
    return first;
  }
};

struct ScheduleOptions {
  float warmup = 0;  // share of the run that rises linearly from 0, below 1
  float end = 0;     // factor at the end
};

namespace schedule {
[[nodiscard]] constexpr Schedule stage(const ScheduleStage& only) noexcept {
  Schedule schedule;
  schedule.stages[schedule.count++] = only;
  return schedule;
}
// From `start` to 1 over a share of the run, in a straight line or along a power of it.
[[nodiscard]] constexpr Schedule polynomial_warmup(double share, double power, double start = 0) noexcept {
  if (share <= 0) return {};
  return stage({.kind = ScheduleStage::Kind::rise,
                .share = share < 0.999 ? share : 0.999,
                .start = start,
                .end = 1,
                .power = power});
}
[[nodiscard]] constexpr Schedule linear_warmup(double share, double start = 0) noexcept {
  return polynomial_warmup(share, 1, start);
}
[[nodiscard]] constexpr Schedule constant(float warmup = 0) noexcept {
  return linear_warmup(warmup) | stage({.kind = ScheduleStage::Kind::constant});
}
[[nodiscard]] constexpr Schedule polynomial(double power, const ScheduleOptions& o = {}) noexcept {
  return linear_warmup(o.warmup) |
         stage({.kind = ScheduleStage::Kind::polynomial, .start = 1, .end = o.end, .power = power});
}
[[nodiscard]] constexpr Schedule linear(const ScheduleOptions& o = {}) noexcept { return polynomial(1, o); }
[[nodiscard]] constexpr Schedule cosine(const ScheduleOptions& o = {}) noexcept {
  return linear_warmup(o.warmup) | stage({.kind = ScheduleStage::Kind::cosine, .end = o.end});
}
[[nodiscard]] constexpr Schedule cosine_restarts(double period, double growth = 1, double end = 0) noexcept {
  return stage({.kind = ScheduleStage::Kind::restarts, .end = end, .period = period, .growth = growth});
}
[[nodiscard]] constexpr Schedule step(double period, double gamma = 0.1) noexcept {
  return stage({.kind = ScheduleStage::Kind::step, .gamma = gamma, .period = period});
}
[[nodiscard]] constexpr Schedule multi_step(std::initializer_list<double> epochs, double gamma = 0.1) noexcept {
  ScheduleStage one{.kind = ScheduleStage::Kind::multi_step, .gamma = gamma};
  std::size_t i = 0;
  for (const double epoch : epochs) {
    if (i < ScheduleStage::k_most_epochs) one.at[i++] = epoch;
  }
  return stage(one);
}
[[nodiscard]] constexpr Schedule exponential(double gamma) noexcept {
  return stage({.kind = ScheduleStage::Kind::exponential, .gamma = gamma});
}
struct OneCycleOptions {
  double rise = 0.3, start_divisor = 25, end_divisor = 1e4;  // end factor: 1 / (start_divisor end_divisor)
};
[[nodiscard]] constexpr Schedule one_cycle(const OneCycleOptions& o = {}) noexcept {
  return stage({.kind = ScheduleStage::Kind::one_cycle,
                .start = 1 / o.start_divisor,
                .end = 1 / (o.start_divisor * o.end_divisor),
                .rise = o.rise});
}
[[nodiscard]] constexpr Schedule inverse_sqrt(double warmup_steps) noexcept {
  return stage({.kind = ScheduleStage::Kind::inverse_sqrt, .period = warmup_steps});
}
}  // namespace schedule

}  // namespace qorus
