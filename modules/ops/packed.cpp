// Linear layers whose weights are not f32: f16, bf16 and the block formats, packed ahead or unpacked on the way.
module;
#include "modules/ops/packed.h"
#include "kernels/kernels.h"
module qorus.ops;
import qorus.std;
import :loops;
import :product;

namespace qorus {
namespace {

using kernels::Packing;

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

Result<Tensor> linear_narrow(const Operand& input, const LinearCall& call, Activation activation) noexcept {
  Context& context = *call.context;
  const Tensor& weight = call.weight;
  const bool shifts = call.bias.shape().valid(), goes_around = call.residual.shape().valid();
  if (!call.packed) {
    const Operand bias = call.bias, residual = call.residual;
    return ops::linear(
        input, ops::cast(placed(weight, context), DType::f32),
        {.bias = shifts ? &bias : nullptr, .residual = goes_around ? &residual : nullptr, .activation = activation});
  }
  auto x = ops::contiguous(placed(input, context));
  if (!x) return x;
  const std::int64_t in = weight.dim(1), out = weight.dim(0);
  auto y = Fresh::make(context, x->shape().with(-1, out));
  if (!y) return fail(y.error());
  const kernels::PackedProduct product{
      .packing = packing_of(weight.dtype()),
      .m = call.rows(y->shape()),
      .n = static_cast<std::size_t>(out),
      .k = static_cast<std::size_t>(in),
      .weights = call.packed->data(),
      .c = y->f32(),
      .c_row = out,
      .bias = shifts ? call.bias.f32() : nullptr,
  };
  if (auto done = run_packed(context, product, x->f32(), activation); !done) return fail(done.error());
  if (goes_around) {
    const float* const residual = call.residual.f32();
    parallel_elements(context, y->shape().numel(), [&](std::size_t begin, std::size_t end) {
      kernels::active().axpy(1, residual + begin, y->f32() + begin, end - begin);
    });
  }
  return std::move(*y).freeze();
}

namespace ops {

std::size_t packed_bytes(DType dtype, const Shape& weight) noexcept {
  const Packing packing = packing_of(dtype);
  if (packing == Packing::count_ || weight.rank() != 2) return 0;
  const auto n = static_cast<std::size_t>(weight[0]), k = static_cast<std::size_t>(weight[1]);
  if (k % kernels::packing_block(packing).elements != 0) return 0;
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
  const auto pack = [&](std::size_t first, std::size_t last) {
    kernels::active().pack_weights(packing_of(weight.dtype()), weight.data(), packed.data(), n, k, first, last, 0);
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
