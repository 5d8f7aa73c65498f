// Layers of pictures, lines and volumes: convolutions, pools, norms of channels, resizing. x: [batch, channels, places…]. Parameters are
// named as PyTorch names them.
export module qorus.nn:conv;
import qorus.std;
import qorus.ops;
import :param;
import :layers;

export namespace qorus::nn {

struct ConvOptions {
  PerAxis stride = 1;
  Pads padding = 0;  // zeros on either side: a number, {rows, columns}, Pads::same()
  PerAxis dilation = 1;
  std::int64_t groups = 1;  // as many as channels: depthwise
  bool bias = true;
};
// weight: [out, in / groups, taps…], bias: [out]. Axes: 1, 2 or 3.
template <int Axes>
struct Conv {
  static constexpr std::string_view k_name = Axes == 1 ? "conv1d" : Axes == 2 ? "conv2d" : "conv3d";
  Param weight, bias{.role = Role::bias};
  std::int64_t out_channels = 0;
  PerAxis kernel = 1;
  ConvOptions options = {};

  static constexpr auto fields() { return nn::fields("weight", &Conv::weight, "bias", &Conv::bias); }
  [[nodiscard]] Result<Tensor> operator()(const Tensor& x) const noexcept { return with(x, Activation::none); }
  // With an activation fused in.
  [[nodiscard]] Result<Tensor> with(const Tensor& x, Activation activation) const noexcept;
};
[[nodiscard]] inline Conv<1> conv1d(std::int64_t out_channels, const PerAxis& kernel,
                                    const ConvOptions& options = {}) noexcept {
  return {.out_channels = out_channels, .kernel = kernel, .options = options};
}
[[nodiscard]] inline Conv<2> conv2d(std::int64_t out_channels, const PerAxis& kernel,
                                    const ConvOptions& options = {}) noexcept {
  const auto one = [](const PerAxis& list) { return list[0] == 1 && list[1] == 1; };
  return {.weight = {.packs = options.groups == 1 && one(options.stride) && one(options.dilation)},
          .out_channels = out_channels,
          .kernel = kernel,
          .options = options};
}
[[nodiscard]] inline Conv<3> conv3d(std::int64_t out_channels, const PerAxis& kernel,
                                    const ConvOptions& options = {}) noexcept {
  return {.out_channels = out_channels, .kernel = kernel, .options = options};
}

struct ConvTransposeOptions {
  PerAxis stride = 1;
  Pads padding = 0;
  PerAxis dilation = 1;
  PerAxis output_padding = 0;
  std::int64_t groups = 1;
  bool bias = true;
};
// weight: [in, out / groups, taps…], bias: [out].
template <int Axes>
struct ConvTranspose {
  static constexpr std::string_view k_name = Axes == 1 ? "conv_transpose1d" : "conv_transpose2d";
  Param weight, bias{.role = Role::bias};
  std::int64_t out_channels = 0;
  PerAxis kernel = 1;
  ConvTransposeOptions options = {};

  static constexpr auto fields() { return nn::fields("weight", &ConvTranspose::weight, "bias", &ConvTranspose::bias); }
  [[nodiscard]] Result<Tensor> operator()(const Tensor& x) const noexcept;
};
[[nodiscard]] inline ConvTranspose<1> conv_transpose1d(std::int64_t out_channels, const PerAxis& kernel,
                                                       const ConvTransposeOptions& options = {}) noexcept {
  return {.out_channels = out_channels, .kernel = kernel, .options = options};
}
[[nodiscard]] inline ConvTranspose<2> conv_transpose2d(std::int64_t out_channels, const PerAxis& kernel,
                                                       const ConvTransposeOptions& options = {}) noexcept {
  return {.out_channels = out_channels, .kernel = kernel, .options = options};
}

// Pools over however many axes x has. The stride is the window's width unless given.
struct MaxPool {
  static constexpr std::string_view k_name = "max_pool";
  PerAxis kernel = 2;
  ops::PoolOptions options = {};
  [[nodiscard]] Result<Tensor> operator()(const Tensor& x) const noexcept { return ops::max_pool(x, kernel, options); }
};
[[nodiscard]] inline MaxPool max_pool(const PerAxis& kernel, const ops::PoolOptions& options = {}) noexcept {
  return {kernel, options};
}
struct AvgPool {
  static constexpr std::string_view k_name = "avg_pool";
  PerAxis kernel = 2;
  ops::PoolOptions options = {};
  [[nodiscard]] Result<Tensor> operator()(const Tensor& x) const noexcept { return ops::avg_pool(x, kernel, options); }
};
[[nodiscard]] inline AvgPool avg_pool(const PerAxis& kernel, const ops::PoolOptions& options = {}) noexcept {
  return {kernel, options};
}
// Windows that give `out` places, whatever the input's.
struct AdaptiveAvgPool {
  static constexpr std::string_view k_name = "adaptive_avg_pool";
  PerAxis out = 1;
  [[nodiscard]] Result<Tensor> operator()(const Tensor& x) const noexcept { return ops::adaptive_avg_pool(x, out); }
};
[[nodiscard]] inline AdaptiveAvgPool adaptive_avg_pool(const PerAxis& out) noexcept { return {out}; }
// The mean of each channel: [batch, channels, places…] to [batch, channels].
struct GlobalAvgPool {
  static constexpr std::string_view k_name = "global_avg_pool";
  [[nodiscard]] Result<Tensor> operator()(const Tensor& x) const noexcept {
    return ops::flatten(ops::adaptive_avg_pool(x, 1), 1);
  }
};
[[nodiscard]] constexpr GlobalAvgPool global_avg_pool() noexcept { return {}; }

// Each axis `scale` times as long.
struct Upsample {
  static constexpr std::string_view k_name = "upsample";
  PerAxis scale = 2;
  ops::ResizeOptions options = {};
  [[nodiscard]] Result<Tensor> operator()(const Tensor& x) const noexcept;
};
[[nodiscard]] inline Upsample upsample(const PerAxis& scale, const ops::ResizeOptions& options = {}) noexcept {
  return {scale, options};
}

// More places on either side of each axis.
struct Pad {
  static constexpr std::string_view k_name = "pad";
  Pads amount = 1;
  ops::PadMode mode = ops::PadMode::constant;
  float value = 0;
  [[nodiscard]] Result<Tensor> operator()(const Tensor& x) const noexcept;
};
[[nodiscard]] inline Pad pad(const Pads& amount, ops::PadMode mode = ops::PadMode::constant, float value = 0) noexcept {
  return {amount, mode, value};
}

// Of each channel over batch and places (ops::batch_norm). The running statistics are state that the model keeps and saves but does not
// train: the optimizer's step changes them, by the batches that it trains with. Without a tape they are what x is normalised by.
struct BatchNorm {
  static constexpr std::string_view k_name = "batch_norm";
  Param weight{.role = Role::gain}, bias{.role = Role::bias};
  Param running_mean{.role = Role::bias, .trainable = false}, running_var{.role = Role::gain, .trainable = false};
  float eps = 1e-5f, momentum = 0.1f;
  bool frozen = false;

  static constexpr auto fields() {
    return nn::fields("weight", &BatchNorm::weight, "bias", &BatchNorm::bias, "running_mean", &BatchNorm::running_mean,
                      "running_var", &BatchNorm::running_var);
  }
  [[nodiscard]] Result<Tensor> operator()(const Tensor& x) const noexcept { return with(x, Activation::none); }
  [[nodiscard]] Result<Tensor> with(const Tensor& x, Activation activation) const noexcept;
};
struct BatchNormOptions {
  float eps = 1e-5f, momentum = 0.1f;
  bool frozen = false;
};
[[nodiscard]] inline BatchNorm batch_norm(const BatchNormOptions& options = {}) noexcept {
  return {.eps = options.eps, .momentum = options.momentum, .frozen = options.frozen};
}

// Of each example's groups of channels; 0 groups: every channel alone (instance norm).
struct GroupNorm {
  static constexpr std::string_view k_name = "group_norm";
  Param weight{.role = Role::gain}, bias{.role = Role::bias};
  std::int64_t groups = 1;
  float eps = 1e-5f;

  static constexpr auto fields() { return nn::fields("weight", &GroupNorm::weight, "bias", &GroupNorm::bias); }
  [[nodiscard]] Result<Tensor> operator()(const Tensor& x) const noexcept { return with(x, Activation::none); }
  [[nodiscard]] Result<Tensor> with(const Tensor& x, Activation activation) const noexcept;
};
[[nodiscard]] inline GroupNorm group_norm(std::int64_t groups, float eps = 1e-5f) noexcept {
  return {.groups = groups, .eps = eps};
}
[[nodiscard]] inline GroupNorm instance_norm(float eps = 1e-5f) noexcept { return {.groups = 0, .eps = eps}; }

// While a tape records, whole examples are 0 with probability p and x / (1 - p) otherwise; without one, x itself: for the inside of
// nn::residual (stochastic depth, Huang et al. 2016).
struct DropPath {
  static constexpr std::string_view k_name = "drop_path";
  float p = 0.1f;
  [[nodiscard]] Result<Tensor> operator()(const Tensor& x) const noexcept;
};
[[nodiscard]] constexpr DropPath drop_path(float p) noexcept { return {p}; }

}  // namespace qorus::nn
