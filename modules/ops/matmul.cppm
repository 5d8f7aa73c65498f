// Matrix products: batched and broadcast, and the linear layer's product with what goes beside it in one pass.
export module qorus.ops:matmul;
import qorus.std;
import qorus.tensor;
import :operand;

export namespace qorus {

// What a product may apply to its result before it is written.
enum class Activation : std::uint8_t { none, relu, gelu, gelu_tanh, silu, sigmoid, tanh };

namespace ops {

// activation(x), by the operation of that name; none: x itself. Errors: that operation's.
[[nodiscard]] Result<Tensor> activate(const Operand& x, Activation activation) noexcept;

// c[…, i, j] = sum over k of a[…, i, k] b[…, k, j]. Leading extents broadcast; a vector counts as a row (left) or a column (right), as
// in NumPy. Transposed operands are views: nothing is copied. f32; the sum over k runs in one fixed order, the same for every number
// of rows; only where an operand is a vector (of rank 1) it may be another one, as that is faster.
// Errors: an operand's own, stale_tensor, no_workspace, invalid_dtype, invalid_size (both shapes named), out_of_memory.
[[nodiscard]] Result<Tensor> matmul(const Operand& a, const Operand& b) noexcept;

// What a linear layer may have beside x and its weight, each optional.
struct LinearParts {
  const Operand* bias = nullptr;      // [out]
  const Operand* residual = nullptr;  // of y's shape: what goes around the layer, added last
  const Tensor* packed = nullptr;     // what pack_weight made of the weight; not read while a tape records
  Activation activation = Activation::none;
  // linear, without an activation: no rule reads y, so that it may be gone once with_transients ends.
  bool transient = false;
  // gated_linear, activated_linear: nothing else reads gate and up, so that their gradients may take their memory.
  bool spends = false;
};
// y = activation(x weight^T + bias) + residual; x: […, in], weight: [out, in], y: […, out]. One pass over y (the residual of an activation:
// two); agrees with the composition matmul, add, activation, add. A weight of another floating type or in a block format is cast to f32
// first: pack it, if it is used more than once. With a packed weight, f32: the same bits. f16, bf16: exact products, summed in f32. Block
// formats: every 32 elements of a row of x are rounded to 8 bits (scale: their largest magnitude / 127), products of whole numbers are exact,
// blocks are summed in f32. A row of y depends on that row of x alone, to the bit: not on the batch, nor on threads, nor on the instruction
// set (but for the activation). Errors: as matmul; invalid_size also where `packed` is of another size.
[[nodiscard]] Result<Tensor> linear(const Operand& x, const Operand& weight, const LinearParts& parts) noexcept;
[[nodiscard]] inline Result<Tensor> linear(const Operand& x, const Operand& weight, const Operand& bias,
                                           Activation activation = Activation::none) noexcept {
  return linear(x, weight, LinearParts{.bias = &bias, .activation = activation});
}
[[nodiscard]] inline Result<Tensor> linear(const Operand& x, const Operand& weight,
                                           Activation activation = Activation::none) noexcept {
  return linear(x, weight, LinearParts{.activation = activation});
}
// h = activation(gate) up, elements of one shape: activation and mul in one pass, whose backward computes the activation again.
[[nodiscard]] Result<Tensor> gated(const Operand& gate, const Operand& up, Activation activation) noexcept;
// y = h weight^T + bias + residual, whose backward computes h again instead of keeping it: the second half of a gated feed-forward layer
// (Shazeer 2020). gate, up: […, in]. Agrees with the composition gated, linear. Errors: as linear.
[[nodiscard]] Result<Tensor> gated_linear(const Operand& gate, const Operand& up, const Operand& weight,
                                          const LinearParts& parts) noexcept;
// The same of h = activation(x), for functions whose slope wants x: the second half of a feed-forward layer that is not gated.
[[nodiscard]] Result<Tensor> activated_linear(const Operand& x, const Operand& weight,
                                              const LinearParts& parts) noexcept;

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

}  // namespace ops
}  // namespace qorus
