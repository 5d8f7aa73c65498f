// Element types converted.
export module qorus.ops:cast;
import qorus.tensor;
import :operand;

export namespace qorus::ops {

// The elements as another type; the tensor itself if it is that already. Towards f16 and bf16: to the nearest, a tie to even. Towards
// integers: the fraction is cut off, what lies beyond the type's range becomes its nearest end, NaN becomes 0. From a block format: what
// its blocks stand for, to the bit; towards q4_0 and q8_0: each scale from its block's largest magnitude, as ggml's reference does.
// Differentiable between f32, f16 and bf16 (the gradient is f32 and passes as it is).
// Errors: the operand's own, unsupported (towards another block format), invalid_dtype (rows that are not whole blocks), stale_tensor, no_workspace, invalid_size, out_of_memory.
[[nodiscard]] Result<Tensor> cast(const Operand& x, DType dtype) noexcept;

}  // namespace qorus::ops
