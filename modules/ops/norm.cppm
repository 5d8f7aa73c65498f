// Normalisation of the last axis, each one node with a fused backward. x: […, cols]; weight, bias: [cols]. spends: no other rule reads x,
// so that its gradient may take its memory (who reads x after the backward finds that there).
// Errors of all: an operand's own, stale_tensor, no_workspace, invalid_dtype, invalid_size (both shapes named), invalid_argument
// (eps not above 0), out_of_memory.
export module qorus.ops:norm;
import qorus.std;
import qorus.tensor;
import :operand;

export namespace qorus::ops {

// (x - mean) / sqrt(var + eps) weight + bias, mean and (population) variance over the last axis. Ba, Kiros & Hinton 2016.
[[nodiscard]] Result<Tensor> layer_norm(const Operand& x, const Operand& weight, const Operand& bias, float eps = 1e-5f,
                                        bool spends = false) noexcept;
[[nodiscard]] Result<Tensor> layer_norm(const Operand& x, const Operand& weight, float eps = 1e-5f,
                                        bool spends = false) noexcept;  // no bias
// x / sqrt(mean(x^2) + eps) weight. Zhang & Sennrich 2019.
[[nodiscard]] Result<Tensor> rms_norm(const Operand& x, const Operand& weight, float eps = 1e-5f,
                                      bool spends = false) noexcept;

}  // namespace qorus::ops
