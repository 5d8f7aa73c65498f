// Bodies of qorus.llm:packing.
module;
#include <cstddef>
#include <cstdint>
#include <utility>
module qorus.llm;

namespace qorus::llm {

Result<PackedWeights> PackedWeights::create(std::size_t bytes) noexcept {
  auto room = (Checked(bytes) + bytes / 8 + 64_MiB).get("weights");  // address space: rows are filled up
  if (!room) return fail(room.error());
  auto arena = Arena::create(*room);
  if (!arena) return fail(arena.error());
  PackedWeights made;
  made.arena_ = std::move(*arena);
  made.arena_.prefer_huge_pages(true);
  made.workspace_ = Workspace{{.scratch = 1_MiB, .threads = cpu_count()}};
  if (auto ready = made.workspace_.status(); !ready) return fail(ready.error());
  return made;
}

bool PackedWeights::takes(const Tensor& stored) noexcept {
  return stored.contiguous() && ops::packed_bytes(stored.dtype(), stored.shape()) > 0;
}

Status PackedWeights::pack(nn::Param& param) noexcept {
  const std::size_t bytes = ops::packed_bytes(param.tensor.dtype(), param.tensor.shape());
  auto slice = arena_.take(bytes);
  if (!slice) return fail(slice.error());
  auto frame = workspace_.frame();
  auto input = frame.input(param.tensor);
  if (!input) return fail(input.error());
  if (auto done = ops::pack_weight(*input, {slice->data, bytes}); !done) return done;
  param.packed =
      Tensor(slice->data, DType::u8, Layout::dense(Shape{static_cast<std::int64_t>(bytes)}), slice->lifetime);
  return {};
}

}  // namespace qorus::llm
