// Bodies of qorus.ops:resize. Nearest places are taken by index; a linear resize is, along each axis, a product with a matrix of two
// numbers in each row, so that its gradient is that product's.
module qorus.ops;
import qorus.std;
import :loops;

namespace qorus {
namespace {

Result<Tensor> take_nearest(const Tensor& x, int axis, std::int64_t out, Context& context) noexcept {
  auto index = Fresh::make(context, Shape{out}, DType::i32);
  if (!index) return fail(index.error());
  const std::int64_t in = x.dim(axis);
  parallel(context, 1, [&](std::uint32_t, int) {
    for (std::int64_t i = 0; i < out; ++i) index->i32()[i] = static_cast<std::int32_t>(i * in / out);
  });
  return ops::take(x, std::move(*index).freeze(), axis);
}

// weights[i, …] of the places that output i lies between: [out, in].
Result<Tensor> linear_weights(std::int64_t in, std::int64_t out, bool align_corners, Context& context) noexcept {
  auto weights = Fresh::make(context, Shape{out, in});
  if (!weights) return fail(weights.error());
  parallel(context, 1, [&](std::uint32_t, int) {
    float* row = weights->f32();
    std::memset(row, 0, static_cast<std::size_t>(out * in) * sizeof(float));
    const double scale = align_corners ? (out > 1 ? static_cast<double>(in - 1) / static_cast<double>(out - 1) : 0)
                                       : static_cast<double>(in) / static_cast<double>(out);
    for (std::int64_t i = 0; i < out; ++i, row += in) {
      const double at = align_corners ? static_cast<double>(i) * scale : (static_cast<double>(i) + 0.5) * scale - 0.5;
      const double place = std::clamp(at, 0.0, static_cast<double>(in - 1));
      const auto low = static_cast<std::int64_t>(place);
      const auto part = static_cast<float>(place - static_cast<double>(low));
      row[low] += 1 - part;
      if (part > 0) row[low + 1] += part;
    }
  });
  return std::move(*weights).freeze();
}

Result<Tensor> mix_linear(const Tensor& x, int axis, std::int64_t out, bool align_corners, Context& context) noexcept {
  auto weights = linear_weights(x.dim(axis), out, align_corners, context);
  if (!weights) return weights;
  const int last = x.rank() - 1;
  if (axis == last) return ops::matmul(x, ops::transpose(weights));
  if (axis == last - 1) return ops::matmul(weights, x);
  return ops::transpose(ops::matmul(weights, ops::transpose(x, axis, last - 1)), axis, last - 1);
}

}  // namespace

namespace ops {

Result<Tensor> resize(const Operand& x, const PerAxis& out, const ResizeOptions& options) noexcept {
  auto context = float_context("resize", {&x});
  if (!context) return fail(context.error());
  const int axes = x->rank() - 2;
  if (axes < 1 || axes > 3)
    return fail(Errc::invalid_size, "resize", "needs x: [batch, channels, one to three axes]", x->shape().dims());
  if (!out.fits(axes)) return fail(Errc::invalid_argument, "resize", "one extent for all axes, or one for each");
  Shape shape = x->shape();
  for (int d = 0; d < axes && shape.valid(); ++d) {
    if (x->dim(2 + d) < 1 || out[d] < 1 || x->dim(2 + d) >= 1 << 30 || out[d] >= 1 << 30)
      return fail(Errc::invalid_size, "resize", "needs at least one place on each axis, before and after",
                  x->shape().dims());
    shape = shape.with(2 + d, out[d]);
  }
  if (!shape.valid()) return fail(Errc::invalid_size, "resize", "the result would be too large", x->shape().dims());
  Result<Tensor> y = *x;
  for (int d = 2; d < x->rank() && y; ++d) {
    if (y->dim(d) == out[d - 2]) continue;
    y = options.mode == ResizeMode::nearest ? take_nearest(*y, d, out[d - 2], **context)
                                            : mix_linear(*y, d, out[d - 2], options.align_corners, **context);
  }
  return y;
}

}  // namespace ops
}  // namespace qorus
