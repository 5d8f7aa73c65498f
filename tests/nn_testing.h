// What the tests of layers share. Textual: include before imports, use after `import qorus.nn;`.
#pragma once
#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "tests/allocation_counter.h"
#include "tests/testing.h"

namespace qorus_test {

inline std::vector<float> waves(std::size_t n, double step = 0.7) {
  std::vector<float> values(n);
  for (std::size_t i = 0; i < n; ++i) values[i] = static_cast<float>(std::sin(step * static_cast<double>(i) + 0.3));
  return values;
}

}  // namespace qorus_test
