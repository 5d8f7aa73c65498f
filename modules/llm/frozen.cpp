// Bodies of qorus.llm:frozen.
module;
#include "kernels/kernels.h"
module qorus.llm;
import qorus.std;

namespace qorus::llm {
namespace {

using kernels::Gemm;

std::ptrdiff_t step(std::size_t n) noexcept { return static_cast<std::ptrdiff_t>(n); }

// One product on all workers; its scratch is given back.
Status run_product(Context& context, const Gemm& gemm) noexcept {
  if (gemm.m == 0 || gemm.n == 0) return {};
  const kernels::Table& table = kernels::active();
  const kernels::GemmPlan plan = table.gemm_plan(gemm);
  const std::size_t mark = context.scratch->mark(), shared = align_up(plan.shared_bytes),
                    each = align_up(plan.worker_bytes);
  auto scratch = context.scratch->take(shared + each * static_cast<std::size_t>(context.executor.width));
  if (!scratch) return fail(scratch.error());
  for (std::uint32_t phase = 0; phase < plan.phases; ++phase) {
    parallel(context, plan.tasks[phase], [&](std::uint32_t task, int worker) {
      table.gemm_task(gemm, plan, phase, task, scratch->data,
                      scratch->data + shared + each * static_cast<std::size_t>(worker));
    });
  }
  context.scratch->shrink_to(mark);
  return {};
}

void to_floats(DType dtype, const std::byte* from, float* to, std::size_t n) noexcept {
  const kernels::Table& table = kernels::active();
  if (dtype == DType::f16) return table.f16_to_f32(reinterpret_cast<const std::uint16_t*>(from), to, n);
  if (dtype == DType::bf16) return table.bf16_to_f32(reinterpret_cast<const std::uint16_t*>(from), to, n);
  const int format = static_cast<int>(dtype) - static_cast<int>(DType::q4_0);  // in the same order: ops::cast checks it
  table.dequantize(static_cast<kernels::Quant>(format), from, to, n);
}

bool readable(DType dtype) noexcept {
  return dtype == DType::f32 || dtype == DType::f16 || dtype == DType::bf16 || is_block(dtype);
}

struct FrozenSaved {
  GradRef x;
  FrozenWeight weight;
  std::size_t rows;
};

void frozen_backward(const void* saved, Grads& grads) noexcept {
  const auto& s = *static_cast<const FrozenSaved*>(saved);
  if (const Into dx = grads.into(s.x))
    grads.settle(s.weight.backward(grads.context(), grads.out(), s.rows, dx.data, dx.accumulate));
}
constexpr Rule k_frozen_rule{"frozen_linear", frozen_backward};

// The operands' workspace; x and bias f32, weight readable, and of sizes that go together.
Result<Context*> checked_context(const char* op, const Operand& x, const Operand& weight,
                                 const Operand* bias) noexcept {
  auto context = bias ? common_context(op, {&x, &weight, bias}) : common_context(op, {&x, &weight});
  if (!context) return context;
  if (auto ok = x->check(DType::f32, op); !ok) return fail(ok.error());
  if (bias) {
    if (auto ok = (*bias)->check(DType::f32, op); !ok) return fail(ok.error());
  }
  if (!readable(weight->dtype()) || !weight->contiguous())
    return fail(Errc::invalid_dtype, op, "the weight is of a floating type or a block format, row-major",
                weight->shape().dims());
  if (weight->rank() != 2 || x->rank() < 1 || x->dim(-1) != weight->dim(1))
    return fail(Errc::invalid_size, op, "x: [..., in] and weight: [out, in] must agree on in", x->shape().dims(),
                weight->shape().dims());
  if (bias && ((*bias)->shape() != Shape{weight->dim(0)} || !(*bias)->contiguous()))
    return fail(Errc::invalid_size, op, "bias: [out] and weight: [out, in] must agree on out", (*bias)->shape().dims(),
                weight->shape().dims());
  return context;
}

}  // namespace

// Calls f(first row, rows, floats) for every tile of the weight.
template <class F>
Status FrozenWeight::each_tile(Context& context, F&& f) const noexcept {
  if (dtype_ == DType::f32) return f(std::size_t{0}, out_, reinterpret_cast<const float*>(data_));
  const std::size_t most = std::min(out_, std::max<std::size_t>(k_tile / std::max<std::size_t>(in_, 1), 16));
  const std::size_t mark = context.scratch->mark(), bytes = row_bytes(dtype_, in_);
  auto tile = context.scratch->take(most * in_ * sizeof(float));
  if (!tile) return fail(tile.error());
  auto* const floats = reinterpret_cast<float*>(tile->data);
  constexpr std::size_t k_rows = 16;  // of a task
  for (std::size_t first = 0; first < out_; first += most) {
    const std::size_t rows = std::min(most, out_ - first);
    const std::byte* const from = data_ + first * bytes;
    parallel_chunks(context, rows, k_rows, [&](std::size_t begin, std::size_t end) {
      to_floats(dtype_, from + begin * bytes, floats + begin * in_, (end - begin) * in_);
    });
    if (auto done = f(first, rows, static_cast<const float*>(floats)); !done) return done;
  }
  context.scratch->shrink_to(mark);
  return {};
}

Status FrozenWeight::forward(Context& context, const float* x, std::size_t rows, float* y,
                             const float* bias) const noexcept {
  return each_tile(context, [&](std::size_t first, std::size_t count, const float* w) {
    return run_product(context, {.m = rows,
                                 .n = count,
                                 .k = in_,
                                 .a = x,
                                 .a_row = step(in_),
                                 .a_col = 1,
                                 .b = w,
                                 .b_row = 1,
                                 .b_col = step(in_),
                                 .c = y + first,
                                 .c_row = step(out_),
                                 .bias = bias ? bias + first : nullptr});
  });
}

Status FrozenWeight::backward(Context& context, const float* dy, std::size_t rows, float* dx,
                              bool accumulate) const noexcept {
  return each_tile(context, [&](std::size_t first, std::size_t count, const float* w) {
    return run_product(context, {.m = rows,
                                 .n = in_,
                                 .k = count,
                                 .a = dy + first,
                                 .a_row = step(out_),
                                 .a_col = 1,
                                 .b = w,
                                 .b_row = step(in_),
                                 .b_col = 1,
                                 .c = dx,
                                 .c_row = step(in_),
                                 .accumulate = accumulate || first > 0});
  });
}

Result<Tensor> frozen_linear(const Operand& input, const Operand& weight, const Operand* bias,
                             bool transient) noexcept {
  auto context = checked_context("frozen_linear", input, weight, bias);
  if (!context) return fail(context.error());
  auto x = ops::contiguous(input);
  if (!x) return x;
  auto y = Fresh::make_transient(**context, x->shape().with(-1, weight->dim(0)), transient);
  if (!y) return fail(y.error());
  const std::size_t rows = x->numel() / static_cast<std::size_t>(std::max<std::int64_t>(x->dim(-1), 1));
  const FrozenWeight frozen(*weight);
  if (auto done = frozen.forward(**context, x->f32(), rows, y->f32(), bias ? (*bias)->f32() : nullptr); !done)
    return fail(done.error());
  return std::move(*y).freeze(custom_rule(k_frozen_rule), {&*x, &*weight}, FrozenSaved{x->grad_ref(), frozen, rows});
}

namespace {

struct ExpertsSaved {
  GradRef x;
  const FrozenWeight* weights;  // in scratch
  const std::int32_t* ends;
  std::size_t experts, rows, in, out;
};

// f(weight, first row, rows) -> Status for each expert that has any; while planning, for the first with all rows: what it takes at most.
template <class F>
Status each_expert(const ExpertsSaved& s, const Context& context, F&& f) noexcept {
  if (context.planning) return s.experts > 0 ? f(s.weights[0], std::size_t{0}, s.rows) : Status{};
  std::size_t first = 0;
  for (std::size_t e = 0; e < s.experts; ++e) {
    const auto end = static_cast<std::size_t>(s.ends[e]);
    Status done = end > first ? f(s.weights[e], first, end - first) : Status{};
    if (!done) return done;
    first = end;
  }
  return {};
}

void experts_backward(const void* saved, Grads& grads) noexcept {
  const auto& s = *static_cast<const ExpertsSaved*>(saved);
  Context& context = grads.context();
  const Into dx = grads.into(s.x);
  if (!dx) return;
  const std::size_t used = context.planning || s.experts == 0 ? 0 : static_cast<std::size_t>(s.ends[s.experts - 1]);
  if (!dx.accumulate && !context.planning)
    std::memset(dx.data + used * s.in, 0, (s.rows - used) * s.in * sizeof(float));
  grads.settle(each_expert(s, context, [&](const FrozenWeight& weight, std::size_t first, std::size_t rows) {
    return weight.backward(context, grads.out() + first * s.out, rows, dx.data + first * s.in, dx.accumulate);
  }));
}
constexpr Rule k_experts_rule{"frozen_experts", experts_backward};

}  // namespace

Result<Tensor> frozen_experts(const Operand& input, std::span<const Tensor> weights, const Operand& ends) noexcept {
  constexpr const char* op = "frozen_experts";
  if (weights.empty()) return fail(Errc::invalid_argument, op, "there are no experts");
  Context* context = nullptr;
  for (const Tensor& weight : weights) {
    const Operand one = weight;
    auto checked = checked_context(op, input, one, nullptr);
    if (!checked) return fail(checked.error());
    context = *checked;
    if (weight.shape() != weights[0].shape())
      return fail(Errc::invalid_size, op, "experts of several sizes", weight.shape().dims(), weights[0].shape().dims());
  }
  if (!ends.ok()) return fail(ends.error());
  if (auto ok = ends->check(DType::i32, op); !ok) return fail(ok.error());
  if (input->rank() != 2 || !ends->contiguous() || ends->shape() != Shape{static_cast<std::int64_t>(weights.size())})
    return fail(Errc::invalid_size, op, "x: [rows, in], ends: [experts]", input->shape().dims(), ends->shape().dims());
  auto x = ops::contiguous(input);
  if (!x) return x;
  static_assert(std::is_trivially_destructible_v<FrozenWeight>);
  auto place = context->scratch->take(weights.size() * sizeof(FrozenWeight));
  if (!place) return fail(place.error());
  auto* const frozen = reinterpret_cast<FrozenWeight*>(place->data);
  for (std::size_t e = 0; e < weights.size(); ++e) new (frozen + e) FrozenWeight(weights[e]);
  const ExpertsSaved s{x->grad_ref(),
                       frozen,
                       ends->i32(),
                       weights.size(),
                       static_cast<std::size_t>(x->dim(0)),
                       frozen->in_features(),
                       frozen->out_features()};
  std::int32_t before = 0;
  for (std::size_t e = 0; e < s.experts && !context->planning; before = s.ends[e++]) {
    if (s.ends[e] < before || s.ends[e] > x->dim(0))
      return fail(Errc::invalid_argument, op, "the ends must rise to at most the rows", ends->shape().dims());
  }
  auto y = Fresh::make(*context, Shape{x->dim(0), weights[0].dim(0)});
  if (!y) return fail(y.error());
  const auto used = static_cast<std::size_t>(before);
  if (!context->planning) std::memset(y->f32() + used * s.out, 0, (s.rows - used) * s.out * sizeof(float));
  auto done = each_expert(s, *context, [&](const FrozenWeight& weight, std::size_t first, std::size_t rows) {
    return weight.forward(*context, x->f32() + first * s.in, rows, y->f32() + first * s.out);
  });
  if (!done) return fail(done.error());
  return std::move(*y).freeze(custom_rule(k_experts_rule), {&*x, &*ends, &weights[0]}, s);
}

}  // namespace qorus::llm
