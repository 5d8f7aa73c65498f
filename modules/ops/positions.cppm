// Tables that depend on positions alone: angles for rotary positions and sinusoids, slopes for ALiBi. Made in the workspace, without
// a gradient. Errors of all: invalid_size, invalid_argument, out_of_memory.
export module qorus.ops:positions;
import qorus.std;
import qorus.tensor;

export namespace qorus::ops {

// cosine, sine: [seq, half] of the angle (first + p) base^(-i / half), for ops::rope. Su et al. 2021.
struct RopeTables {
  Tensor cosine, sine;
};
[[nodiscard]] Result<RopeTables> rope_tables(Context& context, std::int64_t seq, std::int64_t half, float base = 10000,
                                             std::int64_t first = 0) noexcept;

// [seq, d_model]: element 2 i of row p is sin((first + p) 10000^(-2 i / d_model)), element 2 i + 1 the cosine. Vaswani et al. 2017.
[[nodiscard]] Result<Tensor> sinusoids(Context& context, std::int64_t seq, std::int64_t d_model,
                                       std::int64_t first = 0) noexcept;

// [heads]: 2^(-8 (h + 1) / heads) where heads is a power of two; otherwise those of the next smaller power, then every second of the
// next larger one's. Press et al. 2022.
[[nodiscard]] Result<Tensor> alibi_slopes(Context& context, std::int64_t heads) noexcept;

// 0 … count - 1 as i32, to look learned positions up.
[[nodiscard]] Result<Tensor> counting(Context& context, std::int64_t count, std::int64_t first = 0) noexcept;

}  // namespace qorus::ops
