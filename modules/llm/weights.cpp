// Bodies of qorus.llm:weights.
module;
#include <cstddef>
#include <cstdint>
#include <utility>
module qorus.llm;

namespace qorus::llm {

Result<Weights> Weights::create(std::size_t bytes) noexcept {
  // Address space: what is laid out, its rows filled up, and room on the way to f32.
  auto room = (Checked(bytes) + bytes / 8 + 64_MiB).get("weights");
  if (!room) return fail(room.error());
  auto packed = Arena::create(*room);
  if (!packed) return fail(packed.error());
  Weights weights;
  weights.packed_ = std::move(*packed);
  weights.packed_.prefer_huge_pages(true);
  weights.workspace_ = Workspace{{.scratch = 64_MiB, .threads = cpu_count()}};
  if (auto ready = weights.workspace_.status(); !ready) return fail(ready.error());
  return weights;
}

Status Weights::bind(nn::Param& param, const Tensor& stored) noexcept {
  param.tensor = stored;
  if (stored.dtype() == DType::f32 || stored.rank() > 1) return {};
  auto frame = workspace_.frame();
  auto copy = frame.input(stored).and_then([](const Tensor& t) { return ops::cast(t, DType::f32); }).and_then(keep);
  if (!copy) return fail(copy.error());
  param.tensor = copy->tensor();
  return copies_.push(std::move(*copy));
}

Result<bool> Weights::pack(nn::Param& param) noexcept {
  const std::size_t bytes = param.packs ? ops::packed_bytes(param.tensor.dtype(), param.tensor.shape()) : 0;
  if (bytes == 0) return false;
  auto slice = packed_.take(bytes);
  if (!slice) return fail(slice.error());
  auto frame = workspace_.frame();
  auto input = frame.input(param.tensor);
  if (!input) return fail(input.error());
  if (auto done = ops::pack_weight(*input, {slice->data, bytes}); !done) return fail(done.error());
  param.packed =
      Tensor(slice->data, DType::u8, Layout::dense(Shape{static_cast<std::int64_t>(bytes)}), slice->lifetime);
  return true;
}

}  // namespace qorus::llm
