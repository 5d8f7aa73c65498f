// Bodies of qorus.io:model.
module;
#include "kernels/kernels.h"
module qorus.io;
import qorus.std;

namespace qorus::io {
namespace {

tl::unexpected<Error> misfit(Errc code, const char* text, std::string_view name, const Dims& first = {},
                             const Dims& second = {}) noexcept {
  return fail(fail(code, "load", text, first, second).value().about(name));
}

// PyTorch's batch norms count their steps beside the statistics; nothing here needs the count.
bool is_counter(std::string_view name) noexcept {
  constexpr std::string_view k_counter = "num_batches_tracked";
  return name == k_counter || name.ends_with(".num_batches_tracked");
}

// Whether the file and the model have the same tensors.
Status check(const SafeTensors& file, const nn::Parameters& model) noexcept {
  for (const nn::Parameter& parameter : model.parameters()) {
    const std::string_view name = parameter.name.view();
    const TensorEntry* entry = file.find(name);
    if (!entry) return misfit(Errc::not_found, "the file lacks this parameter", name);
    if (entry->shape != parameter.tensor.shape()) {
      return misfit(Errc::invalid_size, "the file's tensor and the model's parameter differ", name, entry->shape.dims(),
                    parameter.tensor.shape().dims());
    }
    if (entry->type != "F32" && entry->type != "F16" && entry->type != "BF16") {
      return misfit(Errc::invalid_dtype, "parameters are F32, F16 or BF16", name);
    }
  }
  for (const TensorEntry& entry : file.entries()) {
    if (!model.parameter(entry.name) && !is_counter(entry.name))
      return misfit(Errc::invalid_argument, "the model has no parameter of this name", entry.name);
  }
  return {};
}

// The elements as f32, in memory of their own.
Result<Owned> as_f32(Result<Owned> stored) noexcept {
  if (!stored) return stored;
  const Tensor from = *stored;
  if (from.dtype() == DType::f32) return stored;
  auto wide = Owned::zeros(from.shape());
  if (!wide) return wide;
  const auto* bits = reinterpret_cast<const std::uint16_t*>(from.data());
  const kernels::Table& table = kernels::active();
  (from.dtype() == DType::f16 ? table.f16_to_f32 : table.bf16_to_f32)(bits, wide->fill<float>().data(), from.numel());
  return wide;
}

}  // namespace

Status save(const nn::Parameters& model, std::string_view path, std::span<const TextPair> metadata) noexcept {
  List<NamedTensor> tensors;
  for (const nn::Parameter& parameter : model.parameters()) {
    if (auto pushed = tensors.push({parameter.name.view(), parameter.tensor}); !pushed) return pushed;
  }
  return write_safetensors(path, tensors.span(), metadata);
}

Status load(std::string_view path, nn::Parameters& model) noexcept {
  auto file = read_safetensors(path);
  if (!file) return fail(file.error());
  if (auto fits = check(*file, model); !fits) return fits;
  List<Owned> values;  // all in hand before the model changes
  for (const nn::Parameter& parameter : model.parameters()) {
    auto value = as_f32(file->copy(parameter.name.view()));
    if (!value) return fail(value.error());
    if (auto pushed = values.push(std::move(*value)); !pushed) return pushed;
  }
  for (std::size_t i = 0; i < values.size(); ++i) {
    if (auto done = model.assign(model.parameters()[i].name.view(), values[i]); !done) return done;
  }
  return {};
}

}  // namespace qorus::io
