// Random numbers by counter: the i-th number of a stream is a pure function of (seed, stream, i), so that any example
// can be drawn again without those before it.
export module qorus.data:random;
import qorus.std;

namespace qorus::data {

// The finaliser of SplitMix64 (Steele, Lea, Flood, 2014): a bijection whose every output bit depends on every input
// bit.
constexpr std::uint64_t mix(std::uint64_t z) noexcept {
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
  return z ^ (z >> 31);
}

class Random {
 public:
  constexpr Random(std::uint64_t seed, std::uint64_t stream) noexcept
      : key_(mix(mix(seed + k_step) ^ (stream * k_step))) {}

  constexpr std::uint64_t bits() noexcept { return mix(key_ += k_step); }
  // Below n; n > 0. The product's upper half: the bias is at most n / 2^64.
  constexpr std::uint64_t below(std::uint64_t n) noexcept {
    return static_cast<std::uint64_t>((static_cast<unsigned __int128>(bits()) * n) >> 64);
  }
  // In [0, 1), 24 bits.
  constexpr float uniform() noexcept { return static_cast<float>(bits() >> 40) * 0x1p-24f; }
  constexpr float between(float low, float high) noexcept { return low + (high - low) * uniform(); }
  // Mean 0, deviation 1, limited to ±3.46: the sum of twelve uniforms of 16 bits, the same bits on every machine.
  constexpr float normal() noexcept {
    std::uint32_t sum = 0;
    for (int i = 0; i < 3; ++i) {
      const std::uint64_t four = bits();
      sum += static_cast<std::uint32_t>((four & 0xffff) + (four >> 16 & 0xffff) + (four >> 32 & 0xffff) + (four >> 48));
    }
    return static_cast<float>(sum) * 0x1p-16f - 6.0f;
  }

 private:
  static constexpr std::uint64_t k_step = 0x9e3779b97f4a7c15u;
  std::uint64_t key_;
};

// The first `count` places of a uniformly random permutation (Fisher and Yates, from the front).
void shuffle_front(std::span<std::uint32_t> order, std::size_t count, Random random) noexcept;

}  // namespace qorus::data
