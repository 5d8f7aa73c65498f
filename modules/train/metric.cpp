// Bodies of qorus.train:metric.
module qorus.train;
import qorus.std;

namespace qorus::train {
namespace {

using Kind = Metric::Kind;

double share(std::uint64_t part, std::uint64_t whole) noexcept {
  return whole ? static_cast<double>(part) / static_cast<double>(whole) : 0;
}

// tp, fp, fn of one class, or of all.
struct Counts {
  std::uint64_t hit = 0, wrongly = 0, missed = 0;
  [[nodiscard]] double of(Kind kind) const noexcept {
    if (kind == Kind::precision) return share(hit, hit + wrongly);
    if (kind == Kind::recall) return share(hit, hit + missed);
    return share(2 * hit, 2 * hit + wrongly + missed);
  }
};

}  // namespace

std::string_view Metric::name() const noexcept {
  switch (kind) {
    case Kind::accuracy: return "accuracy";
    case Kind::top_k: return "top_k";
    case Kind::precision: return "precision";
    case Kind::recall: return "recall";
    case Kind::f1: return "f1";
    case Kind::roc_auc: return "roc_auc";
    case Kind::mae: return "mae";
    case Kind::rmse: return "rmse";
    case Kind::r2: return "r2";
    case Kind::perplexity: return "perplexity";
  }
  return "";
}

void Meter::clear() noexcept {
  loss_ = absolute_ = square_ = target_ = target_square_ = 0;
  examples_ = correct_ = counted_ = numbers_ = 0;
  classifier_ = true;
  within_ = {};
  std::fill(confusion_.counts_.begin(), confusion_.counts_.end(), 0);
  scores_.clear();
}

double Meter::accuracy() const noexcept { return classifier_ && counted_ ? share(correct_, counted_) : -1; }

Status Meter::add(const Tensor& output, const Tensor& target, float loss) noexcept {
  const auto rows = static_cast<std::size_t>(target.dim(0));
  loss_ += static_cast<double>(loss) * static_cast<double>(rows);
  examples_ += rows;
  const bool classes =
      target.dtype() == DType::i32 && output.rank() >= 1 && output.shape().without(-1) == target.shape();
  classifier_ = classifier_ && classes;
  if (classes) return add_classes(output, target);
  const bool numbers = target.dtype() == DType::f32 && output.dtype() == DType::f32 && output.numel() == target.numel();
  for (std::size_t i = 0; i < metrics_.count; ++i) {
    const Kind kind = metrics_.list[i].kind;
    const bool fits = kind == Kind::perplexity || (numbers && kind >= Kind::roc_auc);
    if (!fits) {
      return fail(Errc::invalid_argument, "metric", "these outputs and targets do not have it",
                  metrics_.list[i].name());
    }
  }
  return numbers && metrics_.count ? add_numbers(output, target) : Status{};
}

Status Meter::add_classes(const Tensor& output, const Tensor& target) noexcept {
  const auto classes = static_cast<std::size_t>(output.dim(-1));
  auto best = ops::argmax(ops::detach(output));
  if (!best) return fail(best.error());
  auto predicted = best->values<std::int32_t>();
  auto wanted = target.values<std::int32_t>();
  if (!predicted || !wanted) return fail(predicted ? wanted.error() : predicted.error());
  if (wants_confusion_ && classes <= k_most_classes && confusion_.classes_ != classes) {
    confusion_.classes_ = classes;
    if (auto room = confusion_.counts_.resize(classes * classes); !room) return room;
  }
  for (std::size_t i = 0; i < wanted->size(); ++i) {
    const auto right = static_cast<std::size_t>((*wanted)[i]), guess = static_cast<std::size_t>((*predicted)[i]);
    if (right >= classes) continue;  // padding and the like
    ++counted_;
    correct_ += right == guess;
    if (confusion_.classes_ == classes) ++confusion_.counts_[right * classes + guess];
  }
  for (std::size_t m = 0; m < metrics_.count; ++m) {
    const Metric& metric = metrics_.list[m];
    if (metric.kind == Kind::mae || metric.kind == Kind::rmse || metric.kind == Kind::r2)
      return fail(Errc::invalid_argument, "metric", "targets that are classes do not have it", metric.name());
    const bool matrix = metric.kind == Kind::precision || metric.kind == Kind::recall || metric.kind == Kind::f1;
    if ((matrix && classes > k_most_classes) || (metric.kind == Kind::roc_auc && classes != 2))
      return fail(Errc::invalid_argument, "metric", "these outputs have too many classes for it", metric.name());
    if (metric.kind != Kind::top_k && metric.kind != Kind::roc_auc) continue;
    auto values = ops::contiguous(ops::detach(output));
    if (!values) return fail(values.error());
    for (std::size_t i = 0; i < wanted->size(); ++i) {
      const float* row = values->f32() + i * classes;
      const auto right = static_cast<std::size_t>((*wanted)[i]);
      if (right >= classes) continue;
      if (metric.kind == Kind::roc_auc) {
        if (auto added = add_score(row[1] - row[0], right == 1); !added) return added;
      } else {
        const auto above = std::count_if(row, row + classes, [&](float other) { return other > row[right]; });
        within_[m] += above < metric.k;
      }
    }
  }
  return {};
}

Status Meter::add_numbers(const Tensor& output, const Tensor& target) noexcept {
  auto x = ops::contiguous(ops::detach(output));
  auto t = target.values<float>();
  if (!x || !t) return fail(x ? t.error() : x.error());
  for (std::size_t i = 0; i < t->size(); ++i) {
    const double value = static_cast<double>((*t)[i]), difference = static_cast<double>(x->f32()[i]) - value;
    absolute_ += std::abs(difference);
    square_ += difference * difference;
    target_ += value;
    target_square_ += value * value;
    if (wants_scores_) {
      if (auto added = add_score(x->f32()[i], value > 0.5); !added) return added;
    }
  }
  numbers_ += t->size();
  return {};
}

// A score that is no number ranks below all others.
Status Meter::add_score(float score, bool positive) noexcept {
  return scores_.push({std::isnan(score) ? -std::numeric_limits<float>::infinity() : score, positive});
}

double Meter::value(std::size_t i) noexcept {
  const Metric& metric = metrics_.list[i];
  const double n = static_cast<double>(std::max<std::size_t>(numbers_, 1));
  switch (metric.kind) {
    case Kind::accuracy: return accuracy();
    case Kind::top_k: return share(within_[i], counted_);
    case Kind::precision:
    case Kind::recall:
    case Kind::f1: return averaged(metric);
    case Kind::roc_auc: return area();
    case Kind::mae: return absolute_ / n;
    case Kind::rmse: return std::sqrt(square_ / n);
    case Kind::r2: {
      const double spread = target_square_ - target_ * target_ / n;
      return spread > 0 ? 1 - square_ / spread : 0;
    }
    case Kind::perplexity: return std::exp(loss());
  }
  return 0;
}

double Meter::averaged(const Metric& metric) const noexcept {
  const std::size_t classes = confusion_.classes_;
  Counts all;
  double sum = 0;
  std::size_t seen = 0;
  for (std::size_t c = 0; c < classes; ++c) {
    Counts one{.hit = confusion_.at(c, c)};
    for (std::size_t other = 0; other < classes; ++other) {
      if (other == c) continue;
      one.wrongly += confusion_.at(other, c);
      one.missed += confusion_.at(c, other);
    }
    all.hit += one.hit;
    all.wrongly += one.wrongly;
    all.missed += one.missed;
    if (one.hit + one.wrongly + one.missed == 0) continue;
    sum += one.of(metric.kind);
    ++seen;
  }
  if (metric.average == Average::micro) return all.of(metric.kind);
  return seen ? sum / static_cast<double>(seen) : 0;
}

// By ranks: each positive counts the negatives below it, and half of those that score the same.
double Meter::area() noexcept {
  std::sort(scores_.begin(), scores_.end(), [](const Score& a, const Score& b) { return a.score < b.score; });
  double above = 0, negatives = 0, positives = 0;
  for (std::size_t i = 0; i < scores_.size();) {
    std::size_t end = i;
    double here_positive = 0, here_negative = 0;
    for (; end < scores_.size() && !(scores_[i].score < scores_[end].score); ++end)
      (scores_[end].positive ? here_positive : here_negative) += 1;
    above += here_positive * (negatives + here_negative / 2);
    positives += here_positive;
    negatives += here_negative;
    i = end;
  }
  return positives > 0 && negatives > 0 ? above / (positives * negatives) : 0.5;
}

}  // namespace qorus::train
