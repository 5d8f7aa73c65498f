// Bodies of qorus.llm:config: how far rotary pairs turn, under every kind of scaling.
module qorus.llm;
import qorus.std;

namespace qorus::llm {
namespace {

using Kind = RopeScaling::Kind;

// The pair that turns so many times within the original context.
double pair_turning(double times, const Rope& rope) noexcept {
  const double context = static_cast<double>(rope.scaling.original_context);
  return static_cast<double>(rope.dim) * std::log(context / (times * 2 * std::numbers::pi)) /
         (2 * std::log(static_cast<double>(rope.base)));
}

// How much of a pair is stretched: 0 for those that turn beta_fast times or more, 1 for those that turn beta_slow times or less.
double yarn_share(std::size_t pair, const Rope& rope) noexcept {
  const RopeScaling& s = rope.scaling;
  double low = pair_turning(static_cast<double>(s.beta_fast), rope),
         high = pair_turning(static_cast<double>(s.beta_slow), rope);
  if (s.truncate) low = std::floor(low), high = std::ceil(high);
  low = std::max(low, 0.0);
  high = std::min(high, static_cast<double>(rope.dim - 1));
  if (low == high) high += 0.001;
  return std::clamp((static_cast<double>(pair) - low) / (high - low), 0.0, 1.0);
}

// As Llama 3.1 has it: by how often a pair turns within the original context.
double llama3_turn(double turn, const RopeScaling& s) noexcept {
  const double times = static_cast<double>(s.original_context) * turn / (2 * std::numbers::pi);
  const auto low = static_cast<double>(s.low_freq), high = static_cast<double>(s.high_freq),
             factor = static_cast<double>(s.factor);
  if (times > high) return turn;
  if (times < low) return turn / factor;
  const double smooth = (times - low) / (high - low);
  return (1 - smooth) * turn / factor + smooth * turn;
}

float attention_factor(const RopeScaling& s) noexcept {
  if (s.attention_factor > 0) return s.attention_factor;
  if (s.factor <= 1) return 1;
  if (s.kind == Kind::yarn) return 0.1f * std::log(s.factor) + 1;
  if (s.kind == Kind::longrope) return std::sqrt(1 + std::log(s.factor) / std::log(s.original_context));
  return 1;
}

}  // namespace

Result<Frequencies> frequencies(const Rope& rope, const Config& config, std::int64_t context) noexcept {
  const RopeScaling& s = rope.scaling;
  Frequencies made;
  const auto dim = static_cast<double>(rope.dim), factor = static_cast<double>(s.factor);
  auto base = static_cast<double>(rope.base);
  const double length = static_cast<double>(context), original = static_cast<double>(s.original_context);
  if (s.kind == Kind::dynamic && length > original && rope.dim > 2)
    base *= std::pow(factor * length / original - (factor - 1), dim / (dim - 2));
  const List<float>& factors = length > original ? config.long_factors : config.short_factors;
  for (std::size_t i = 0; i < static_cast<std::size_t>(rope.dim / 2); ++i) {
    double turn = std::pow(base, -2.0 * static_cast<double>(i) / dim);
    if (s.kind == Kind::linear) turn /= factor;
    if (s.kind == Kind::yarn) {
      const double share = yarn_share(i, rope);
      turn = turn / factor * share + turn * (1 - share);
    }
    if (s.kind == Kind::llama3) turn = llama3_turn(turn, s);
    if (s.kind == Kind::longrope) turn /= static_cast<double>(factors[i]);
    if (auto ok = made.turn.push(turn); !ok) return fail(ok.error());
  }
  made.scale = attention_factor(s);
  return made;
}

}  // namespace qorus::llm
