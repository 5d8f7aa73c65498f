// The arithmetic of sliding windows, shared by convolutions and pools.
module qorus.ops:window;
import qorus.std;
import qorus.tensor;
import :conv;

namespace qorus {

// One axis of a window that slides over an input.
struct WindowAxis {
  std::int64_t in = 1, out = 1, kernel = 1, stride = 1, dilation = 1, before = 0, after = 0;
  [[nodiscard]] std::int64_t reach() const noexcept { return (kernel - 1) * dilation + 1; }
};
// The last axis of x last; axes that x lacks are of one place.
using Windows = std::array<WindowAxis, 3>;

struct WindowOptions {
  PerAxis kernel, stride, dilation;
  Pads padding;
  bool ceil = false;
};

// Of x: [batch, channels, places…]. Errors: invalid_size (the rank; windows that do not fit), invalid_argument.
[[nodiscard]] Result<Windows> windows_of(const char* op, const Shape& x, const WindowOptions& options) noexcept;
// [batch, channels, out places…], with as many of them as x has. Errors: invalid_size.
[[nodiscard]] Result<Shape> window_result(const char* op, const Shape& x, std::int64_t channels,
                                          const Windows& windows) noexcept;
// The shape itself, if it could be padded as the windows say: kernels copy parts of it so. Errors: invalid_size.
[[nodiscard]] Result<Shape> padded_fits(const char* op, const Shape& x, const Windows& windows) noexcept;

}  // namespace qorus
