// What the kernels' tests share: the tables of this CPU, arrays between guard zones at any alignment, errors in units
// of the last place, sizes around the vectors' lengths.
#pragma once
#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "kernels/kernels.h"
#include "tests/tolerances.h"

namespace qorus_test {

inline constexpr float k_inf = std::numeric_limits<float>::infinity();
inline constexpr float k_nan = std::numeric_limits<float>::quiet_NaN();

// Every table that this CPU can run, scalar first.
inline std::vector<const qorus::kernels::Table*> tables() {
  std::vector<const qorus::kernels::Table*> found;
  for (const char* isa : {"scalar", "avx2", "avx512"})
    if (const auto* table = qorus::kernels::table(isa)) found.push_back(table);
  return found;
}

// 0 to 2 N + 3 for the widest vector, and some around the kernels' unrolled and blocked loops.
inline std::vector<std::size_t> sizes() {
  std::vector<std::size_t> all;
  for (std::size_t n = 0; n <= 2 * 16 + 3; ++n) all.push_back(n);
  for (std::size_t n : {63, 64, 65, 127, 131, 257}) all.push_back(n);
  return all;
}

// |got - want| in units of f32's last place at want; 0 where both are NaN or the same infinity, infinite where only one
// is.
inline double ulp_error(float got, double want) {
  const float rounded = float(want);
  if (std::isnan(want) || std::isnan(got)) return std::isnan(want) && std::isnan(got) ? 0 : k_inf;
  if (std::isinf(rounded) || std::isinf(got)) return rounded == got ? 0 : k_inf;
  int exponent = 0;
  std::frexp(want, &exponent);
  return std::fabs(double(got) - want) / std::ldexp(1.0, (exponent < -125 ? -125 : exponent) - 24);
}

// An array of n elements, `offset` elements past a 64-byte boundary, with guard zones that are checked on destruction.
template <class T>
class Guarded {
 public:
  explicit Guarded(std::size_t n, std::size_t offset = 0)
      : n_(n), bytes_(2 * k_zone + (n + offset) * sizeof(T) + 64, k_mark) {
    const std::size_t past = reinterpret_cast<std::uintptr_t>(bytes_.data()) % 64;
    data_ = reinterpret_cast<T*>(bytes_.data() + k_zone + (64 - past) % 64) + offset;
    std::memset(static_cast<void*>(data_), 0, n * sizeof(T));
  }
  ~Guarded() {
    const auto* first = reinterpret_cast<const unsigned char*>(data_);
    const auto* last = first + n_ * sizeof(T);
    for (const unsigned char& byte : bytes_)
      if ((&byte < first || &byte >= last) && byte != k_mark) {
        ADD_FAILURE() << "written outside an array of " << n_ << ", at byte " << (&byte - first);
        return;
      }
  }
  Guarded(const Guarded&) = delete;
  Guarded& operator=(const Guarded&) = delete;
  T* data() { return data_; }
  T& operator[](std::size_t i) { return data_[i]; }
  [[nodiscard]] std::size_t size() const { return n_; }
  T* begin() { return data_; }
  T* end() { return data_ + n_; }

 private:
  static constexpr std::size_t k_zone = 128;
  static constexpr unsigned char k_mark = 0xA5;
  std::size_t n_;
  std::vector<unsigned char> bytes_;
  T* data_ = nullptr;
};

inline void fill(Guarded<float>& x, float low, float high, unsigned seed) {
  std::mt19937 random(seed);
  std::uniform_real_distribution<float> value(low, high);
  for (float& v : x) v = value(random);
}

// The same bytes: for floats stricter than ==, and true of a NaN and itself.
inline bool same_bits(const void* a, const void* b, std::size_t bytes) { return std::memcmp(a, b, bytes) == 0; }

// For messages: which table, size and place.
inline std::string where(const qorus::kernels::Table* table, const std::string& what, std::size_t n, std::size_t i) {
  return std::string(table->isa) + " " + what + ", n " + std::to_string(n) + ", element " + std::to_string(i);
}

inline float from_bits(std::uint32_t bits) { return std::bit_cast<float>(bits); }

}  // namespace qorus_test
