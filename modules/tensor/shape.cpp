// Bodies of qorus.tensor:shape.
module qorus.tensor;
import qorus.std;

namespace qorus {

Shape::Shape(std::span<const std::int64_t> extents) noexcept {
  constexpr std::uint64_t k_max_elements = std::uint64_t{1} << 47;
  if (extents.size() > k_max_rank) return;
  std::uint64_t count = 1, reach = 1;  // reach counts an extent of 0 as 1: strides must not overflow either
  std::array<std::int64_t, k_max_rank> list{};
  for (std::size_t i = 0; i < extents.size(); ++i) {
    const auto extent = static_cast<std::uint64_t>(extents[i]);  // a negative one becomes too large
    if (__builtin_mul_overflow(reach, extent ? extent : 1, &reach) || reach > k_max_elements) return;
    count *= extent;
    list[i] = extents[i];
  }
  numel_ = static_cast<std::size_t>(count);
  dims_ = {.extent = list, .rank = static_cast<std::int8_t>(extents.size())};
}

Shape Shape::with(int i, std::int64_t extent) const noexcept {
  if (!valid()) return *this;
  auto list = dims_.extent;
  list[i < 0 ? i + dims_.rank : i] = extent;
  return Shape(std::span(list.data(), extents().size()));
}

Shape Shape::without(int i) const noexcept {
  if (!valid()) return *this;
  std::array<std::int64_t, k_max_rank> list{};
  const int at = i < 0 ? i + dims_.rank : i;
  int count = 0;
  for (int d = 0; d < dims_.rank; ++d) {
    if (d != at) list[count++] = dims_.extent[d];
  }
  return Shape(std::span(list.data(), static_cast<std::size_t>(count)));
}

Shape Shape::inserted(int before, std::int64_t extent) const noexcept {
  if (!valid()) return *this;
  std::array<std::int64_t, k_max_rank + 1> list{};
  int count = 0;
  for (int d = 0; d <= dims_.rank; ++d) {
    if (d == before) list[count++] = extent;
    if (d < dims_.rank) list[count++] = dims_.extent[d];
  }
  return Shape(std::span(list.data(), static_cast<std::size_t>(count)));
}

Shape broadcast(const Shape& a, const Shape& b) noexcept {
  constexpr std::int64_t k_bad[] = {-1};
  if (!a.valid() || !b.valid()) return Shape(k_bad);
  std::array<std::int64_t, k_max_rank> list{};
  const int rank = std::max(a.rank(), b.rank());
  for (int d = 1; d <= rank; ++d) {
    const std::int64_t x = d <= a.rank() ? a[-d] : 1, y = d <= b.rank() ? b[-d] : 1;
    if (x != y && x != 1 && y != 1) return Shape(k_bad);
    list[rank - d] = x == 1 ? y : x;
  }
  return Shape(std::span(list.data(), static_cast<std::size_t>(rank)));
}

Layout Layout::dense(const Shape& shape) noexcept {
  Layout layout{.shape = shape};
  std::int64_t step = 1;
  for (int d = shape.rank() - 1; d >= 0; --d) {
    layout.stride[d] = step;
    step *= std::max<std::int64_t>(shape[d], 1);
  }
  return layout;
}

bool Layout::is_dense() const noexcept {
  std::int64_t step = 1;
  for (int d = shape.rank() - 1; d >= 0; --d) {
    if (shape[d] != 1 && stride[d] != step) return shape.numel() == 0;
    step *= shape[d];
  }
  return true;
}

Result<Layout> Layout::permuted(std::span<const int> axes) const noexcept {
  if (static_cast<int>(axes.size()) != shape.rank()) {
    return fail(Errc::invalid_argument, "permute", "one axis for each extent", shape.dims());
  }
  std::array<std::int64_t, k_max_rank> extents{};
  Layout result{.offset = offset};
  unsigned seen = 0;
  for (std::size_t i = 0; i < axes.size(); ++i) {
    const auto axis = normal_axis(axes[i], shape.rank(), "permute");
    if (!axis) return fail(axis.error());
    if (seen >> *axis & 1) return fail(Errc::invalid_argument, "permute", "an axis is named twice", shape.dims());
    seen |= 1u << *axis;
    extents[i] = shape[*axis];
    result.stride[i] = stride[*axis];
  }
  result.shape = Shape(std::span(extents.data(), axes.size()));
  return result;
}

Result<Layout> Layout::sliced(int axis, std::int64_t begin, std::int64_t end, std::int64_t step) const noexcept {
  const auto at = normal_axis(axis, shape.rank(), "slice");
  if (!at) return fail(at.error());
  const std::int64_t extent = shape[*at];
  if (begin < 0) begin += extent;
  if (end < 0) end += extent;
  if (step < 1 || begin < 0 || begin > end || end > extent) {
    return fail(Errc::invalid_argument, "slice", "needs 0 <= begin <= end <= extent and a step of at least 1",
                shape.dims());
  }
  Layout result = *this;
  const std::int64_t count = begin == end ? 0 : (end - begin - 1) / step + 1;
  result.shape = shape.with(*at, count);
  result.offset += begin < extent ? begin * stride[*at] : 0;
  if (count > 1) result.stride[*at] *= step;
  return result;
}

Result<Layout> Layout::broadcast_to(const Shape& wanted) const noexcept {
  if (!wanted.valid() || broadcast(shape, wanted) != wanted) {
    return fail(Errc::invalid_size, "broadcast_to", "the first does not broadcast to the second", shape.dims(),
                wanted.dims());
  }
  Layout result{.shape = wanted, .offset = offset};
  const int extra = wanted.rank() - shape.rank();
  for (int d = extra; d < wanted.rank(); ++d) {
    result.stride[d] = shape[d - extra] == 1 && wanted[d] != 1 ? 0 : stride[d - extra];
  }
  return result;
}

bool Layout::reshaped(const Shape& wanted, Layout& result) const noexcept {
  if (!wanted.valid() || !shape.valid() || wanted.numel() != shape.numel()) return false;
  if (is_dense() || shape.numel() == 0) {
    result = dense(wanted);
    result.offset = offset;
    return true;
  }
  // Walk both shapes from the inside: each group of old extents that lies without gaps may be cut anew.
  result = Layout{.shape = wanted, .offset = offset};
  int from = shape.rank() - 1, to = wanted.rank() - 1;
  while (to >= 0) {
    while (from >= 0 && shape[from] == 1) --from;
    if (from < 0) {
      for (; to >= 0; --to) result.stride[to] = 0;
      return true;
    }
    std::int64_t have = shape[from], need = 1, step = stride[from];
    while (to >= 0) {
      while (need * wanted[to] > have) {  // join the next outer extent, if it continues this one
        const std::int64_t reach = stride[from] * shape[from];
        do --from;
        while (from >= 0 && shape[from] == 1);
        if (from < 0 || stride[from] != reach) return false;
        have *= shape[from];
      }
      result.stride[to] = step;
      need *= wanted[to];
      step *= wanted[to--];
      if (need == have) break;
    }
    if (need != have) return false;
    --from;
  }
  return true;
}

Result<Shape> infer_extent(std::span<const std::int64_t> wanted, std::size_t numel, const char* op) noexcept {
  std::array<std::int64_t, k_max_rank> list{};
  if (wanted.size() > k_max_rank) return fail(Errc::invalid_size, op, "at most six extents");
  std::uint64_t known = 1;
  int open = -1;
  for (std::size_t i = 0; i < wanted.size(); ++i) {
    list[i] = wanted[i];
    if (wanted[i] == -1 && open < 0) {
      open = static_cast<int>(i);
    } else if (wanted[i] < 0 || __builtin_mul_overflow(known, static_cast<std::uint64_t>(wanted[i]), &known)) {
      return fail(Errc::invalid_size, op, "extents are counts, and at most one is left open with -1");
    }
  }
  if (open >= 0) {
    if (known == 0 || numel % known) return fail(Errc::invalid_size, op, "the open extent does not come out whole");
    list[open] = static_cast<std::int64_t>(numel / known);
  }
  const Shape shape(std::span(list.data(), wanted.size()));
  if (!shape.valid() || shape.numel() != numel) {
    return fail(Errc::invalid_size, op, "the number of elements would change",
                Shape{static_cast<std::int64_t>(numel)}.dims(), shape.dims());
  }
  return shape;
}

Result<int> normal_axis(int axis, int rank, const char* op) noexcept {
  const int at = axis < 0 ? axis + rank : axis;
  if (at < 0 || at >= rank)
    return fail(Errc::invalid_argument, op, "the tensor has no such axis", Dims{.extent = {axis}, .rank = 1});
  return at;
}

}  // namespace qorus
