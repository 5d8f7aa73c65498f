// Bodies of qorus.data:dataset.
module;
#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <range/v3/algorithm/copy.hpp>
#include <range/v3/numeric/iota.hpp>
#include <span>
#include <utility>
module qorus.data;
import :random;

namespace qorus::data {
namespace {

constexpr std::uint64_t k_shuffle_stream = 0x73687566666c65, k_split_stream = 0x73706c6974;  // keep the two apart
constexpr std::size_t k_max_examples = UINT32_MAX;

Status check_tensors(const Tensor& inputs, const Tensor& targets) noexcept {
  if (auto ok = inputs.check("data"); !ok) return ok;
  if (auto ok = targets.check("data"); !ok) return ok;
  if (inputs.rank() < 1 || targets.rank() < 1) {
    return fail(Errc::invalid_size, "data", "inputs [n, ...] and targets [n, ...]", inputs.shape().dims(),
                targets.shape().dims());
  }
  if (inputs.dim(0) != targets.dim(0)) {
    return fail(Errc::invalid_size, "data", "as many targets as inputs", inputs.shape().dims(), targets.shape().dims());
  }
  if (inputs.dim(0) == 0) return fail(Errc::invalid_size, "data", "an empty data set", inputs.shape().dims());
  if (static_cast<std::size_t>(inputs.dim(0)) > k_max_examples) {
    return fail(Errc::invalid_size, "data", "more than 2^32 - 1 examples", inputs.shape().dims());
  }
  const DType in = inputs.dtype(), out = targets.dtype();
  if (in != DType::f32 && in != DType::u8 && in != DType::i32) {
    return fail(Errc::invalid_dtype, "data", "inputs are f32, u8 or i32", inputs.shape().dims());
  }
  if (out != DType::f32 && out != DType::i32) {
    return fail(Errc::invalid_dtype, "data", "targets are f32 or i32", targets.shape().dims());
  }
  if (!inputs.contiguous() || !targets.contiguous()) {
    return fail(Errc::invalid_argument, "data", "inputs and targets are contiguous", inputs.shape().dims(),
                targets.shape().dims());
  }
  return {};
}

Tensor row(const Tensor& all, std::size_t i) noexcept {
  const Shape shape = all.shape().without(0);
  Layout layout = Layout::dense(shape);
  layout.offset = static_cast<std::int64_t>(i * shape.numel());
  return all.seen_as(layout);
}

}  // namespace

Examples::Examples(const Tensor& inputs, const Tensor& targets, const Encoding& encoding) noexcept
    : inputs_(inputs), targets_(targets), encoding_(encoding) {
  if (auto ok = check_tensors(inputs, targets); !ok) {
    failure_ = ok.error();
    return;
  }
  failure_ = {};
  base_count_ = count_ = static_cast<std::size_t>(inputs.dim(0));
}

Shape Examples::input_shape() const noexcept {
  return inputs_.rank() > 0 ? inputs_.shape().without(0) : inputs_.shape();
}
Shape Examples::target_shape() const noexcept {
  return targets_.rank() > 0 ? targets_.shape().without(0) : targets_.shape();
}

Status Examples::status() const noexcept {
  if (failure_.code != Errc::ok) return fail(failure_);
  if (auto ok = inputs_.check("data"); !ok) return ok;
  return targets_.check("data");
}

Result<Example> Examples::example(std::size_t i) const noexcept {
  if (auto ok = status(); !ok) return fail(ok.error());
  if (i >= count_)
    return fail(Errc::invalid_argument, "example", "there is no example of this number", inputs_.shape().dims());
  std::size_t place = chosen_.empty() ? i : chosen_[i];
  if (shuffle_) {
    Examples now = clone();
    if (auto ok = now.settle(); !ok) return fail(ok.error());
    place = now.chosen_[i];
  }
  return Example{row(inputs_, place), row(targets_, place)};
}

Examples Examples::clone() const noexcept {
  Examples copy;
  copy.inputs_ = inputs_;
  copy.targets_ = targets_;
  copy.encoding_ = encoding_;
  copy.augment_ = augment_;
  copy.shuffle_ = shuffle_;
  copy.seed_ = seed_;
  copy.epoch_ = epoch_;
  copy.failure_ = failure_;
  auto chosen = chosen_.clone();
  if (!chosen) {
    copy.failure_ = chosen.error();
    return copy;
  }
  copy.chosen_ = std::move(*chosen);
  copy.base_count_ = base_count_;
  copy.count_ = count_;
  return copy;
}

Examples Examples::taken(std::size_t count) && noexcept {
  count_ = std::min(count_, count);
  if (!shuffle_) base_count_ = count_;
  if (count_ == 0 && failure_.code == Errc::ok)
    failure_ = Error{.code = Errc::invalid_size, .op = "take", .text = "an empty data set"};
  return std::move(*this);
}

Examples Examples::shuffled(std::uint64_t seed, std::uint64_t epoch) && noexcept {
  if (auto ok = settle(); !ok && failure_.code == Errc::ok) failure_ = ok.error();
  shuffle_ = true;
  seed_ = seed;
  epoch_ = epoch;
  return std::move(*this);
}

Examples Examples::augmented(const Augment& options) && noexcept {
  augment_ = options;
  if (!options.any() || failure_.code != Errc::ok) return std::move(*this);
  if (auto ok = check_augment(options, input_shape(), inputs_.dtype()); !ok) failure_ = ok.error();
  return std::move(*this);
}

void Examples::write_order(std::span<std::uint32_t> order, std::uint64_t epoch) const noexcept {
  if (chosen_.empty()) {
    ranges::iota(order, std::uint32_t{0});
  } else {
    ranges::copy(chosen_.span().first(order.size()), order.begin());
  }
  if (shuffle_) shuffle_front(order, count_, Random(mix(seed_) ^ k_shuffle_stream, epoch));
}

Status Examples::settle() noexcept {
  if (!shuffle_) return {};
  List<std::uint32_t> order;
  if (auto ok = order.resize(reach()); !ok) return ok;
  write_order(order.span(), epoch_);
  if (auto ok = order.resize(count_); !ok) return ok;
  chosen_ = std::move(order);
  base_count_ = count_;
  shuffle_ = false;
  return {};
}

// Makes views of chosen examples.
struct Selector {
  static Examples select(const Examples& from, List<std::uint32_t> chosen) noexcept {
    Examples part;
    part.inputs_ = from.inputs_;
    part.targets_ = from.targets_;
    part.encoding_ = from.encoding_;
    part.failure_ = {};
    part.base_count_ = part.count_ = chosen.size();
    part.chosen_ = std::move(chosen);
    return part;
  }
  static Result<Parts> split(const Examples& all, double fraction, std::uint64_t seed) noexcept {
    const auto n = all.size();
    const auto first = static_cast<std::size_t>(std::llround(fraction * static_cast<double>(n)));
    if (first == 0 || first >= n) {
      return fail(Errc::invalid_argument, "split", "both parts need at least one example", all.inputs_.shape().dims());
    }
    Examples now = all.clone();
    if (auto ok = now.settle(); !ok) return fail(ok.error());
    List<std::uint32_t> order, rest;
    if (auto ok = order.resize(n); !ok) return fail(ok.error());
    now.write_order(order.span(), 0);
    shuffle_front(order.span(), n, Random(mix(seed) ^ k_split_stream, 0));
    if (auto ok = rest.append(order.span().subspan(first)); !ok) return fail(ok.error());
    if (auto ok = order.resize(first); !ok) return fail(ok.error());
    return Parts{select(all, std::move(order)), select(all, std::move(rest))};
  }

  // Deals the examples to k test parts in turn: as they were shuffled, or class after class.
  static Result<List<Parts>> k_fold(const Examples& all, int k, std::uint64_t seed, bool stratified) noexcept {
    const auto folds = static_cast<std::size_t>(std::max(k, 0));
    if (auto ok = all.status(); !ok) return fail(ok.error());
    if (folds < 2 || folds > all.size())
      return fail(Errc::invalid_argument, "k_fold", "at least 2 parts, of at least one example each");
    Examples now = all.clone();
    if (auto ok = now.settle(); !ok) return fail(ok.error());
    List<std::uint32_t> order;
    if (auto ok = order.resize(all.size()); !ok) return fail(ok.error());
    now.write_order(order.span(), 0);
    shuffle_front(order.span(), order.size(), Random(mix(seed) ^ k_split_stream, 1));
    if (stratified) {
      if (auto ok = all.targets_.check(DType::i32, "k_fold"); !ok) return fail(ok.error());
      if (all.targets_.rank() != 1)
        return fail(Errc::invalid_size, "k_fold", "one class for each example", all.targets_.shape().dims());
      const std::int32_t* classes = all.targets_.i32();
      List<std::uint32_t> places;  // in the shuffled order, to break ties: a stable sort that allocates nothing
      if (auto ok = places.resize(all.targets_.numel()); !ok) return fail(ok.error());
      for (std::size_t i = 0; i < order.size(); ++i) places[order[i]] = static_cast<std::uint32_t>(i);
      std::sort(order.begin(), order.end(), [&](std::uint32_t a, std::uint32_t b) {
        return classes[a] != classes[b] ? classes[a] < classes[b] : places[a] < places[b];
      });
    }
    List<Parts> parts;
    if (auto ok = parts.reserve(folds); !ok) return fail(ok.error());
    for (std::size_t fold = 0; fold < folds; ++fold) {
      List<std::uint32_t> test, train;
      Status kept = train.reserve(order.size());
      for (std::size_t i = 0; i < order.size() && kept; ++i)
        kept = i % folds == fold ? test.push(order[i]) : train.push(order[i]);
      if (kept) kept = parts.push(Parts{select(all, std::move(train)), select(all, std::move(test))});
      if (!kept) return fail(kept.error());
    }
    return parts;
  }
};

Result<List<Parts>> k_fold(const Examples& examples, int k, std::uint64_t seed) noexcept {
  return Selector::k_fold(examples, k, seed, false);
}
Result<List<Parts>> stratified_k_fold(const Examples& examples, int k, std::uint64_t seed) noexcept {
  return Selector::k_fold(examples, k, seed, true);
}

Result<Parts> split(const Examples& examples, double fraction, std::uint64_t seed) noexcept {
  if (auto ok = examples.status(); !ok) return fail(ok.error());
  if (!(fraction > 0 && fraction < 1)) return fail(Errc::invalid_argument, "split", "a fraction between 0 and 1");
  return Selector::split(examples, fraction, seed);
}

Result<Dataset> Dataset::create(Owned inputs, Owned targets, Encoding encoding) noexcept {
  if (auto ok = check_tensors(inputs.tensor(), targets.tensor()); !ok) return fail(ok.error());
  if (encoding.classes < 0) return fail(Errc::invalid_argument, "data", "a number of classes is not negative");
  if (!std::isfinite(encoding.scale) || !std::isfinite(encoding.shift)) {
    return fail(Errc::invalid_argument, "data", "scale and shift are finite");
  }
  const Tensor y = targets.tensor();
  if (y.dtype() == DType::i32 && (y.rank() == 1 || encoding.classes > 0)) {
    const auto labels = std::span(y.i32(), y.numel());
    const auto [low, high] = std::minmax_element(labels.begin(), labels.end());
    if (!labels.empty() && (*low < 0 || (encoding.classes > 0 && *high >= encoding.classes) || *high == INT32_MAX)) {
      return fail(Errc::invalid_argument, "data", "a label is not in [0, classes)", y.shape().dims());
    }
    if (encoding.classes == 0) encoding.classes = *high + 1;
  }
  Dataset made;
  made.inputs_ = std::move(inputs);
  made.targets_ = std::move(targets);
  made.encoding_ = encoding;
  return made;
}

}  // namespace qorus::data
