// How the tests of layers run a model. Textual: include after `import qorus.nn;`.
#pragma once
#include <span>
#include <vector>

#include "tests/testing.h"

namespace qorus_test {

inline qorus::Tensor view(const std::vector<float>& values, const qorus::Shape& shape) {
  return qorus::Tensor::borrow(std::span<const float>(values), shape);
}

// What the model makes of x; empty if it fails.
template <class M>
std::vector<float> outputs(const M& model, const qorus::Tensor& x, int threads = 1) {
  using namespace qorus;
  Workspace ws{{.scratch = 64_MiB, .threads = threads}};
  auto frame = ws.frame();
  auto y = frame.input(x) | model;
  EXPECT_OK(y);
  return y ? y->to_vector().value() : std::vector<float>{};
}

}  // namespace qorus_test
