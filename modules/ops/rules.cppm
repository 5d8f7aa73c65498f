// The library's own backward rules, by number. An operation names its rule by number only, so that a program which never
// calls backward does not link the rules; the table that joins numbers and functions is rules.cpp.
module qorus.ops:rules;
import qorus.std;
import qorus.tensor;
import :tape;

namespace qorus {

enum class RuleId : std::uint16_t {
  watch,  // an input whose gradient is wanted: nothing to do
  view,
  copy,
  unary,
  binary,
  select,
  clamp,
  reduce,
  extreme,  // of reductions, those that find an element by comparing
  matmul,
  linear,
  gated,
  gated_linear,
  softmax,
  log_softmax,
  cross_entropy,
  linear_cross_entropy,
  concat,
  pad,
  take,
  gather,
  scatter_add,
  cast,
  dropout,
  cumsum,
  pointwise_loss,
  nll,
  layer_norm,
  rms_norm,
  attention,
  rope,
  recurrent,
  conv,
  conv_transpose,
  max_pool,
  avg_pool,
  channel_norm,
  expert_linear,
  penalty,
  count_
};

[[nodiscard]] constexpr RuleRef rule(RuleId id) noexcept { return {.builtin = static_cast<std::uint16_t>(id)}; }

// The rule that a node names.
[[nodiscard]] const Rule& rule_of(const RuleRef& ref) noexcept;

// What a relu at the end of an operation lets through: the gradient of the result y of n elements becomes, in its place, that of the sum
// before. False if there was no memory for it.
[[nodiscard]] bool pass_relu(Grads& grads, const float* y, std::size_t n) noexcept;

// Each stands beside its forward.
namespace rules {
void view(const void* saved, Grads& grads) noexcept;
void copy(const void* saved, Grads& grads) noexcept;
void unary(const void* saved, Grads& grads) noexcept;
void binary(const void* saved, Grads& grads) noexcept;
void select(const void* saved, Grads& grads) noexcept;
void clamp(const void* saved, Grads& grads) noexcept;
void reduce(const void* saved, Grads& grads) noexcept;
void matmul(const void* saved, Grads& grads) noexcept;
void linear(const void* saved, Grads& grads) noexcept;
void gated(const void* saved, Grads& grads) noexcept;
void gated_linear(const void* saved, Grads& grads) noexcept;
void softmax(const void* saved, Grads& grads) noexcept;
void log_softmax(const void* saved, Grads& grads) noexcept;
void cross_entropy(const void* saved, Grads& grads) noexcept;
void linear_cross_entropy(const void* saved, Grads& grads) noexcept;
void concat(const void* saved, Grads& grads) noexcept;
void pad(const void* saved, Grads& grads) noexcept;
void take(const void* saved, Grads& grads) noexcept;
void gather(const void* saved, Grads& grads) noexcept;
void scatter_add(const void* saved, Grads& grads) noexcept;
void cast(const void* saved, Grads& grads) noexcept;
void dropout(const void* saved, Grads& grads) noexcept;
void cumsum(const void* saved, Grads& grads) noexcept;
void pointwise_loss(const void* saved, Grads& grads) noexcept;
void nll(const void* saved, Grads& grads) noexcept;
void layer_norm(const void* saved, Grads& grads) noexcept;
void rms_norm(const void* saved, Grads& grads) noexcept;
void attention(const void* saved, Grads& grads) noexcept;
void rope(const void* saved, Grads& grads) noexcept;
void conv(const void* saved, Grads& grads) noexcept;
void conv_transpose(const void* saved, Grads& grads) noexcept;
void max_pool(const void* saved, Grads& grads) noexcept;
void avg_pool(const void* saved, Grads& grads) noexcept;
void channel_norm(const void* saved, Grads& grads) noexcept;
void recurrent(const void* saved, Grads& grads) noexcept;
void expert_linear(const void* saved, Grads& grads) noexcept;
void penalty(const void* saved, Grads& grads) noexcept;
// What makes results again, of those that can.
Status remake_attention(const void* saved, const Context& context, float* result) noexcept;
Status remake_gated(const void* saved, const Context& context, float* result) noexcept;
Status remake_norm(const void* saved, const Context& context, float* result) noexcept;
}  // namespace rules

}  // namespace qorus
