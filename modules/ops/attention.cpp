// ops::attention and its rule.
module;
#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <limits>
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

// Keys or values: rows without gaps, strides between heads and sequences, for a cache has room there.
struct HeadsPlace {
  const float* data;
  std::ptrdiff_t batch, head;
};

// The sizes and places of one attention. Queries and output are dense.
struct AttentionSaved {
  GradRef q, k, v;
  const float* queries;
  HeadsPlace keys, values;
  std::size_t batch, heads, kv_heads, rows, cols, dim, value_dim;
  bool causal;
  float scale, softcap;
  std::int64_t window, past;
  const void* mask;  // u8 or f32, by strides of [batch, heads, queries, keys]
  bool additive;
  std::int64_t mask_stride[4];
  const float* slopes;
  const std::int32_t* lengths;
  bool padded;  // there are lengths, though planning does not see them
};

// Where the keys (or values) of key head `kv`, counted over the batch, begin.
const float* place_of(const AttentionSaved& s, const HeadsPlace& place, std::size_t kv) noexcept {
  return place.data + static_cast<std::ptrdiff_t>(kv / s.kv_heads) * place.batch +
         static_cast<std::ptrdiff_t>(kv % s.kv_heads) * place.head;
}

std::int64_t keys_of(const AttentionSaved& s, std::size_t batch) noexcept {
  return s.lengths ? s.lengths[batch] : static_cast<std::int64_t>(s.cols);
}
std::int64_t position_of(const AttentionSaved& s, std::size_t batch, std::size_t row) noexcept {
  const std::int64_t past = s.past >= 0 ? s.past : keys_of(s, batch) - static_cast<std::int64_t>(s.rows);
  return past + static_cast<std::int64_t>(row);
}

// Keys [first, last) that query `row` sees.
struct Seen {
  std::size_t first, last;
};
Seen seen_by(const AttentionSaved& s, std::size_t batch, std::size_t row) noexcept {
  const std::int64_t keys = keys_of(s, batch), end = position_of(s, batch, row) + 1;
  const std::int64_t last = s.causal ? std::clamp<std::int64_t>(end, 0, keys) : keys;
  const std::int64_t first = s.window > 0 ? std::clamp<std::int64_t>(end - s.window, 0, last) : 0;
  return {static_cast<std::size_t>(first), static_cast<std::size_t>(last)};
}
// Keys up to which the products of queries below `row_end` go: known from the sizes alone.
std::size_t reach_of(const AttentionSaved& s, std::size_t row_end) noexcept {
  if (!s.causal || s.padded) return s.cols;
  return seen_by(s, 0, row_end - 1).last;
}

// One row of scores as mask and slopes have it. Gives false if nothing is seen.
bool mask_row(const AttentionSaved& s, std::size_t batch, std::size_t head, std::size_t row, const Seen& seen,
              float* scores) noexcept {
  constexpr float k_hidden = -std::numeric_limits<float>::infinity();
  const std::int64_t indices[] = {static_cast<std::int64_t>(batch), static_cast<std::int64_t>(head),
                                  static_cast<std::int64_t>(row)};
  if (s.slopes) {
    const float slope = s.slopes[head], position = static_cast<float>(position_of(s, batch, row));
    for (std::size_t j = seen.first; j < seen.last; ++j) scores[j] += slope * (static_cast<float>(j) - position);
  }
  if (!s.mask) return seen.first < seen.last;
  std::int64_t at = 0;
  for (int d = 0; d < 3; ++d) at += indices[d] * s.mask_stride[d];
  bool any = false;
  for (std::size_t j = seen.first; j < seen.last; ++j) {
    const std::int64_t place = at + static_cast<std::int64_t>(j) * s.mask_stride[3];
    if (s.additive) {
      scores[j] += static_cast<const float*>(s.mask)[place];
    } else if (!static_cast<const std::uint8_t*>(s.mask)[place]) {
      scores[j] = k_hidden;
    }
    any = any || scores[j] != k_hidden;
  }
  return any;
}

// softmax(q k^T scale) of `count` queries from `first`, into p: [count, cols]; what a query does not see is 0. Columns up to the last
// that any sees are computed. bent, if not null: tanh(scores / softcap), for the backward.
void probabilities(const AttentionSaved& s, std::size_t head, const float* k, std::size_t first, std::size_t count,
                   float* p, float* bent, void* scratch) noexcept {
  const std::size_t reach = reach_of(s, first + count), batch = head / s.heads;
  const float* q = s.queries + head * s.rows * s.dim;
  const auto dim = static_cast<std::ptrdiff_t>(s.dim);
  const Gemm scores{.m = count,
                    .n = reach,
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
    const Seen seen = seen_by(s, batch, first + i);
    float* from = row + seen.first;
    const std::size_t width = seen.last - seen.first;
    if (s.softcap > 0) {
      table.unary(kernels::Unary::mul, from, from, width, s.scale / s.softcap);
      table.unary(kernels::Unary::tanh, from, from, width, 0);
      if (bent) std::memcpy(bent + i * s.cols + seen.first, from, width * sizeof(float));
      table.unary(kernels::Unary::mul, from, from, width, s.softcap);
    } else {
      table.unary(kernels::Unary::mul, from, from, width, s.scale);
    }
    if (mask_row(s, batch, head % s.heads, first + i, seen, row)) {
      table.softmax(from, from, 1, width);
    } else {
      std::memset(from, 0, width * sizeof(float));
    }
    std::memset(row, 0, seen.first * sizeof(float));
    std::memset(row + seen.last, 0, (reach - seen.last) * sizeof(float));
  }
}

std::size_t tiles_of(const AttentionSaved& s) noexcept { return (s.rows + k_tile - 1) / k_tile; }

// Scratch of one worker for products of tiles, in bytes: the most that any of them needs.
std::size_t product_scratch(const AttentionSaved& s) noexcept {
  const auto cols = static_cast<std::ptrdiff_t>(s.cols);
  std::size_t most = 0;
  for (std::size_t first = 0; first < s.rows; first += k_tile) {
    const std::size_t count = std::min(k_tile, s.rows - first), last = reach_of(s, first + count);
    for (const std::size_t width : {s.dim, s.value_dim}) {
      const auto dim = static_cast<std::ptrdiff_t>(width);
      const Gemm forms[] = {
          {.m = count,
           .n = last,
           .k = width,
           .a_row = dim,
           .a_col = 1,
           .b_row = 1,
           .b_col = dim,
           .c_row = cols},  // q k^T, dy v^T
          {.m = count,
           .n = width,
           .k = last,
           .a_row = cols,
           .a_col = 1,
           .b_row = dim,
           .b_col = 1,
           .c_row = dim},  // p v, ds k
          {.m = last,
           .n = width,
           .k = count,
           .a_row = 1,
           .a_col = cols,
           .b_row = dim,
           .b_col = 1,
           .c_row = dim},  // p^T dy, ds^T q
      };
      for (const Gemm& form : forms) most = std::max(most, alone_bytes(form));
    }
  }
  return most;
}

// The key head of a head, both counted over the batch.
std::size_t key_head_of(const AttentionSaved& s, std::size_t head) noexcept {
  return head / s.heads * s.kv_heads + head % s.heads / (s.heads / s.kv_heads);
}

// Asks for the keys and values of a head, so that they are in the cache when one query comes to them: short stretches, far apart, which take
// longer to find than to read.
void fetch(const AttentionSaved& s, std::size_t head) noexcept {
  constexpr std::size_t k_line = 16, k_most = 16384;  // floats
  if (head >= s.batch * s.heads || (head > 0 && key_head_of(s, head) == key_head_of(s, head - 1))) return;
  const std::size_t kv = key_head_of(s, head);
  const auto ask = [&](const float* from, std::size_t count) {
    for (std::size_t i = 0; i < std::min(count, k_most); i += k_line) __builtin_prefetch(from + i, 0, 2);
  };
  ask(place_of(s, s.keys, kv), s.cols * s.dim);
  ask(place_of(s, s.values, kv), s.cols * s.value_dim);
}

// One tile of queries of one head: y = p v.
void forward_tile(const AttentionSaved& s, float* y, std::size_t index, float* p, void* scratch) noexcept {
  const std::size_t tile = index % tiles_of(s), head = index / tiles_of(s);  // head: of batch x heads
  const std::size_t kv = key_head_of(s, head), first = tile * k_tile, count = std::min(k_tile, s.rows - first);
  probabilities(s, head, place_of(s, s.keys, kv), first, count, p, nullptr, scratch);
  const auto dim = static_cast<std::ptrdiff_t>(s.value_dim);
  run_alone({.m = count,
             .n = s.value_dim,
             .k = reach_of(s, first + count),
             .a = p,
             .a_row = static_cast<std::ptrdiff_t>(s.cols),
             .a_col = 1,
             .b = place_of(s, s.values, kv),
             .b_row = dim,
             .b_col = 1,
             .c = y + (head * s.rows + first) * s.value_dim,
             .c_row = dim},
            scratch);
}

bool given(const Result<Tensor>& t) noexcept { return !t || t->shape().valid(); }

Result<AttentionSaved> sizes_of(const Tensor& q, const Tensor& k, const Tensor& v,
                                const ops::AttentionOptions& options) noexcept {
  const char* op = "attention";
  if (q.rank() != 4 || k.rank() != 4 || q.dim(0) != k.dim(0) || q.dim(3) != k.dim(3) || q.dim(3) == 0) {
    return fail(Errc::invalid_size, op, "q and k: [batch, heads, seq, head_dim] must agree on batch and head_dim",
                q.shape().dims(), k.shape().dims());
  }
  if (v.rank() != 4 || v.dim(0) != k.dim(0) || v.dim(1) != k.dim(1) || v.dim(2) != k.dim(2))
    return fail(Errc::invalid_size, op, "k and v must agree on batch, heads and keys", k.shape().dims(),
                v.shape().dims());
  if (k.dim(1) == 0 || q.dim(1) % k.dim(1) != 0)
    return fail(Errc::invalid_size, op, "heads must be a multiple of kv_heads", q.shape().dims(), k.shape().dims());
  const bool counted_back = options.causal && options.past < 0 && !given(options.lengths);
  if (k.dim(2) == 0 || (counted_back && q.dim(2) > k.dim(2))) {
    return fail(Errc::invalid_size, op, "needs keys, and (causal) at least as many as queries", q.shape().dims(),
                k.shape().dims());
  }
  if (options.window < 0 || (options.window > 0 && !options.causal))
    return fail(Errc::invalid_argument, op, "a window is for causal attention");
  if (!(options.softcap >= 0)) return fail(Errc::invalid_argument, op, "softcap must not be negative");
  const auto size = [](std::int64_t n) { return static_cast<std::size_t>(n); };
  AttentionSaved s{.batch = size(q.dim(0)),
                   .heads = size(q.dim(1)),
                   .kv_heads = size(k.dim(1)),
                   .rows = size(q.dim(2)),
                   .cols = size(k.dim(2)),
                   .dim = size(q.dim(3)),
                   .value_dim = size(v.dim(3)),
                   .causal = options.causal,
                   .scale = options.scale,
                   .softcap = options.softcap,
                   .window = options.window,
                   .past = options.past,
                   .padded = given(options.lengths)};
  if (s.scale == 0) s.scale = 1 / std::sqrt(static_cast<float>(s.dim));
  return s;
}

// Gradients of all heads and tiles that share one key head, in order.
void backward_group(const AttentionSaved& s, const float* dy, const Into& dq, const Into& dk, const Into& dv,
                    std::size_t kv, float* p, void* scratch) noexcept {
  const kernels::Table& table = kernels::active();
  const std::size_t group = s.heads / s.kv_heads, tile_floats = std::min(k_tile, s.rows) * s.cols;
  const auto dim = static_cast<std::ptrdiff_t>(s.dim), value_dim = static_cast<std::ptrdiff_t>(s.value_dim),
             cols = static_cast<std::ptrdiff_t>(s.cols);
  const float *k = place_of(s, s.keys, kv), *v = place_of(s, s.values, kv);
  float *ds = p + tile_floats, *bent = s.softcap > 0 ? ds + tile_floats : nullptr;
  if (dk && !dk.accumulate) std::memset(dk.data + kv * s.cols * s.dim, 0, s.cols * s.dim * sizeof(float));
  if (dv && !dv.accumulate) std::memset(dv.data + kv * s.cols * s.value_dim, 0, s.cols * s.value_dim * sizeof(float));
  for (std::size_t index = 0; index < group * tiles_of(s); ++index) {
    const std::size_t head = kv / s.kv_heads * s.heads + kv % s.kv_heads * group + index / tiles_of(s);
    const std::size_t first = index % tiles_of(s) * k_tile, count = std::min(k_tile, s.rows - first);
    const std::size_t last = reach_of(s, first + count), place = (head * s.rows + first) * s.dim;
    const float* slopes = dy + (head * s.rows + first) * s.value_dim;
    probabilities(s, head, k, first, count, p, bent, scratch);
    if (dv) {  // dv += p^T dy
      run_alone({.m = last,
                 .n = s.value_dim,
                 .k = count,
                 .a = p,
                 .a_row = 1,
                 .a_col = cols,
                 .b = slopes,
                 .b_row = value_dim,
                 .b_col = 1,
                 .c = dv.data + kv * s.cols * s.value_dim,
                 .c_row = value_dim,
                 .accumulate = true},
                scratch);
    }
    if (!dq && !dk) continue;
    run_alone({.m = count,
               .n = last,
               .k = s.value_dim,
               .a = slopes,
               .a_row = value_dim,
               .a_col = 1,
               .b = v,
               .b_row = 1,
               .b_col = value_dim,
               .c = ds,
               .c_row = cols},
              scratch);
    for (std::size_t i = 0; i < count; ++i) {  // ds = p (dp - sum(dp p)) scale
      float* row = ds + i * s.cols;
      kernels::training().softmax_bwd(p + i * s.cols, row, row, 1, last, false);
      if (bent) {  // through softcap tanh(scores / softcap); what is not seen has ds = 0
        const Seen seen = seen_by(s, head / s.heads, first + i);
        kernels::training().unary_bwd(kernels::Unary::tanh, nullptr, bent + i * s.cols + seen.first, row + seen.first,
                                      row + seen.first, seen.last - seen.first, 0, false);
      }
      table.unary(kernels::Unary::mul, row, row, last, s.scale);
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
  const std::size_t tile_floats = align_up((s.softcap > 0 ? 3 : 2) * std::min(k_tile, s.rows) * s.cols, 16),
                    own = tile_floats + align_up(product_scratch(s)) / sizeof(float);
  float* scratch = grads.temporary(own * static_cast<std::size_t>(context.executor.width));
  if (!scratch) return;
  parallel(context, static_cast<std::uint32_t>(s.batch * s.kv_heads), [&](std::uint32_t kv, int worker) {
    float* place = scratch + own * static_cast<std::size_t>(worker);
    backward_group(s, grads.out(), dq, dk, dv, kv, place, place + tile_floats);
  });
}

namespace ops {
namespace {

// What goes beside the products, checked, placed and dense where it must be.
struct Extras {
  Tensor mask, slopes, lengths;
};

Result<Extras> extras_of(AttentionSaved& s, const AttentionOptions& options, Context& context) noexcept {
  const char* op = "attention";
  Extras extras;
  Context* shared = &context;
  const auto number = [](std::size_t n) { return static_cast<std::int64_t>(n); };
  if (given(options.mask)) {
    if (auto ok = join_context(op, options.mask, shared); !ok) return fail(ok.error());
    s.additive = options.mask->dtype() == DType::f32;
    if (auto ok = options.mask->check(s.additive ? DType::f32 : DType::u8, op); !ok) return fail(ok.error());
    auto wide = broadcast_to(placed(*options.mask, context),
                             Shape{number(s.batch), number(s.heads), number(s.rows), number(s.cols)});
    if (!wide) return fail(wide.error());
    extras.mask = *wide;
    s.mask = wide->data();
    for (int d = 0; d < 4; ++d) s.mask_stride[d] = wide->stride(d);
  }
  const auto vector = [&](const Result<Tensor>& from, DType dtype, std::size_t count, Tensor& to) -> Status {
    if (!given(from)) return {};
    if (auto ok = join_context(op, from, shared); !ok) return ok;
    if (auto ok = from->check(dtype, op); !ok) return ok;
    if (from->shape() != Shape{number(count)})
      return fail(Errc::invalid_size, op, "slopes: [heads]; lengths: [batch]", from->shape().dims());
    auto dense = contiguous(placed(*from, context));
    if (!dense) return fail(dense.error());
    to = *dense;
    return {};
  };
  if (auto ok = vector(options.slopes, DType::f32, s.heads, extras.slopes); !ok) return fail(ok.error());
  if (auto ok = vector(options.lengths, DType::i32, s.batch, extras.lengths); !ok) return fail(ok.error());
  if (given(options.slopes)) s.slopes = extras.slopes.f32();
  if (given(options.lengths)) s.lengths = extras.lengths.i32();
  for (std::size_t i = 0; s.lengths && i < s.batch && !context.planning; ++i) {
    if (s.lengths[i] < 0 || s.lengths[i] > number(s.cols))
      return fail(Errc::invalid_argument, op, "a length is not in [0, keys]", extras.lengths.shape().dims());
  }
  return extras;
}

}  // namespace

Result<Tensor> attention(const Operand& query, const Operand& key, const Operand& value,
                         const AttentionOptions& options) noexcept {
  auto context = float_context("attention", {&query, &key, &value});
  if (!context) return fail(context.error());
  auto sizes = sizes_of(*query, *key, *value, options);
  if (!sizes) return fail(sizes.error());
  auto q = contiguous(query);
  if (!q) return q;
  const auto rows_follow = [](const Operand& t) {
    return t->stride(3) == 1 && t->stride(2) == t->dim(3) ? Result<Tensor>(*t) : contiguous(t);
  };
  auto k = rows_follow(key);
  if (!k) return k;
  auto v = rows_follow(value);
  if (!v) return v;
  AttentionSaved& s = *sizes;
  auto extras = extras_of(s, options, **context);
  if (!extras) return fail(extras.error());
  auto y = Fresh::make(**context, q->shape().with(-1, v->dim(3)));
  if (!y) return fail(y.error());
  s.q = q->grad_ref();
  s.k = k->grad_ref();
  s.v = v->grad_ref();
  s.queries = q->f32();
  s.keys = {k->f32(), k->stride(0), k->stride(1)};
  s.values = {v->f32(), v->stride(0), v->stride(1)};
  const std::size_t mark = (*context)->scratch->mark(),
                    tile_bytes = align_up(std::min(k_tile, s.rows) * s.cols * sizeof(float));
  const std::size_t own = tile_bytes + align_up(product_scratch(s));
  auto scratch = (*context)->scratch->take(own * static_cast<std::size_t>((*context)->executor.width));
  if (!scratch) return fail(scratch.error());
  parallel(**context, static_cast<std::uint32_t>(s.batch * s.heads * tiles_of(s)), [&](std::uint32_t tile, int worker) {
    std::byte* place = scratch->data + own * static_cast<std::size_t>(worker);
    if (s.rows == 1) {  // a token: the tiles are heads
      const auto width = static_cast<std::uint32_t>((*context)->executor.width);
      if (tile < width) fetch(s, tile);
      fetch(s, tile + width);
    }
    forward_tile(s, y->f32(), tile, reinterpret_cast<float*>(place), place + tile_bytes);
  });
  (*context)->scratch->shrink_to(mark);
  return std::move(*y).freeze(rule(RuleId::attention),
                              {&*q, &*k, &*v, &extras->mask, &extras->slopes, &extras->lengths}, s);
}

}  // namespace ops
}  // namespace qorus
