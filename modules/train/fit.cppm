// fit, evaluate, predict: any model over any examples.
export module qorus.train:fit;
import qorus.std;
import qorus.data;
import qorus.nn;
import qorus.optim;
import :callback;
import :metric;

export namespace qorus::train {

// A model as the loops see it: something that makes a tensor of a tensor, or a loss, and its parameters.
struct ModelRef {
  const void* self = nullptr;
  Result<Tensor> (*call)(const void* self, const Tensor& x, const BoundLoss* loss) noexcept = nullptr;
  nn::Parameters* parameters = nullptr;
  [[nodiscard]] Result<Tensor> operator()(const Tensor& x) const noexcept { return call(self, x, nullptr); }
  // loss((*this)(x)), as nn::loss_of has it.
  [[nodiscard]] Result<Tensor> loss(const Tensor& x, const BoundLoss& loss) const noexcept {
    return call(self, x, &loss);
  }
};
template <nn::Layer L>
[[nodiscard]] ModelRef model_ref(nn::Model<L>& model) noexcept {
  return {&model,
          [](const void* self, const Tensor& x, const BoundLoss* loss) noexcept {
            const auto& model = *static_cast<const nn::Model<L>*>(self);
            return loss ? model.loss(x, *loss) : model(x);
          },
          &model};
}

// What a step of one's own gives: the loss to follow, and, if metrics and accuracy are wanted, the model's output.
struct Forward {
  Tensor loss, output;
};
// A reference to anything callable as Result<Forward>(const ModelRef&, Tape&, const data::Batch&), which must outlive the run. It is
// also run over shapes only, to plan the memory: so it may not look at values; by several threads at once where the batch is cut into
// shards; and, on a tape that records nothing, over the validation examples.
class ForwardRef {
 public:
  ForwardRef() noexcept = default;
  template <class F>
    requires(!std::is_same_v<std::remove_cvref_t<F>, ForwardRef>) &&
                std::is_nothrow_invocable_r_v<Result<Forward>, F&, const ModelRef&, Tape&, const data::Batch&>
  ForwardRef(F&& f) noexcept  // NOLINT(google-explicit-constructor): any such function is one
      : user_(const_cast<void*>(static_cast<const void*>(&f))),
        call_([](void* user, const ModelRef& model, Tape& tape, const data::Batch& batch) noexcept {
          return Result<Forward>((*static_cast<std::remove_reference_t<F>*>(user))(model, tape, batch));
        }) {}
  explicit operator bool() const noexcept { return call_ != nullptr; }
  [[nodiscard]] Result<Forward> operator()(const ModelRef& model, Tape& tape, const data::Batch& batch) const noexcept {
    return call_(user_, model, tape, batch);
  }

 private:
  void* user_ = nullptr;
  Result<Forward> (*call_)(void*, const ModelRef&, Tape&, const data::Batch&) noexcept = nullptr;
};

// What a step of one's own works with. The optimizer has this step's learning rate; the workspace is open for a tape or a frame.
struct StepContext {
  const ModelRef& model;
  Workspace& workspace;
  Optimizer& optimizer;
  const data::Batch& batch;
};
// A reference to anything callable as Result<float>(StepContext&), which must outlive the run: it does all of a step, the optimizer's part
// too, and gives the loss to follow. For what is not forward, backward, update: two losses in turn, a step to look ahead.
class StepRef {
 public:
  StepRef() noexcept = default;
  template <class F>
    requires(!std::is_same_v<std::remove_cvref_t<F>, StepRef>) &&
                std::is_nothrow_invocable_r_v<Result<float>, F&, StepContext&>
  StepRef(F&& f) noexcept  // NOLINT(google-explicit-constructor): any such function is one
      : user_(const_cast<void*>(static_cast<const void*>(&f))), call_([](void* user, StepContext& step) noexcept {
          return Result<float>((*static_cast<std::remove_reference_t<F>*>(user))(step));
        }) {}
  explicit operator bool() const noexcept { return call_ != nullptr; }
  [[nodiscard]] Result<float> operator()(StepContext& step) const noexcept { return call_(user_, step); }

 private:
  void* user_ = nullptr;
  Result<float> (*call_)(void*, StepContext&) noexcept = nullptr;
};

// Where a run keeps what it needs to go on after a crash. Each file is written beside its place, flushed and renamed, and holds weights,
// moments, random state, place in the data, history and the best weights so far, with checksums; so the one before is never lost, and a
// resumed run ends with the same bits as one that never stopped, whatever the number of threads.
struct Checkpoints {
  std::string_view folder = {};  // made if it is missing; "": no checkpoints. Must outlive the run
  std::size_t every_steps = 0;   // besides the one after each epoch; 0: none
  int keep = 3;                  // files; older ones are removed
  bool resume =
      true;  // begin from the newest valid one, if there is any; a damaged one is skipped with a warning in the log
};

struct FitOptions {
  Loss loss = loss::cross_entropy();
  OptimizerSpec optimizer = optim::adamw();
  Schedule schedule = schedule::constant();  // of the learning rate, over all steps
  int epochs = 1;
  std::size_t steps = 0;  // optimizer steps at most; 0: all epochs
  std::size_t batch = 32;
  std::size_t accumulate = 1;  // batches whose gradients, weighted by their examples, make one step
  std::uint64_t seed = 0;      // of initial weights, order of examples and dropout
  float clip_norm = 0;         // the gradients' largest norm; 0: no limit
  bool gradient_norm = false;  // measure it in each step, for callbacks (with clip_norm it is known anyway)
  float ema = 0;  // e = ema e + (1 - ema) w after each step: validated, and the model's weights in the end; 0: none
  int threads = cpu_count();
  // Pieces that each batch is cut into, at most 32: each is computed on one thread, on a workspace and with random draws of its own, side
  // by side with the others, and their gradients are summed in order. So the number of threads does not change a bit; the number of
  // shards does (rounding, dropout, and each shard normalises by its own rows). Worth it where single operations are too small for
  // several threads. Takes memory for as many gradients. Running statistics take the mean over the shards.
  std::size_t shards = 1;
  // Mixed precision: what is stored between forward and backward (the insides of repeated blocks, see WorkspaceOptions::bf16) and Adam's
  // moments (AdamOptions::bf16_moments) are kept in bf16, about half the memory; weights, gradients and all that is computed are f32.
  bool bf16 = false;
  std::size_t scratch = 0;  // bytes of workspace (of each shard's); 0: as much as a step takes, planned from the shapes
  data::Augment augment = {};  // of the training examples, another for each epoch
  std::size_t prefetch = 0;    // batches that a thread of its own makes ahead; 0: none
  Metrics metrics = {};        // of the validation examples, after each epoch
  ForwardRef forward = {};     // in place of loss(model(x), y), in training and validation
  // In place of the whole step; accumulate, shards, clip_norm and gradient_norm are its own affair then. Scratch is planned for one forward
  // and backward: a step that takes more says so in `scratch`.
  StepRef step = {};
  Checkpoints checkpoints = {};
  Callbacks callbacks = {};
};

// The epochs of a run, in order, and how it ended.
struct History {
  List<EpochRecord> epochs;
  std::size_t steps = 0;  // of the optimizer
  double seconds = 0;
  bool stopped_early = false;
  std::size_t resumed_at = 0;          // the step of the checkpoint that it began with; 0: none
  std::size_t scratch_high_water = 0;  // bytes
};

// A trained model and its history.
template <nn::Layer L>
struct Fit {
  nn::Model<L> model;
  History history;
};

// Trains a model in place. `validation` may have no examples. The same seed gives the same bits, whatever the number of threads.
// Errors: those of the examples, the layers and the loss; diverged (a loss that is not finite; the parameters are then those at the
// begin of the last epoch whose first batch had a finite loss); invalid_argument (options; a checkpoint of another run); invalid_size, not_found (a checkpoint of another model: which parameter,
// both shapes); io (a checkpoint or log that cannot be written); out_of_memory.
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
  ForwardRef forward = {};  // in place of loss(model(x), y), on a tape that records nothing
  std::size_t batch = 256;
  int threads = cpu_count();
  Metrics metrics = {};
  bool confusion = false;  // keep the confusion matrix
};
struct Evaluation {
  double loss = 0;
  double accuracy = -1;  // share of rows whose largest output is the target class; -1: the targets are no classes
  std::size_t examples = 0;
  std::array<double, Metrics::k_most> metrics{};
  Confusion confusion;  // of 0 classes unless it was asked for, or a metric needs it
};
// Errors: those of the examples, the model, the loss and the metrics; out_of_memory.
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
