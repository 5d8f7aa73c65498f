// Bodies of qorus.train:fit.
module;
#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <numeric>
#include <span>
#include <utility>
module qorus.train;

namespace qorus::train {
namespace {

// Rows whose largest output is the target class; -1 where outputs and targets are no classifier's.
std::int64_t count_correct(const Tensor& output, const Tensor& target) noexcept {
  if (target.dtype() != DType::i32 || output.rank() < 1 || output.shape().without(-1) != target.shape()) return -1;
  auto best = ops::argmax(ops::detach(output));
  if (!best) return -1;
  auto classes = best->values<std::int32_t>();
  auto wanted = target.values<std::int32_t>();
  if (!classes || !wanted) return -1;
  return std::inner_product(classes->begin(), classes->end(), wanted->begin(), std::int64_t{0}, std::plus<>{},
                            std::equal_to<>{});
}

// Means over examples.
struct Running {
  double loss = 0;
  std::int64_t correct = 0;
  std::size_t examples = 0, targets = 0;
  bool classifier = true;

  void add(float batch_loss, std::int64_t batch_correct, const Tensor& target) noexcept {
    const auto rows = static_cast<std::size_t>(target.dim(0));
    loss += static_cast<double>(batch_loss) * static_cast<double>(rows);
    examples += rows;
    targets += target.numel();
    classifier = classifier && batch_correct >= 0;
    correct += std::max<std::int64_t>(batch_correct, 0);
  }
  [[nodiscard]] double mean_loss() const noexcept { return examples ? loss / static_cast<double>(examples) : 0; }
  [[nodiscard]] double accuracy() const noexcept {
    return classifier && targets ? static_cast<double>(correct) / static_cast<double>(targets) : -1;
  }
};

Shape with_batch(const Shape& example, std::size_t batch) noexcept {
  return example.inserted(0, static_cast<std::int64_t>(batch));
}

// What one pass over a batch takes, from the shapes.
Result<std::size_t> plan_scratch(const ModelRef& model, const Loss* loss, const data::Examples& examples,
                                 std::size_t batch, int threads, bool training) noexcept {
  constexpr std::size_t k_slack = 64_KiB;  // alignment of what is planned apart
  Workspace workspace = planning_workspace(threads);
  const DType dtype = examples.input_dtype() == DType::i32 ? DType::i32 : DType::f32;
  const Tensor x(nullptr, dtype, Layout::dense(with_batch(examples.input_shape(), batch)), {});
  const Tensor y(nullptr, examples.target_dtype(), Layout::dense(with_batch(examples.target_shape(), batch)), {});
  const auto run = [&](auto& frame) -> Status {
    auto output = frame.input(x).and_then([&](const Tensor& t) { return model(t); });
    auto result = loss ? output.and_then([&](const Tensor& out) { return (*loss)(out, frame.input(y)); }) : output;
    if (!result) return fail(result.error());
    if (loss && output->rank() > 0 && y.dtype() == DType::i32) {
      if (auto best = ops::argmax(ops::detach(output)); !best) return fail(best.error());
    }
    if (!training) return {};
    auto gradients = backward(*result);
    if (!gradients) return fail(gradients.error());
    return gradients->norm().and_then([](float) -> Status { return {}; });
  };
  Status done;
  if (training) {
    auto tape = workspace.record();
    done = run(tape);
  } else {
    auto frame = workspace.frame();
    done = run(frame);
  }
  if (!done) return fail(done.error());
  return workspace.counters().high_water + k_slack;
}

// The parameters as they were at the best epoch.
class Snapshot {
 public:
  [[nodiscard]] Status keep(const nn::Parameters& parameters) noexcept {
    const std::span<const float> slab = parameters.slab();
    if (auto room = values_.resize(slab.size()); !room) return room;
    std::copy(slab.begin(), slab.end(), values_.begin());
    return {};
  }
  void restore(nn::Parameters& parameters) const noexcept {
    const std::span<float> trained = parameters.trainable_slab();
    if (values_.size() >= trained.size()) std::copy_n(values_.begin(), trained.size(), trained.begin());
  }

 private:
  List<float> values_;
};

// One run of fit: what lives as long as it does.
struct Run {
  const ModelRef& model;
  const FitOptions& options;
  Workspace& workspace;
  Optimizer optimizer;
  Callbacks callbacks;
  Event event;
  Running running;
  Snapshot best;

  // Forward, loss, backward, update. Allocates nothing.
  [[nodiscard]] Status step(const data::Batch& batch) noexcept {
    auto tape = workspace.record();
    auto output = tape.input(batch.x).and_then([&](const Tensor& x) { return model(x); });
    auto loss = options.loss(output, tape.input(batch.y));
    if (!loss) return fail(loss.error());
    auto value = loss->item();
    if (!value) return fail(value.error());
    if (!std::isfinite(*value))
      return fail(Errc::diverged, "fit", "the loss is not finite: a smaller learning rate, or clip_norm, may help");
    running.add(*value, count_correct(*output, batch.y), batch.y);
    event.last_loss = *value;
    auto gradients = backward(*loss);
    if (gradients && options.clip_norm > 0) gradients = clip_norm(*gradients, options.clip_norm);
    if (!gradients) return fail(gradients.error());
    return optimizer.step(*model.parameters, *gradients);
  }

  void tell(Moment moment) noexcept {
    event.moment = moment;
    event.examples = running.examples;
    event.loss = running.mean_loss();
    event.accuracy = running.accuracy();
    event.lr = optimizer.spec().lr();
    callbacks(event);
  }

  [[nodiscard]] Status epoch(data::Batches& batches, const data::Examples& validation, History& history) noexcept {
    const Stopwatch watch;
    running = {};
    event.step = 0;
    event.record = {};
    tell(Moment::epoch_begin);
    for (const data::Batch& batch : batches) {
      const double total = static_cast<double>(event.epochs) * static_cast<double>(event.steps);
      optimizer.set_lr(options.optimizer.lr() * options.schedule.factor(static_cast<double>(history.steps) / total));
      if (auto done = step(batch); !done) return done;
      ++event.step;
      ++history.steps;
      event.seconds = watch.seconds();
      tell(Moment::step_end);
      if (event.stop) break;
    }
    if (auto good = batches.status(); !good) return good;
    event.seconds = watch.seconds();
    event.record = {.epoch = event.epoch,
                    .loss = running.mean_loss(),
                    .accuracy = running.accuracy(),
                    .seconds = event.seconds,
                    .examples_per_second = static_cast<double>(running.examples) / std::max(event.seconds, 1e-9)};
    if (validation.size()) {
      auto measured = run_evaluate(
          model, validation,
          {.loss = options.loss, .batch = std::max<std::size_t>(options.batch, 256), .threads = options.threads});
      if (!measured) return fail(measured.error());
      event.record.validation_loss = measured->loss;
      event.record.validation_accuracy = measured->accuracy;
    }
    tell(Moment::epoch_end);
    if (event.keep_best) {
      event.keep_best = false;
      if (auto kept = best.keep(*model.parameters); !kept) return kept;
    }
    return history.epochs.push(event.record);
  }
};

Status check(const FitOptions& options) noexcept {
  if (options.epochs < 0) return fail(Errc::invalid_argument, "fit", "epochs must not be negative");
  if (options.clip_norm < 0) return fail(Errc::invalid_argument, "fit", "clip_norm must not be negative");
  if (options.callbacks.too_many()) return fail(Errc::invalid_argument, "fit", "at most 16 callbacks");
  return {};
}

}  // namespace

Result<History> run_fit(const ModelRef& model, const data::Examples& train, const data::Examples& validation,
                        const FitOptions& options) noexcept {
  if (auto good = check(options); !good) return fail(good.error());
  data::Batches batches = train | data::shuffle(options.seed) | data::batch(options.batch);
  if (auto good = batches.status(); !good) return fail(good.error());
  std::size_t scratch = options.scratch;
  if (scratch == 0) {
    auto planned =
        plan_scratch(model, &options.loss, train, std::min(options.batch, train.size()), options.threads, true);
    if (!planned) return fail(planned.error());
    scratch = *planned;
  }
  Workspace workspace{{.scratch = scratch, .threads = options.threads, .seed = options.seed}};
  if (auto ready = workspace.status(); !ready) return fail(ready.error());
  const Stopwatch watch;
  History history;
  if (auto room = history.epochs.reserve(static_cast<std::size_t>(options.epochs)); !room) return fail(room.error());
  Run run{.model = model,
          .options = options,
          .workspace = workspace,
          .optimizer = Optimizer(options.optimizer, *model.parameters),
          .callbacks = options.callbacks};
  run.event.epochs = options.epochs;
  run.event.steps = batches.size();
  run.event.parameters = model.parameters;
  run.tell(Moment::run_begin);
  for (int epoch = 1; epoch <= options.epochs && !run.event.stop; ++epoch) {
    run.event.epoch = epoch;
    if (auto done = run.epoch(batches, validation, history); !done) return fail(done.error());
  }
  run.tell(Moment::run_end);
  if (run.event.restore_best) run.best.restore(*model.parameters);
  history.stopped_early = run.event.stop;
  history.seconds = watch.seconds();
  history.scratch_high_water = workspace.counters().high_water;
  return history;
}

Result<Evaluation> run_evaluate(const ModelRef& model, const data::Examples& examples,
                                const EvaluateOptions& options) noexcept {
  data::Batches batches = examples | data::batch(options.batch);
  if (auto good = batches.status(); !good) return fail(good.error());
  auto scratch =
      plan_scratch(model, &options.loss, examples, std::min(options.batch, examples.size()), options.threads, false);
  if (!scratch) return fail(scratch.error());
  Workspace workspace{{.scratch = *scratch, .threads = options.threads}};
  Running running;
  for (const data::Batch& batch : batches) {
    auto frame = workspace.frame();
    auto output = frame.input(batch.x).and_then([&](const Tensor& x) { return model(x); });
    auto loss = options.loss(output, frame.input(batch.y));
    if (!loss) return fail(loss.error());
    auto value = loss->item();
    if (!value) return fail(value.error());
    running.add(*value, count_correct(*output, batch.y), batch.y);
  }
  if (auto good = batches.status(); !good) return fail(good.error());
  return Evaluation{running.mean_loss(), running.accuracy(), running.examples};
}

Result<Owned> run_predict(const ModelRef& model, const data::Examples& examples,
                          const PredictOptions& options) noexcept {
  data::Batches batches = examples | data::batch(options.batch);
  if (auto good = batches.status(); !good) return fail(good.error());
  auto scratch =
      plan_scratch(model, nullptr, examples, std::min(options.batch, examples.size()), options.threads, false);
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
