// Convolutions and transposed ones over one, two or three axes. x: [batch, channels, places…] as PyTorch and ONNX have it.
// Errors of all: an operand's own, stale_tensor, no_workspace, invalid_dtype, invalid_size (both shapes named), invalid_argument
// (a stride, dilation, padding or group count that makes no sense), out_of_memory.
export module qorus.ops:conv;
import qorus.std;
import qorus.tensor;
import :operand;
import :matmul;

export namespace qorus {

// A number for each spatial axis, or one for all of them: `3`, `{3, 5}`.
class PerAxis {
 public:
  constexpr PerAxis(std::int64_t all) noexcept : at_{all} {}            // NOLINT(google-explicit-constructor)
  constexpr PerAxis(std::initializer_list<std::int64_t> list) noexcept  // NOLINT(google-explicit-constructor)
      : PerAxis(std::span(list.begin(), list.size())) {}
  constexpr explicit PerAxis(std::span<const std::int64_t> list) noexcept : count_(static_cast<int>(list.size())) {
    for (std::size_t i = 0; i < list.size() && i < at_.size(); ++i) at_[i] = list[i];
  }
  [[nodiscard]] constexpr std::int64_t operator[](int axis) const noexcept {
    return at_[count_ == 1 ? 0u : static_cast<std::size_t>(axis)];
  }
  [[nodiscard]] constexpr bool fits(int axes) const noexcept { return count_ == 1 || count_ == axes; }

 private:
  std::array<std::int64_t, 3> at_{};
  int count_ = 1;
};

// How much an input is thought to go on, on either side of each axis: zeros for convolutions, nothing for pools.
struct Pads {
  enum class Kind : std::uint8_t { given, same, same_lower };
  PerAxis before = 0, after = 0;
  Kind kind = Kind::given;

  constexpr Pads(std::int64_t all) noexcept : before(all), after(all) {}  // NOLINT(google-explicit-constructor)
  constexpr Pads(std::initializer_list<std::int64_t> list) noexcept       // NOLINT(google-explicit-constructor)
      : before(list), after(list) {}
  constexpr Pads(const PerAxis& first, const PerAxis& last) noexcept : before(first), after(last) {}
  // As much as makes out = ceil(in / stride); what is odd goes to the end (or to the beginning).
  [[nodiscard]] static constexpr Pads same() noexcept { return Pads(Kind::same); }
  [[nodiscard]] static constexpr Pads same_lower() noexcept { return Pads(Kind::same_lower); }
  [[nodiscard]] static constexpr Pads valid() noexcept { return {0}; }  // none

 private:
  constexpr explicit Pads(Kind k) noexcept : kind(k) {}
};

namespace ops {

struct ConvOptions {
  PerAxis stride = 1;
  Pads padding = 0;
  PerAxis dilation = 1;
  std::int64_t groups = 1;
  Activation activation = Activation::none;
  Tensor packed =
      {};  // what pack_weight made of the weight, if anything did: the same bits, sooner. Not looked at while a tape records
};
// y[n,o,p] = activation( bias[o] + sum over i and taps t of weight[o,i,t] x[n,i, p stride + t dilation - padding] ), i over the
// channels of o's group. weight: [out, in / groups, taps…]; bias: [out]. One node; agrees with the composition conv, activation.
// The order of each sum depends on the shapes alone.
[[nodiscard]] Result<Tensor> conv(const Operand& x, const Operand& weight, const Operand& bias,
                                  const ConvOptions& options = {}) noexcept;
[[nodiscard]] Result<Tensor> conv(const Operand& x, const Operand& weight, const ConvOptions& options = {}) noexcept;

struct ConvTransposeOptions {
  PerAxis stride = 1;
  Pads padding = 0;
  PerAxis dilation = 1;
  PerAxis output_padding = 0;  // more places at the end of each axis, below stride or dilation
  std::int64_t groups = 1;
};
// What the gradient of a convolution does to its input: out = (in - 1) stride - before - after + dilation (taps - 1) + 1 +
// output_padding. With Pads::same, out = in stride. weight: [in, out / groups, taps…]; bias: [out].
[[nodiscard]] Result<Tensor> conv_transpose(const Operand& x, const Operand& weight, const Operand& bias,
                                            const ConvTransposeOptions& options = {}) noexcept;
[[nodiscard]] Result<Tensor> conv_transpose(const Operand& x, const Operand& weight,
                                            const ConvTransposeOptions& options = {}) noexcept;

}  // namespace ops
}  // namespace qorus
