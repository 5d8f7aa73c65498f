// Bodies of qorus.train:run: checkpoints. A checkpoint is a sealed safetensors file:
//   model.NAME      each parameter
//   optimizer.0, .1 the moments, laid out as the slab, f32 or bf16 (present as the optimizer has them)
//   average, best   the moving average and the best epoch's slab, if there are any
//   state           U8: the numbers of `State`; history: U8, the numbers of each epoch's record
// All numbers are little-endian 64-bit words, as this machine has them.
module;
#include <dirent.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
module qorus.train;
import qorus.std;
import :run;
import qorus.io;

namespace qorus::train {
namespace {

constexpr std::uint64_t k_version = 1;
constexpr std::string_view k_moments[] = {"optimizer.0", "optimizer.1"};
constexpr std::string_view k_begin = "checkpoint-", k_end = ".safetensors";

std::uint64_t word(double value) noexcept { return std::bit_cast<std::uint64_t>(value); }
double number(std::uint64_t value) noexcept { return std::bit_cast<double>(value); }

// The words of a run between two steps.
struct State {
  // clang-format off
  enum Field : std::size_t {
    version, steps, epoch, step, data_seed, data_epoch, data_index, draws, optimizer_steps,
    meter_loss, meter_examples, meter_correct, meter_counted, meter_classifier,
    lr_scale, batch, accumulate, examples, has_best, ema, count_
  };
  // clang-format on
  std::array<std::uint64_t, count_> words{};
  [[nodiscard]] std::uint64_t operator[](Field field) const noexcept { return words[field]; }
};

// Batches of a step, shards of a batch and bf16 in one word, which is the number of batches where there is nothing else.
constexpr std::uint64_t k_bf16 = std::uint64_t{1} << 63;
std::uint64_t gathering(const FitOptions& options) noexcept {
  return options.accumulate | static_cast<std::uint64_t>(options.shards - 1) << 48 | (options.bf16 ? k_bf16 : 0);
}

State state_of(const Run& run) noexcept {
  const data::Position place = run.batches.position();
  const Meter::Sums sums = run.meter.sums();
  State state;
  state.words = {k_version,
                 run.history.steps,
                 static_cast<std::uint64_t>(run.event.epoch),
                 run.event.step,
                 place.seed,
                 place.epoch,
                 place.index,
                 run.workspace.draws(),
                 run.optimizer.steps(),
                 word(sums.loss),
                 sums.examples,
                 sums.correct,
                 sums.counted,
                 sums.classifier ? 1u : 0u,
                 word(static_cast<double>(run.event.lr_scale)),
                 run.options.batch,
                 gathering(run.options),
                 run.batches.examples(),
                 run.best.taken() ? 1u : 0u,
                 word(static_cast<double>(run.options.ema))};
  return state;
}

constexpr std::size_t k_record_words = 11 + Metrics::k_most;
std::array<std::uint64_t, k_record_words> words_of(const EpochRecord& r) noexcept {
  std::array<std::uint64_t, k_record_words> words{static_cast<std::uint64_t>(r.epoch),
                                                  r.step,
                                                  word(r.loss),
                                                  word(r.accuracy),
                                                  word(r.validation_loss),
                                                  word(r.validation_accuracy),
                                                  word(r.lr),
                                                  word(r.gradient_norm),
                                                  word(r.seconds),
                                                  word(r.examples_per_second),
                                                  0};
  for (std::size_t i = 0; i < Metrics::k_most; ++i) words[11 + i] = word(r.metrics[i]);
  return words;
}
EpochRecord record_of(std::span<const std::uint64_t, k_record_words> words) noexcept {
  EpochRecord r{.epoch = static_cast<int>(words[0]),
                .step = words[1],
                .loss = number(words[2]),
                .accuracy = number(words[3]),
                .validation_loss = number(words[4]),
                .validation_accuracy = number(words[5]),
                .lr = number(words[6]),
                .gradient_norm = number(words[7]),
                .seconds = number(words[8]),
                .examples_per_second = number(words[9])};
  for (std::size_t i = 0; i < Metrics::k_most; ++i) r.metrics[i] = number(words[11 + i]);
  return r;
}

Tensor bytes_of(std::span<const std::uint64_t> words) noexcept {
  const std::span bytes(reinterpret_cast<const std::uint8_t*>(words.data()), words.size_bytes());
  return Tensor::borrow(bytes, Shape{static_cast<std::int64_t>(bytes.size())});
}
Tensor floats_of(std::span<const float> values) noexcept {
  return Tensor::borrow(values, Shape{static_cast<std::int64_t>(values.size())});
}

// Copies a U8 tensor into words. Errors: corrupt, not_found.
Status read_words(const io::SafeTensors& file, std::string_view name, std::span<std::uint64_t> words) noexcept {
  auto tensor = file.tensor(name);
  if (!tensor) return fail(tensor.error());
  if (tensor->dtype() != DType::u8 || tensor->numel() != words.size_bytes())
    return fail(Errc::corrupt, "resume", "of another length than a checkpoint's", name);
  std::memcpy(words.data(), tensor->data(), words.size_bytes());
  return {};
}
Status read_values(const io::SafeTensors& file, std::string_view name, DType dtype,
                   std::span<std::byte> values) noexcept {
  auto tensor = file.tensor(name);
  if (!tensor) return fail(tensor.error());
  if (tensor->dtype() != dtype || row_bytes(dtype, tensor->numel()) != values.size())
    return fail(Errc::invalid_argument, "resume", "the checkpoint is of another model or optimizer", name);
  tensor->copy_elements(values.data());
  return {};
}
Status read_floats(const io::SafeTensors& file, std::string_view name, std::span<float> values) noexcept {
  return read_values(file, name, DType::f32, std::as_writable_bytes(values));
}

// --- the folder ---

Text file_in(std::string_view folder, std::string_view name) noexcept {
  Text path;
  ((path += folder) += "/") += name;
  return path;
}
Text checkpoint_path(std::string_view folder, std::uint64_t step) noexcept {
  char name[64];
  std::snprintf(name, sizeof name, "checkpoint-%012llu.safetensors", static_cast<unsigned long long>(step));
  return file_in(folder, name);
}

// Calls f(file name) for each file of a folder. Errors: io, not_found.
template <class F>
Status for_each_file(std::string_view folder, F&& f) noexcept {
  Text path;
  path += folder;
  DIR* opened = ::opendir(path.c_str());
  if (!opened) return fail_system(errno, "checkpoints", "cannot read this folder", folder);
  while (const dirent* entry = ::readdir(opened)) f(std::string_view(entry->d_name));
  ::closedir(opened);
  return {};
}

// The steps of the checkpoints in a folder, newest first.
Result<List<std::uint64_t>> find_checkpoints(std::string_view folder) noexcept {
  List<std::uint64_t> steps;
  Status status;
  auto read = for_each_file(folder, [&](std::string_view name) {
    if (!name.starts_with(k_begin) || !name.ends_with(k_end)) return;
    std::uint64_t step = 0;
    const char* last = name.data() + name.size() - k_end.size();
    const auto [end, error] = std::from_chars(name.data() + k_begin.size(), last, step);
    if (error == std::errc() && end == last && status) status = steps.push(step);
  });
  if (!read) return fail(read.error());
  if (!status) return fail(status.error());
  std::sort(steps.begin(), steps.end(), [](std::uint64_t a, std::uint64_t b) { return a > b; });
  return steps;
}

// Removes what a run that was killed while it wrote has left behind.
Status remove_unfinished(std::string_view folder) noexcept {
  return for_each_file(folder, [&](std::string_view name) {
    if (name.find(".safetensors.tmp-") != name.npos) ::unlink(file_in(folder, name).c_str());
  });
}

// --- reading ---

// Whether the file belongs to this run and model; nothing is changed.
Status check(const Run& run, const io::SafeTensors& file, State& state) noexcept {
  const auto refuse = [](const char* text) { return fail(Errc::invalid_argument, "resume", text); };
  if (auto read = read_words(file, "state", state.words); !read) return read;
  if (state[State::version] != k_version)
    return fail(Errc::unsupported, "resume", "a checkpoint of another version of the format");
  for (const nn::Parameter& parameter : run.model.parameters->parameters()) {
    Text name;
    (name += "model.") += parameter.name.view();
    const io::TensorEntry* entry = file.find(name.view());
    if (!entry) return fail(Errc::not_found, "resume", "the checkpoint lacks this parameter", parameter.name.view());
    if (entry->shape != parameter.tensor.shape()) {
      return fail(fail(Errc::invalid_size, "resume", "the checkpoint is of another model", entry->shape.dims(),
                       parameter.tensor.shape().dims())
                      .value()
                      .about(parameter.name.view()));
    }
  }
  if (state[State::data_seed] != run.options.seed) return refuse("the checkpoint is of a run with another seed");
  if ((state[State::accumulate] ^ gathering(run.options)) == k_bf16)
    return refuse("the checkpoint and this run differ in whether they store bf16");
  if (state[State::batch] != run.options.batch || state[State::accumulate] != gathering(run.options))
    return refuse("the checkpoint is of a run with other batches");
  if (state[State::examples] != run.batches.examples()) return refuse("the checkpoint is of a run over other data");
  if ((number(state[State::ema]) > 0) != (run.options.ema > 0))
    return refuse("the checkpoint and this run differ in whether they average the weights");
  return {};
}

Status read_history(Run& run, const io::SafeTensors& file) noexcept {
  auto tensor = file.tensor("history");
  if (!tensor) return fail(tensor.error());
  const std::size_t bytes = k_record_words * sizeof(std::uint64_t);
  if (tensor->dtype() != DType::u8 || tensor->numel() % bytes != 0)
    return fail(Errc::corrupt, "resume", "of another length than a checkpoint's", "history");
  run.history.epochs.clear();
  for (std::size_t at = 0; at < tensor->numel(); at += bytes) {
    std::array<std::uint64_t, k_record_words> words;
    std::memcpy(words.data(), tensor->data() + at, bytes);
    if (auto pushed = run.history.epochs.push(record_of(words)); !pushed) return pushed;
  }
  return {};
}

Status restore(Run& run, const io::SafeTensors& file, const State& state) noexcept {
  nn::Parameters& model = *run.model.parameters;
  for (const nn::Parameter& parameter : model.parameters()) {
    Text name;
    (name += "model.") += parameter.name.view();
    auto done =
        file.tensor(name.view()).and_then([&](const Tensor& t) { return model.assign(parameter.name.view(), t); });
    if (!done) return done;
  }
  for (int i = 0; i < 2; ++i) {
    const std::span<float> moment = run.optimizer.moment(i);
    const std::span<std::uint16_t> brief = run.optimizer.short_moment(i);
    if (moment.empty() && brief.empty()) continue;
    auto done = brief.empty() ? read_floats(file, k_moments[i], moment)
                              : read_values(file, k_moments[i], DType::bf16, std::as_writable_bytes(brief));
    if (!done) return done;
  }
  if (run.options.ema > 0) {
    if (auto done = read_floats(file, "average", run.average.values()); !done) return done;
  }
  if (state[State::has_best]) {
    if (auto room = run.best.make_room(model); !room) return room;
    if (auto done = read_floats(file, "best", run.best.values()); !done) return done;
  }
  if (auto done = read_history(run, file); !done) return done;
  run.history.steps = run.history.resumed_at = state[State::steps];
  run.event.epoch = static_cast<int>(state[State::epoch]);
  run.event.step = state[State::step];
  run.event.lr_scale = static_cast<float>(number(state[State::lr_scale]));
  run.optimizer.set_steps(state[State::optimizer_steps]);
  run.workspace.set_draws(run.options.seed, state[State::draws]);
  run.meter.set_sums({number(state[State::meter_loss]), state[State::meter_examples], state[State::meter_correct],
                      state[State::meter_counted], state[State::meter_classifier] != 0});
  return run.batches.seek({state[State::data_seed], state[State::data_epoch], state[State::data_index]});
}

}  // namespace

Status save_checkpoint(Run& run) noexcept {
  const std::string_view folder = run.options.checkpoints.folder;
  const nn::Parameters& model = *run.model.parameters;
  List<Text> names;
  List<io::NamedTensor> tensors;
  if (auto room = names.reserve(model.parameters().size()); !room) return room;
  Status status;
  const auto add = [&](std::string_view name, const Tensor& tensor) {
    if (status) status = tensors.push({name, tensor});
  };
  for (const nn::Parameter& parameter : model.parameters()) {
    Text name;
    (name += "model.") += parameter.name.view();
    if (auto pushed = names.push(name); !pushed) return pushed;
    add(names.back().view(), parameter.tensor);
  }
  for (int i = 0; i < 2; ++i) {
    if (!run.optimizer.moment(i).empty()) add(k_moments[i], floats_of(run.optimizer.moment(i)));
    const std::span<const std::uint16_t> brief = run.optimizer.short_moment(i);
    const auto* data = reinterpret_cast<const std::byte*>(brief.data());
    if (!brief.empty())
      add(k_moments[i], Tensor(data, DType::bf16, Layout::dense(Shape{static_cast<std::int64_t>(brief.size())}), {}));
  }
  if (run.options.ema > 0) add("average", floats_of(run.average.values()));
  if (run.best.taken()) add("best", floats_of(run.best.values()));
  const State state = state_of(run);
  List<std::uint64_t> history;
  for (const EpochRecord& record : run.history.epochs) {
    const auto words = words_of(record);
    if (auto done = history.append(std::span<const std::uint64_t>(words)); !done) return done;
  }
  add("history", bytes_of(history.span()));
  add("state", bytes_of(state.words));
  if (!status) return status;
  const std::array<io::TextPair, 1> texts{io::TextPair{"format", "qorus.checkpoint"}};
  if (auto done = io::write_sealed(checkpoint_path(folder, run.history.steps).view(), tensors.span(), texts); !done)
    return done;
  auto steps = find_checkpoints(folder);
  if (!steps) return fail(steps.error());
  for (std::size_t i = static_cast<std::size_t>(run.options.checkpoints.keep); i < steps->size(); ++i)
    ::unlink(checkpoint_path(folder, (*steps)[i]).c_str());
  return {};
}

Status resume(Run& run) noexcept {
  const std::string_view folder = run.options.checkpoints.folder;
  Text path;
  path += folder;
  if (::mkdir(path.c_str(), 0777) != 0 && errno != EEXIST)
    return fail_system(errno, "checkpoints", "cannot make this folder", folder);
  if (auto done = remove_unfinished(folder); !done) return done;
  if (!run.options.checkpoints.resume) return {};
  auto steps = find_checkpoints(folder);
  if (!steps) return fail(steps.error());
  for (const std::uint64_t step : *steps) {
    const Text name = checkpoint_path(folder, step);
    auto file = io::read_sealed(name.view());
    if (!file) {
      Text warning;
      (((warning += "skipped ") += name.view()) += ": ") += file.error().message().view();
      log(LogLevel::warning, warning.view());
      continue;
    }
    State state;
    if (auto fits = check(run, *file, state); !fits) return fits;
    return restore(run, *file, state);
  }
  return {};
}

}  // namespace qorus::train
