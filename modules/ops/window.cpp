// Bodies of qorus.ops:window.
module qorus.ops;
import qorus.std;
import :window;

namespace qorus {
namespace {

constexpr std::int64_t k_most = std::int64_t{1}
                                << 31;  // of a stride, a dilation, a padding, a window: products fit 64 bits

bool between(std::int64_t value, std::int64_t low) noexcept { return value >= low && value < k_most; }

Status place(const char* op, const Shape& x, bool ceil, Pads::Kind kind, WindowAxis& a) noexcept {
  if (!between(a.kernel, 1) || !between(a.stride, 1) || !between(a.dilation, 1) || !between(a.before, 0) ||
      !between(a.after, 0)) {
    return fail(Errc::invalid_argument, op, "windows, strides and dilations are at least 1, padding at least 0",
                x.dims());
  }
  if (kind != Pads::Kind::given) {
    a.out = (a.in + a.stride - 1) / a.stride;
    const std::int64_t all = std::max<std::int64_t>((a.out - 1) * a.stride + a.reach() - a.in, 0);
    a.before = kind == Pads::Kind::same ? all / 2 : all - all / 2;
    a.after = all - a.before;
    return {};
  }
  const std::int64_t room = a.in + a.before + a.after - a.reach();
  if (room < 0) return fail(Errc::invalid_size, op, "the window is larger than the padded input", x.dims());
  a.out = room / a.stride + 1;
  if (ceil && room % a.stride != 0 && a.out * a.stride < a.in + a.before) ++a.out;
  return {};
}

}  // namespace

Result<Windows> windows_of(const char* op, const Shape& x, const WindowOptions& options) noexcept {
  const int axes = x.rank() - 2;
  if (axes < 1 || axes > 3)
    return fail(Errc::invalid_size, op, "needs x: [batch, channels, one to three axes]", x.dims());
  if (!options.kernel.fits(axes) || !options.stride.fits(axes) || !options.dilation.fits(axes) ||
      !options.padding.before.fits(axes) || !options.padding.after.fits(axes)) {
    return fail(Errc::invalid_argument, op, "one number for all axes, or one for each", x.dims());
  }
  Windows windows;
  for (int d = 0; d < axes; ++d) {
    WindowAxis& a = windows[static_cast<std::size_t>(3 - axes) + static_cast<std::size_t>(d)];
    a = {.in = x[2 + d],
         .kernel = options.kernel[d],
         .stride = options.stride[d],
         .dilation = options.dilation[d],
         .before = options.padding.before[d],
         .after = options.padding.after[d]};
    if (auto ok = place(op, x, options.ceil, options.padding.kind, a); !ok) return fail(ok.error());
  }
  return windows;
}

Result<Shape> window_result(const char* op, const Shape& x, std::int64_t channels, const Windows& windows) noexcept {
  Shape shape = x.with(1, channels);
  for (int d = 2; d < x.rank() && shape.valid(); ++d)
    shape = shape.with(d, windows[static_cast<std::size_t>(5 - x.rank() + d - 2)].out);
  if (!shape.valid()) return fail(Errc::invalid_size, op, "the result would be too large", x.dims());
  return shape;
}

Result<Shape> padded_fits(const char* op, const Shape& x, const Windows& windows) noexcept {
  Shape padded = x;
  for (int d = 2; d < x.rank() && padded.valid(); ++d) {
    const WindowAxis& a = windows[static_cast<std::size_t>(5 - x.rank() + d - 2)];
    padded = padded.with(d, a.in + a.before + a.after);
  }
  if (!padded.valid()) return fail(Errc::invalid_size, op, "the padded input would be too large", x.dims());
  return x;
}

}  // namespace qorus
