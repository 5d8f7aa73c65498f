// Loops that operations share: how work over big arrays is cut, strided copies, reductions over any axes. All cuts depend on
// shapes alone, so results do not depend on the number of workers.
module;
#include <cstddef>
module qorus.ops:loops;
import qorus.tensor;
import :tape;

namespace qorus {

constexpr std::size_t k_grain = 16384;  // elements per task of element-wise work: 64 KiB, long enough to outweigh a claim

// Rows of `cols` elements per task.
[[nodiscard]] constexpr std::size_t row_grain(std::size_t cols) noexcept { return cols >= k_grain ? 1 : k_grain / (cols ? cols : 1); }

// out[i] = elements of `tensor` in row-major order, whatever its strides. f32.
void copy_dense(const Context& context, const Tensor& tensor, float* out) noexcept;

// out[layout(i)] (+)= x[i] for the dense x of layout.shape. With strides of 0, contributions add up. If !to.accumulate, elements of
// `out` (out_numel of them) that the layout does not reach become 0.
void add_strided(const Context& context, const Layout& layout, const float* x, const Into& to, std::size_t out_numel) noexcept;

// How axes of a dense tensor are reduced: [outer, reduced, inner].
struct ReduceSizes {
  std::size_t outer = 1, reduced = 1, inner = 1;
};

enum class Reduction { sum, sum_abs, sum_square, max, min, prod };

// y = reduction of dense x over the middle axis. Big reductions to few results go by blocks of rows whose number depends on the
// sizes alone. `scratch` has reduce_scratch(sizes) floats (may be null if that is 0).
[[nodiscard]] std::size_t reduce_scratch(const ReduceSizes& sizes) noexcept;
void reduce_dense(const Context& context, Reduction reduction, const float* x, float* y, const ReduceSizes& sizes, float* scratch) noexcept;

// Sum of the squares of n floats. Errors: out_of_memory.
[[nodiscard]] Result<float> sum_of_squares(Context& context, const float* x, std::size_t n) noexcept;

// to (+)= dense x of shape `from`, summed over what a broadcast from `wanted` to `from` repeated. Uses the rule's temporaries.
void sum_to(Grads& grads, const float* x, const Shape& from, const Shape& wanted, const Into& to) noexcept;

}  // namespace qorus
