// Bodies of qorus.nn:model.
module;
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>
module qorus.nn;

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
  Parameter entry{.role = param.role, .trainable = param.trainable};
  entry.name += name;
  const Shape shape(
      std::span<const std::int64_t>(found->shape.extent.data(), static_cast<std::size_t>(found->shape.rank)));
  entry.tensor = Tensor(nullptr, DType::f32, Layout::dense(shape), {});
  return list_.push(entry);
}

Status Parameters::allocate(const Initializer& init) noexcept {
  constexpr std::size_t k_floats = k_alignment / sizeof(float);
  Checked floats = 0;
  std::size_t trained = 0;
  for (const bool trainable : {true, false}) {
    for (Parameter& parameter : list_) {
      if (parameter.trainable != trainable) continue;
      parameter.offset = static_cast<std::size_t>(floats.value_or(0));
      if (trainable) {
        if (auto pushed = leaves_.push({parameter.offset, parameter.tensor.numel()}); !pushed) return pushed;
      }
      floats = (floats + parameter.tensor.numel()).aligned(k_floats);
    }
    if (trainable) trained = static_cast<std::size_t>(floats.value_or(0));
  }
  auto bytes = (floats * sizeof(float)).get("build");
  if (!bytes) return fail(bytes.error());
  auto slab = Slab::create(*bytes);
  if (!slab) return fail(slab.error());
  slab_ = std::move(*slab);
  auto* base = reinterpret_cast<float*>(slab_.data());
  Block& block = *slab_.block();
  block.base = base;
  block.floats = trained;
  block.leaves = leaves_.data();
  block.leaf_count = static_cast<std::uint32_t>(leaves_.size());
  std::uint32_t leaf = 0;
  std::uint64_t stream = 0;
  for (Parameter& parameter : list_) {
    const Shape shape = parameter.tensor.shape();
    float* place = base + parameter.offset;
    if (auto filled = init.fill({place, shape.numel()}, shape, parameter.role, stream++); !filled) return filled;
    parameter.tensor =
        Tensor(reinterpret_cast<const std::byte*>(place), DType::f32, Layout::dense(shape), slab_.lifetime());
    if (parameter.trainable) parameter.tensor = parameter.tensor.with_slot(GradRef::k_leaf | leaf++);
  }
  return {};
}

}  // namespace qorus::nn
