// ops::recurrent: the forward.
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

using kernels::Act;
using kernels::Gemm;
using ops::Cell;

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
void apply_cell(const RecurrentSaved& s, const RecurrentStep& step, std::size_t row, std::size_t count) noexcept {
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
void carry(const RecurrentSaved& s, const RecurrentStep& step, std::size_t row) noexcept {
  const std::size_t place = (step.time * s.n.batch + row) * s.n.hidden;
  put_or_clear(s.states + place, state_before(s, step, row), s.n.hidden);
  if (s.n.cell != Cell::lstm) return;
  float* c = s.cells + step.time * s.cell_step + row * s.n.hidden;
  if (const float* before = cell_before(s, step, row); before != c) put_or_clear(c, before, s.n.hidden);
}

// What the state gives rows [first, last) at one step; k is 0 where there is no state yet, and m where nothing is to be done.
Gemm product_at(const RecurrentSaved& s, const RecurrentStep& step, std::size_t first, std::size_t last,
                const float* packed) noexcept {
  const std::size_t place = step.time * s.n.batch + first;
  const float* before = state_before(s, step, first);
  Gemm product = state_product(s, before || s.n.cell != Cell::lstm ? last - first : 0, before ? packed : nullptr);
  if (!before) product.k = 0;
  product.c = s.n.cell == Cell::lstm  ? s.gates + place * s.n.gates
              : s.n.cell == Cell::gru ? s.side + step.time * s.side_step + first * s.n.gates
                                      : s.states + place * s.n.hidden;
  product.a = before ? before : product.c;  // an address whose rows exist, of which nothing is read
  return product;
}

// The rest of a step for rows [first, last), after its product. y: the output.
void finish_step(const RecurrentSaved& s, const RecurrentStep& step, float* y, std::size_t first,
                 std::size_t last) noexcept {
  if (!s.lengths) return apply_cell(s, step, first, last - first);
  for (std::size_t row = first; row < last; ++row) {
    const std::size_t at = (step.time * s.n.batch + row) * s.n.hidden;
    const bool on = runs(s, row, step.time);
    if (on) apply_cell(s, step, row, 1);
    if (!on) carry(s, step, row);
    put_or_clear(y + at, on ? s.states + at : nullptr, s.n.hidden);
  }
}

// The final states of rows [first, last), behind the output.
void put_final(const RecurrentSaved& s, float* y, std::size_t first, std::size_t last) noexcept {
  const std::size_t count = last - first, width = s.n.hidden;
  const RecurrentStep end{.time = 0, .before = s.reverse ? 0 : s.n.seq - 1, .first = s.n.seq == 0};
  float* final_h = y + (s.n.seq * s.n.batch + first) * width;
  put_or_clear(final_h, state_before(s, end, first), count * width);
  float* final_c = final_h + s.n.batch * width;
  if (const float* c = s.n.cell == Cell::lstm ? cell_before(s, end, first) : final_c; c != final_c)
    put_or_clear(final_c, c, count * width);
}

}  // namespace

namespace ops {
namespace {

// An optional operand: valid, not there, or an error.
bool given(const Result<Tensor>& t) noexcept { return !t || t->shape().valid(); }

Status check_form(const RecurrentSizes& n, const Operand& x, const CellWeights& w,
                  const CellOptions& options) noexcept {
  const char* op = "recurrent";
  const auto gates = static_cast<std::int64_t>(n.gates), hidden = static_cast<std::int64_t>(n.hidden);
  if (w.input->shape() != Shape{gates, x->dim(-1)})
    return fail(Errc::invalid_size, op, "x: [seq, batch, in] and the input's weight: [gates hidden, in] must agree",
                x->shape().dims(), w.input->shape().dims());
  for (const auto* bias : {&w.input_bias, &w.state_bias}) {
    if (given(*bias) && (*bias)->shape() != Shape{gates})
      return fail(Errc::invalid_size, op, "biases have as many elements as the weights rows", (*bias)->shape().dims(),
                  w.state->shape().dims());
  }
  for (const auto* state : {&options.h, &options.c}) {
    if (given(*state) && (*state)->shape() != Shape{static_cast<std::int64_t>(n.batch), hidden})
      return fail(Errc::invalid_size, op, "an initial state is [batch, hidden]", (*state)->shape().dims(),
                  x->shape().dims());
  }
  if (given(options.c) && n.cell != Cell::lstm)
    return fail(Errc::invalid_argument, op, "only an LSTM has a state c", options.c->shape().dims());
  return {};
}

// steps: [seq, batch, …].
Status check_lengths(const Context& context, const Tensor& lengths, const Tensor& steps) noexcept {
  if (auto ok = lengths.check(DType::i32, "recurrent"); !ok) return ok;
  if (lengths.shape() != Shape{steps.dim(1)})
    return fail(Errc::invalid_size, "recurrent", "lengths: [batch] of x: [seq, batch, in]", lengths.shape().dims(),
                steps.shape().dims());
  for (std::size_t i = 0; i < lengths.numel() && !context.planning; ++i) {
    if (lengths.i32()[i] < 0 || lengths.i32()[i] > steps.dim(0))
      return fail(Errc::invalid_argument, "recurrent", "a length is not in [0, seq]", steps.shape().dims());
  }
  return {};
}

// Every operand checked and dense, in one context.
struct Prepared {
  Context* context = nullptr;
  RecurrentSizes n{};
  Tensor x, ids, input, state, input_bias, state_bias, h, c, lengths;
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
  Context* shared = *context;
  for (const auto& each : optional) {
    if (!given(*each.from)) continue;
    if (auto ok = join_context("recurrent", *each.from, shared); !ok) return fail(ok.error());
    if (auto ok = (*each.from)->check(DType::f32, "recurrent"); !ok) return fail(ok.error());
  }
  const bool looked_up = given(options.ids);
  if (looked_up) {
    if (auto ok = join_context("recurrent", options.ids, shared); !ok) return fail(ok.error());
  }
  const Tensor& steps = looked_up ? *options.ids : *x;
  if (x->rank() != (looked_up ? 2 : 3) || steps.rank() != (looked_up ? 2 : 3) || w.state->rank() != 2 ||
      w.state->dim(0) != gates_of(cell) * w.state->dim(1))
    return fail(Errc::invalid_size, "recurrent",
                "x: [seq, batch, in], or [n, in] and ids: [seq, batch], and the state's weight: [gates hidden, hidden]",
                x->shape().dims(), w.state->shape().dims());
  const auto size = [](std::int64_t n) { return static_cast<std::size_t>(n); };
  p.n = {cell, size(steps.dim(0)), size(steps.dim(1)), size(x->dim(-1)), size(w.state->dim(1)), size(w.state->dim(0))};
  if (auto ok = check_form(p.n, x, w, options); !ok) return fail(ok.error());
  if (given(options.lengths)) {
    if (auto ok = join_context("recurrent", options.lengths, shared); !ok) return fail(ok.error());
    auto lengths = contiguous(placed(options.lengths, **context));
    if (!lengths) return fail(lengths.error());
    if (auto ok = check_lengths(**context, *lengths, steps); !ok) return fail(ok.error());
    p.lengths = *lengths;
  }
  if (looked_up) {
    auto ids = checked_index("recurrent", options.ids, x->dim(0), **context);
    if (!ids) return fail(ids.error());
    p.ids = *ids;
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
  const bool looked_up = p.ids.shape().valid();
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
          .looked_up = looked_up,
          .taken = {looked_up ? p.ids.i32() : nullptr, 1, static_cast<std::size_t>(p.x.dim(0)), p.n.seq * p.n.batch,
                    p.n.gates},
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
  const std::size_t rows = s.looked_up ? s.taken.extent : s.n.seq * s.n.batch;
  float* const all = s.gates ? s.gates : s.states;
  float* gates = all;
  if (s.looked_up) {
    auto room = context.scratch->take(rows * s.n.gates * sizeof(float));
    if (!room) return fail(room.error());
    gates = reinterpret_cast<float*>(room->data);
  }
  auto done = run_product(context, {.m = rows,
                                    .n = s.n.gates,
                                    .k = s.n.in,
                                    .a = s.input,
                                    .a_row = static_cast<std::ptrdiff_t>(s.n.in),
                                    .a_col = 1,
                                    .b = s.w_input,
                                    .b_row = s.input_col,
                                    .b_col = s.input_row,
                                    .b_packed = packed,
                                    .c = gates,
                                    .c_row = static_cast<std::ptrdiff_t>(s.n.gates),
                                    .bias = bias});
  if (s.looked_up && done)
    take_rows(context, s.taken, s.n.gates * sizeof(float), reinterpret_cast<const std::byte*>(gates),
              reinterpret_cast<std::byte*>(all));
  context.scratch->shrink_to(mark);
  return done;
}

Status run_steps(const RecurrentSaved& s, Context& context, float* y, const float* packed) noexcept {
  const kernels::Table& table = kernels::active();
  const Gemm whole{.n = s.n.gates, .k = s.n.hidden, .b = s.w_hidden, .b_row = s.state_col, .b_col = s.state_row};
  const bool pack = !packed && s.n.seq >= k_recurrent_pack;
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
  Status done;
  if (steps_together(context, s.n)) {
    for (std::size_t k = 0; k < s.n.seq && done; ++k) {
      const RecurrentStep step = step_of(s, k);
      done = run_product(context, product_at(s, step, 0, s.n.batch, packed));
      parallel_chunks(context, s.n.batch, 1,
                      [&](std::size_t first, std::size_t last) { finish_step(s, step, y, first, last); });
    }
    if (!context.planning) put_final(s, y, 0, s.n.batch);
  } else {
    each_block(context, s.n.batch, scratch->data + room, own, [&](std::size_t first, std::size_t last, void* place) {
      for (std::size_t k = 0; k < s.n.seq; ++k) {
        const RecurrentStep step = step_of(s, k);
        run_alone(product_at(s, step, first, last, packed), place);
        finish_step(s, step, y, first, last);
      }
      put_final(s, y, first, last);
    });
  }
  context.scratch->shrink_to(mark);
  return done;
}

}  // namespace

Result<CellStates> recurrent(Cell cell, const Operand& x, const CellWeights& weights,
                             const CellOptions& options) noexcept {
  auto p = prepare(cell, x, weights, options);
  if (!p) return fail(p.error());
  Context& context = *p->context;
  const auto packed_input = packed_of("recurrent", context, weights.packed_input, p->input);
  if (!packed_input) return fail(packed_input.error());
  const auto packed_state = packed_of("recurrent", context, weights.packed_state, p->state);
  if (!packed_state) return fail(packed_state.error());
  const auto seq = static_cast<std::int64_t>(p->n.seq), batch = static_cast<std::int64_t>(p->n.batch);
  const std::int64_t hidden = p->state.dim(1), more = cell == Cell::lstm ? 2 : 1;
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
      rule(RuleId::recurrent),
      {&p->x, &p->ids, &p->input, &p->state, &p->input_bias, &p->state_bias, &p->h, &p->c, &p->lengths}, s);
  auto y = slice(all, 0, 0, seq), h = select(all, 0, seq), c = more == 2 ? select(all, 0, seq + 1) : y;
  if (!y || !h || !c) return fail(!y ? y.error() : !h ? h.error() : c.error());
  return CellStates{*y, *h, more == 2 ? *c : Tensor()};
}

}  // namespace ops
}  // namespace qorus
