// What a sparse mixture of experts is made of: which expert takes which token, and products in which every row has the weight of its
// expert. Sizes depend on shapes alone: a token's choices are rows of their own, sorted by expert, whatever the routing is.
// Errors of all: an operand's own, stale_tensor, no_workspace, invalid_dtype, invalid_size (both shapes named), invalid_argument,
// out_of_memory.
export module qorus.ops:experts;
import qorus.std;
import qorus.tensor;
import :operand;

export namespace qorus::ops {

struct RoutingOptions {
  std::int64_t top_k = 2;
  // Above 0: an expert takes at most ceil(capacity tokens top_k / experts) choices, those of earlier tokens first; the others are dropped.
  float capacity = 0;
};
// None has a gradient: what is differentiable is the weight that a choice is given (gather(scores, choice)).
struct Routing {
  Tensor choice;  // [tokens, top_k] i32: experts, the best first, the lower number at a tie
  Tensor token;   // [tokens top_k] i32: the token of each row; rows are sorted by expert, dropped ones come last
  Tensor place;   // [tokens, top_k] i32: the row of each choice
  Tensor ends;    // [experts] i32: where each expert's rows end
  Tensor kept;    // [tokens, top_k] f32: 1, or 0 where dropped
  Tensor load;    // [experts] f32: share of all choices that fall on the expert, dropped ones too
};
// scores: [tokens, experts].
[[nodiscard]] Result<Routing> route(const Operand& scores, const RoutingOptions& options = {}) noexcept;

// y[r] = weight[e] x[r] for the expert e of row r; 0 where r has none (at or beyond the last end). x: [rows, in], weight: [experts out, in],
// ends: [experts] i32, rising, as route gives them.
[[nodiscard]] Result<Tensor> expert_linear(const Operand& x, const Operand& weight, const Operand& ends) noexcept;

// y itself; the backward adds the penalty (a scalar) to the loss. For losses that arise inside a layer.
[[nodiscard]] Result<Tensor> with_penalty(const Operand& y, const Operand& penalty) noexcept;

}  // namespace qorus::ops
