// The loop underneath, on a tape: nothing is allocated after the first step.
#include <cstdio>

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
}
