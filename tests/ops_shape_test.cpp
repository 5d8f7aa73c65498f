// Views, joins, indices and casts: where elements go, and where their gradients come back to.
#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>
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
using Source = std::function<Extents(Extents)>;  // of an element of the result, in the first input

void add_view(std::vector<Case>& cases, const char* name, const Extents& from, const Operation& f, const Extents& to,
              const Source& source) {
  cases.push_back({name, {{from}}, f, [to, source](const Arrays& x) {
                     return build(to, [&](const Extents& i) { return x[0].at(source(i)); });
                   }});
}

void add_same_order(std::vector<Case>& cases, const char* name, const Extents& from, const Operation& f,
                    const Extents& to) {
  cases.push_back({name, {{from}}, f, [to](const Arrays& x) { return Array(to, x[0].v); }});
}

std::vector<Case> views() {
  std::vector<Case> c;
  const auto itself = [](Extents i) { return i; };
  add_same_order(c, "reshape", {3, 4}, [](Tensors x) { return ops::reshape(x[0], {2, -1}); }, {2, 6});
  add_same_order(c, "reshape_scalar", {1, 1}, [](Tensors x) { return ops::reshape(x[0], {}); }, {});
  add_same_order(c, "reshape_empty", {0, 3}, [](Tensors x) { return ops::reshape(x[0], {3, 0}); }, {3, 0});
  add_same_order(
      c, "reshape_of_a_transpose_and_back", {3, 4},
      [](Tensors x) { return ops::transpose(ops::reshape(ops::reshape(ops::transpose(x[0]), {12}), {4, 3})); }, {3, 4});
  add_same_order(c, "flatten", {2, 3, 4}, [](Tensors x) { return ops::flatten(x[0]); }, {24});
  add_same_order(c, "flatten_some", {2, 3, 4, 5}, [](Tensors x) { return ops::flatten(x[0], 1, -2); }, {2, 12, 5});
  add_same_order(c, "flatten_scalar", {}, [](Tensors x) { return ops::flatten(x[0]); }, {1});
  add_same_order(c, "unsqueeze", {2, 3}, [](Tensors x) { return ops::unsqueeze(x[0], 1); }, {2, 1, 3});
  add_same_order(c, "unsqueeze_end", {2, 3}, [](Tensors x) { return ops::unsqueeze(x[0], -1); }, {2, 3, 1});
  add_same_order(c, "squeeze", {2, 1, 3}, [](Tensors x) { return ops::squeeze(x[0], 1); }, {2, 3});
  add_view(
      c, "transpose", {3, 4}, [](Tensors x) { return ops::transpose(x[0]); }, {4, 3},
      [](Extents i) { return Extents{i[1], i[0]}; });
  add_view(
      c, "transpose_outer", {2, 3, 4}, [](Tensors x) { return ops::transpose(x[0], 0, 1); }, {3, 2, 4},
      [](Extents i) { return Extents{i[1], i[0], i[2]}; });
  add_view(
      c, "permute", {2, 3, 4}, [](Tensors x) { return ops::permute(x[0], {2, 0, -2}); }, {4, 2, 3},
      [](Extents i) { return Extents{i[1], i[2], i[0]}; });
  add_view(
      c, "slice", {7}, [](Tensors x) { return ops::slice(x[0], 0, 2, 6); }, {4},
      [](Extents i) { return Extents{i[0] + 2}; });
  add_view(
      c, "slice_steps", {3, 7}, [](Tensors x) { return ops::slice(x[0], 1, 1, -1, 2); }, {3, 3},
      [](Extents i) { return Extents{i[0], 1 + 2 * i[1]}; });
  add_view(c, "slice_nothing", {3, 7}, [](Tensors x) { return ops::slice(x[0], 1, 3, 3); }, {3, 0}, itself);
  add_view(
      c, "select", {3, 4}, [](Tensors x) { return ops::select(x[0], 0, -1); }, {4},
      [](Extents i) { return Extents{2, i[0]}; });
  add_view(
      c, "broadcast", {3, 1}, [](Tensors x) { return ops::broadcast_to(x[0], {2, 3, 4}); }, {2, 3, 4},
      [](Extents i) { return Extents{i[1], 0}; });
  add_view(
      c, "broadcast_scalar", {}, [](Tensors x) { return ops::broadcast_to(x[0], {2, 3}); }, {2, 3},
      [](Extents) { return Extents{}; });
  add_view(
      c, "broadcast_slice", {3, 5}, [](Tensors x) { return ops::broadcast_to(ops::slice(x[0], 1, 2, 3), {3, 4}); },
      {3, 4}, [](Extents i) { return Extents{i[0], 2}; });
  add_view(
      c, "contiguous", {3, 4}, [](Tensors x) { return ops::contiguous(ops::transpose(x[0])); }, {4, 3},
      [](Extents i) { return Extents{i[1], i[0]}; });
  return c;
}

std::vector<Case> joins() {
  std::vector<Case> c;
  c.push_back(
      {"concat",
       {{{2, 3}}, {{2, 1}}, {{2, 4}}},
       [](Tensors x) { return ops::concat({x[0], x[1], x[2]}, 1); },
       [](const Arrays& x) {
         return build({2, 8}, [&](const Extents& i) {
           return i[1] < 3 ? x[0].at(i) : i[1] < 4 ? x[1].v[static_cast<std::size_t>(i[0])] : x[2].at({i[0], i[1] - 4});
         });
       }});
  c.push_back({"concat_many",
               {{{2, 3}}, {{1, 3}}, {{0, 3}}, {{1, 3}}, {{2, 3}}, {{1, 3}}},
               [](Tensors x) { return ops::concat(x, 0); },
               [](const Arrays& x) {
                 Array y({7, 3});
                 y.v.clear();
                 for (const Array& part : x) y.v.insert(y.v.end(), part.v.begin(), part.v.end());
                 return y;
               }});
  c.push_back(
      {"concat_one", {{{2, 3}}}, [](Tensors x) { return ops::concat(x, -1); }, [](const Arrays& x) { return x[0]; }});
  c.push_back({"stack",
               {{{2, 3}}, {{2, 3}}},
               [](Tensors x) { return ops::stack({x[0], x[1]}, 1); },
               [](const Arrays& x) {
                 return build({2, 2, 3},
                              [&](const Extents& i) { return x[static_cast<std::size_t>(i[1])].at({i[0], i[2]}); });
               }});
  c.push_back({"stack_scalars",
               {{{}}, {{}}, {{}}},
               [](Tensors x) { return ops::stack(x); },
               [](const Arrays& x) { return Array({3}, {x[0].v[0], x[1].v[0], x[2].v[0]}); }});
  c.push_back({"split",
               {{{2, 6}}},
               [](Tensors x) {
                 auto parts = ops::split<3>(x[0], -1);
                 return parts ? (*parts)[0] * (*parts)[1] - (*parts)[2] : Result<Tensor>(fail(parts.error()));
               },
               [](const Arrays& x) {
                 return build({2, 2}, [&](const Extents& i) {
                   return x[0].at(i) * x[0].at({i[0], i[1] + 2}) - x[0].at({i[0], i[1] + 4});
                 });
               }});
  c.push_back({"split_sizes",
               {{{5, 2}}},
               [](Tensors x) {
                 auto parts = ops::split(x[0], 0, {1, 0, 4});
                 return parts ? (*parts)[0] * (*parts)[2] : Result<Tensor>(fail(parts.error()));
               },
               [](const Arrays& x) {
                 return build({4, 2}, [&](const Extents& i) { return x[0].at({0, i[1]}) * x[0].at({i[0] + 1, i[1]}); });
               }});
  add_view(
      c, "tile", {2, 3}, [](Tensors x) { return ops::tile(x[0], {2, 3}); }, {4, 9},
      [](Extents i) { return Extents{i[0] % 2, i[1] % 3}; });
  add_view(
      c, "tile_middle", {2, 1, 3}, [](Tensors x) { return ops::tile(x[0], {1, 4, 1}); }, {2, 4, 3},
      [](Extents i) { return Extents{i[0], 0, i[2]}; });
  add_view(
      c, "tile_nothing", {2, 3}, [](Tensors x) { return ops::tile(x[0], {0, 2}); }, {0, 6},
      [](Extents i) { return i; });
  add_view(
      c, "tile_six", {1, 2, 1, 2, 1, 2}, [](Tensors x) { return ops::tile(x[0], {2, 1, 3, 1, 1, 2}); },
      {2, 2, 3, 2, 1, 4}, [](Extents i) { return Extents{0, i[1], 0, i[3], 0, i[5] % 2}; });
  add_view(
      c, "repeat", {2, 3}, [](Tensors x) { return ops::repeat(x[0], 2, 0); }, {4, 3},
      [](Extents i) { return Extents{i[0] / 2, i[1]}; });
  add_view(
      c, "repeat_last", {2, 3}, [](Tensors x) { return ops::repeat(x[0], 3, -1); }, {2, 9},
      [](Extents i) { return Extents{i[0], i[1] / 3}; });
  return c;
}

std::vector<Case> pads() {
  std::vector<Case> c;
  const auto inside = [](std::int64_t i, std::int64_t n) { return i >= 0 && i < n; };
  c.push_back({"pad_constant",
               {{{2, 3}}},
               [](Tensors x) { return ops::pad(x[0], {{0, 1, 0}, {-1, 2, 1}}, ops::PadMode::constant, 1.5f); },
               [=](const Arrays& x) {
                 return build({3, 6}, [&](const Extents& i) {
                   return inside(i[0] - 1, 2) && inside(i[1] - 2, 3) ? x[0].at({i[0] - 1, i[1] - 2}) : 1.5;
                 });
               }});
  c.push_back({"pad_empty",
               {{{0, 3}}},
               [](Tensors x) { return ops::pad(x[0], {{0, 1, 1}}); },
               [](const Arrays&) { return Array({2, 3}); }});
  c.push_back({"pad_nothing",
               {{{2, 3}}},
               [](Tensors x) { return ops::pad(x[0], {}, ops::PadMode::reflect); },
               [](const Arrays& x) { return x[0]; }});
  c.push_back({"pad_and_more",
               {{{2, 3}}},
               [](Tensors x) {
                 return ops::add(ops::pad(x[0], {{1, 1, 0}}), ops::slice(ops::pad(x[0], {{1, 3, 0}}), 1, 2, 6));
               },
               [](const Arrays& x) {
                 return build({2, 4}, [&](const Extents& i) { return i[1] ? 2 * x[0].at({i[0], i[1] - 1}) : 0; });
               }});
  add_view(
      c, "pad_edge", {3, 2}, [](Tensors x) { return ops::pad(x[0], {{0, 2, 1}, {1, 0, 3}}, ops::PadMode::edge); },
      {6, 5},
      [](Extents i) { return Extents{std::clamp<std::int64_t>(i[0] - 2, 0, 2), std::min<std::int64_t>(i[1], 1)}; });
  add_view(
      c, "pad_reflect", {4, 3}, [](Tensors x) { return ops::pad(x[0], {{0, 3, 2}, {1, 1, 0}}, ops::PadMode::reflect); },
      {9, 4},
      [](Extents i) {
        const std::int64_t row = i[0] - 3, column = i[1] - 1;
        return Extents{row < 0 ? -row : row > 3 ? 6 - row : row, std::abs(column)};
      });
  add_view(
      c, "pad_wrap", {3}, [](Tensors x) { return ops::pad(x[0], {{0, 4, 2}}, ops::PadMode::wrap); }, {9},
      [](Extents i) { return Extents{(i[0] - 4 + 6) % 3}; });
  return c;
}

std::int64_t wrapped(double index, std::int64_t extent) {
  return static_cast<std::int64_t>(index) + (index < 0 ? extent : 0);
}

std::vector<Case> indices() {
  std::vector<Case> c;
  const auto rows = [](const Arrays& x) {
    return build({2, 3, 4}, [&](const Extents& i) { return x[0].at({wrapped(x[1].at({i[0], i[1]}), 5), i[2]}); });
  };
  c.push_back({"take_rows", {{{5, 4}}, whole({2, 3}, -5, 5)}, [](Tensors x) { return ops::take(x[0], x[1]); }, rows});
  c.push_back({"take_columns",
               {{{2, 5, 3}}, whole({4}, 0, 5)},
               [](Tensors x) { return ops::take(x[0], x[1], 1); },
               [](const Arrays& x) {
                 return build({2, 4, 3},
                              [&](const Extents& i) { return x[0].at({i[0], wrapped(x[1].at({i[1]}), 5), i[2]}); });
               }});
  c.push_back({"take_one",
               {{{5}}, whole({}, 0, 5)},
               [](Tensors x) { return ops::take(x[0], x[1]); },
               [](const Arrays& x) { return Array(Extents{}, x[0].at({wrapped(x[1].v[0], 5)})); }});
  c.push_back({"take_nothing",
               {{{5, 2}}, whole({0}, 0, 5)},
               [](Tensors x) { return ops::take(x[0], x[1]); },
               [](const Arrays&) { return Array(Extents{0, 2}); }});
  for (const int axis : {0, 1}) {
    const auto reference = [axis](const Arrays& x) {
      return build({3, 4}, [&](const Extents& i) {
        Extents place = i;
        place[static_cast<std::size_t>(axis)] = wrapped(x[1].at(i), x[0].dim(axis));
        return x[0].at(place);
      });
    };
    c.push_back({"gather_" + std::to_string(axis),
                 {{{5, 6}}, whole({3, 4}, -5, 5)},
                 [axis](Tensors x) { return ops::gather(x[0], x[1], axis); },
                 reference});
    const auto scattered = [axis](const Arrays& x) {
      Array y = x[0];
      each_index(x[1].dims, [&](const Extents& i) {
        Extents place = i;
        place[static_cast<std::size_t>(axis)] = wrapped(x[2].at(i), x[0].dim(axis));
        y.at(place) += x[1].at(i);
      });
      return y;
    };
    c.push_back({"scatter_add_" + std::to_string(axis),
                 {{{5, 6}}, {{3, 4}}, whole({3, 4}, -5, 5)},
                 [axis](Tensors x) { return ops::scatter_add(x[0], x[2], x[1], axis); },
                 scattered});
    c.push_back({"scatter_add_same_" + std::to_string(axis),
                 {{{3, 4}}, {{3, 4}}, whole({3, 4}, 0, 3)},
                 [axis](Tensors x) { return ops::scatter_add(x[0], x[2], x[1], axis); },
                 scattered});
  }
  c.push_back({"gather_vector",
               {{{5}}, whole({7}, 0, 5)},
               [](Tensors x) { return ops::gather(x[0], x[1], 0); },
               [](const Arrays& x) { return map(x[1], [&](double i) { return x[0].at({wrapped(i, 5)}); }); }});
  c.push_back({"gather_nothing",
               {{{5, 2}}, whole({0, 2}, 0, 5)},
               [](Tensors x) { return ops::gather(x[0], x[1], 0); },
               [](const Arrays&) { return Array(Extents{0, 2}); }});
  c.push_back({"one_hot",
               {whole({2, 3}, -4, 4)},
               [](Tensors x) { return ops::one_hot(x[0], 4, 2, -1); },
               [](const Arrays& x) {
                 return build({2, 3, 4},
                              [&](const Extents& i) { return wrapped(x[0].at({i[0], i[1]}), 4) == i[2] ? 2.0 : -1.0; });
               },
               false});
  c.push_back({"one_hot_first",
               {whole({2, 3}, 0, 4)},
               [](Tensors x) { return ops::one_hot(x[0], 4, 1, 0, 0); },
               [](const Arrays& x) {
                 return build({4, 2, 3},
                              [&](const Extents& i) { return x[0].at({i[1], i[2]}) == double(i[0]) ? 1.0 : 0.0; });
               },
               false});
  return c;
}

const std::vector<Case>& all() {
  static const std::vector<Case> cases = [] {
    std::vector<Case> every;
    for (auto part : {views(), joins(), pads(), indices()}) every.insert(every.end(), part.begin(), part.end());
    return every;
  }();
  return cases;
}

class Shapes : public testing::TestWithParam<std::size_t> {};
TEST_P(Shapes, KeepsItsPromises) { EXPECT_EQ(check(all()[GetParam()]), ""); }
INSTANTIATE_TEST_SUITE_P(Op, Shapes, testing::Range(std::size_t{0}, all().size()),
                         [](const auto& info) { return all()[info.param].name; });

TEST(ShapeBits, DoNotDependOnWorkers) {
  const Case cases[] = {
      {"transposed", {{{300, 401}}}, [](Tensors x) { return ops::contiguous(ops::transpose(x[0])); }, {}},
      {"broadcast", {{{1, 401}}}, [](Tensors x) { return ops::broadcast_to(x[0], {300, 401}); }, {}},
      {"concat", {{{300, 201}}, {{300, 100}}}, [](Tensors x) { return ops::concat({x[0], x[1]}, 1); }, {}},
      {"pad",
       {{{300, 201}}},
       [](Tensors x) { return ops::pad(x[0], {{0, 3, 4}, {1, 2, 0}}, ops::PadMode::reflect); },
       {}},
      {"take", {{{50, 401}}, whole({1000}, 0, 50)}, [](Tensors x) { return ops::take(x[0], x[1]); }, {}},
      {"gather", {{{500, 41}}, whole({500, 90}, 0, 41)}, [](Tensors x) { return ops::gather(x[0], x[1], 1); }, {}},
      {"scatter_add",
       {{{500, 41}}, {{500, 90}}, whole({500, 90}, 0, 41)},
       [](Tensors x) { return ops::scatter_add(x[0], x[2], x[1], 1); },
       {}},
      {"tile", {{{50, 41}}}, [](Tensors x) { return ops::tile(x[0], {10, 7}); }, {}},
  };
  for (const Case& c : cases) EXPECT_EQ(check_bits(c), "") << c.name;
}

TEST(Views, CopyNothing) {
  Workspace ws{{.scratch = 1_MiB, .threads = 1}};
  const Owned x = random_owned({6, 8});
  auto frame = ws.frame();
  auto t = frame.input(x);
  const std::size_t before = ws.counters().in_use;
  ASSERT_OK(ops::transpose(ops::slice(ops::reshape(t, {3, 2, 8}), 0, 1, 3)));
  ASSERT_OK(ops::split<2>(t, 1));
  EXPECT_EQ(ws.counters().in_use, before);
}

TEST(Views, ADetachedTensorHasNoGradient) {
  auto tape = workspace(1).record();
  const float value = 3;
  auto x = tape.watch(Tensor::borrow(std::span<const float>(&value, 1), {}));
  auto g = backward(ops::mul(x, ops::detach(x)).value());
  EXPECT_EQ(g->of(*x).value().item().value(), 3);
}

}  // namespace
