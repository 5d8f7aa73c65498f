// What the forward and the backward of attention share: the sizes and places of one, what a query sees, and its probabilities.
module qorus.ops:attending;
import qorus.std;
import qorus.tensor;

namespace qorus {

inline constexpr std::size_t k_tile = 64;   // queries whose scores exist at once
inline constexpr std::size_t k_keys = 256;  // keys, or values, that are made f32 at once, where they are not

// Keys or values: bytes from sequence to sequence, head to head, row to row. Of what is not f32, rows have no gaps.
struct HeadsPlace {
  const std::byte* data;
  std::ptrdiff_t batch, head;
  std::size_t row;
};
// The same of queries and results, in floats.
struct Steps {
  std::ptrdiff_t batch, head, row;
};

// The sizes and places of one attention. A query's place in [batch, heads, rows] is called its number. Heads of fewer rows than a tile has
// are dense, one after the other.
struct AttentionSaved {
  GradRef q, k, v;
  const float* queries;
  Steps query_steps, result_steps;
  HeadsPlace keys, values;
  std::size_t batch, heads, kv_heads, rows, cols, dim, value_dim;
  DType dtype;  // of keys and values
  bool causal;
  float scale, softcap;
  std::int64_t window, past;
  const void* mask;  // u8 or f32, by strides of [batch, heads, queries, keys]
  bool additive;
  std::int64_t mask_stride[4];
  const float* slopes;
  const std::int32_t* lengths;
  bool padded;  // there are lengths, though planning does not see them
};

inline std::size_t group_of(const AttentionSaved& s) noexcept { return s.heads / s.kv_heads; }
inline std::size_t tiles_of(const AttentionSaved& s) noexcept { return (s.rows + k_tile - 1) / k_tile; }

// Where the keys (or values) of key head `kv`, counted over the batch, begin.
inline const std::byte* place_of(const AttentionSaved& s, const HeadsPlace& place, std::size_t kv) noexcept {
  return place.data + static_cast<std::ptrdiff_t>(kv / s.kv_heads) * place.batch +
         static_cast<std::ptrdiff_t>(kv % s.kv_heads) * place.head;
}
// Floats from row to row of keys or values of `width` elements, where products read them: narrower ones are made floats, without gaps.
inline std::ptrdiff_t step_of(const AttentionSaved& s, const HeadsPlace& place, std::size_t width) noexcept {
  return static_cast<std::ptrdiff_t>(s.dtype == DType::f32 ? place.row / sizeof(float) : width);
}
// Where the query of a number begins, or its result.
inline std::ptrdiff_t offset_of(const AttentionSaved& s, const Steps& steps, std::size_t number) noexcept {
  const std::size_t head = number / s.rows;
  return static_cast<std::ptrdiff_t>(head / s.heads) * steps.batch +
         static_cast<std::ptrdiff_t>(head % s.heads) * steps.head +
         static_cast<std::ptrdiff_t>(number % s.rows) * steps.row;
}
inline std::int64_t keys_of(const AttentionSaved& s, std::size_t batch) noexcept {
  return s.lengths ? s.lengths[batch] : static_cast<std::int64_t>(s.cols);
}
inline std::int64_t position_of(const AttentionSaved& s, std::size_t batch, std::size_t row) noexcept {
  const std::int64_t past = s.past >= 0 ? s.past : keys_of(s, batch) - static_cast<std::int64_t>(s.rows);
  return past + static_cast<std::int64_t>(row);
}

// Keys [first, last).
struct Seen {
  std::size_t first, last;
};
inline Seen seen_by(const AttentionSaved& s, std::size_t batch, std::size_t row) noexcept {
  const std::int64_t keys = keys_of(s, batch), end = position_of(s, batch, row) + 1;
  const std::int64_t last = s.causal ? std::clamp<std::int64_t>(end, 0, keys) : keys;
  const std::int64_t first = s.window > 0 ? std::clamp<std::int64_t>(end - s.window, 0, last) : 0;
  return {static_cast<std::size_t>(first), static_cast<std::size_t>(last)};
}

// Queries of heads that share their keys, one after the other: their numbers.
struct Queries {
  std::size_t first, count;
};
// The keys that their products take: known from the sizes alone.
inline Seen seen_by_all(const AttentionSaved& s, const Queries& queries) noexcept {
  if (!s.causal || s.padded) return {0, s.cols};
  const std::size_t row = queries.first % s.rows, last = std::min(s.rows, row + queries.count) - 1;
  return {seen_by(s, 0, row).first, seen_by(s, 0, last).last};
}

// Scratch of one worker for the products of `queries` queries and `keys` keys or values, in bytes: of q k^T, dy v^T, p v and ds k.
[[nodiscard]] std::size_t product_bytes(const AttentionSaved& s, std::size_t queries, std::size_t keys) noexcept;

// softmax(q k^T scale) of some queries into p: [count, cols], columns `keys` alone; what a query does not see is 0. bent, if not null:
// tanh(scores / softcap), for the backward. room: for k_keys keys, where they are not f32; scratch: of the products.
void probabilities(const AttentionSaved& s, const Queries& queries, const Seen& keys, float* p, float* bent,
                   float* room, void* scratch) noexcept;

}  // namespace qorus
