// Element-wise operations. Two operands broadcast: extents are aligned at the last one, and an extent of 1 (or a missing one)
// repeats. f32 unless said otherwise; gradients of a repeated operand are summed.
// Errors of all: an operand's own, stale_tensor, no_workspace, invalid_dtype, invalid_size (both shapes named), out_of_memory.
export module qorus.ops:elementwise;
import qorus.std;
import qorus.tensor;
import :operand;

export namespace qorus::ops {

[[nodiscard]] Result<Tensor> add(const Operand& a, const Operand& b) noexcept;  // a + b
[[nodiscard]] Result<Tensor> add_relu(const Operand& a,
                                      const Operand& b) noexcept;  // max(a + b, 0), in one pass and the memory of one
[[nodiscard]] Result<Tensor> sub(const Operand& a, const Operand& b) noexcept;  // a - b
[[nodiscard]] Result<Tensor> mul(const Operand& a, const Operand& b) noexcept;  // a b
[[nodiscard]] Result<Tensor> div(const Operand& a, const Operand& b) noexcept;  // a / b
[[nodiscard]] Result<Tensor> pow(const Operand& a, const Operand& b) noexcept;  // a^b
[[nodiscard]] Result<Tensor> maximum(const Operand& a,
                                     const Operand& b) noexcept;  // the larger; a tie shares the gradient
[[nodiscard]] Result<Tensor> minimum(const Operand& a, const Operand& b) noexcept;

[[nodiscard]] Result<Tensor> add(const Operand& x, float a) noexcept;
[[nodiscard]] Result<Tensor> sub(const Operand& x, float a) noexcept;
[[nodiscard]] Result<Tensor> sub(float a, const Operand& x) noexcept;
[[nodiscard]] Result<Tensor> mul(const Operand& x, float a) noexcept;
[[nodiscard]] Result<Tensor> div(const Operand& x, float a) noexcept;
[[nodiscard]] Result<Tensor> div(float a, const Operand& x) noexcept;
[[nodiscard]] Result<Tensor> pow(const Operand& x, float a) noexcept;
[[nodiscard]] Result<Tensor> pow(float a, const Operand& x) noexcept;
[[nodiscard]] Result<Tensor> maximum(const Operand& x, float a) noexcept;
[[nodiscard]] Result<Tensor> minimum(const Operand& x, float a) noexcept;
[[nodiscard]] Result<Tensor> clamp(const Operand& x, float low, float high) noexcept;  // low <= high

[[nodiscard]] Result<Tensor> neg(const Operand& x) noexcept;
[[nodiscard]] Result<Tensor> abs(const Operand& x) noexcept;
[[nodiscard]] Result<Tensor> sign(const Operand& x) noexcept;
[[nodiscard]] Result<Tensor> sqrt(const Operand& x) noexcept;
[[nodiscard]] Result<Tensor> square(const Operand& x) noexcept;
[[nodiscard]] Result<Tensor> reciprocal(const Operand& x) noexcept;
[[nodiscard]] Result<Tensor> exp(const Operand& x) noexcept;
[[nodiscard]] Result<Tensor> log(const Operand& x) noexcept;
[[nodiscard]] Result<Tensor> sin(const Operand& x) noexcept;
[[nodiscard]] Result<Tensor> cos(const Operand& x) noexcept;
[[nodiscard]] Result<Tensor> erf(const Operand& x) noexcept;
[[nodiscard]] Result<Tensor> floor(const Operand& x) noexcept;
[[nodiscard]] Result<Tensor> ceil(const Operand& x) noexcept;
[[nodiscard]] Result<Tensor> round(const Operand& x) noexcept;  // half to even

[[nodiscard]] Result<Tensor> relu(const Operand& x) noexcept;                             // max(x, 0)
[[nodiscard]] Result<Tensor> leaky_relu(const Operand& x, float slope = 0.01f) noexcept;  // x > 0 ? x : slope x
[[nodiscard]] Result<Tensor> elu(const Operand& x, float a = 1) noexcept;                 // x > 0 ? x : a (exp x - 1)
[[nodiscard]] Result<Tensor> gelu(const Operand& x) noexcept;                             // x/2 (1 + erf(x / sqrt 2))
[[nodiscard]] Result<Tensor> gelu_tanh(const Operand& x) noexcept;  // x/2 (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3)))
[[nodiscard]] Result<Tensor> silu(const Operand& x) noexcept;       // x / (1 + exp -x)
[[nodiscard]] Result<Tensor> sigmoid(const Operand& x) noexcept;    // 1 / (1 + exp -x)
[[nodiscard]] Result<Tensor> tanh(const Operand& x) noexcept;
[[nodiscard]] Result<Tensor> softplus(const Operand& x) noexcept;  // log(1 + exp x)

// u8 tensors of 1 and 0; no gradient. A NaN compares unequal to everything.
[[nodiscard]] Result<Tensor> equal(const Operand& a, const Operand& b) noexcept;
[[nodiscard]] Result<Tensor> not_equal(const Operand& a, const Operand& b) noexcept;
[[nodiscard]] Result<Tensor> less(const Operand& a, const Operand& b) noexcept;
[[nodiscard]] Result<Tensor> less_equal(const Operand& a, const Operand& b) noexcept;
[[nodiscard]] Result<Tensor> greater(const Operand& a, const Operand& b) noexcept;
[[nodiscard]] Result<Tensor> greater_equal(const Operand& a, const Operand& b) noexcept;
// mask ? a : b, all three broadcast; the mask is u8, true where it is not 0.
[[nodiscard]] Result<Tensor> where(const Operand& mask, const Operand& a, const Operand& b) noexcept;

}  // namespace qorus::ops

// The arithmetic operators, on tensors and on results of tensors.
export namespace qorus {
[[nodiscard]] inline Result<Tensor> operator+(const Operand& a, const Operand& b) noexcept { return ops::add(a, b); }
[[nodiscard]] inline Result<Tensor> operator-(const Operand& a, const Operand& b) noexcept { return ops::sub(a, b); }
[[nodiscard]] inline Result<Tensor> operator*(const Operand& a, const Operand& b) noexcept { return ops::mul(a, b); }
[[nodiscard]] inline Result<Tensor> operator/(const Operand& a, const Operand& b) noexcept { return ops::div(a, b); }
[[nodiscard]] inline Result<Tensor> operator+(const Operand& x, float a) noexcept { return ops::add(x, a); }
[[nodiscard]] inline Result<Tensor> operator+(float a, const Operand& x) noexcept { return ops::add(x, a); }
[[nodiscard]] inline Result<Tensor> operator-(const Operand& x, float a) noexcept { return ops::sub(x, a); }
[[nodiscard]] inline Result<Tensor> operator-(float a, const Operand& x) noexcept { return ops::sub(a, x); }
[[nodiscard]] inline Result<Tensor> operator*(const Operand& x, float a) noexcept { return ops::mul(x, a); }
[[nodiscard]] inline Result<Tensor> operator*(float a, const Operand& x) noexcept { return ops::mul(x, a); }
[[nodiscard]] inline Result<Tensor> operator/(const Operand& x, float a) noexcept { return ops::div(x, a); }
[[nodiscard]] inline Result<Tensor> operator/(float a, const Operand& x) noexcept { return ops::div(a, x); }
[[nodiscard]] inline Result<Tensor> operator-(const Operand& x) noexcept { return ops::neg(x); }
}  // namespace qorus
