// A program of random operations on tensors of random shapes, recorded on a tape and walked back: every step an error or a tensor.
#include <cstddef>
#include <cstdint>
#include <span>
#include <utility>
#include <vector>

import qorus.ops;

using namespace qorus;

namespace {

class Program {
 public:
  Program(const std::uint8_t* data, std::size_t size) : at_(data), end_(data + size) {}
  [[nodiscard]] bool done() const { return at_ == end_; }
  int number(int below) { return done() ? 0 : *at_++ % below; }
  std::vector<std::int64_t> extents() {
    std::vector<std::int64_t> dims(static_cast<std::size_t>(number(5)));
    for (auto& extent : dims) extent = number(6);
    return dims;
  }
  Shape shape() { return Shape(std::span<const std::int64_t>(extents())); }

 private:
  const std::uint8_t *at_, *end_;
};

Result<Tensor> step(Program& p, const Tensor& a, const Tensor& b) {
  switch (p.number(20)) {
    case 0: return ops::add(a, b);
    case 1: return ops::mul(a, b);
    case 2: return ops::div(a, b);
    case 3: return ops::matmul(a, b);
    case 4: return ops::softmax(a, p.number(7) - 3);
    case 5: return ops::sum(a, {p.number(7) - 3});
    case 6: return ops::mean(a, {p.number(7) - 3});
    case 7: return ops::transpose(a, p.number(7) - 3, p.number(7) - 3);
    case 8: return ops::reshape(a, std::span<const std::int64_t>(p.extents()));
    case 9: return ops::slice(a, p.number(6) - 1, p.number(9) - 3, p.number(9) - 3);
    case 10: return ops::broadcast_to(a, p.shape());
    case 11: return ops::gelu(a);
    case 12: return ops::exp(a);
    case 13: return ops::concat({a, b}, p.number(6) - 2);
    case 14: return ops::max(a, {p.number(7) - 3});
    case 15: return ops::sub(a, b);
    case 16: return ops::tanh(a);
    case 17: return ops::maximum(a, b);
    case 18: return ops::log_softmax(a, p.number(7) - 3);
    default: return ops::sigmoid(a);
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  Program p(data, size);
  static Workspace workspace;
  auto tape = workspace.record();
  std::vector<Owned> inputs;
  std::vector<Tensor> made;
  for (int i = 0; i < 3; ++i) {
    auto input = Owned::zeros(p.shape());
    if (!input) return 0;
    inputs.push_back(std::move(*input));
  }
  for (const Owned& input : inputs) {
    const auto watched = tape.watch(input);
    if (!watched) return 0;
    made.push_back(*watched);
  }
  for (int i = 0; i < 24 && !p.done(); ++i) {
    const Tensor a = made[static_cast<std::size_t>(p.number(static_cast<int>(made.size())))];
    const Tensor b = made[static_cast<std::size_t>(p.number(static_cast<int>(made.size())))];
    if (auto result = step(p, a, b); result && result->numel() < 100'000) made.push_back(*result);
  }
  if (const auto loss = ops::sum(made.back())) (void)backward(*loss);
  return 0;
}
