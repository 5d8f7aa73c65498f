// Bodies of qorus.ops:cast.
module;
#include "kernels/kernels.h"
module qorus.ops;
import qorus.std;
import :rules;
import :loops;

namespace qorus {
namespace {

constexpr std::size_t k_piece = 512;  // floats on their way from one type to another, on the stack; whole blocks
static_assert(k_piece % 256 == 0 && k_grain % k_piece == 0);

constexpr kernels::Quant quant_of(DType dtype) noexcept {
  return static_cast<kernels::Quant>(static_cast<int>(dtype) - static_cast<int>(DType::q4_0));
}
constexpr bool same_blocks() noexcept {
  for (int i = static_cast<int>(DType::q4_0); i < k_dtype_count; ++i) {
    const auto dtype = static_cast<DType>(i);
    const kernels::QuantBlock block = kernels::k_quant_blocks[static_cast<int>(quant_of(dtype))];
    if (block.elements != block_size(dtype) || block.bytes != block_bytes(dtype)) return false;
  }
  return quant_of(DType::iq4_xs) == kernels::Quant::iq4_xs;
}
static_assert(same_blocks(), "the kernels and the tensors have the same block formats in the same order");

template <class T>
void store_whole(const float* x, std::byte* out, std::size_t n, float low, float high) noexcept {
  auto* y = reinterpret_cast<T*>(out);
  for (std::size_t i = 0; i < n; ++i) {
    y[i] = std::isnan(x[i]) ? T{0} : static_cast<T>(static_cast<std::int64_t>(std::clamp(x[i], low, high)));
  }
}

void store(DType dtype, const float* x, std::byte* y, std::size_t n) noexcept {
  const kernels::Table& table = kernels::active();
  switch (dtype) {
    case DType::f32: std::copy_n(x, n, reinterpret_cast<float*>(y)); break;
    case DType::f16: table.f32_to_f16(x, reinterpret_cast<std::uint16_t*>(y), n); break;
    case DType::bf16: table.f32_to_bf16(x, reinterpret_cast<std::uint16_t*>(y), n); break;
    case DType::u8: store_whole<std::uint8_t>(x, y, n, 0, 255); break;
    case DType::i8: store_whole<std::int8_t>(x, y, n, -128, 127); break;
    case DType::i32:
      for (std::size_t i = 0; i < n; ++i) {  // 2^31 - 1 is no float: the clamp's upper end is the next one, 2^31
        const double value = std::isnan(x[i]) ? 0 : std::clamp(static_cast<double>(x[i]), -2147483648.0, 2147483647.0);
        reinterpret_cast<std::int32_t*>(y)[i] = static_cast<std::int32_t>(value);
      }
      break;
    default: table.quantize(quant_of(dtype), x, nullptr, y, 1, n); break;
  }
}

constexpr bool floating(DType dtype) noexcept {
  return dtype == DType::f32 || dtype == DType::f16 || dtype == DType::bf16;
}

struct CastSaved {
  GradRef x;
};

}  // namespace

// Every type goes through f32: exact for all but large i32, which lose nothing that their target could hold (i8, u8) or are the target.
void load_floats(DType dtype, const std::byte* x, float* y, std::size_t n) noexcept {
  const kernels::Table& table = kernels::active();
  switch (dtype) {
    case DType::f32: std::copy_n(reinterpret_cast<const float*>(x), n, y); break;
    case DType::f16: table.f16_to_f32(reinterpret_cast<const std::uint16_t*>(x), y, n); break;
    case DType::bf16: table.bf16_to_f32(reinterpret_cast<const std::uint16_t*>(x), y, n); break;
    case DType::u8: table.u8_to_f32(reinterpret_cast<const std::uint8_t*>(x), y, n, 1, 0); break;
    case DType::i8: std::copy_n(reinterpret_cast<const std::int8_t*>(x), n, y); break;
    case DType::i32:
      for (std::size_t i = 0; i < n; ++i) y[i] = static_cast<float>(reinterpret_cast<const std::int32_t*>(x)[i]);
      break;
    default: table.dequantize(quant_of(dtype), x, y, n); break;
  }
}

void rules::cast(const void* saved, Grads& grads) noexcept { grads.pass(static_cast<const CastSaved*>(saved)->x); }

namespace ops {

Result<Tensor> cast(const Operand& operand, DType dtype) noexcept {
  auto context = common_context("cast", {&operand});
  if (!context) return fail(context.error());
  if (operand->dtype() == dtype) return *operand;
  if (is_block(dtype) && dtype != DType::q4_0 && dtype != DType::q8_0)
    return fail(Errc::unsupported, "cast", "of the block formats, only q4_0 and q8_0 are made",
                operand->shape().dims());
  auto x = contiguous(operand);
  if (!x) return x;
  auto y = Fresh::make(**context, x->shape(), dtype);
  if (!y) return fail(y.error());
  const DType from = x->dtype();
  parallel_elements(**context, x->numel(), [&](std::size_t begin, std::size_t end) {
    float piece[k_piece];
    for (std::size_t i = begin; i < end; i += k_piece) {
      const std::size_t n = std::min(k_piece, end - i);
      std::byte* to = y->data() + row_bytes(dtype, i);
      const float* floats = from == DType::f32 ? x->f32() + i : dtype == DType::f32 ? y->f32() + i : piece;
      if (from != DType::f32) load_floats(from, x->data() + row_bytes(from, i), const_cast<float*>(floats), n);
      if (dtype != DType::f32) store(dtype, floats, to, n);
    }
  });
  if (!floating(from) || !floating(dtype)) return std::move(*y).freeze();
  return std::move(*y).freeze(rule(RuleId::cast), {&*x}, CastSaved{x->grad_ref()});
}

}  // namespace ops
}  // namespace qorus
