// Bodies of qorus.tune:tuner: which parameters are trained, and the run.
module qorus.tune;
import qorus.std;
import :tuner;

namespace qorus::tune {
namespace {

constexpr const char* k_op = "finetune";

// What a matrix is called on the command line, in GGUF files and in Hugging Face's.
struct TargetName {
  std::string_view brief, gguf, hugging_face;
};
constexpr TargetName k_targets[] = {{"q", "attn_q", "q_proj"},         {"k", "attn_k", "k_proj"},
                                    {"v", "attn_v", "v_proj"},         {"o", "attn_output", "o_proj"},
                                    {"gate", "ffn_gate", "gate_proj"}, {"up", "ffn_up", "up_proj"},
                                    {"down", "ffn_down", "down_proj"}, {"head", "output", "lm_head"}};
constexpr std::size_t k_target_count = 8;

// The targets that a list names, by place.
struct Targets {
  bool wanted[k_target_count] = {}, found[k_target_count] = {};
};

Result<Targets> parse_targets(std::string_view list) noexcept {
  Targets targets;
  while (!list.empty()) {
    const std::size_t end = std::min(list.find(','), list.size());
    const std::string_view word(list.data(), end);
    list.remove_prefix(std::min(end + 1, list.size()));
    bool known = word == "all";
    for (std::size_t i = 0; i < k_target_count; ++i) {
      const TargetName& name = k_targets[i];
      const bool named = word == name.brief || word == name.gguf || word == name.hugging_face;
      known = known || named;
      targets.wanted[i] = targets.wanted[i] || named || (word == "all" && name.brief != "head");
    }
    if (!known) return fail(Errc::invalid_argument, k_op, "a target is q, k, v, o, gate, up, down, head or all", word);
  }
  return targets;
}

// Where the model has a parameter.
struct Place {
  nn::Param* param;
};
// Parameters to be trained, and their places.
struct Choice {
  List<TrainedPart> parts;
  List<Place> places;

  [[nodiscard]] Status add(const Text& name, nn::Param& place, const Shape& shape, nn::Role role) noexcept {
    TrainedPart part{.name = name, .shape = shape};
    part.param.role = role;
    if (auto kept = parts.push(std::move(part)); !kept) return kept;
    return places.push({&place});
  }
};

Status choose_adapters(llm::Model& model, const TuneOptions& options, Choice& choice) noexcept {
  auto targets = parse_targets(options.targets);
  if (!targets) return fail(targets.error());
  const bool all = options.targets == "all";
  auto done = llm::each_projection(model.layers(), [&](std::string_view name, llm::Projection& p) -> Status {
    const std::size_t dot = name.rfind('.');
    const std::string_view part(name.data() + (dot == name.npos ? 0 : dot + 1),
                                name.size() - (dot == name.npos ? 0 : dot + 1));
    if (name.find(".experts.") != name.npos || name.find(".shared.") != name.npos) return {};  // stay as they are
    for (std::size_t i = 0; i < k_target_count; ++i) {
      if (!targets->wanted[i] || k_targets[i].gguf != part) continue;
      if (part == "output" && !model.stores("output.weight"))
        return fail(Errc::not_found, k_op, "the model's head is its embedding, which gets no adapter");
      targets->found[i] = true;
      if (p.lora_a.bound()) return fail(Errc::invalid_argument, k_op, "the model has an adapter already", name);
      const Shape shape = p.weight.tensor.shape();
      if (options.rank < 1 || options.rank > std::min(shape[0], shape[1])) {
        const Dims numbers{.extent = {options.rank, shape[0], shape[1]}, .rank = 3};
        return fail(Errc::invalid_argument, k_op, "the rank is from 1 to the least extent: rank, and the matrix",
                    numbers);
      }
      Text a, b;
      ((a += name) += ".weight.lora_a");
      ((b += name) += ".weight.lora_b");
      if (auto added = choice.add(a, p.lora_a, Shape{options.rank, shape[1]}, nn::Role::weight); !added) return added;
      return choice.add(b, p.lora_b, Shape{shape[0], options.rank}, nn::Role::bias);  // begins at 0
    }
    return {};
  });
  if (!done) return done;
  for (std::size_t i = 0; i < k_target_count; ++i) {
    if (targets->wanted[i] && !targets->found[i] && !all)
      return fail(Errc::not_found, k_op, "the model has no such matrices", k_targets[i].brief);
  }
  if (choice.parts.empty()) return fail(Errc::invalid_argument, k_op, "no target is named");
  return {};
}

Status choose_all(llm::Model& model, Choice& choice) noexcept {
  Status status;
  const std::byte* const embedding = model.layers().embedding.weight.tensor.data();
  nn::visit(model.layers(), [&](std::string_view name, nn::Param& param) {
    if (!status || !param.bound()) return;
    if (&param == &model.layers().head.weight && param.tensor.data() == embedding) return;  // shared
    if (is_block(param.tensor.dtype())) {
      status = fail(Errc::unsupported, k_op, "a quantised weight gets an adapter: train those instead of all", name);
      return;
    }
    Text own;
    own += name;
    status = choice.add(own, param, param.tensor.shape(), nn::Role::weight);
  });
  return status;
}

// The model's weights as they are, in f32.
Status copy_weights(nn::Parameters& trained, const Choice& choice) noexcept {
  for (std::size_t i = 0; i < choice.places.size(); ++i) {
    const Tensor& stored = choice.places[i].param->tensor;
    Workspace workspace{{.scratch = stored.numel() * 2 * sizeof(float) + 1_MiB, .threads = 1}};
    auto frame = workspace.frame();
    auto floats = ops::cast(ops::contiguous(frame.input(stored)), DType::f32);
    if (!floats) return fail(floats.error());
    if (auto done = trained.assign(choice.parts[i].name.view(), *floats); !done) return done;
  }
  return {};
}

}  // namespace

Result<Tensor> TrainedLayers::operator()(const Tensor& x) const noexcept {
  for (const TrainedPart& part : parts.span()) {
    if (auto used = nn::use(part.param, part.shape, x, k_op); !used) return used;
  }
  return x;
}

Result<Tuner> Tuner::create(llm::Model& model, const TuneOptions& given) noexcept {
  TuneOptions options = given;
  if (options.alpha == 0) options.alpha = 2 * static_cast<float>(options.rank);
  if (!options.full && options.rank < 1)
    return fail(Errc::invalid_argument, k_op, "the rank must be at least 1", Dims{.extent = {options.rank}, .rank = 1});
  if (!options.full && (!(options.alpha > 0) || !std::isfinite(options.alpha)))
    return fail(Errc::invalid_argument, k_op, "alpha must be above 0");
  if (model.config().experts > 0 && options.full)
    return fail(Errc::unsupported, k_op,
                "a mixture of experts gets adapters of its attention: all weights are not trained");
  Choice choice;
  if (auto chosen = options.full ? choose_all(model, choice) : choose_adapters(model, options, choice); !chosen)
    return fail(chosen.error());
  TrainedLayers layers;
  for (const TrainedPart& part : choice.parts.span()) {
    if (auto kept = layers.parts.push(part); !kept) return fail(kept.error());
  }
  auto trained = nn::build(std::move(layers), Shape{1}, init::kaiming_uniform(options.seed));
  if (!trained) return fail(trained.error());
  if (options.full) {
    if (auto copied = copy_weights(*trained, choice); !copied) return fail(copied.error());
  } else {
    const float narrower = 1 / std::sqrt(6.0f);  // of a: uniform in +-1 / sqrt(in), as PEFT has it
    for (float& value : trained->trainable_slab()) value *= narrower;
  }
  llm::Network& network = model.layers();
  const bool tied = network.head.weight.tensor.data() == network.embedding.weight.tensor.data();
  Tuner tuner(model, std::move(*trained), options);
  if (tied) {
    if (auto kept = choice.places.push({&network.head.weight}); !kept) return fail(kept.error());
  }
  for (const Place& place : choice.places.span()) {
    if (auto kept = tuner.bound_.push({place.param, place.param->tensor}); !kept) return fail(kept.error());
  }
  for (std::size_t i = 0; i < tuner.trained_.parameters().size(); ++i)
    choice.places[i].param->tensor = tuner.trained_.parameters()[i].tensor;
  if (tied) network.head.weight.tensor = network.embedding.weight.tensor;
  if (!options.full) {
    auto scaled = llm::each_projection(network, [&](std::string_view, llm::Projection& p) -> Status {
      if (p.lora_a.bound()) p.lora_scale = options.alpha / static_cast<float>(options.rank);
      return {};
    });
    if (!scaled) return fail(scaled.error());
  }
  if (auto made = tuner.make_tables(); !made) return fail(made.error());
  return tuner;
}

Tuner::~Tuner() {
  for (const Bound& one : bound_.span()) one.place->tensor = one.before;
}

Result<Score> Tuner::measure(const Rows& rows, int threads) const noexcept {
  const Tensor x = rows.inputs.tensor(), y = rows.targets.tensor();
  if (rows.count == 0) return fail(Errc::invalid_size, k_op, "no rows to measure");
  const Shape one_x{1, 2, rows.context}, one_y{1, rows.context};
  std::size_t scratch = 0;
  {
    Workspace plan = planning_workspace(threads);
    auto frame = plan.frame();
    auto input = frame.input(Tensor(nullptr, DType::i32, Layout::dense(one_x), {})),
         target = frame.input(Tensor(nullptr, DType::i32, Layout::dense(one_y), {}));
    if (!input) return fail(input.error());
    if (!target) return fail(target.error());
    if (auto value = loss(*input, *target); !value) return fail(value.error());
    scratch = plan.counters().high_water + 64_KiB;
  }
  Workspace workspace{{.scratch = scratch, .threads = threads}};
  Score score;
  double sum = 0;
  for (std::size_t i = 0; i < rows.count; ++i) {
    auto frame = workspace.frame();
    const auto row = static_cast<std::int64_t>(i);
    auto input = ops::slice(frame.input(x), 0, row, row + 1), target = ops::slice(frame.input(y), 0, row, row + 1);
    if (!input) return fail(input.error());
    if (!target) return fail(target.error());
    auto value = loss(*input, *target).and_then([](const Tensor& t) { return t.item(); });
    if (!value) return fail(value.error());
    const std::int32_t* const wanted = y.i32() + row * rows.context;
    const auto tokens =
        static_cast<std::size_t>(std::count_if(wanted, wanted + rows.context, [](std::int32_t id) { return id >= 0; }));
    sum += static_cast<double>(*value) * static_cast<double>(tokens);
    score.tokens += tokens;
  }
  score.loss = score.tokens ? sum / static_cast<double>(score.tokens) : 0;
  return score;
}

Result<train::History> Tuner::fit(const Rows& rows, const train::FitOptions& options) noexcept {
  const auto forward = [this](const train::ModelRef&, Tape& tape,
                              const data::Batch& batch) noexcept -> Result<train::Forward> {
    auto x = tape.input(batch.x), y = tape.input(batch.y);
    if (!x) return fail(x.error());
    if (!y) return fail(y.error());
    auto value = loss(*x, *y);
    if (!value) return fail(value.error());
    return train::Forward{*value, {}};
  };
  train::FitOptions own = options;
  own.forward = forward;
  const train::ModelRef self{
      this, [](const void*, const Tensor& x, const BoundLoss*) noexcept -> Result<Tensor> { return x; }, &trained_};
  return train::run_fit(self, rows.examples(), {}, own);
}

void Validation::operator()(train::Event& event) const noexcept {
  if (event.moment != train::Moment::epoch_end || rows->count == 0) return;
  auto score = tuner->measure(*rows, threads);
  if (score) {
    event.record.validation_loss = score->loss;
  } else {
    event.failure = score.error();
  }
}

}  // namespace qorus::tune
