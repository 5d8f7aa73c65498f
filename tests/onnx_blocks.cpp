// ONNX' operators that networks are built of: normalisation, rotary positions, attention, SwiGLU.
module;
#include <cmath>
#include <cstdint>
#include <functional>
#include <map>
#include <numeric>
#include <span>
#include <string>
#include <vector>

#include "tests/onnx_case.h"
module qorus.test.onnx;

namespace qorus_test {

using qorus::Operand;
using qorus::Result;
using qorus::Shape;
using qorus::Tensor;
namespace ops = qorus::ops;

namespace {

using Numbers = std::vector<std::int64_t>;

Result<Tensor> shaped(const Operand& x, const Numbers& dims) {
  return ops::reshape(x, std::span<const std::int64_t>(dims));
}

// Everything from `axis` on is one row: the operators normalise over all of it.
struct Rows {
  std::int64_t rows = 1, cols = 1;
  Numbers kept;  // the row's extents, then ones
};
Rows rows_of(Call& call) {
  Rows r;
  auto axis = static_cast<int>(call.c.integer("axis", -1));
  axis += axis < 0 ? call.rank(0) : 0;
  for (int d = 0; d < call.rank(0); ++d) {
    const std::int64_t extent = call.dims(0)[static_cast<std::size_t>(d)];
    (d < axis ? r.rows : r.cols) *= extent;
    r.kept.push_back(d < axis ? extent : 1);
  }
  return r;
}

Outputs layer_normalization(Call& call) {
  const Rows r = rows_of(call);
  const auto eps = static_cast<float>(call.c.number("epsilon", 1e-5));
  auto x = shaped(call.in(0), {r.rows, r.cols});
  auto w = shaped(call.in(1), {r.cols});
  auto y = call.c.has_input(2) ? ops::layer_norm(x, w, shaped(call.in(2), {r.cols}), eps) : ops::layer_norm(x, w, eps);
  auto rstd = ops::reciprocal(ops::sqrt(ops::add(ops::variance(x, 1), eps)));
  return {shaped(y, call.dims(0)), shaped(ops::mean(x, 1), r.kept), shaped(rstd, r.kept)};
}

Outputs rms_normalization(Call& call) {
  const Rows r = rows_of(call);
  auto y = ops::rms_norm(shaped(call.in(0), {r.rows, r.cols}), shaped(call.in(1), {r.cols}),
                         static_cast<float>(call.c.number("epsilon", 1e-5)));
  return {shaped(y, call.dims(0))};
}

// x: [batch, heads, seq, dim], or [batch, seq, heads dim] with num_heads; tables by position ids, or one for each batch and place.
Outputs rotary_embedding(Call& call) {
  const auto pairs = call.c.integer("interleaved", 0) ? ops::RopePairs::interleaved : ops::RopePairs::halves;
  auto x = call.in(0);
  const bool flat = call.rank(0) == 3;
  const std::int64_t heads = call.c.integer("num_heads", 0);
  if (flat) x = ops::transpose(shaped(x, {call.dims(0)[0], call.dims(0)[1], heads, call.dims(0)[2] / heads}), 1, 2);
  if (!x) return {x};
  std::vector<Result<Tensor>> parts;
  for (std::int64_t b = 0; b < x->dim(0); ++b) {
    const auto table = [&](std::size_t i) {
      if (call.c.has_input(3)) return ops::take(call.in(i), ops::select(call.index(3), 0, b));
      return ops::select(call.in(i), 0, b);
    };
    parts.push_back(ops::rope(ops::slice(x, 0, b, b + 1), table(1), table(2), pairs));
  }
  auto y = parts[0];
  for (std::size_t b = 1; b < parts.size(); ++b) y = ops::concat({y, parts[b]}, 0);
  if (flat) y = shaped(ops::transpose(y, 1, 2), call.dims(0));
  return {y};
}

Outputs swiglu(Call& call) { return {ops::mul(ops::silu(call.in(0)), call.in(1))}; }

}  // namespace

void add_blocks(OnnxTable& table) {
  table["LayerNormalization"] = layer_normalization;
  table["RMSNormalization"] = rms_normalization;
  table["RotaryEmbedding"] = rotary_embedding;
  table["SwiGLU"] = swiglu;
}

}  // namespace qorus_test
