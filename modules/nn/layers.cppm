// Layers: value types with public members, a list of them, and a call operator. Shapes are inferred when a model is built.
export module qorus.nn:layers;
import qorus.std;
import qorus.ops;
import :param;
import :loss;

export namespace qorus::nn {

// Anything that makes a tensor of a tensor. No base class, no registration.
template <class L>
concept Layer = requires(const L& layer, const Tensor& x) {
  { layer(x) } -> std::same_as<Result<Tensor>>;
};

// y = x weight^T + bias; x: […, in], y: […, out]. weight: [out, in], bias: [out].
struct Linear {
  static constexpr std::string_view k_name = "linear";
  Param weight{.packs = true, .alone = true}, bias{.role = Role::bias};
  std::int64_t out_features = 0;
  bool has_bias = true;

  static constexpr auto fields() { return nn::fields("weight", &Linear::weight, "bias", &Linear::bias); }
  template <class Self, class F>
  static void settings(Self& self, F&& f) {
    f("out_features", self.out_features);
    f("bias", self.has_bias);
  }
  [[nodiscard]] Result<Tensor> operator()(const Tensor& x) const noexcept { return with(x, Activation::none); }
  // With an activation fused in: what a chain makes of `linear | relu`.
  [[nodiscard]] Result<Tensor> with(const Tensor& x, Activation activation) const noexcept {
    return to(x, out_features, {.activation = activation});
  }
  // To a width that the caller knows: for layers whose own width is that of their input. parts: an activation, a residual.
  [[nodiscard]] Result<Tensor> to(const Tensor& x, std::int64_t width, ops::LinearParts parts = {}) const noexcept;
  // The same of activation(gate) up.
  [[nodiscard]] Result<Tensor> gated(const Tensor& gate, const Tensor& up, std::int64_t width,
                                     ops::LinearParts parts) const noexcept;
  // The same of activation(x).
  [[nodiscard]] Result<Tensor> after(const Tensor& x, std::int64_t width, ops::LinearParts parts) const noexcept;
  // loss((*this)(x)), as nn::loss_of has it.
  [[nodiscard]] Result<Tensor> loss(const Tensor& x, const BoundLoss& loss) const noexcept;
};
struct LinearOptions {
  bool bias = true;
};
[[nodiscard]] inline Linear linear(std::int64_t out_features, const LinearOptions& options = {}) noexcept {
  return {.out_features = out_features, .has_bias = options.bias};
}

// y = weight[ids]; ids: […] i32, weight: [vocab, d_model], y: […, d_model] in f32, whatever the weight is stored in.
struct Embedding {
  static constexpr std::string_view k_name = "embedding";
  Param weight{.packs = true};
  std::int64_t vocab = 0, d_model = 0;

  static constexpr auto fields() { return nn::fields("weight", &Embedding::weight); }
  template <class Self, class F>
  static void settings(Self& self, F&& f) {
    f("vocab", self.vocab);
    f("d_model", self.d_model);
  }
  [[nodiscard]] Result<Tensor> operator()(const Tensor& ids) const noexcept { return rows(ids, false); }
  // transient: gone once with_transients ends.
  [[nodiscard]] Result<Tensor> rows(const Tensor& ids, bool transient) const noexcept {
    return ops::cast(ops::take(use(weight, Shape{vocab, d_model}, ids, k_name.data()), ids, 0, transient), DType::f32);
  }
  // All of its rows, [vocab, d_model] in f32, beside ids.
  [[nodiscard]] Result<Tensor> table(const Tensor& ids) const noexcept {
    return ops::cast(use(weight, Shape{vocab, d_model}, ids, k_name.data()), DType::f32);
  }
  // x weight^T, [..., d_model] to [..., vocab]: the same weight as a language model's head.
  [[nodiscard]] Result<Tensor> logits(const Tensor& x) const noexcept;
  // loss(logits(x)), as nn::loss_of has it.
  [[nodiscard]] Result<Tensor> logits_loss(const Tensor& x, const BoundLoss& loss) const noexcept;
};
[[nodiscard]] inline Embedding embedding(std::int64_t vocab, std::int64_t d_model) noexcept {
  return {.vocab = vocab, .d_model = d_model};
}

// (x - mean) / sqrt(var + eps) weight + bias over the last axis.
struct LayerNorm {
  static constexpr std::string_view k_name = "layer_norm";
  static constexpr bool k_remakes = true;
  Param weight{.role = Role::gain}, bias{.role = Role::bias};
  float eps = 1e-5f;
  bool has_bias = true;

  static constexpr auto fields() { return nn::fields("weight", &LayerNorm::weight, "bias", &LayerNorm::bias); }
  template <class Self, class F>
  static void settings(Self& self, F&& f) {
    f("eps", self.eps);
    f("bias", self.has_bias);
  }
  [[nodiscard]] Result<Tensor> operator()(const Tensor& x) const noexcept;
};
struct LayerNormOptions {
  float eps = 1e-5f;
  bool bias = true;
};
[[nodiscard]] inline LayerNorm layer_norm(const LayerNormOptions& options = {}) noexcept {
  return {.eps = options.eps, .has_bias = options.bias};
}

// x / sqrt(mean(x^2) + eps) weight over the last axis.
struct RmsNorm {
  static constexpr std::string_view k_name = "rms_norm";
  static constexpr bool k_remakes = true;
  Param weight{.role = Role::gain};
  float eps = 1e-5f;

  static constexpr auto fields() { return nn::fields("weight", &RmsNorm::weight); }
  template <class Self, class F>
  static void settings(Self& self, F&& f) {
    f("eps", self.eps);
  }
  [[nodiscard]] Result<Tensor> operator()(const Tensor& x) const noexcept;
};
[[nodiscard]] inline RmsNorm rms_norm(float eps = 1e-5f) noexcept { return {.eps = eps}; }

// Element-wise activations, which a preceding linear layer takes over.
template <Activation A>
struct Activate {
  static constexpr Activation k_activation = A;
  static constexpr std::string_view k_name = A == Activation::relu        ? "relu"
                                             : A == Activation::gelu      ? "gelu"
                                             : A == Activation::gelu_tanh ? "gelu_tanh"
                                             : A == Activation::silu      ? "silu"
                                             : A == Activation::sigmoid   ? "sigmoid"
                                                                          : "tanh";
  [[nodiscard]] Result<Tensor> operator()(const Tensor& x) const noexcept { return ops::activate(x, A); }
};
[[nodiscard]] constexpr Activate<Activation::relu> relu() noexcept { return {}; }
[[nodiscard]] constexpr Activate<Activation::gelu> gelu() noexcept { return {}; }
[[nodiscard]] constexpr Activate<Activation::gelu_tanh> gelu_tanh() noexcept { return {}; }
[[nodiscard]] constexpr Activate<Activation::silu> silu() noexcept { return {}; }
[[nodiscard]] constexpr Activate<Activation::sigmoid> sigmoid() noexcept { return {}; }
[[nodiscard]] constexpr Activate<Activation::tanh> tanh() noexcept { return {}; }

struct LeakyRelu {
  static constexpr std::string_view k_name = "leaky_relu";
  float slope = 0.01f;
  [[nodiscard]] Result<Tensor> operator()(const Tensor& x) const noexcept { return ops::leaky_relu(x, slope); }
};
[[nodiscard]] constexpr LeakyRelu leaky_relu(float slope = 0.01f) noexcept { return {slope}; }

struct Elu {
  static constexpr std::string_view k_name = "elu";
  float a = 1;
  [[nodiscard]] Result<Tensor> operator()(const Tensor& x) const noexcept { return ops::elu(x, a); }
};
[[nodiscard]] constexpr Elu elu(float a = 1) noexcept { return {a}; }

struct Softplus {
  static constexpr std::string_view k_name = "softplus";
  [[nodiscard]] Result<Tensor> operator()(const Tensor& x) const noexcept { return ops::softplus(x); }
};
[[nodiscard]] constexpr Softplus softplus() noexcept { return {}; }

struct Softmax {
  static constexpr std::string_view k_name = "softmax";
  int axis = -1;
  template <class Self, class F>
  static void settings(Self& self, F&& f) {
    f("axis", self.axis);
  }
  [[nodiscard]] Result<Tensor> operator()(const Tensor& x) const noexcept { return ops::softmax(x, axis); }
};
[[nodiscard]] constexpr Softmax softmax(int axis = -1) noexcept { return {axis}; }

struct LogSoftmax {
  static constexpr std::string_view k_name = "log_softmax";
  int axis = -1;
  template <class Self, class F>
  static void settings(Self& self, F&& f) {
    f("axis", self.axis);
  }
  [[nodiscard]] Result<Tensor> operator()(const Tensor& x) const noexcept { return ops::log_softmax(x, axis); }
};
[[nodiscard]] constexpr LogSoftmax log_softmax(int axis = -1) noexcept { return {axis}; }

// While a tape records, each element is 0 with probability p and x / (1 - p) otherwise; without one, x itself.
struct Dropout {
  static constexpr std::string_view k_name = "dropout";
  float p = 0.5f;
  template <class Self, class F>
  static void settings(Self& self, F&& f) {
    f("p", self.p);
  }
  [[nodiscard]] Result<Tensor> operator()(const Tensor& x) const noexcept { return ops::dropout(x, p); }
};
[[nodiscard]] constexpr Dropout dropout(float p = 0.5f) noexcept { return {p}; }

// Each example made a row: [batch, …] to [batch, rest]. `first` is the first axis that is joined.
struct Flatten {
  static constexpr std::string_view k_name = "flatten";
  int first = 1;
  template <class Self, class F>
  static void settings(Self& self, F&& f) {
    f("first", self.first);
  }
  [[nodiscard]] Result<Tensor> operator()(const Tensor& x) const noexcept { return ops::flatten(x, first); }
};
[[nodiscard]] constexpr Flatten flatten(int first = 1) noexcept { return {first}; }

// Each example in another shape: [batch, …] to [batch, extents…]; one extent may be -1.
struct Reshape {
  static constexpr std::string_view k_name = "reshape";
  std::array<std::int64_t, k_max_rank> extents{};
  std::size_t count = 0;
  template <class Self, class F>
  static void settings(Self& self, F&& f) {
    constexpr const char* names[] = {"0", "1", "2", "3", "4", "5"};
    f("count", self.count);
    for (std::size_t d = 0; d < k_max_rank; ++d) f(names[d], self.extents[d]);
  }
  [[nodiscard]] Result<Tensor> operator()(const Tensor& x) const noexcept;
};
[[nodiscard]] Reshape reshape(std::initializer_list<std::int64_t> extents) noexcept;

}  // namespace qorus::nn
