// The loop underneath, on a tape: nothing is allocated after the first step.
#include <cstdint>
#include <cstdio>
#include <utility>

import qorus;
using namespace qorus;

int main() {
  auto digits = data::digits(7);
  if (!digits) return report(digits);
  auto net = nn::flatten() | nn::linear(128) | nn::relu() | nn::linear(10);
  auto model = nn::build(net, digits->train.input_shape(), init::kaiming(7));
  if (!model) return report(model);
  auto opt = optim::adamw(*model, {.lr = 1e-3f});
  Workspace ws{{.scratch = 256_MiB, .threads = 2}};
  auto batches = digits->train | data::shuffle(7) | data::batch(64);
  for (int epoch = 0; epoch < 3; ++epoch) {
    for (auto const& [x, y] : batches) {
      auto tape = ws.record();  // rewinds at the brace
      auto step = (tape.input(x) | *model | loss::cross_entropy(y))
                      .and_then(backward)
                      .and_then([](const Gradients& g) { return clip_norm(g, 1.0f); })
                      .and_then([&](const Gradients& g) { return opt.step(*model, g); });
      if (!step) return report(step);
    }
  }
  auto result = train::evaluate(*model, digits->test);
  if (!result) return report(result);
  std::printf("test accuracy %.2f %%\n", 100 * result->accuracy);

  // Only computes from here on: its weights are in memory once, as products read them.
  auto ready = nn::packed(std::move(*model));
  if (!ready) return report(ready);
  for (auto const& [x, y] : digits->test | data::batch(1)) {
    auto frame = ws.frame();
    auto digit = ops::argmax(frame.input(x) | *ready).and_then([](const Tensor& t) { return t.item<std::int32_t>(); });
    if (!digit) return report(digit);
    std::printf("the first test digit, a %d, looks like a %d\n", *y.item<std::int32_t>(), *digit);
    break;
  }
}
