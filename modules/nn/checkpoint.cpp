// Bodies of qorus.nn:checkpoint.
module;
#include "kernels/kernels.h"
module qorus.nn;
import qorus.std;

namespace qorus::nn {
namespace {

constexpr std::size_t k_piece = 65536;  // floats per task

struct Saved {
  Body body;
  Tensor x;
  std::uint64_t draws;  // before the layer drew
  Shape shape;          // of the output
};

Result<Tensor> call(const Body& body, const Tensor& x) noexcept {
  auto y = body.call(body.self, x);
  return y ? ops::contiguous(*y) : y;
}

// f(param) for each trained one.
template <class F>
void each_trained(const Body& body, F&& f) noexcept {
  body.each_param(body.self, &f, [](void* user, const Param& param) {
    if (param.bound() && param.tensor.tracked()) (*static_cast<std::remove_reference_t<F>*>(user))(param.tensor);
  });
}

void add(const Context& context, const float* from, const Into& to, std::size_t count) noexcept {
  parallel_chunks(context, count, k_piece, [&](std::size_t begin, std::size_t end) {
    if (to.accumulate) {
      kernels::active().axpy(1, from + begin, to.data + begin, end - begin);
    } else {
      std::memcpy(to.data + begin, from + begin, (end - begin) * sizeof(float));
    }
  });
}

void backward_checkpointed(const void* saved, Grads& grads) noexcept {
  const auto& s = *static_cast<const Saved*>(saved);
  Context& context = grads.context();
  // The parameters' gradients go where those of the tape that runs backward go. Their places have to be there before the frame of the layer's
  // own tape begins.
  each_trained(s.body, [&](const Tensor& parameter) { grads.reserve(parameter.grad_ref()); });
  const Into dx = grads.into(s.x.grad_ref());
  const Tensor dy(reinterpret_cast<const std::byte*>(grads.out()), DType::f32, Layout::dense(s.shape), {});
  const std::uint64_t draws = std::exchange(context.draws, s.draws);
  {
    Tape tape(context);
    auto x = dx ? tape.watch(s.x) : tape.input(s.x.with_slot(0));
    auto y = x.and_then([&](const Tensor& input) { return call(s.body, input); });
    auto gradients = y.and_then([&](const Tensor& output) { return backward_from(output, dy); });
    auto got = gradients && dx ? gradients->of(*x) : Result<Tensor>(s.x);
    if (gradients && got && dx) add(context, got->f32(), dx, got->numel());
    if (!gradients) grads.settle(fail(gradients.error()));
    if (!got) grads.settle(fail(got.error()));
  }
  context.draws = draws;
}

constexpr Rule k_rule{"checkpoint", backward_checkpointed};

// The output's shape, and the draws put back.
Result<Shape> plan_shape(Context& context, const Tensor& x, const Body& body) noexcept {
  const std::uint64_t draws = context.draws;
  const bool planning = std::exchange(context.planning, true);
  Shape shape;
  Status status;
  {
    const Scope frame(context);
    auto y = body.call(body.self, x);
    status = y ? y->check(DType::f32, "checkpoint") : Status(fail(y.error()));
    if (status) shape = y->shape();
  }
  context.planning = planning;
  context.draws = draws;
  if (!status) return fail(status.error());
  return shape;
}

}  // namespace

Result<Tensor> recompute(const Tensor& input, const Body& body) noexcept {
  Context* context = input.context();
  if (!context || !input.alive() || !context->record) return in_own_frame(input, body.self, body.call);
  if (context->made)
    return body.call(body.self, input);  // within a block that is kept in bf16: its input will not live so long
  auto x = ops::contiguous(input);
  if (!x) return x;
  Tensor parameter;  // any that is trained
  each_trained(body, [&](const Tensor& one) { parameter = one; });
  if (!x->tracked() && !parameter.tracked()) return body.call(body.self, *x);
  const auto record = std::exchange(context->record, nullptr);
  const Saved saved{body, *x, context->draws, {}};
  auto shape = plan_shape(*context, *x, body);
  auto fresh = shape.and_then([&](const Shape& s) { return Fresh::make(*context, s); });
  Status status = fresh ? Status{} : Status(fail(fresh.error()));
  if (status) {
    const Scope frame(*context);
    auto y = body.call(body.self, *x);
    if (!y) status = fail(y.error());
    if (y && !context->planning) y->copy_elements(fresh->data());
  }
  context->record = record;
  if (!status) return fail(status.error());
  Saved kept = saved;
  kept.shape = *shape;
  if (!parameter.tracked()) return std::move(*fresh).freeze(custom_rule(k_rule), {&*x}, kept);
  auto y = std::move(*fresh).freeze(custom_rule(k_rule), {&*x, &parameter}, kept);
  if (y) each_trained(body, [&](const Tensor& one) { context->note_read(*context, one); });
  return y;
}

}  // namespace qorus::nn
