// Normalisation, attention and rotary positions against their definitions.
#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "tests/testing.h"

import qorus.ops;
import qorus.test.ops;

using namespace qorus;
using namespace qorus_test;

namespace {

using Tensors = std::span<const Tensor>;
using Arrays = std::vector<Array>;

constexpr double k_eps = 1e-3;  // larger than usual, so that a forgotten eps shows

Array normed(const Arrays& in, bool centred) {
  const Array& x = in[0];
  Extents rows(x.dims.begin(), x.dims.end() - 1);
  rows.push_back(1);
  const auto cols = static_cast<double>(x.dim(-1));
  const Array mean = reduce(x, {x.rank() - 1}, true, [&](const std::vector<double>& v) {
    double sum = 0;
    for (double e : v) sum += e;
    return centred ? sum / cols : 0;
  });
  const Array d = zip(x, mean, std::minus<>{});
  const Array scale = reduce(d, {x.rank() - 1}, true, [&](const std::vector<double>& v) {
    double sum = 0;
    for (double e : v) sum += e * e;
    return 1 / std::sqrt(sum / cols + k_eps);
  });
  Array y = zip(zip(d, scale, std::multiplies<>{}), in[1], std::multiplies<>{});
  return in.size() > 2 ? zip(y, in[2], std::plus<>{}) : y;
}

// The definition, one query at a time.
Array attend(const Arrays& in, const ops::AttentionOptions& options) {
  const Array &q = in[0], &k = in[1], &v = in[2];
  const std::int64_t group = q.dim(1) / k.dim(1), past = k.dim(2) - q.dim(2);
  const double scale =
      options.scale != 0 ? static_cast<double>(options.scale) : 1 / std::sqrt(static_cast<double>(q.dim(3)));
  Extents dims = q.dims;
  dims[3] = v.dim(3);
  return build(dims, [&](const Extents& i) {
    double total = 0, sum = 0;
    std::vector<double> scores;
    std::vector<std::int64_t> seen;
    for (std::int64_t j = 0; j < k.dim(2); ++j) {
      if (options.causal && j > i[2] + past) continue;
      if (options.window && j <= i[2] + past - options.window) continue;
      double dot = 0;
      for (std::int64_t d = 0; d < q.dim(3); ++d) dot += q.at({i[0], i[1], i[2], d}) * k.at({i[0], i[1] / group, j, d});
      scores.push_back(dot * scale);
      seen.push_back(j);
    }
    const double most = *std::max_element(scores.begin(), scores.end());
    for (std::size_t s = 0; s < seen.size(); ++s) {
      const double e = std::exp(scores[s] - most);
      total += e;
      sum += e * v.at({i[0], i[1] / group, seen[s], i[3]});
    }
    return sum / total;
  });
}

Array turned(const Arrays& in, ops::RopePairs pairs) {
  const Array &x = in[0], &c = in[1], &s = in[2];
  const std::int64_t half = c.dim(1);
  return build(x.dims, [&](const Extents& i) {
    const std::int64_t at = i[i.size() - 1], position = i[i.size() - 2];
    if (at >= 2 * half) return x.at(i);
    const bool interleaved = pairs == ops::RopePairs::interleaved;
    const std::int64_t pair = interleaved ? at / 2 : at % half;
    const bool second = interleaved ? at % 2 : at >= half;
    Extents a = i, b = i;
    a[i.size() - 1] = interleaved ? 2 * pair : pair;
    b[i.size() - 1] = interleaved ? 2 * pair + 1 : pair + half;
    const double cosine = c.at({position, pair}), sine = s.at({position, pair});
    return second ? x.at(a) * sine + x.at(b) * cosine : x.at(a) * cosine - x.at(b) * sine;
  });
}

}  // namespace

TEST(Norm, LayerNorm) {
  for (const Extents& dims : {Extents{3, 5}, {1, 1}, {2, 3, 17}, {0, 4}, {7}}) {
    const Extents cols = {dims.back()};
    EXPECT_EQ("", check({"layer_norm",
                         {{dims}, {cols}, {cols}},
                         [](Tensors t) { return ops::layer_norm(t[0], t[1], t[2], k_eps); },
                         [](const Arrays& a) { return normed(a, true); },
                         true,
                         true}));
    EXPECT_EQ("", check_values({"layer_norm without bias",
                                {{dims}, {cols}},
                                [](Tensors t) { return ops::layer_norm(t[0], t[1], k_eps); },
                                [](const Arrays& a) { return normed(a, true); }}));
  }
}

TEST(Norm, RmsNorm) {
  for (const Extents& dims : {Extents{3, 5}, {1, 1}, {2, 3, 17}, {0, 4}, {7}}) {
    EXPECT_EQ("", check({"rms_norm",
                         {{dims}, {{dims.back()}}},
                         [](Tensors t) { return ops::rms_norm(t[0], t[1], k_eps); },
                         [](const Arrays& a) { return normed(a, false); },
                         true,
                         true}));
  }
}

TEST(Norm, BigOnesDoNotDependOnWorkers) {
  EXPECT_EQ("", check_bits({"layer_norm",
                            {{{700, 130}}, {{130}}, {{130}}},
                            [](Tensors t) { return ops::layer_norm(t[0], t[1], t[2]); },
                            {}}));
  EXPECT_EQ("",
            check_bits({"rms_norm", {{{700, 130}}, {{130}}}, [](Tensors t) { return ops::rms_norm(t[0], t[1]); }, {}}));
}

// Rows are summed in blocks: the gradients of weight and bias against sums in double precision, and exactly 0 where
// nothing comes back.
TEST(Norm, WeightsGetTheSumOfAllBlocksOfRows) {
  constexpr std::size_t cols = 130, count = 300 * cols;
  const auto weight = Owned::zeros({cols}), bias = Owned::zeros({cols});
  for (const bool centred : {true, false}) {
    for (const float size : {1.0f, 0.0f}) {
      Workspace& ws = workspace(2);
      auto tape = ws.record();
      ws.set_draws(4, 0);
      const auto w = tape.watch(*weight), b = tape.watch(*bias);
      const auto x = ops::normal(tape.context(), {count / cols, cols});
      const auto slopes = ops::normal(tape.context(), {count / cols, cols}) * size;
      const auto y = centred ? ops::layer_norm(x, w + 1.0f, b) : ops::rms_norm(x, w + 1.0f);
      const auto grads = ops::sum(y * slopes).and_then(backward);
      ASSERT_OK(grads);
      const auto normed = *y->to_vector(), dy = *slopes->to_vector();
      std::vector<double> dw(cols), db(cols);
      for (std::size_t i = 0; i < count; ++i) {
        dw[i % cols] += double{dy[i]} * normed[i];
        db[i % cols] += dy[i];
      }
      const auto near = [&](const std::vector<float>& got, const std::vector<double>& want) {
        for (std::size_t i = 0; i < cols; ++i) ASSERT_NEAR(got[i], want[i], 2e-5 * (size + std::abs(want[i]))) << i;
      };
      near(*grads->of(*w)->to_vector(), dw);
      if (centred) near(*grads->of(*b)->to_vector(), db);
    }
  }
}

// Weights that want no gradient are not summed, and x's gradient is the same.
TEST(Norm, FrozenWeightsChangeNothing) {
  constexpr std::int64_t k_rows = 70, k_cols = 33;
  const auto numbers = [](std::size_t n, float phase) {
    std::vector<float> values(n);
    for (std::size_t i = 0; i < n; ++i) values[i] = std::sin(0.31f * static_cast<float>(i) + phase);
    return values;
  };
  const auto values = numbers(k_rows * k_cols, 0.1f), gain = numbers(k_cols, 0.2f), shift = numbers(k_cols, 0.3f);
  const auto borrowed = [](const std::vector<float>& from, const Shape& shape) {
    return Tensor::borrow(std::span<const float>(from), shape);
  };
  // Bits: 1, w is watched; 2, b is. Gives the gradients of x, w and b.
  const auto slopes = [&](bool centred, int watched) {
    Workspace ws{{.scratch = 4_MiB, .threads = 2}};
    auto tape = ws.record();
    const auto x = tape.watch(borrowed(values, {k_rows, k_cols}));
    const auto w = watched & 1 ? tape.watch(borrowed(gain, {k_cols})) : tape.input(borrowed(gain, {k_cols}));
    const auto b = watched & 2 ? tape.watch(borrowed(shift, {k_cols})) : tape.input(borrowed(shift, {k_cols}));
    auto gradients = ops::sum(ops::square(centred ? ops::layer_norm(x, w, b) : ops::rms_norm(x, w))).and_then(backward);
    std::vector<std::vector<float>> all(3);
    EXPECT_OK(gradients);
    if (!gradients) return all;
    all[0] = gradients->of(*x)->to_vector().value();
    if (watched & 1) all[1] = gradients->of(*w)->to_vector().value();
    if (centred && (watched & 2)) all[2] = gradients->of(*b)->to_vector().value();
    return all;
  };
  for (const bool centred : {false, true}) {
    const auto wanted = slopes(centred, 3);
    for (const int watched : {0, 1, 2}) {
      const auto got = slopes(centred, watched);
      EXPECT_EQ(got[0], wanted[0]) << centred << watched;
      if (watched & 1) EXPECT_EQ(got[1], wanted[1]) << centred;
      if (watched & 2) EXPECT_EQ(got[2], wanted[2]) << centred;
    }
  }
}

TEST(Norm, Errors) {
  Workspace& ws = workspace(1);
  auto frame = ws.frame();
  const auto x = Owned::zeros({2, 3}), w = Owned::zeros({3}), other = Owned::zeros({4});
  const auto in = frame.input(*x), gain = frame.input(*w), wrong = frame.input(*other);
  EXPECT_FAILS_SAYING(ops::layer_norm(in, wrong, gain), "[2,3] and [4]");
  EXPECT_FAILS_SAYING(ops::layer_norm(in, gain, wrong), "[2,3] and [4]");
  EXPECT_FAILS_SAYING(ops::rms_norm(in, wrong), "[2,3] and [4]");
  EXPECT_FAILS(ops::rms_norm(in, gain, 0), Errc::invalid_argument);
  EXPECT_FAILS(ops::layer_norm(in, gain, -1), Errc::invalid_argument);
}

TEST(Attention, EveryForm) {
  struct Form {
    Extents q, k;
    ops::AttentionOptions options;
  };
  const Form forms[] = {
      {{2, 3, 5, 4}, {2, 3, 5, 4}, {}},
      {{2, 3, 5, 4}, {2, 3, 5, 4}, {.causal = true}},
      {{1, 4, 3, 2}, {1, 2, 7, 2}, {.causal = true}},  // grouped, with four keys from before
      {{1, 4, 1, 5}, {1, 1, 6, 5}, {.causal = true}},  // decoding one token
      {{1, 2, 6, 3}, {1, 2, 6, 3}, {.causal = true, .window = 2}},
      {{1, 2, 4, 3}, {1, 2, 9, 3}, {.scale = 0.3f}},  // cross
      {{1, 1, 1, 1}, {1, 1, 1, 1}, {.causal = true}},
      {{1, 2, 65, 3}, {1, 1, 1, 3}, {}},  // whole tiles, one key
  };
  for (const Form& f : forms) {
    EXPECT_EQ("", check({"attention",
                         {{f.q}, {f.k}, {f.k}},
                         [&](Tensors t) { return ops::attention(t[0], t[1], t[2], f.options); },
                         [&](const Arrays& a) { return attend(a, f.options); },
                         true,
                         true}));
  }
  const ops::AttentionOptions causal{.causal = true};
  EXPECT_EQ("", check_bits({"bits",
                            {{{2, 4, 200, 32}}, {{2, 2, 200, 32}}, {{2, 2, 200, 32}}},
                            [&](Tensors t) { return ops::attention(t[0], t[1], t[2], causal); },
                            {}}));
}

// More queries than a tile holds: forward and gradients against the plain composition.
TEST(Attention, AgreesWithItsComposition) {
  const std::int64_t seq = 130, dim = 8;
  Workspace ws{{.scratch = 64_MiB, .threads = 2, .seed = 4}};
  const auto q = Owned::zeros({1, 2, seq, dim}), k = Owned::zeros({1, 2, seq, dim}), v = Owned::zeros({1, 2, seq, dim});
  std::vector<std::uint8_t> mask(static_cast<std::size_t>(seq * seq));
  for (std::int64_t i = 0; i < seq; ++i) std::fill_n(mask.begin() + i * seq, i + 1, std::uint8_t{1});
  const auto run = [&](bool fused) {
    auto tape = ws.record();
    ws.set_draws(4, 0);
    auto wq = tape.watch(*q), wk = tape.watch(*k), wv = tape.watch(*v);
    auto a = wq + ops::normal(tape.context(), {1, 2, seq, dim}), b = wk + ops::normal(tape.context(), {1, 2, seq, dim});
    auto c = wv + ops::normal(tape.context(), {1, 2, seq, dim});
    auto hidden = tape.input(Tensor::borrow(std::span<const std::uint8_t>(mask), {seq, seq}));
    auto low = ops::uniform(tape.context(), {1}, -1e30f, -1e30f);
    auto scores = ops::where(hidden, ops::matmul(a, ops::transpose(b)) * (1 / std::sqrt(static_cast<float>(dim))), low);
    auto y = fused ? ops::attention(a, b, c, {.causal = true}) : ops::matmul(ops::softmax(scores), c);
    auto values = *y->to_vector();
    auto grads = ops::sum(y * ops::normal(tape.context(), {1, 2, seq, dim})).and_then(backward);
    EXPECT_OK(grads);
    for (const auto& leaf : {wq, wk, wv}) {
      const auto g = *grads->of(*leaf)->to_vector();
      values.insert(values.end(), g.begin(), g.end());
    }
    return values;
  };
  const auto one = run(true), two = run(false);
  ASSERT_EQ(one.size(), two.size());
  for (std::size_t i = 0; i < one.size(); ++i) ASSERT_NEAR(one[i], two[i], 2e-5 * (1 + std::abs(two[i]))) << i;
}

// Heads side by side, as projections leave them, read and written where they stand: the bits of what is copied into [batch, heads, seq, dim]
// first, and so the gradients. Few queries, whole tiles, and a part of one at the end.
TEST(Attention, ReadsHeadsSideBySideAndJoinsThem) {
  constexpr std::int64_t heads = 4, kv_heads = 2, dim = 8;
  for (const std::int64_t seq : {1, 5, 64, 130}) {
    Workspace ws{{.scratch = 64_MiB, .threads = 2, .seed = 4}};
    const Owned xq = random_owned({2, seq, heads * dim}, 1), xk = random_owned({2, seq, kv_heads * dim}, 2),
                xv = random_owned({2, seq, kv_heads * dim}, 3), slope = random_owned({2, seq, heads * dim}, 4);
    const auto run = [&](bool copied) {
      auto tape = ws.record();
      const Result<Tensor> in[] = {tape.watch(xq), tape.watch(xk), tape.watch(xv)};
      const auto split = [&](int i) {
        auto x = ops::transpose(ops::reshape(in[i], {2, seq, i ? kv_heads : heads, dim}), 1, 2);
        return copied ? ops::contiguous(x) : x;
      };
      auto y = ops::attention(split(0), split(1), split(2), {.causal = true, .joined = !copied});
      if (copied) y = ops::reshape(ops::transpose(y, 1, 2), {2, seq, heads * dim});
      EXPECT_OK(y);
      auto values = *y->to_vector();
      auto grads = ops::sum(y * tape.input(slope)).and_then(backward);
      EXPECT_OK(grads);
      for (const auto& x : in) {
        const auto g = *grads->of(*x)->to_vector();
        values.insert(values.end(), g.begin(), g.end());
      }
      return values;
    };
    EXPECT_EQ(run(false), run(true)) << seq;
  }
}

// What a cache relies on: the last queries alone give the very bits that they give among all.
TEST(Attention, ARowDoesNotDependOnItsNeighbours) {
  const std::int64_t seq = 150, dim = 24;
  Workspace& ws = workspace(2);
  auto frame = ws.frame();
  ws.set_draws(11, 0);
  auto q = ops::normal(frame.context(), {1, 2, seq, dim}), k = ops::normal(frame.context(), {1, 1, seq, dim}),
       v = ops::normal(frame.context(), {1, 1, seq, dim});
  auto all = ops::attention(q, k, v, {.causal = true});
  ASSERT_OK(all);
  for (const std::int64_t at : {0, 1, 63, 64, 100, 149}) {
    auto one = ops::attention(ops::slice(q, 2, at, at + 1), ops::slice(k, 2, 0, at + 1), ops::slice(v, 2, 0, at + 1),
                              {.causal = true});
    ASSERT_OK(one);
    EXPECT_EQ(*one->to_vector(), *ops::slice(all, 2, at, at + 1)->to_vector()) << at;
  }
}

// Keys and values of a narrower type are read as what they stand for: the very bits of their floats' attention.
TEST(Attention, NarrowKeysAndValues) {
  struct Form {
    std::int64_t heads, kv_heads, rows, keys;
    ops::AttentionOptions options;
  };
  const Form forms[] = {
      {2, 2, 1, 5, {.causal = true}},
      {6, 2, 1, 700, {.causal = true}},
      {4, 1, 70, 257, {.causal = true}},
      {4, 2, 3, 512, {.softcap = 2}},
      {3, 1, 1, 600, {.causal = true, .window = 40}},
      {2, 1, 66, 300, {.causal = true, .window = 9}},
  };
  for (int threads = 1; threads <= 3; ++threads)
    for (const Form& f : forms)
      for (const DType dtype : {DType::f16, DType::bf16, DType::q8_0}) {
        SCOPED_TRACE(testing::Message() << f.heads << " heads, " << f.keys << " keys, type " << int(dtype));
        Workspace& ws = workspace(threads);
        auto frame = ws.frame();
        ws.set_draws(11, 0);
        Context& c = frame.context();
        auto q = ops::normal(c, {2, f.heads, f.rows, 64});
        auto k = ops::cast(ops::normal(c, {2, f.kv_heads, f.keys, 64}), dtype),
             v = ops::cast(ops::normal(c, {2, f.kv_heads, f.keys, 32}), dtype);
        auto narrow = ops::attention(q, k, v, f.options);
        auto wide = ops::attention(q, ops::cast(k, DType::f32), ops::cast(v, DType::f32), f.options);
        ASSERT_OK(narrow);
        ASSERT_OK(wide);
        EXPECT_EQ(*narrow->to_vector(), *wide->to_vector());
      }
  Workspace& ws = workspace(1);
  auto tape = ws.record();
  Context& c = tape.context();
  auto q = ops::normal(c, {1, 1, 2, 4}), half = ops::cast(q, DType::f16);
  EXPECT_FAILS(ops::attention(q, half, half), Errc::invalid_dtype);  // is recorded
  auto frame = workspace(2).frame();
  auto q2 = ops::normal(frame.context(), {1, 1, 2, 4}), half2 = ops::cast(q2, DType::f16);
  EXPECT_FAILS(ops::attention(q2, half2, q2), Errc::invalid_dtype);
  EXPECT_FAILS(ops::attention(half2, half2, half2), Errc::invalid_dtype);
}

// The definition with all that goes beside the products. Inputs: q, k, v, then what the form has of mask, slopes and lengths.
struct Extra {
  Extents q, k, v;
  ops::AttentionOptions options = {};
  Extents mask = {};
  bool additive = false, slopes = false;
  std::vector<double> lengths = {};
};
Array attend_all(const Extra& f, const Arrays& in) {
  const Array &q = in[0], &k = in[1], &v = in[2];
  std::size_t at = 3;
  const Array* mask = f.mask.empty() ? nullptr : &in[at++];
  const Array* slopes = f.slopes ? &in[at++] : nullptr;
  const double scale = 1 / std::sqrt(static_cast<double>(q.dim(3)));
  const auto cap = static_cast<double>(f.options.softcap);
  return build({q.dim(0), q.dim(1), q.dim(2), v.dim(3)}, [&](const Extents& i) {
    const std::int64_t keys =
        f.lengths.empty() ? k.dim(2) : static_cast<std::int64_t>(f.lengths[static_cast<std::size_t>(i[0])]);
    const std::int64_t position = (f.options.past >= 0 ? f.options.past : keys - q.dim(2)) + i[2],
                       kv = i[1] * k.dim(1) / q.dim(1);
    double total = 0, sum = 0;
    for (std::int64_t j = 0; j < keys; ++j) {
      if (f.options.causal && j > position) continue;
      double score = 0;
      for (std::int64_t d = 0; d < q.dim(3); ++d) score += q.at({i[0], i[1], i[2], d}) * k.at({i[0], kv, j, d});
      score *= scale;
      if (cap > 0) score = cap * std::tanh(score / cap);
      if (slopes) score += slopes->at({i[1]}) * static_cast<double>(j - position);
      const double masked = mask ? mask->at({i[0], i[1], i[2], j}) : 1;
      if (mask && f.additive) score += masked;
      if (mask && !f.additive && masked == 0) continue;
      total += std::exp(score);
      sum += std::exp(score) * v.at({i[0], kv, j, i[3]});
    }
    return total > 0 ? sum / total : 0;
  });
}

TEST(Attention, MasksSlopesLengthsAndCaps) {
  for (const Extra& f : std::vector<Extra>{
           {{2, 2, 3, 2}, {2, 1, 4, 2}, {2, 1, 4, 3}, {.softcap = 1.5f}},
           {{1, 2, 3, 2}, {1, 2, 5, 2}, {1, 2, 5, 2}, {.causal = true, .past = 0}},
           {{1, 2, 3, 2}, {1, 2, 2, 2}, {1, 2, 2, 2}, {.causal = true, .past = 1}},
           {{2, 2, 3, 2}, {2, 2, 4, 2}, {2, 2, 4, 2}, {}, {2, 1, 3, 4}},
           {{1, 2, 3, 2}, {1, 1, 4, 2}, {1, 1, 4, 2}, {.softcap = 2}, {1, 2, 3, 4}, true},
           {{1, 4, 3, 2}, {1, 2, 4, 2}, {1, 2, 4, 2}, {.causal = true}, {}, false, true},
           {{2, 2, 3, 2}, {2, 2, 4, 2}, {2, 2, 4, 2}, {}, {}, false, false, {4, 0}},
           {{3, 1, 2, 2}, {3, 1, 4, 2}, {3, 1, 4, 2}, {.causal = true}, {3, 1, 2, 4}, false, true, {4, 1, 2}},
           {{0, 2, 3, 2}, {0, 2, 4, 2}, {0, 2, 4, 2}, {.causal = true}},
       }) {
    Case test{.name = "attention with extras", .inputs = {{f.q}, {f.k}, {f.v}}};
    if (!f.mask.empty()) {
      test.inputs.push_back(f.additive ? Input{.dims = f.mask, .constant = true} : whole(f.mask, 0, 2, DType::u8));
    }
    if (f.slopes) test.inputs.push_back({.dims = {f.q[1]}, .low = 0.1, .high = 1, .constant = true});
    if (!f.lengths.empty()) test.inputs.push_back({.dims = {f.q[0]}, .dtype = DType::i32, .values = f.lengths});
    test.run = [&](Tensors t) {
      ops::AttentionOptions options = f.options;
      std::size_t at = 3;
      if (!f.mask.empty()) options.mask = t[at++];
      if (f.slopes) options.slopes = t[at++];
      if (!f.lengths.empty()) options.lengths = t[at++];
      return ops::attention(t[0], t[1], t[2], options);
    };
    test.reference = [&](const Arrays& in) { return attend_all(f, in); };
    test.repeats_kink = true;
    EXPECT_EQ("", check(test));
  }
}

TEST(Attention, Errors) {
  Workspace& ws = workspace(1);
  auto frame = ws.frame();
  const auto q = Owned::zeros({1, 4, 3, 2}), k = Owned::zeros({1, 3, 5, 2}), k2 = Owned::zeros({1, 2, 5, 2}),
             few = Owned::zeros({1, 2, 2, 2}), flat = Owned::zeros({3, 2});
  const auto in = frame.input(*q), keys = frame.input(*k), keys2 = frame.input(*k2), two = frame.input(*few),
             matrix = frame.input(*flat);
  EXPECT_FAILS_SAYING(ops::attention(in, keys, keys), "[1,4,3,2] and [1,3,5,2]");
  EXPECT_FAILS_SAYING(ops::attention(in, keys2, keys), "[1,2,5,2] and [1,3,5,2]");
  EXPECT_FAILS(ops::attention(in, two, two, {.causal = true}), Errc::invalid_size);
  EXPECT_FAILS(ops::attention(in, matrix, matrix), Errc::invalid_size);
  EXPECT_FAILS(ops::attention(in, keys2, keys2, {.window = 3}), Errc::invalid_argument);
  EXPECT_FAILS(ops::rope(in, matrix, two), Errc::invalid_size);
}

TEST(Rope, BothLayouts) {
  for (const auto pairs : {ops::RopePairs::interleaved, ops::RopePairs::halves}) {
    for (const auto& [dims, half] : {std::pair{Extents{2, 3, 4, 6}, 3}, {Extents{1, 1, 5, 7}, 2}, {Extents{3, 2}, 1}}) {
      const Extents table = {dims[dims.size() - 2], half};
      EXPECT_EQ("", check({"rope",
                           {{dims}, {.dims = table, .constant = true}, {.dims = table, .constant = true}},
                           [&](Tensors t) { return ops::rope(t[0], t[1], t[2], pairs); },
                           [&](const Arrays& a) { return turned(a, pairs); }}));
    }
  }
}

TEST(Rope, OfHeadsSideBySide) {
  const Owned x = random_owned({2, 5, 3 * 8}, 1), c = random_owned({5, 4}, 2), s = random_owned({5, 4}, 3);
  auto frame = workspace(2).frame();
  const auto heads = ops::transpose(ops::reshape(frame.input(x), {2, 5, 3, 8}), 1, 2);
  auto y = ops::rope(heads, frame.input(c), frame.input(s));
  ASSERT_OK(y);
  EXPECT_TRUE(y->contiguous());
  EXPECT_EQ(*y->to_vector(), *ops::rope(ops::contiguous(heads), frame.input(c), frame.input(s))->to_vector());
}

// Turning is orthogonal: the gradient of <turn x, g> is g turned back, so turning it forward again gives g.
TEST(Rope, TheGradientIsTheTurnBack) {
  std::vector<float> cosine, sine;
  for (int i = 0; i < 12; ++i) {
    cosine.push_back(std::cos(0.37f * static_cast<float>(i)));
    sine.push_back(std::sin(0.37f * static_cast<float>(i)));
  }
  const Tensor c = Tensor::borrow(std::span<const float>(cosine), {4, 3}),
               s = Tensor::borrow(std::span<const float>(sine), {4, 3});
  for (const auto pairs : {ops::RopePairs::interleaved, ops::RopePairs::halves}) {
    Workspace ws{{.scratch = 1_MiB, .threads = 1}};
    const auto x = Owned::zeros({2, 4, 8});
    auto tape = ws.record();
    auto in = tape.watch(*x);
    auto g = ops::normal(tape.context(), {2, 4, 8});
    auto grads = ops::sum(ops::rope(in, c, s, pairs) * g).and_then(backward);
    ASSERT_OK(grads);
    auto again = ops::rope(grads->of(*in), c, s, pairs);
    ASSERT_OK(again);
    const auto got = *again->to_vector(), wanted = *g->to_vector();
    for (std::size_t i = 0; i < got.size(); ++i) EXPECT_NEAR(got[i], wanted[i], 1e-6);
  }
}
