// A program that only predicts: two linear layers forward, nothing recorded. tools/scan-symbols looks at what got linked into it.
#include <cstdio>

import qorus.ops;

int main() {
  using namespace qorus;
  const auto x = Owned::from<float>({1, 2}, {1, 2});
  const auto hidden = Owned::from<float>({1, 0, 0, 1, 1, 1}, {3, 2});
  const auto out = Owned::from<float>({1, 2, 3}, {1, 3});
  if (!x || !hidden || !out) return 1;
  Workspace workspace({.scratch = 1_MiB, .threads = 1});
  auto frame = workspace.frame();
  const auto y = ops::linear(ops::linear(frame.input(*x), frame.input(*hidden), Activation::relu), frame.input(*out));
  if (!y) return std::fprintf(stderr, "%s\n", y.error().message().c_str()), 1;
  const auto value = y->item();
  return value && *value == 1.0f + 2 * 2.0f + 3 * 3.0f ? 0 : 1;
}
