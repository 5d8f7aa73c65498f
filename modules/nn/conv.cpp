// Bodies of qorus.nn:conv.
module qorus.nn;
import qorus.std;

namespace qorus::nn {
namespace {

using Extents = std::array<std::int64_t, k_max_rank>;

// [first, second, taps…]
Shape weight_shape(std::int64_t first, std::int64_t second, const PerAxis& kernel, int axes) noexcept {
  Extents list{first, second};
  for (int d = 0; d < axes; ++d) list[static_cast<std::size_t>(d) + 2] = kernel[d];
  return Shape(std::span<const std::int64_t>(list.data(), static_cast<std::size_t>(2 + axes)));
}

Status check_axes(const char* layer, const Tensor& x, const PerAxis& kernel, std::int64_t groups, int axes) noexcept {
  if (x.rank() != axes + 2 || groups < 1 || x.dim(1) % groups != 0)
    return fail(Errc::invalid_size, layer, "needs x: [batch, channels, places...], channels a multiple of the groups",
                x.shape().dims());
  if (!kernel.fits(axes)) return fail(Errc::invalid_argument, layer, "one number for all axes, or one for each");
  return {};
}

}  // namespace

template <int Axes>
Result<Tensor> Conv<Axes>::with(const Tensor& x, Activation activation) const noexcept {
  const char* name = k_name.data();
  if (auto ok = check_axes(name, x, kernel, options.groups, Axes); !ok) return fail(ok.error());
  const ops::ConvOptions o{.stride = options.stride,
                           .padding = options.padding,
                           .dilation = options.dilation,
                           .groups = options.groups,
                           .activation = activation,
                           .packed = weight.good_packed()};
  const auto w = use(weight, weight_shape(out_channels, x.dim(1) / options.groups, kernel, Axes), x, name);
  if (!options.bias) return ops::conv(x, w, o);
  return ops::conv(x, w, use(bias, Shape{out_channels}, x, name), o);
}
template struct Conv<1>;
template struct Conv<2>;
template struct Conv<3>;

template <int Axes>
Result<Tensor> ConvTranspose<Axes>::operator()(const Tensor& x) const noexcept {
  const char* name = k_name.data();
  if (auto ok = check_axes(name, x, kernel, options.groups, Axes); !ok) return fail(ok.error());
  const ops::ConvTransposeOptions o{.stride = options.stride,
                                    .padding = options.padding,
                                    .dilation = options.dilation,
                                    .output_padding = options.output_padding,
                                    .groups = options.groups};
  const auto w = use(weight, weight_shape(x.dim(1), out_channels / options.groups, kernel, Axes), x, name);
  if (!options.bias) return ops::conv_transpose(x, w, o);
  return ops::conv_transpose(x, w, use(bias, Shape{out_channels}, x, name), o);
}
template struct ConvTranspose<1>;
template struct ConvTranspose<2>;

Result<Tensor> Upsample::operator()(const Tensor& x) const noexcept {
  const int axes = x.rank() - 2;
  if (axes < 1 || axes > 3 || !scale.fits(axes))
    return fail(Errc::invalid_size, "upsample", "needs x: [batch, channels, one to three axes]", x.shape().dims());
  std::array<std::int64_t, 3> out{};
  for (int d = 0; d < axes; ++d) {
    if (__builtin_mul_overflow(x.dim(2 + d), scale[d], &out[static_cast<std::size_t>(d)]))
      return fail(Errc::invalid_size, "upsample", "the result would be too large", x.shape().dims());
  }
  return ops::resize(x, PerAxis(std::span<const std::int64_t>(out.data(), static_cast<std::size_t>(axes))), options);
}

Result<Tensor> Pad::operator()(const Tensor& x) const noexcept {
  const int axes = x.rank() - 2;
  if (axes < 1 || axes > 3 || !amount.before.fits(axes) || !amount.after.fits(axes))
    return fail(Errc::invalid_size, "pad", "needs x: [batch, channels, one to three axes]", x.shape().dims());
  std::array<ops::Padding, 3> list{};
  for (int d = 0; d < axes; ++d) list[static_cast<std::size_t>(d)] = {2 + d, amount.before[d], amount.after[d]};
  return ops::pad(x, std::span<const ops::Padding>(list.data(), static_cast<std::size_t>(axes)), mode, value);
}

Result<Tensor> BatchNorm::with(const Tensor& x, Activation activation) const noexcept {
  if (x.rank() < 2) return fail(Errc::invalid_size, "batch_norm", "needs x: [batch, channels, ...]", x.shape().dims());
  const Shape channels{x.dim(1)};
  const auto of = [&](const Param& param) { return use(param, channels, x, "batch_norm"); };
  return ops::batch_norm(x, of(weight), of(bias), of(running_mean), of(running_var),
                         {.eps = eps, .momentum = momentum, .frozen = frozen, .activation = activation});
}

Result<Tensor> GroupNorm::with(const Tensor& x, Activation activation) const noexcept {
  if (x.rank() < 2) return fail(Errc::invalid_size, "group_norm", "needs x: [batch, channels, ...]", x.shape().dims());
  const Shape channels{x.dim(1)};
  return ops::group_norm(x, use(weight, channels, x, "group_norm"), use(bias, channels, x, "group_norm"),
                         {.groups = groups ? groups : x.dim(1), .eps = eps, .activation = activation});
}

Result<Tensor> DropPath::operator()(const Tensor& x) const noexcept {
  Context* context = x.alive() ? x.context() : nullptr;
  if (!context || !context->training || x.rank() < 1) return ops::dropout(x, context && context->training ? p : 0);
  Extents list;
  list.fill(1);
  list[0] = x.dim(0);
  const Shape rows(std::span<const std::int64_t>(list.data(), static_cast<std::size_t>(x.rank())));
  return ops::mul(x, ops::dropout(ops::uniform(*context, rows, 1, 1), p));
}

}  // namespace qorus::nn
