// A program that only predicts: a small network forward, nothing recorded. tools/scan-symbols looks at what got linked into it.
#include <cstdio>

import qorus.nn;

int main() {
  using namespace qorus;
  const auto x = Owned::from<float>({1, 2}, {1, 2});
  const auto weight = Owned::from<float>({1, 0, 0, 1, 1, 1}, {3, 2});
  auto model = nn::build(nn::linear(3) | nn::relu() | nn::linear(1) | nn::softmax(), {2});
  if (!x || !weight || !model || !model->assign("0.weight", *weight)) return 1;
  Workspace workspace({.scratch = 1_MiB, .threads = 2});
  auto frame = workspace.frame();
  const auto y = frame.input(*x) | *model;
  if (!y) return std::fprintf(stderr, "%s\n", y.error().message().c_str()), 1;
  return y->item() == 1.0f ? 0 : 1;
}
