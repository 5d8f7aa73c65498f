// Bodies of qorus.data:batch.
module qorus.data;
import qorus.std;
import :ring;

namespace qorus::data {

Batches::Batches() noexcept = default;
Batches::Batches(Batches&& other) noexcept = default;
Batches& Batches::operator=(Batches&& other) noexcept = default;
Batches::~Batches() = default;

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
  auto buffers = source().make_buffers(std::min(batch_size_, source_.size()));
  if (!buffers) return fail(buffers.error());
  x_ = std::move(buffers->x);
  y_ = std::move(buffers->y);
  if (source_.augment_.any()) {
    if (auto ok = spare_.resize(input_shape().numel()); !ok) return ok;
  }
  return order_.resize(source_.reach());
}

BatchSource Batches::source() noexcept {
  return {.inputs = source_.inputs_,
          .targets = source_.targets_,
          .encoding = source_.encoding_,
          .augment = source_.augment_,
          .key = source_.seed_,
          .epoch = source_.epoch_,
          .spare = spare_.data()};
}

Batches Batches::prefetched(std::size_t count) && noexcept {
  if (count > 0 && failure_.code == Errc::ok) {
    ring_.reset(new (std::nothrow) Ring);
    const Status ready = ring_ ? ring_->start(source(), count, std::min(batch_size_, source_.size()))
                               : fail(Errc::out_of_memory, "prefetch", "the system has no more memory");
    if (!ready) give_up(ready.error());
  }
  return std::move(*this);
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
  ring_.reset();
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
  if (ring_) ring_->drop();
  source_.write_order(order_.span(), source_.epoch_);
  if (ring_) ring_->begin(source(), order_.span().first(limit()).subspan(next_), batch_size_);
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
  auto batch = ring_ ? ring_->next() : fill(order_.span().subspan(next_, rows));
  if (!batch) {
    give_up(batch.error());
    return;
  }
  batch_ = *batch;
  next_ += rows;
}

Result<Batch> Batches::fill(std::span<const std::uint32_t> indices) noexcept {
  Buffers buffers{std::move(x_), std::move(y_)};
  buffers.renew();
  auto batch = source().fill(indices, buffers);
  x_ = std::move(buffers.x);
  y_ = std::move(buffers.y);
  return batch;
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
