// Bodies of qorus.ops:loops.
module;
#include "kernels/kernels.h"
module qorus.ops;
import qorus.std;
import :loops;

namespace qorus {
namespace {

kernels::Reduce kernel_of(Reduction reduction) noexcept { return static_cast<kernels::Reduce>(reduction); }
static_assert(static_cast<int>(Reduction::prod) == static_cast<int>(kernels::Reduce::prod));

// The offset of outer row `row` of a layout, all but its last extent counted as rows.
std::int64_t row_offset(const Layout& layout, std::size_t row) noexcept {
  std::int64_t offset = 0;
  for (int d = layout.shape.rank() - 2; d >= 0; --d) {
    const auto extent = static_cast<std::size_t>(layout.shape[d]);
    offset += static_cast<std::int64_t>(row % extent) * layout.stride[d];
    row /= extent;
  }
  return offset;
}

// Joins neighbouring extents that lie as one, so that inner loops are long.
Layout merged(const Layout& layout) noexcept {
  std::array<std::int64_t, k_max_rank> extents{};
  Layout result{.offset = layout.offset};
  int rank = 0;
  for (int d = 0; d < layout.shape.rank(); ++d) {
    if (layout.shape[d] == 1) continue;
    if (rank && result.stride[rank - 1] == layout.stride[d] * layout.shape[d]) {
      extents[rank - 1] *= layout.shape[d];
      result.stride[rank - 1] = layout.stride[d];
    } else {
      extents[rank] = layout.shape[d];
      result.stride[rank++] = layout.stride[d];
    }
  }
  if (rank == 0) extents[rank++] = static_cast<std::int64_t>(layout.shape.numel());
  result.shape = Shape(std::span<const std::int64_t>(extents.data(), static_cast<std::size_t>(rank)));
  return result;
}

constexpr std::size_t k_block = 65536;  // elements per block of a big reduction

// Rows of [reduced, inner] per block; 0 if one block is enough.
std::size_t block_rows(const ReduceSizes& sizes) noexcept {
  if (sizes.outer != 1 || sizes.reduced * sizes.inner < 2 * k_block) return 0;
  const std::size_t rows = std::max<std::size_t>(k_block / std::max<std::size_t>(sizes.inner, 1), 1);
  return rows >= sizes.reduced ? 0 : rows;
}

}  // namespace

void copy_dense(const Context& context, const Tensor& tensor, float* out) noexcept {
  const std::size_t n = tensor.numel();
  if (n == 0) return;
  const Layout layout = merged(tensor.layout());
  const int rank = layout.shape.rank();
  const auto inner = static_cast<std::size_t>(layout.shape[-1]);
  const std::int64_t step = layout.stride[rank - 1];
  const float* x = tensor.f32();
  if (rank >= 2 && step != 1 &&
      layout.stride[rank - 2] == 1) {  // rows of columns: a transposition for each outer index
    const auto rows = static_cast<std::size_t>(layout.shape[rank - 2]);
    Layout outer = layout;
    outer.shape = layout.shape.with(-2, 1);
    // Bands of the result's rows, wide enough that a cache line of x is used whole.
    const std::size_t band = std::max<std::size_t>(row_grain(inner), 16), bands = (rows + band - 1) / band;
    const std::size_t matrices = n / (rows * inner);
    parallel_chunks(
        context, matrices * bands, row_grain(std::min(band, rows) * inner), [&](std::size_t begin, std::size_t end) {
          for (std::size_t i = begin; i < end; ++i) {
            const std::size_t first = i % bands * band, matrix = i / bands;
            kernels::active().transpose(x + row_offset(outer, matrix) + first, static_cast<std::size_t>(step),
                                        out + (matrix * rows + first) * inner, inner, inner,
                                        std::min(band, rows - first));
          }
        });
    return;
  }
  parallel_chunks(context, n / inner, row_grain(inner), [&](std::size_t begin, std::size_t end) {
    for (std::size_t row = begin; row < end; ++row) {
      const float* from = x + row_offset(layout, row);
      float* to = out + row * inner;
      if (step == 1) {
        std::memcpy(to, from, inner * sizeof(float));
      } else {
        for (std::size_t i = 0; i < inner; ++i) to[i] = from[static_cast<std::int64_t>(i) * step];
      }
    }
  });
}

void add_strided(const Context& context, const Layout& layout, const float* x, const Into& to,
                 std::size_t out_numel) noexcept {
  const std::size_t n = layout.shape.numel();
  const bool overwrite = !to.accumulate && n == out_numel;  // every element exactly once
  if (!to.accumulate && !overwrite) {
    parallel_elements(context, out_numel, [&](std::size_t begin, std::size_t end) {
      std::memset(to.data + begin, 0, (end - begin) * sizeof(float));
    });
  }
  if (n == 0) return;
  const Layout flat = merged(layout);
  const auto inner = static_cast<std::size_t>(flat.shape[-1]);
  const std::int64_t step = flat.stride[flat.shape.rank() - 1];
  parallel_chunks(context, n / inner, row_grain(inner), [&](std::size_t begin, std::size_t end) {
    for (std::size_t row = begin; row < end; ++row) {
      float* out = to.data + layout.offset + row_offset(flat, row);
      const float* from = x + row * inner;
      if (step == 1 && overwrite) {
        std::memcpy(out, from, inner * sizeof(float));
      } else if (step == 1) {
        kernels::active().axpy(1, from, out, inner);
      } else {
        for (std::size_t i = 0; i < inner; ++i) {
          float& place = out[static_cast<std::int64_t>(i) * step];
          place = overwrite ? from[i] : place + from[i];
        }
      }
    }
  });
}

void copy_rows(const Context& context, const std::byte* x, std::size_t x_step, std::byte* y, std::size_t y_step,
               std::size_t rows, std::size_t bytes) noexcept {
  parallel_rows(context, rows, bytes, [&](std::size_t row, std::size_t begin, std::size_t end) {
    std::memcpy(y + row * y_step + begin, x + row * x_step + begin, end - begin);
  });
}

void add_rows(const Context& context, const float* x, std::size_t x_step, const Into& to, std::size_t to_step,
              std::size_t rows, std::size_t cols) noexcept {
  parallel_rows(context, rows, cols, [&](std::size_t row, std::size_t begin, std::size_t end) {
    const float* from = x + row * x_step + begin;
    float* out = to.data + row * to_step + begin;
    if (to.accumulate) {
      kernels::active().axpy(1, from, out, end - begin);
    } else {
      std::memcpy(out, from, (end - begin) * sizeof(float));
    }
  });
}

std::size_t reduce_scratch(const ReduceSizes& sizes) noexcept {
  const std::size_t rows = block_rows(sizes);
  return rows ? (sizes.reduced + rows - 1) / rows * sizes.inner : 0;
}

void reduce_dense(const Context& context, Reduction reduction, const float* x, float* y, const ReduceSizes& sizes,
                  float* scratch) noexcept {
  const auto reduce = kernels::active().reduce;
  if (const std::size_t rows = block_rows(sizes)) {
    const std::size_t blocks = (sizes.reduced + rows - 1) / rows;
    parallel(context, static_cast<std::uint32_t>(blocks), [&](std::uint32_t i, int) {
      const std::size_t count = std::min(rows, sizes.reduced - i * rows);
      reduce(kernel_of(reduction), x + i * rows * sizes.inner, scratch + i * sizes.inner, 1, count, sizes.inner);
    });
    const bool add = reduction == Reduction::sum_abs || reduction == Reduction::sum_square;
    parallel(context, 1, [&](std::uint32_t, int) {
      reduce(kernel_of(add ? Reduction::sum : reduction), scratch, y, 1, blocks, sizes.inner);
    });
    return;
  }
  parallel_chunks(context, sizes.outer, row_grain(sizes.reduced * sizes.inner),
                  [&](std::size_t begin, std::size_t end) {
                    reduce(kernel_of(reduction), x + begin * sizes.reduced * sizes.inner, y + begin * sizes.inner,
                           end - begin, sizes.reduced, sizes.inner);
                  });
}

Result<float> sum_of_squares(Context& context, const float* x, std::size_t n) noexcept {
  const ReduceSizes sizes{.reduced = n};
  const std::size_t mark = context.scratch->mark();
  auto scratch = context.scratch->take((reduce_scratch(sizes) + 1) * sizeof(float));
  if (!scratch) return fail(scratch.error());
  auto* place = reinterpret_cast<float*>(scratch->data);
  float sum = 0;
  if (!context.planning) {
    reduce_dense(context, Reduction::sum_square, x, place, sizes, place + 1);
    sum = *place;
  }
  context.scratch->shrink_to(mark);
  return sum;
}

void sum_to(Grads& grads, const float* x, const Shape& from, const Shape& wanted, const Into& to) noexcept {
  Context& context = grads.context();
  // From the inside out: each run of extents that `wanted` has as 1 (or lacks) and `from` has not is summed in one go.
  Shape shape = from;
  const int extra = from.rank() - wanted.rank();
  const float* current = x;
  const auto repeated = [&](int d) { return shape[d] != 1 && (d < extra || wanted[d - extra] == 1); };
  for (int d = from.rank() - 1; d >= 0; --d) {
    if (!repeated(d)) continue;
    ReduceSizes sizes;
    for (int i = d + 1; i < shape.rank(); ++i) sizes.inner *= static_cast<std::size_t>(shape[i]);
    int first = d;
    while (first > 0 && (repeated(first - 1) || shape[first - 1] == 1)) --first;
    for (int i = first; i <= d; ++i) {
      sizes.reduced *= static_cast<std::size_t>(shape[i]);
      shape = shape.with(i, 1);
    }
    for (int i = 0; i < first; ++i) sizes.outer *= static_cast<std::size_t>(shape[i]);
    float* next = grads.temporary(sizes.outer * sizes.inner + reduce_scratch(sizes));
    if (!next) return;
    reduce_dense(context, Reduction::sum, current, next, sizes, next + sizes.outer * sizes.inner);
    current = next;
    d = first;
  }
  parallel_elements(context, wanted.numel(), [&](std::size_t begin, std::size_t end) {
    if (to.accumulate) {
      kernels::active().axpy(1, current + begin, to.data + begin, end - begin);
    } else {
      std::memcpy(to.data + begin, current + begin, (end - begin) * sizeof(float));
    }
  });
}

}  // namespace qorus
