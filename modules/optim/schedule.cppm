// Learning-rate schedules: a factor of the optimizer's rate for each moment of a run.
module;
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <numbers>
export module qorus.optim:schedule;

export namespace qorus {

// factor(progress), progress from 0 (the first step) to 1 (the end of the run): a linear rise over the first `warmup` of it, then
//   constant  1
//   linear    from 1 to `end` in a straight line
//   cosine    from 1 to `end` along half a cosine (Loshchilov & Hutter 2017)
struct Schedule {
  enum class Kind : std::uint8_t { constant, linear, cosine };
  Kind kind = Kind::constant;
  float warmup = 0;  // share of the run, below 1
  float end = 0;     // factor at the end

  [[nodiscard]] float factor(double progress) const noexcept {
    const double warm = std::clamp(static_cast<double>(warmup), 0.0, 0.999);
    if (progress < warm) return static_cast<float>(progress / warm);
    const double rest = std::clamp((progress - warm) / (1 - warm), 0.0, 1.0), last = end;
    switch (kind) {
      case Kind::constant: return 1;
      case Kind::linear: return static_cast<float>(1 + (last - 1) * rest);
      case Kind::cosine: return static_cast<float>(last + (1 - last) * (1 + std::cos(std::numbers::pi * rest)) / 2);
    }
    return 1;
  }
};

struct ScheduleOptions {
  float warmup = 0, end = 0;
};

namespace schedule {
[[nodiscard]] constexpr Schedule constant(float warmup = 0) noexcept {
  return {.kind = Schedule::Kind::constant, .warmup = warmup};
}
[[nodiscard]] constexpr Schedule linear(const ScheduleOptions& o = {}) noexcept {
  return {Schedule::Kind::linear, o.warmup, o.end};
}
[[nodiscard]] constexpr Schedule cosine(const ScheduleOptions& o = {}) noexcept {
  return {Schedule::Kind::cosine, o.warmup, o.end};
}
}  // namespace schedule

}  // namespace qorus
