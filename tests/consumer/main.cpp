// Learns exclusive or, and prints what it predicts for 00, 01, 10, 11.
#include <cstdint>
#include <cstdio>

import qorus.nn;
import qorus.optim;
using namespace qorus;

int main() {
  const auto x = Owned::from<float>({0, 0, 0, 1, 1, 0, 1, 1}, {4, 2});
  const auto y = Owned::from<std::int32_t>({0, 1, 1, 0}, {4});
  auto model = nn::build(nn::linear(16) | nn::tanh() | nn::linear(2), {2}, init::xavier(1));
  if (!x || !y || !model) return 1;
  auto optimizer = optim::adam(*model, {.lr = 0.05f});
  Workspace ws({.threads = 1});
  for (int step = 0; step < 200; ++step) {
    auto tape = ws.record();
    const auto done =
        (tape.input(*x) | *model | loss::cross_entropy(*y)).and_then(backward).and_then([&](const Gradients& g) {
          return optimizer.step(*model, g);
        });
    if (!done) return std::fprintf(stderr, "%s\n", done.error().message().c_str()), 1;
  }
  auto frame = ws.frame();
  const auto best = ops::argmax(frame.input(*x) | *model);
  for (int i = 0; best && i < 4; ++i) std::printf("%d ", best->at<std::int32_t>({i}).value_or(-1));
  return std::puts("") < 0;
}
