// Recurrent layers against their definitions: every cell, direction, length and start, forward and gradient.
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "tests/testing.h"

import qorus.ops;
import qorus.test.ops;

using namespace qorus;
using namespace qorus_test;

namespace {

using Tensors = std::span<const Tensor>;
using Arrays = std::vector<Array>;
using ops::Cell;

struct Form {
  const char* name;
  Cell cell;
  std::int64_t seq, batch, in, hidden;
  bool bias = true, start = false, reverse = false;
  std::vector<double> lengths = {};
  std::int64_t table = 0;  // rows of the table that ids choose from; 0: x is given itself
};

// Ids of a form's steps, from the front and from the end, some of them often.
std::int64_t id_of(const Form& f, std::int64_t t, std::int64_t b) {
  const std::int64_t id = (t * t + 3 * b) % f.table;
  return (t + b) % 3 == 2 ? id - f.table : id;
}

double sigmoid(double x) { return 1 / (1 + std::exp(-x)); }

// One step of one sequence, after PyTorch's formulas. zx, zh: the input's and the state's parts of the gates.
void advance(Cell cell, const std::vector<double>& zx, const std::vector<double>& zh, std::vector<double>& h,
             std::vector<double>& c) {
  const std::size_t n = h.size();
  for (std::size_t j = 0; j < n; ++j) {
    const auto sum = [&](std::size_t gate) { return zx[gate * n + j] + zh[gate * n + j]; };
    if (cell == Cell::rnn) h[j] = std::tanh(sum(0));
    if (cell == Cell::rnn_relu) h[j] = std::fmax(sum(0), 0);
    if (cell == Cell::gru) {
      const double r = sigmoid(sum(0)), z = sigmoid(sum(1)), candidate = std::tanh(zx[2 * n + j] + r * zh[2 * n + j]);
      h[j] = (1 - z) * candidate + z * h[j];
    }
    if (cell == Cell::lstm) {
      c[j] = sigmoid(sum(1)) * c[j] + sigmoid(sum(0)) * std::tanh(sum(2));
      h[j] = sigmoid(sum(3)) * std::tanh(c[j]);
    }
  }
}

// y, h and c one after the other. Inputs: x, weights, biases if any, h and c if any, lengths if any, ids if any.
Array reference(const Form& f, const Arrays& in) {
  std::size_t at = 3;
  const Array* bias_x = f.bias ? &in[at++] : nullptr;
  const Array* bias_h = f.bias ? &in[at++] : nullptr;
  const Array* h0 = f.start ? &in[at++] : nullptr;
  const Array* c0 = f.start && f.cell == Cell::lstm ? &in[at++] : nullptr;
  const std::int64_t rows = ops::gates_of(f.cell) * f.hidden;
  Array y({f.seq, f.batch, f.hidden});
  std::vector<double> last_h, last_c;
  for (std::int64_t b = 0; b < f.batch; ++b) {
    std::vector<double> h(static_cast<std::size_t>(f.hidden)), c = h;
    for (std::int64_t j = 0; j < f.hidden; ++j) {
      if (h0) h[static_cast<std::size_t>(j)] = h0->at({b, j});
      if (c0) c[static_cast<std::size_t>(j)] = c0->at({b, j});
    }
    const std::int64_t length =
        f.lengths.empty() ? f.seq : static_cast<std::int64_t>(f.lengths[static_cast<std::size_t>(b)]);
    for (std::int64_t k = 0; k < length; ++k) {
      const std::int64_t t = f.reverse ? length - 1 - k : k;
      std::vector<double> zx(static_cast<std::size_t>(rows)), zh = zx;
      const std::int64_t row = f.table ? (id_of(f, t, b) + f.table) % f.table : t * f.batch + b;
      for (std::int64_t g = 0; g < rows; ++g) {
        double& x = zx[static_cast<std::size_t>(g)];
        double& s = zh[static_cast<std::size_t>(g)];
        const auto of = [](const Array& a, std::int64_t i) { return a.v[static_cast<std::size_t>(i)]; };
        for (std::int64_t i = 0; i < f.in; ++i) x += of(in[1], g * f.in + i) * of(in[0], row * f.in + i);
        for (std::int64_t i = 0; i < f.hidden; ++i) s += of(in[2], g * f.hidden + i) * h[static_cast<std::size_t>(i)];
        if (bias_x) x += of(*bias_x, g);
        if (bias_h) s += of(*bias_h, g);
      }
      advance(f.cell, zx, zh, h, c);
      for (std::int64_t j = 0; j < f.hidden; ++j) y.at({t, b, j}) = h[static_cast<std::size_t>(j)];
    }
    last_h.insert(last_h.end(), h.begin(), h.end());
    last_c.insert(last_c.end(), c.begin(), c.end());
  }
  std::vector<double> all = y.v;
  all.insert(all.end(), last_h.begin(), last_h.end());
  if (f.cell == Cell::lstm) all.insert(all.end(), last_c.begin(), last_c.end());
  return {{static_cast<std::int64_t>(all.size())}, all};
}

Result<Tensor> run(const Form& f, Tensors t) {
  std::size_t at = 3;
  ops::CellWeights weights{.input = t[1], .state = t[2]};
  ops::CellOptions options{.reverse = f.reverse};
  if (f.bias) weights.input_bias = t[at++];
  if (f.bias) weights.state_bias = t[at++];
  if (f.start) options.h = t[at++];
  if (f.start && f.cell == Cell::lstm) options.c = t[at++];
  if (!f.lengths.empty()) options.lengths = t[at++];
  if (f.table) options.ids = t[at++];
  auto out = ops::recurrent(f.cell, t[0], weights, options);
  if (!out) return fail(out.error());
  const auto flat = [](const Tensor& x) { return ops::reshape(x, {-1}); };
  auto all = ops::concat({flat(out->y), flat(out->h)}, 0);
  return f.cell == Cell::lstm ? ops::concat({all, flat(out->c)}, 0) : all;
}

Case case_of(const Form& f) {
  const std::int64_t rows = ops::gates_of(f.cell) * f.hidden;
  Case test{.name = f.name, .inputs = {{{f.seq, f.batch, f.in}}, {{rows, f.in}, -1, 1}, {{rows, f.hidden}, -1, 1}}};
  if (f.table) test.inputs[0].dims = {f.table, f.in};
  for (int i = 0; f.bias && i < 2; ++i) test.inputs.push_back({{rows}, -1, 1});
  for (int i = 0; f.start && i < (f.cell == Cell::lstm ? 2 : 1); ++i)
    test.inputs.push_back({{f.batch, f.hidden}, -1, 1});
  if (!f.lengths.empty()) test.inputs.push_back({.dims = {f.batch}, .dtype = DType::i32, .values = f.lengths});
  std::vector<double> ids;
  for (std::int64_t t = 0; f.table && t < f.seq; ++t)
    for (std::int64_t b = 0; b < f.batch; ++b) ids.push_back(static_cast<double>(id_of(f, t, b)));
  if (f.table) test.inputs.push_back({.dims = {f.seq, f.batch}, .dtype = DType::i32, .values = ids});
  test.run = [f](Tensors t) { return run(f, t); };
  test.reference = [f](const Arrays& in) { return reference(f, in); };
  test.repeats_kink = f.cell == Cell::rnn_relu;
  return test;
}

}  // namespace

TEST(Recurrent, EveryForm) {
  for (const Form& f : std::vector<Form>{
           {"rnn", Cell::rnn, 3, 2, 3, 5, true, true},
           {"rnn reverse, lengths", Cell::rnn, 4, 3, 2, 3, true, true, true, {4, 0, 2}},
           {"gru", Cell::gru, 3, 2, 3, 5, true, true},
           {"gru of one", Cell::gru, 1, 1, 1, 1, false},
           {"gru, lengths", Cell::gru, 3, 3, 2, 3, true, true, false, {1, 3, 0}},
           {"gru reverse, lengths", Cell::gru, 5, 2, 2, 3, true, false, true, {2, 5}},
           {"lstm", Cell::lstm, 3, 2, 3, 5, true, true},
           {"lstm of one", Cell::lstm, 1, 1, 1, 1, false},
           {"lstm reverse, packed", Cell::lstm, 5, 3, 2, 7, true, true, true},
           {"lstm, lengths", Cell::lstm, 4, 3, 2, 3, true, true, false, {3, 4, 0}},
           {"lstm reverse, lengths", Cell::lstm, 4, 2, 2, 3, false, true, true, {1, 4}},
           {"lstm of a table", Cell::lstm, 5, 3, 2, 3, true, true, false, {}, 4},
           {"lstm of a table, reverse, lengths", Cell::lstm, 4, 2, 3, 3, true, false, true, {1, 4}, 7},
           {"gru of a table", Cell::gru, 4, 3, 2, 3, true, true, true, {}, 3},
           {"rnn of a table of one", Cell::rnn, 3, 2, 3, 5, false, false, false, {}, 1},
       }) {
    EXPECT_EQ("", check(case_of(f)));
  }
  EXPECT_EQ("", check_values(case_of({"rnn relu", Cell::rnn_relu, 3, 2, 3, 5})));
  EXPECT_EQ("", check_values(case_of({"no steps", Cell::lstm, 0, 2, 3, 2, true, true})));
  EXPECT_EQ("", check_values(case_of({"no sequences", Cell::gru, 2, 0, 3, 2, true, true})));
  EXPECT_EQ("", check_values(case_of({"no ids", Cell::lstm, 0, 2, 3, 2, true, true, false, {}, 3})));
  EXPECT_EQ("", check_values(case_of({"wide", Cell::lstm, 2, 37, 3, 19, true, false})));
}

TEST(Recurrent, BigOnesDoNotDependOnWorkers) {
  EXPECT_EQ("", check_bits(case_of({"lstm", Cell::lstm, 6, 50, 40, 33})));
  EXPECT_EQ("", check_bits(case_of({"gru", Cell::gru, 6, 50, 40, 33})));
  EXPECT_EQ("", check_bits(case_of({"lstm of a table", Cell::lstm, 6, 50, 40, 33, true, true, true, {}, 71})));
  // So few sequences that several workers take each step together.
  for (const Form& f : std::vector<Form>{{"lstm", Cell::lstm, 4, 2, 20, 100, true, true},
                                         {"gru", Cell::gru, 4, 3, 20, 101, true, true},
                                         {"lstm, lengths", Cell::lstm, 4, 3, 20, 100, false, false, true, {4, 0, 2}},
                                         {"rnn", Cell::rnn, 4, 5, 20, 130, true}}) {
    EXPECT_EQ("", check_bits(case_of(f)));
  }
}

TEST(Recurrent, Errors) {
  Workspace& ws = workspace(1);
  auto frame = ws.frame();
  const auto x = Owned::zeros({3, 2, 4}), wi = Owned::zeros({20, 4}), wh = Owned::zeros({20, 5}),
             b = Owned::zeros({20}), h = Owned::zeros({2, 5});
  const auto in = [&](const Result<Owned>& o) { return frame.input(*o); };
  EXPECT_OK(ops::recurrent(Cell::lstm, in(x), {in(wi), in(wh), in(b), in(b)}, {.h = in(h), .c = in(h)}));
  EXPECT_FAILS_SAYING(ops::recurrent(Cell::lstm, in(x), {in(wh), in(wh)}), "[3,2,4] and [20,5]");
  EXPECT_FAILS_SAYING(ops::recurrent(Cell::gru, in(x), {in(wi), in(wh)}), "[3,2,4] and [20,5]");
  EXPECT_FAILS(ops::recurrent(Cell::lstm, in(x), {in(wi), in(wh), in(h)}), Errc::invalid_size);
  EXPECT_FAILS(ops::recurrent(Cell::lstm, in(x), {in(wi), in(wh)}, {.h = in(b)}), Errc::invalid_size);
  EXPECT_FAILS(ops::recurrent(Cell::lstm, in(h), {in(wi), in(wh)}), Errc::invalid_size);
  const auto lengths = Owned::from<std::int32_t>({3, 4}, {2}), few = Owned::from<std::int32_t>({3}, {1});
  EXPECT_FAILS(ops::recurrent(Cell::lstm, in(x), {in(wi), in(wh)}, {.lengths = in(lengths)}), Errc::invalid_argument);
  EXPECT_FAILS(ops::recurrent(Cell::lstm, in(x), {in(wi), in(wh)}, {.lengths = in(few)}), Errc::invalid_size);
  const auto table = Owned::zeros({7, 4}), none = Owned::zeros({0, 4}), floats = Owned::zeros({3, 2});
  const auto ids = Owned::from<std::int32_t>({0, 6, -7, 3, 3, 1}, {3, 2}),
             wrong = Owned::from<std::int32_t>({0, 6, -8, 3, 3, 1}, {3, 2}),
             flat = Owned::from<std::int32_t>({0, 6, 2, 3, 3, 1}, {6});
  const auto of = [&](const Result<Owned>& rows, const Result<Tensor>& chosen) {
    return ops::recurrent(Cell::lstm, in(rows), {in(wi), in(wh)}, {.h = in(h), .ids = chosen});
  };
  EXPECT_OK(of(table, in(ids)));
  EXPECT_FAILS_SAYING(of(table, in(wrong)), "[3,2] and [7]: an index is out of the second's range");
  EXPECT_FAILS(of(none, in(ids)), Errc::invalid_argument);
  EXPECT_FAILS(of(table, in(flat)), Errc::invalid_size);
  EXPECT_FAILS(of(x, in(ids)), Errc::invalid_size);
  EXPECT_FAILS(of(table, in(floats)), Errc::invalid_dtype);
  EXPECT_FAILS(of(table, Result<Tensor>(fail(Errc::diverged, "test", ""))), Errc::diverged);
  const auto rnn_wi = Owned::zeros({5, 4}), rnn_wh = Owned::zeros({5, 5});
  EXPECT_FAILS(ops::recurrent(Cell::rnn, in(x), {in(rnn_wi), in(rnn_wh)}, {.c = in(h)}), Errc::invalid_argument);
}
