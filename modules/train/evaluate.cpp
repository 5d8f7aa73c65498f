// Bodies of qorus.train:fit: evaluate and predict.
module qorus.train;
import qorus.std;
import :plan;

namespace qorus::train {

Result<Evaluation> evaluate_on(Workspace& workspace, const ModelRef& model, const data::Examples& examples,
                               const EvaluateOptions& options) noexcept {
  if (options.metrics.too_many) return fail(Errc::invalid_argument, "evaluate", "at most 8 metrics");
  data::Batches batches = examples | data::batch(options.batch);
  if (auto good = batches.status(); !good) return fail(good.error());
  Meter meter(options.metrics, options.confusion);
  for (const data::Batch& batch : batches) {
    auto tape = workspace.record();
    only_observe(tape);
    auto forward = compute(model, options.loss, options.forward, tape, batch);
    if (!forward) return fail(forward.error());
    auto value = forward->loss.item();
    if (!value) return fail(value.error());
    if (auto added = meter.add(forward->output, batch.y, *value); !added) return fail(added.error());
  }
  if (auto good = batches.status(); !good) return fail(good.error());
  Evaluation evaluation{.loss = meter.loss(), .accuracy = meter.accuracy(), .examples = meter.examples()};
  for (std::size_t i = 0; i < options.metrics.count; ++i) evaluation.metrics[i] = meter.value(i);
  evaluation.confusion = std::move(meter).take_confusion();
  return evaluation;
}

Result<Evaluation> run_evaluate(const ModelRef& model, const data::Examples& examples,
                                const EvaluateOptions& options) noexcept {
  if (auto good = examples.status(); !good) return fail(good.error());
  auto scratch = plan_scratch(model, examples, std::min(options.batch, examples.size()), options.threads,
                              {.loss = &options.loss, .forward = options.forward});
  if (!scratch) return fail(scratch.error());
  Workspace workspace{{.scratch = *scratch, .threads = options.threads}};
  return evaluate_on(workspace, model, examples, options);
}

Result<Owned> run_predict(const ModelRef& model, const data::Examples& examples,
                          const PredictOptions& options) noexcept {
  data::Batches batches = examples | data::batch(options.batch);
  if (auto good = batches.status(); !good) return fail(good.error());
  auto scratch = plan_scratch(model, examples, std::min(options.batch, examples.size()), options.threads, {});
  if (!scratch) return fail(scratch.error());
  Workspace workspace{{.scratch = *scratch, .threads = options.threads}};
  Owned all;
  std::size_t done = 0;  // floats
  for (const data::Batch& batch : batches) {
    auto frame = workspace.frame();
    auto output = frame.input(batch.x).and_then([&](const Tensor& x) { return model(x); });
    if (!output) return fail(output.error());
    if (auto ok = output->check(DType::f32, "predict"); !ok) return fail(ok.error());
    if (done == 0) {
      auto room = Owned::zeros(output->shape().with(0, static_cast<std::int64_t>(examples.size())));
      if (!room) return fail(room.error());
      all = std::move(*room);
    }
    const std::span<float> rest = all.fill<float>().subspan(done);
    if (output->numel() > rest.size())
      return fail(Errc::invalid_size, "predict", "the model gives batches of another size than it is given",
                  output->shape().dims());
    if (auto copied = output->copy_to(rest.first(output->numel())); !copied) return fail(copied.error());
    done += output->numel();
  }
  if (auto good = batches.status(); !good) return fail(good.error());
  return all;
}

}  // namespace qorus::train
