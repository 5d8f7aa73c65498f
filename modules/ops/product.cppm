// Products as the kernels run them: one matrix product spread over the workers, and batches of them.
module;
#include "kernels/kernels.h"
module qorus.ops:product;
import qorus.std;
import qorus.tensor;
import :operand;
import :matmul;

namespace qorus {

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

// linear for a weight that is not f32; packed: what pack_weight wrote, or null. Operands are checked.
[[nodiscard]] Result<Tensor> linear_narrow(const Operand& x, const Operand& weight, const Tensor* packed,
                                           const Operand* bias, Activation activation, Context& context) noexcept;

}  // namespace qorus
