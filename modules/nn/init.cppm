// Initialisers: how a model's weights begin. All draws come from a counter-based generator: the same seed gives the same weights
// on every machine, and a parameter's draw does not depend on the others' sizes.
export module qorus.nn:init;
import qorus.std;
import qorus.ops;
import :param;

export namespace qorus {

struct Initializer {
  enum class Kind : std::uint8_t {
    zeros,
    constant,
    normal,
    uniform,
    kaiming_normal,
    kaiming_uniform,
    xavier_normal,
    xavier_uniform,
    orthogonal
  };
  Kind kind = Kind::kaiming_normal;
  std::uint64_t seed = 0;
  float a = 0, b = 0;  // the kind's own numbers

  // Fills one parameter; `stream` keeps parameters apart. Weights are drawn, biases become 0 and gains 1, whatever the kind; with
  // fan_in = elements / shape[0] and fan_out = shape[0] x elements of one [in] slice. Errors: out_of_memory (orthogonal only).
  [[nodiscard]] Status fill(std::span<float> values, const Shape& shape, nn::Role role,
                            std::uint64_t stream) const noexcept;
};

namespace init {
[[nodiscard]] constexpr Initializer zeros() noexcept { return {.kind = Initializer::Kind::zeros}; }
[[nodiscard]] constexpr Initializer constant(float value) noexcept {
  return {.kind = Initializer::Kind::constant, .a = value};
}
// mean 0
[[nodiscard]] constexpr Initializer normal(std::uint64_t seed, float deviation = 0.02f) noexcept {
  return {.kind = Initializer::Kind::normal, .seed = seed, .a = deviation};
}
// [low, high)
[[nodiscard]] constexpr Initializer uniform(std::uint64_t seed, float low, float high) noexcept {
  return {.kind = Initializer::Kind::uniform, .seed = seed, .a = low, .b = high};
}
// N(0, 2 / fan_in): He et al. 2015, for relu
[[nodiscard]] constexpr Initializer kaiming(std::uint64_t seed) noexcept {
  return {.kind = Initializer::Kind::kaiming_normal, .seed = seed};
}
[[nodiscard]] constexpr Initializer kaiming_uniform(std::uint64_t seed) noexcept {
  return {.kind = Initializer::Kind::kaiming_uniform, .seed = seed};
}
// N(0, 2 / (fan_in + fan_out)): Glorot & Bengio 2010
[[nodiscard]] constexpr Initializer xavier(std::uint64_t seed) noexcept {
  return {.kind = Initializer::Kind::xavier_normal, .seed = seed};
}
[[nodiscard]] constexpr Initializer xavier_uniform(std::uint64_t seed) noexcept {
  return {.kind = Initializer::Kind::xavier_uniform, .seed = seed};
}
// Rows (or columns, whichever are fewer) orthonormal, times gain: Saxe et al. 2014
[[nodiscard]] constexpr Initializer orthogonal(std::uint64_t seed, float gain = 1) noexcept {
  return {.kind = Initializer::Kind::orthogonal, .seed = seed, .a = gain};
}
}  // namespace init

}  // namespace qorus
