// Scaled dot-product attention with grouped queries, and rotary positions. Memory does not grow with the square of the sequence:
// scores exist for one tile of queries at a time, and the backward makes them again.
// Errors of all: an operand's own, stale_tensor, no_workspace, invalid_dtype, invalid_size (both shapes named), invalid_argument,
// out_of_memory.
export module qorus.ops:attention;
import qorus.std;
import qorus.tensor;
import :operand;

export namespace qorus::ops {

struct AttentionOptions {
  bool causal = false;      // query i sees keys up to its own position, past + i
  float scale = 0;          // 0: 1 / sqrt(head_dim)
  std::int64_t window = 0;  // above 0: a query sees only the last `window` keys up to its own position
  // The position of the first query. Below 0: keys - queries, that is, the queries are the last positions, as with a cache; with
  // lengths, the last of each sequence's own.
  std::int64_t past = -1;
  bool joined = false;  // y: [batch, queries, heads value_dim], as a layer goes on with it: heads side by side
  float softcap = 0;    // above 0: scores become softcap tanh(scores / softcap), before any mask (Gemma 2)
  // Each optional, broadcast, without a gradient. A query that sees nothing gets 0.
  Result<Tensor> mask = Tensor();  // [batch, heads, queries, keys] u8: true where seen; or f32: added to the scores
  Result<Tensor> slopes =
      Tensor();  // [heads] f32: slope (key's position - query's) is added: ALiBi (Press et al. 2022)
  Result<Tensor> lengths = Tensor();  // [batch] i32 in [0, keys]: later keys are padding (and must be finite)
};
// y = softmax(q k^T scale, masked) v. q: [batch, heads, queries, head_dim], k: [batch, kv_heads, keys, head_dim], v: [batch, kv_heads,
// keys, value_dim], y: [batch, heads, queries, value_dim]. Heads share keys in groups of heads / kv_heads (Ainslie et al. 2023). A row's
// bits depend on that row's query and the keys it sees alone. Where nothing is recorded, k and v may both be of one narrower type (f16,
// bf16, a block format): a KV cache is read as it stands, to the bits that its values as f32 would give.
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
