// Joint: several broadcast operands walked together over a dense output, rows of the longest run in which each operand either
// advances by one or stands still.
module qorus.ops:joint;
import qorus.std;
import qorus.tensor;

namespace qorus {

template <int N>
struct Joint {
  int rank = 0;
  std::array<std::size_t, k_max_rank> extent{};
  std::array<std::array<std::int64_t, k_max_rank>, N> stride{};

  [[nodiscard]] std::size_t inner() const noexcept { return rank ? extent[rank - 1] : 1; }
  [[nodiscard]] std::size_t step(int operand) const noexcept {
    return rank ? static_cast<std::size_t>(stride[operand][rank - 1]) : 0;
  }
  // Whether this operand's innermost stride is one that kernels take.
  [[nodiscard]] bool walkable(int operand) const noexcept { return rank == 0 || step(operand) <= 1; }
  // Offsets of outer row `row` in each operand.
  [[nodiscard]] std::array<std::int64_t, N> offsets(std::size_t row) const noexcept {
    std::array<std::int64_t, N> result{};
    for (int d = rank - 2; d >= 0; --d) {
      const auto index = static_cast<std::int64_t>(row % extent[d]);
      row /= extent[d];
      for (int o = 0; o < N; ++o) result[o] += index * stride[o][d];
    }
    return result;
  }
};

// The layouts are of one shape. Neighbouring extents that every operand walks as one are joined; extents of 1 vanish.
template <int N>
[[nodiscard]] Joint<N> join(const std::array<Layout, N>& layouts) noexcept {
  Joint<N> joint;
  const Shape& shape = layouts[0].shape;
  for (int d = 0; d < shape.rank(); ++d) {
    const auto extent = static_cast<std::size_t>(shape[d]);
    if (extent == 1) continue;
    bool continues = joint.rank > 0;
    for (int o = 0; o < N && continues; ++o) {
      continues = joint.stride[o][joint.rank - 1] == layouts[o].stride[d] * static_cast<std::int64_t>(extent);
    }
    if (!continues) ++joint.rank;
    joint.extent[joint.rank - 1] = continues ? joint.extent[joint.rank - 1] * extent : extent;
    for (int o = 0; o < N; ++o) joint.stride[o][joint.rank - 1] = layouts[o].stride[d];
  }
  return joint;
}

}  // namespace qorus
