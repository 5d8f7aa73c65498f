// The rule of ops::recurrent.
module;
#include "kernels/kernels.h"
module qorus.ops;
import qorus.std;
import :loops;
import :places;
import :product;
import :rules;
import :steps;

namespace qorus {
namespace {

using kernels::Gemm;
using ops::Cell;

// Gradients of all steps of rows [first, last). dz: dL/d(gates) and, of the GRU, ds beside it; dh, dc: [batch, hidden].
struct Slopes {
  const float* dy;
  float *dz, *ds, *dh, *dc;
  const float* packed;
  bool wants_first;  // dL/d(initial state)
};

void apply_slope(const RecurrentSaved& s, const Slopes& d, const RecurrentStep& step, std::size_t row,
                 std::size_t count) noexcept {
  const std::size_t place = step.time * s.n.batch + row;
  float *dz = d.dz + place * s.n.gates, *dh = d.dh + row * s.n.hidden;
  const kernels::Training& table = kernels::training();
  if (s.n.cell == Cell::lstm) {
    table.lstm_cell_bwd(dz, cell_before(s, step, row), s.cells + step.time * s.cell_step + row * s.n.hidden, dh,
                        d.dc + row * s.n.hidden, count, s.n.hidden);
  } else if (s.n.cell == Cell::gru) {
    table.gru_cell_bwd(dz, d.ds + place * s.n.gates, state_before(s, step, row), dh, count, s.n.hidden);
  } else {
    const auto act = s.n.cell == Cell::rnn ? kernels::Unary::tanh : kernels::Unary::relu;
    const float* y = s.states + place * s.n.hidden;
    table.unary_bwd(act, y, y, dh, dz, count * s.n.hidden, 0, false);
  }
}

void start_slopes(const RecurrentSaved& s, const Slopes& d, std::size_t first, std::size_t last) noexcept {
  const std::size_t count = last - first, width = s.n.hidden;
  const float* final_dh = d.dy + (s.n.seq * s.n.batch + first) * width;
  std::memcpy(d.dh + first * width, final_dh, count * width * sizeof(float));
  if (d.dc) std::memcpy(d.dc + first * width, final_dh + s.n.batch * width, count * width * sizeof(float));
}

// Of one step: dz of rows [first, last), from dh.
void slope_step(const RecurrentSaved& s, const Slopes& d, const RecurrentStep& step, std::size_t first,
                std::size_t last) noexcept {
  const std::size_t width = s.n.hidden;
  if (!s.lengths) {
    kernels::active().axpy(1, d.dy + (step.time * s.n.batch + first) * width, d.dh + first * width,
                           (last - first) * width);
    return apply_slope(s, d, step, first, last - first);
  }
  for (std::size_t row = first; row < last; ++row) {
    const std::size_t at = step.time * s.n.batch + row;
    if (!runs(s, row, step.time)) {  // its state went through as it was
      std::memset(d.dz + at * s.n.gates, 0, s.n.gates * sizeof(float));
      if (d.ds) std::memset(d.ds + at * s.n.gates, 0, s.n.gates * sizeof(float));
      continue;
    }
    kernels::active().axpy(1, d.dy + at * width, d.dh + row * width, width);
    apply_slope(s, d, step, row, 1);
    if (s.n.cell != Cell::gru) std::memset(d.dh + row * width, 0, width * sizeof(float));
  }
}

// dh of the step before it, from dz: rows [first, last).
Gemm slope_product(const RecurrentSaved& s, const Slopes& d, const RecurrentStep& step, std::size_t first,
                   std::size_t last) noexcept {
  const float* dz = d.ds ? d.ds : d.dz;
  return {.m = last - first,
          .n = s.n.hidden,
          .k = s.n.gates,
          .a = dz ? dz + (step.time * s.n.batch + first) * s.n.gates : nullptr,
          .a_row = static_cast<std::ptrdiff_t>(s.n.gates),
          .a_col = 1,
          .b = s.w_hidden,
          .b_row = s.state_row,
          .b_col = s.state_col,
          .b_packed = d.packed,
          .c = d.dh ? d.dh + first * s.n.hidden : nullptr,
          .c_row = static_cast<std::ptrdiff_t>(s.n.hidden),
          .accumulate = s.n.cell == Cell::gru || s.lengths};
}

// All steps, backwards. scratch: `own` bytes of each worker's.
void run_slopes(Grads& grads, const RecurrentSaved& s, const Slopes& d, std::byte* scratch, std::size_t own) noexcept {
  const Context& context = grads.context();
  const std::size_t last_product = d.wants_first ? 0 : 1;  // the first step's is of use to the initial state alone
  if (!steps_together(context, s.n)) {
    each_block(context, s.n.batch, scratch, own, [&](std::size_t first, std::size_t last, void* place) {
      start_slopes(s, d, first, last);
      for (std::size_t k = s.n.seq; k-- > 0;) {
        const RecurrentStep step = step_of(s, k);
        slope_step(s, d, step, first, last);
        if (k >= last_product) run_alone(slope_product(s, d, step, first, last), place);
      }
    });
    return;
  }
  if (!context.planning) start_slopes(s, d, 0, s.n.batch);
  for (std::size_t k = s.n.seq; k-- > 0;) {
    const RecurrentStep step = step_of(s, k);
    parallel_chunks(context, s.n.batch, 1,
                    [&](std::size_t first, std::size_t last) { slope_step(s, d, step, first, last); });
    if (k >= last_product) grads.settle(run_product(grads.context(), slope_product(s, d, step, 0, s.n.batch)));
  }
}

// dw (+)= sum over rows of dz^T x, rows dense.
void weight_slope(Grads& grads, const Into& dw, const float* dz, std::size_t out, const float* x, std::size_t in,
                  std::size_t rows, bool more) noexcept {
  if (rows == 0 && (dw.accumulate || more)) return;
  const LinearWeights weights{.in = in, .out = out};
  grads.settle(run_product(grads.context(), weights.weight_gemm(dz, x, rows, {dw.data, dw.accumulate || more})));
}

// What all steps give the rows of the input: their own gradients, or the sums of those that chose a row of the table. Null where there is
// no memory for them.
const float* input_slopes(const RecurrentSaved& s, Grads& grads, const Slopes& d, bool wanted) noexcept {
  if (!s.looked_up || !wanted) return d.dz;
  float* sums = grads.temporary(s.taken.extent * s.n.gates);
  if (sums) add_taken(grads.context(), s.taken, d.dz, {sums, false});
  return sums;
}

// What all steps give together: the weights', biases' and the input's gradients.
void gather_slopes(const RecurrentSaved& s, Grads& grads, const Slopes& d, const Into& dx, const Into& dw,
                   const Into& du) noexcept {
  const std::size_t steps = s.n.seq * s.n.batch, width = s.n.hidden;
  const float* ds = d.ds ? d.ds : d.dz;
  const std::size_t rows = s.looked_up ? s.taken.extent : steps;
  const float* dz = input_slopes(s, grads, d, dw || dx);
  if (!dz) return;
  if (dw) weight_slope(grads, dw, dz, s.n.gates, s.input, s.n.in, rows, false);
  if (du) {  // every step's state before it: the steps but one, and the initial state
    const std::size_t later = s.n.seq > 1 ? steps - s.n.batch : 0;
    weight_slope(grads, du, s.reverse ? ds : ds + s.n.batch * s.n.gates, s.n.gates,
                 s.reverse ? s.states + s.n.batch * width : s.states, width, later, false);
    const float* dz_first = ds + (s.reverse && s.n.seq ? steps - s.n.batch : 0) * s.n.gates;
    if (s.h_first && s.n.seq) weight_slope(grads, du, dz_first, s.n.gates, s.h_first, width, s.n.batch, true);
  }
  const auto sum_bias = [&](const GradRef& bias, const float* dz) {
    const auto gates = static_cast<std::int64_t>(s.n.gates);
    if (const Into db = grads.into(bias))
      sum_to(grads, dz, Shape{static_cast<std::int64_t>(steps), gates}, Shape{gates}, db);
  };
  sum_bias(s.b_in, d.dz);
  sum_bias(s.b_state, ds);
  if (!dx) return;
  grads.settle(run_product(grads.context(), {.m = rows,
                                             .n = s.n.in,
                                             .k = s.n.gates,
                                             .a = dz,
                                             .a_row = static_cast<std::ptrdiff_t>(s.n.gates),
                                             .a_col = 1,
                                             .b = s.w_input,
                                             .b_row = s.input_row,
                                             .b_col = s.input_col,
                                             .c = dx.data,
                                             .c_row = static_cast<std::ptrdiff_t>(s.n.in),
                                             .accumulate = dx.accumulate}));
}

void add_to(const Context& context, const Into& to, const float* from, std::size_t n) noexcept {
  if (!to || context.planning) return;
  if (to.accumulate) {
    kernels::active().axpy(1, from, to.data, n);
  } else {
    std::memcpy(to.data, from, n * sizeof(float));
  }
}

}  // namespace

void rules::recurrent(const void* saved, Grads& grads) noexcept {
  const auto& s = *static_cast<const RecurrentSaved*>(saved);
  Context& context = grads.context();
  const Into dx = grads.into(s.x), dw = grads.into(s.w_in), du = grads.into(s.w_state);
  const Into dh0 = grads.into(s.h0), dc0 = grads.into(s.c0);
  const std::size_t state = s.n.batch * s.n.hidden, floats = align_up(state, 16);
  const bool plain = !s.gates, lstm = s.n.cell == Cell::lstm;
  const kernels::Table& table = kernels::active();
  const Gemm whole{.n = s.n.hidden, .k = s.n.gates, .b = s.w_hidden, .b_row = s.state_row, .b_col = s.state_col};
  const std::size_t packed = s.n.seq >= k_recurrent_pack ? align_up(table.gemm_packed_size(whole.n, whole.k), 16) : 0;
  const std::size_t rows = rows_of(s.n.batch);
  RecurrentStep any{};
  const std::size_t own = align_up(alone_bytes(slope_product(s, {}, any, 0, rows))) / sizeof(float);
  const std::size_t steps = plain ? align_up(s.n.seq * s.n.batch * s.n.gates, 16) : 0;
  float* place = grads.temporary(2 * floats + packed + steps + own * static_cast<std::size_t>(context.executor.width));
  if (!place) return;
  float* laid_out = place + 2 * floats;
  if (packed && !context.planning) table.gemm_pack(whole, laid_out);
  const Slopes d{.dy = grads.out(),
                 .dz = plain ? laid_out + packed : s.gates,
                 .ds = s.side,
                 .dh = place,
                 .dc = lstm ? place + floats : nullptr,
                 .packed = packed ? laid_out : nullptr,
                 .wants_first = bool(dh0)};
  run_slopes(grads, s, d, reinterpret_cast<std::byte*>(laid_out + packed + steps), own * sizeof(float));
  add_to(context, dh0, d.dh, state);
  add_to(context, dc0, d.dc, state);
  gather_slopes(s, grads, d, dx, dw, du);
}

}  // namespace qorus
