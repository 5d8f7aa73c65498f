// The rule of ops::attention.
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

const float* floats_of(const AttentionSaved& s, const HeadsPlace& place, std::size_t kv) noexcept {
  return reinterpret_cast<const float*>(place_of(s, place, kv));
}
// Keys up to which the products of queries [first, first + count) of a head go.
std::size_t reach_of(const AttentionSaved& s, std::size_t first, std::size_t count) noexcept {
  return seen_by_all(s, {first, count}).last;
}

// Scratch of one worker for products of tiles, in bytes: the most that any of them needs.
std::size_t product_scratch(const AttentionSaved& s) noexcept {
  std::size_t most = 0;
  for (std::size_t first = 0; first < s.rows; first += k_tile) {
    const std::size_t count = std::min(k_tile, s.rows - first), last = reach_of(s, first, count);
    most = std::max(most, product_bytes(s, count, last));
    const auto turned = [&](std::size_t width, const Steps& rows) {
      return alone_bytes({.m = last,
                          .n = width,
                          .k = count,
                          .a_row = 1,
                          .a_col = static_cast<std::ptrdiff_t>(s.cols),
                          .b_row = rows.row,
                          .b_col = 1,
                          .c_row = static_cast<std::ptrdiff_t>(width)});
    };
    most = std::max({most, turned(s.value_dim, s.result_steps), turned(s.dim, s.query_steps)});  // p^T dy, ds^T q
  }
  return most;
}

// Gradients of all heads and tiles that share one key head, in order.
void backward_group(const AttentionSaved& s, const float* dy, const Into& dq, const Into& dk, const Into& dv,
                    std::size_t kv, float* p, void* scratch) noexcept {
  const std::size_t group = s.heads / s.kv_heads, tile_floats = std::min(k_tile, s.rows) * s.cols;
  const auto dim = static_cast<std::ptrdiff_t>(s.dim), value_dim = static_cast<std::ptrdiff_t>(s.value_dim),
             cols = static_cast<std::ptrdiff_t>(s.cols), key_step = step_of(s, s.keys, s.dim),
             value_step = step_of(s, s.values, s.value_dim);
  const float *k = floats_of(s, s.keys, kv), *v = floats_of(s, s.values, kv);
  float *ds = p + tile_floats, *bent = s.softcap > 0 ? ds + tile_floats : nullptr;
  if (dk && !dk.accumulate) std::memset(dk.data + kv * s.cols * s.dim, 0, s.cols * s.dim * sizeof(float));
  if (dv && !dv.accumulate) std::memset(dv.data + kv * s.cols * s.value_dim, 0, s.cols * s.value_dim * sizeof(float));
  for (std::size_t index = 0; index < group * tiles_of(s); ++index) {
    const std::size_t head = kv / s.kv_heads * s.heads + kv % s.kv_heads * group + index / tiles_of(s);
    const std::size_t first = index % tiles_of(s) * k_tile, count = std::min(k_tile, s.rows - first);
    const std::size_t last = reach_of(s, first, count), number = head * s.rows + first;
    const float *slopes = dy + offset_of(s, s.result_steps, number),
                *queries = s.queries + offset_of(s, s.query_steps, number);
    probabilities(s, {number, count}, {0, last}, p, bent, nullptr, scratch);
    if (dv) {  // dv += p^T dy
      run_alone({.m = last,
                 .n = s.value_dim,
                 .k = count,
                 .a = p,
                 .a_row = 1,
                 .a_col = cols,
                 .b = slopes,
                 .b_row = s.result_steps.row,
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
               .a_row = s.result_steps.row,
               .a_col = 1,
               .b = v,
               .b_row = 1,
               .b_col = value_step,
               .c = ds,
               .c_row = cols},
              scratch);
    for (std::size_t i = 0; i < count; ++i) {  // ds = p (dp - sum(dp p)) scale
      float* row = ds + i * s.cols;
      kernels::training().softmax_bwd(p + i * s.cols, row, row, 1, last, s.scale, false);
      if (bent) {  // through softcap tanh(scores / softcap); what is not seen has ds = 0
        const Seen seen = seen_by(s, head / s.heads, first + i);
        kernels::training().unary_bwd(kernels::Unary::tanh, nullptr, bent + i * s.cols + seen.first, row + seen.first,
                                      row + seen.first, seen.last - seen.first, 0, false);
      }
    }
    if (dq) {
      run_alone({.m = count,
                 .n = s.dim,
                 .k = last,
                 .a = ds,
                 .a_row = cols,
                 .a_col = 1,
                 .b = k,
                 .b_row = key_step,
                 .b_col = 1,
                 .c = dq.data + number * s.dim,
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
                 .b = queries,
                 .b_row = s.query_steps.row,
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

}  // namespace qorus
