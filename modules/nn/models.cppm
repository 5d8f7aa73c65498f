// Classic networks, ready to build.
export module qorus.nn:models;
import qorus.std;
import qorus.ops;
import :param;
import :layers;
import :conv;
import :chain;

export namespace qorus::nn {

// Two convolutions and the way around them: relu(f(x) + x), where x is thinned out by the stride and filled up with channels of
// zeros if the block makes it smaller. He et al. 2016, with their option A.
struct ResNetBlock {
  static constexpr std::string_view k_name = "resnet_block";
  Conv<2> conv1, conv2;
  BatchNorm norm1, norm2;
  std::int64_t stride = 1;

  static constexpr auto fields() {
    return nn::fields("conv1", &ResNetBlock::conv1, "norm1", &ResNetBlock::norm1, "conv2", &ResNetBlock::conv2, "norm2",
                      &ResNetBlock::norm2);
  }
  [[nodiscard]] Result<Tensor> operator()(const Tensor& x) const noexcept;
};
[[nodiscard]] inline ResNetBlock resnet_block(std::int64_t channels, std::int64_t stride = 1) noexcept {
  return {.conv1 = conv2d(channels, 3, {.stride = stride, .padding = 1, .bias = false}),
          .conv2 = conv2d(channels, 3, {.padding = 1, .bias = false}),
          .stride = stride};
}

// ResNet-20 for pictures of about 32 by 32: 270 thousand parameters. x: [batch, channels, height, width].
[[nodiscard]] inline auto resnet20(std::int64_t classes) noexcept {
  return conv2d(16, 3, {.padding = 1, .bias = false}) | batch_norm() | relu() | repeat(3, resnet_block(16)) |
         resnet_block(32, 2) | repeat(2, resnet_block(32)) | resnet_block(64, 2) | repeat(2, resnet_block(64)) |
         global_avg_pool() | linear(classes);
}

// Two convolutions and two linear layers, in today's form of LeCun et al. 1998: 422 thousand parameters for digits of 28 by 28.
[[nodiscard]] inline auto lenet(std::int64_t classes) noexcept {
  return conv2d(32, 3, {.padding = 1}) | relu() | max_pool(2) | conv2d(64, 3, {.padding = 1}) | relu() | max_pool(2) |
         flatten() | linear(128) | relu() | linear(classes);
}

}  // namespace qorus::nn
