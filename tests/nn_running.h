// How the tests of layers run a model. Textual: include after `import qorus.nn;`.
#pragma once
#include <algorithm>
#include <cstddef>
#include <span>
#include <string>
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

// With less room than a step needs, each of so many tries ends with an error that says so, wherever it runs out; with enough it goes on.
// `step` runs in the workspace, which was made with `all` bytes of scratch, and gives a Status.
template <class Step>
void starve(qorus::Workspace& ws, std::size_t all, std::size_t tries, const Step& step) {
  qorus::Arena& scratch = *ws.context().scratch;
  const std::size_t mark = scratch.mark();
  ASSERT_OK(step());
  const std::size_t wanted = scratch.counters().high_water - mark;
  const std::size_t stride = std::max<std::size_t>(64, wanted / tries / 64 * 64);
  for (std::size_t room = 0; room < wanted; room += stride) {
    ASSERT_OK(scratch.take(all - mark - room));
    const qorus::Status done = step();
    scratch.shrink_to(mark);
    ASSERT_FALSE(done) << room << " of " << wanted << " bytes";
    const std::string text = done.error().message().c_str();
    EXPECT_TRUE(text.find("out of memory") != text.npos || text.find("too small") != text.npos) << text;
  }
  ASSERT_OK(step());
}

}  // namespace qorus_test
