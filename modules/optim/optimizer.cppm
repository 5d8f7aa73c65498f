// Optimizers. One type for all of them, so that options, checkpoints and loops need no templates.
export module qorus.optim:optimizer;
import qorus.std;
import qorus.nn;

export namespace qorus {

// Stochastic gradient descent. b = momentum b + (1 - dampening) g, b = g in the first step; p -= lr (nesterov ? g + momentum b : b),
// where g includes weight_decay p + l1 sign(p).
struct SgdOptions {
  float lr = 0.01f;
  float momentum = 0, dampening = 0;
  bool nesterov = false;
  float weight_decay = 0, l1 = 0;
};

// Kingma & Ba 2015; m = b1 m + (1-b1) g, v = b2 v + (1-b2) g^2, p -= lr m^ / (sqrt(v^) + eps) with m^, v^ corrected for their start.
struct AdamOptions {
  float lr = 1e-3f;
  float beta1 = 0.9f, beta2 = 0.999f, eps = 1e-8f;
  float weight_decay = 0;  // adam: added to the gradient; adamw: p -= lr weight_decay p (Loshchilov & Hutter 2019)
  float l1 = 0;            // l1 sign(p), added to the gradient
  // m and v are kept in bf16, half the memory. They are rounded up or down at random (by a counter: the same bits in every run, on any
  // number of threads) with chances that make the mean exact, so that changes smaller than a bf16's last digit are not lost.
  bool bf16_moments = false;
};

// Parameters that are treated apart: those whose name fits the pattern (* stands for any characters) and whose rank is at most this.
struct ParameterGroup {
  std::string_view pattern = "*";  // must outlive the optimizer's making: a literal
  int max_rank = k_max_rank;
  float lr_scale = 1;  // of the learning rate
  bool decay = true;   // false: no weight decay and no L1
};

// An optimizer's formula and numbers, not yet tied to a model.
struct OptimizerSpec {
  enum class Kind : std::uint8_t { sgd, adam, adamw };
  Kind kind = Kind::adamw;
  SgdOptions sgd = {};
  AdamOptions adam = {};
  // Of the groups that fit a parameter the first one counts; what fits none is treated as the numbers above say.
  static constexpr std::size_t k_most_groups = 6;
  std::array<ParameterGroup, k_most_groups> groups = {};
  std::size_t group_count = 0;

  [[nodiscard]] float lr() const noexcept { return kind == Kind::sgd ? sgd.lr : adam.lr; }
};

// An optimizer of one model: its moments, one slab each, laid out as the model's parameters. Movable.
class Optimizer {
 public:
  Optimizer(const OptimizerSpec& spec, const nn::Parameters& model) noexcept;

  // Updates the model's parameters in place from the gradients, scaled and limited as they say. One pass, no allocation; parallel.
  // Errors: out_of_memory (the moments could not be had), invalid_argument (numbers out of range; another model), stale_tensor,
  // not_found (the loss depends on none of the parameters).
  [[nodiscard]] Status step(nn::Parameters& model, const Gradients& gradients) noexcept;
  // Backward and step in one, `loss.and_then([&](const Tensor& l) { return opt.step(*model, l); })`: each parameter is updated as soon as its
  // gradient is whole, and that is not kept, so that a step takes the memory of a few gradients instead of all. The same bits. For what
  // needs all of them first (clip_norm, several batches) there is the other step. Errors: those of backward and of step; after one of
  // these only (out_of_memory, stale_tensor and what a rule of one's own gives) some parameters may have been updated.
  [[nodiscard]] Status step(nn::Parameters& model, const Tensor& loss) noexcept;
  // As the first from gradients that lie elsewhere, laid out as the model's slab (sums over several tapes, or over several workers):
  // each is multiplied by `scale` and then limited to [-limit, limit]. Errors: out_of_memory, invalid_argument.
  [[nodiscard]] Status step(nn::Parameters& model, std::span<const float> gradients, const Context& context,
                            float scale = 1, float limit = std::numeric_limits<float>::infinity()) noexcept;

  [[nodiscard]] const OptimizerSpec& spec() const noexcept { return spec_; }
  [[nodiscard]] std::uint64_t steps() const noexcept { return steps_; }
  void set_lr(float lr) noexcept { (spec_.kind == OptimizerSpec::Kind::sgd ? spec_.sgd.lr : spec_.adam.lr) = lr; }
  // The state, for checkpoints: first and second moments (momentum and nothing for SGD); empty where they are kept in bf16, which
  // short_moment gives.
  [[nodiscard]] std::span<float> moment(int i) noexcept;
  [[nodiscard]] std::span<std::uint16_t> short_moment(int i) noexcept;
  void set_steps(std::uint64_t steps) noexcept { steps_ = steps; }

 private:
  // Neighbours in the slab that are treated alike.
  struct Range {
    std::size_t begin, end;
    float lr_scale;
    bool decay;
  };
  [[nodiscard]] Status divide(const nn::Parameters& model) noexcept;
  [[nodiscard]] Status check_model(const nn::Parameters& model) const noexcept;
  // Updates parameters begin to end - 1 of a range; `gradient` is that of the first of them.
  void update(const Context& context, const Range& range, std::size_t begin, std::size_t end, float* parameters,
              const float* gradient, float scale, float limit) noexcept;
  [[nodiscard]] bool short_moments() const noexcept {
    return spec_.kind != OptimizerSpec::Kind::sgd && spec_.adam.bf16_moments;
  }

  OptimizerSpec spec_;
  List<Range> ranges_;
  Slab moments_[2];
  std::size_t floats_ = 0;
  std::uint64_t steps_ = 0;
  Status ready_;
};

namespace optim {
[[nodiscard]] inline OptimizerSpec sgd(const SgdOptions& options = {}) noexcept {
  return {.kind = OptimizerSpec::Kind::sgd, .sgd = options};
}
[[nodiscard]] inline OptimizerSpec adam(const AdamOptions& options = {}) noexcept {
  return {.kind = OptimizerSpec::Kind::adam, .adam = options};
}
// weight_decay is 0.01 unless set.
struct AdamWOptions {
  float lr = 1e-3f;
  float beta1 = 0.9f, beta2 = 0.999f, eps = 1e-8f;
  float weight_decay = 0.01f;
  float l1 = 0;
  bool bf16_moments = false;
};
[[nodiscard]] inline OptimizerSpec adamw(const AdamWOptions& o = {}) noexcept {
  return {.kind = OptimizerSpec::Kind::adamw,
          .adam = {o.lr, o.beta1, o.beta2, o.eps, o.weight_decay, o.l1, o.bf16_moments}};
}
[[nodiscard]] inline Optimizer sgd(const nn::Parameters& model, const SgdOptions& options = {}) noexcept {
  return {sgd(options), model};
}
[[nodiscard]] inline Optimizer adam(const nn::Parameters& model, const AdamOptions& options = {}) noexcept {
  return {adam(options), model};
}
[[nodiscard]] inline Optimizer adamw(const nn::Parameters& model, const AdamWOptions& options = {}) noexcept {
  return {adamw(options), model};
}
// `optim::adamw() | optim::group({.pattern = "head.*", .lr_scale = 10})`. More than six are an error of the optimizer.
[[nodiscard]] constexpr ParameterGroup group(const ParameterGroup& group) noexcept { return group; }
// Biases and the scales of norms: `optim::adamw() | optim::no_decay_on_vectors()`.
[[nodiscard]] constexpr ParameterGroup no_decay_on_vectors() noexcept { return {.max_rank = 1, .decay = false}; }
}  // namespace optim

[[nodiscard]] constexpr OptimizerSpec operator|(OptimizerSpec spec, const ParameterGroup& group) noexcept {
  if (spec.group_count < OptimizerSpec::k_most_groups) spec.groups[spec.group_count] = group;
  ++spec.group_count;
  return spec;
}

}  // namespace qorus
