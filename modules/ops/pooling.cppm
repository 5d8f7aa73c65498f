// Pools over one, two or three axes. x: [batch, channels, places…]. Errors: as convolutions.
export module qorus.ops:pooling;
import qorus.std;
import qorus.tensor;
import :operand;
import :conv;

export namespace qorus::ops {

struct PoolOptions {
  PerAxis stride = 0;  // 0: as wide as the window
  Pads padding = 0;    // at most half a window for max_pool, as nothing may consist of padding alone
  PerAxis dilation = 1;
  bool ceil = false;  // a last window may go beyond the end, if it begins within the input or its first padding
  bool count_include_pad = true;  // avg_pool: padding counts as zeros
};
// The largest of each window; equal ones: the first has the gradient. NaN if any is.
[[nodiscard]] Result<Tensor> max_pool(const Operand& x, const PerAxis& kernel,
                                      const PoolOptions& options = {}) noexcept;
// Where it lies in its channel's places, row-major: i32 of the result's shape. Not differentiable.
[[nodiscard]] Result<Tensor> max_pool_indices(const Operand& x, const PerAxis& kernel,
                                              const PoolOptions& options = {}) noexcept;
// The mean of each window.
[[nodiscard]] Result<Tensor> avg_pool(const Operand& x, const PerAxis& kernel,
                                      const PoolOptions& options = {}) noexcept;

// Windows that cover the input evenly and give `out` places: from floor(i in / out) to ceil((i + 1) in / out).
[[nodiscard]] Result<Tensor> adaptive_avg_pool(const Operand& x, const PerAxis& out) noexcept;
[[nodiscard]] Result<Tensor> adaptive_max_pool(const Operand& x, const PerAxis& out) noexcept;

}  // namespace qorus::ops
