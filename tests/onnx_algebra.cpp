// ONNX' operators of algebra beside networks: Einstein's sums, the largest few, ranges and identities, optimizers' steps.
module;
#include <algorithm>
#include <cctype>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "tests/onnx_case.h"
module qorus.test.onnx;

namespace qorus_test {

using qorus::DType;
using qorus::Operand;
using qorus::Result;
using qorus::Tensor;
namespace ops = qorus::ops;

namespace {

using R = Result<Tensor>;
using Numbers = std::vector<std::int64_t>;

// The letters of an equation's terms, with those that an ellipsis stands for as digits from the end ("0" the last).
std::vector<std::string> terms_of(std::string equation, const std::vector<int>& ranks) {
  std::erase(equation, ' ');
  std::vector<std::string> terms(1);
  for (std::size_t i = 0; i < equation.size(); ++i) {
    if (equation[i] == ',' || equation[i] == '-') terms.emplace_back();
    if (std::isalpha(static_cast<unsigned char>(equation[i])) || equation[i] == '.') terms.back() += equation[i];
  }
  if (equation.find("->") == equation.npos) {  // what appears once, in alphabetical order
    std::string once, all = equation;
    std::sort(all.begin(), all.end());
    for (const char c : all)
      if (std::isalpha(static_cast<unsigned char>(c)) && std::count(all.begin(), all.end(), c) == 1) once += c;
    terms.push_back((equation.find('.') == equation.npos ? "" : "...") + once);
  }
  int hidden = 0;
  for (std::size_t i = 0; i < ranks.size(); ++i)
    if (terms[i].find("...") != terms[i].npos)
      hidden = std::max(hidden, ranks[i] - static_cast<int>(terms[i].size()) + 3);
  for (std::size_t i = 0; i < terms.size(); ++i) {
    const auto at = terms[i].find("...");
    if (at == terms[i].npos) continue;
    const int own = i < ranks.size() ? ranks[i] - static_cast<int>(terms[i].size()) + 3 : hidden;
    std::string digits;
    for (int d = own - 1; d >= 0; --d) digits += static_cast<char>('0' + d);
    terms[i].replace(at, 3, digits);
  }
  return terms;
}

// Every operand over all letters, multiplied, summed over those that the result lacks.
Outputs einsum(Call& call) {
  std::vector<int> ranks;
  for (std::size_t i = 0; i < call.c.inputs.size(); ++i) ranks.push_back(call.rank(i));
  const auto terms = terms_of(call.c.text("equation", ""), ranks);
  const std::string result = terms.back();
  std::string letters = result;
  for (std::size_t i = 0; i + 1 < terms.size(); ++i)
    for (const char c : terms[i])
      if (letters.find(c) == letters.npos) letters += c;
  R product = call.make({1}, {1});
  for (std::size_t i = 0; i + 1 < terms.size(); ++i) {
    R x = call.in(i);
    std::string term = terms[i];
    for (std::size_t a = 0; a < term.size() && x; ++a)
      if (const auto b = term.find(term[a], a + 1); b != term.npos) {
        std::vector<int> order;
        for (int d = 0; d < x->rank(); ++d)
          if (d != static_cast<int>(a) && d != static_cast<int>(b)) order.push_back(d);
        order.push_back(static_cast<int>(a));
        order.push_back(static_cast<int>(b));
        const std::int64_t n = x->dim(static_cast<int>(a));
        x = ops::slice(ops::flatten(ops::permute(x, std::span<const int>(order)), -2), -1, 0, n * n, n + 1);
        const char letter = term[a];
        term.erase(b, 1);
        term.erase(a, 1);
        term += letter;
        a = static_cast<std::size_t>(-1);
      }
    std::vector<int> order;
    for (const char c : letters)
      if (const auto at = term.find(c); at != term.npos) order.push_back(static_cast<int>(at));
    x = ops::permute(x, std::span<const int>(order));
    for (std::size_t l = 0; l < letters.size(); ++l)
      if (term.find(letters[l]) == term.npos) x = ops::unsqueeze(x, static_cast<int>(l));
    product = ops::mul(product, x);
  }
  std::vector<int> summed;
  for (std::size_t l = result.size(); l < letters.size(); ++l) summed.push_back(static_cast<int>(l));
  return {summed.empty() ? product : ops::sum(product, ops::Axes(std::span<const int>(summed)))};
}

// One after the other: the largest that is left, and where.
Outputs top_k(Call& call) {
  auto axis = static_cast<int>(call.c.integer("axis", -1));
  axis += axis < 0 ? call.rank(0) : 0;
  const bool largest = call.c.integer("largest", 1) != 0;
  const Numbers given = call.c.list(1, "k");
  auto x = call.in(0);
  if (!x) return {x};
  const std::int64_t extent = x->dim(axis), count = given.empty() ? call.c.integer("k", 1) : given[0];
  auto left = largest ? x : ops::neg(x);
  auto places = ops::cast(call.counting(extent), DType::f32);
  for (int d = axis + 1; d < x->rank(); ++d) places = ops::unsqueeze(places, -1);
  auto low = call.make({1}, {-3.4e38});
  std::vector<Tensor> values, indices;
  for (std::int64_t i = 0; i < count; ++i) {
    auto at = ops::argmax(left, axis, true);
    auto value = ops::gather(x, at, axis);
    auto hit = ops::equal(places, ops::cast(at, DType::f32));
    left = ops::where(hit, low, left);
    if (!value || !left) return {value};
    values.push_back(*value);
    indices.push_back(*at);
  }
  return {ops::concat(std::span<const Tensor>(values), axis), ops::concat(std::span<const Tensor>(indices), axis)};
}

Outputs range(Call& call) {
  const double start = call.c.inputs[0].v[0], limit = call.c.inputs[1].v[0], delta = call.c.inputs[2].v[0];
  const auto count = static_cast<std::int64_t>(std::max(std::ceil((limit - start) / delta), 0.0));
  return {ops::add(ops::mul(ops::cast(call.counting(count), DType::f32), static_cast<float>(delta)),
                   static_cast<float>(start))};
}

Outputs eye_like(Call& call) {
  auto row = ops::unsqueeze(ops::cast(call.counting(call.dims(0)[0], call.c.integer("k", 0)), DType::f32), 1);
  auto column = ops::cast(call.counting(call.dims(0)[1]), DType::f32);
  return {ops::cast(ops::equal(row, column), DType::f32)};
}

Outputs constant_of_shape(Call& call) {
  Numbers dims;
  std::size_t count = 1;
  for (const double d : call.c.inputs[0].v) {
    dims.push_back(static_cast<std::int64_t>(d));
    count *= static_cast<std::size_t>(d);
  }
  double value = 0;
  if (const Json* given = call.c.attributes.find("value")) {
    if (const Json* data = given->find("data"); data && !data->list.empty()) value = data->list[0].number;
  }
  return {call.make(dims, std::vector<double>(count, value))};
}

// A cache written from a position of each example on.
Outputs tensor_scatter(Call& call) {
  auto axis = static_cast<int>(call.c.integer("axis", -2));
  axis += axis < 0 ? call.rank(0) : 0;
  auto past = call.in(0), update = call.in(1);
  if (!past || !update) return {past};
  const bool circular = call.c.text("mode", "linear") == "circular";
  std::vector<Tensor> rows;
  for (std::int64_t b = 0; b < past->dim(0); ++b) {
    auto row = ops::slice(past, 0, b, b + 1), more = ops::slice(update, 0, b, b + 1);
    const auto first =
        call.c.has_input(2) ? static_cast<std::int64_t>(call.c.inputs[2].v[static_cast<std::size_t>(b)]) : 0;
    std::vector<Tensor> parts;
    for (std::int64_t p = 0; p < past->dim(axis); ++p) {
      const std::int64_t t = circular ? (p - first + past->dim(axis)) % past->dim(axis) : p - first;
      auto part = t >= 0 && t < update->dim(axis) ? ops::slice(more, axis, t, t + 1) : ops::slice(row, axis, p, p + 1);
      if (!part) return {part};
      parts.push_back(*part);
    }
    auto joined = ops::concat(std::span<const Tensor>(parts), axis);
    if (!joined) return {joined};
    rows.push_back(*joined);
  }
  return {ops::concat(std::span<const Tensor>(rows), 0)};
}

// The steps of ONNX' preview of training: inputs R, T, then all X, all G and all states; outputs all new X, then the states.
struct Step {
  R x, g;
  std::vector<R> state;
};
using StepRule = std::function<void(Step&, float r, double t)>;
Outputs steps(Call& call, std::size_t states, const StepRule& rule) {
  const std::size_t count = (call.c.inputs.size() - 2) / (2 + states);
  const auto r = static_cast<float>(call.c.inputs[0].v[0]);
  const auto norm = static_cast<float>(call.c.number("norm_coefficient", 0));
  Outputs outputs(count * (1 + states), R(Tensor()));
  for (std::size_t i = 0; i < count; ++i) {
    Step step{call.in(2 + i), call.in(2 + count + i), {}};
    for (std::size_t s = 0; s < states; ++s) step.state.push_back(call.in(2 + (2 + s) * count + i));
    step.g = ops::mul(step.x, norm) + step.g;
    rule(step, r, call.c.inputs[1].v[0]);
    outputs[i] = step.x;
    for (std::size_t s = 0; s < states; ++s) outputs[(1 + s) * count + i] = step.state[s];
  }
  return outputs;
}
Outputs adagrad(Call& call) {
  const double decay = call.c.number("decay_factor", 0);
  const auto eps = static_cast<float>(call.c.number("epsilon", 1e-6));
  return steps(call, 1, [&](Step& s, float r, double t) {
    s.state[0] = s.state[0] + ops::square(s.g);
    s.x = s.x - ops::mul(s.g, static_cast<float>(static_cast<double>(r) / (1 + t * decay))) /
                    ops::add(ops::sqrt(s.state[0]), eps);
  });
}
Outputs adam(Call& call) {
  const double alpha = call.c.number("alpha", 0.9), beta = call.c.number("beta", 0.999);
  const auto eps = static_cast<float>(call.c.number("epsilon", 1e-6)),
             post = static_cast<float>(call.c.number("norm_coefficient_post", 0));
  const auto a = static_cast<float>(alpha), b = static_cast<float>(beta);
  return steps(call, 2, [&](Step& s, float r, double t) {
    s.state[0] = ops::mul(s.state[0], a) + ops::mul(s.g, 1 - a);
    s.state[1] = ops::mul(s.state[1], b) + ops::mul(ops::square(s.g), 1 - b);
    const double rate = t > 0 ? static_cast<double>(r) * std::sqrt(1 - std::pow(beta, t)) / (1 - std::pow(alpha, t))
                              : static_cast<double>(r);
    s.x =
        ops::mul(s.x - ops::mul(s.state[0], static_cast<float>(rate)) / ops::add(ops::sqrt(s.state[1]), eps), 1 - post);
  });
}
Outputs momentum(Call& call) {
  const auto alpha = static_cast<float>(call.c.number("alpha", 0)), beta = static_cast<float>(call.c.number("beta", 0));
  const bool nesterov = call.c.text("mode", "standard") == "nesterov";
  return steps(call, 1, [&](Step& s, float r, double t) {
    s.state[0] = ops::mul(s.state[0], alpha) + ops::mul(s.g, t > 0 ? beta : 1);
    s.x = s.x - ops::mul(nesterov ? s.g + ops::mul(s.state[0], alpha) : s.state[0], r);
  });
}

}  // namespace

void add_algebra(OnnxTable& table) {
  table["Einsum"] = einsum;
  table["TopK"] = top_k;
  table["Range"] = range;
  table["EyeLike"] = eye_like;
  table["ConstantOfShape"] = constant_of_shape;
  table["TensorScatter"] = tensor_scatter;
  table["Adagrad"] = adagrad;
  table["Adam"] = adam;
  table["Momentum"] = momentum;
}

}  // namespace qorus_test
