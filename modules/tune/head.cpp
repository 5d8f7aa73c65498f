// Bodies of qorus.tune:head.
module;
#include "kernels/kernels.h"
module qorus.tune;
import qorus.std;
import :head;

namespace qorus::tune {
namespace {

constexpr const char* k_op = "head_loss";

struct HeadSaved {
  GradRef x;
  const float* dx;  // for a loss of slope 1
};

void head_backward(const void* saved, Grads& grads) noexcept {
  const auto& s = *static_cast<const HeadSaved*>(saved);
  grads.give(s.x, s.dx);
}
constexpr Rule k_head_rule{k_op, head_backward};

// Scratch for some rows at work together.
struct Piece {
  float *x, *logits, *bent, *log_sum, *loss;
  std::int32_t* target;
  std::size_t* row;  // which of all they are
};

struct Head {
  Context& context;
  llm::FrozenWeight weight;
  float cap;
  std::size_t most;  // rows at a time

  [[nodiscard]] Result<Piece> take() const noexcept {
    const std::size_t in = weight.in_features(), out = weight.out_features(), wide = cap > 0 ? 2 : 1;
    auto slice = context.scratch->take(
        most * ((in + wide * out) * sizeof(float) + sizeof(std::size_t) + 2 * sizeof(float) + sizeof(std::int32_t)));
    if (!slice) return fail(slice.error());
    Piece piece{};
    piece.row = reinterpret_cast<std::size_t*>(slice->data);
    piece.x = reinterpret_cast<float*>(slice->data + most * sizeof(std::size_t));
    piece.logits = piece.x + most * in;
    piece.bent = cap > 0 ? piece.logits + most * out : nullptr;
    piece.log_sum = piece.logits + most * out * wide;
    piece.loss = piece.log_sum + most;
    piece.target = reinterpret_cast<std::int32_t*>(piece.loss + most);
    return piece;
  }

  // The losses of some rows, and, if wanted, their slopes times `share` in place of the logits.
  void measure(const Piece& p, std::size_t rows, float share, bool slope) const noexcept {
    constexpr std::size_t k_rows = 4;  // of a task
    const std::size_t out = weight.out_features();
    parallel_chunks(context, rows, k_rows, [&](std::size_t begin, std::size_t end) {
      const kernels::Table& table = kernels::active();
      const std::size_t count = end - begin, n = count * out;
      float *const logits = p.logits + begin * out, *const bent = cap > 0 ? p.bent + begin * out : nullptr;
      if (bent) {
        table.unary(kernels::Unary::mul, logits, bent, n, 1 / cap);
        table.unary(kernels::Unary::tanh, bent, bent, n, 0);
        table.unary(kernels::Unary::mul, bent, logits, n, cap);
      }
      table.cross_entropy(logits, p.target + begin, p.loss + begin, p.log_sum + begin, count, out, 0, -1);
      if (!slope) return;
      const kernels::Training& training = kernels::training();
      training.cross_entropy_bwd(logits, p.target + begin, p.log_sum + begin, &share, 0, logits, count, out, 0, -1,
                                 false);
      if (bent) training.unary_bwd(kernels::Unary::tanh, nullptr, bent, logits, logits, n, 0, false);
    });
  }

  // Takes the next rows that count, and gives how many there are.
  [[nodiscard]] std::size_t gather(const Piece& piece, const float* x, std::span<const std::int32_t> target,
                                   std::size_t& next) const noexcept {
    const std::size_t in = weight.in_features();
    std::size_t rows = 0;
    for (; next < target.size() && rows < most; ++next) {
      if (target[next] < 0) continue;
      std::memcpy(piece.x + rows * in, x + next * in, in * sizeof(float));
      piece.target[rows] = target[next];
      piece.row[rows++] = next;
    }
    return rows;
  }

  // x: [rows, in]; dx: the same, or null where no gradient is wanted.
  [[nodiscard]] Result<float> run(const float* x, std::span<const std::int32_t> target, float* dx) const noexcept {
    const std::size_t in = weight.in_features(), mark = context.scratch->mark();
    auto piece = take();
    if (!piece) return fail(piece.error());
    if (context.planning) {  // fewer rows may take more scratch
      for (std::size_t rows = most; rows > 0; --rows) {
        auto done = weight.forward(context, piece->x, rows, piece->logits);
        if (done) done = weight.backward(context, piece->logits, rows, piece->x, false);
        if (!done) return fail(done.error());
      }
      context.scratch->shrink_to(mark);
      return 0.0f;
    }
    const auto counted = std::count_if(target.begin(), target.end(), [](std::int32_t id) { return id >= 0; });
    const float share = counted ? 1 / static_cast<float>(counted) : 0;
    if (dx) std::memset(dx, 0, target.size() * in * sizeof(float));
    double sum = 0;
    for (std::size_t next = 0;;) {
      const std::size_t rows = gather(*piece, x, target, next);
      if (rows == 0) break;
      if (auto done = weight.forward(context, piece->x, rows, piece->logits); !done) return fail(done.error());
      measure(*piece, rows, share, dx != nullptr);
      for (std::size_t i = 0; i < rows; ++i) sum += static_cast<double>(piece->loss[i]);
      if (!dx) continue;
      if (auto done = weight.backward(context, piece->logits, rows, piece->x, false); !done) return fail(done.error());
      for (std::size_t i = 0; i < rows; ++i)
        std::memcpy(dx + piece->row[i] * in, piece->x + i * in, in * sizeof(float));
    }
    context.scratch->shrink_to(mark);
    return counted ? static_cast<float>(sum / static_cast<double>(counted)) : 0.0f;
  }
};

}  // namespace

Result<Tensor> head_loss(const Operand& input, const Operand& weight, const Operand& target, float cap) noexcept {
  auto context = common_context(k_op, {&input, &weight, &target});
  if (!context) return fail(context.error());
  if (auto ok = input->check(DType::f32, k_op); !ok) return fail(ok.error());
  if (auto ok = target->check(DType::i32, k_op); !ok) return fail(ok.error());
  const bool fits = input->rank() == 2 && weight->rank() == 2 && input->dim(1) == weight->dim(1) &&
                    weight->contiguous() && target->contiguous() && target->shape() == Shape{input->dim(0)};
  if (!fits)
    return fail(Errc::invalid_size, k_op, "x: [rows, in] and weight: [out, in] must agree, and have a target each row",
                input->shape().dims(), weight->shape().dims());
  auto x = ops::contiguous(input);
  if (!x) return x;
  const bool planning = (*context)->planning;
  const auto rows = static_cast<std::size_t>(x->dim(0));
  const std::span<const std::int32_t> ids(target->i32(), planning ? 0 : rows);
  for (const std::int32_t id : ids) {
    if (id >= weight->dim(0))
      return fail(Errc::invalid_argument, k_op, "a target outside the vocabulary", Dims{.extent = {id}, .rank = 1});
  }
  auto loss = Fresh::make(**context, Shape{});
  if (!loss) return fail(loss.error());
  float* slope = nullptr;
  if ((*context)->record && x->tracked()) {
    auto made = Fresh::make(**context, x->shape());
    if (!made) return fail(made.error());
    slope = made->f32();
  }
  constexpr std::size_t k_logits = std::size_t{1} << 22;  // floats at a time: 16 MiB
  const llm::FrozenWeight frozen(*weight);
  const std::size_t fitting = k_logits / std::max<std::size_t>(frozen.out_features(), 1);
  const Head head{**context, frozen, cap, std::clamp<std::size_t>(fitting, 1, std::max<std::size_t>(rows, 1))};
  auto value = head.run(x->f32(), ids, slope);
  if (!value) return fail(value.error());
  if (!planning) *loss->f32() = *value;
  return std::move(*loss).freeze(custom_rule(k_head_rule), {&*x}, HeadSaved{x->grad_ref(), slope});
}

}  // namespace qorus::tune
