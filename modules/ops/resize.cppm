// Pictures (or lines, or volumes) of another size. x: [batch, channels, places…], one to three axes. Errors: as convolutions.
export module qorus.ops:resize;
import qorus.std;
import qorus.tensor;
import :operand;
import :conv;

export namespace qorus::ops {

enum class ResizeMode : std::uint8_t {
  nearest,  // place i is of floor(i in / out)
  linear,   // between the two nearest along each axis, by the distance from (i + 1/2) in / out - 1/2
};
struct ResizeOptions {
  ResizeMode mode = ResizeMode::nearest;
  bool align_corners = false;  // linear: by the distance from i (in - 1) / (out - 1), so that the ends meet
};
// `out`: places along each axis.
[[nodiscard]] Result<Tensor> resize(const Operand& x, const PerAxis& out, const ResizeOptions& options = {}) noexcept;

}  // namespace qorus::ops
