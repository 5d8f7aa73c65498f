// Bodies of qorus.llm:sampler.
module;
#include "kernels/kernels.h"
module qorus.llm;
import qorus.std;

namespace qorus::llm {
namespace {

Status check(const GenerateOptions& o, std::size_t vocab) noexcept {
  const struct {
    bool good;
    const char* wanted;
  } rules[] = {
      {o.max_tokens >= 0, "max_tokens must not be negative"},
      {o.temperature >= 0 && std::isfinite(o.temperature), "temperature must not be negative"},
      {o.top_k >= 0, "top_k must not be negative"},
      {o.top_p > 0, "top_p must be positive"},
      {o.min_p >= 0 && o.min_p <= 1, "min_p lies between 0 and 1"},
      {o.typical_p > 0, "typical_p must be positive"},
      {o.mirostat_tau >= 0 && std::isfinite(o.mirostat_tau), "mirostat_tau must not be negative"},
      {o.mirostat_eta >= 0 && std::isfinite(o.mirostat_eta), "mirostat_eta must not be negative"},
      {o.repetition_penalty > 0 && std::isfinite(o.repetition_penalty), "repetition_penalty must be positive"},
      {std::isfinite(o.frequency_penalty) && std::isfinite(o.presence_penalty), "penalties must be finite"},
      {o.penalty_last >= 0, "penalty_last must not be negative"},
      {o.guess >= 0 && o.guess <= 64, "guess lies between 0 and 64"},
  };
  for (const auto& rule : rules) {
    if (!rule.good) return fail(Errc::invalid_argument, "generate", rule.wanted);
  }
  for (const LogitBias& bias : o.bias) {
    if (bias.id < 0 || static_cast<std::size_t>(bias.id) >= vocab || std::isnan(bias.add)) {
      return fail(Errc::invalid_argument, "generate", "a bias of a token outside the vocabulary, or that is no number",
                  Dims{.extent = {bias.id}, .rank = 1});
    }
  }
  return {};
}

}  // namespace

Result<Sampler> Sampler::create(const GenerateOptions& options, std::size_t vocab) noexcept {
  if (auto good = check(options, vocab); !good) return fail(good.error());
  Sampler sampler;
  sampler.options_ = options;
  sampler.surprise_ = 2 * static_cast<double>(options.mirostat_tau);
  for (List<float>* list : {&sampler.logits_, &sampler.weights_}) {
    if (auto room = list->resize(vocab); !room) return fail(room.error());
  }
  for (List<std::int32_t>* list : {&sampler.order_, &sampler.counts_}) {
    if (auto room = list->resize(vocab); !room) return fail(room.error());
  }
  return sampler;
}

std::int32_t Sampler::choose(std::span<const float> logits, std::span<const std::int32_t> history) noexcept {
  std::copy_n(logits.begin(), std::min(logits.size(), logits_.size()), logits_.begin());
  for (const LogitBias& bias : options_.bias) logits_[static_cast<std::size_t>(bias.id)] += bias.add;
  penalise(history);
  if (options_.temperature == 0)
    return static_cast<std::int32_t>(std::max_element(logits_.begin(), logits_.end()) - logits_.begin());
  weigh();
  if (options_.mirostat_tau > 0) return mirostat();
  const auto k = static_cast<std::size_t>(options_.top_k);
  if (k > 0 && k < kept_) {
    std::nth_element(order_.begin(), order_.begin() + k, order_.end(), [&](std::int32_t a, std::int32_t b) {
      return weight(a) != weight(b) ? weight(a) > weight(b) : a < b;
    });
    kept_ = k;
  }
  if (options_.typical_p < 1) keep_typical();
  if (options_.top_p < 1) keep_top_p();
  if (options_.min_p > 0) keep_min_p();
  return draw();
}

void Sampler::penalise(std::span<const std::int32_t> history) noexcept {
  const GenerateOptions& o = options_;
  if (o.repetition_penalty == 1 && o.frequency_penalty == 0 && o.presence_penalty == 0) return;
  const auto lately = history.last(std::min(history.size(), static_cast<std::size_t>(o.penalty_last)));
  const auto known = [&](std::int32_t id) { return id >= 0 && static_cast<std::size_t>(id) < counts_.size(); };
  for (const std::int32_t id : lately) {
    if (known(id)) ++counts_[static_cast<std::size_t>(id)];
  }
  for (const std::int32_t id : lately) {
    if (!known(id)) continue;
    std::int32_t& count = counts_[static_cast<std::size_t>(id)];
    if (count == 0) continue;  // done at an earlier place
    float& logit = logits_[static_cast<std::size_t>(id)];
    logit = logit > 0 ? logit / o.repetition_penalty : logit * o.repetition_penalty;
    logit -= static_cast<float>(count) * o.frequency_penalty + o.presence_penalty;
    count = 0;
  }
}

// weight = exp((logit - largest) / temperature); every token is a candidate.
void Sampler::weigh() noexcept {
  const float largest = *std::max_element(logits_.begin(), logits_.end());
  for (std::size_t i = 0; i < logits_.size(); ++i) {
    const float w = std::exp((logits_[i] - largest) / options_.temperature);
    weights_[i] = std::isfinite(w) ? w : 0;
  }
  std::iota(order_.begin(), order_.end(), 0);
  kept_ = order_.size();
}

double Sampler::mass() const noexcept {
  double sum = 0;
  for (std::size_t i = 0; i < kept_; ++i) sum += static_cast<double>(weight(order_[i]));
  return sum;
}

void Sampler::keep_typical() noexcept {
  const double total = mass();
  double entropy = 0;
  for (std::size_t i = 0; i < kept_; ++i) {
    const double p = static_cast<double>(weight(order_[i])) / total;
    if (p > 0) entropy -= p * std::log(p);
  }
  const auto distance = [&](std::int32_t id) {
    return std::abs(-std::log(static_cast<double>(weight(id)) / total) - entropy);
  };
  std::sort(order_.begin(), order_.begin() + kept_, [&](std::int32_t a, std::int32_t b) {
    const double x = distance(a), y = distance(b);
    return x != y ? x < y : a < b;
  });
  double sum = 0;
  std::size_t n = 0;
  while (n < kept_ && sum < total * static_cast<double>(options_.typical_p))
    sum += static_cast<double>(weight(order_[n++]));
  kept_ = std::max<std::size_t>(n, 1);
}

void Sampler::keep_top_p() noexcept {
  const double total = mass(), wanted = total * static_cast<double>(options_.top_p);
  // All that lie below this bound have less than 1 - top_p together: none of them is among the first.
  const auto bound = static_cast<float>((total - wanted) / static_cast<double>(kept_));
  const auto* end =
      std::partition(order_.begin(), order_.begin() + kept_, [&](std::int32_t id) { return weight(id) >= bound; });
  kept_ = static_cast<std::size_t>(end - order_.begin());
  std::sort(order_.begin(), order_.begin() + kept_,
            [&](std::int32_t a, std::int32_t b) { return weight(a) != weight(b) ? weight(a) > weight(b) : a < b; });
  double sum = 0;
  std::size_t n = 0;
  while (n < kept_ && sum < wanted) sum += static_cast<double>(weight(order_[n++]));
  kept_ = std::max<std::size_t>(n, 1);
}

void Sampler::keep_min_p() noexcept {
  float most = 0;
  for (std::size_t i = 0; i < kept_; ++i) most = std::max(most, weight(order_[i]));
  const auto* end = std::partition(order_.begin(), order_.begin() + kept_,
                                   [&](std::int32_t id) { return weight(id) >= most * options_.min_p; });
  kept_ = static_cast<std::size_t>(end - order_.begin());
}

// The candidates' order is by id here, however they were found: std::partition and nth_element promise none.
std::int32_t Sampler::draw() noexcept {
  if (!std::is_sorted(order_.begin(), order_.begin() + kept_)) std::sort(order_.begin(), order_.begin() + kept_);
  float uniform = 0;
  kernels::active().random_uniform(&uniform, 1, options_.seed, step_++);
  double left = static_cast<double>(uniform) * mass();
  for (std::size_t i = 0; i + 1 < kept_; ++i) {
    left -= static_cast<double>(weight(order_[i]));
    if (left < 0) return order_[i];
  }
  return order_[kept_ ? kept_ - 1 : 0];
}

// Drops what surprises by more than the bound, draws, and moves the bound by how far the surprise of what was drawn is from tau.
std::int32_t Sampler::mirostat() noexcept {
  const double total = mass();
  const auto* likeliest = std::max_element(order_.begin(), order_.end(),
                                           [&](std::int32_t a, std::int32_t b) { return weight(a) < weight(b); });
  const std::int32_t best = *likeliest;
  const double bound = total * std::exp2(-surprise_);
  const auto* end = std::partition(order_.begin(), order_.end(), [&](std::int32_t id) {
    return id == best || static_cast<double>(weight(id)) >= bound;
  });
  kept_ = static_cast<std::size_t>(end - order_.begin());
  const std::int32_t id = draw();
  const double surprise = std::log2(mass() / static_cast<double>(weight(id)));
  surprise_ -= static_cast<double>(options_.mirostat_eta) * (surprise - static_cast<double>(options_.mirostat_tau));
  return id;
}

}  // namespace qorus::llm
