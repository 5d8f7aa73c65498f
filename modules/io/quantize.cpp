// Bodies of qorus.io:quantize.
module;
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>
#include <utility>

#include "kernels/kernels.h"
module qorus.io;

namespace qorus::io {
namespace {

constexpr const char* k_op = "quantize";
constexpr std::size_t k_piece = 1 << 20;  // elements at a time: whole blocks of every format
constexpr std::string_view k_file_type = "general.file_type", k_version = "general.quantization_version";

// The number that GGUF files have for "mostly this type".
std::uint32_t file_type(DType dtype) noexcept {
  switch (dtype) {
    case DType::f32: return 0;
    case DType::f16: return 1;
    case DType::q4_0: return 2;
    case DType::q4_1: return 3;
    case DType::q8_0: return 7;
    case DType::q5_0: return 8;
    case DType::q5_1: return 9;
    case DType::q2_k: return 10;
    case DType::q3_k: return 12;
    case DType::q4_k: return 15;
    case DType::q5_k: return 17;
    case DType::q6_k: return 18;
    case DType::iq4_nl: return 25;
    case DType::iq4_xs: return 30;
    case DType::bf16: return 32;
    default: return 0;
  }
}

// What a tensor becomes.
DType target_of(const Tensor& tensor, DType wanted) noexcept {
  const bool whole_number = tensor.dtype() == DType::i32 || tensor.dtype() == DType::i8 || tensor.dtype() == DType::u8;
  if (whole_number) return tensor.dtype();
  const bool fits = tensor.rank() >= 2 && static_cast<std::size_t>(tensor.dim(-1)) % block_size(wanted) == 0;
  if (fits) return wanted;
  return is_block(tensor.dtype()) ? DType::f32 : tensor.dtype();
}

// Elements [begin, begin + count) of a tensor as one row.
Tensor piece_of(const Tensor& tensor, std::size_t begin, std::size_t count) noexcept {
  return {tensor.data() + row_bytes(tensor.dtype(), begin), tensor.dtype(),
          Layout::dense(Shape{static_cast<std::int64_t>(count)}), tensor.lifetime()};
}

// A piece in q4_0 with scales from the least error: its rows, which are whole in it.
Result<Tensor> with_least_error(Workspace& workspace, const Result<Tensor>& piece, std::size_t columns,
                                std::span<const float> importance) noexcept {
  auto floats = ops::cast(piece, DType::f32);
  if (!floats) return floats;
  Context& context = workspace.context();
  auto made = Fresh::make(context, floats->shape(), DType::q4_0);
  if (!made) return fail(made.error());
  constexpr std::size_t k_rows = 16;  // per task
  parallel_chunks(context, floats->numel() / columns, k_rows, [&](std::size_t begin, std::size_t end) {
    kernels::active().quantize(kernels::Quant::q4_0, floats->f32() + begin * columns, importance.data(),
                               made->data() + row_bytes(DType::q4_0, begin * columns), end - begin, columns);
  });
  return std::move(*made).freeze();
}

Status write_tensor(GgufWriter& writer, Workspace& workspace, const Tensor& tensor, DType dtype,
                    bool least_error) noexcept {
  const auto columns = static_cast<std::size_t>(std::max<std::int64_t>(tensor.rank() ? tensor.dim(-1) : 1, 1));
  const bool by_rows = least_error && dtype == DType::q4_0 && tensor.dtype() != dtype;
  List<float> importance;
  if (by_rows) {
    if (auto room = importance.resize(columns); !room) return room;
    std::fill(importance.begin(), importance.end(), 1.0f);
  }
  const std::size_t step = by_rows ? std::max<std::size_t>(k_piece / columns, 1) * columns : k_piece;
  for (std::size_t begin = 0; begin < tensor.numel(); begin += step) {
    const std::size_t count = std::min(step, tensor.numel() - begin);
    auto frame = workspace.frame();
    const auto piece = frame.input(piece_of(tensor, begin, count));
    auto made = by_rows                   ? with_least_error(workspace, piece, columns, importance.span())
                : tensor.dtype() == dtype ? piece
                                          : ops::cast(piece, dtype);
    if (!made) return fail(made.error());
    if (auto done = writer.write({made->data(), row_bytes(dtype, count)}); !done) return done;
  }
  return {};
}

Status put_metadata(GgufWriter& writer, const Gguf& file, DType dtype) noexcept {
  for (const GgufEntry& entry : file.metadata()) {
    if (entry.key == k_file_type || entry.key == k_version) continue;
    if (auto done = writer.put(entry); !done) return done;
  }
  if (auto done = writer.put(k_file_type, file_type(dtype)); !done) return done;
  return is_block(dtype) ? writer.put(k_version, std::uint32_t{2}) : Status{};
}

}  // namespace

Result<Quantized> quantize(std::string_view from, std::string_view to, const QuantizeOptions& options) noexcept {
  auto file = read_gguf(from);
  if (!file) return fail(file.error());
  Workspace workspace{{.scratch = 32_MiB, .threads = options.threads}};
  if (auto ready = workspace.status(); !ready) return fail(ready.error());
  auto writer = GgufWriter::create(to);
  if (!writer) return fail(writer.error());
  if (auto done = put_metadata(*writer, *file, options.dtype); !done) return fail(done.error());
  List<DType> types;
  Quantized result;
  for (const TensorEntry& entry : file->entries()) {
    auto tensor = file->tensor(entry.name);
    if (!tensor) return fail(tensor.error());
    const DType wanted = options.choose ? options.choose(options.user, entry.name, tensor->shape()) : options.dtype;
    const DType dtype = target_of(*tensor, wanted);
    if (auto pushed = types.push(dtype); !pushed) return fail(pushed.error());
    if (auto done = writer->declare(entry.name, dtype, tensor->shape()); !done) return fail(done.error());
    ++result.tensors;
    result.converted += dtype != tensor->dtype();
    result.bytes_before += entry.bytes;
    result.bytes_after += row_bytes(dtype, tensor->numel());
  }
  if (auto done = writer->begin(); !done) return fail(done.error());
  for (std::size_t i = 0; i < types.size(); ++i) {
    const std::string_view name = file->entries()[i].name;
    auto tensor = file->tensor(name);
    if (!tensor) return fail(tensor.error());
    if (auto done = write_tensor(*writer, workspace, *tensor, types[i], options.least_error); !done)
      return fail(done.error().about(name));
    if (options.progress && !options.progress(options.user, name, i + 1, types.size()))
      return fail(Errc::invalid_argument, k_op, "stopped on the way", to);
  }
  if (auto done = writer->commit(); !done) return fail(done.error());
  return result;
}

}  // namespace qorus::io
