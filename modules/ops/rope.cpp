// ops::rope and its rule.
module qorus.ops;
import qorus.std;
import :loops;
import :rules;

namespace qorus {
namespace {

struct RopeSaved {
  GradRef x;
  const float *cosine, *sine;
  std::size_t rows, seq, dim, half;  // rows: of dim elements, the position going round every seq of them
  ops::RopePairs pairs;
};

// (a, b) turned by the angle of (c, s): (a c - b s, a s + b c); by the opposite angle if back, which is the gradient's way. Pairs are
// t_step apart, their halves `other`: loops that the compiler makes vectors of.
template <std::size_t t_step, bool t_accumulate>
void turn_pairs(const float* __restrict x, const float* __restrict c, const float* __restrict s, float* __restrict y,
                std::size_t half, std::size_t other, float sign) noexcept {
  for (std::size_t i = 0; i < half; ++i) {
    const std::size_t at = i * t_step;
    const float a = x[at], b = x[at + other], sine = sign * s[i], first = a * c[i] - b * sine,
                second = a * sine + b * c[i];
    y[at] = t_accumulate ? y[at] + first : first;
    y[at + other] = t_accumulate ? y[at + other] + second : second;
  }
}

template <bool t_accumulate>
void turn(const RopeSaved& r, const float* x, float* y, std::size_t row, bool back) noexcept {
  const float *c = r.cosine + row % r.seq * r.half, *s = r.sine + row % r.seq * r.half;
  const float sign = back ? -1.0f : 1.0f;
  if (r.pairs == ops::RopePairs::interleaved)
    turn_pairs<2, t_accumulate>(x, c, s, y, r.half, 1, sign);
  else
    turn_pairs<1, t_accumulate>(x, c, s, y, r.half, r.half, sign);
  for (std::size_t i = 2 * r.half; i < r.dim; ++i) y[i] = t_accumulate ? y[i] + x[i] : x[i];
}

}  // namespace

void rules::rope(const void* saved, Grads& grads) noexcept {
  const auto& s = *static_cast<const RopeSaved*>(saved);
  const Into dx = grads.into(s.x);
  if (!dx) return;
  parallel_chunks(grads.context(), s.rows, row_grain(s.dim), [&](std::size_t begin, std::size_t end) {
    const auto back = dx.accumulate ? turn<true> : turn<false>;
    for (std::size_t row = begin; row < end; ++row)
      back(s, grads.out() + row * s.dim, dx.data + row * s.dim, row, true);
  });
}

namespace ops {

Result<Tensor> rope(const Operand& operand, const Operand& cosine, const Operand& sine, RopePairs pairs) noexcept {
  auto context = float_context("rope", {&operand, &cosine, &sine});
  if (!context) return fail(context.error());
  if (operand->rank() < 2 || cosine->rank() != 2 || cosine->dim(0) != operand->dim(-2) ||
      2 * cosine->dim(1) > operand->dim(-1)) {
    return fail(Errc::invalid_size, "rope", "x: [..., seq, head_dim] needs tables [seq, at most head_dim / 2]",
                operand->shape().dims(), cosine->shape().dims());
  }
  if (cosine->shape() != sine->shape())
    return fail(Errc::invalid_size, "rope", "the tables must have one shape", cosine->shape().dims(),
                sine->shape().dims());
  auto x = operand->stride(-1) == 1 ? Result<Tensor>(*operand) : contiguous(operand);
  if (!x) return x;
  auto c = contiguous(cosine);
  if (!c) return c;
  auto s = contiguous(sine);
  if (!s) return s;
  auto y = Fresh::make(**context, x->shape());
  if (!y) return fail(y.error());
  const auto dim = static_cast<std::size_t>(x->dim(-1));
  const RopeSaved saved{x->grad_ref(),
                        c->f32(),
                        s->f32(),
                        dim ? x->numel() / dim : 0,
                        static_cast<std::size_t>(x->dim(-2)),
                        dim,
                        static_cast<std::size_t>(c->dim(1)),
                        pairs};
  parallel_chunks(**context, saved.rows, row_grain(dim), [&](std::size_t begin, std::size_t end) {
    const float* sequence = nullptr;  // where the row's begins
    for (std::size_t row = begin; row < end; ++row) {
      const std::size_t position = row % saved.seq;
      if (!sequence || position == 0) {
        sequence = x->f32();
        std::size_t index = row / saved.seq;
        for (int d = x->rank() - 3; d >= 0; --d) {
          const auto extent = static_cast<std::size_t>(x->dim(d));
          sequence += static_cast<std::ptrdiff_t>(index % extent) * x->stride(d);
          index /= extent;
        }
      }
      turn<false>(saved, sequence + static_cast<std::ptrdiff_t>(position) * x->stride(-2), y->f32() + row * dim, row,
                  false);
    }
  });
  const Tensor source = x->unread();
  return std::move(*y).freeze(rule(RuleId::rope), {&source, &*c, &*s}, saved);
}

}  // namespace ops
}  // namespace qorus
