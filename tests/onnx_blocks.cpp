// ONNX' operators that networks are built of: normalisation, rotary positions, attention, SwiGLU.
module;
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <limits>
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

// [batch, seq, heads dim] to [batch, heads, seq, dim].
Result<Tensor> split_heads(const Result<Tensor>& x, std::int64_t heads) {
  if (!x || x->rank() == 4) return x;
  return ops::transpose(shaped(x, {x->dim(0), x->dim(1), heads, x->dim(2) / heads}), 1, 2);
}

// The mask may be shorter than the keys: what is beyond is not seen.
Result<Tensor> widened(const Result<Tensor>& mask, std::int64_t keys, bool additive) {
  if (!mask || mask->dim(-1) == keys) return mask;
  const auto hidden = -std::numeric_limits<float>::infinity();
  const Result<Tensor> numbers = additive ? mask : ops::cast(mask, qorus::DType::f32);
  const auto wide =
      ops::pad(numbers, {{mask->rank() - 1, 0, keys - mask->dim(-1)}}, ops::PadMode::constant, additive ? hidden : 0);
  return additive ? wide : ops::cast(wide, qorus::DType::u8);
}

// Q, K, V, mask, past key, past value, lengths to Y, present key, present value, and the scores at a stage of the way.
Outputs attention(Call& call) {
  auto q = split_heads(call.in(0), call.c.integer("q_num_heads", 0));
  auto k = split_heads(call.in(1), call.c.integer("kv_num_heads", 0));
  auto v = split_heads(call.in(2), call.c.integer("kv_num_heads", 0));
  std::int64_t past = 0;
  if (call.c.has_input(4)) {
    past = call.dims(4)[2];
    k = ops::concat({call.in(4), k}, 2);
    v = ops::concat({call.in(5), v}, 2);
  }
  if (!q || !k || !v) return {q, k, v};
  ops::AttentionOptions options{.causal = call.c.integer("is_causal", 0) != 0,
                                .scale = static_cast<float>(call.c.number("scale", 0)),
                                .past = past,
                                .softcap = static_cast<float>(call.c.number("softcap", 0))};
  if (call.c.has_input(3)) {
    const bool additive = call.c.inputs[3].dtype != "bool";
    options.mask = widened(additive ? call.in(3) : call.mask(3), k->dim(2), additive);
  }
  if (call.c.has_input(6)) {
    options.lengths = call.index(6);
    options.past = -1;
  }
  auto y = ops::attention(q, k, v, options);
  if (call.rank(0) == 3 && y) y = shaped(ops::transpose(y, 1, 2), {y->dim(0), y->dim(2), y->dim(1) * y->dim(3)});
  Outputs all = {y, k, v};
  if (call.c.outputs.size() < 4) return all;
  if (call.c.has_input(6)) return not_covered("scores of attention over padded keys");
  const std::int64_t mode = call.c.integer("qk_matmul_output_mode", 0), heads = q->dim(1), kv = k->dim(1);
  const float scale = options.scale != 0 ? options.scale : 1 / std::sqrt(static_cast<float>(q->dim(3)));
  auto grouped = shaped(q, {q->dim(0), kv, heads / kv, q->dim(2), q->dim(3)});
  auto scores = ops::mul(ops::matmul(grouped, ops::unsqueeze(ops::transpose(k), 2)), scale);
  scores = shaped(scores, {q->dim(0), heads, q->dim(2), k->dim(2)});
  if (mode >= 1 && options.softcap > 0)
    scores = ops::mul(ops::tanh(ops::div(scores, options.softcap)), options.softcap);
  auto low = call.make({1}, {-std::numeric_limits<double>::infinity()});
  if (mode >= 2 && call.c.has_input(3)) {
    scores = options.mask->dtype() == qorus::DType::f32 ? ops::add(scores, options.mask)
                                                        : ops::where(options.mask, scores, low);
  }
  if (mode >= 2 && options.causal) {
    std::vector<double> seen;
    for (std::int64_t i = 0; i < q->dim(2); ++i) {
      for (std::int64_t j = 0; j < k->dim(2); ++j) seen.push_back(j <= i + past ? 1 : 0);
    }
    scores = ops::where(call.make({q->dim(2), k->dim(2)}, seen, qorus::DType::u8), scores, low);
  }
  if (mode == 3) scores = ops::softmax(scores);
  all.push_back(scores);
  return all;
}

}  // namespace

void add_blocks(OnnxTable& table) {
  table["LayerNormalization"] = layer_normalization;
  table["RMSNormalization"] = rms_normalization;
  table["RotaryEmbedding"] = rotary_embedding;
  table["SwiGLU"] = swiglu;
  table["Attention"] = attention;
}

}  // namespace qorus_test
