// Bodies of qorus.train:run: steps whose batch is cut into shards.
module qorus.train;
import qorus.std;
import :plan;
import :run;

namespace qorus::train {
namespace {

constexpr std::uint64_t k_golden = 0x9e3779b97f4a7c15u;  // sets the shards' random numbers apart

Tensor rows_of(const Tensor& all, std::size_t begin, std::size_t rows) noexcept {
  Layout layout = Layout::dense(all.shape().with(0, static_cast<std::int64_t>(rows)));
  layout.offset = static_cast<std::int64_t>(begin * all.shape().without(0).numel());
  return all.seen_as(layout);
}

Status run_shard(const ModelRef& model, const FitOptions& options, Shard& shard) noexcept {
  Tape& tape = shard.tape.emplace(shard.workspace->context());
  auto forward = compute(model, options.loss, options.forward, tape, shard.batch);
  if (!forward) return fail(forward.error());
  auto value = forward->loss.item();
  if (!value) return fail(value.error());
  shard.output = forward->output;
  shard.loss = *value;
  if (!std::isfinite(*value)) return diverged();
  auto gradients = backward(forward->loss);
  if (!gradients) return fail(gradients.error());
  auto slab = gradients->slab(model.parameters->block());
  if (!slab) return fail(slab.error());
  shard.gradients = *slab;
  shard.updates = gradients->state_updates();
  return {};
}

}  // namespace

Status Run::make_shards(const data::Examples& train) noexcept {
  std::size_t scratch = options.scratch;
  if (scratch == 0) {
    const std::size_t batch = std::min(options.batch, train.size());
    auto planned = plan_scratch(model, train, batch, 1,
                                {.loss = &options.loss,
                                 .forward = options.forward,
                                 .training = true,
                                 .bf16 = options.bf16,
                                 .shards = options.shards});
    if (!planned) return fail(planned.error());
    scratch = *planned;
  }
  for (Shard& shard : std::span(shards).first(options.shards)) {
    shard.workspace.emplace(
        WorkspaceOptions{.scratch = scratch, .threads = 1, .seed = options.seed, .bf16 = options.bf16});
    if (auto ready = shard.workspace->status(); !ready) return ready;
  }
  return {};
}

// Cuts the batch by its rows, computes every shard on whichever thread is free, and gathers what came out in the shards' order. Allocates
// nothing when warm.
Status Run::step_by_shards(const data::Batch& batch) noexcept {
  const auto rows = static_cast<std::size_t>(batch.x.dim(0));
  const std::size_t each = (rows + options.shards - 1) / options.shards, count = (rows + each - 1) / each;
  const std::span<Shard> parts = std::span(shards).first(count);
  for (std::size_t s = 0; s < count; ++s) {
    Shard& shard = parts[s];
    shard.rows = std::min(each, rows - s * each);
    shard.batch = {rows_of(batch.x, s * each, shard.rows), rows_of(batch.y, s * each, shard.rows)};
    shard.workspace->set_draws(options.seed + s * k_golden, workspace.draws());
  }
  parallel(workspace.context(), static_cast<std::uint32_t>(count),
           [&](std::uint32_t s, int) { parts[s].status = run_shard(model, options, parts[s]); });
  workspace.set_draws(options.seed, parts[0].workspace->draws());
  const Status done = gather_shards(parts, rows);
  for (Shard& shard : parts) shard.tape.reset();
  return done;
}

Status Run::gather_shards(std::span<Shard> parts, std::size_t rows) noexcept {
  std::array<MeanGradients, k_most_shards> gradients;
  double loss = 0;
  for (const Shard& shard : parts) loss += static_cast<double>(shard.loss) * static_cast<double>(shard.rows);
  event.last_loss = static_cast<float>(loss / static_cast<double>(rows));
  for (const Shard& shard : parts) {
    if (!shard.status) return shard.status;
  }
  if (auto kept = note_good(); !kept) return kept;
  for (std::size_t s = 0; s < parts.size(); ++s) {
    const Shard& shard = parts[s];
    if (auto added = meter.add(shard.output, shard.batch.y, shard.loss); !added) return added;
    // place = keep place + add value becomes keep place + add (the mean of the shards' values).
    for (const StateUpdate* update = shard.updates; update; update = update->next) {
      StateUpdate part = *update;
      part.next = nullptr;
      part.add *= static_cast<float>(shard.rows) / static_cast<float>(rows);
      if (s > 0) part.keep = 1;
      model.parameters->apply(&part);
    }
    gradients[s] = {shard.gradients.data(), shard.rows};
  }
  return gather(std::span(gradients).first(parts.size()), workspace.context());
}

}  // namespace qorus::train
