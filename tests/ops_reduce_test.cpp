// Reductions over any axes, softmax, running sums, and the losses.
#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <numeric>
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
using Elements = std::vector<double>;
using Of = double (*)(const Elements&);
using Reducer = Result<Tensor> (*)(const Operand&, const ops::Axes&, bool) noexcept;

double total(const Elements& e) { return std::accumulate(e.begin(), e.end(), 0.0); }
double mean(const Elements& e) { return total(e) / static_cast<double>(e.size()); }
double log_sum(const Elements& e) {
  double sum = 0;
  for (double x : e) sum += std::exp(x);
  return std::log(sum);
}
template <int Correction>
double variance(const Elements& e) {
  double sum = 0;
  for (double x : e) sum += (x - mean(e)) * (x - mean(e));
  return sum / static_cast<double>(static_cast<int>(e.size()) - Correction);
}

void add_reduction(std::vector<Case>& cases, const std::string& name, Reducer f, Of reference, bool empty,
                   bool kink = false, double low = -2, double high = 2) {
  struct Shaped {
    Extents dims, axes;
  };
  const Shaped shapes[] = {
      {{}, {}},      {{1}, {0}},       {{7}, {}},           {{3, 5}, {0}},           {{3, 5}, {-1}},
      {{3, 5}, {}},  {{2, 3, 4}, {1}}, {{2, 3, 4}, {0, 2}}, {{2, 3, 1, 5}, {1, -1}}, {{2, 2, 2, 2, 2, 3}, {0, 2, 4}},
      {{0, 3}, {1}}, {{0, 3}, {0}}};
  int i = 0;
  for (const Shaped& shape : shapes) {
    const Extents &dims = shape.dims, &axes = shape.axes;
    const bool nothing = count_of(dims) == 0 && !axes.empty() && dims[static_cast<std::size_t>(axes[0])] == 0;
    if (nothing && !empty) continue;
    const std::vector<int> list(axes.begin(), axes.end());
    for (const bool keep : {false, true}) {
      cases.push_back({name + "_" + std::to_string(i++),
                       {{dims, low, high}},
                       [f, list, keep](Tensors x) { return f(x[0], ops::Axes(std::span<const int>(list)), keep); },
                       [reference, axes, keep](const Arrays& x) { return reduce(x[0], axes, keep, reference); },
                       true,
                       kink});
    }
  }
}

void add_argument(std::vector<Case>& cases, const char* name, bool largest, const Extents& dims, int axis, bool keep) {
  const auto place = [largest](const Elements& e) {
    const auto at = largest ? std::max_element(e.begin(), e.end()) : std::min_element(e.begin(), e.end());
    return static_cast<double>(at - e.begin());
  };
  cases.push_back({name,
                   {{dims}},
                   [=](Tensors x) { return largest ? ops::argmax(x[0], axis, keep) : ops::argmin(x[0], axis, keep); },
                   [=](const Arrays& x) { return reduce(x[0], {axis}, keep, place); },
                   false});
}

// Along one axis, of arrays of that axis' elements.
Array along(const Array& x, int axis, const std::function<Elements(Elements)>& f) {
  const auto at = static_cast<std::size_t>(axis < 0 ? axis + x.rank() : axis);
  Extents lines = x.dims;
  lines[at] = 1;
  Array y = x;
  each_index(lines, [&](const Extents& line) {
    Elements e;
    for (std::int64_t i = 0; i < x.dims[at]; ++i) {
      Extents place = line;
      place[at] = i;
      e.push_back(x.at(place));
    }
    e = f(e);
    for (std::int64_t i = 0; i < x.dims[at]; ++i) {
      Extents place = line;
      place[at] = i;
      y.at(place) = e[static_cast<std::size_t>(i)];
    }
  });
  return y;
}

void add_softmaxes(std::vector<Case>& cases) {
  struct Shaped {
    Extents dims;
    int axis;
  };
  const Shaped shapes[] = {{{1}, 0}, {{7}, -1}, {{3, 5}, -1}, {{3, 5}, 0}, {{2, 3, 4}, 1}, {{0, 4}, 1}, {{13, 1}, 1}};
  int i = 0;
  for (const Shaped& shape : shapes) {
    const Extents& dims = shape.dims;
    const int axis = shape.axis;
    cases.push_back({"softmax_" + std::to_string(i),
                     {{dims}},
                     [axis](Tensors x) { return ops::softmax(x[0], axis); },
                     [axis](const Arrays& x) {
                       return along(x[0], axis, [](Elements e) {
                         const double all = log_sum(e);
                         for (double& v : e) v = std::exp(v - all);
                         return e;
                       });
                     }});
    cases.push_back({"log_softmax_" + std::to_string(i++),
                     {{dims}},
                     [axis](Tensors x) { return ops::log_softmax(x[0], axis); },
                     [axis](const Arrays& x) {
                       return along(x[0], axis, [](Elements e) {
                         const double all = log_sum(e);
                         for (double& v : e) v -= all;
                         return e;
                       });
                     }});
  }
}

Elements running(Elements e, bool exclusive, bool reverse) {
  if (reverse) std::reverse(e.begin(), e.end());
  double sum = 0;
  for (double& v : e) {
    const double before = sum;
    sum += v;
    v = exclusive ? before : sum;
  }
  if (reverse) std::reverse(e.begin(), e.end());
  return e;
}

void add_cumsums(std::vector<Case>& cases) {
  struct Shaped {
    Extents dims;
    int axis;
    bool exclusive, reverse;
  };
  const Shaped shapes[] = {{{7}, 0, false, false},
                           {{3, 5}, 0, false, true},
                           {{3, 5}, -1, true, false},
                           {{2, 3, 71}, 1, true, true},
                           {{0, 3}, 0, false, false}};
  int i = 0;
  for (const auto& s : shapes) {
    cases.push_back(
        {"cumsum_" + std::to_string(i++),
         {{s.dims}},
         [s](Tensors x) { return ops::cumsum(x[0], s.axis, {.exclusive = s.exclusive, .reverse = s.reverse}); },
         [s](const Arrays& x) {
           return along(x[0], s.axis, [s](Elements e) { return running(std::move(e), s.exclusive, s.reverse); });
         }});
  }
}

std::vector<Case> reductions() {
  std::vector<Case> c;
  add_reduction(c, "sum", ops::sum, total, true);
  add_reduction(c, "mean", ops::mean, mean, false);
  add_reduction(
      c, "sum_abs", ops::sum_abs,
      [](const Elements& e) {
        return std::accumulate(e.begin(), e.end(), 0.0, [](double s, double x) { return s + std::fabs(x); });
      },
      true);
  add_reduction(
      c, "sum_square", ops::sum_square,
      [](const Elements& e) { return std::inner_product(e.begin(), e.end(), e.begin(), 0.0); }, true);
  add_reduction(
      c, "max", ops::max, [](const Elements& e) { return *std::max_element(e.begin(), e.end()); }, false, true);
  add_reduction(
      c, "min", ops::min, [](const Elements& e) { return *std::min_element(e.begin(), e.end()); }, false, true);
  add_reduction(
      c, "prod", ops::prod,
      [](const Elements& e) { return std::accumulate(e.begin(), e.end(), 1.0, std::multiplies<>()); }, true);
  const auto spread = [](const Operand& x, const ops::Axes& axes, bool keep) noexcept {
    return ops::variance(x, axes, 0, keep);
  };
  add_reduction(c, "variance", spread, variance<0>, false);
  c.push_back({"variance_of_a_sample",
               {{{4, 6}}},
               [](Tensors x) { return ops::variance(x[0], 1, 1); },
               [](const Arrays& x) { return reduce(x[0], {1}, false, variance<1>); }});
  add_argument(c, "argmax_last", true, {3, 7}, -1, false);
  add_argument(c, "argmax_first", true, {3, 7}, 0, true);
  add_argument(c, "argmin_middle", false, {2, 3, 4}, 1, false);
  add_argument(c, "argmin_one", false, {1}, 0, true);
  add_softmaxes(c);
  add_cumsums(c);
  return c;
}

// --- losses ---

Array reduced(Array each, ops::Reduce how, double count) {
  if (how == ops::Reduce::none) return each;
  const double sum = total(each.v);
  return Array(Extents{}, how == ops::Reduce::mean ? (count ? sum / count : 0) : sum);
}

using Point = double (*)(double, double);
using PointLoss = std::function<Result<Tensor>(const Tensor&, const Tensor&, ops::Reduce)>;

void add_pointwise(std::vector<Case>& cases, const std::string& name, const PointLoss& f, Point reference,
                   double low = -2, double high = 2) {
  const Extents shapes[] = {{}, {7}, {3, 5}, {0, 3}};
  int i = 0;
  for (const Extents& dims : shapes) {
    for (const auto how : {ops::Reduce::mean, ops::Reduce::sum, ops::Reduce::none}) {
      cases.push_back({name + "_" + std::to_string(i++),
                       {{dims}, {dims, low, high}},
                       [f, how](Tensors x) { return f(x[0], x[1], how); },
                       [reference, how](const Arrays& x) {
                         return reduced(zip(x[0], x[1], reference), how, static_cast<double>(x[0].v.size()));
                       },
                       true,
                       name == "l1"});
    }
  }
}

// -(weight) log-probability of the target, per row of the last axis; targets equal to `ignored` count nothing.
Array picked(const Array& logs, const Array& target, const Array* weight, double ignored, ops::Reduce how,
             double smoothing) {
  Array each(target.dims);
  double count = 0;
  std::size_t r = 0;
  each_index(target.dims, [&](const Extents& row) {
    const double t = target.at(row);
    if (t != ignored) {
      const double w = weight ? weight->v[static_cast<std::size_t>(t)] : 1;
      Extents place = row;
      place.push_back(static_cast<std::int64_t>(t));
      double all = 0;
      for (std::int64_t k = 0; k < logs.dim(-1); ++k) {
        Extents other = row;
        other.push_back(k);
        all += logs.at(other);
      }
      each.v[r] = -w * ((1 - smoothing) * logs.at(place) + smoothing * all / static_cast<double>(logs.dim(-1)));
      count += w;
    }
    ++r;
  });
  return reduced(each, how, count);
}

Array log_softmax(const Array& x) {
  return along(x, -1, [](Elements e) {
    const double all = log_sum(e);
    for (double& v : e) v -= all;
    return e;
  });
}

// x weight^T, for x: […, 3].
Array scores_of(const Array& x, const Array& weight) {
  Extents dims = x.dims;
  dims.back() = weight.dim(0);
  return build(dims, [&](const Extents& at) {
    Extents from = at;
    double sum = 0;
    for (std::int64_t k = 0; k < weight.dim(1); ++k) {
      from.back() = k;
      sum += x.at(from) * weight.at({at.back(), k});
    }
    return sum;
  });
}

void add_head_losses(std::vector<Case>& cases) {
  int i = 0;
  for (const Extents& rows : {Extents{}, Extents{5}, Extents{2, 3}, Extents{0}}) {
    Extents dims = rows;
    dims.push_back(3);
    for (const auto how : {ops::Reduce::mean, ops::Reduce::sum, ops::Reduce::none}) {
      for (const float smoothing : {0.0f, 0.25f}) {
        cases.push_back({"linear_cross_entropy_" + std::to_string(i++),
                         {{dims}, {{4, 3}}, whole(rows, 0, 4)},
                         [=](Tensors x) {
                           return ops::linear_cross_entropy(
                               x[0], x[1], x[2], {.label_smoothing = smoothing, .ignore_index = 2, .reduce = how});
                         },
                         [=](const Arrays& x) {
                           return picked(log_softmax(scores_of(x[0], x[1])), x[2], nullptr, 2, how,
                                         static_cast<double>(smoothing));
                         }});
      }
    }
  }
}

void add_class_losses(std::vector<Case>& cases) {
  add_head_losses(cases);
  int i = 0;
  for (const Extents& rows : {Extents{}, Extents{5}, Extents{2, 3}, Extents{0}}) {
    Extents dims = rows;
    dims.push_back(4);
    for (const auto how : {ops::Reduce::mean, ops::Reduce::sum, ops::Reduce::none}) {
      const std::string tail = "_" + std::to_string(i++);
      cases.push_back({"cross_entropy" + tail,
                       {{dims}, whole(rows, 0, 4)},
                       [how](Tensors x) { return ops::cross_entropy(x[0], x[1], {.ignore_index = 2, .reduce = how}); },
                       [how](const Arrays& x) { return picked(log_softmax(x[0]), x[1], nullptr, 2, how, 0); }});
      cases.push_back(
          {"cross_entropy_smooth" + tail,
           {{dims}, whole(rows, 0, 4)},
           [how](Tensors x) { return ops::cross_entropy(x[0], x[1], {.label_smoothing = 0.25f, .reduce = how}); },
           [how](const Arrays& x) { return picked(log_softmax(x[0]), x[1], nullptr, -100, how, 0.25); }});
      cases.push_back({"nll" + tail,
                       {{dims, -3, -0.1}, whole(rows, 0, 4)},
                       [how](Tensors x) { return ops::nll(x[0], x[1], {.ignore_index = 1, .reduce = how}); },
                       [how](const Arrays& x) { return picked(x[0], x[1], nullptr, 1, how, 0); }});
    }
  }
  for (const auto how : {ops::Reduce::mean, ops::Reduce::sum, ops::Reduce::none}) {
    cases.push_back({"nll_weighted_" + std::to_string(static_cast<int>(how)),
                     {{{6, 4}, -3, -0.1}, whole({6}, 0, 4)},
                     [how](Tensors x) {
                       static const float weight[] = {0.5f, 1, 2, 0.25f};
                       return ops::nll(x[0], x[1], Tensor::borrow(std::span<const float>(weight), {4}),
                                       {.reduce = how});
                     },
                     [how](const Arrays& x) {
                       const Array weight({4}, {0.5, 1, 2, 0.25});
                       return picked(x[0], x[1], &weight, -100, how, 0);
                     }});
  }
}

std::vector<Case> losses() {
  std::vector<Case> c;
  add_pointwise(c, "mse", ops::mse, [](double x, double t) { return (x - t) * (x - t); });
  add_pointwise(c, "l1", ops::l1, [](double x, double t) { return std::fabs(x - t); });
  add_pointwise(
      c, "huber", [](const Tensor& x, const Tensor& t, ops::Reduce how) { return ops::huber(x, t, 0.75f, how); },
      [](double x, double t) {
        return std::fabs(x - t) <= 0.75 ? (x - t) * (x - t) / 2 : 0.75 * (std::fabs(x - t) - 0.375);
      });
  add_pointwise(
      c, "bce", [](const Tensor& x, const Tensor& t, ops::Reduce how) { return ops::bce_with_logits(x, t, 1, how); },
      [](double x, double t) { return (1 - t) * x + std::log1p(std::exp(-x)); }, 0, 1);
  add_pointwise(
      c, "bce_weighted",
      [](const Tensor& x, const Tensor& t, ops::Reduce how) { return ops::bce_with_logits(x, t, 3, how); },
      [](double x, double t) { return (1 - t) * x + (1 + 2 * t) * std::log1p(std::exp(-x)); }, 0, 1);
  add_class_losses(c);
  return c;
}

const std::vector<Case>& all() {
  static const std::vector<Case> cases = [] {
    std::vector<Case> both = reductions();
    for (Case& c : losses()) both.push_back(std::move(c));
    return both;
  }();
  return cases;
}

class Reductions : public testing::TestWithParam<std::size_t> {};
TEST_P(Reductions, KeepsItsPromises) { EXPECT_EQ(check(all()[GetParam()]), ""); }
INSTANTIATE_TEST_SUITE_P(Op, Reductions, testing::Range(std::size_t{0}, all().size()),
                         [](const auto& info) { return all()[info.param].name; });

TEST(ReductionBits, DoNotDependOnWorkers) {
  const Case cases[] = {
      {"sum_all", {{{1000, 301}}}, [](Tensors x) { return ops::sum(x[0]); }, {}},
      {"sum_rows", {{{5000, 37}}}, [](Tensors x) { return ops::sum(x[0], 0); }, {}},
      {"mean_last", {{{300, 1001}}}, [](Tensors x) { return ops::mean(x[0], -1); }, {}},
      {"max", {{{300, 401}}}, [](Tensors x) { return ops::max(x[0], 0); }, {}},
      {"variance", {{{64, 33, 65}}}, [](Tensors x) { return ops::variance(x[0], {0, 2}); }, {}},
      {"softmax", {{{300, 401}}}, [](Tensors x) { return ops::softmax(x[0]); }, {}},
      {"softmax_first", {{{300, 401}}}, [](Tensors x) { return ops::softmax(x[0], 0); }, {}},
      {"cross_entropy",
       {{{3000, 41}}, whole({3000}, 0, 41)},
       [](Tensors x) { return ops::cross_entropy(x[0], x[1]); },
       {}},
      {"linear_cross_entropy",  // in three pieces
       {{{150, 8}}, {{40000, 8}}, whole({150}, 0, 40000)},
       [](Tensors x) { return ops::linear_cross_entropy(x[0], x[1], x[2]); },
       {}},
      {"mse", {{{300, 401}}, {{300, 401}}}, [](Tensors x) { return ops::mse(x[0], x[1]); }, {}},
      {"bce", {{{300, 401}}, {{300, 401}, 0, 1}}, [](Tensors x) { return ops::bce_with_logits(x[0], x[1]); }, {}},
      {"nll", {{{3000, 41}}, whole({3000}, 0, 41)}, [](Tensors x) { return ops::nll(x[0], x[1]); }, {}},
      {"cumsum", {{{30, 401, 65}}}, [](Tensors x) { return ops::cumsum(x[0], 1); }, {}},
  };
  for (const Case& c : cases) EXPECT_EQ(check_bits(c), "") << c.name;
}

Result<Tensor> given(Tape& tape, std::span<const float> values) {
  return tape.watch(Tensor::borrow(values, {static_cast<std::int64_t>(values.size())}));
}

TEST(Reductions, EqualLargestElementsShareTheGradient) {
  auto tape = workspace(1).record();
  const float values[] = {1, 5, 5, 2};
  auto x = given(tape, values);
  auto g = backward(ops::max(x, 0).value()).value().of(*x).value().to_vector().value();
  EXPECT_EQ(g, (std::vector<float>{0, 0.5f, 0.5f, 0}));
}

TEST(Reductions, ProductHasGradientsAtZeros) {
  for (const auto& [values, want] :
       std::vector<std::pair<std::vector<float>, std::vector<float>>>{{{2, 0, 3}, {0, 6, 0}}, {{0, 0, 3}, {0, 0, 0}}}) {
    auto tape = workspace(1).record();
    auto x = given(tape, values);
    EXPECT_EQ(backward(ops::prod(x).value()).value().of(*x).value().to_vector().value(), want);
  }
}

TEST(Reductions, OfNothing) {
  auto frame = workspace(1).frame();
  auto x = frame.input(Tensor::borrow(std::span<const float>(), {0}));
  EXPECT_EQ(ops::sum(x).value().item().value(), 0);
  EXPECT_EQ(ops::prod(x).value().item().value(), 1);
  EXPECT_TRUE(std::isnan(ops::mean(x).value().item().value()));
  EXPECT_EQ(ops::max(x, {}).value().item().value(), -INFINITY);
  EXPECT_FAILS(ops::argmax(x), Errc::invalid_size);
}

// An axis is an axis, also when it is written as a plain number.
TEST(Reductions, MaxOfAnAxisIsNotMaximum) {
  auto frame = workspace(1).frame();
  const float values[] = {1, 5, -7, 2};
  auto x = frame.input(Tensor::borrow(std::span<const float>(values), {2, 2}));
  EXPECT_EQ(ops::max(x, 1).value().to_vector().value(), (std::vector<float>{5, 2}));
  EXPECT_EQ(ops::min(x, 0).value().to_vector().value(), (std::vector<float>{-7, 2}));
}

// Two losses of the same scores give twice the gradient, in every part of a large one.
TEST(Losses, GradientsThatMeetAddUp) {
  constexpr std::int64_t k_rows = 20000, k_cols = 16;
  const Owned scores = random_owned({k_rows, k_cols}, 1), weight = random_owned({10, k_cols}, 2);
  std::vector<std::int32_t> classes(k_rows);
  for (std::size_t i = 0; i < classes.size(); ++i) classes[i] = static_cast<std::int32_t>(i * 7 % 10);
  const auto gradient = [&](bool twice) {
    Workspace ws{{.scratch = 32_MiB, .threads = 2}};
    auto tape = ws.record();
    const auto x = tape.watch(scores), w = tape.input(weight);
    const auto target = tape.input(Tensor::borrow(std::span<const std::int32_t>(classes), {k_rows}));
    auto loss = ops::linear_cross_entropy(x, w, target);
    if (twice) loss = ops::add(loss, ops::linear_cross_entropy(x, w, target));
    return loss.and_then(backward)->of(*x)->to_vector().value();
  };
  std::vector<float> wanted = gradient(false);
  for (float& g : wanted) g *= 2;
  EXPECT_EQ(gradient(true), wanted);
}

TEST(Losses, StayFiniteForExtremeLogits) {
  auto tape = workspace(1).record();
  const float logits[] = {1000, -1000, 80, -80}, targets[] = {0, 1, 1, 0};
  auto x = given(tape, logits);
  auto loss = ops::bce_with_logits(x, Tensor::borrow(std::span<const float>(targets), {4}), 1, ops::Reduce::sum);
  EXPECT_FLOAT_EQ(loss.value().item().value(), 2000);
  const std::vector<float> slopes = backward(*loss).value().of(*x).value().to_vector().value();
  for (const float g : slopes) EXPECT_TRUE(std::isfinite(g));
}

TEST(Losses, MeanSquaredErrorDividesByTheCountAndKeepsItsTwo) {
  auto tape = workspace(1).record();
  const float values[] = {3, 1}, targets[] = {1, 1};
  auto x = given(tape, values);
  auto loss = ops::mse(x, Tensor::borrow(std::span<const float>(targets), {2}));
  EXPECT_EQ(loss.value().item().value(), 2);
  EXPECT_EQ(backward(*loss).value().of(*x).value().to_vector().value(), (std::vector<float>{2, 0}));
}

}  // namespace
