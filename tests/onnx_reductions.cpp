// ONNX' reductions, products, normalisations and losses.
module;
#include <algorithm>
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
using qorus::Shape;
using qorus::Tensor;
namespace ops = qorus::ops;

namespace {

using Reducer = std::function<Result<Tensor>(const Operand&, const ops::Axes&, bool)>;

std::vector<int> to_ints(const std::vector<std::int64_t>& list) { return {list.begin(), list.end()}; }

std::vector<int> axes_from(int first, int rank) {
  std::vector<int> axes;
  for (int d = first < 0 ? first + rank : first; d < rank; ++d) axes.push_back(d);
  return axes;
}

// With no axes ONNX reduces all of them, unless noop_with_empty_axes says none: then `alone` is applied to each element.
void reduction(OnnxTable& table, const char* name, const Reducer& f) {
  table[name] = [f](Call& call) {
    const auto axes = to_ints(call.c.list(1, "axes"));
    const bool keep = call.c.integer("keepdims", 1) != 0;
    if (axes.empty() &&
        call.c.integer("noop_with_empty_axes", 0)) {  // a new axis of one element: the formula without the sum
      return Outputs{f(ops::unsqueeze(call.in(0), -1), ops::Axes(-1), false)};
    }
    return Outputs{f(call.in(0), ops::Axes(std::span<const int>(axes)), keep)};
  };
}

Result<Tensor> log_sum_exp(const Operand& x, const ops::Axes& axes, bool keep) {
  if (x.ok() && x->numel() == 0) return ops::log(ops::sum(ops::exp(x), axes, keep));
  auto most = ops::max(x, axes, true);
  auto sum = ops::log(ops::sum(ops::exp(ops::sub(x, most)), axes, true));
  auto all = ops::add(sum, most);
  return keep ? all : ops::sum(all, axes, false);  // of extents of 1: the same numbers
}

Outputs arg(Call& call, bool largest) {
  const int axis = static_cast<int>(call.c.integer("axis", 0));
  const bool keep = call.c.integer("keepdims", 1) != 0, last = call.c.integer("select_last_index", 0) != 0;
  auto x = call.in(0);
  if (!x) return {x};
  const std::int64_t n = x->dim(axis);
  if (last) x = ops::take(x, call.counting(n, n - 1, -1), axis);
  auto y = largest ? ops::argmax(x, axis, keep) : ops::argmin(x, axis, keep);
  if (last) y = ops::sub(static_cast<float>(n - 1), ops::cast(y, DType::f32));
  return {y};
}

// Before version 13 the axis (1 by default) began the last of two groups of axes.
Outputs softmax(Call& call, const std::function<Result<Tensor>(const Operand&, int)>& f) {
  auto x = call.in(0);
  if (call.c.opset >= 13) return {f(x, static_cast<int>(call.c.integer("axis", -1)))};
  if (!x) return {x};
  const int axis = static_cast<int>(call.c.integer("axis", 1));
  const int first = axis < 0 ? axis + x->rank() : axis;
  std::int64_t rows = 1;
  for (int d = 0; d < first; ++d) rows *= x->dim(d);
  return {ops::reshape(f(ops::reshape(x, {rows, rows ? static_cast<std::int64_t>(x->numel()) / rows : 0}), 1),
                       x->shape().extents())};
}

Outputs hardmax(Call& call) {
  auto x = call.in(0);
  if (!x) return {x};
  const int axis = static_cast<int>(call.c.integer("axis", call.c.opset >= 13 ? -1 : 1)),
            at = axis < 0 ? axis + x->rank() : axis;
  return {ops::one_hot(ops::argmax(x, at), x->dim(at), 1, 0, at)};
}

Outputs gemm(Call& call) {
  auto a = call.in(0), b = call.in(1);
  if (call.c.integer("transA", 0)) a = ops::transpose(a);
  if (call.c.integer("transB", 0)) b = ops::transpose(b);
  auto y = ops::mul(ops::matmul(a, b), static_cast<float>(call.c.number("alpha", 1)));
  if (call.c.has_input(2)) y = ops::add(y, ops::mul(call.in(2), static_cast<float>(call.c.number("beta", 1))));
  return {y};
}

// --- normalisations, put together from reductions ---

struct Standardised {
  Result<Tensor> y, mean, scale;
};
Standardised standardise(const Operand& x, const ops::Axes& axes, double epsilon) {
  auto mean = ops::mean(x, axes, true);
  auto scale = ops::reciprocal(ops::sqrt(ops::add(ops::variance(x, axes, 0, true), static_cast<float>(epsilon))));
  return {ops::mul(ops::sub(x, mean), scale), mean, scale};
}

// [C] seen as [C, 1, 1, …], to go with [N, C, d1, d2, …].
Result<Tensor> by_channel(const Operand& x, int rank) {
  Result<Tensor> y = ops::contiguous(x);
  for (int d = 2; d < rank; ++d) y = ops::unsqueeze(y, -1);
  return y;
}

Outputs instance_norm(Call& call) {
  const auto axes = axes_from(2, call.rank(0));
  auto s = standardise(call.in(0), ops::Axes(std::span<const int>(axes)), call.c.number("epsilon", 1e-5));
  auto scale = call.in(1), bias = call.in(2);
  return {ops::add(ops::mul(s.y, by_channel(scale, call.rank(0))), by_channel(bias, call.rank(0)))};
}

Outputs group_norm(Call& call) {
  auto x = call.in(0), scale = call.in(1), bias = call.in(2);
  if (!x || call.c.opset < 21) return not_covered("a scale for each group (before version 21)");
  auto grouped = ops::reshape(x, {x->dim(0), call.c.integer("num_groups", 1), -1});
  auto y = ops::reshape(standardise(grouped, 2, call.c.number("epsilon", 1e-5)).y, x->shape().extents());
  return {ops::add(ops::mul(y, by_channel(scale, x->rank())), by_channel(bias, x->rank()))};
}

Outputs batch_norm(Call& call) {
  auto x = call.in(0);
  const int rank = call.rank(0);
  const auto epsilon = static_cast<float>(call.c.number("epsilon", 1e-5));
  Result<Tensor> mean = call.in(3), variance = call.in(4), scale = call.in(1), bias = call.in(2);
  Outputs running;
  if (call.c.integer("training_mode", 0)) {
    std::vector<int> axes = axes_from(2, rank);
    axes.push_back(0);
    const auto keep = static_cast<float>(call.c.number("momentum", 0.9));
    auto own_mean = ops::mean(x, ops::Axes(std::span<const int>(axes))),
         own_variance = ops::variance(x, ops::Axes(std::span<const int>(axes)));
    running = {ops::add(ops::mul(mean, keep), ops::mul(own_mean, 1 - keep)),
               ops::add(ops::mul(variance, keep), ops::mul(own_variance, 1 - keep))};
    mean = own_mean;
    variance = own_variance;
  }
  auto centred = ops::sub(x, by_channel(mean, rank));
  auto factor = ops::div(scale, ops::sqrt(ops::add(variance, epsilon)));
  Outputs all{ops::add(ops::mul(centred, by_channel(factor, rank)), by_channel(bias, rank))};
  all.insert(all.end(), running.begin(), running.end());
  return all;
}

Outputs mean_variance_norm(Call& call) {
  auto axes = to_ints(call.c.integers("axes"));
  if (axes.empty()) axes = {0, 2, 3};
  auto s = standardise(call.in(0), ops::Axes(std::span<const int>(axes)), 1e-9);
  return {s.y};
}

Outputs lp_norm(Call& call) {
  const int axis = static_cast<int>(call.c.integer("axis", -1));
  auto x = call.in(0);
  auto size = call.c.integer("p", 2) == 1 ? ops::sum_abs(x, axis, true) : ops::sqrt(ops::sum_square(x, axis, true));
  // A row of zeros stays one.
  return {ops::div(x, ops::add(size, ops::cast(ops::equal(size, ops::mul(size, 0.0f)), DType::f32)))};
}

Outputs global_pool(Call& call, bool largest) {
  const auto axes = axes_from(2, call.rank(0));
  auto x = call.in(0);
  return {largest ? ops::max(x, ops::Axes(std::span<const int>(axes)), true)
                  : ops::mean(x, ops::Axes(std::span<const int>(axes)), true)};
}

// --- losses: ONNX has the classes second, [N, C, d1, …]; the operations have them last ---

// Losses of [N, C, D] scores, D the product of all that follows.
Outputs class_loss(Call& call, bool logits) {
  std::vector<std::int64_t> shape = call.dims(0);
  std::int64_t rest = 1;
  for (std::size_t d = 2; d < shape.size(); ++d) rest *= shape[d];
  auto x = ops::transpose(call.make({shape[0], shape[1], rest}, call.c.inputs[0].v), 1, 2);  // [N, D, C]
  auto target = call.make({shape[0], rest}, call.c.inputs[1].v, DType::i32);
  auto logs = logits ? ops::log_softmax(x) : x;
  const std::string how = call.c.text("reduction", "mean");
  const ops::NllOptions options{.ignore_index = static_cast<std::int32_t>(call.c.integer("ignore_index", -100)),
                                .reduce = how == "mean"  ? ops::Reduce::mean
                                          : how == "sum" ? ops::Reduce::sum
                                                         : ops::Reduce::none};
  auto loss = call.c.has_input(2) ? ops::nll(logs, target, call.in(2), options) : ops::nll(logs, target, options);
  if (logits && !call.c.has_input(2)) {  // the fused loss must say the same
    loss = ops::cross_entropy(x, target, {.ignore_index = options.ignore_index, .reduce = options.reduce});
  }
  auto by_class = ops::transpose(logs, 1, 2);
  if (options.reduce == ops::Reduce::none && call.rank(1) <= 6) loss = ops::reshape(loss, call.dims(1));
  if (shape.size() > 6) return {loss, by_class};  // too many extents for a tensor: compared as [N, C, D]
  return {loss, ops::reshape(by_class, shape)};
}

}  // namespace

void add_reductions(OnnxTable& table) {
  reduction(table, "ReduceSum", ops::sum);
  reduction(table, "ReduceMean", ops::mean);
  reduction(table, "ReduceMax", ops::max);
  reduction(table, "ReduceMin", ops::min);
  reduction(table, "ReduceProd", ops::prod);
  reduction(table, "ReduceL1", ops::sum_abs);
  reduction(table, "ReduceSumSquare", ops::sum_square);
  reduction(table, "ReduceL2", [](const Operand& x, const ops::Axes& axes, bool keep) {
    return ops::sqrt(ops::sum_square(x, axes, keep));
  });
  reduction(table, "ReduceLogSum",
            [](const Operand& x, const ops::Axes& axes, bool keep) { return ops::log(ops::sum(x, axes, keep)); });
  reduction(table, "ReduceLogSumExp", log_sum_exp);
  table["ArgMax"] = [](Call& call) { return arg(call, true); };
  table["ArgMin"] = [](Call& call) { return arg(call, false); };
  table["Softmax"] = [](Call& call) { return softmax(call, ops::softmax); };
  table["LogSoftmax"] = [](Call& call) { return softmax(call, ops::log_softmax); };
  table["Hardmax"] = hardmax;
  table["MatMul"] = [](Call& call) { return Outputs{ops::matmul(call.in(0), call.in(1))}; };
  table["Gemm"] = gemm;
  table["InstanceNormalization"] = instance_norm;
  table["GroupNormalization"] = group_norm;
  table["BatchNormalization"] = batch_norm;
  table["MeanVarianceNormalization"] = mean_variance_norm;
  table["LpNormalization"] = lp_norm;
  table["GlobalAveragePool"] = [](Call& call) { return global_pool(call, false); };
  table["GlobalMaxPool"] = [](Call& call) { return global_pool(call, true); };
  table["NegativeLogLikelihoodLoss"] = [](Call& call) { return class_loss(call, false); };
  table["SoftmaxCrossEntropyLoss"] = [](Call& call) { return class_loss(call, true); };
}

}  // namespace qorus_test
