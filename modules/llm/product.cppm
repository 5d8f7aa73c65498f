// Products of one x with several weights at once, each laid out already or still as its file has it.
module qorus.llm:product;
import qorus.std;
import qorus.nn;
import :network;

namespace qorus::llm {

struct Factor {
  const Projection* projection = nullptr;
  Activation activation = Activation::none;
};
inline constexpr std::size_t k_most_factors = 4;

// Whether products() takes a projection: its weight is or will be laid out, and no tape records. An adapter is not asked for.
[[nodiscard]] bool is_packed(const Projection& projection, const Tensor& x) noexcept;

// y[i] = activation(x weight^T + bias) of the i-th projection, without its adapter; x: […, in], y[i]: […, out_i]. x is quantised once for each
// type of weights, and the workers go on from weight to weight without waiting for each other. A weight that is not laid out yet is
// laid out panel by panel in a worker's own room: the same bits. At most k_most_factors, all of them is_packed.
// Errors: x's own, invalid_size (both shapes named), stale_tensor, out_of_memory.
[[nodiscard]] Status products(const Tensor& x, std::span<const Factor> factors, std::span<Tensor> y) noexcept;

// y[i] = what the i-th projection makes of x: in one go where products() takes them all, and there are no adapters.
[[nodiscard]] Status project(const Tensor& x, std::span<const Factor> factors, std::span<Tensor> y) noexcept;

}  // namespace qorus::llm
