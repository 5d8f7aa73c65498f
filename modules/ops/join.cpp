// Bodies of qorus.ops:join: concat, stack, split. (pad, tile and repeat: pad.cpp.)
module qorus.ops;
import qorus.std;
import :rules;
import :loops;

namespace qorus {
namespace {

// What a part contributes: `width` elements in each of the result's rows, from column `at` on.
struct Part {
  GradRef x;
  std::size_t at, width;
};

struct ConcatSaved {
  const Part* parts;  // in the arena
  std::size_t count, rows, cols;
};

// The result's shape, and how its axis is cut. `fresh_axis`: the parts lie along an axis that they do not have themselves.
struct JoinPlan {
  Shape shape;
  std::size_t rows = 1, inner = 1, cols = 0;
};

// Operands or tensors one after the other.
struct Joined {
  const Operand* operands;
  const Tensor* tensors;
  std::size_t count;
  explicit Joined(std::initializer_list<Operand> parts) noexcept
      : operands(parts.begin()), tensors(nullptr), count(parts.size()) {}
  explicit Joined(std::span<const Tensor> parts) noexcept
      : operands(nullptr), tensors(parts.data()), count(parts.size()) {}
  [[nodiscard]] Operand operator[](std::size_t i) const noexcept {
    return operands ? operands[i] : Operand(tensors[i]);
  }
};

Result<JoinPlan> plan_join(const char* op, const Joined& from, int axis, bool fresh_axis) noexcept {
  const Shape& first = from[0]->shape();
  auto at = normal_axis(axis, first.rank() + (fresh_axis ? 1 : 0), op);
  if (!at) return fail(at.error());
  std::int64_t extent = 0;
  for (std::size_t i = 0; i < from.count; ++i) {
    const Shape& shape = from[i]->shape();
    const bool fits =
        fresh_axis ? shape == first : shape.rank() == first.rank() && shape.with(*at, 0) == first.with(*at, 0);
    if (!fits) return fail(Errc::invalid_size, op, "the parts' other extents must agree", first.dims(), shape.dims());
    if (from[i]->dtype() != from[0]->dtype())
      return fail(Errc::invalid_dtype, op, "the parts differ in type", first.dims(), shape.dims());
    extent += fresh_axis ? 1 : shape[*at];
  }
  JoinPlan plan{.shape = fresh_axis ? first.inserted(*at, extent) : first.with(*at, extent)};
  if (!plan.shape.valid()) return fail(Errc::invalid_size, op, "the result would have no valid shape", first.dims());
  for (int d = 0; d < *at; ++d) plan.rows *= static_cast<std::size_t>(first[d]);
  for (int d = *at + (fresh_axis ? 0 : 1); d < first.rank(); ++d) plan.inner *= static_cast<std::size_t>(first[d]);
  plan.cols = static_cast<std::size_t>(extent) * plan.inner;
  return plan;
}

// A part with a slot of its own on the tape: the rule then needs nothing of a parameter's block.
Result<Tensor> with_own_slot(const Tensor& part, Context& context) noexcept {
  if (!context.record || !part.grad_ref().leaf()) return part;
  return ops::broadcast_to(placed(part, context), part.shape());
}

Result<Tensor> join(const char* op, const Joined& from, int axis, bool fresh_axis) noexcept {
  const std::size_t count = from.count;
  Context* shared = nullptr;
  for (std::size_t i = 0; i < count; ++i) {
    if (auto ok = join_context(op, from[i], shared); !ok) return fail(ok.error());
  }
  if (count == 0) return fail(Errc::invalid_argument, op, "needs at least one part");
  auto context = joined_context(op, shared);
  if (!context) return fail(context.error());
  auto plan = plan_join(op, from, axis, fresh_axis);
  if (!plan) return fail(plan.error());
  const DType dtype = from[0]->dtype();
  if (is_block(dtype)) return fail(Errc::invalid_dtype, op, "ops::cast a block format to f32", plan->shape.dims());
  const std::size_t width = size_of(dtype);
  bool tracked = false;
  for (std::size_t i = 0; i < count; ++i) tracked = tracked || from[i]->tracked();
  Part* parts = nullptr;
  if (tracked && shared->record) {
    auto place = shared->scratch->take(count * sizeof(Part));
    if (!place) return fail(place.error());
    parts = new (place->data) Part[count];
  }
  auto y = Fresh::make(*shared, plan->shape, dtype);
  if (!y) return fail(y.error());
  Tensor recorded;  // any part that is tracked
  for (std::size_t i = 0, at = 0; i < count; ++i) {
    auto part = with_own_slot(*from[i], *shared).and_then([&](const Tensor& own) {
      return ops::contiguous(placed(own, *shared));
    });
    if (!part) return part;
    const std::size_t cols = plan->rows ? part->numel() / plan->rows : 0;
    copy_rows(*shared, part->data(), cols * width, y->data() + at * width, plan->cols * width, plan->rows,
              cols * width);
    if (parts) parts[i] = {part->grad_ref(), at, cols};
    if (part->tracked()) recorded = *part;
    at += cols;
  }
  if (!parts) return std::move(*y).freeze();
  const ConcatSaved saved{parts, count, plan->rows, plan->cols};
  return std::move(*y).freeze(rule(RuleId::concat), {&recorded}, saved);
}

}  // namespace

void rules::concat(const void* saved, Grads& grads) noexcept {
  const auto& s = *static_cast<const ConcatSaved*>(saved);
  for (std::size_t i = 0; i < s.count; ++i) {
    const Part& part = s.parts[i];
    if (const Into dx = grads.into(part.x))
      add_rows(grads.context(), grads.out() + part.at, s.cols, dx, part.width, s.rows, part.width);
  }
}

namespace ops {

Result<Tensor> concat(std::initializer_list<Operand> parts, int axis) noexcept {
  return join("concat", Joined(parts), axis, false);
}
Result<Tensor> concat(std::span<const Tensor> parts, int axis) noexcept {
  return join("concat", Joined(parts), axis, false);
}
Result<Tensor> stack(std::initializer_list<Operand> parts, int axis) noexcept {
  return join("stack", Joined(parts), axis, true);
}
Result<Tensor> stack(std::span<const Tensor> parts, int axis) noexcept {
  return join("stack", Joined(parts), axis, true);
}

Status split(const Operand& x, int axis, std::span<const std::int64_t> sizes, std::span<Tensor> parts) noexcept {
  if (!x.ok()) return fail(x.error());
  if (auto ok = x->check("split"); !ok) return ok;
  auto at = normal_axis(axis, x->rank(), "split");
  if (!at) return fail(at.error());
  std::int64_t rest = x->dim(*at);
  bool fits = sizes.size() == parts.size();
  for (const std::int64_t size : sizes) {
    fits = fits && size >= 0 && size <= rest;
    if (fits) rest -= size;
  }
  if (!fits || rest != 0) {
    return fail(Errc::invalid_size, "split", "the pieces' sizes must add up to the extent", x->shape().dims(),
                Shape(sizes).dims());
  }
  std::int64_t begin = 0;
  for (std::size_t i = 0; i < sizes.size(); ++i) {
    auto part = slice(x, *at, begin, begin + sizes[i]);
    if (!part) return fail(part.error());
    parts[i] = *part;
    begin += sizes[i];
  }
  return {};
}

}  // namespace ops
}  // namespace qorus
