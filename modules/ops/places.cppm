// Rows that an index names: the check of the index, and the loops over them.
module qorus.ops:places;
import qorus.std;
import qorus.tensor;
import :operand;
import :tape;

namespace qorus {

// An index counted from the end made one counted from the front.
[[nodiscard]] inline std::size_t from_front(std::int32_t index, std::size_t extent) noexcept {
  return static_cast<std::size_t>(index < 0 ? index + static_cast<std::int64_t>(extent) : index);
}

// A dense copy of the indices (or they themselves), all of them in [-extent, extent).
[[nodiscard]] Result<Tensor> checked_index(const char* op, const Operand& index, std::int64_t extent,
                                           Context& context) noexcept;

// x: [outer, extent, inner], y: [outer, count, inner], y[o, i, :] = x[o, index[i], :].
struct TakenRows {
  const std::int32_t* index;
  std::size_t outer, extent, count, inner;
};
// y of x; `bytes`: of `inner` elements.
void take_rows(const Context& context, const TakenRows& rows, std::size_t bytes, const std::byte* x,
               std::byte* y) noexcept;
// dx (+)= what dy gives. Cut by ranges of x's rows, each of which looks at all indices: rows that occur twice are added in order, whoever
// does it.
void add_taken(const Context& context, const TakenRows& rows, const float* dy, const Into& dx) noexcept;

}  // namespace qorus
