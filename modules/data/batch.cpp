// Bodies of qorus.data:batch.
module;
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <utility>
module qorus.data;

namespace qorus::data {
namespace {

// Copies the rows of `width` bytes, those that `indices` name.
void gather(const std::byte* from, std::size_t width, std::span<const std::uint32_t> indices, std::byte* to) noexcept {
  for (const std::uint32_t i : indices) {
    if (width) std::memcpy(to, from + i * width, width);
    to += width;
  }
}

// to = from * scale + shift, for rows of `width` elements.
template <class T>
void gather_scaled(const T* from, std::size_t width, std::span<const std::uint32_t> indices, const Encoding& encoding,
                   float* to) noexcept {
  const float scale = encoding.scale, shift = encoding.shift;
  for (const std::uint32_t i : indices) {
    const T* row = from + i * width;
    for (std::size_t j = 0; j < width; ++j) to[j] = static_cast<float>(row[j]) * scale + shift;
    to += width;
  }
}

DType batch_dtype(DType stored) noexcept { return stored == DType::u8 ? DType::f32 : stored; }

}  // namespace

Batches::Batches(Examples examples, std::size_t batch, const BatchOptions& options) noexcept
    : source_(std::move(examples)), batch_size_(batch), drop_last_(options.drop_last) {
  if (auto ok = allocate(); !ok) {
    give_up(ok.error());
    return;
  }
  failure_ = {};
}

Status Batches::allocate() noexcept {
  if (auto ok = source_.status(); !ok) return ok;
  if (batch_size_ == 0) return fail(Errc::invalid_argument, "batch", "a batch has at least one example");
  if (limit() == 0) {
    return fail(Errc::invalid_argument, "batch", "a batch is larger than the data, and drop_last leaves it out",
                source_.inputs_.shape().dims());
  }
  const std::size_t rows = std::min(batch_size_, source_.size());
  const auto x_bytes =
      (Checked(rows) * input_shape().numel() * size_of(batch_dtype(source_.inputs_.dtype()))).get("batch");
  if (!x_bytes) return fail(x_bytes.error());
  const auto y_bytes = (Checked(rows) * target_shape().numel() * size_of(source_.target_dtype())).get("batch");
  if (!y_bytes) return fail(y_bytes.error());
  auto x = Slab::create(*x_bytes);
  if (!x) return fail(x.error());
  auto y = Slab::create(*y_bytes);
  if (!y) return fail(y.error());
  x_ = std::move(*x);
  y_ = std::move(*y);
  return order_.resize(source_.reach());
}

std::size_t Batches::limit() const noexcept {
  if (batch_size_ == 0) return 0;
  return drop_last_ ? source_.size() - source_.size() % batch_size_ : source_.size();
}

std::size_t Batches::size() const noexcept {
  return failure_.code == Errc::ok ? (limit() + batch_size_ - 1) / batch_size_ : 0;
}
std::size_t Batches::examples() const noexcept { return failure_.code == Errc::ok ? limit() : 0; }

Status Batches::status() const noexcept {
  if (failure_.code != Errc::ok) return fail(failure_);
  if (order_.size() < source_.reach())
    return fail(Errc::invalid_argument, "batch", "these batches were moved elsewhere");
  return source_.status();
}

void Batches::give_up(const Error& error) noexcept {
  failure_ = error;
  batch_ = {};
  x_.renew();
  y_.renew();
}

Batches::Iterator Batches::begin() noexcept {
  done_ = false;
  if (auto ok = status(); !ok) {
    give_up(ok.error());
    return Iterator(this);
  }
  if (!std::exchange(sought_, false)) next_ = 0;
  source_.write_order(order_.span(), source_.epoch_);
  advance();
  return Iterator(this);
}

void Batches::advance() noexcept {
  if (failure_.code != Errc::ok) {  // the invalid batch was seen
    done_ = true;
    return;
  }
  if (next_ >= limit()) {
    done_ = true;
    next_ = 0;
    ++source_.epoch_;
    return;
  }
  const std::size_t rows = std::min(batch_size_, limit() - next_);
  if (auto ok = fill(order_.span().subspan(next_, rows)); !ok) {
    give_up(ok.error());
    return;
  }
  next_ += rows;
}

Status Batches::fill(std::span<const std::uint32_t> indices) noexcept {
  if (auto ok = source_.status(); !ok) return ok;
  x_.renew();
  y_.renew();
  const Tensor &from = source_.inputs_, &targets = source_.targets_;
  const Encoding& encoding = source_.encoding_;
  const std::size_t width = input_shape().numel();
  auto* x = reinterpret_cast<float*>(x_.data());
  if (from.dtype() == DType::u8) {
    gather_scaled(from.u8(), width, indices, encoding, x);
  } else if (from.dtype() == DType::f32 && (encoding.scale != 1.0f || encoding.shift != 0.0f)) {
    gather_scaled(from.f32(), width, indices, encoding, x);
  } else {
    gather(from.data(), width * size_of(from.dtype()), indices, x_.data());
  }
  gather(targets.data(), target_shape().numel() * size_of(targets.dtype()), indices, y_.data());
  const auto rows = static_cast<std::int64_t>(indices.size());
  batch_ = {Tensor(x_.data(), batch_dtype(from.dtype()), Layout::dense(from.shape().with(0, rows)), x_.lifetime()),
            Tensor(y_.data(), targets.dtype(), Layout::dense(targets.shape().with(0, rows)), y_.lifetime())};
  return {};
}

Batches& Batches::epoch(std::uint64_t epoch) noexcept {
  source_.epoch_ = epoch;
  next_ = 0;
  sought_ = false;
  return *this;
}

Status Batches::seek(const Position& position) noexcept {
  if (auto ok = status(); !ok) return ok;
  if (position.index > limit()) return fail(Errc::invalid_argument, "seek", "a place past the end of the data");
  const bool at_end = position.index == limit();
  source_.seed_ = position.seed;
  source_.epoch_ = position.epoch + (at_end ? 1 : 0);
  next_ = at_end ? 0 : static_cast<std::size_t>(position.index);
  sought_ = true;
  return {};
}

}  // namespace qorus::data
