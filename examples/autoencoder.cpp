// A convolutional auto-encoder: digits through 32 numbers and back, by a step of its own. `--data data/mnist`, or drawn digits.
// Result on 2000 drawn digits: mean squared error 0.0174 (0.0823 after the first epoch).
#include <cstdio>
#include <string_view>

import qorus;
using namespace qorus;

int main(int argc, char** argv) {
  const bool mnist = argc == 3 && std::string_view(argv[1]) == "--data";
  auto digits = mnist ? data::mnist(argv[2]) : data::digits(7, {.train = 2000, .test = 200});
  if (!digits) return report(digits);
  auto encoder = nn::reshape({1, 28, 28}) | nn::conv2d(16, 3, {.stride = 2, .padding = 1}) | nn::relu() |
                 nn::conv2d(32, 3, {.stride = 2, .padding = 1}) | nn::relu() | nn::flatten() | nn::linear(32);
  auto decoder = nn::linear(32 * 7 * 7) | nn::relu() | nn::reshape({32, 7, 7}) |
                 nn::conv_transpose2d(16, 4, {.stride = 2, .padding = 1}) | nn::relu() |
                 nn::conv_transpose2d(1, 4, {.stride = 2, .padding = 1}) | nn::sigmoid();
  auto model = nn::build(encoder | decoder, digits->train.input_shape(), init::kaiming(7));
  if (!model) return report(model);
  const auto step = [](const train::ModelRef& net, Tape& tape,
                       const data::Batch& batch) noexcept -> Result<train::Forward> {
    auto x = tape.input(batch.x);
    auto y = x.and_then([&](const Tensor& t) { return net(t); });
    auto loss = ops::mse(ops::flatten(y, 1), ops::flatten(x, 1));
    if (!loss) return fail(loss.error());
    return train::Forward{.loss = *loss, .output = {}};
  };
  auto done =
      train::fit(*model, digits->train.examples(),
                 {.optimizer = optim::adamw({.lr = 2e-3f}), .epochs = 4, .batch = 32, .seed = 7, .forward = step});
  if (!done) return report(done);
  std::printf("mean squared error %.4f after the first epoch, %.4f after the last\n", done->epochs[0].loss,
              done->epochs.back().loss);
  return 0;
}
