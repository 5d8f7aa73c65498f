// Normalisation of channels. x: [batch, channels, places…] (at least two axes); weight, bias: [channels]. Each is one node with a fused
// backward, and takes a relu along. Errors of all: as layer_norm's.
export module qorus.ops:channel_norm;
import qorus.std;
import qorus.tensor;
import :operand;
import :matmul;

export namespace qorus::ops {

struct BatchNormOptions {
  float eps = 1e-5f;
  float momentum = 0.1f;  // how much of a batch's statistics goes into the running ones
  bool frozen = false;    // by the running statistics even while a tape records
  Activation activation = Activation::none;
};
// (x - mean) / sqrt(var + eps) weight + bias. While a tape records: mean and (population) variance of each channel over batch and
// places, and an order to the optimizer's step, which alone changes a model, to put them (the variance as of a sample: n / (n - 1))
// into running_mean and running_var: (1 - momentum) running + momentum batch. Without a tape, or frozen: by running_mean and
// running_var. Ioffe & Szegedy 2015. Errors: also invalid_size for a batch of one place in training.
[[nodiscard]] Result<Tensor> batch_norm(const Operand& x, const Operand& weight, const Operand& bias,
                                        const Operand& running_mean, const Operand& running_var,
                                        const BatchNormOptions& options = {}) noexcept;

struct GroupNormOptions {
  std::int64_t groups =
      1;  // neighbouring channels that share mean and variance; as many groups as channels: instance norm
  float eps = 1e-5f;
  Activation activation = Activation::none;
};
// The same with mean and variance of each example and group of channels. Wu & He 2018.
[[nodiscard]] Result<Tensor> group_norm(const Operand& x, const Operand& weight, const Operand& bias,
                                        const GroupNormOptions& options = {}) noexcept;

}  // namespace qorus::ops
