// A layer of your own: members, one list of their names, one call operator. Here the gated unit of Llama's blocks.
#include <cstdio>

import qorus;
using namespace qorus;

struct SwiGlu {  // y = down(silu(gate x) * up x); x, y: [..., d_model]
  nn::Linear gate_proj, up_proj, down_proj;
  static constexpr auto fields() {
    return nn::fields("gate_proj", &SwiGlu::gate_proj, "up_proj", &SwiGlu::up_proj, "down_proj", &SwiGlu::down_proj);
  }
  Result<Tensor> operator()(const Tensor& x) const { return (x | gate_proj | nn::silu()) * (x | up_proj) | down_proj; }
};

SwiGlu swiglu(int d_ff, int d_model) {
  const nn::LinearOptions plain{.bias = false};
  return {nn::linear(d_ff, plain), nn::linear(d_ff, plain), nn::linear(d_model, plain)};
}

int main() {
  auto digits = data::digits(7);
  auto net = nn::flatten() | nn::linear(64) | nn::repeat(2, nn::residual(swiglu(128, 64))) | nn::linear(10);
  auto done = train::fit(net, digits, {.epochs = 3, .batch = 64, .seed = 7, .callbacks = {train::progress()}});
  if (!done) return report(done);
  for (auto const& p : done->model.parameters()) std::printf("%s\n", p.name.c_str());
  return report(done);
}
