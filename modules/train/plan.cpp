// Bodies of qorus.train:plan.
module;
#include <cstddef>
#include <cstdint>
module qorus.train;
import :plan;

namespace qorus::train {
namespace {

Shape with_batch(const Shape& example, std::size_t batch) noexcept {
  return example.inserted(0, static_cast<std::int64_t>(batch));
}

// What the meter computes of an output.
Status plan_metrics(const Tensor& output) noexcept {
  if (output.rank() == 0) return {};
  if (auto best = ops::argmax(ops::detach(output)); !best) return fail(best.error());
  if (auto dense = ops::contiguous(ops::detach(output)); !dense) return fail(dense.error());
  return {};
}

Status plan_training(Workspace& workspace, const ModelRef& model, const Pass& pass, const data::Batch& batch) noexcept {
  auto tape = workspace.record();
  Result<Tensor> loss, output;
  if (pass.forward) {
    auto forward = pass.forward(model, tape, batch);
    if (!forward) return fail(forward.error());
    loss = forward->loss;
    output = forward->output;
  } else {
    output = tape.input(batch.x).and_then([&](const Tensor& x) { return model(x); });
    loss = (*pass.loss)(output, tape.input(batch.y));
  }
  if (!loss) return fail(loss.error());
  if (output->shape().valid() && output->context()) {
    if (auto planned = plan_metrics(*output); !planned) return planned;
  }
  auto gradients = backward(*loss);
  if (!gradients) return fail(gradients.error());
  if (auto norm = gradients->norm(); !norm) return fail(norm.error());
  return {};
}

Status plan_inference(Workspace& workspace, const ModelRef& model, const Pass& pass,
                      const data::Batch& batch) noexcept {
  auto frame = workspace.frame();
  auto output = frame.input(batch.x).and_then([&](const Tensor& x) { return model(x); });
  if (!output) return fail(output.error());
  if (!pass.loss) return {};
  if (auto loss = (*pass.loss)(output, frame.input(batch.y)); !loss) return fail(loss.error());
  return plan_metrics(*output);
}

}  // namespace

Result<std::size_t> plan_scratch(const ModelRef& model, const data::Examples& examples, std::size_t batch, int threads,
                                 const Pass& pass) noexcept {
  constexpr std::size_t k_slack = 64_KiB;  // alignment of what is planned apart
  Workspace workspace = planning_workspace(threads);
  const DType dtype = examples.input_dtype() == DType::i32 ? DType::i32 : DType::f32;
  const data::Batch shapes{
      Tensor(nullptr, dtype, Layout::dense(with_batch(examples.input_shape(), batch)), {}),
      Tensor(nullptr, examples.target_dtype(), Layout::dense(with_batch(examples.target_shape(), batch)), {})};
  const Status done =
      pass.training ? plan_training(workspace, model, pass, shapes) : plan_inference(workspace, model, pass, shapes);
  if (!done) return fail(done.error());
  return workspace.counters().high_water + k_slack;
}

}  // namespace qorus::train
