// Reductions over any axes. The reduced extents vanish, or stay as 1 with keep. f32; sums add in a fixed order that depends on the
// shape alone. Errors of all: an operand's own, stale_tensor, no_workspace, invalid_dtype, invalid_argument (an axis that is not there
// or is named twice), out_of_memory.
export module qorus.ops:reduce;
import qorus.std;
import qorus.tensor;
import :operand;

export namespace qorus::ops {

// A list of axes, counted from the front or (negative) from the end. Empty: all of them.
struct Axes {
  Axes() noexcept = default;
  Axes(int axis) noexcept : Axes({axis}) {}       // NOLINT(google-explicit-constructor)
  Axes(std::initializer_list<int> list) noexcept  // NOLINT(google-explicit-constructor)
      : Axes(std::span(list.begin(), list.size())) {}
  explicit Axes(std::span<const int> list) noexcept;
  int axis[k_max_rank] = {};
  int count = 0;  // 7 after a list that was too long: no tensor has such axes
};

[[nodiscard]] Result<Tensor> sum(const Operand& x, const Axes& axes = {}, bool keep = false) noexcept;
[[nodiscard]] Result<Tensor> mean(const Operand& x, const Axes& axes = {},
                                  bool keep = false) noexcept;  // of nothing: NaN
[[nodiscard]] Result<Tensor> max(const Operand& x, const Axes& axes,
                                 bool keep = false) noexcept;  // equal largest ones share the gradient
[[nodiscard]] Result<Tensor> min(const Operand& x, const Axes& axes, bool keep = false) noexcept;
[[nodiscard]] Result<Tensor> prod(const Operand& x, const Axes& axes = {}, bool keep = false) noexcept;
// sum |x|, sum x^2
[[nodiscard]] Result<Tensor> sum_abs(const Operand& x, const Axes& axes = {}, bool keep = false) noexcept;
[[nodiscard]] Result<Tensor> sum_square(const Operand& x, const Axes& axes = {}, bool keep = false) noexcept;
// mean (x - mean x)^2, with n - correction for n: 0 for the variance of the elements, 1 for an estimate from a sample.
[[nodiscard]] Result<Tensor> variance(const Operand& x, const Axes& axes = {}, int correction = 0,
                                      bool keep = false) noexcept;

// i32 index of the first largest (smallest) element along one axis; no gradient. A NaN counts as largest (smallest).
// Errors: also invalid_size if the axis has no elements.
[[nodiscard]] Result<Tensor> argmax(const Operand& x, int axis = -1, bool keep = false) noexcept;
[[nodiscard]] Result<Tensor> argmin(const Operand& x, int axis = -1, bool keep = false) noexcept;

}  // namespace qorus::ops
