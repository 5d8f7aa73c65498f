// Matrix products: batched and broadcast, and the linear layer's product with its bias and activation in one pass.
export module qorus.ops:matmul;
import qorus.std;
import qorus.tensor;
import :operand;

export namespace qorus {

// What a product may apply to its result before it is written.
enum class Activation : std::uint8_t { none, relu, gelu, gelu_tanh, silu, sigmoid, tanh };

namespace ops {

// c[…, i, j] = sum over k of a[…, i, k] b[…, k, j]. Leading extents broadcast; a vector counts as a row (left) or a column (right), as
// in NumPy. Transposed operands are views: nothing is copied. f32; the sum over k runs in one fixed order, the same for every number
// of rows; only where an operand is a vector (of rank 1) it may be another one, as that is faster.
// Errors: an operand's own, stale_tensor, no_workspace, invalid_dtype, invalid_size (both shapes named), out_of_memory.
[[nodiscard]] Result<Tensor> matmul(const Operand& a, const Operand& b) noexcept;

// y = activation(x weight^T + bias); x: […, in], weight: [out, in], bias: [out], y: […, out]. One node, one pass over y; agrees with
// the composition matmul, add, activation. A weight of another floating type or in a block format is cast to f32 first: pack it, if
// it is used more than once. Errors: as matmul.
[[nodiscard]] Result<Tensor> linear(const Operand& x, const Operand& weight, const Operand& bias,
                                    Activation activation = Activation::none) noexcept;
[[nodiscard]] Result<Tensor> linear(const Operand& x, const Operand& weight,
                                    Activation activation = Activation::none) noexcept;  // no bias

// Weights that do not change may be laid out ahead of time, in the order in which the products read them: `packed_size(shape)` floats
// for a weight [out, in], good for the instruction set in use in this process. A convolution's dense weight [out, in, 3, 3] has an order
// as well (16/9 of its size; for one group, steps of 1, without dilation), or 0 floats where it has too few channels. Errors:
// invalid_size, invalid_dtype, stale_tensor.
[[nodiscard]] std::size_t packed_size(const Shape& weight) noexcept;
[[nodiscard]] Status pack_weight(const Tensor& weight, std::span<float> packed) noexcept;
// The same for weights in block formats, f16 and bf16: so many bytes, as many as they have (rows filled up to a multiple of 16), f16 and
// bf16 a tenth less; 0 for a type or a shape that has no such order.
// pack_weight spreads the work over the weight's workspace, if it has one.
[[nodiscard]] std::size_t packed_bytes(DType dtype, const Shape& weight) noexcept;
[[nodiscard]] Status pack_weight(const Tensor& weight, std::span<std::byte> packed) noexcept;

// linear with a weight that was packed. f32: the same bits. f16, bf16: exact products, summed in f32. Block formats: every 32
// elements of a row of x are rounded to 8 bits (scale: their largest magnitude / 127), products of whole numbers are exact, blocks are
// summed in f32. A row of y depends on that row of x alone, to the bit: not on the batch, nor on threads, nor on the instruction set (but
// for the activation). While a tape records it is linear itself. bias may be null. Errors: also invalid_size (`packed` is of another size).
[[nodiscard]] Result<Tensor> linear_packed(const Operand& x, const Operand& weight, const Tensor& packed,
                                           const Operand* bias, Activation activation = Activation::none) noexcept;

}  // namespace ops
}  // namespace qorus
