#include <cstdio>
#include <vector>

import qorus.ops;

int main() {
  using namespace qorus;
  const auto x = Owned::from<float>({1, 2, 3, 4}, {2, 2});
  Workspace ws({.threads = 1});
  auto frame = ws.frame();
  auto product = ops::matmul(frame.input(*x), frame.input(*x)).and_then([](const Tensor& t) { return t.to_vector(); });
  if (!product) return std::fprintf(stderr, "%s\n", product.error().message().c_str()), 1;
  for (const float value : *product) std::printf("%g ", static_cast<double>(value));
  return std::puts("") < 0;
}
