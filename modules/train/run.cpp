// Bodies of qorus.train:run but for the checkpoints.
module;
#include "kernels/kernels.h"
module qorus.train;
import qorus.std;
import :plan;
import :run;
import qorus.io;

namespace qorus::train {
namespace {

constexpr std::size_t k_piece = 65536;  // floats per task

// y = scale y + alpha x
void blend(const Context& context, float scale, float alpha, const float* x, float* y, std::size_t n) noexcept {
  parallel_chunks(context, n, k_piece, [&](std::size_t begin, std::size_t end) {
    const kernels::Table& table = kernels::active();
    if (scale != 1) table.unary(kernels::Unary::mul, y + begin, y + begin, end - begin, scale);
    table.axpy(alpha, x + begin, y + begin, end - begin);
  });
}

float norm_of(std::span<const float> values) noexcept {
  float square = 0;
  kernels::active().reduce(kernels::Reduce::sum_square, values.data(), &square, 1, values.size(), 1);
  return std::sqrt(square);
}

}  // namespace

tl::unexpected<Error> diverged() noexcept {
  return fail(Errc::diverged, "fit", "the loss is not finite: a smaller learning rate, or clip_norm, may help");
}

EvaluateOptions validation_options(const FitOptions& options) noexcept {
  return {.loss = options.loss,
          .forward = options.forward,
          .batch = std::max<std::size_t>(options.batch, 256),
          .threads = options.threads,
          .metrics = options.metrics,
          .confusion = true};
}

Status Snapshot::keep(const nn::Parameters& model) noexcept {
  if (auto room = make_room(model); !room) return room;
  const std::span<const float> slab = model.slab();
  std::copy(slab.begin(), slab.end(), values_.begin());
  return {};
}

void Snapshot::restore(nn::Parameters& model) const noexcept {
  if (taken()) model.restore(values_.span());
}

void Snapshot::swap_with(nn::Parameters& model) noexcept {
  const std::span<float> trained = model.trainable_slab();
  if (values_.size() >= trained.size()) std::swap_ranges(trained.begin(), trained.end(), values_.begin());
}

void Run::tell(Moment moment) noexcept {
  event.moment = moment;
  event.examples = meter.examples();
  event.loss = meter.loss();
  event.accuracy = meter.accuracy();
  event.lr = optimizer.spec().lr();
  event.total_step = history.steps;
  event.run_seconds = watch.seconds();
  callbacks(event);
}

// These weights gave a finite loss: what an epoch began with is remembered.
Status Run::note_good() noexcept { return std::exchange(noted, true) ? Status{} : before.keep(*model.parameters); }

// Forward, loss, backward, and an update once enough batches are gathered. Allocates nothing when warm.
Status Run::step(const data::Batch& batch) noexcept {
  if (options.step) return own_step(batch);
  if (options.shards > 1) return step_by_shards(batch);
  auto tape = workspace.record();
  auto forward = compute(model, options.loss, options.forward, tape, batch);
  if (!forward) return fail(forward.error());
  auto value = forward->loss.item();
  if (!value) return fail(value.error());
  event.last_loss = *value;
  if (!std::isfinite(*value)) return diverged();
  if (auto kept = note_good(); !kept) return kept;
  if (auto added = meter.add(forward->output, batch.y, *value); !added) return added;
  if (!keeps_gradients(options)) {
    event.gradient_norm = -1;
    set_rate();
    if (auto done = optimizer.step(*model.parameters, forward->loss); !done) return done;
    finish_step(workspace.context());
    return {};
  }
  auto gradients = backward(forward->loss);
  if (!gradients) return fail(gradients.error());
  model.parameters->apply(gradients->state_updates());
  auto slab = gradients->slab(model.parameters->block());
  if (!slab) return fail(slab.error());
  const Context& context = gradients->context();
  if (options.accumulate > 1) {
    const MeanGradients part{slab->data(), static_cast<std::size_t>(batch.x.dim(0))};
    return gather(std::span(&part, 1), context);
  }
  float norm = -1;
  if (options.clip_norm > 0 || options.gradient_norm) {
    auto measured = gradients->norm();
    if (!measured) return fail(measured.error());
    norm = *measured;
  }
  return update(*slab, context, 1, norm);
}

Status Run::own_step(const data::Batch& batch) noexcept {
  if (auto kept = note_good(); !kept) return kept;
  set_rate();
  StepContext step{model, workspace, optimizer, batch};
  auto value = options.step(step);
  if (!value) return fail(value.error());
  event.last_loss = *value;
  if (!std::isfinite(*value)) return diverged();
  finish_step(workspace.context());
  return meter.add(Tensor(), batch.y, *value);
}

// Adds the parts, in their order, to what is gathered; after the last batch of a step, updates.
Status Run::gather(std::span<const MeanGradients> parts, const Context& context) noexcept {
  const bool first = gathered_batches == 0;
  parallel_chunks(context, gathered.size(), k_piece, [&](std::size_t begin, std::size_t end) {
    const kernels::Table& table = kernels::active();
    float* sum = gathered.data() + begin;
    for (std::size_t i = 0; i < parts.size(); ++i) {
      const float weight = static_cast<float>(parts[i].examples);
      if (first && i == 0) {
        table.unary(kernels::Unary::mul, parts[i].values + begin, sum, end - begin, weight);
      } else {
        table.axpy(weight, parts[i].values + begin, sum, end - begin);
      }
    }
  });
  for (const MeanGradients& part : parts) gathered_examples += part.examples;
  const bool last = event.step + 1 == event.steps;
  if (++gathered_batches < options.accumulate && !last) return {};
  const float scale = 1 / static_cast<float>(gathered_examples);
  const float norm = options.clip_norm > 0 || options.gradient_norm ? scale * norm_of(gathered.span()) : -1;
  gathered_batches = gathered_examples = 0;
  return update(gathered.span(), context, scale, norm);
}

void Run::set_rate() noexcept {
  const double total = static_cast<double>(total_steps), epochs = total / static_cast<double>(steps_per_epoch);
  const double progress = static_cast<double>(history.steps) / total;
  optimizer.set_lr(options.optimizer.lr() * event.lr_scale * options.schedule.factor(progress, epochs, total));
}

void Run::finish_step(const Context& context) noexcept {
  ++history.steps;
  if (options.ema == 0) return;
  const std::span<const float> p = model.parameters->trainable_slab();
  blend(context, options.ema, 1 - options.ema, p.data(), average.values().data(), p.size());
}

Status Run::update(std::span<const float> gradients, const Context& context, float scale, float norm) noexcept {
  event.gradient_norm = norm;
  if (options.clip_norm > 0) {
    if (!std::isfinite(norm)) return fail(Errc::diverged, "fit", "a gradient is not finite");
    if (norm > options.clip_norm) scale *= options.clip_norm / norm;
  }
  set_rate();
  if (auto done = optimizer.step(*model.parameters, gradients, context, scale); !done) return done;
  finish_step(context);
  return {};
}

Status Run::validate(const data::Examples& validation) noexcept {
  if (!validation.size()) return {};
  const EvaluateOptions how = validation_options(options);
  const std::uint64_t draws = workspace.draws();
  auto measured =
      validates_here ? evaluate_on(workspace, model, validation, how) : run_evaluate(model, validation, how);
  workspace.set_draws(options.seed, draws);
  if (!measured) return fail(measured.error());
  event.record.validation_loss = measured->loss;
  event.record.validation_accuracy = measured->accuracy;
  event.record.metrics = measured->metrics;
  confusion = std::move(measured->confusion);
  return {};
}

Status Run::finish_epoch(const data::Examples& validation) noexcept {
  event.seconds = epoch_watch.seconds();
  event.record = {.epoch = event.epoch,
                  .step = history.steps,
                  .loss = meter.loss(),
                  .accuracy = meter.accuracy(),
                  .lr = static_cast<double>(optimizer.spec().lr()),
                  .gradient_norm = static_cast<double>(event.gradient_norm),
                  .seconds = event.seconds,
                  .examples_per_second = static_cast<double>(meter.examples()) / std::max(event.seconds, 1e-9)};
  if (options.ema > 0) average.swap_with(*model.parameters);
  Status done = validate(validation);
  if (done) {
    tell(Moment::epoch_end);
    if (std::exchange(event.keep_best, false)) done = best.keep(*model.parameters);
  }
  if (done && !options.checkpoints.folder.empty() && best_on_disk.improved(event)) {
    Text path;
    ((path += options.checkpoints.folder) += "/best.safetensors");
    done = io::save(*model.parameters, path.view());
  }
  if (options.ema > 0) average.swap_with(*model.parameters);
  if (!done) return done;
  return history.epochs.push(event.record);
}

Status Run::epoch(const data::Examples& validation) noexcept {
  epoch_watch.restart();
  if (event.step == 0) meter.clear();
  event.record = {};
  noted = false;
  tell(Moment::epoch_begin);
  const std::size_t every = options.checkpoints.folder.empty() ? 0 : options.checkpoints.every_steps;
  for (const data::Batch& batch : batches) {
    if (has_all_steps()) break;  // already when it was resumed
    Status done = step(batch);
    if (!done && done.error().code == Errc::diverged) {
      before.restore(*model.parameters);
      tell(Moment::step_end);
      if (event.stop)
        return history.epochs.push(
            {.epoch = event.epoch, .step = history.steps, .loss = static_cast<double>(event.last_loss)});
    }
    if (!done) return done;
    ++event.step;
    event.seconds = epoch_watch.seconds();
    tell(Moment::step_end);
    if (event.failure.code != Errc::ok) return fail(event.failure);
    if (every && gathered_batches == 0 && history.steps % every == 0 && event.step < event.steps) {
      if (auto saved = save_checkpoint(*this); !saved) return saved;
    }
    if (has_all_steps()) event.stop = true;
    if (event.stop) break;
  }
  if (auto good = batches.status(); !good) return good;
  const bool keeps = !options.checkpoints.folder.empty(), whole = event.step == event.steps;
  if (keeps && !whole && gathered_batches == 0) {  // stopped on the way: a later run goes on from here
    if (auto saved = save_checkpoint(*this); !saved) return saved;
  }
  if (auto done = finish_epoch(validation); !done) return done;
  if (event.failure.code != Errc::ok) return fail(event.failure);
  event.step = 0;
  ++event.epoch;
  if (!keeps || !whole) return {};
  return save_checkpoint(*this);
}

Status Run::go(const data::Examples& validation) noexcept {
  while (event.epoch <= options.epochs && !event.stop && (event.step > 0 || !has_all_steps())) {
    if (auto done = epoch(validation); !done) return done;
  }
  return {};
}

}  // namespace qorus::train
