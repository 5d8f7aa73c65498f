// Linear layers whose weights are not f32: f16, bf16 and the block formats, packed ahead or unpacked on the way.
module;
#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <span>
#include <utility>

#include "kernels/kernels.h"
module qorus.ops;
import :loops;
import :product;

namespace qorus {
namespace {

using kernels::Packing;

// The packing of a type; count_ if there is none. Block formats that products do not read as they are stand as f16 does.
Packing packing_of(DType dtype) noexcept {
  switch (dtype) {
    case DType::q4_0: return Packing::q4_0;
    case DType::q8_0: return Packing::q8_0;
    case DType::q4_k: return Packing::q4_k;
    case DType::q6_k: return Packing::q6_k;
    case DType::f16: return Packing::f16;
    case DType::bf16: return Packing::bf16;
    default: return is_block(dtype) ? Packing::f16 : Packing::count_;
  }
}

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

kernels::Unary unary_of(Activation activation) noexcept {
  switch (activation) {
    case Activation::relu: return kernels::Unary::relu;
    case Activation::gelu: return kernels::Unary::gelu;
    case Activation::gelu_tanh: return kernels::Unary::gelu_tanh;
    case Activation::silu: return kernels::Unary::silu;
    case Activation::sigmoid: return kernels::Unary::sigmoid;
    default: return kernels::Unary::tanh;
  }
}

// Runs f(first, last) for parts of n panels of so many bytes, where reading them is what takes the time. Every worker has a region of its
// own that it reads from end to end, then it helps others: two that take turns along one stream fetch ahead what the other one reads,
// and get half of what the memory gives.
template <class F>
void parallel_streams(const Context& context, std::size_t n, std::size_t bytes, F&& f) {
  constexpr std::size_t k_part_bytes = 32768, k_most = 16;
  struct alignas(64) Region {
    std::atomic<std::size_t> next;
    std::size_t end;
  } regions[k_most];
  const std::size_t part = std::max<std::size_t>(1, k_part_bytes / std::max<std::size_t>(1, bytes));
  const std::size_t parts = (n + part - 1) / part, width = static_cast<std::size_t>(context.executor.width),
                    count = std::max<std::size_t>(1, std::min({width, parts, k_most}));
  for (std::size_t i = 0; i < count; ++i) {
    regions[i].next.store(parts * i / count, std::memory_order_relaxed);
    regions[i].end = parts * (i + 1) / count;
  }
  parallel(context, static_cast<std::uint32_t>(count), [&](std::uint32_t own, int) {
    for (std::size_t i = 0; i < count; ++i) {
      Region& region = regions[(own + i) % count];
      for (std::size_t at; (at = region.next.fetch_add(1, std::memory_order_relaxed)) < region.end;)
        f(at * part, std::min(n, at * part + part));
    }
  });
}

void activate(Activation activation, const kernels::PackedProduct& p, std::size_t first, std::size_t last) noexcept {
  const std::size_t begin = first * kernels::k_panel, end = std::min(p.n, last * kernels::k_panel);
  for (std::size_t i = 0; i < p.m; ++i) {
    float* row = p.c + static_cast<std::ptrdiff_t>(i) * p.c_row;
    kernels::active().unary(unary_of(activation), row + begin, row + begin, end - begin, 0);
  }
}

Status run_packed(Context& context, kernels::PackedProduct p, const float* x, Activation activation) noexcept {
  const kernels::Table& table = kernels::active();
  const std::size_t mark = context.scratch->mark();
  auto rows = context.scratch->take(p.m * packed_row_bytes(p.packing, p.k));
  if (!rows) return fail(rows.error());
  p.rows = rows->data;
  constexpr std::size_t k_run = 16;  // rows are packed in runs of that many
  parallel_chunks(context, (p.m + k_run - 1) / k_run, 2, [&](std::size_t begin, std::size_t end) {
    table.pack_rows(p.packing, x, static_cast<std::ptrdiff_t>(p.k), rows->data, p.m, p.k, begin * k_run,
                    std::min(end * k_run, p.m));
  });
  const auto columns = [&](std::size_t first, std::size_t last) {
    table.packed_product(p, first, last);
    if (activation != Activation::none) activate(activation, p, first, last);
  };
  constexpr std::size_t k_panels = 4;  // of a task: their c stays in the second-level cache
  if (p.m < k_run) {
    parallel_streams(context, kernels::panels_of(p.n), packed_panel_bytes(p.packing, p.k), columns);
  } else {
    parallel_chunks(context, kernels::panels_of(p.n), k_panels, columns);
  }
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
