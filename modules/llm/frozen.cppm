// Products with a weight that stays as it is stored: f32, f16, bf16 or any block format, read tile by tile, so that it may lie in a
// mapped file and still have a gradient pass through it.
export module qorus.llm:frozen;
import qorus.std;
import qorus.ops;

export namespace qorus::llm {

// A weight [out, in], contiguous, borrowed. Of a type other than f32, at most k_tile floats of it exist at a time, in scratch that is
// given back. Sums over `in` run in one order for every number of rows and threads. Errors of the products: out_of_memory.
class FrozenWeight {
 public:
  static constexpr std::size_t k_tile = std::size_t{1}
                                        << 19;  // floats: 2 MiB, which the second and third level caches hold
  explicit FrozenWeight(const Tensor& weight) noexcept
      : data_(weight.data()),
        out_(static_cast<std::size_t>(weight.dim(0))),
        in_(static_cast<std::size_t>(weight.dim(1))),
        dtype_(weight.dtype()) {}
  [[nodiscard]] std::size_t out_features() const noexcept { return out_; }
  [[nodiscard]] std::size_t in_features() const noexcept { return in_; }
  // y = x weight^T (+ bias); x: [rows, in], y: [rows, out], bias: [out] or null.
  [[nodiscard]] Status forward(Context& context, const float* x, std::size_t rows, float* y,
                               const float* bias = nullptr) const noexcept;
  // dx = dy weight, or added to dx; dy: [rows, out], dx: [rows, in].
  [[nodiscard]] Status backward(Context& context, const float* dy, std::size_t rows, float* dx,
                                bool accumulate) const noexcept;

 private:
  template <class F>
  [[nodiscard]] Status each_tile(Context& context, F&& f) const noexcept;
  const std::byte* data_;
  std::size_t out_, in_;
  DType dtype_;
};

// y = x weight^T (+ bias), whose backward is dx = dy weight: neither weight nor bias has a gradient. x: […, in], y: […, out]; bias may be
// null. Agrees with ops::linear, but takes the memory of one tile and not that of the whole matrix in f32. Errors: an operand's own,
// invalid_dtype, invalid_size (both shapes named), no_workspace, stale_tensor, out_of_memory.
// transient: as ops::LinearParts has it.
[[nodiscard]] Result<Tensor> frozen_linear(const Operand& x, const Operand& weight, const Operand* bias,
                                           bool transient = false) noexcept;

// y[r] = weights[e] x[r] for the expert e of row r, and 0 where a row has none: ops::expert_linear over weights that have no gradient and lie
// apart. x: [rows, in], sorted by expert; weights: [out, in] each; ends: [experts] i32, rising, as ops::route gives them. Errors: as above;
// invalid_argument (ends that do not rise to at most the rows).
[[nodiscard]] Result<Tensor> frozen_experts(const Operand& x, std::span<const Tensor> weights,
                                            const Operand& ends) noexcept;

}  // namespace qorus::llm
