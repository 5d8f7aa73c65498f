// Bodies of qorus.tune:pretrain.
module qorus.tune;
import qorus.std;
import :corpus;
import :pretrain;

namespace qorus::tune {
namespace {

constexpr const char* k_op = "pretrain";

// A well mixed number of two.
std::uint64_t mixed(std::uint64_t a, std::uint64_t b) noexcept {
  std::uint64_t x = a + 0x9e3779b97f4a7c15u * (b + 1);
  x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9u;
  x = (x ^ x >> 27) * 0x94d049bb133111ebu;
  return x ^ x >> 31;
}

// What happens besides the steps: which windows come next, and validation. The user's callbacks are called after it.
struct Follow {
  Windows* windows;
  const train::ModelRef* model;
  const Tokens* validation;
  const PretrainOptions* options;
  train::Callbacks* callbacks;
  std::size_t validated_at = 0;
  double loss = -1;

  void operator()(train::Event& event) noexcept {
    using enum train::Moment;
    if (event.moment == epoch_begin) windows->set_epoch(event.epoch);
    if (event.moment == step_end) {
      const std::size_t every = options->validate_every;
      event.record.validation_loss = -1;
      if (every && event.total_step % every == 0 && event.total_step != validated_at) validate(event);
    }
    if (event.moment == epoch_end) validate(event);
    (*callbacks)(event);
  }

  void validate(train::Event& event) noexcept {
    if (validation->size() == 0) return;
    if (event.total_step != validated_at || loss < 0) {
      auto measured = mean_loss(*model, *validation,
                                {.context = options->context, .batch = options->batch, .threads = options->threads});
      if (!measured) {
        event.failure = measured.error();
        return;
      }
      loss = *measured;
      validated_at = event.total_step;
    }
    event.record.validation_loss = loss;
  }
};

// One batch of windows of a fixed length from `begin` on.
Result<Tensor> batch_loss(Scope& frame, const train::ModelRef& model, const Tokens& tokens, std::size_t begin,
                          const Shape& shape) noexcept {
  auto x = Fresh::make(frame.context(), shape, DType::i32);
  auto y = Fresh::make(frame.context(), shape, DType::i32);
  if (!x || !y) return fail(x ? y.error() : x.error());
  if (!frame.context().planning) {
    tokens.copy_to(begin, {x->i32(), shape.numel()});
    tokens.copy_to(begin + 1, {y->i32(), shape.numel()});
  }
  const Tensor ids = std::move(*x).freeze();
  return model.loss(ids, loss::cross_entropy(std::move(*y).freeze()));
}

}  // namespace

Result<Windows> Windows::create(const Tokens& tokens, std::int64_t context, std::uint64_t seed) noexcept {
  const auto size = static_cast<std::int64_t>(tokens.size());
  if (context < 1 || size < 2 || context > size - 1)
    return fail(Errc::invalid_size, k_op, "the text must have more tokens than a window (tokens, context)",
                Dims{{size, context}, 2});
  Windows made;
  made.tokens_ = &tokens;
  made.context_ = context;
  made.seed_ = seed;
  const std::int64_t whole = (size - 1) / context, count = std::max<std::int64_t>(whole - 1, 1);
  if (count > std::numeric_limits<std::int32_t>::max()) return fail(Errc::overflow, k_op, "2^31 windows or more");
  made.count_ = static_cast<std::size_t>(count);
  auto numbers = Owned::zeros(Shape{count, 1}, DType::i32);
  if (!numbers) return fail(numbers.error());
  const std::span<std::int32_t> fill = numbers->fill<std::int32_t>();
  for (std::size_t i = 0; i < fill.size(); ++i) fill[i] = static_cast<std::int32_t>(i);
  made.numbers_ = std::move(*numbers);
  return made;
}

data::Examples Windows::examples() const noexcept {
  const Tensor inputs = numbers_.tensor();
  const Tensor targets(inputs.data(), DType::i32, Layout::dense(Shape{inputs.dim(0)}), inputs.lifetime());
  return {inputs, targets};
}

void Windows::set_epoch(int epoch) noexcept {
  const auto spare = tokens_->size() - 1 - count_ * static_cast<std::size_t>(context_);
  const std::size_t places = std::min<std::size_t>(spare + 1, static_cast<std::size_t>(context_));
  begin_ = static_cast<std::size_t>(mixed(seed_, static_cast<std::uint64_t>(epoch)) % places);
}

Result<Windows::Pair> Windows::gather(Context& context, const Tensor& numbers) const noexcept {
  const Shape shape{numbers.dim(0), context_};
  auto x = Fresh::make(context, shape, DType::i32);
  auto y = Fresh::make(context, shape, DType::i32);
  if (!x || !y) return fail(x ? y.error() : x.error());
  const auto rows = static_cast<std::size_t>(numbers.dim(0)), size = static_cast<std::size_t>(context_);
  for (std::size_t r = 0; r < rows && !context.planning; ++r) {
    const std::size_t begin = begin_ + static_cast<std::size_t>(numbers.i32()[r]) * size;
    tokens_->copy_to(begin, {x->i32() + r * size, size});
    tokens_->copy_to(begin + 1, {y->i32() + r * size, size});
  }
  return Pair{std::move(*x).freeze(), std::move(*y).freeze()};
}

Result<train::Forward> Windows::operator()(const train::ModelRef& model, Tape& tape,
                                           const data::Batch& batch) const noexcept {
  auto numbers = tape.input(batch.x);
  if (!numbers) return fail(numbers.error());
  auto pair = gather(*numbers->context(), *numbers);
  if (!pair) return fail(pair.error());
  auto mean = model.loss(pair->x, loss::cross_entropy(pair->y));
  if (!mean) return fail(mean.error());
  return train::Forward{*mean, {}};
}

Result<train::History> run_pretrain(const train::ModelRef& model, const Tokens& tokens, const Tokens& validation,
                                    const PretrainOptions& options) noexcept {
  auto windows = Windows::create(tokens, options.context, options.seed);
  if (!windows) return fail(windows.error());
  if (validation.size() == 1)
    return fail(Errc::invalid_size, k_op, "one id is too little to validate on: a larger share of the text, or none");
  if (options.batch == 0 || options.accumulate == 0 || options.epochs < 0)
    return fail(Errc::invalid_argument, k_op, "a step has windows, and a run steps");
  const std::size_t batches = (windows->size() + options.batch - 1) / options.batch,
                    epoch_steps = (batches + options.accumulate - 1) / options.accumulate;
  constexpr std::size_t k_most = 1 << 24;
  const std::size_t epochs = options.epochs ? static_cast<std::size_t>(options.epochs)
                                            : std::max<std::size_t>((options.steps + epoch_steps - 1) / epoch_steps, 1);
  if (epochs > k_most) return fail(Errc::invalid_argument, k_op, "more than 2^24 epochs");
  train::Callbacks callbacks(options.callbacks);
  if (callbacks.too_many()) return fail(Errc::invalid_argument, k_op, "at most 16 callbacks");
  return train::run_fit(model, windows->examples(), {},
                        {.optimizer = options.optimizer,
                         .schedule = options.schedule,
                         .epochs = static_cast<int>(epochs),
                         .steps = options.steps,
                         .batch = options.batch,
                         .accumulate = options.accumulate,
                         .seed = options.seed,
                         .clip_norm = options.clip_norm,
                         .threads = options.threads,
                         .shards = options.shards,
                         .bf16 = options.bf16,
                         .forward = *windows,
                         .checkpoints = options.checkpoints,
                         .callbacks = {Follow{&*windows, &model, &validation, &options, &callbacks}}});
}

Result<double> mean_loss(const train::ModelRef& model, const Tokens& tokens, const LossOptions& options) noexcept {
  const std::size_t ids = tokens.size();
  if (ids < 2 || options.context < 1 || options.batch == 0)
    return fail(Errc::invalid_size, "mean_loss", "two ids at least, and windows of one at least");
  const std::size_t context = std::min(static_cast<std::size_t>(options.context), ids - 1),
                    windows = (ids - 1) / context;
  const std::size_t batch = std::min(options.batch, windows);
  const auto shape = [&](std::size_t rows) {
    return Shape{static_cast<std::int64_t>(rows), static_cast<std::int64_t>(context)};
  };
  Workspace plan = planning_workspace(options.threads);
  for (const std::size_t rows : {batch, windows % batch}) {  // the last batch
    if (rows == 0) continue;
    auto frame = plan.frame();
    if (auto planned = batch_loss(frame, model, tokens, 0, shape(rows)); !planned) return fail(planned.error());
  }
  constexpr std::size_t k_slack = 64_KiB;  // alignment of what is planned apart
  Workspace workspace{{.scratch = plan.counters().high_water + k_slack, .threads = options.threads}};
  if (auto ready = workspace.status(); !ready) return fail(ready.error());
  double sum = 0;
  for (std::size_t done = 0; done < windows; done += batch) {
    const std::size_t rows = std::min(batch, windows - done);
    auto frame = workspace.frame();
    auto value = batch_loss(frame, model, tokens, done * context, shape(rows)).and_then([](const Tensor& mean) {
      return mean.item();
    });
    if (!value) return fail(value.error());
    sum += static_cast<double>(*value) * static_cast<double>(rows);
  }
  return sum / static_cast<double>(windows);
}

Result<List<std::int32_t>> continue_ids(const train::ModelRef& model, std::span<const std::int32_t> prompt,
                                        std::int64_t context, const llm::GenerateOptions& how,
                                        std::int32_t end) noexcept {
  if (prompt.empty() || context < 1) return fail(Errc::invalid_argument, "continue_ids", "an empty prompt");
  Workspace plan = planning_workspace();
  for (std::int64_t length = 1; length <= context; ++length) {
    auto frame = plan.frame();
    auto y = frame.input(Tensor(nullptr, DType::i32, Layout::dense(Shape{1, length}), {})).and_then(model);
    if (!y) return fail(y.error());
  }
  Workspace workspace{{.scratch = plan.counters().high_water + 64_KiB, .threads = 1}};
  if (auto ready = workspace.status(); !ready) return fail(ready.error());
  List<std::int32_t> ids;
  if (auto ok = ids.append(prompt); !ok) return fail(ok.error());
  llm::Sampler sampler;
  for (std::int64_t i = 0; i < how.max_tokens; ++i) {
    auto frame = workspace.frame();
    const auto seen = ids.span().last(std::min(ids.size(), static_cast<std::size_t>(context)));
    const auto length = static_cast<std::int64_t>(seen.size());
    auto y = frame.input(Tensor::borrow(std::span<const std::int32_t>(seen), Shape{1, length})).and_then(model);
    if (!y) return fail(y.error());
    const auto vocab = static_cast<std::size_t>(y->dim(-1));
    if (i == 0) {
      auto made = llm::Sampler::create(how, vocab);
      if (!made) return fail(made.error());
      sampler = std::move(*made);
    }
    auto logits = y->values<float>();
    if (!logits) return fail(logits.error());
    const std::int32_t next = sampler.choose(logits->last(vocab), ids.span());
    if (next == end) break;
    if (auto ok = ids.push(next); !ok) return fail(ok.error());
  }
  return ids;
}

}  // namespace qorus::tune
