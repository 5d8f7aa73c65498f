// The definition of the random numbers: Philox 4x32-10, a counter-based generator: a number is a function of (key,
// position). source: Salmon, Moraes, Dror, Shaw, Parallel Random Numbers: As Easy as 1, 2, 3, 2011.
#include <cstddef>
#include <cstdint>

#include "kernels/parts.h"

namespace qorus::kernels {
namespace {

struct Quad {
  std::uint32_t word[4];
};

Quad philox(std::uint64_t counter, std::uint64_t key) {
  std::uint32_t c0 = std::uint32_t(counter), c1 = std::uint32_t(counter >> 32), c2 = 0, c3 = 0;
  std::uint32_t k0 = std::uint32_t(key), k1 = std::uint32_t(key >> 32);
  for (int round = 0; round < 10; ++round) {
    const std::uint64_t p0 = std::uint64_t(c0) * 0xD2511F53u, p1 = std::uint64_t(c2) * 0xCD9E8D57u;
    c0 = std::uint32_t(p1 >> 32) ^ c1 ^ k0;
    c1 = std::uint32_t(p1);
    c2 = std::uint32_t(p0 >> 32) ^ c3 ^ k1;
    c3 = std::uint32_t(p0);
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
  return {{c0, c1, c2, c3}};
}

std::uint32_t bits(std::uint64_t key, std::uint64_t i) { return philox(i / 4, key).word[i % 4]; }
float uniform(std::uint64_t key, std::uint64_t i) { return float(bits(key, i) >> 8) * 0x1p-24f; }

void random_bits(std::uint32_t* y, std::size_t n, std::uint64_t key, std::uint64_t first) noexcept {
  for (std::size_t i = 0; i < n; ++i) y[i] = bits(key, first + i);
}

void random_uniform(float* y, std::size_t n, std::uint64_t key, std::uint64_t first) noexcept {
  for (std::size_t i = 0; i < n; ++i) y[i] = uniform(key, first + i);
}

void dropout(const float* x, float* y, std::size_t n, float p, std::uint64_t key, std::uint64_t first,
             bool accumulate) noexcept {
  const float scale = 1 / (1 - p);
  for (std::size_t i = 0; i < n; ++i) {
    const float value = uniform(key, first + i) >= p ? x[i] * scale : 0;
    y[i] = accumulate ? y[i] + value : value;
  }
}

}  // namespace

extern constinit const RandomPart random_scalar{random_bits, random_uniform, dropout};

}  // namespace qorus::kernels
