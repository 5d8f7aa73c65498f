// Bodies of qorus.nn:model.
module qorus.nn;
import qorus.std;

namespace qorus::nn {

Result<Tensor> Parameters::parameter(std::string_view name) const noexcept {
  for (const Parameter& parameter : list_) {
    if (parameter.name.view() == name) return parameter.tensor;
  }
  return fail(Errc::not_found, "parameter", "the model has no parameter of this name", name);
}

std::size_t Parameters::parameter_count() const noexcept {
  std::size_t count = 0;
  for (const Parameter& parameter : list_) count += parameter.tensor.numel();
  return count;
}

std::size_t Parameters::trainable_count() const noexcept {
  std::size_t count = 0;
  for (const Leaf& leaf : leaves_) count += leaf.count;
  return count;
}

Status Parameters::assign(std::string_view name, const Tensor& values) noexcept {
  auto parameter = this->parameter(name);
  if (!parameter) return fail(parameter.error());
  if (auto ok = values.check(DType::f32, "assign"); !ok) return fail(ok.error().about(name));
  if (values.shape() != parameter->shape()) {
    return fail(fail(Errc::invalid_size, "assign", "the parameter has another shape", values.shape().dims(),
                     parameter->shape().dims())
                    .value()
                    .about(name));
  }
  packed_ = Slab();
  values.copy_elements(slab_.data() + (parameter->data() - slab_.data()));
  return {};
}

void Parameters::apply(const StateUpdate* updates) noexcept {
  const std::span<const float> all = slab();
  for (; updates; updates = updates->next) {
    if (updates->place < all.data() || updates->place + updates->count > all.data() + all.size()) continue;
    float* place = reinterpret_cast<float*>(slab_.data()) + (updates->place - all.data());
    for (std::size_t i = 0; i < updates->count; ++i)
      place[i] = updates->keep * place[i] + updates->add * updates->value[i];
  }
}

bool Parameters::restore(std::span<const float> values) noexcept {
  if (values.size() != slab().size()) return false;
  packed_ = Slab();
  std::copy(values.begin(), values.end(), reinterpret_cast<float*>(slab_.data()));
  return true;
}

Status Parameters::declare(void* builder, const void* param, const Dims& shape) noexcept {
  auto& declared = *static_cast<List<Declared>*>(builder);
  for (const Declared& known : declared) {
    if (known.param != param) continue;
    if (known.shape == shape) return {};
    return fail(Errc::invalid_size, "build", "a layer is used with inputs of two sizes", known.shape, shape);
  }
  return declared.push({param, shape});
}

Status Parameters::enlist(std::string_view name, const Param& param, const List<Declared>& declared) noexcept {
  const auto found =
      std::find_if(declared.begin(), declared.end(), [&](const Declared& known) { return known.param == &param; });
  if (found == declared.end())
    return {};  // a member that the layer does not use, such as the bias of a linear layer without one
  for (const Parameter& known : list_) {
    if (known.name.view() == name) return fail(Errc::invalid_argument, "build", "two parameters have this name", name);
  }
  const Shape shape(
      std::span<const std::int64_t>(found->shape.extent.data(), static_cast<std::size_t>(found->shape.rank)));
  for (Tied& tied : tied_) {
    if (tied.name.view() == name) {
      tied.shape = shape;
      return {};
    }
  }
  Parameter entry{.role = param.role, .trainable = param.trainable};
  entry.name += name;
  entry.tensor = Tensor(nullptr, DType::f32, Layout::dense(shape), {});
  return list_.push(entry);
}

Status Parameters::note_ties(std::initializer_list<Tie> ties) noexcept {
  for (const Tie& tie : ties) {
    Tied tied;
    tied.name += tie.name;
    tied.source += tie.source;
    if (auto noted = tied_.push(tied); !noted) return noted;
  }
  return {};
}

Status Parameters::check_ties() const noexcept {
  for (const Tied& tied : tied_) {
    const Parameter* source = bound_to(tied.source.view());
    if (!source || !tied.shape.valid())
      return fail(Errc::not_found, "build", "a tie needs two parameters of the model",
                  source ? tied.name.view() : tied.source.view());
    if (source->tensor.shape() != tied.shape)
      return fail(Errc::invalid_size, "build", "tied parameters must have one shape", source->tensor.shape().dims(),
                  tied.shape.dims());
  }
  return {};
}

const Parameter* Parameters::bound_to(std::string_view name) const noexcept {
  for (const Tied& tied : tied_) {
    if (tied.name.view() == name && tied.source.view() != name) return bound_to(tied.source.view());
  }
  const auto found =
      std::find_if(list_.begin(), list_.end(), [&](const Parameter& p) { return p.name.view() == name; });
  return found == list_.end() ? nullptr : found;
}

bool Parameters::shares(std::string_view name) const noexcept {
  return std::any_of(tied_.begin(), tied_.end(),
                     [&](const Tied& tied) { return bound_to(tied.name.view()) == bound_to(name); });
}

void Parameters::give_up(Param& param) noexcept {
  const auto begin = static_cast<std::size_t>(param.tensor.data() - slab_.data());
  slab_.discard(begin, begin + param.tensor.numel() * sizeof(float));
  param.tensor = Tensor(param.tensor.data(), DType::f32, param.tensor.layout(), Lifetime{slab_.block(), 0});
}

Status Parameters::lay_out() noexcept {
  constexpr std::size_t k_floats = k_alignment / sizeof(float);
  Checked floats = 0;
  std::size_t trained = 0;
  List<Leaf> leaves;
  for (const bool trainable : {true, false}) {
    for (Parameter& parameter : list_) {
      if (parameter.trainable != trainable) continue;
      parameter.offset = static_cast<std::size_t>(floats.value_or(0));
      if (trainable) {
        if (auto pushed = leaves.push({parameter.offset, parameter.tensor.numel()}); !pushed) return pushed;
      }
      floats = (floats + parameter.tensor.numel()).aligned(k_floats);
    }
    if (trainable) trained = static_cast<std::size_t>(floats.value_or(0));
  }
  auto bytes = (floats * sizeof(float)).get("build");
  if (!bytes) return fail(bytes.error());
  auto slab = Slab::create(*bytes);
  if (!slab) return fail(slab.error());
  leaves_ = std::move(leaves);
  slab_ = std::move(*slab);
  packed_ = Slab();
  auto* base = reinterpret_cast<float*>(slab_.data());
  Block& block = *slab_.block();
  block.base = base;
  block.floats = trained;
  block.leaves = leaves_.data();
  block.leaf_count = static_cast<std::uint32_t>(leaves_.size());
  std::uint32_t leaf = 0;
  for (Parameter& parameter : list_) {
    parameter.tensor = Tensor(slab_.data() + parameter.offset * sizeof(float), DType::f32,
                              Layout::dense(parameter.tensor.shape()), slab_.lifetime());
    if (parameter.trainable) parameter.tensor = parameter.tensor.with_slot(GradRef::k_leaf | leaf++);
  }
  return {};
}

Status Parameters::fill(const Initializer& init) noexcept {
  std::uint64_t stream = 0;
  for (const Parameter& parameter : list_) {
    const Shape shape = parameter.tensor.shape();
    float* place = reinterpret_cast<float*>(slab_.data()) + parameter.offset;
    if (auto filled = init.fill({place, shape.numel()}, shape, parameter.role, stream++); !filled) return filled;
  }
  return {};
}

Status Parameters::retrain(std::string_view prefix, bool trainable) noexcept {
  List<Parameter> before;
  bool any = false;
  for (Parameter& parameter : list_) {
    if (auto kept = before.push(parameter); !kept) return kept;
    if (!parameter.name.view().starts_with(prefix)) continue;
    parameter.trainable = trainable;
    any = true;
  }
  if (!any) return fail(Errc::not_found, "freeze", "no parameter's name begins so", prefix);
  Slab old = std::move(slab_);
  if (auto done = lay_out(); !done) {
    slab_ = std::move(old);
    list_ = std::move(before);
    return done;
  }
  for (std::size_t i = 0; i < list_.size(); ++i)
    std::memcpy(slab_.data() + list_[i].offset * sizeof(float), old.data() + before[i].offset * sizeof(float),
                list_[i].tensor.numel() * sizeof(float));
  return {};
}

}  // namespace qorus::nn
