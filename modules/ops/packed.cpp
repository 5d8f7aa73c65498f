// Linear layers whose weights are not f32: f16, bf16 and the block formats, packed ahead or unpacked on the way.
module;
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <utility>

#include "kernels/kernels.h"
#include "modules/ops/packed.h"
module qorus.ops;
import :loops;
import :product;

namespace qorus {
namespace {

using kernels::Packing;

// Panels first to last-1 of any block format, by way of f32 and f16, some columns of a panel at a time.
void pack_through_f16(const Tensor& weight, std::byte* packed, std::size_t first, std::size_t last) noexcept {
  constexpr std::size_t k_cols = 256, k_rows = kernels::k_panel;  // every format's blocks end there
  const kernels::Table& table = kernels::active();
  const auto quant = static_cast<kernels::Quant>(static_cast<int>(weight.dtype()) - static_cast<int>(DType::q4_0));
  const auto n = static_cast<std::size_t>(weight.dim(0)), k = static_cast<std::size_t>(weight.dim(1));
  const std::size_t row = row_bytes(weight.dtype(), k);
  std::byte* to = packed + first * packed_panel_bytes(Packing::f16, k);
  for (std::size_t panel = first; panel < last; ++panel) {
    const std::size_t rows = std::min(k_rows, n - panel * k_rows);
    for (std::size_t begin = 0; begin < k; begin += k_cols) {
      const std::size_t cols = std::min(k_cols, k - begin);
      alignas(64) float wide[k_rows * k_cols];
      alignas(64) std::uint16_t halves[k_rows * k_cols];
      for (std::size_t r = 0; r < rows; ++r)
        table.dequantize(quant, weight.data() + (panel * k_rows + r) * row + row_bytes(weight.dtype(), begin),
                         wide + r * cols, cols);
      table.f32_to_f16(wide, halves, rows * cols);
      table.pack_weights(Packing::f16, halves, to, rows, cols, 0, 1);
      to += packed_panel_bytes(Packing::f16, cols);
    }
  }
}

Status run_packed(Context& context, kernels::PackedProduct p, const float* x, Activation activation) noexcept {
  const std::size_t mark = context.scratch->mark();
  auto rows = context.scratch->take(p.m * packed_row_bytes(p.packing, p.k));
  if (!rows) return fail(rows.error());
  p.rows = rows->data;
  pack_rows(context, p, x, rows->data);
  const std::size_t panels = kernels::panels_of(p.n), part = panels_of_task(p);
  parallel_products(context, p.m, (panels + part - 1) / part, [&](std::size_t task, int) {
    const std::size_t first = task * part, last = std::min(panels, first + part);
    kernels::active().packed_product(p, first, last);
    if (activation != Activation::none) activate(unary_of(activation), p, first, last);
  });
  context.scratch->shrink_to(mark);
  return {};
}

}  // namespace

Result<Tensor> linear_narrow(const Operand& input, const Operand& weight, const Tensor* packed, const Operand* bias,
                             Activation activation, Context& context) noexcept {
  const auto wide = [&](const Result<Tensor>& w) {
    return bias ? ops::linear(input, w, *bias, activation) : ops::linear(input, w, activation);
  };
  if (context.record || !packed) return wide(ops::cast(placed(weight, context), DType::f32));
  auto x = ops::contiguous(placed(input, context));
  if (!x) return x;
  const std::int64_t in = weight->dim(1), out = weight->dim(0);
  auto y = Fresh::make(context, x->shape().with(-1, out));
  if (!y) return fail(y.error());
  const kernels::PackedProduct product{
      .packing = packing_of(weight->dtype()),
      .m = y->shape().numel() / static_cast<std::size_t>(out > 0 ? out : 1),
      .n = static_cast<std::size_t>(out),
      .k = static_cast<std::size_t>(in),
      .weights = packed->data(),
      .c = y->f32(),
      .c_row = out,
      .bias = bias ? (*bias)->f32() : nullptr,
  };
  if (auto done = run_packed(context, product, x->f32(), activation); !done) return fail(done.error());
  return std::move(*y).freeze();
}

namespace ops {

std::size_t packed_bytes(DType dtype, const Shape& weight) noexcept {
  const Packing packing = packing_of(dtype);
  if (packing == Packing::count_ || weight.rank() != 2) return 0;
  const auto n = static_cast<std::size_t>(weight[0]), k = static_cast<std::size_t>(weight[1]);
  const std::size_t block = is_block(dtype) ? block_size(dtype) : 1;
  if (k % std::max<std::size_t>(block, kernels::k_packing_blocks[static_cast<int>(packing)].elements) != 0) return 0;
  const Checked bytes = Checked(kernels::panels_of(n)) * packed_panel_bytes(packing, k);
  return static_cast<std::size_t>(bytes.value_or(0));
}

Status pack_weight(const Tensor& weight, std::span<std::byte> packed) noexcept {
  if (auto ok = weight.check("pack_weight"); !ok) return ok;
  const std::size_t bytes = packed_bytes(weight.dtype(), weight.shape());
  if (bytes == 0 || packed.size() != bytes || !weight.contiguous()) {
    return fail(Errc::invalid_size, "pack_weight", "needs a contiguous matrix of a type that packs, and packed_bytes",
                weight.shape().dims());
  }
  const auto n = static_cast<std::size_t>(weight.dim(0)), k = static_cast<std::size_t>(weight.dim(1));
  const bool through = is_block(weight.dtype()) && packing_of(weight.dtype()) == Packing::f16;
  const auto pack = [&](std::size_t first, std::size_t last) {
    if (through) return pack_through_f16(weight, packed.data(), first, last);
    kernels::active().pack_weights(packing_of(weight.dtype()), weight.data(), packed.data(), n, k, first, last);
  };
  const std::size_t panels = kernels::panels_of(n);
  if (weight.context()) {
    constexpr std::size_t k_panels = 8;  // a task's
    parallel_chunks(*weight.context(), panels, k_panels, pack);
  } else {
    pack(0, panels);
  }
  return {};
}

}  // namespace ops
}  // namespace qorus
