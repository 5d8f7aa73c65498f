// Bodies of qorus.ops:experts.
module;
#include "kernels/kernels.h"
module qorus.ops;
import qorus.std;
import :loops;
import :product;
import :rules;

namespace qorus {
namespace {

using kernels::Gemm;

struct ExpertSaved {
  GradRef x, weight;
  const float *input, *weights;
  const std::int32_t* ends;
  std::size_t rows, in, out, experts;
};

// f(expert, first row, rows) for each that has rows; while planning, the first expert has all.
template <class F>
void each_expert(const ExpertSaved& s, const Context& context, const F& f) noexcept {
  if (context.planning) return f(std::size_t{0}, std::size_t{0}, s.rows);
  std::size_t first = 0;
  for (std::size_t e = 0; e < s.experts; ++e) {
    const auto end = static_cast<std::size_t>(s.ends[e]);
    f(e, first, end - first);
    first = end;
  }
}
// The rows that no expert has become 0.
void clear_rest(const ExpertSaved& s, const Context& context, float* y, std::size_t width) noexcept {
  if (context.planning) return;
  const auto end = static_cast<std::size_t>(s.ends[s.experts - 1]);
  std::memset(y + end * width, 0, (s.rows - end) * width * sizeof(float));
}

struct PenaltySaved {
  GradRef y, penalty;
};

}  // namespace

void rules::expert_linear(const void* saved, Grads& grads) noexcept {
  const auto& s = *static_cast<const ExpertSaved*>(saved);
  Context& context = grads.context();
  const Into dx = grads.into(s.x), dw = grads.into(s.weight);
  const auto in = static_cast<std::ptrdiff_t>(s.in), out = static_cast<std::ptrdiff_t>(s.out);
  if (dx && !dx.accumulate) clear_rest(s, context, dx.data, s.in);
  each_expert(s, context, [&](std::size_t e, std::size_t first, std::size_t rows) {
    const float *dy = grads.out() + first * s.out, *weight = s.weights + e * s.out * s.in;
    if (dx) {
      grads.settle(run_product(context, {.m = rows,
                                         .n = s.in,
                                         .k = s.out,
                                         .a = dy,
                                         .a_row = out,
                                         .a_col = 1,
                                         .b = weight,
                                         .b_row = in,
                                         .b_col = 1,
                                         .c = dx.data + first * s.in,
                                         .c_row = in,
                                         .accumulate = dx.accumulate}));
    }
    if (dw && !(rows == 0 && dw.accumulate)) {
      grads.settle(run_product(context, {.m = s.out,
                                         .n = s.in,
                                         .k = rows,
                                         .a = dy,
                                         .a_row = 1,
                                         .a_col = out,
                                         .b = s.input + first * s.in,
                                         .b_row = in,
                                         .b_col = 1,
                                         .c = dw.data + e * s.out * s.in,
                                         .c_row = in,
                                         .accumulate = dw.accumulate}));
    }
  });
}

void rules::penalty(const void* saved, Grads& grads) noexcept {
  const auto& s = *static_cast<const PenaltySaved*>(saved);
  if (const Into to = grads.into(s.penalty); to && !grads.context().planning)
    to.data[0] = to.accumulate ? to.data[0] + 1 : 1;
  grads.pass(s.y);
}

namespace ops {
namespace {

// The top_k largest of a token's scores; a NaN is the smallest.
void choose(const float* scores, std::size_t experts, std::span<std::int32_t> choice) noexcept {
  for (std::size_t j = 0; j < choice.size(); ++j) {
    std::int32_t best = -1;
    for (std::size_t e = 0; e < experts; ++e) {
      const auto number = static_cast<std::int32_t>(e);
      if (std::find(choice.begin(), choice.begin() + static_cast<std::ptrdiff_t>(j), number) !=
          choice.begin() + static_cast<std::ptrdiff_t>(j))
        continue;
      if (best < 0 || scores[e] > scores[best] || (std::isnan(scores[best]) && !std::isnan(scores[e]))) best = number;
    }
    choice[j] = best;
  }
}

}  // namespace

Result<Routing> route(const Operand& operand, const RoutingOptions& options) noexcept {
  auto context = float_context("route", {&operand});
  if (!context) return fail(context.error());
  if (operand->rank() != 2)
    return fail(Errc::invalid_size, "route", "needs scores: [tokens, experts]", operand->shape().dims());
  if (options.top_k < 1 || options.top_k > operand->dim(1) || !(options.capacity >= 0))
    return fail(Errc::invalid_argument, "route",
                "needs 1 to as many choices as there are experts, and no negative capacity", operand->shape().dims());
  auto scores = contiguous(operand);
  if (!scores) return fail(scores.error());
  const std::int64_t tokens = scores->dim(0), experts = scores->dim(1), k = options.top_k;
  auto choice = Fresh::make(**context, Shape{tokens, k}, DType::i32),
       token = Fresh::make(**context, Shape{tokens * k}, DType::i32),
       place = Fresh::make(**context, Shape{tokens, k}, DType::i32),
       ends = Fresh::make(**context, Shape{experts}, DType::i32), kept = Fresh::make(**context, Shape{tokens, k}),
       load = Fresh::make(**context, Shape{experts});
  for (const auto* made : {&choice, &token, &place, &ends, &kept, &load}) {
    if (!*made) return fail(made->error());
  }
  const auto count = static_cast<std::size_t>(tokens), width = static_cast<std::size_t>(k),
             kinds = static_cast<std::size_t>(experts), choices = count * width;
  const auto freeze = [&] {
    return Routing{std::move(*choice).freeze(), std::move(*token).freeze(), std::move(*place).freeze(),
                   std::move(*ends).freeze(),   std::move(*kept).freeze(),  std::move(*load).freeze()};
  };
  if ((*context)->planning) return freeze();
  parallel_chunks(**context, count, 256, [&](std::size_t begin, std::size_t end) {
    for (std::size_t t = begin; t < end; ++t)
      choose(scores->f32() + t * kinds, kinds, {choice->i32() + t * width, width});
  });
  const double most =
      std::ceil(static_cast<double>(options.capacity) * static_cast<double>(choices) / static_cast<double>(kinds));
  const std::size_t limit =
      options.capacity > 0 && most < static_cast<double>(choices) ? static_cast<std::size_t>(most) : choices;
  std::int32_t* end = ends->i32();
  std::fill_n(end, kinds, 0);
  for (std::size_t i = 0; i < choices; ++i)
    place->i32()[i] = end[choice->i32()[i]]++;  // how many took this expert before
  std::int32_t total = 0;
  for (std::size_t e = 0; e < kinds; ++e) {
    const std::size_t taken = static_cast<std::size_t>(end[e]);
    load->f32()[e] = choices ? static_cast<float>(taken) / static_cast<float>(choices) : 0;
    end[e] = total;  // for now where its rows begin
    total += static_cast<std::int32_t>(std::min(limit, taken));
  }
  for (std::size_t i = 0, dropped = static_cast<std::size_t>(total); i < choices; ++i) {
    std::int32_t& row = place->i32()[i];
    const bool fits = static_cast<std::size_t>(row) < limit;
    row = fits ? row + end[choice->i32()[i]] : static_cast<std::int32_t>(dropped++);
    kept->f32()[i] = fits ? 1 : 0;
    token->i32()[row] = static_cast<std::int32_t>(i / width);
  }
  for (std::size_t e = 0; e < kinds; ++e) end[e] = e + 1 < kinds ? end[e + 1] : total;
  return freeze();
}

Result<Tensor> expert_linear(const Operand& operand, const Operand& weight, const Operand& ends) noexcept {
  auto context = float_context("expert_linear", {&operand, &weight});
  if (!context) return fail(context.error());
  Context* shared = *context;
  if (auto ok = join_context("expert_linear", ends, shared); !ok) return fail(ok.error());
  if (auto ok = ends->check(DType::i32, "expert_linear"); !ok) return fail(ok.error());
  if (operand->rank() != 2 || weight->rank() != 2 || ends->rank() != 1 || operand->dim(1) != weight->dim(1) ||
      ends->dim(0) == 0 || weight->dim(0) % ends->dim(0) != 0 || !ends->contiguous())
    return fail(Errc::invalid_size, "expert_linear", "x: [rows, in], weight: [experts out, in], ends: [experts]",
                operand->shape().dims(), weight->shape().dims());
  auto x = contiguous(operand), w = contiguous(placed(weight, **context));
  if (!x || !w) return fail(!x ? x.error() : w.error());
  const auto size = [](std::int64_t n) { return static_cast<std::size_t>(n); };
  ExpertSaved s{.x = x->grad_ref(),
                .weight = w->grad_ref(),
                .input = x->f32(),
                .weights = w->f32(),
                .ends = ends->i32(),
                .rows = size(x->dim(0)),
                .in = size(x->dim(1)),
                .out = size(w->dim(0) / ends->dim(0)),
                .experts = size(ends->dim(0))};
  for (std::size_t e = 0; e < s.experts && !(*context)->planning; ++e) {
    const std::int64_t before = e ? s.ends[e - 1] : 0;
    if (s.ends[e] < before || s.ends[e] > x->dim(0))
      return fail(Errc::invalid_argument, "expert_linear", "the ends must rise to at most the rows",
                  ends->shape().dims());
  }
  auto y = Fresh::make(**context, Shape{x->dim(0), static_cast<std::int64_t>(s.out)});
  if (!y) return fail(y.error());
  clear_rest(s, **context, y->f32(), s.out);
  Status status;
  const auto in = static_cast<std::ptrdiff_t>(s.in), out = static_cast<std::ptrdiff_t>(s.out);
  each_expert(s, **context, [&](std::size_t e, std::size_t first, std::size_t rows) {
    if (!status) return;
    status = run_product(**context, {.m = rows,
                                     .n = s.out,
                                     .k = s.in,
                                     .a = s.input + first * s.in,
                                     .a_row = in,
                                     .a_col = 1,
                                     .b = s.weights + e * s.out * s.in,
                                     .b_row = 1,
                                     .b_col = in,
                                     .c = y->f32() + first * s.out,
                                     .c_row = out});
  });
  if (!status) return fail(status.error());
  return std::move(*y).freeze(rule(RuleId::expert_linear), {&*x, &*w, &*ends}, s);
}

Result<Tensor> with_penalty(const Operand& operand, const Operand& penalty) noexcept {
  auto context = float_context("with_penalty", {&operand, &penalty});
  if (!context) return fail(context.error());
  if (penalty->numel() != 1)
    return fail(Errc::invalid_size, "with_penalty", "the penalty must have one element", penalty->shape().dims());
  if (!(*context)->record) return placed(operand, **context);
  auto x = contiguous(operand);
  if (!x) return x;
  auto y = Fresh::make(**context, x->shape());
  if (!y) return fail(y.error());
  copy_dense(**context, *x, y->f32());
  return std::move(*y).freeze(rule(RuleId::penalty), {&*x, &*penalty},
                              PenaltySaved{x->grad_ref(), penalty->grad_ref()});
}

}  // namespace ops
}  // namespace qorus
