// ONNX' recurrent operators: RNN, GRU and LSTM. What the fused operation has goes there; peepholes, a GRU that resets before its
// product, clipping and other activations are composed step by step.
module;
#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "tests/onnx_case.h"
module qorus.test.onnx;

namespace qorus_test {

using qorus::DType;
using qorus::Operand;
using qorus::Result;
using qorus::Tensor;
namespace ops = qorus::ops;
using ops::Cell;

namespace {

using R = Result<Tensor>;

// One direction's operands, gates in Qorus' order.
struct Side {
  Cell cell{};
  std::int64_t hidden = 0;
  R w, r, bias_w = Tensor(), bias_r = Tensor(), h, c = Tensor(), peepholes = Tensor();
  std::vector<std::string> activations;
  float clip = 0;
  bool reset_before = false;
};

bool given(const R& t) { return t && t->shape().valid(); }

// Row blocks of W [directions, gates hidden, …] of one direction in another order.
R ordered(const R& x, std::int64_t direction, std::int64_t hidden, const std::vector<std::int64_t>& order,
          std::int64_t first = 0) {
  const R one = ops::select(x, 0, direction);
  R all;
  for (std::size_t i = 0; i < order.size(); ++i) {
    const std::int64_t at = (first + order[i]) * hidden;
    const R block = ops::slice(one, 0, at, at + hidden);
    all = i ? ops::concat({all, block}, 0) : block;
  }
  return all;
}

R activate(const std::string& name, const R& x) {
  if (name == "Sigmoid") return ops::sigmoid(x);
  if (name == "Tanh") return ops::tanh(x);
  if (name == "Relu") return ops::relu(x);
  return qorus::fail(qorus::Errc::unsupported, "onnx", "this activation of a cell");
}

// One step as composed of single operations. x: [batch, in].
void step(const Side& s, const R& x, R& h, R& c) {
  const auto linear = [](const R& a, const R& w, const R& bias) {
    const R y = ops::linear(a, w);
    return given(bias) ? ops::add(y, bias) : y;
  };
  const auto clipped = [&](const R& v) { return s.clip > 0 ? ops::clamp(v, -s.clip, s.clip) : v; };
  const auto gate = [&](const R& all, std::int64_t i) { return ops::slice(all, 1, i * s.hidden, (i + 1) * s.hidden); };
  const R zx = linear(x, s.w, s.bias_w), zh = linear(h, s.r, s.bias_r);
  const auto sum = [&](std::int64_t i) { return ops::add(gate(zx, i), gate(zh, i)); };
  const auto f = [&](std::size_t i, const R& v) { return activate(s.activations[i], clipped(v)); };
  if (s.cell == Cell::rnn) h = f(0, sum(0));
  if (s.cell == Cell::gru) {
    const R r = f(0, sum(0)), z = f(0, sum(1));
    R state = ops::mul(r, gate(zh, 2));
    if (s.reset_before) {
      const auto rows = [&](const R& t) { return ops::slice(t, 0, 2 * s.hidden, 3 * s.hidden); };
      state = linear(ops::mul(r, h), rows(s.r), given(s.bias_r) ? rows(s.bias_r) : s.bias_r);
    }
    const R n = f(1, ops::add(gate(zx, 2), state));
    h = ops::add(n, ops::mul(z, ops::sub(h, n)));
  }
  if (s.cell == Cell::lstm) {
    const auto peep = [&](std::int64_t i, const R& state, const R& v) {  // P: i, o, f
      if (!given(s.peepholes)) return v;
      return ops::add(v, ops::mul(ops::slice(s.peepholes, 0, i * s.hidden, (i + 1) * s.hidden), state));
    };
    const R i = f(0, peep(0, c, sum(0))), forget = f(0, peep(2, c, sum(1)));
    c = ops::add(ops::mul(forget, c), ops::mul(i, f(1, sum(2))));
    h = ops::mul(f(0, peep(1, c, sum(3))), activate(s.activations[2], c));
  }
}

// y: [seq, batch, hidden]; final h and c.
std::array<R, 3> composed(Call& call, const Side& s, const R& x, const R& lengths, bool reverse) {
  const std::int64_t seq = x->dim(0), batch = x->dim(1);
  R h = s.h, c = s.c;
  std::vector<Tensor> steps(static_cast<std::size_t>(seq));
  for (std::int64_t k = 0; k < seq; ++k) {
    const std::int64_t t = reverse ? seq - 1 - k : k;
    R next_h = h, next_c = c;
    step(s, ops::select(x, 0, t), next_h, next_c);
    R y = next_h;
    if (given(lengths)) {
      const R now = call.make({1}, {static_cast<double>(t)});
      const R on = ops::reshape(ops::greater(ops::cast(lengths, DType::f32), now), {batch, 1});
      y = ops::where(on, next_h, ops::mul(h, 0.0f));
      next_h = ops::where(on, next_h, h);
      if (given(c)) next_c = ops::where(on, next_c, c);
    }
    if (!y) return {y, y, y};
    steps[static_cast<std::size_t>(t)] = *y;
    h = next_h;
    c = next_c;
  }
  return {ops::stack(std::span<const Tensor>(steps), 0), h, c};
}

std::array<R, 3> fused(const Side& s, const R& x, const R& lengths, bool reverse) {
  auto out = ops::recurrent(s.cell, x, {s.w, s.r, s.bias_w, s.bias_r}, {s.h, s.c, lengths, reverse});
  if (!out) return {qorus::fail(out.error()), qorus::fail(out.error()), qorus::fail(out.error())};
  return {out->y, out->h, out->c};
}

// Inputs: X, W, R, B, sequence_lens, initial_h, initial_c, P.
Outputs recurrent(Call& call, Cell cell, const std::vector<std::int64_t>& order,
                  const std::vector<std::string>& usual) {
  const bool batch_first = call.c.integer("layout", 0) == 1;
  const auto turned = [&](const R& t) { return batch_first ? ops::transpose(t, 0, 1) : t; };
  const R x = turned(call.in(0));
  const std::string direction = call.c.text("direction", "forward");
  const std::int64_t ways = direction == "bidirectional" ? 2 : 1;
  const auto gates = static_cast<std::int64_t>(order.size());
  if (!x || call.c.integer("input_forget", 0)) return not_covered("coupled input and forget gates");
  std::vector<std::string> names;
  if (const Json* list = call.c.attributes.find("activations")) {
    for (const Json& name : list->list) names.push_back(name.text);
  }
  const R lengths = call.c.has_input(4) ? call.index(4) : R(Tensor());
  std::vector<Tensor> ys, hs, cs;
  for (std::int64_t d = 0; d < ways; ++d) {
    Side s{.cell = cell, .hidden = call.dims(2)[2]};
    s.w = ordered(call.in(1), d, s.hidden, order);
    s.r = ordered(call.in(2), d, s.hidden, order);
    if (call.c.has_input(3)) {
      s.bias_w = ordered(call.in(3), d, s.hidden, order);
      s.bias_r = ordered(call.in(3), d, s.hidden, order, gates);
    }
    const auto start = [&](std::size_t i) {
      if (call.c.has_input(i)) return ops::select(turned(call.in(i)), 0, d);
      return call.make({x->dim(1), s.hidden}, std::vector<double>(static_cast<std::size_t>(x->dim(1) * s.hidden)));
    };
    s.h = start(5);
    if (cell == Cell::lstm) s.c = start(6);
    if (call.c.has_input(7)) s.peepholes = ops::select(call.in(7), 0, d);
    const auto first = static_cast<std::size_t>(d) * usual.size();
    s.activations = names.empty()
                        ? usual
                        : std::vector<std::string>(names.begin() + static_cast<std::int64_t>(first),
                                                   names.begin() + static_cast<std::int64_t>(first + usual.size()));
    s.clip = static_cast<float>(call.c.number("clip", 0));
    s.reset_before = cell == Cell::gru && call.c.integer("linear_before_reset", 0) == 0;
    const bool plain = s.activations == usual && s.clip <= 0 && !s.reset_before && !given(s.peepholes);
    const bool reverse = direction == "reverse" || d == 1;
    const auto [y, h, c] = plain ? fused(s, x, lengths, reverse) : composed(call, s, x, lengths, reverse);
    if (!y || !h || !c) return {y, h, c};
    ys.push_back(*y);
    hs.push_back(*h);
    if (cell == Cell::lstm) cs.push_back(*c);
  }
  // Y: [seq, directions, batch, hidden], or [batch, seq, directions, hidden]
  const auto stacked = [](const std::vector<Tensor>& parts, int axis) {
    return ops::stack(std::span<const Tensor>(parts), axis);
  };
  R y = stacked(ys, 1);
  if (batch_first) y = ops::permute(y, {2, 0, 1, 3});
  Outputs all = {y, turned(stacked(hs, 0))};
  if (cell == Cell::lstm) all.push_back(turned(stacked(cs, 0)));
  return all;
}

}  // namespace

void add_recurrent(OnnxTable& table) {
  table["RNN"] = [](Call& call) { return recurrent(call, Cell::rnn, {0}, {"Tanh"}); };
  table["GRU"] = [](Call& call) { return recurrent(call, Cell::gru, {1, 0, 2}, {"Sigmoid", "Tanh"}); };
  table["LSTM"] = [](Call& call) { return recurrent(call, Cell::lstm, {0, 2, 3, 1}, {"Sigmoid", "Tanh", "Tanh"}); };
}

}  // namespace qorus_test
