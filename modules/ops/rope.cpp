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

// (a, b) turned by the angle of (c, s): (a c - b s, a s + b c); by the opposite angle if back, which is the gradient's way.
void turn(const RopeSaved& r, const float* x, float* y, std::size_t row, bool back, bool accumulate) noexcept {
  const float* c = r.cosine + row % r.seq * r.half;
  const float* s = r.sine + row % r.seq * r.half;
  const std::size_t step = r.pairs == ops::RopePairs::interleaved ? 2 : 1,
                    other = r.pairs == ops::RopePairs::interleaved ? 1 : r.half;
  const auto put = [&](std::size_t i, float value) { y[i] = accumulate ? y[i] + value : value; };
  for (std::size_t i = 0; i < r.half; ++i) {
    const std::size_t at = i * step;
    const float a = x[at], b = x[at + other], sine = back ? -s[i] : s[i];
    put(at, a * c[i] - b * sine);
    put(at + other, a * sine + b * c[i]);
  }
  for (std::size_t i = 2 * r.half; i < r.dim; ++i) put(i, x[i]);
}

}  // namespace

void rules::rope(const void* saved, Grads& grads) noexcept {
  const auto& s = *static_cast<const RopeSaved*>(saved);
  const Into dx = grads.into(s.x);
  if (!dx) return;
  parallel_chunks(grads.context(), s.rows, row_grain(s.dim), [&](std::size_t begin, std::size_t end) {
    for (std::size_t row = begin; row < end; ++row)
      turn(s, grads.out() + row * s.dim, dx.data + row * s.dim, row, true, dx.accumulate);
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
      turn(saved, sequence + static_cast<std::ptrdiff_t>(position) * x->stride(-2), y->f32() + row * dim, row, false,
           false);
    }
  });
  return std::move(*y).freeze(rule(RuleId::rope), {&*x, &*c, &*s}, saved);
}

}  // namespace ops
}  // namespace qorus
