// Metrics: what to measure besides the loss, as plain values, and the meter that gathers them batch by batch.
export module qorus.train:metric;
import qorus.std;
import qorus.nn;

export namespace qorus::train {

// How the classes' precision, recall or F1 become one number: from the counts of all classes together, or the mean over the classes
// that occur (as a target or as a prediction).
enum class Average : std::uint8_t { micro, macro };

// Of classifiers (outputs […, classes], targets […] i32; targets outside [0, classes) are left out: padding, ignored tokens):
//   accuracy    share of targets whose largest output is theirs; of tokens where targets are tokens
//   top_k       share of targets whose output is among the k largest
//   precision   tp / (tp + fp), recall  tp / (tp + fn), f1  2 tp / (2 tp + fp + fn); a quotient 0 / 0 is 0
// Of two classes (two outputs, or one and targets 0 and 1):
//   roc_auc     probability that a positive scores above a negative, ties a half (Hanley & McNeil 1982)
// Of numbers (outputs and targets of one shape):
//   mae  mean |x - t|    rmse  sqrt(mean (x - t)^2)    r2  1 - sum (x - t)^2 / sum (t - mean t)^2
// Of any: perplexity  e^(mean loss)
struct Metric {
  enum class Kind : std::uint8_t { accuracy, top_k, precision, recall, f1, roc_auc, mae, rmse, r2, perplexity };
  Kind kind = Kind::accuracy;
  int k = 5;
  Average average = Average::macro;
  [[nodiscard]] std::string_view name() const noexcept;  // "accuracy", "f1", …
  [[nodiscard]] bool larger_is_better() const noexcept {
    return kind != Kind::mae && kind != Kind::rmse && kind != Kind::perplexity;
  }
};

}  // namespace qorus::train

export namespace qorus::metric {
using train::Average;
using train::Metric;
[[nodiscard]] constexpr Metric accuracy() noexcept { return {}; }
[[nodiscard]] constexpr Metric top_k(int k = 5) noexcept { return {.kind = Metric::Kind::top_k, .k = k}; }
[[nodiscard]] constexpr Metric precision(Average average = Average::macro) noexcept {
  return {.kind = Metric::Kind::precision, .average = average};
}
[[nodiscard]] constexpr Metric recall(Average average = Average::macro) noexcept {
  return {.kind = Metric::Kind::recall, .average = average};
}
[[nodiscard]] constexpr Metric f1(Average average = Average::macro) noexcept {
  return {.kind = Metric::Kind::f1, .average = average};
}
[[nodiscard]] constexpr Metric roc_auc() noexcept { return {.kind = Metric::Kind::roc_auc}; }
[[nodiscard]] constexpr Metric mae() noexcept { return {.kind = Metric::Kind::mae}; }
[[nodiscard]] constexpr Metric rmse() noexcept { return {.kind = Metric::Kind::rmse}; }
[[nodiscard]] constexpr Metric r2() noexcept { return {.kind = Metric::Kind::r2}; }
[[nodiscard]] constexpr Metric perplexity() noexcept { return {.kind = Metric::Kind::perplexity}; }
}  // namespace qorus::metric

export namespace qorus::train {

// Up to 8 metrics; more are an error of whoever measures them.
struct Metrics {
  static constexpr std::size_t k_most = 8;
  std::array<Metric, k_most> list{};
  std::size_t count = 0;
  bool too_many = false;
  constexpr Metrics() noexcept = default;
  constexpr Metrics(std::initializer_list<Metric> metrics) noexcept : too_many(metrics.size() > k_most) {
    for (const Metric& one : metrics) {
      if (count < k_most) list[count++] = one;
    }
  }
};

// How often class `target` was taken for class `predicted`.
class Confusion {
 public:
  [[nodiscard]] std::size_t classes() const noexcept { return classes_; }
  [[nodiscard]] std::uint64_t at(std::size_t target, std::size_t predicted) const noexcept {
    return counts_[target * classes_ + predicted];
  }

 private:
  friend class Meter;
  std::size_t classes_ = 0;
  List<std::uint64_t> counts_;
};

// Gathers outputs and targets; means come out at any moment. After the first batch, and a first epoch for roc_auc, it allocates nothing.
class Meter {
 public:
  static constexpr std::size_t k_most_classes = 1024;  // that a confusion matrix is kept for

  Meter() noexcept = default;
  explicit Meter(const Metrics& metrics, bool confusion = false) noexcept
      : metrics_(metrics), wants_confusion_(confusion) {
    for (std::size_t i = 0; i < metrics.count; ++i) {
      const auto kind = metrics.list[i].kind;
      using enum Metric::Kind;
      wants_confusion_ = wants_confusion_ || kind == precision || kind == recall || kind == f1;
      wants_scores_ = wants_scores_ || kind == roc_auc;
    }
  }
  // Takes in one batch; reads in the outputs' workspace (open frame). `loss` is its mean, over dim 0 of target.
  // Errors: invalid_argument (a metric that these outputs and targets do not have, by name), invalid_dtype, stale_tensor, out_of_memory.
  [[nodiscard]] Status add(const Tensor& output, const Tensor& target, float loss) noexcept;
  void clear() noexcept;  // for the next epoch; memory stays

  [[nodiscard]] double loss() const noexcept { return examples_ ? loss_ / static_cast<double>(examples_) : 0; }
  [[nodiscard]] double accuracy() const noexcept;  // -1: no classifier
  [[nodiscard]] std::size_t examples() const noexcept { return examples_; }
  // The i-th metric. Sorts scores for roc_auc.
  [[nodiscard]] double value(std::size_t i) noexcept;
  [[nodiscard]] const Confusion& confusion() const noexcept { return confusion_; }
  [[nodiscard]] Confusion take_confusion() && noexcept { return std::move(confusion_); }

  // The sums of loss and accuracy, for checkpoints.
  struct Sums {
    double loss = 0;
    std::uint64_t examples = 0, correct = 0, counted = 0;
    bool classifier = true;
  };
  [[nodiscard]] Sums sums() const noexcept { return {loss_, examples_, correct_, counted_, classifier_}; }
  void set_sums(const Sums& sums) noexcept {
    loss_ = sums.loss;
    examples_ = sums.examples;
    correct_ = sums.correct;
    counted_ = sums.counted;
    classifier_ = sums.classifier;
  }

 private:
  struct Score {
    float score;
    bool positive;
  };
  [[nodiscard]] Status add_classes(const Tensor& output, const Tensor& target) noexcept;
  [[nodiscard]] Status add_numbers(const Tensor& output, const Tensor& target) noexcept;
  [[nodiscard]] Status add_score(float score, bool positive) noexcept;
  [[nodiscard]] double averaged(const Metric& metric) const noexcept;
  [[nodiscard]] double area() noexcept;

  Metrics metrics_;
  bool wants_confusion_ = false, wants_scores_ = false;
  double loss_ = 0, absolute_ = 0, square_ = 0, target_ = 0, target_square_ = 0;
  std::size_t examples_ = 0, correct_ = 0, counted_ = 0, numbers_ = 0;
  bool classifier_ = true;
  std::array<std::size_t, Metrics::k_most> within_{};  // of each top_k
  Confusion confusion_;
  List<Score> scores_;
};

}  // namespace qorus::train
