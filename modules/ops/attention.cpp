// ops::attention and its rule.
module;
#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <utility>

#include "kernels/kernels.h"
module qorus.ops;
import :loops;
import :product;
import :rules;

namespace qorus {
namespace {

using kernels::Gemm;

constexpr std::size_t k_tile = 64;  // queries whose scores exist at once

// The sizes and places of one attention. q, y: [batch, heads, queries, dim] with strides; rows of dim are contiguous.
struct AttentionSaved {
  GradRef q, k, v;
  const float *queries, *keys, *values, *output;  // queries and output dense
  std::size_t batch, heads, kv_heads, rows, cols, dim;
  ops::AttentionOptions options;
  std::ptrdiff_t kv_batch,
      kv_head;  // strides of keys and values, whose rows follow each other without gaps: a cache has room between heads
};

// Where the keys (and values) of key head `kv`, counted over the batch, begin.
std::ptrdiff_t place_of(const AttentionSaved& s, std::size_t kv) noexcept {
  return static_cast<std::ptrdiff_t>(kv / s.kv_heads) * s.kv_batch +
         static_cast<std::ptrdiff_t>(kv % s.kv_heads) * s.kv_head;
}

// Keys [first, last) that query `row` sees.
struct Seen {
  std::size_t first, last;
};
Seen seen_by(const AttentionSaved& s, std::size_t row) noexcept {
  const std::size_t past = s.cols >= s.rows ? s.cols - s.rows : 0;
  const std::size_t last = s.options.causal ? std::min(row + past + 1, s.cols) : s.cols;
  const auto window = static_cast<std::size_t>(s.options.window);
  return {window && last > window ? last - window : 0, last};
}

// softmax(q k^T scale) of `count` queries from `first`, into p: [count, cols]; what a query does not see is 0. Columns from the first
// that any sees to the last are computed.
void probabilities(const AttentionSaved& s, const float* q, const float* k, std::size_t first, std::size_t count,
                   float* p, void* scratch) noexcept {
  const Seen end = seen_by(s, first + count - 1);
  const auto dim = static_cast<std::ptrdiff_t>(s.dim);
  const Gemm scores{.m = count,
                    .n = end.last,
                    .k = s.dim,
                    .a = q + first * s.dim,
                    .a_row = dim,
                    .a_col = 1,
                    .b = k,
                    .b_row = 1,
                    .b_col = dim,
                    .c = p,
                    .c_row = static_cast<std::ptrdiff_t>(s.cols)};
  run_alone(scores, scratch);
  const kernels::Table& table = kernels::active();
  for (std::size_t i = 0; i < count; ++i) {
    float* row = p + i * s.cols;
    const Seen seen = seen_by(s, first + i);
    table.unary(kernels::Unary::mul, row + seen.first, row + seen.first, seen.last - seen.first, s.options.scale);
    table.softmax(row + seen.first, row + seen.first, 1, seen.last - seen.first);
    std::memset(row, 0, seen.first * sizeof(float));
    std::memset(row + seen.last, 0, (end.last - seen.last) * sizeof(float));
  }
}

std::size_t tiles_of(const AttentionSaved& s) noexcept { return (s.rows + k_tile - 1) / k_tile; }

// Scratch of one worker for products of tiles, in bytes: the most that any of them needs.
std::size_t product_scratch(const AttentionSaved& s) noexcept {
  const auto dim = static_cast<std::ptrdiff_t>(s.dim), cols = static_cast<std::ptrdiff_t>(s.cols);
  std::size_t most = 0;
  for (std::size_t first = 0; first < s.rows; first += k_tile) {
    const std::size_t count = std::min(k_tile, s.rows - first), last = seen_by(s, first + count - 1).last;
    const Gemm forms[] = {
        {.m = count,
         .n = last,
         .k = s.dim,
         .a_row = dim,
         .a_col = 1,
         .b_row = 1,
         .b_col = dim,
         .c_row = cols},  // q k^T, dy v^T
        {.m = count,
         .n = s.dim,
         .k = last,
         .a_row = cols,
         .a_col = 1,
         .b_row = dim,
         .b_col = 1,
         .c_row = dim},  // p v, ds k
        {.m = last,
         .n = s.dim,
         .k = count,
         .a_row = 1,
         .a_col = cols,
         .b_row = dim,
         .b_col = 1,
         .c_row = dim},  // p^T dy, ds^T q
    };
    for (const Gemm& form : forms) most = std::max(most, alone_bytes(form));
  }
  return most;
}

// One tile of queries of one head: y = p v.
void forward_tile(const AttentionSaved& s, float* y, std::size_t index, float* p, void* scratch) noexcept {
  const std::size_t tile = index % tiles_of(s), head = index / tiles_of(s);  // head: of batch x heads
  const std::size_t group = s.heads / s.kv_heads, kv = head / s.heads * s.kv_heads + head % s.heads / group;
  const std::size_t first = tile * k_tile, count = std::min(k_tile, s.rows - first);
  const float* k = s.keys + place_of(s, kv);
  const float* v = s.values + place_of(s, kv);
  probabilities(s, s.queries + head * s.rows * s.dim, k, first, count, p, scratch);
  const auto dim = static_cast<std::ptrdiff_t>(s.dim);
  run_alone({.m = count,
             .n = s.dim,
             .k = seen_by(s, first + count - 1).last,
             .a = p,
             .a_row = static_cast<std::ptrdiff_t>(s.cols),
             .a_col = 1,
             .b = v,
             .b_row = dim,
             .b_col = 1,
             .c = y + (head * s.rows + first) * s.dim,
             .c_row = dim},
            scratch);
}

Result<AttentionSaved> sizes_of(const Tensor& q, const Tensor& k, const Tensor& v,
                                const ops::AttentionOptions& options) noexcept {
  const char* op = "attention";
  if (q.rank() != 4 || k.rank() != 4 || q.dim(0) != k.dim(0) || q.dim(3) != k.dim(3) || q.dim(3) == 0) {
    return fail(Errc::invalid_size, op, "q and k: [batch, heads, seq, head_dim] must agree on batch and head_dim",
                q.shape().dims(), k.shape().dims());
  }
  if (k.shape() != v.shape())
    return fail(Errc::invalid_size, op, "k and v must have one shape", k.shape().dims(), v.shape().dims());
  if (k.dim(1) == 0 || q.dim(1) % k.dim(1) != 0)
    return fail(Errc::invalid_size, op, "heads must be a multiple of kv_heads", q.shape().dims(), k.shape().dims());
  if (k.dim(2) == 0 || (options.causal && q.dim(2) > k.dim(2))) {
    return fail(Errc::invalid_size, op, "needs keys, and (causal) at least as many as queries", q.shape().dims(),
                k.shape().dims());
  }
  if (options.window < 0 || (options.window > 0 && !options.causal))
    return fail(Errc::invalid_argument, op, "a window is for causal attention");
  const auto size = [](std::int64_t n) { return static_cast<std::size_t>(n); };
  AttentionSaved s{.batch = size(q.dim(0)),
                   .heads = size(q.dim(1)),
                   .kv_heads = size(k.dim(1)),
                   .rows = size(q.dim(2)),
                   .cols = size(k.dim(2)),
                   .dim = size(q.dim(3)),
                   .options = options};
  if (s.options.scale == 0) s.options.scale = 1 / std::sqrt(static_cast<float>(s.dim));
  return s;
}

// Gradients of all heads and tiles that share one key head, in order.
void backward_group(const AttentionSaved& s, const float* dy, const Into& dq, const Into& dk, const Into& dv,
                    std::size_t kv, float* p, void* scratch) noexcept {
  const kernels::Table& table = kernels::active();
  const std::size_t group = s.heads / s.kv_heads, tile_floats = std::min(k_tile, s.rows) * s.cols;
  const auto dim = static_cast<std::ptrdiff_t>(s.dim), cols = static_cast<std::ptrdiff_t>(s.cols);
  const float* k = s.keys + place_of(s, kv);
  const float* v = s.values + place_of(s, kv);
  float* ds = p + tile_floats;
  for (const auto& to : {dk, dv}) {
    if (to && !to.accumulate) std::memset(to.data + kv * s.cols * s.dim, 0, s.cols * s.dim * sizeof(float));
  }
  for (std::size_t index = 0; index < group * tiles_of(s); ++index) {
    const std::size_t head = kv / s.kv_heads * s.heads + kv % s.kv_heads * group + index / tiles_of(s);
    const std::size_t first = index % tiles_of(s) * k_tile, count = std::min(k_tile, s.rows - first);
    const std::size_t last = seen_by(s, first + count - 1).last, place = (head * s.rows + first) * s.dim;
    probabilities(s, s.queries + head * s.rows * s.dim, k, first, count, p, scratch);
    if (dv) {  // dv += p^T dy
      run_alone({.m = last,
                 .n = s.dim,
                 .k = count,
                 .a = p,
                 .a_row = 1,
                 .a_col = cols,
                 .b = dy + place,
                 .b_row = dim,
                 .b_col = 1,
                 .c = dv.data + kv * s.cols * s.dim,
                 .c_row = dim,
                 .accumulate = true},
                scratch);
    }
    if (!dq && !dk) continue;
    run_alone({.m = count,
               .n = last,
               .k = s.dim,
               .a = dy + place,
               .a_row = dim,
               .a_col = 1,
               .b = v,
               .b_row = 1,
               .b_col = dim,
               .c = ds,
               .c_row = cols},
              scratch);
    for (std::size_t i = 0; i < count; ++i) {  // ds = p (dp - sum(dp p)) scale
      float* row = ds + i * s.cols;
      kernels::training().softmax_bwd(p + i * s.cols, row, row, 1, last, false);
      table.unary(kernels::Unary::mul, row, row, last, s.options.scale);
    }
    if (dq) {
      run_alone({.m = count,
                 .n = s.dim,
                 .k = last,
                 .a = ds,
                 .a_row = cols,
                 .a_col = 1,
                 .b = k,
                 .b_row = dim,
                 .b_col = 1,
                 .c = dq.data + place,
                 .c_row = dim,
                 .accumulate = dq.accumulate},
                scratch);
    }
    if (dk) {  // dk += ds^T q
      run_alone({.m = last,
                 .n = s.dim,
                 .k = count,
                 .a = ds,
                 .a_row = 1,
                 .a_col = cols,
                 .b = s.queries + place,
                 .b_row = dim,
                 .b_col = 1,
                 .c = dk.data + kv * s.cols * s.dim,
                 .c_row = dim,
                 .accumulate = true},
                scratch);
    }
  }
}

}  // namespace

void rules::attention(const void* saved, Grads& grads) noexcept {
  const auto& s = *static_cast<const AttentionSaved*>(saved);
  Context& context = grads.context();
  const Into dq = grads.into(s.q), dk = grads.into(s.k), dv = grads.into(s.v);
  const std::size_t tile_floats = align_up(2 * std::min(k_tile, s.rows) * s.cols, 16),
                    own = tile_floats + align_up(product_scratch(s)) / sizeof(float);
  float* scratch = grads.temporary(own * static_cast<std::size_t>(context.executor.width));
  if (!scratch) return;
  parallel(context, static_cast<std::uint32_t>(s.batch * s.kv_heads), [&](std::uint32_t kv, int worker) {
    float* place = scratch + own * static_cast<std::size_t>(worker);
    backward_group(s, grads.out(), dq, dk, dv, kv, place, place + tile_floats);
  });
}

namespace ops {

Result<Tensor> attention(const Operand& query, const Operand& key, const Operand& value,
                         const AttentionOptions& options) noexcept {
  auto context = float_context("attention", {&query, &key, &value});
  if (!context) return fail(context.error());
  auto sizes = sizes_of(*query, *key, *value, options);
  if (!sizes) return fail(sizes.error());
  auto q = contiguous(query);
  if (!q) return q;
  const bool rows_follow = key->stride(3) == 1 && key->stride(2) == key->dim(3) && value->stride(3) == 1 &&
                           value->stride(2) == key->dim(3) && key->stride(0) == value->stride(0) &&
                           key->stride(1) == value->stride(1);
  auto k = rows_follow ? Result<Tensor>(*key) : contiguous(key);
  if (!k) return k;
  auto v = rows_follow ? Result<Tensor>(*value) : contiguous(value);
  if (!v) return v;
  auto y = Fresh::make(**context, q->shape());
  if (!y) return fail(y.error());
  AttentionSaved& s = *sizes;
  s.q = q->grad_ref();
  s.k = k->grad_ref();
  s.v = v->grad_ref();
  s.queries = q->f32();
  s.keys = k->f32();
  s.values = v->f32();
  s.output = y->f32();
  s.kv_batch = k->stride(0);
  s.kv_head = k->stride(1);
  const std::size_t mark = (*context)->scratch->mark(),
                    tile_bytes = align_up(std::min(k_tile, s.rows) * s.cols * sizeof(float));
  const std::size_t own = tile_bytes + align_up(product_scratch(s));
  auto scratch = (*context)->scratch->take(own * static_cast<std::size_t>((*context)->executor.width));
  if (!scratch) return fail(scratch.error());
  parallel(**context, static_cast<std::uint32_t>(s.batch * s.heads * tiles_of(s)), [&](std::uint32_t tile, int worker) {
    std::byte* place = scratch->data + own * static_cast<std::size_t>(worker);
    forward_tile(s, y->f32(), tile, reinterpret_cast<float*>(place), place + tile_bytes);
  });
  (*context)->scratch->shrink_to(mark);
  return std::move(*y).freeze(rule(RuleId::attention), {&*q, &*k, &*v}, s);
}

}  // namespace ops
}  // namespace qorus
