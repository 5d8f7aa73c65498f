// ops::recurrent and its rule.
module;
#include <algorithm>
#include <array>
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

using kernels::Act;
using kernels::Gemm;
using ops::Cell;

constexpr std::size_t k_rows = 14;      // sequences that one worker takes through all steps, about
constexpr std::size_t k_pack_from = 4;  // steps from which laying out the state's weight pays

struct Sizes {
  Cell cell;
  std::size_t seq, batch, in, hidden, gates;  // gates: hidden times the cell's
};

// With y: [seq, batch, hidden] and behind it the final h and c; time-major all. Null: not there.
struct RecurrentSaved {
  Sizes n;
  GradRef x, w_in, w_state, b_in, b_state, h0, c0;
  const float *input, *w_input, *w_hidden, *bias_state, *h_first, *c_first;
  std::ptrdiff_t input_row, input_col, state_row, state_col;  // strides of the weights
  const std::int32_t* lengths;
  bool reverse;
  float* states;  // h of every step as the next one sees it: y, or beside it where lengths make y 0
  float* gates;   // [seq, batch, gates]: of the LSTM and GRU
  float* side;    // [seq (1 untracked), batch, gates]: the state's part, of the GRU
  float* cells;   // [seq (1 untracked), batch, hidden]: of the LSTM
  std::size_t side_step, cell_step;
};

// Rows [first, first + count) of the batch at one step: where they lie.
struct Step {
  std::size_t time, before;  // before: the time of the step that precedes, meaningless at the first
  bool first;
};
Step step_of(const RecurrentSaved& s, std::size_t k) noexcept {
  const std::size_t time = s.reverse ? s.n.seq - 1 - k : k;
  return {time, s.reverse ? time + 1 : time - 1, k == 0};
}
const float* state_before(const RecurrentSaved& s, const Step& step, std::size_t row) noexcept {
  if (step.first) return s.h_first ? s.h_first + row * s.n.hidden : nullptr;
  return s.states + (step.before * s.n.batch + row) * s.n.hidden;
}
const float* cell_before(const RecurrentSaved& s, const Step& step, std::size_t row) noexcept {
  if (step.first) return s.c_first ? s.c_first + row * s.n.hidden : nullptr;
  return s.cells + step.before * s.cell_step + row * s.n.hidden;
}
bool runs(const RecurrentSaved& s, std::size_t row, std::size_t time) noexcept {
  return !s.lengths || time < static_cast<std::size_t>(s.lengths[row]);
}

std::size_t tasks_of(std::size_t batch) noexcept { return std::max<std::size_t>(1, batch / k_rows); }
std::size_t rows_of(std::size_t batch) noexcept { return batch ? (batch + tasks_of(batch) - 1) / tasks_of(batch) : 1; }

void put_or_clear(float* to, const float* from, std::size_t n) noexcept {
  if (from) {
    std::memcpy(to, from, n * sizeof(float));
  } else {
    std::memset(to, 0, n * sizeof(float));
  }
}

// The state's product at one step: rows of c from those of h.
Gemm state_product(const RecurrentSaved& s, std::size_t rows, const float* packed) noexcept {
  const auto gates = static_cast<std::ptrdiff_t>(s.n.gates), hidden = static_cast<std::ptrdiff_t>(s.n.hidden);
  return {.m = rows,
          .n = s.n.gates,
          .k = s.n.hidden,
          .a_row = hidden,
          .a_col = 1,
          .b = s.w_hidden,
          .b_row = s.state_col,
          .b_col = s.state_row,
          .b_packed = packed,
          .c_row = gates,
          .accumulate = s.n.cell != Cell::gru,
          .bias = s.n.cell == Cell::gru ? s.bias_state : nullptr,
          .act = s.n.cell == Cell::rnn        ? Act::tanh
                 : s.n.cell == Cell::rnn_relu ? Act::relu
                                              : Act::none};
}

// One step's cell for `count` rows, after the products.
void apply_cell(const RecurrentSaved& s, const Step& step, std::size_t row, std::size_t count) noexcept {
  const kernels::Table& table = kernels::active();
  const std::size_t place = step.time * s.n.batch + row;
  float* h = s.states + place * s.n.hidden;
  if (s.n.cell == Cell::lstm) {
    table.lstm_cell(s.gates + place * s.n.gates, cell_before(s, step, row),
                    s.cells + step.time * s.cell_step + row * s.n.hidden, h, count, s.n.hidden);
  } else if (s.n.cell == Cell::gru) {
    table.gru_cell(s.gates + place * s.n.gates, s.side + step.time * s.side_step + row * s.n.gates,
                   state_before(s, step, row), h, count, s.n.hidden);
  }
}

// A row whose sequence does not run at this step keeps its state.
void carry(const RecurrentSaved& s, const Step& step, std::size_t row) noexcept {
  const std::size_t place = (step.time * s.n.batch + row) * s.n.hidden;
  put_or_clear(s.states + place, state_before(s, step, row), s.n.hidden);
  if (s.n.cell != Cell::lstm) return;
  float* c = s.cells + step.time * s.cell_step + row * s.n.hidden;
  if (const float* before = cell_before(s, step, row); before != c) put_or_clear(c, before, s.n.hidden);
}

// All steps of rows [first, last). y: the output, behind which the final states go.
void run_rows(const RecurrentSaved& s, float* y, std::size_t first, std::size_t last, const float* packed,
              void* scratch) noexcept {
  const std::size_t count = last - first, width = s.n.hidden;
  Gemm product = state_product(s, count, packed);
  for (std::size_t k = 0; k < s.n.seq; ++k) {
    const Step step = step_of(s, k);
    const std::size_t place = step.time * s.n.batch + first;
    product.a = state_before(s, step, first);
    product.k = product.a ? width : 0;
    product.b_packed = product.a ? packed : nullptr;
    product.c = s.n.cell == Cell::lstm  ? s.gates + place * s.n.gates
                : s.n.cell == Cell::gru ? s.side + step.time * s.side_step + first * s.n.gates
                                        : s.states + place * width;
    if (product.a || s.n.cell != Cell::lstm) run_alone(product, scratch);
    if (!s.lengths) {
      apply_cell(s, step, first, count);
      continue;
    }
    for (std::size_t row = first; row < last; ++row) {
      const std::size_t at = (step.time * s.n.batch + row) * width;
      const bool on = runs(s, row, step.time);
      if (on) apply_cell(s, step, row, 1);
      if (!on) carry(s, step, row);
      put_or_clear(y + at, on ? s.states + at : nullptr, width);
    }
  }
  const Step end{.time = 0, .before = s.reverse ? 0 : s.n.seq - 1, .first = s.n.seq == 0};
  float* final_h = y + (s.n.seq * s.n.batch + first) * width;
  put_or_clear(final_h, state_before(s, end, first), count * width);
  float* final_c = final_h + s.n.batch * width;
  if (const float* c = s.n.cell == Cell::lstm ? cell_before(s, end, first) : final_c; c != final_c)
    put_or_clear(final_c, c, count * width);
}

// Gradients of all steps of rows [first, last). dz: dL/d(gates) and, of the GRU, ds beside it; dh, dc: [batch, hidden].
struct Slopes {
  const float* dy;
  float *dz, *ds, *dh, *dc;
  const float* packed;
  bool wants_first;  // dL/d(initial state)
};

void apply_slope(const RecurrentSaved& s, const Slopes& d, const Step& step, std::size_t row,
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

void slope_rows(const RecurrentSaved& s, const Slopes& d, std::size_t first, std::size_t last, void* scratch) noexcept {
  const std::size_t count = last - first, width = s.n.hidden;
  const auto gates = static_cast<std::ptrdiff_t>(s.n.gates), hidden = static_cast<std::ptrdiff_t>(width);
  const float* final_dh = d.dy + (s.n.seq * s.n.batch + first) * width;
  float* dh = d.dh + first * width;
  std::memcpy(dh, final_dh, count * width * sizeof(float));
  if (d.dc) std::memcpy(d.dc + first * width, final_dh + s.n.batch * width, count * width * sizeof(float));
  Gemm product{.m = count,
               .n = width,
               .k = s.n.gates,
               .a_row = gates,
               .a_col = 1,
               .b = s.w_hidden,
               .b_row = s.state_row,
               .b_col = s.state_col,
               .b_packed = d.packed,
               .c = dh,
               .c_row = hidden,
               .accumulate = s.n.cell == Cell::gru || s.lengths};
  for (std::size_t k = s.n.seq; k-- > 0;) {
    const Step step = step_of(s, k);
    const std::size_t place = step.time * s.n.batch + first;
    if (!s.lengths) {
      kernels::active().axpy(1, d.dy + place * width, dh, count * width);
      apply_slope(s, d, step, first, count);
    }
    for (std::size_t row = first; s.lengths && row < last; ++row) {
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
    if (k == 0 && !d.wants_first) return;
    product.a = (d.ds ? d.ds : d.dz) + place * s.n.gates;
    run_alone(product, scratch);
  }
}

// dw (+)= sum over rows of dz^T x, rows dense.
void weight_slope(Grads& grads, const Into& dw, const float* dz, std::size_t out, const float* x, std::size_t in,
                  std::size_t rows, bool more) noexcept {
  if (rows == 0 && (dw.accumulate || more)) return;
  grads.settle(run_product(grads.context(), {.m = out,
                                             .n = in,
                                             .k = rows,
                                             .a = dz,
                                             .a_row = 1,
                                             .a_col = static_cast<std::ptrdiff_t>(out),
                                             .b = x,
                                             .b_row = static_cast<std::ptrdiff_t>(in),
                                             .b_col = 1,
                                             .c = dw.data,
                                             .c_row = static_cast<std::ptrdiff_t>(in),
                                             .accumulate = dw.accumulate || more}));
}

// What all steps give together: the weights', biases' and the input's gradients.
void gather_slopes(const RecurrentSaved& s, Grads& grads, const Slopes& d, const Into& dx, const Into& dw,
                   const Into& du) noexcept {
  const std::size_t steps = s.n.seq * s.n.batch, width = s.n.hidden;
  const float* ds = d.ds ? d.ds : d.dz;
  if (dw) weight_slope(grads, dw, d.dz, s.n.gates, s.input, s.n.in, steps, false);
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
  grads.settle(run_product(grads.context(), {.m = steps,
                                             .n = s.n.in,
                                             .k = s.n.gates,
                                             .a = d.dz,
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

// Runs f(first, last, worker's scratch) over blocks of the batch.
template <class F>
void each_block(const Context& context, std::size_t batch, std::byte* scratch, std::size_t own, const F& f) noexcept {
  const std::size_t rows = rows_of(batch);
  parallel(context, static_cast<std::uint32_t>((batch + rows - 1) / rows), [&](std::uint32_t task, int worker) {
    f(task * rows, std::min(batch, (task + 1) * rows), scratch + own * static_cast<std::size_t>(worker));
  });
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
  const std::size_t packed = s.n.seq >= k_pack_from ? align_up(table.gemm_packed_size(whole.n, whole.k), 16) : 0;
  const std::size_t rows = rows_of(s.n.batch);
  const std::size_t own = align_up(alone_bytes({.m = rows,
                                                .n = s.n.hidden,
                                                .k = s.n.gates,
                                                .a_row = static_cast<std::ptrdiff_t>(s.n.gates),
                                                .a_col = 1,
                                                .b_row = s.state_row,
                                                .b_col = s.state_col,
                                                .c_row = static_cast<std::ptrdiff_t>(s.n.hidden),
                                                .accumulate = true})) /
                          sizeof(float);
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
  each_block(context, s.n.batch, reinterpret_cast<std::byte*>(laid_out + packed + steps), own * sizeof(float),
             [&](std::size_t first, std::size_t last, void* scratch) { slope_rows(s, d, first, last, scratch); });
  add_to(context, dh0, d.dh, state);
  add_to(context, dc0, d.dc, state);
  gather_slopes(s, grads, d, dx, dw, du);
}

namespace ops {
namespace {

// An optional operand: valid, not there, or an error.
bool given(const Result<Tensor>& t) noexcept { return !t || t->shape().valid(); }

Status check_form(const Sizes& n, const Operand& x, const CellWeights& w, const CellOptions& options) noexcept {
  const char* op = "recurrent";
  const auto gates = static_cast<std::int64_t>(n.gates), hidden = static_cast<std::int64_t>(n.hidden);
  if (w.input->shape() != Shape{gates, x->dim(2)})
    return fail(Errc::invalid_size, op, "x: [seq, batch, in] and the input's weight: [gates hidden, in] must agree",
                x->shape().dims(), w.input->shape().dims());
  for (const auto* bias : {&w.input_bias, &w.state_bias}) {
    if (given(*bias) && (*bias)->shape() != Shape{gates})
      return fail(Errc::invalid_size, op, "biases have as many elements as the weights rows", (*bias)->shape().dims(),
                  w.state->shape().dims());
  }
  for (const auto* state : {&options.h, &options.c}) {
    if (given(*state) && (*state)->shape() != Shape{x->dim(1), hidden})
      return fail(Errc::invalid_size, op, "an initial state is [batch, hidden]", (*state)->shape().dims(),
                  x->shape().dims());
  }
  if (given(options.c) && n.cell != Cell::lstm)
    return fail(Errc::invalid_argument, op, "only an LSTM has a state c", options.c->shape().dims());
  return {};
}

Status check_lengths(const Context& context, const Tensor& lengths, const Tensor& x) noexcept {
  if (auto ok = lengths.check(DType::i32, "recurrent"); !ok) return ok;
  if (lengths.shape() != Shape{x.dim(1)})
    return fail(Errc::invalid_size, "recurrent", "lengths: [batch] of x: [seq, batch, in]", lengths.shape().dims(),
                x.shape().dims());
  for (std::size_t i = 0; i < lengths.numel() && !context.planning; ++i) {
    if (lengths.i32()[i] < 0 || lengths.i32()[i] > x.dim(0))
      return fail(Errc::invalid_argument, "recurrent", "a length is not in [0, seq]", x.shape().dims());
  }
  return {};
}

// Every operand checked and dense, in one context.
struct Prepared {
  Context* context = nullptr;
  Sizes n{};
  Tensor x, input, state, input_bias, state_bias, h, c, lengths;
};

Result<Prepared> prepare(Cell cell, const Operand& x, const CellWeights& w, const CellOptions& options) noexcept {
  const Operand input = w.input, state = w.state;
  auto context = float_context("recurrent", {&x, &input, &state});
  if (!context) return fail(context.error());
  Prepared p{.context = *context};
  struct {
    const Result<Tensor>* from;
    Tensor* to;
  } const optional[] = {
      {&w.input_bias, &p.input_bias}, {&w.state_bias, &p.state_bias}, {&options.h, &p.h}, {&options.c, &p.c}};
  for (const auto& each : optional) {
    if (!given(*each.from)) continue;
    if (!*each.from) return fail(each.from->error());
    if (auto ok = (*each.from)->check(DType::f32, "recurrent"); !ok) return fail(ok.error());
  }
  if (x->rank() != 3 || w.state->rank() != 2 || w.state->dim(0) != gates_of(cell) * w.state->dim(1))
    return fail(Errc::invalid_size, "recurrent", "x: [seq, batch, in] and the state's weight: [gates hidden, hidden]",
                x->shape().dims(), w.state->shape().dims());
  const auto size = [](std::int64_t n) { return static_cast<std::size_t>(n); };
  p.n = {cell, size(x->dim(0)), size(x->dim(1)), size(x->dim(2)), size(w.state->dim(1)), size(w.state->dim(0))};
  if (auto ok = check_form(p.n, x, w, options); !ok) return fail(ok.error());
  if (given(options.lengths)) {
    auto lengths = contiguous(options.lengths.transform([&](const Tensor& t) { return placed(t, **context); }));
    if (!lengths) return fail(lengths.error());
    if (auto ok = check_lengths(**context, *lengths, *x); !ok) return fail(ok.error());
    p.lengths = *lengths;
  }
  auto dense = contiguous(x);
  if (!dense) return fail(dense.error());
  p.x = *dense;
  p.input = placed(input, **context);
  p.state = placed(state, **context);
  for (const auto& each : optional) {
    if (!given(*each.from)) continue;
    auto placed_one = contiguous(placed(*each.from, **context));
    if (!placed_one) return fail(placed_one.error());
    *each.to = *placed_one;
  }
  return p;
}

const float* floats_of(const Tensor& t) noexcept { return t.shape().valid() ? t.f32() : nullptr; }
GradRef ref_of(const Tensor& t) noexcept { return t.shape().valid() ? t.grad_ref() : GradRef{}; }

RecurrentSaved saved_of(const Prepared& p, bool reverse) noexcept {
  return {.n = p.n,
          .x = p.x.grad_ref(),
          .w_in = p.input.grad_ref(),
          .w_state = p.state.grad_ref(),
          .b_in = ref_of(p.input_bias),
          .b_state = ref_of(p.state_bias),
          .h0 = ref_of(p.h),
          .c0 = ref_of(p.c),
          .input = p.x.f32(),
          .w_input = p.input.f32(),
          .w_hidden = p.state.f32(),
          .bias_state = floats_of(p.state_bias),
          .h_first = floats_of(p.h),
          .c_first = floats_of(p.c),
          .input_row = p.input.stride(0),
          .input_col = p.input.stride(1),
          .state_row = p.state.stride(0),
          .state_col = p.state.stride(1),
          .lengths = p.lengths.shape().valid() ? p.lengths.i32() : nullptr,
          .reverse = reverse};
}

// The buffers of the steps; those that only the backward reads have one step when nothing is recorded.
Status take_buffers(RecurrentSaved& s, Context& context, float* y, bool tracked) noexcept {
  const std::size_t rows = s.n.seq * s.n.batch;
  const auto take = [&](float*& to, std::size_t count) -> Status {
    auto slice = context.scratch->take(count * sizeof(float));
    if (!slice) return fail(slice.error());
    to = reinterpret_cast<float*>(slice->data);
    return {};
  };
  s.states = y;
  if (s.lengths) {
    if (auto ok = take(s.states, rows * s.n.hidden); !ok) return ok;
  }
  if (s.n.cell == Cell::lstm || s.n.cell == Cell::gru) {
    if (auto ok = take(s.gates, rows * s.n.gates); !ok) return ok;
  }
  if (s.n.cell == Cell::gru) {
    s.side_step = tracked ? s.n.batch * s.n.gates : 0;
    if (auto ok = take(s.side, (tracked ? s.n.seq : 1) * s.n.batch * s.n.gates); !ok) return ok;
  }
  if (s.n.cell == Cell::lstm) {
    s.cell_step = tracked ? s.n.batch * s.n.hidden : 0;
    s.cells = y + (rows + s.n.batch) * s.n.hidden;  // where the final c goes
    if (tracked) return take(s.cells, rows * s.n.hidden);
  }
  return {};
}

// The input's part of all steps, with the biases that do not wait for the state's part.
Status project(const RecurrentSaved& s, Context& context, const Prepared& p, const float* packed) noexcept {
  const float* bias = floats_of(p.input_bias);
  const std::size_t mark = context.scratch->mark();
  if (s.bias_state && s.n.cell != Cell::gru) {
    auto sum = context.scratch->take(s.n.gates * sizeof(float));
    if (!sum) return fail(sum.error());
    auto* both = reinterpret_cast<float*>(sum->data);
    if (!context.planning) {
      std::memcpy(both, s.bias_state, s.n.gates * sizeof(float));
      if (bias) kernels::active().axpy(1, bias, both, s.n.gates);
    }
    bias = both;
  }
  auto done = run_product(context, {.m = s.n.seq * s.n.batch,
                                    .n = s.n.gates,
                                    .k = s.n.in,
                                    .a = s.input,
                                    .a_row = static_cast<std::ptrdiff_t>(s.n.in),
                                    .a_col = 1,
                                    .b = s.w_input,
                                    .b_row = s.input_col,
                                    .b_col = s.input_row,
                                    .b_packed = packed,
                                    .c = s.gates ? s.gates : s.states,
                                    .c_row = static_cast<std::ptrdiff_t>(s.n.gates),
                                    .bias = bias});
  context.scratch->shrink_to(mark);
  return done;
}

Status run_steps(const RecurrentSaved& s, Context& context, float* y, const float* packed) noexcept {
  const kernels::Table& table = kernels::active();
  const Gemm whole{.n = s.n.gates, .k = s.n.hidden, .b = s.w_hidden, .b_row = s.state_col, .b_col = s.state_row};
  const bool pack = !packed && s.n.seq >= k_pack_from;
  const std::size_t mark = context.scratch->mark();
  const std::size_t own = align_up(alone_bytes(state_product(s, rows_of(s.n.batch), nullptr)));
  const std::size_t room = pack ? align_up(table.gemm_packed_size(whole.n, whole.k) * sizeof(float)) : 0;
  auto scratch = context.scratch->take(room + own * static_cast<std::size_t>(context.executor.width));
  if (!scratch) return fail(scratch.error());
  if (pack) {
    auto* laid_out = reinterpret_cast<float*>(scratch->data);
    if (!context.planning) table.gemm_pack(whole, laid_out);
    packed = laid_out;
  }
  each_block(context, s.n.batch, scratch->data + room, own,
             [&](std::size_t first, std::size_t last, void* place) { run_rows(s, y, first, last, packed, place); });
  context.scratch->shrink_to(mark);
  return {};
}

Result<const float*> packed_of(const Context& context, const Tensor& packed, const Tensor& weight) noexcept {
  if (context.record || !packed.shape().valid()) return nullptr;
  if (auto ok = packed.check(DType::f32, "recurrent"); !ok) return fail(ok.error());
  if (packed.numel() != packed_size(weight.shape()))
    return fail(Errc::invalid_size, "recurrent", "the packed weight is of another size", weight.shape().dims());
  return packed.f32();
}

}  // namespace

Result<CellStates> recurrent(Cell cell, const Operand& x, const CellWeights& weights,
                             const CellOptions& options) noexcept {
  auto p = prepare(cell, x, weights, options);
  if (!p) return fail(p.error());
  Context& context = *p->context;
  const auto packed_input = packed_of(context, weights.packed_input, p->input);
  if (!packed_input) return fail(packed_input.error());
  const auto packed_state = packed_of(context, weights.packed_state, p->state);
  if (!packed_state) return fail(packed_state.error());
  const std::int64_t seq = p->x.dim(0), batch = p->x.dim(1), hidden = p->state.dim(1),
                     more = cell == Cell::lstm ? 2 : 1;
  auto out = Fresh::make(context, Shape{seq + more, batch, hidden});
  if (!out) return fail(out.error());
  RecurrentSaved s = saved_of(*p, options.reverse);
  bool tracked = false;
  for (const GradRef* ref : {&s.x, &s.w_in, &s.w_state, &s.b_in, &s.b_state, &s.h0, &s.c0}) tracked = tracked || *ref;
  tracked = tracked && context.record;
  const std::size_t mark = context.scratch->mark();
  if (auto ok = take_buffers(s, context, out->f32(), tracked); !ok) return fail(ok.error());
  if (auto ok = project(s, context, *p, *packed_input); !ok) return fail(ok.error());
  if (auto ok = run_steps(s, context, out->f32(), *packed_state); !ok) return fail(ok.error());
  if (!tracked) context.scratch->shrink_to(mark);
  auto all = std::move(*out).freeze(
      rule(RuleId::recurrent), {&p->x, &p->input, &p->state, &p->input_bias, &p->state_bias, &p->h, &p->c, &p->lengths},
      s);
  auto y = slice(all, 0, 0, seq), h = select(all, 0, seq), c = more == 2 ? select(all, 0, seq + 1) : y;
  if (!y || !h || !c) return fail(!y ? y.error() : !h ? h.error() : c.error());
  return CellStates{*y, *h, more == 2 ? *c : Tensor()};
}

}  // namespace ops
}  // namespace qorus
