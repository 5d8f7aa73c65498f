// Bodies of qorus.nn:recurrent.
module qorus.nn;
import qorus.std;

namespace qorus::nn {
namespace {

// Result i of the layers' final states on top of those before it.
Result<Tensor> joined(const Result<Tensor>& so_far, const Result<Tensor>& next) noexcept {
  auto one = ops::unsqueeze(next, 0);
  return so_far && !so_far->shape().valid() ? one : ops::concat({so_far, one}, 0);
}

Result<Tensor> part_of(const Result<Tensor>& states, std::size_t part) noexcept {
  if (!states || !states->shape().valid()) return states;
  return ops::select(states, 0, static_cast<std::int64_t>(part));
}

}  // namespace

Text Recurrent::name_of(std::string_view parameter, std::size_t part) const noexcept {
  const auto place = static_cast<std::int64_t>(part);
  Text name;
  ((name += parameter) += "_l") += place / directions();
  if (place % directions()) name += "_reverse";
  return name;
}

Status Recurrent::expand_parts() noexcept {
  if (options_.layers < 1) return fail(Errc::invalid_argument, "recurrent", "needs at least one layer");
  return parts_.resize(static_cast<std::size_t>(options_.layers * directions()));
}

Result<ops::CellStates> Recurrent::run_part(std::size_t part, const Tensor& x, const RecurrentStart& start,
                                            const Tensor& ids) const noexcept {
  const RecurrentPart& p = parts_[part];
  const std::int64_t rows = ops::gates_of(cell_) * hidden_;
  ops::CellWeights weights{.input = use(p.weight_ih, Shape{rows, x.dim(-1)}, x, "recurrent"),
                           .state = use(p.weight_hh, Shape{rows, hidden_}, x, "recurrent")};
  if (options_.bias) {
    weights.input_bias = use(p.bias_ih, Shape{rows}, x, "recurrent");
    weights.state_bias = use(p.bias_hh, Shape{rows}, x, "recurrent");
  }
  weights.packed_input = p.weight_ih.good_packed();
  weights.packed_state = p.weight_hh.good_packed();
  return ops::recurrent(cell(), x, weights,
                        {.h = part_of(start.h, part),
                         .c = part_of(start.c, part),
                         .lengths = start.lengths,
                         .reverse = options_.bidirectional && part % 2 == 1,
                         .ids = ids});
}

Result<RecurrentResult> Recurrent::run(const Tensor& x, const RecurrentStart& start) const noexcept {
  if (x.rank() != 3) return fail(Errc::invalid_size, "recurrent", "needs x: [batch, seq, in]", x.shape().dims());
  return run_all(x, x, start);
}

Result<RecurrentResult> Recurrent::run_all(const Tensor& x, const Tensor& steps,
                                           const RecurrentStart& start) const noexcept {
  if (parts_.empty()) return fail(Errc::not_built, "recurrent", "nn::build the model first", x.shape().dims());
  const bool looked_up = &steps != &x;
  const std::int64_t states = options_.layers * directions();
  for (const auto* state : {&start.h, &start.c}) {
    if (!*state) return fail(state->error());
    if ((*state)->shape().valid() && (*state)->shape() != Shape{states, steps.dim(0), hidden_})
      return fail(Errc::invalid_size, "recurrent", "states are [layers directions, batch, hidden]",
                  (*state)->shape().dims(), Shape{states, steps.dim(0), hidden_}.dims());
  }
  Result<Tensor> y = ops::transpose(steps, 0, 1), h = Tensor(), c = Tensor();
  const auto way = static_cast<std::size_t>(directions());
  for (std::size_t part = 0; part < parts_.size(); part += way) {
    if (part && options_.dropout > 0) y = ops::dropout(y, options_.dropout);
    if (!y) return fail(y.error());
    std::array<Tensor, 2> sides;
    for (std::size_t d = 0; d < way; ++d) {
      auto one = part == 0 && looked_up ? run_part(d, x, start, *y) : run_part(part + d, *y, start);
      if (!one) return fail(one.error());
      sides[d] = one->y;
      h = joined(h, one->h);
      if (cell_ == ops::Cell::lstm) c = joined(c, one->c);
    }
    y = way == 2 ? ops::concat(std::span<const Tensor>(sides), 2) : Result<Tensor>(sides[0]);
  }
  y = ops::transpose(y, 0, 1);
  if (!y || !h || !c) return fail(!y ? y.error() : !h ? h.error() : c.error());
  return RecurrentResult{*y, *h, *c};
}

Result<Tensor> Recurrent::operator()(const Tensor& x) const noexcept {
  auto all = run(x);
  if (!all) return fail(all.error());
  return all->y;
}

Result<Tensor> Recurrent::looked_up(const Tensor& table, const Tensor& ids) const noexcept {
  if (ids.rank() != 2) return fail(Errc::invalid_size, "recurrent", "needs ids: [batch, seq]", ids.shape().dims());
  auto all = run_all(table, ids, {});
  if (!all) return fail(all.error());
  return all->y;
}

Result<RecurrentState> Recurrent::state(std::int64_t batch) const noexcept {
  const Shape shape{options_.layers, batch, hidden_};
  auto h = Owned::zeros(shape);
  if (!h) return fail(h.error());
  RecurrentState state{.h = std::move(*h), .c = {}};
  if (cell_ == ops::Cell::lstm) {
    auto c = Owned::zeros(shape);
    if (!c) return fail(c.error());
    state.c = std::move(*c);
  }
  return state;
}

Result<Tensor> Recurrent::step(const Tensor& x, RecurrentState& state) const noexcept {
  if (parts_.empty()) return fail(Errc::not_built, "recurrent", "nn::build the model first", x.shape().dims());
  const Operand in = x;
  auto context = common_context("recurrent", {&in});
  if (!context) return fail(context.error());
  if (options_.bidirectional || (*context)->record)
    return fail(Errc::invalid_argument, "recurrent", "steps go forwards, and while no tape records");
  if (x.rank() != 2 || state.h.tensor().shape() != Shape{options_.layers, x.dim(0), hidden_})
    return fail(Errc::invalid_size, "recurrent", "x: [batch, in] and a state made for this batch", x.shape().dims(),
                state.h.tensor().shape().dims());
  Result<Tensor> y = ops::unsqueeze(x, 0);
  const std::size_t floats = static_cast<std::size_t>(x.dim(0) * hidden_);
  const auto take_over = [&](Owned& owner, const Tensor& from, std::size_t part) {
    if (!(*context)->planning)
      std::memcpy(owner.fill<float>().data() + part * floats, from.f32(), floats * sizeof(float));
  };
  const Tensor h = state.h.tensor(), c = state.c.tensor();
  const auto placed_in = [&](const Tensor& t) { return t.shape().valid() ? t.in(**context) : t; };
  if (!y) return y;
  for (std::size_t part = 0; part < parts_.size(); ++part) {
    auto one = run_part(part, *y, {.h = placed_in(h), .c = placed_in(c)});
    if (!one) return fail(one.error());
    take_over(state.h, one->h, part);
    if (cell_ == ops::Cell::lstm) take_over(state.c, one->c, part);
    y = one->y;
  }
  return ops::squeeze(y, 0);
}

}  // namespace qorus::nn
