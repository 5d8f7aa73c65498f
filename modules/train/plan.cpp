// Bodies of qorus.train:plan.
module qorus.train;
import qorus.std;
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
  auto forward = compute(model, *pass.loss, pass.forward, tape, batch);
  if (!forward) return fail(forward.error());
  const bool measured = forward->output.shape().valid() && forward->output.context();
  if (measured && pass.shards == 0) {
    if (auto planned = plan_metrics(forward->output); !planned) return planned;
  }
  if (!pass.keeps) {
    const auto none = [](const Leaf&, const float*) {};
    auto done = backward_each(forward->loss, model.parameters->block(), none);
    return done ? Status{} : fail(done.error());
  }
  auto gradients = backward(forward->loss);
  if (!gradients) return fail(gradients.error());
  if (measured && pass.shards > 0) return plan_metrics(forward->output);
  if (auto norm = gradients->norm(); !norm) return fail(norm.error());
  return {};
}

Status plan_inference(Workspace& workspace, const ModelRef& model, const Pass& pass,
                      const data::Batch& batch) noexcept {
  if (!pass.loss) {
    auto frame = workspace.frame();
    auto output = frame.input(batch.x).and_then([&](const Tensor& x) { return model(x); });
    return output ? Status{} : fail(output.error());
  }
  auto tape = workspace.record();
  only_observe(tape);
  auto forward = compute(model, *pass.loss, pass.forward, tape, batch);
  if (!forward) return fail(forward.error());
  const bool measured = forward->output.shape().valid() && forward->output.context();
  return measured ? plan_metrics(forward->output) : Status{};
}

}  // namespace

Result<Forward> compute(const ModelRef& model, const Loss& loss, const ForwardRef& forward, Tape& tape,
                        const data::Batch& batch) noexcept {
  if (forward) return forward(model, tape, batch);
  auto output = tape.input(batch.x).and_then([&](const Tensor& x) { return model(x); });
  auto value = loss(output, tape.input(batch.y));
  if (!value) return fail(value.error());
  return Forward{*value, *output};
}

Result<std::size_t> plan_scratch(const ModelRef& model, const data::Examples& examples, std::size_t batch, int threads,
                                 const Pass& pass) noexcept {
  constexpr std::size_t k_slack = 64_KiB;  // alignment of what is planned apart
  Workspace workspace = planning_workspace(threads, pass.bf16);
  const DType dtype = examples.input_dtype() == DType::i32 ? DType::i32 : DType::f32;
  const auto plan = [&](std::size_t rows) -> Status {
    const data::Batch shapes{
        Tensor(nullptr, dtype, Layout::dense(with_batch(examples.input_shape(), rows)), {}),
        Tensor(nullptr, examples.target_dtype(), Layout::dense(with_batch(examples.target_shape(), rows)), {})};
    return pass.training ? plan_training(workspace, model, pass, shapes)
                         : plan_inference(workspace, model, pass, shapes);
  };
  for (const std::size_t whole : {batch, batch ? examples.size() % batch : 0}) {
    const std::size_t parts = std::max<std::size_t>(pass.shards, 1), each = (whole + parts - 1) / parts;
    const std::size_t last = each ? whole - (whole - 1) / each * each : 0;
    for (const std::size_t rows : {each, last != each ? last : 0}) {
      if (rows == 0 && batch > 0) continue;
      if (auto done = plan(rows); !done) return fail(done.error());
    }
  }
  return workspace.counters().high_water + k_slack;
}

}  // namespace qorus::train
