// Bodies of qorus.data:ring.
module;
#include <pthread.h>

module qorus.data;
import qorus.std;
import :ring;

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

}  // namespace

Result<Buffers> BatchSource::make_buffers(std::size_t rows) const noexcept {
  const auto slab = [&](const Tensor& all, DType dtype) -> Result<Slab> {
    const auto bytes = (Checked(rows) * all.shape().without(0).numel() * size_of(dtype)).get("batch");
    if (!bytes) return fail(bytes.error());
    return Slab::create(*bytes);
  };
  auto x = slab(inputs, dtype());
  if (!x) return fail(x.error());
  auto y = slab(targets, targets.dtype());
  if (!y) return fail(y.error());
  return Buffers{std::move(*x), std::move(*y)};
}

Result<Batch> BatchSource::fill(std::span<const std::uint32_t> indices, Buffers& into) const noexcept {
  if (auto ok = inputs.check("data"); !ok) return fail(ok.error());
  if (auto ok = targets.check("data"); !ok) return fail(ok.error());
  const Shape example = inputs.shape().without(0);
  const std::size_t width = example.numel();
  auto* x = reinterpret_cast<float*>(into.x.data());
  if (inputs.dtype() == DType::u8) {
    gather_scaled(inputs.u8(), width, indices, encoding, x);
  } else if (inputs.dtype() == DType::f32 && (encoding.scale != 1.0f || encoding.shift != 0.0f)) {
    gather_scaled(inputs.f32(), width, indices, encoding, x);
  } else {
    gather(inputs.data(), width * size_of(inputs.dtype()), indices, into.x.data());
  }
  if (augment.any()) {
    for (std::size_t i = 0; i < indices.size(); ++i)
      augment_image(augment, example, encoding.shift, key, epoch << 32 | indices[i], x + i * width, spare);
  }
  gather(targets.data(), targets.shape().without(0).numel() * size_of(targets.dtype()), indices, into.y.data());
  const auto rows = static_cast<std::int64_t>(indices.size());
  return Batch{Tensor(into.x.data(), dtype(), Layout::dense(inputs.shape().with(0, rows)), into.x.lifetime()),
               Tensor(into.y.data(), targets.dtype(), Layout::dense(targets.shape().with(0, rows)), into.y.lifetime())};
}

Ring::Ring() noexcept {
  pthread_mutex_init(&mutex_, nullptr);
  pthread_cond_init(&changed_, nullptr);
}

Ring::~Ring() {
  if (running_) {
    pthread_mutex_lock(&mutex_);
    stop_ = true;
    pthread_cond_broadcast(&changed_);
    pthread_mutex_unlock(&mutex_);
    pthread_join(thread_, nullptr);
  }
  pthread_cond_destroy(&changed_);
  pthread_mutex_destroy(&mutex_);
}

Status Ring::start(const BatchSource& source, std::size_t ahead, std::size_t rows) noexcept {
  if (ahead > 1024) return fail(Errc::invalid_argument, "prefetch", "at most 1024 batches ahead");
  for (std::size_t i = 0; i <= ahead; ++i) {
    auto buffers = source.make_buffers(rows);
    if (!buffers) return fail(buffers.error());
    if (auto kept = places_.push({std::move(*buffers), Batch{}}); !kept) return kept;
  }
  const auto entry = [](void* self) -> void* {
    static_cast<Ring*>(self)->serve();
    return nullptr;
  };
  if (pthread_create(&thread_, nullptr, entry, this) != 0)
    return fail(Errc::out_of_memory, "prefetch", "the system gives no more threads");
  running_ = true;
  return {};
}

void Ring::begin(const BatchSource& source, std::span<const std::uint32_t> order, std::size_t batch) noexcept {
  pthread_mutex_lock(&mutex_);
  source_ = source;
  order_ = order;
  batch_ = batch;
  filled_ = taken_ = 0;
  pthread_cond_broadcast(&changed_);
  pthread_mutex_unlock(&mutex_);
}

void Ring::drop() noexcept {
  pthread_mutex_lock(&mutex_);
  order_ = {};
  while (filling_) pthread_cond_wait(&changed_, &mutex_);
  filled_ = taken_ = 0;
  in_use_ = false;
  for (Place& place : places_) place.buffers.renew();
  pthread_mutex_unlock(&mutex_);
}

Result<Batch> Ring::next() noexcept {
  pthread_mutex_lock(&mutex_);
  if (std::exchange(in_use_, true)) {
    places_[taken_++ % places_.size()].buffers.renew();
    pthread_cond_broadcast(&changed_);
  }
  while (filled_ == taken_) pthread_cond_wait(&changed_, &mutex_);
  Result<Batch> batch = places_[taken_ % places_.size()].batch;
  pthread_mutex_unlock(&mutex_);
  return batch;
}

void Ring::serve() noexcept {
  pthread_mutex_lock(&mutex_);
  while (!stop_) {
    if (order_.empty() || filled_ - taken_ == places_.size()) {
      pthread_cond_wait(&changed_, &mutex_);
      continue;
    }
    const std::span<const std::uint32_t> indices = order_.first(std::min(batch_, order_.size()));
    order_ = order_.subspan(indices.size());
    Place& place = places_[filled_ % places_.size()];
    filling_ = true;
    pthread_mutex_unlock(&mutex_);
    Result<Batch> batch = source_.fill(indices, place.buffers);
    pthread_mutex_lock(&mutex_);
    place.batch = batch;
    filling_ = false;
    ++filled_;
    pthread_cond_broadcast(&changed_);
  }
  pthread_mutex_unlock(&mutex_);
}

}  // namespace qorus::data
