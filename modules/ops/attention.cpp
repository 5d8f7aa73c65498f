// ops::attention; its rule is in attention_slopes.cpp.
module;
#include "kernels/kernels.h"
module qorus.ops;
import qorus.std;
import :attending;
import :loops;
import :product;
import :rules;

namespace qorus {
namespace {

using kernels::Gemm;

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

// Calls use(first, count, floats) for keys [first, first + count) of what key head `kv` has at `place`, rows of `dim` elements, step_of()
// apart, until `keys` is through: all at once where they stand, or, if they are no floats, k_keys at a time, made floats in `room`.
template <class Use>
void each_stretch(const AttentionSaved& s, const HeadsPlace& place, std::size_t kv, std::size_t dim, const Seen& keys,
                  float* room, Use&& use) noexcept {
  const std::byte* const from = place_of(s, place, kv);
  if (s.dtype == DType::f32) {
    return use(keys.first, keys.last - keys.first, reinterpret_cast<const float*>(from + keys.first * place.row));
  }
  for (std::size_t first = keys.first; first < keys.last; first += k_keys) {
    const std::size_t count = std::min(k_keys, keys.last - first);
    load_floats(s.dtype, from + first * place.row, room, count * dim);
    use(first, count, room);
  }
}

}  // namespace

std::size_t product_bytes(const AttentionSaved& s, std::size_t queries, std::size_t keys) noexcept {
  const auto cols = static_cast<std::ptrdiff_t>(s.cols);
  std::size_t most = 0;
  const auto need = [&](std::size_t width, const Steps& rows, const HeadsPlace& place) {
    const std::ptrdiff_t step = step_of(s, place, width);
    const Gemm scores{
        .m = queries, .n = keys, .k = width, .a_row = rows.row, .a_col = 1, .b_row = 1, .b_col = step, .c_row = cols};
    const Gemm sums{
        .m = queries, .n = width, .k = keys, .a_row = cols, .a_col = 1, .b_row = step, .b_col = 1, .c_row = rows.row};
    most = std::max({most, alone_bytes(scores), alone_bytes(sums)});
  };
  need(s.dim, s.query_steps, s.keys);
  need(s.value_dim, s.result_steps, s.values);
  return most;
}

void probabilities(const AttentionSaved& s, const Queries& queries, const Seen& keys, float* p, float* bent,
                   float* room, void* scratch) noexcept {
  const std::size_t kv = queries.first / s.rows / group_of(s);
  each_stretch(s, s.keys, kv, s.dim, keys, room, [&](std::size_t first, std::size_t count, const float* k) {
    run_alone({.m = queries.count,
               .n = count,
               .k = s.dim,
               .a = s.queries + offset_of(s, s.query_steps, queries.first),
               .a_row = s.query_steps.row,
               .a_col = 1,
               .b = k,
               .b_row = 1,
               .b_col = step_of(s, s.keys, s.dim),
               .c = p + first,
               .c_row = static_cast<std::ptrdiff_t>(s.cols)},
              scratch);
  });
  const kernels::Table& table = kernels::active();
  for (std::size_t i = 0; i < queries.count; ++i) {
    float* row = p + i * s.cols;
    const std::size_t head = (queries.first + i) / s.rows, batch = head / s.heads,
                      number = (queries.first + i) % s.rows;
    const Seen seen = seen_by(s, batch, number);
    float* from = row + seen.first;
    const std::size_t width = seen.last - seen.first;
    if (s.softcap > 0) {
      table.unary(kernels::Unary::mul, from, from, width, s.scale / s.softcap);
      table.unary(kernels::Unary::tanh, from, from, width, 0);
      if (bent) std::memcpy(bent + i * s.cols + seen.first, from, width * sizeof(float));
    }
    float scale = s.softcap > 0 ? s.softcap : s.scale;
    if (s.mask || s.slopes) {  // what is added comes after the scale
      table.unary(kernels::Unary::mul, from, from, width, scale);
      scale = 1;
    }
    if (mask_row(s, batch, head % s.heads, number, seen, row)) {
      table.softmax(from, from, 1, width, scale);
    } else {
      std::memset(from, 0, width * sizeof(float));
    }
    std::memset(row + keys.first, 0, (seen.first - keys.first) * sizeof(float));
    std::memset(row + seen.last, 0, (keys.last - seen.last) * sizeof(float));
  }
}

namespace {

// How queries are cut into tasks: tiles of one head, or, where heads have few, those of `heads` heads that share keys, which are then
// read, and made floats, once for all. What a query gets is the same.
struct Tiles {
  std::size_t heads, count;
};
Tiles tiles_for(const AttentionSaved& s, std::size_t workers) noexcept {
  const std::size_t groups = s.batch * s.kv_heads, group = group_of(s);
  std::size_t heads = s.rows == 0 ? 1 : std::min(k_tile / s.rows, group);
  heads = std::max<std::size_t>(1, std::min(heads, group * groups / (2 * workers)));  // for everybody some
  if (heads == 1) return {1, groups * group * tiles_of(s)};
  return {heads, groups * ((group + heads - 1) / heads)};
}
Queries queries_of(const AttentionSaved& s, const Tiles& tiles, std::size_t index) noexcept {
  if (tiles.heads == 1) {
    const std::size_t row = index % tiles_of(s) * k_tile;
    return {index / tiles_of(s) * s.rows + row, std::min(k_tile, s.rows - row)};
  }
  const std::size_t group = group_of(s), parts = (group + tiles.heads - 1) / tiles.heads,
                    first = index % parts * tiles.heads;
  return {(index / parts * group + first) * s.rows, std::min(tiles.heads, group - first) * s.rows};
}

// Scratch of one worker for products of tiles, in bytes: the most that any of them needs.
std::size_t product_scratch(const AttentionSaved& s, const Tiles& tiles) noexcept {
  const std::size_t repeat = tiles.heads == 1 ? tiles_of(s) : (group_of(s) + tiles.heads - 1) / tiles.heads;
  std::size_t most = 0;
  for (std::size_t i = 0; i < std::min(repeat, tiles.count); ++i) {  // of one head, or group: the others are like it
    const Queries queries = queries_of(s, tiles, i);
    const Seen keys = seen_by_all(s, queries);
    const std::size_t count = keys.last - keys.first, once = s.dtype == DType::f32 ? count : std::min(count, k_keys);
    most = std::max(most, product_bytes(s, queries.count, once));
    if (once < count) most = std::max(most, product_bytes(s, queries.count, count % k_keys));
  }
  return most;
}

// Asks for the keys and values of a tile, so that they are in the cache when one query comes to them: short stretches, far apart, which take
// longer to find than to read.
void fetch(const AttentionSaved& s, const Tiles& tiles, std::size_t index) noexcept {
  constexpr std::size_t k_line = 64, k_most = 65536;
  const auto kv_of = [&](std::size_t i) { return queries_of(s, tiles, i).first / s.rows / group_of(s); };
  if (index >= tiles.count || (index > 0 && kv_of(index) == kv_of(index - 1))) return;
  for (const HeadsPlace* place : {&s.keys, &s.values}) {
    const std::byte* from = place_of(s, *place, kv_of(index));
    for (std::size_t i = 0; i < std::min(s.cols * place->row, k_most); i += k_line) __builtin_prefetch(from + i, 0, 2);
  }
}

// One tile: y = p v. p, room: of one worker.
void forward_tile(const AttentionSaved& s, const Queries& queries, float* y, float* p, float* room,
                  void* scratch) noexcept {
  const Seen keys = seen_by_all(s, queries);
  probabilities(s, queries, keys, p, nullptr, room, scratch);
  const std::ptrdiff_t step = s.result_steps.row;
  float* const to = y + offset_of(s, s.result_steps, queries.first);
  if (keys.first == keys.last) {
    for (std::size_t i = 0; i < queries.count; ++i)
      std::fill_n(to + static_cast<std::ptrdiff_t>(i) * step, s.value_dim, 0.0f);
  }
  const std::size_t kv = queries.first / s.rows / group_of(s);
  each_stretch(s, s.values, kv, s.value_dim, keys, room, [&](std::size_t first, std::size_t count, const float* v) {
    run_alone({.m = queries.count,
               .n = s.value_dim,
               .k = count,
               .a = p + first,
               .a_row = static_cast<std::ptrdiff_t>(s.cols),
               .a_col = 1,
               .b = v,
               .b_row = step_of(s, s.values, s.value_dim),
               .b_col = 1,
               .c = to,
               .c_row = step,
               .accumulate = first > keys.first},
              scratch);
  });
}

// y of all queries. Errors: out_of_memory (scratch).
Status run_attention(const Context& context, const AttentionSaved& s, float* y) noexcept {
  const auto width = static_cast<std::size_t>(context.executor.width);
  const Tiles tiles = tiles_for(s, width);
  const std::size_t mark = context.scratch->mark(),
                    p_bytes = align_up(std::min(k_tile, s.rows * tiles.heads) * s.cols * sizeof(float)),
                    room_bytes =
                        s.dtype == DType::f32
                            ? 0
                            : align_up(std::min(k_keys, s.cols) * std::max(s.dim, s.value_dim) * sizeof(float)),
                    own = p_bytes + room_bytes + align_up(product_scratch(s, tiles));
  auto scratch = context.scratch->take(own * width);
  if (!scratch) return fail(scratch.error());
  parallel(context, static_cast<std::uint32_t>(tiles.count), [&](std::uint32_t tile, int worker) {
    std::byte* place = scratch->data + own * static_cast<std::size_t>(worker);
    if (s.rows == 1) {  // a token
      if (tile < width) fetch(s, tiles, tile);
      fetch(s, tiles, tile + width);
    }
    forward_tile(s, queries_of(s, tiles, tile), y, reinterpret_cast<float*>(place),
                 reinterpret_cast<float*>(place + p_bytes), place + p_bytes + room_bytes);
  });
  context.scratch->shrink_to(mark);
  return {};
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
                   .dtype = k.dtype(),
                   .causal = options.causal,
                   .scale = options.scale,
                   .softcap = options.softcap,
                   .window = options.window,
                   .past = options.past,
                   .padded = given(options.lengths)};
  if (s.scale == 0) s.scale = 1 / std::sqrt(static_cast<float>(s.dim));
  return s;
}

}  // namespace

Status rules::remake_attention(const void* saved, const Context& context, float* result) noexcept {
  return run_attention(context, *static_cast<const AttentionSaved*>(saved), result);
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

// Keys and values are floats, or, where nothing is recorded, both of one narrower type.
Status check_types(const Operand& query, const Operand& key, const Operand& value, const Context& context) noexcept {
  const char* op = "attention";
  const DType dtype = key->dtype();
  const bool narrow = dtype == DType::f16 || dtype == DType::bf16 || is_block(dtype);
  if (auto ok = query->check(DType::f32, op); !ok) return ok;
  if (auto ok = key->check(narrow && !context.record ? dtype : DType::f32, op); !ok) return ok;
  return value->check(dtype, op);
}

}  // namespace

Result<Tensor> attention(const Operand& query, const Operand& key, const Operand& value,
                         const AttentionOptions& options) noexcept {
  auto context = common_context("attention", {&query, &key, &value});
  if (!context) return fail(context.error());
  if (auto ok = check_types(query, key, value, **context); !ok) return fail(ok.error());
  auto sizes = sizes_of(*query, *key, *value, options);
  if (!sizes) return fail(sizes.error());
  AttentionSaved& s = *sizes;
  // Heads of whole tiles are read, and written, where they stand.
  const bool apart = s.rows >= k_tile, joined = options.joined && apart;
  const auto rows_follow = [&](const Operand& t, bool gaps) {
    const bool follow = t->stride(3) == 1 && (t->stride(2) == t->dim(3) || (gaps && t->stride(2) > t->dim(3)));
    return follow ? Result<Tensor>(*t) : contiguous(t);
  };
  auto q = apart ? rows_follow(query, true) : contiguous(query);
  if (!q) return q;
  auto k = rows_follow(key, apart && s.dtype == DType::f32);
  if (!k) return k;
  auto v = rows_follow(value, apart && s.dtype == DType::f32);
  if (!v) return v;
  auto extras = extras_of(s, options, **context);
  if (!extras) return fail(extras.error());
  const Shape result = q->shape().with(-1, v->dim(3));
  const Shape shape = joined ? Shape{result[0], result[2], result[1] * result[3]} : result;
  const bool again = joined && shape.valid() && shape.numel() >= k_again_from;
  auto y = Fresh::make_remade(**context, shape, again && (q->tracked() || k->tracked() || v->tracked()));
  if (!y) return fail(y.error());
  const auto place = [&](const Tensor& t) {
    return HeadsPlace{t.data(), element_offset(s.dtype, t.stride(0)), element_offset(s.dtype, t.stride(1)),
                      row_bytes(s.dtype, static_cast<std::size_t>(apart && s.cols > 1 ? t.stride(2) : t.dim(3)))};
  };
  s.q = q->grad_ref();
  s.k = k->grad_ref();
  s.v = v->grad_ref();
  s.queries = q->f32();
  const auto steps_of = [](const Layout& layout) {
    return Steps{layout.stride[0], layout.stride[1], layout.stride[2]};
  };
  s.query_steps = steps_of(apart ? q->layout() : Layout::dense(q->shape()));
  s.result_steps = steps_of(Layout::dense(result));
  if (joined) s.result_steps = {s.result_steps.batch, result[3], result[1] * result[3]};
  s.keys = place(*k);
  s.values = place(*v);
  if (auto ran = run_attention(**context, s, y->f32()); !ran) return fail(ran.error());
  auto done = std::move(*y).freeze(rule(RuleId::attention),
                                   {&*q, &*k, &*v, &extras->mask, &extras->slopes, &extras->lengths}, s);
  if (joined || !options.joined) return done;
  return reshape(transpose(done, 1, 2), {result[0], result[2], result[1] * result[3]});
}

}  // namespace ops
}  // namespace qorus
