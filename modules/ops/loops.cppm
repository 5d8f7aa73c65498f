// Loops that operations share: how work over big arrays is cut, strided copies, reductions over any axes. What sums go by is cut by shapes
// alone, so results do not depend on the number of workers.
module qorus.ops:loops;
import qorus.std;
import qorus.tensor;
import :tape;

namespace qorus {

inline constexpr std::size_t k_grain =
    16384;  // elements per task of element-wise work: 64 KiB, long enough to outweigh a claim

// Elements per task. Outputs of 2^22 elements and more, 2^21 for each worker at least, are cut coarsely: a kernel that writes 2^21 at once
// sends them past the caches.
[[nodiscard]] constexpr std::size_t element_grain(const Context& context, std::size_t n) noexcept {
  constexpr std::size_t k_streamed = std::size_t{1} << 21;
  const auto workers = static_cast<std::size_t>(context.executor.width);
  return n >= k_streamed * (workers < 2 ? 2 : workers) ? k_streamed : k_grain;
}
// Rows of `cols` elements per task: as many as make a grain.
[[nodiscard]] constexpr std::size_t row_grain(std::size_t cols, std::size_t grain = k_grain) noexcept {
  const std::size_t wide = cols ? cols : 1;
  return wide >= grain ? 1 : grain / wide;
}
// Runs f(begin, end) over pieces of n elements, on all workers.
template <class F>
void parallel_elements(const Context& context, std::size_t n, F&& f) {
  parallel_chunks(context, n, element_grain(context, n), f);
}
// The same over rows of `cols` elements.
template <class F>
void parallel_row_chunks(const Context& context, std::size_t rows, std::size_t cols, F&& f) {
  parallel_chunks(context, rows, row_grain(cols, element_grain(context, rows * cols)), f);
}

// out[i] = elements of `tensor` in row-major order, whatever its strides. f32.
void copy_dense(const Context& context, const Tensor& tensor, float* out) noexcept;

// out[layout(i)] (+)= x[i] for the dense x of layout.shape, each at a place of its own. If !to.accumulate, elements of `out` (out_numel of
// them) that the layout does not reach become 0.
void add_strided(const Context& context, const Layout& layout, const float* x, const Into& to,
                 std::size_t out_numel) noexcept;

// y[i] = x[i], n elements of any type, whole blocks.
void load_floats(DType dtype, const std::byte* x, float* y, std::size_t n) noexcept;

// Runs f(row, begin, end) over rows of `cols` elements, long rows cut into pieces.
template <class F>
void parallel_rows(const Context& context, std::size_t rows, std::size_t cols, F&& f) {
  if (rows == 0 || cols == 0) return;
  if (cols < 2 * k_grain) {
    parallel_chunks(context, rows, row_grain(cols), [&](std::size_t first, std::size_t last) {
      for (std::size_t row = first; row < last; ++row) f(row, std::size_t{0}, cols);
    });
    return;
  }
  const std::size_t pieces = (cols + k_grain - 1) / k_grain;
  parallel_chunks(context, rows * pieces, 1, [&](std::size_t piece, std::size_t) {
    const std::size_t begin = piece % pieces * k_grain;
    f(piece / pieces, begin, begin + k_grain < cols ? begin + k_grain : cols);
  });
}

// y[r, :] = x[r, :], rows of so many bytes, each array with a step from row to row of its own.
void copy_rows(const Context& context, const std::byte* x, std::size_t x_step, std::byte* y, std::size_t y_step,
               std::size_t rows, std::size_t bytes) noexcept;
// to[r, :] (+)= x[r, :]; steps and cols in floats.
void add_rows(const Context& context, const float* x, std::size_t x_step, const Into& to, std::size_t to_step,
              std::size_t rows, std::size_t cols) noexcept;

// How axes of a dense tensor are reduced: [outer, reduced, inner].
struct ReduceSizes {
  std::size_t outer = 1, reduced = 1, inner = 1;
};

enum class Reduction { sum, sum_abs, sum_square, max, min, prod };

// y = reduction of dense x over the middle axis. Big reductions to few results go by blocks of rows whose number depends on the
// sizes alone. `scratch` has reduce_scratch(sizes) floats (may be null if that is 0).
[[nodiscard]] std::size_t reduce_scratch(const ReduceSizes& sizes) noexcept;
void reduce_dense(const Context& context, Reduction reduction, const float* x, float* y, const ReduceSizes& sizes,
                  float* scratch) noexcept;

// Sum of the squares of n floats. Errors: out_of_memory.
[[nodiscard]] Result<float> sum_of_squares(Context& context, const float* x, std::size_t n) noexcept;

// to (+)= dense x of shape `from`, summed over what a broadcast from `wanted` to `from` repeated. Uses the rule's temporaries.
void sum_to(Grads& grads, const float* x, const Shape& from, const Shape& wanted, const Into& to) noexcept;

}  // namespace qorus
