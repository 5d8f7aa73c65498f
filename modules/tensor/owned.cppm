// Owned: a tensor together with its memory, for what outlives a frame: data sets, results that are kept.
export module qorus.tensor:owned;
import qorus.std;
import qorus.memory;
import :dtype;
import :shape;
import :value;

export namespace qorus {

// Movable, not copyable. Every tensor made from it is stale once it is gone.
class Owned {
 public:
  Owned() noexcept = default;
  // Zeros. Errors: invalid_size, invalid_dtype (a block format and rows that are not whole blocks), out_of_memory.
  [[nodiscard]] static Result<Owned> zeros(const Shape& shape, DType dtype = DType::f32) noexcept;
  // A copy of row-major elements. Errors: invalid_size if the counts differ, out_of_memory.
  template <Element T>
  [[nodiscard]] static Result<Owned> from(std::span<const T> values, const Shape& shape) noexcept {
    if (!shape.valid() || values.size() != shape.numel()) {
      return fail(Errc::invalid_size, "from", "as many values as the shape has elements", shape.dims());
    }
    auto made = zeros(shape, dtype_of<T>);
    if (made) std::copy(values.begin(), values.end(), reinterpret_cast<T*>(made->slab_.data()));
    return made;
  }
  template <Element T>
  [[nodiscard]] static Result<Owned> from(std::initializer_list<T> values, const Shape& shape) noexcept {
    return from(std::span<const T>(values.begin(), values.size()), shape);
  }

  // An invalid tensor if this owns nothing (never made, or moved from).
  [[nodiscard]] Tensor tensor() const noexcept {
    if (!slab_.data()) return {};
    return Tensor(slab_.data(), dtype_, Layout::dense(shape_), slab_.lifetime());
  }
  operator Tensor() const noexcept { return tensor(); }  // implicit: an owner is usable as a tensor
  // The elements, to fill in before tensors are made from it. Empty if the type is another.
  template <Element T>
  [[nodiscard]] std::span<T> fill() noexcept {
    if (dtype_of<T> != dtype_ || !slab_.data()) return {};
    return {reinterpret_cast<T*>(slab_.data()), shape_.numel()};
  }

 private:
  Slab slab_;
  Shape shape_{0};
  DType dtype_ = DType::f32;
};

// Copies a result out of its frame. Errors: stale_tensor, invalid_size, out_of_memory.
[[nodiscard]] Result<Owned> keep(const Tensor& tensor) noexcept;

}  // namespace qorus
