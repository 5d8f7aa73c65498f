// Bodies of qorus.llm:cache.
module qorus.llm;
import qorus.std;

namespace qorus::llm {

Result<KvCache> KvCache::create(const Config& c, std::int64_t positions, int sequences, DType dtype) noexcept {
  if (dtype != DType::f32 && dtype != DType::f16 && dtype != DType::q8_0)
    return fail(Errc::invalid_dtype, "KvCache", "holds f32, f16 or q8_0");
  if (c.head_dim % static_cast<std::int64_t>(block_size(dtype)) != 0)
    return fail(Errc::invalid_dtype, "KvCache", "q8_0 needs heads of whole blocks of 32", Shape{c.head_dim}.dims());
  KvCache cache;
  cache.dtype_ = dtype;
  cache.layers_ = c.layers;
  cache.kv_heads_ = c.kv_heads;
  cache.head_dim_ = c.head_dim;
  cache.capacity_ = positions;
  cache.row_bytes_ = static_cast<std::size_t>(element_offset(dtype, c.head_dim));
  const auto size = [](std::int64_t n) { return static_cast<std::uint64_t>(n); };
  auto bytes = (Checked(2 * cache.row_bytes_) * size(c.layers) * size(c.kv_heads) * size(positions) * size(sequences))
                   .get("KvCache");
  if (!bytes) return fail(bytes.error());
  auto arena = Arena::create(*bytes);
  if (!arena) return fail(arena.error());
  auto rows = arena->take(*bytes);
  if (!rows) return fail(rows.error());
  cache.arena_ = std::move(*arena);
  cache.rows_ = *rows;
  // Where a head's positions lie too near each other, the first token of all would touch every huge page.
  cache.arena_.prefer_huge_pages(static_cast<std::size_t>(positions) * cache.row_bytes_ >= 2_MiB);
  if (auto room = cache.sizes_.resize(static_cast<std::size_t>(sequences)); !room) return fail(room.error());
  return cache;
}

std::size_t KvCache::bytes_per_position() const noexcept {
  return static_cast<std::size_t>(2 * layers_ * kv_heads_) * row_bytes_;
}

std::byte* KvCache::place(int sequence, std::int64_t half, std::int64_t head, std::int64_t position) const noexcept {
  const std::int64_t row = ((sequence * 2 * layers_ + half) * kv_heads_ + head) * capacity_ + position;
  return rows_.data + static_cast<std::size_t>(row) * row_bytes_;
}

Tensor KvCache::view(int sequence, std::int64_t half, std::int64_t positions) const noexcept {
  Layout layout{.shape = Shape{1, kv_heads_, positions, head_dim_}};
  layout.stride = {kv_heads_ * capacity_ * head_dim_, capacity_ * head_dim_, head_dim_, 1};
  return Tensor(place(sequence, half, 0, 0), dtype_, layout, rows_.lifetime);
}

Status KvCache::append(int sequence, std::int64_t layer, const Tensor& keys, const Tensor& values) noexcept {
  const std::int64_t past = size(sequence);
  for (const Tensor* part : {&keys, &values}) {
    if (auto ok = part->check(DType::f32, "KvCache"); !ok) return ok;
    const Shape& shape = part->shape();
    if (shape.rank() != 4 || shape[0] != 1 || shape[1] != kv_heads_ || shape[3] != head_dim_ ||
        past + shape[2] > capacity_) {
      return fail(Errc::invalid_size, "KvCache", "needs [1, kv_heads, n, head_dim] and room for n positions",
                  shape.dims());
    }
    const auto stored = dtype_ == DType::f32 ? Result<Tensor>(*part) : ops::cast(ops::contiguous(*part), dtype_);
    if (!stored) return fail(stored.error());
    const std::int64_t half = 2 * layer + (part == &values);
    const auto count = static_cast<std::size_t>(shape[2]);
    const auto copy = [&](std::size_t begin, std::size_t end) {
      for (std::size_t row = begin; row < end; ++row) {
        const auto h = static_cast<std::int64_t>(row / count), p = static_cast<std::int64_t>(row % count);
        const std::int64_t from = h * stored->stride(1) + p * stored->stride(2);
        std::memcpy(place(sequence, half, h, past + p), stored->data() + element_offset(dtype_, from), row_bytes_);
      }
    };
    const std::size_t rows = static_cast<std::size_t>(kv_heads_) * count;
    constexpr std::size_t k_rows = 1024;  // of a task; all that one token has
    if (stored->context())
      parallel_chunks(*stored->context(), rows, k_rows, copy);
    else
      copy(0, rows);
  }
  return {};
}

void KvCache::truncate(int sequence, std::int64_t positions) noexcept {
  std::int64_t& size = sizes_[static_cast<std::size_t>(sequence)];
  size = std::clamp<std::int64_t>(positions, 0, size);
}

void KvCache::copy(int from, int to, std::int64_t positions) noexcept {
  if (from == to) return truncate(to, positions);
  positions = std::clamp<std::int64_t>(positions, 0, size(from));
  for (std::int64_t half = 0; half < 2 * layers_ * kv_heads_; ++half) {
    std::memcpy(place(to, half / kv_heads_, half % kv_heads_, 0), place(from, half / kv_heads_, half % kv_heads_, 0),
                row_bytes_ * static_cast<std::size_t>(positions));
  }
  sizes_[static_cast<std::size_t>(to)] = positions;
}

}  // namespace qorus::llm
