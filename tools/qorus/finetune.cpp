// qorus finetune: adapters, or all weights, of a language model trained on conversations or text.
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <span>
#include <string>
#include <string_view>
#include <utility>

#include "language.h"

import qorus.tune;

using namespace qorus;

namespace {

// Peak of the process's memory, in MB; 0 where the system does not tell.
double peak_megabytes() {
  double peak = 0;
  std::FILE* file = std::fopen("/proc/self/status", "r");
  if (!file) return 0;
  char line[256];
  while (std::fgets(line, sizeof line, file)) {
    if (std::strncmp(line, "VmHWM:", 6) == 0) peak = std::strtod(line + 6, nullptr) * 1024 / 1e6;
  }
  std::fclose(file);
  return peak;
}

struct Data {
  tune::Rows train, validation;
};

// The samples, cut in two and packed.
Result<Data> read_data(const Options& options, const llm::Model& model) {
  const std::int64_t context = options.context ? options.context : std::min<std::int64_t>(model.config().context, 512);
  if (context > model.config().context)
    return fail(Errc::invalid_argument, "finetune", "the context is longer than the model's",
                Dims{{context, model.config().context}, 2});
  List<char> jinja;
  const NamedTemplate* const named = find_template(options.jinja);
  const bool none = options.jinja == "none";
  if (!named && !none && !options.jinja.empty()) {
    auto read = read_input(options.jinja);
    if (!read) return fail(read.error());
    jinja = std::move(*read);
  }
  List<tune::Sample> samples;
  auto read = tune::read_samples(
      options.data, model,
      {.context = context, .jinja = named ? named->jinja : std::string_view(jinja.data(), jinja.size()), .plain = none},
      samples);
  if (!read) return fail(read.error());
  auto order = tune::shuffled(samples.size(), options.seed);
  if (!order) return fail(order.error());
  const std::span<const std::uint32_t> all = std::as_const(*order).span();
  const auto kept =
      static_cast<std::size_t>(std::lround(options.tuning.validation * static_cast<double>(samples.size())));
  if (options.tuning.validation > 0 && (kept == 0 || kept == samples.size()))
    return fail(Errc::invalid_size, "finetune", "too few samples to keep some apart", options.data);
  Data data;
  auto train = tune::pack_rows(samples.span(), all.subspan(kept), context);
  if (!train) return fail(train.error());
  data.train = std::move(*train);
  if (kept) {
    auto validation = tune::pack_rows(samples.span(), all.first(kept), context);
    if (!validation) return fail(validation.error());
    data.validation = std::move(*validation);
  }
  return data;
}

// What is told after each pass, and how many rows there were in all.
struct Told {
  const Options& options;
  const llm::Model& model;
  std::size_t rows = 0, before = 0, epochs = 0;

  void operator()(train::Event& event) noexcept {
    if (event.moment == train::Moment::step_end) {
      rows += event.examples - (event.examples > before ? before : 0);
      before = event.examples;
      if (Interrupt::asked()) event.stop = true;
    }
    if (event.moment != train::Moment::epoch_end) return;
    before = 0;
    ++epochs;
    if (event.record.validation_loss >= 0)
      std::fprintf(stderr, "validation perplexity %.4f\n", std::exp(event.record.validation_loss));
    if (!options.tuning.sample.empty()) sample();
  }

  void sample() const noexcept {
    auto session = llm::Session::create(model, {.threads = threads_given(options)});
    if (!session) return;
    std::fprintf(stderr, "%s", options.tuning.sample.c_str());
    (void)llm::generate(*session, options.tuning.sample, {.max_tokens = options.tuning.sample_tokens},
                        [&](std::string_view piece) {
                          std::fprintf(stderr, "%.*s", static_cast<int>(piece.size()), piece.data());
                          return !Interrupt::asked();
                        });
    std::fputs("\n", stderr);
  }
};

// What would only be found out after the run: that the result cannot be written.
Status check_place(const Options& options) {
  if (options.tuning.full) {
    if (auto base = io::read_gguf(options.model); !base) return fail(base.error());  // whose metadata it gets
  }
  if (options.tuning.full || options.out.ends_with(".gguf")) {
    auto file = AtomicFile::create(options.out);
    return file ? Status{} : fail(file.error());
  }
  if (::mkdir(options.out.c_str(), 0777) == 0 || errno == EEXIST) return {};
  return fail_system(errno, "finetune", "the folder cannot be made", options.out);
}

Status write_result(const tune::Tuner& tuner, const Options& options) {
  if (!tuner.full()) return tune::write_adapter(tuner, options.out, options.model);
  const auto written = tune::write_tuned(tuner, options.model, options.out, {.threads = threads_given(options)});
  return written ? Status{} : fail(written.error());
}

Result<train::History> run(tune::Tuner& tuner, const Data& data, const Options& options, Told& told) {
  const auto batch = static_cast<std::size_t>(options.batch),
             accumulate = static_cast<std::size_t>(options.tuning.accumulate);
  const std::size_t per_epoch = ((data.train.count + batch - 1) / batch + accumulate - 1) / accumulate;
  const auto steps = static_cast<std::size_t>(options.tuning.steps);
  const int epochs = options.epochs ? options.epochs : static_cast<int>((steps + per_epoch - 1) / per_epoch);
  const auto nothing = [](train::Event&) noexcept {};
  return tuner.fit(
      data.train,
      {.optimizer = optim::adamw({.lr = static_cast<float>(options.learning_rate),
                                  .weight_decay = options.tuning.full ? 0.01f : 0.0f}) |
                    optim::no_decay_on_vectors(),
       .schedule = schedule::linear_warmup(0.05) | schedule::cosine(),
       .epochs = epochs,
       .steps = steps,
       .batch = batch,
       .accumulate = accumulate,
       .seed = options.seed,
       .clip_norm = 1,
       .threads = threads_given(options),
       .bf16 = options.tuning.bf16,
       .checkpoints = {.folder = options.tuning.checkpoints,
                       .every_steps = static_cast<std::size_t>(options.tuning.checkpoint_every)},
       .callbacks = {tune::validation(tuner, data.validation, threads_given(options)), train::progress(),
                     [&told](train::Event& event) noexcept { told(event); },
                     options.tuning.log.empty() ? train::Callback(nothing)
                                                : train::Callback(train::json_logger(options.tuning.log, 1)),
                     options.tuning.report.empty() ? train::Callback(nothing)
                                                   : train::Callback(train::report(options.tuning.report))}});
}

}  // namespace

int finetune_command(const Options& options) {
  if (auto place = check_place(options); !place) return report(place);
  const Interrupt interrupt;
  auto model = open_model(options, false);
  if (!model) return report(model);
  auto data = read_data(options, *model);
  if (!data) return report(data);
  auto tuner = tune::Tuner::create(*model, {.full = options.tuning.full,
                                            .rank = options.tuning.rank,
                                            .alpha = static_cast<float>(options.tuning.alpha),
                                            .targets = options.tuning.targets,
                                            .seed = options.seed,
                                            .recompute = options.tuning.recompute});
  if (!tuner) return report(tuner);
  const tune::Rows& rows = data->train;
  std::fprintf(stderr,
               "%zu numbers trained in %zu matrices; %zu samples, of whose %zu tokens %zu count, in %zu rows of %lld\n",
               tuner->parameters().trainable_count(), tuner->matrices(), rows.samples, rows.places, rows.tokens,
               rows.count, static_cast<long long>(rows.context));
  Told told{options, *model};
  auto done = run(*tuner, *data, options, told);
  if (!done) {
    // The weights are those before the pass that failed: what whole passes gave is not lost.
    if (done.error().code == Errc::diverged && told.epochs > 0 && write_result(*tuner, options))
      std::fprintf(stderr, "%s has what the %zu passes before it gave\n", options.out.c_str(), told.epochs);
    return report(done);
  }
  if (auto written = write_result(*tuner, options); !written) return report(written);
  const double share = static_cast<double>(rows.places) / static_cast<double>(rows.count);
  std::printf(
      "%zu steps in %.1f s: %.0f tokens/s, peak memory %.1f MB, of which a step's scratch %.1f MB; written to %s\n",
      done->steps, done->seconds, static_cast<double>(told.rows) * share / std::max(done->seconds, 1e-9),
      peak_megabytes(), static_cast<double>(done->scratch_high_water) / 1e6, options.out.c_str());
  return 0;
}
