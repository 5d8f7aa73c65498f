// Products as the kernels run them: one matrix product spread over the workers, and batches of them.
module;
#include "kernels/kernels.h"
module qorus.ops:product;
import qorus.std;
import qorus.tensor;
import :operand;
import :matmul;
import :tape;

namespace qorus {

// p + n; null, as what has no elements while planning, stays null.
template <class T>
[[nodiscard]] T* past(T* p, std::ptrdiff_t n) noexcept {
  return p ? p + n : nullptr;
}

// Runs f(first, count) over runs of n, one after the other; once where n is 0, so that sums of nothing become zero.
template <class F>
[[nodiscard]] Status each_run(std::size_t n, std::size_t run, const F& f) {
  std::size_t first = 0;
  do {
    if (auto done = f(first, std::min(run, n - first)); !done) return done;
    first += run;
  } while (first < n);
  return {};
}

// Runs one product on all workers, with packing scratch from the arena that is given back. Errors: out_of_memory.
[[nodiscard]] Status run_product(Context& context, const kernels::Gemm& gemm) noexcept;

// One product by one worker, in scratch of alone_bytes(gemm) bytes, 64-byte aligned: for tasks that hold several of them.
[[nodiscard]] std::size_t alone_bytes(const kernels::Gemm& gemm) noexcept;
void run_alone(const kernels::Gemm& gemm, void* scratch) noexcept;

// Products of the same sizes over a batch: matrix i of each operand lies at its strides of the batch index. Where `c` stands still
// (stride 0 over an extent above 1), the products of those indices are added up in order.
struct Batch {
  Shape shape;
  std::array<std::int64_t, k_max_rank> a{}, b{}, c{};
};
[[nodiscard]] Status run_products(Context& context, const kernels::Gemm& gemm, const Batch& batch) noexcept;

// What pack_weight made of such a weight, for inference; null while a tape records, or if there is nothing. Errors: the tensor's own,
// invalid_dtype, invalid_size.
[[nodiscard]] Result<const float*> packed_of(const char* op, const Context& context, const Tensor& packed,
                                             const Tensor& weight) noexcept;
// packed_size and pack_weight of a convolution's weight, of any shape.
[[nodiscard]] std::size_t packed_conv_size(const Shape& weight) noexcept;
void pack_conv(const Tensor& weight, float* packed) noexcept;

// The weight and bias of a linear layer as its backward knows them.
struct LinearWeights {
  GradRef weight, bias;
  const float* data = nullptr;
  std::size_t in = 0, out = 0;
  std::ptrdiff_t row = 0, col = 0;

  // dweight (+)= dz^T x; dx (+)= dz weight
  [[nodiscard]] kernels::Gemm weight_gemm(const float* dz, const float* x, std::size_t rows,
                                          const Into& dw) const noexcept;
  [[nodiscard]] kernels::Gemm input_gemm(const float* dz, std::size_t rows, const Into& dx) const noexcept;
  // Gives the weight and the bias (the sum over the rows of dz) their gradients; the bias alone.
  void give(Grads& grads, const float* dz, const float* x, std::size_t rows) const noexcept;
  void give_bias(Grads& grads, const float* dz, std::size_t rows) const noexcept;
};

// Some rows of a matrix.
struct Rows {
  std::size_t first, count;
};

// A linear layer's operands, checked and placed; bias and residual dense, or without a shape.
struct LinearCall {
  Context* context;
  Tensor weight, bias, residual;
  const Tensor* packed;  // null where a tape records

  [[nodiscard]] std::size_t rows(const Shape& y) const noexcept {
    return weight.dim(0) > 0 ? y.numel() / static_cast<std::size_t>(weight.dim(0)) : 0;
  }
  [[nodiscard]] LinearWeights weights() const noexcept;
  // y = activation(x weight^T + bias) + residual for the given rows, dense: x and y begin with the first of them; before, if not null: what
  // the activation takes. f32.
  [[nodiscard]] Status run(const float* x, Rows rows, Activation activation, float* before, float* y) const noexcept;
};
[[nodiscard]] Result<LinearCall> linear_call(const Operand& x, const Operand& weight,
                                             const ops::LinearParts& parts) noexcept;
// linear for a weight that is not f32, without a residual of an activation.
[[nodiscard]] Result<Tensor> linear_narrow(const Operand& x, const LinearCall& call, Activation activation) noexcept;

}  // namespace qorus
