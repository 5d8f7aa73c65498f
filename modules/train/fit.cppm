// fit, evaluate, predict: any model over any examples.
module;
#include <cstddef>
#include <cstdint>
#include <span>
#include <utility>
export module qorus.train:fit;
import qorus.data;
import qorus.nn;
import qorus.optim;
import :callback;

export namespace qorus::train {

struct FitOptions {
  Loss loss = loss::cross_entropy();
  OptimizerSpec optimizer = optim::adamw();
  Schedule schedule = schedule::constant();  // of the learning rate, over all epochs
  int epochs = 1;
  std::size_t batch = 32;
  std::uint64_t seed = 0;  // of initial weights, order of examples and dropout
  float clip_norm = 0;     // the gradients' largest norm; 0: no limit
  int threads = cpu_count();
  std::size_t scratch = 0;  // bytes of workspace; 0: as much as a step takes, planned from the shapes
  Callbacks callbacks = {};
};

// The epochs of a run, in order, and how it ended.
struct History {
  List<EpochRecord> epochs;
  std::size_t steps = 0;
  double seconds = 0;
  bool stopped_early = false;
  std::size_t scratch_high_water = 0;  // bytes
};

// A trained model and its history.
template <nn::Layer L>
struct Fit {
  nn::Model<L> model;
  History history;
};

// A model as the loops see it: something that makes a tensor of a tensor, and its parameters.
struct ModelRef {
  const void* self = nullptr;
  Result<Tensor> (*call)(const void* self, const Tensor& x) noexcept = nullptr;
  nn::Parameters* parameters = nullptr;
  [[nodiscard]] Result<Tensor> operator()(const Tensor& x) const noexcept { return call(self, x); }
};
template <nn::Layer L>
[[nodiscard]] ModelRef model_ref(nn::Model<L>& model) noexcept {
  return {&model,
          [](const void* self, const Tensor& x) noexcept { return (*static_cast<const nn::Model<L>*>(self))(x); },
          &model};
}

// Trains a model in place. `validation` may have no examples. The same seed gives the same bits, whatever the number of threads.
// Errors: those of the examples, the layers and the loss; diverged (a loss that is not finite); invalid_argument; out_of_memory.
[[nodiscard]] Result<History> run_fit(const ModelRef& model, const data::Examples& train,
                                      const data::Examples& validation, const FitOptions& options) noexcept;

// The same for a model that was built.
template <nn::Layer L>
[[nodiscard]] Result<History> fit(nn::Model<L>& model, const data::Split& data,
                                  const FitOptions& options = {}) noexcept {
  return run_fit(model_ref(model), data.train, data.test.size() ? data.test.examples() : data::Examples{}, options);
}
template <nn::Layer L>
[[nodiscard]] Result<History> fit(nn::Model<L>& model, const data::Examples& train,
                                  const FitOptions& options = {}) noexcept {
  return run_fit(model_ref(model), train, {}, options);
}
// Builds the layers for the data's shape (Kaiming's initialisation from the seed), trains on data.train, validates on data.test.
template <nn::Layer L>
[[nodiscard]] Result<Fit<L>> fit(L layers, const data::Split& data, const FitOptions& options = {}) noexcept {
  const DType dtype = data.train.inputs().dtype() == DType::i32 ? DType::i32 : DType::f32;
  auto model = nn::build(std::move(layers), data.train.input_shape(), init::kaiming(options.seed), {.input = dtype});
  if (!model) return fail(model.error());
  auto history = fit(*model, data, options);
  if (!history) return fail(history.error());
  return Fit<L>{std::move(*model), std::move(*history)};
}
template <nn::Layer L>
[[nodiscard]] Result<Fit<L>> fit(L layers, const Result<data::Split>& data, const FitOptions& options = {}) noexcept {
  if (!data) return fail(data.error());
  return fit(std::move(layers), *data, options);
}

struct EvaluateOptions {
  Loss loss = loss::cross_entropy();
  std::size_t batch = 256;
  int threads = cpu_count();
};
struct Evaluation {
  double loss = 0;
  double accuracy = -1;  // share of rows whose largest output is the target class; -1: the targets are no classes
  std::size_t examples = 0;
};
// Errors: those of the examples, the model and the loss; out_of_memory.
[[nodiscard]] Result<Evaluation> run_evaluate(const ModelRef& model, const data::Examples& examples,
                                              const EvaluateOptions& options) noexcept;
template <nn::Layer L>
[[nodiscard]] Result<Evaluation> evaluate(const nn::Model<L>& model, const data::Examples& examples,
                                          const EvaluateOptions& options = {}) noexcept {
  return run_evaluate(model_ref(const_cast<nn::Model<L>&>(model)), examples, options);  // parameters are not touched
}

struct PredictOptions {
  std::size_t batch = 256;
  int threads = cpu_count();
};
// The model's output for each example, in order: [n, …]. Errors: as evaluate.
[[nodiscard]] Result<Owned> run_predict(const ModelRef& model, const data::Examples& examples,
                                        const PredictOptions& options) noexcept;
template <nn::Layer L>
[[nodiscard]] Result<Owned> predict(const nn::Model<L>& model, const data::Examples& examples,
                                    const PredictOptions& options = {}) noexcept {
  return run_predict(model_ref(const_cast<nn::Model<L>&>(model)), examples, options);
}

}  // namespace qorus::train
