// Bodies of qorus.train:fit: run_fit.
module qorus.train;
import qorus.std;
import :plan;
import :run;

namespace qorus::train {
namespace {

Status check(const FitOptions& options) noexcept {
  const auto refuse = [](const char* text) { return fail(Errc::invalid_argument, "fit", text); };
  if (options.epochs < 0) return refuse("epochs must not be negative");
  if (options.accumulate < 1) return refuse("accumulate must be at least 1");
  if (options.shards < 1 || options.shards > k_most_shards) return refuse("shards must be 1 to 32");
  if (options.clip_norm < 0) return refuse("clip_norm must not be negative");
  if (!(options.ema >= 0 && options.ema < 1)) return refuse("ema must be at least 0 and below 1");
  if (options.callbacks.too_many()) return refuse("at most 16 callbacks");
  if (options.metrics.too_many) return refuse("at most 8 metrics");
  if (!options.checkpoints.folder.empty()) {
    if (options.checkpoints.keep < 1) return refuse("checkpoints.keep must be at least 1");
    if (options.checkpoints.folder.size() > 300)
      return refuse("the checkpoints' folder is a path of at most 300 bytes");
  }
  return {};
}

// Bytes for a step (a shard has its own) and for validation; a size that was asked for is for the steps alone.
Result<std::size_t> plan_run(const ModelRef& model, const data::Examples& train, const data::Examples& validation,
                             const FitOptions& options, bool sharded) noexcept {
  constexpr std::size_t k_little = 64_KiB;
  if (options.scratch != 0) return sharded ? k_little : options.scratch;
  Result<std::size_t> step = k_little, check = k_little;
  if (!sharded) {
    step = plan_scratch(model, train, std::min(options.batch, train.size()), options.threads,
                        {.loss = &options.loss,
                         .forward = options.forward,
                         .training = true,
                         .bf16 = options.bf16,
                         .keeps = keeps_gradients(options)});
  }
  if (!step) return step;
  if (validation.size() > 0) {
    const EvaluateOptions how = validation_options(options);
    check = plan_scratch(model, validation, std::min(how.batch, validation.size()), how.threads,
                         {.loss = &how.loss, .forward = how.forward});
  }
  return check ? std::max(*step, *check) : check;
}

// Sets up what the run needs besides its parts.
Status prepare(Run& run) noexcept {
  const FitOptions& options = run.options;
  run.steps_per_epoch = (run.batches.size() + options.accumulate - 1) / options.accumulate;
  const std::size_t all = static_cast<std::size_t>(options.epochs) * run.steps_per_epoch;
  run.total_steps = std::max<std::size_t>(options.steps ? std::min(options.steps, all) : all, 1);
  run.event.epoch = 1;
  run.event.epochs = options.epochs;
  run.event.steps = run.batches.size();
  run.event.parameters = run.model.parameters;
  run.event.metrics = &options.metrics;
  run.event.confusion = &run.confusion;
  run.event.history = &run.history.epochs;
  if (auto room = run.history.epochs.reserve(static_cast<std::size_t>(options.epochs)); !room) return room;
  if (options.accumulate > 1 || options.shards > 1) {
    if (auto room = run.gathered.resize(run.model.parameters->block().floats); !room) return room;
  }
  return options.ema > 0 ? run.average.keep(*run.model.parameters) : Status{};
}

Status execute(Run& run, const data::Examples& validation) noexcept {
  const bool keeps = !run.options.checkpoints.folder.empty();
  if (keeps) {
    if (auto resumed = resume(run); !resumed) return resumed;
  }
  run.tell(Moment::run_begin);
  for (std::size_t i = 0; i < run.history.epochs.size() && run.event.failure.code == Errc::ok; ++i) {
    run.event.record = run.history.epochs[i];
    const int epoch = std::exchange(run.event.epoch, run.event.record.epoch);
    run.tell(Moment::epoch_replayed);
    if (keeps) (void)run.best_on_disk.improved(run.event);
    run.event.epoch = epoch;
    run.event.keep_best = false;
  }
  if (run.event.failure.code != Errc::ok) return fail(run.event.failure);
  return run.go(validation);
}

}  // namespace

Result<History> run_fit(const ModelRef& model, const data::Examples& train, const data::Examples& validation,
                        const FitOptions& options) noexcept {
  if (auto good = check(options); !good) return fail(good.error());
  data::Batches batches = train | data::shuffle(options.seed) | data::augment(options.augment) |
                          data::batch(options.batch) | data::prefetch(options.prefetch);
  if (auto good = batches.status(); !good) return fail(good.error());
  const bool sharded = options.shards > 1 && !options.step;
  auto scratch = plan_run(model, train, validation, options, sharded);
  if (!scratch) return fail(scratch.error());
  Workspace workspace{{.scratch = *scratch, .threads = options.threads, .seed = options.seed, .bf16 = options.bf16}};
  if (auto ready = workspace.status(); !ready) return fail(ready.error());
  OptimizerSpec optimizer = options.optimizer;
  optimizer.adam.bf16_moments |= options.bf16;
  Run run{.model = model,
          .options = options,
          .workspace = workspace,
          .batches = batches,
          .optimizer = Optimizer(optimizer, *model.parameters),
          .callbacks = options.callbacks,
          .validates_here = options.scratch == 0};
  if (auto ready = prepare(run); !ready) return fail(ready.error());
  if (auto ready = sharded ? run.make_shards(train) : Status{}; !ready) return fail(ready.error());
  const Status done = execute(run, validation);
  run.event.failure = done ? Error{} : done.error();
  if (done && options.ema > 0) run.average.swap_with(*model.parameters);
  run.tell(Moment::run_end);
  if (!done) return fail(done.error());
  if (run.event.failure.code != Errc::ok) return fail(run.event.failure);
  if (run.event.restore_best) run.best.restore(*model.parameters);
  run.history.stopped_early = run.event.stop && run.history.steps < run.total_steps;
  run.history.seconds = run.watch.seconds();
  run.history.scratch_high_water = workspace.counters().high_water;
  return std::move(run.history);
}

}  // namespace qorus::train
