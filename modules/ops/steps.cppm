// What the forward and the backward of recurrent layers share: the sizes and places of one, and where its steps lie.
module qorus.ops:steps;
import qorus.std;
import qorus.tensor;
import :places;
import :recurrent;

namespace qorus {

inline constexpr std::size_t k_recurrent_rows = 14;  // sequences that one worker takes through all steps, about
inline constexpr std::size_t k_recurrent_pack = 4;   // steps from which laying out the state's weight pays

struct RecurrentSizes {
  ops::Cell cell;
  std::size_t seq, batch, in, hidden, gates;  // gates: hidden times the cell's
};

// With y: [seq, batch, hidden] and behind it the final h and c; time-major all. Null: not there.
struct RecurrentSaved {
  RecurrentSizes n;
  GradRef x, w_in, w_state, b_in, b_state, h0, c0;
  const float *input, *w_input, *w_hidden, *bias_state, *h_first, *c_first;
  std::ptrdiff_t input_row, input_col, state_row, state_col;  // strides of the weights
  const std::int32_t* lengths;
  bool looked_up;   // the input is a table
  TakenRows taken;  // the gates of every step, of those of the table's rows
  bool reverse;
  float* states;  // h of every step as the next one sees it: y, or beside it where lengths make y 0
  float* gates;   // [seq, batch, gates]: of the LSTM and GRU
  float* side;    // [seq (1 untracked), batch, gates]: the state's part, of the GRU
  float* cells;   // [seq (1 untracked), batch, hidden]: of the LSTM
  std::size_t side_step, cell_step;
};

// Rows [first, first + count) of the batch at one step: where they lie.
struct RecurrentStep {
  std::size_t time, before;  // before: the time of the step that precedes, meaningless at the first
  bool first;
};
inline RecurrentStep step_of(const RecurrentSaved& s, std::size_t k) noexcept {
  const std::size_t time = s.reverse ? s.n.seq - 1 - k : k;
  return {time, s.reverse ? time + 1 : time - 1, k == 0};
}
inline const float* state_before(const RecurrentSaved& s, const RecurrentStep& step, std::size_t row) noexcept {
  if (step.first) return s.h_first ? s.h_first + row * s.n.hidden : nullptr;
  return s.states + (step.before * s.n.batch + row) * s.n.hidden;
}
inline const float* cell_before(const RecurrentSaved& s, const RecurrentStep& step, std::size_t row) noexcept {
  if (step.first) return s.c_first ? s.c_first + row * s.n.hidden : nullptr;
  return s.cells + step.before * s.cell_step + row * s.n.hidden;
}
inline bool runs(const RecurrentSaved& s, std::size_t row, std::size_t time) noexcept {
  return !s.lengths || time < static_cast<std::size_t>(s.lengths[row]);
}

inline std::size_t tasks_of(std::size_t batch) noexcept { return std::max<std::size_t>(1, batch / k_recurrent_rows); }
inline std::size_t rows_of(std::size_t batch) noexcept {
  return batch ? (batch + tasks_of(batch) - 1) / tasks_of(batch) : 1;
}

// Whether all workers take every step together, each a part of the product's columns, as there are fewer blocks of the batch
// than workers. Products and cells have the same bits either way.
inline bool steps_together(const Context& context, const RecurrentSizes& n) noexcept {
  constexpr std::size_t k_worth = std::size_t{1} << 16;  // multiply-adds of a step's product that repay handing them on
  const std::size_t blocks = (n.batch + rows_of(n.batch) - 1) / rows_of(n.batch);
  return blocks < static_cast<std::size_t>(context.executor.width) && n.batch * n.gates * n.hidden >= k_worth;
}

// Runs f(first, last, worker's scratch) over blocks of the batch.
template <class F>
void each_block(const Context& context, std::size_t batch, std::byte* scratch, std::size_t own, const F& f) noexcept {
  const std::size_t rows = rows_of(batch);
  parallel(context, static_cast<std::uint32_t>((batch + rows - 1) / rows), [&](std::uint32_t task, int worker) {
    f(task * rows, std::min(batch, (task + 1) * rows), scratch + own * static_cast<std::size_t>(worker));
  });
}

}  // namespace qorus
