// Bodies of qorus.formats:recode.
module;
#include "encode_table.h"
module qorus.formats;
import qorus.std;

namespace qorus::formats {
namespace {

constexpr const char* k_op = "recode";
constexpr std::size_t k_piece = 1 << 20;  // elements at a time: whole blocks of every format

Encode encoder() noexcept {
#ifdef __x86_64__
  if (std::string_view(cpu_info().isa) != "scalar") return k_encode_avx2;
#endif
  return k_encode_plain;
}

// False for types that are no blocks, and iq4_xs.
bool encoding_of(DType dtype, Encoding& encoding) noexcept {
  switch (dtype) {
    case DType::q4_0: encoding = Encoding::q4_0; return true;
    case DType::q4_1: encoding = Encoding::q4_1; return true;
    case DType::q5_0: encoding = Encoding::q5_0; return true;
    case DType::q5_1: encoding = Encoding::q5_1; return true;
    case DType::q8_0: encoding = Encoding::q8_0; return true;
    case DType::q2_k: encoding = Encoding::q2_k; return true;
    case DType::q3_k: encoding = Encoding::q3_k; return true;
    case DType::q4_k: encoding = Encoding::q4_k; return true;
    case DType::q5_k: encoding = Encoding::q5_k; return true;
    case DType::q6_k: encoding = Encoding::q6_k; return true;
    case DType::iq4_nl: encoding = Encoding::iq4_nl; return true;
    default: return false;
  }
}

// Elements [begin, begin + count) of a tensor as one row.
Tensor piece_of(const Tensor& tensor, std::size_t begin, std::size_t count) noexcept {
  return {tensor.data() + row_bytes(tensor.dtype(), begin), tensor.dtype(),
          Layout::dense(Shape{static_cast<std::int64_t>(count)}), tensor.lifetime()};
}

struct Rows {
  std::size_t columns = 1;
  const float* importance = nullptr;  // of these rows
};

Result<Tensor> made_of(Workspace& workspace, Scope& frame, const Tensor& piece, DType dtype,
                       const Rows& rows) noexcept {
  Encoding encoding{};
  auto input = frame.input(piece);
  if (piece.dtype() == dtype || !encoding_of(dtype, encoding))
    return piece.dtype() == dtype ? input : ops::cast(input, dtype);
  auto floats = ops::cast(input, DType::f32);
  if (!floats) return floats;
  Context& context = workspace.context();
  auto made = Fresh::make(context, floats->shape(), dtype);
  if (!made) return fail(made.error());
  constexpr std::size_t k_task = 16384;  // elements
  const Encode encode = encoder();
  const auto run = [&](std::size_t begin, std::size_t count, std::size_t columns) {
    encode(encoding, floats->f32() + begin, rows.importance,
           reinterpret_cast<std::uint8_t*>(made->data()) + row_bytes(dtype, begin), count / columns, columns);
  };
  if (!rows.importance) {  // rows may be cut
    parallel_chunks(context, floats->numel(), k_task,
                    [&](std::size_t begin, std::size_t end) { run(begin, end - begin, end - begin); });
  } else {
    const std::size_t each = std::max<std::size_t>(k_task / rows.columns, 1);
    parallel_chunks(context, floats->numel() / rows.columns, each, [&](std::size_t begin, std::size_t end) {
      run(begin * rows.columns, (end - begin) * rows.columns, rows.columns);
    });
  }
  return std::move(*made).freeze();
}

}  // namespace

bool can_encode(DType dtype) noexcept {
  Encoding encoding{};
  return dtype == DType::f32 || dtype == DType::f16 || dtype == DType::bf16 || encoding_of(dtype, encoding);
}

Status recode(Workspace& workspace, const Tensor& tensor, DType dtype, std::span<const float> importance,
              const Sink& sink) noexcept {
  if (auto good = tensor.check(k_op); !good) return good;
  if (tensor.dtype() != dtype && !can_encode(dtype))
    return fail(Errc::unsupported, k_op, "a type that cannot be made", to_string(dtype));
  const auto columns = static_cast<std::size_t>(std::max<std::int64_t>(tensor.rank() ? tensor.dim(-1) : 1, 1));
  if (columns % block_size(dtype) != 0 || !tensor.contiguous())
    return fail(Errc::invalid_size, k_op, "rows must be whole blocks, and contiguous", tensor.shape().dims());
  const std::size_t matrix =  // elements that share importance
      tensor.rank() == 3 ? static_cast<std::size_t>(tensor.dim(1)) * columns : std::max<std::size_t>(tensor.numel(), 1);
  const std::size_t matrices = matrix ? tensor.numel() / matrix : 0;
  if (!importance.empty() && importance.size() != columns * matrices)
    return fail(Errc::invalid_size, k_op, "importance is one number for each column of each matrix",
                tensor.shape().dims());
  const bool by_rows = !importance.empty() && is_block(dtype);
  const std::size_t step = by_rows ? std::max<std::size_t>(k_piece / columns, 1) * columns : k_piece;
  std::size_t end = 0;
  for (std::size_t begin = 0; begin < tensor.numel(); begin = end) {
    end = std::min(begin + step, tensor.numel());
    if (by_rows) end = std::min(end, (begin / matrix + 1) * matrix);
    auto frame = workspace.frame();
    const Rows rows{columns, by_rows ? importance.data() + begin / matrix * columns : nullptr};
    auto made = made_of(workspace, frame, piece_of(tensor, begin, end - begin), dtype, rows);
    if (!made) return fail(made.error());
    if (auto done = sink.write(sink.self, {made->data(), row_bytes(dtype, end - begin)}); !done) return done;
  }
  return {};
}

}  // namespace qorus::formats
