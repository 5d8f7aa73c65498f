// Scaled dot-product attention with grouped queries, and rotary positions. Memory does not grow with the square of the sequence:
// scores exist for one tile of queries at a time, and the backward makes them again.
// Errors of all: an operand's own, stale_tensor, no_workspace, invalid_dtype, invalid_size (both shapes named), invalid_argument,
// out_of_memory.
module;
#include <cstdint>
export module qorus.ops:attention;
import qorus.tensor;
import :operand;

export namespace qorus::ops {

struct AttentionOptions {
  bool causal =
      false;        // query i sees keys up to i + (keys - queries): with a cache, the queries are the last positions
  float scale = 0;  // 0: 1 / sqrt(head_dim)
  std::int64_t window = 0;  // above 0: a query sees only the last `window` keys up to its own position
};
// y = softmax(q k^T scale, masked) v. q: [batch, heads, queries, head_dim], k, v: [batch, kv_heads, keys, head_dim], y like q. Heads share
// keys in groups of heads / kv_heads (Ainslie et al. 2023). A row's bits depend on that row's query and the keys it sees alone.
[[nodiscard]] Result<Tensor> attention(const Operand& q, const Operand& k, const Operand& v,
                                       const AttentionOptions& options = {}) noexcept;

// Which elements of a head turn together.
enum class RopePairs : std::uint8_t {
  interleaved,  // (x0, x1), (x2, x3), …: Su et al. 2021, llama2.c, GGUF's Llama
  halves,       // (x0, x(h)), (x1, x(h+1)), … with h = turned / 2: GPT-NeoX, Hugging Face
};
// Rotary positions: pair i at position p turns by the angle whose cosine and sine are cosine[p, i], sine[p, i].
// x: [batch, heads, seq, head_dim]; cosine, sine: [seq, turned / 2] with turned <= head_dim; elements beyond `turned` stay. The tables have no gradient.
[[nodiscard]] Result<Tensor> rope(const Operand& x, const Operand& cosine, const Operand& sine,
                                  RopePairs pairs = RopePairs::interleaved) noexcept;

}  // namespace qorus::ops
