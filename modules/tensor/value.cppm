// Tensor: an immutable value that names elements somewhere, and how an operation makes a new one (Fresh).
export module qorus.tensor:value;
import qorus.std;
import qorus.memory;
import :dtype;
import :shape;
import :context;

export namespace qorus {

// Where a gradient goes: nowhere, to a slot of the tape, or to a parameter's place in its block.
struct GradRef {
  std::uint32_t slot = 0;  // 0: none; k_leaf | index: a parameter
  std::size_t numel = 0;
  const Block* block = nullptr;  // of a parameter
  std::size_t offset = 0;        // its first float there

  static constexpr std::uint32_t k_leaf = 0x80000000u;
  [[nodiscard]] bool leaf() const noexcept { return slot & k_leaf; }
  explicit operator bool() const noexcept { return slot != 0; }
};

// Whether every row of the layout is whole blocks, one after the other: what a view of a block format must be. True of plain types.
[[nodiscard]] bool whole_blocks(DType dtype, const Layout& layout) noexcept;
// Bytes from the first element to the one so many elements on: the first of a block.
[[nodiscard]] constexpr std::int64_t element_offset(DType dtype, std::int64_t elements) noexcept {
  const std::int64_t blocks = is_block(dtype) ? elements / static_cast<std::int64_t>(block_size(dtype)) : elements;
  return blocks * static_cast<std::int64_t>(block_bytes(dtype));
}

// A view of elements that never change: type, shape, strides, place. Copying copies no data and allocates nothing. It does not
// own: it is valid until its frame ends or its owner is gone, and every operation checks that (stale_tensor).
class Tensor {
 public:
  Tensor() noexcept;

  // Borrows the caller's memory: row-major, unchanged and alive as long as the tensor is used (unchecked: the caller's word).
  // An element count that does not match gives a tensor of an invalid shape, which every operation refuses.
  template <Element T>
  [[nodiscard]] static Tensor borrow(std::span<const T> data, const Shape& shape) noexcept {
    return Tensor(reinterpret_cast<const std::byte*>(data.data()), dtype_of<T>,
                  Layout::dense(shape.valid() && shape.numel() == data.size() ? shape : Shape(std::span(&k_bad, 1))),
                  {});
  }
  // Used by owners: a view of memory with a lifetime. layout.offset is added to data. A block format seen by less than whole
  // rows gives a tensor of an invalid shape.
  Tensor(const std::byte* data, DType dtype, const Layout& layout, const Lifetime& lifetime) noexcept
      : data_(data), lifetime_(lifetime), dtype_(dtype) {
    see(layout);
  }

  [[nodiscard]] inline DType dtype() const noexcept { return dtype_; }
  [[nodiscard]] inline const Shape& shape() const noexcept { return shape_; }
  [[nodiscard]] inline int rank() const noexcept { return shape_.rank(); }
  [[nodiscard]] inline std::int64_t dim(int i) const noexcept { return shape_[i]; }
  [[nodiscard]] inline std::int64_t stride(int i) const noexcept { return stride_[i < 0 ? i + shape_.rank() : i]; }
  [[nodiscard]] inline std::size_t numel() const noexcept { return shape_.numel(); }
  [[nodiscard]] inline Layout layout() const noexcept { return {shape_, stride_, 0}; }
  [[nodiscard]] inline bool contiguous() const noexcept { return layout().is_dense(); }
  [[nodiscard]] inline bool alive() const noexcept { return lifetime_.alive() && scope_.alive(); }

  // Reading. Each checks type and lifetime: invalid_dtype, stale_tensor, invalid_size.
  template <Element T>
  [[nodiscard]] Result<std::span<const T>> values() const noexcept {  // contiguous tensors only
    if (auto ok = readable(dtype_of<T>, "values"); !ok) return fail(ok.error());
    if (!contiguous())
      return fail(Errc::invalid_argument, "values", "not contiguous: ops::contiguous first", shape_.dims());
    return std::span<const T>(reinterpret_cast<const T*>(data_), numel());
  }
  template <Element T>
  [[nodiscard]] Result<T> at(std::initializer_list<std::int64_t> index) const noexcept {
    if (auto ok = readable(dtype_of<T>, "at"); !ok) return fail(ok.error());
    auto place = offset_of(std::span(index.begin(), index.size()));
    if (!place) return fail(place.error());
    return reinterpret_cast<const T*>(data_)[*place];
  }
  // The one element of a tensor that has one.
  template <Element T = float>
  [[nodiscard]] Result<T> item() const noexcept {
    if (auto ok = readable(dtype_of<T>, "item"); !ok) return fail(ok.error());
    if (numel() != 1) return fail(Errc::invalid_size, "item", "needs exactly one element", shape_.dims());
    return *reinterpret_cast<const T*>(data_);
  }
  // Copies the elements out in row-major order, whatever the strides. Errors: as above; invalid_size if the span does not fit.
  template <Element T>
  [[nodiscard]] Status copy_to(std::span<T> out) const noexcept {
    if (auto ok = readable(dtype_of<T>, "copy_to"); !ok) return ok;
    if (out.size() != numel()) return fail(Errc::invalid_size, "copy_to", "the span has another length", shape_.dims());
    copy_elements(reinterpret_cast<std::byte*>(out.data()));
    return {};
  }
  template <Element T = float>
  [[nodiscard]] Result<std::vector<T>> to_vector() const {  // allocates, as std::vector does
    if (auto ok = readable(dtype_of<T>, "to_vector"); !ok) return fail(ok.error());
    std::vector<T> copy(numel());
    copy_elements(reinterpret_cast<std::byte*>(copy.data()));
    return copy;
  }
  // Writes the elements densely to `out`, which has room for them. Unchecked: for kernels and owners.
  void copy_elements(std::byte* out) const noexcept;

  // For those who write operations. Unchecked: look at check() first.
  [[nodiscard]] inline const std::byte* data() const noexcept { return data_; }
  [[nodiscard]] inline const float* f32() const noexcept { return reinterpret_cast<const float*>(data_); }
  [[nodiscard]] inline const std::int32_t* i32() const noexcept { return reinterpret_cast<const std::int32_t*>(data_); }
  [[nodiscard]] inline const std::uint8_t* u8() const noexcept { return reinterpret_cast<const std::uint8_t*>(data_); }
  [[nodiscard]] inline Context* context() const noexcept { return context_; }
  [[nodiscard]] inline const Lifetime& lifetime() const noexcept { return lifetime_; }
  [[nodiscard]] inline bool tracked() const noexcept { return slot_ != 0; }
  // Whether it sees memory of parameters.
  [[nodiscard]] inline bool of_parameters() const noexcept {
    return lifetime_.block && lifetime_.block->leaf_count > 0;
  }
  // Alive, of a valid shape, and of the wanted type. Errors: stale_tensor, invalid_size, invalid_dtype.
  [[nodiscard]] Status check(DType wanted, const char* op) const noexcept;
  [[nodiscard]] Status check(const char* op) const noexcept;
  [[nodiscard]] GradRef grad_ref() const noexcept;
  // The same elements in another layout over the same memory; without a slot. A block format: by whole rows.
  [[nodiscard]] Tensor seen_as(const Layout& layout) const noexcept;
  // The same elements in a context: what an input of a computation is.
  [[nodiscard]] Tensor in(Context& context) const noexcept;
  [[nodiscard]] Tensor with_slot(std::uint32_t slot) const noexcept;
  // The same for the inputs of a rule that does not read its values: so that it may be transient.
  [[nodiscard]] Tensor unread() const noexcept;

 private:
  static constexpr std::int64_t k_bad = -1;
  [[nodiscard]] Status readable(DType wanted, const char* op) const noexcept;
  // Takes shape and strides, and steps to the offset.
  inline void see(const Layout& layout) noexcept {
    if (is_block(dtype_) && !whole_blocks(dtype_, layout)) return void(shape_ = Shape(std::span(&k_bad, 1)));
    shape_ = layout.shape;
    stride_ = layout.stride;
    if (data_) data_ += element_offset(dtype_, layout.offset);
  }
  [[nodiscard]] Result<std::int64_t> offset_of(std::span<const std::int64_t> index) const noexcept;

  const std::byte* data_ = nullptr;
  Context* context_ = nullptr;  // looked at only while scope_ is alive
  Lifetime lifetime_;           // of the memory
  Lifetime scope_;              // of the context's frame
  Shape shape_{-1};
  std::array<std::int64_t, k_max_rank> stride_{};
  std::uint32_t slot_ = 0;
  DType dtype_ = DType::f32;
};

// Writes a tensor as nested rows, like `[[1, 2.5, 0], [4, 5, 6]] f32 [2,3]` with one row per line, five digits, long axes
// shortened (of a block format only type and shape), into `out` (cut, always terminated) and gives the full length, as snprintf does. A stale tensor is written as
// its error.
std::size_t format(const Tensor& tensor, std::span<char> out) noexcept;
[[nodiscard]] inline std::string to_string(const Tensor& tensor) {
  std::string text(format(tensor, {}), '\0');
  format(tensor, std::span(text.data(), text.size() + 1));
  return text;
}

// The unique handle on memory that an operation is about to write, once. It freezes into a Tensor.
class Fresh {
 public:
  // Uninitialised elements in the context's arena. Errors: out_of_memory, invalid_size.
  [[nodiscard]] static Result<Fresh> make(Context& context, const Shape& shape, DType dtype = DType::f32) noexcept;
  // The same, f32, for an operation whose rule can make its result again, if it is `tracked`: where rematerialize wants that, the elements
  // lie at the far end of the arena. Errors: as make.
  [[nodiscard]] static Result<Fresh> make_remade(Context& context, const Shape& shape, bool tracked) noexcept;
  // The same for an operation whose rule does not read its result, if that is `wanted`: there until with_transients ends, where one stands
  // and a tape records.
  [[nodiscard]] static Result<Fresh> make_transient(Context& context, const Shape& shape, bool wanted) noexcept;
  Fresh(Fresh&&) noexcept = default;
  Fresh& operator=(Fresh&&) noexcept = default;

  [[nodiscard]] inline float* f32() const noexcept { return reinterpret_cast<float*>(data_); }
  [[nodiscard]] inline std::int32_t* i32() const noexcept { return reinterpret_cast<std::int32_t*>(data_); }
  [[nodiscard]] inline std::uint8_t* u8() const noexcept { return reinterpret_cast<std::uint8_t*>(data_); }
  [[nodiscard]] inline std::byte* data() const noexcept { return data_; }
  [[nodiscard]] inline const Shape& shape() const noexcept { return shape_; }
  [[nodiscard]] inline Context& context() const noexcept { return *context_; }

  // Frozen, and not on the tape.
  [[nodiscard]] Tensor freeze() && noexcept;
  // Frozen, and recorded with what the rule's backward needs, if a tape records and one of the inputs is tracked. `inputs`
  // are all tensors whose memory the rule will read or add to, from at most eight places: they must still be alive then.
  // Errors: out_of_memory.
  template <class Saved>
  [[nodiscard]] Result<Tensor> freeze(RuleRef rule, std::initializer_list<const Tensor*> inputs,
                                      const Saved& saved) && noexcept {
    static_assert(std::is_trivially_copyable_v<Saved> && std::is_trivially_destructible_v<Saved>);
    return std::move(*this).freeze_recorded(rule, inputs, &saved, sizeof saved);
  }

 private:
  Fresh() = default;
  [[nodiscard]] static Result<Fresh> make_far(Context& context, const Shape& shape, bool transient) noexcept;
  [[nodiscard]] Result<Tensor> freeze_recorded(RuleRef rule, std::initializer_list<const Tensor*> inputs,
                                               const void* saved, std::size_t size) && noexcept;

  std::byte* data_ = nullptr;
  Context* context_ = nullptr;
  Lifetime lifetime_;
  Shape shape_;
  DType dtype_ = DType::f32;
  Remade* remade_ = nullptr;
};

}  // namespace qorus
