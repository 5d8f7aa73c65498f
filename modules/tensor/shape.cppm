// Shapes of up to six extents, and layouts: how a shape's elements lie in memory. Pure arithmetic, no data.
export module qorus.tensor:shape;
import qorus.std;
import qorus.memory;

export namespace qorus {

// A list of extents, outermost first. A shape made of more than six, of a negative one, or of more elements than fit 2^47 is
// not valid(); every operation answers it with invalid_size. Rank 0 is a scalar: one element.
class Shape {
 public:
  constexpr Shape() noexcept : numel_(1) { dims_.rank = 0; }
  Shape(std::initializer_list<std::int64_t> extents) noexcept : Shape(std::span(extents.begin(), extents.size())) {}
  explicit Shape(std::span<const std::int64_t> extents) noexcept;

  [[nodiscard]] constexpr bool valid() const noexcept { return dims_.rank >= 0; }
  [[nodiscard]] constexpr int rank() const noexcept { return dims_.rank; }
  [[nodiscard]] constexpr std::size_t numel() const noexcept { return numel_; }
  // Extent i; negative i counts from the end. i must exist.
  [[nodiscard]] constexpr std::int64_t operator[](int i) const noexcept {
    return dims_.extent[i < 0 ? i + dims_.rank : i];
  }
  [[nodiscard]] constexpr const Dims& dims() const noexcept { return dims_; }
  [[nodiscard]] constexpr std::span<const std::int64_t> extents() const noexcept {
    return {dims_.extent.data(), dims_.rank < 0 ? 0u : static_cast<std::size_t>(dims_.rank)};
  }
  // This shape with extent i replaced, or without it, or with one put in before it; not valid if it would not be.
  [[nodiscard]] Shape with(int i, std::int64_t extent) const noexcept;
  [[nodiscard]] Shape without(int i) const noexcept;
  [[nodiscard]] Shape inserted(int before, std::int64_t extent) const noexcept;

  friend constexpr bool operator==(const Shape& a, const Shape& b) noexcept { return a.dims_ == b.dims_; }

 private:
  Dims dims_;
  std::size_t numel_ = 0;
};

// The shape that both broadcast to, aligned at the last extent; not valid if they do not go together.
[[nodiscard]] Shape broadcast(const Shape& a, const Shape& b) noexcept;

// How a tensor's elements lie: element (i0, i1, …) is at offset + sum of i_d stride_d, counted in elements.
struct Layout {
  Shape shape;
  std::array<std::int64_t, k_max_rank> stride{};
  std::int64_t offset = 0;

  // Row-major, no gaps.
  [[nodiscard]] static Layout dense(const Shape& shape) noexcept;
  [[nodiscard]] bool is_dense() const noexcept;

  // Each gives the same elements seen another way. Errors: invalid_argument (an axis or range that is not there), invalid_size.
  [[nodiscard]] Result<Layout> permuted(std::span<const int> axes) const noexcept;
  [[nodiscard]] Result<Layout> sliced(int axis, std::int64_t begin, std::int64_t end, std::int64_t step) const noexcept;
  [[nodiscard]] Result<Layout> broadcast_to(const Shape& wanted) const noexcept;
  // Where the elements' order allows it without a copy; otherwise false, and `result` is not to be used.
  [[nodiscard]] bool reshaped(const Shape& wanted, Layout& result) const noexcept;
};

// Fills in one extent of -1 from the element count. Errors: invalid_size.
[[nodiscard]] Result<Shape> infer_extent(std::span<const std::int64_t> wanted, std::size_t numel,
                                         const char* op) noexcept;

// An axis counted from the end made one counted from the front. Errors: invalid_argument.
[[nodiscard]] Result<int> normal_axis(int axis, int rank, const char* op) noexcept;

}  // namespace qorus
