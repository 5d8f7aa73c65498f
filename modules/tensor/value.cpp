// Bodies of qorus.tensor:value and :owned.
module qorus.tensor;
import qorus.std;

namespace qorus {

bool whole_blocks(DType dtype, const Layout& layout) noexcept {
  if (!is_block(dtype)) return true;
  const auto block = static_cast<std::int64_t>(block_size(dtype));
  const int last = layout.shape.rank() - 1;
  if (last < 0 || layout.shape[last] % block != 0 || layout.offset % block != 0) return false;
  if (layout.stride[last] != 1 && layout.shape[last] > 0) return false;
  for (int d = 0; d < last; ++d) {
    if (layout.stride[d] % block != 0) return false;
  }
  return true;
}

Status Tensor::check(const char* op) const noexcept {
  if (!alive()) return fail(Errc::stale_tensor, op, "used after its frame ended or its owner is gone", shape_.dims());
  if (!shape_.valid()) return fail(Errc::invalid_size, op, "a tensor without a valid shape");
  return {};
}

Status Tensor::check(DType wanted, const char* op) const noexcept {
  if (auto ok = check(op); !ok) return ok;
  if (dtype_ != wanted)
    return fail(Errc::invalid_dtype, op, "an operand has another element type; ops::cast converts", shape_.dims());
  return {};
}

Status Tensor::readable(DType wanted, const char* op) const noexcept {
  if (auto ok = check(wanted, op); !ok) return ok;
  if ((context_ && context_->planning) || (!data_ && numel() > 0)) {
    return fail(Errc::invalid_argument, op, "while planning, a tensor has a shape but no elements", shape_.dims());
  }
  return {};
}

Result<std::int64_t> Tensor::offset_of(std::span<const std::int64_t> index) const noexcept {
  if (static_cast<int>(index.size()) != rank())
    return fail(Errc::invalid_argument, "at", "one index for each extent", shape_.dims());
  std::int64_t offset = 0;
  for (int d = 0; d < rank(); ++d) {
    const std::int64_t i = index[d] < 0 ? index[d] + shape_[d] : index[d];
    if (i < 0 || i >= shape_[d]) return fail(Errc::invalid_argument, "at", "an index is out of range", shape_.dims());
    offset += i * stride_[d];
  }
  return offset;
}

void Tensor::copy_elements(std::byte* out) const noexcept {
  if (numel() == 0) return;
  if (contiguous()) {
    std::memcpy(out, data_, row_bytes(dtype_, numel()));
    return;
  }
  // An odometer over the outer extents; the innermost one is copied at once, or is a loop over elements, or over blocks.
  std::array<std::int64_t, k_max_rank> index{};
  const std::size_t width = block_bytes(dtype_);
  const std::int64_t inner = shape_[-1] / static_cast<std::int64_t>(block_size(dtype_)), step = stride(-1);
  const std::int64_t apart = step * static_cast<std::int64_t>(width);
  const std::size_t pieces = step == 1 ? 1 : static_cast<std::size_t>(inner),
                    piece = static_cast<std::size_t>(inner) * width / pieces;
  const std::byte* row = data_;
  while (true) {
    for (std::size_t i = 0; i < pieces; ++i, out += piece)
      std::memcpy(out, row + static_cast<std::int64_t>(i) * apart, piece);
    int d = rank() - 2;
    for (; d >= 0; --d) {
      row += element_offset(dtype_, stride_[d]);
      if (++index[d] < shape_[d]) break;
      row -= element_offset(dtype_, stride_[d]) * shape_[d];
      index[d] = 0;
    }
    if (d < 0) return;
  }
}

Tensor::Tensor() noexcept = default;

GradRef Tensor::grad_ref() const noexcept {
  GradRef ref{.slot = slot_, .numel = numel()};
  if (ref.leaf()) {
    ref.block = lifetime_.block;
    ref.offset = data_ ? static_cast<std::size_t>(f32() - ref.block->base) : 0;
  }
  return ref;
}

Tensor Tensor::seen_as(const Layout& layout) const noexcept {
  Tensor view = *this;
  view.see(layout);
  view.slot_ = 0;
  return view;
}

Tensor Tensor::in(Context& context) const noexcept {
  Tensor input = *this;
  input.context_ = &context;
  input.scope_ = context.scope;
  return input;
}

Tensor Tensor::with_slot(std::uint32_t slot) const noexcept {
  Tensor tracked = *this;
  tracked.slot_ = slot;
  return tracked;
}

Tensor Tensor::unread() const noexcept {
  Tensor input = *this;
  if (context_ && scope_.alive() && lifetime_.block == context_->scratch->transient_block()) input.lifetime_ = {};
  return input;
}

Result<Fresh> Fresh::make(Context& context, const Shape& shape, DType dtype) noexcept {
  if (context.failure.code != Errc::ok) return fail(context.failure);
  if (!shape.valid()) return fail(Errc::invalid_size, "result", "the result would have no valid shape");
  if (!whole_blocks(dtype, Layout::dense(shape)))
    return fail(Errc::invalid_dtype, "result", "rows of a block format are whole blocks", shape.dims());
  auto slice = context.scratch->take(row_bytes(dtype, shape.numel()));
  if (!slice) return fail(slice.error());
  if (context.made && context.record) context.made->add(slice->data, slice->size, dtype == DType::f32);
  Fresh fresh;
  fresh.data_ = slice->data;
  fresh.lifetime_ = slice->lifetime;
  fresh.context_ = &context;
  fresh.shape_ = shape;
  fresh.dtype_ = dtype;
  return fresh;
}

Result<Fresh> Fresh::make_far(Context& context, const Shape& shape, bool transient) noexcept {
  if (!shape.valid()) return make(context, shape);
  auto slice = context.scratch->take_far(row_bytes(DType::f32, shape.numel()), transient);
  if (!slice) return fail(slice.error());
  Fresh fresh;
  fresh.data_ = slice->data;
  fresh.lifetime_ = slice->lifetime;
  fresh.context_ = &context;
  fresh.shape_ = shape;
  return fresh;
}

Result<Fresh> Fresh::make_remade(Context& context, const Shape& shape, bool tracked) noexcept {
  if (!tracked || !context.record || !context.remade) return make(context, shape);
  auto far = make_far(context, shape, false);
  if (!far) return fail(far.error());
  Fresh fresh = std::move(*far);
  fresh.remade_ = std::exchange(context.remade, nullptr);
  *fresh.remade_ = {nullptr, fresh.data_, row_bytes(DType::f32, shape.numel())};
  return fresh;
}

Result<Fresh> Fresh::make_transient(Context& context, const Shape& shape, bool wanted) noexcept {
  if (wanted && context.record && context.transients) return make_far(context, shape, true);
  return make(context, shape);
}

Tensor Fresh::freeze() && noexcept { return Tensor(data_, dtype_, Layout::dense(shape_), lifetime_).in(*context_); }

Result<Tensor> Fresh::freeze_recorded(RuleRef rule, std::initializer_list<const Tensor*> inputs, const void* saved,
                                      std::size_t size) && noexcept {
  Tensor frozen = std::move(*this).freeze();
  if (!context_->record) return frozen;
  Node node{.rule = rule, .out_numel = frozen.numel()};
  bool tracked = false;
  for (const Tensor* input : inputs) {
    tracked = tracked || input->tracked();
    const Lifetime& life = input->lifetime();
    if (!life.block || context_->holds(life)) continue;
    const auto same = [&](const Lifetime& known) {
      return known.block == life.block && known.generation == life.generation;
    };
    if (std::any_of(node.reads, node.reads + node.read_count, same)) continue;
    if (node.read_count == Node::k_max_reads) {
      return fail(Errc::unsupported, "record", "a rule may read from at most eight places outside its frame");
    }
    node.reads[node.read_count++] = life;
  }
  if (!tracked) return frozen;
  auto slot = context_->record(*context_, node, saved, size);
  if (!slot) return fail(slot.error());
  for (const Tensor* input : inputs) {
    if (input->of_parameters()) context_->note_read(*context_, *input);
  }
  if (remade_) remade_->node = context_->newest;
  return frozen.with_slot(*slot);
}

Result<Owned> Owned::zeros(const Shape& shape, DType dtype) noexcept {
  if (!shape.valid()) return fail(Errc::invalid_size, "zeros", "a valid shape is needed");
  if (!whole_blocks(dtype, Layout::dense(shape)))
    return fail(Errc::invalid_dtype, "zeros", "rows of a block format are whole blocks", shape.dims());
  auto slab = Slab::create(row_bytes(dtype, shape.numel()));
  if (!slab) return fail(slab.error());
  Owned owned;
  owned.slab_ = std::move(*slab);
  owned.shape_ = shape;
  owned.dtype_ = dtype;
  return owned;
}

Result<Owned> keep(const Tensor& tensor) noexcept {
  if (auto ok = tensor.check("keep"); !ok) return fail(ok.error());
  if ((tensor.context() && tensor.context()->planning) || (!tensor.data() && tensor.numel() > 0)) {
    return fail(Errc::invalid_argument, "keep", "while planning, a tensor has a shape but no elements",
                tensor.shape().dims());
  }
  auto copy = Owned::zeros(tensor.shape(), tensor.dtype());
  if (copy) tensor.copy_elements(const_cast<std::byte*>(copy->tensor().data()));
  return copy;
}

}  // namespace qorus
