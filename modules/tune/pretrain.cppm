// Training of a language model on text, from scratch or further on: windows of ids, the loss of each next one, validation.
export module qorus.tune:pretrain;
import qorus.std;
import qorus.nn;
import qorus.optim;
import qorus.train;
import qorus.llm;
import :corpus;

export namespace qorus::tune {

// Windows of `context` ids and the ids that follow each, one window after the other: an epoch sees every id once. Where the first one
// begins differs from epoch to epoch. For train::run_fit: examples() are the windows' numbers, and this is the forward that makes ids of
// them. Borrows the tokens. Not thread-safe: its epoch is set.
class Windows {
 public:
  // Errors: invalid_size (fewer tokens than one window and the one that follows), overflow (2^31 windows), out_of_memory.
  [[nodiscard]] static Result<Windows> create(const Tokens& tokens, std::int64_t context, std::uint64_t seed) noexcept;

  [[nodiscard]] std::size_t size() const noexcept { return count_; }
  [[nodiscard]] data::Examples examples() const noexcept;
  // Which epoch's windows come: the same for the same epoch.
  void set_epoch(int epoch) noexcept;
  // x and y of windows: [n, context] i32, in the workspace. `numbers`: [n, 1] i32. Errors: those of Fresh.
  struct Pair {
    Tensor x, y;
  };
  [[nodiscard]] Result<Pair> gather(Context& context, const Tensor& numbers) const noexcept;
  // The mean cross-entropy of each next id.
  [[nodiscard]] Result<train::Forward> operator()(const train::ModelRef& model, Tape& tape,
                                                  const data::Batch& batch) const noexcept;

 private:
  const Tokens* tokens_ = nullptr;
  std::int64_t context_ = 0;
  std::uint64_t seed_ = 0;
  std::size_t count_ = 0, begin_ = 0;
  Owned numbers_;
};

struct PretrainOptions {
  OptimizerSpec optimizer =
      optim::adamw({.lr = 1e-3f, .beta2 = 0.99f, .weight_decay = 0.1f}) | optim::no_decay_on_vectors();
  Schedule schedule = schedule::linear_warmup(0.02) | schedule::cosine({.end = 0.1f});
  std::int64_t context = 0;    // ids of a window
  std::size_t steps = 0;       // of the optimizer at most; 0: all epochs
  int epochs = 0;              // passes over the text; 0: as many as the steps take, or 1
  std::size_t batch = 16;      // windows of a step
  std::size_t accumulate = 1;  // batches whose gradients make one step
  std::size_t shards = 1;      // of a batch, computed side by side: see train::FitOptions
  bool bf16 = false;           // what is stored between the passes, and moments: see train::FitOptions
  std::uint64_t seed = 0;
  float clip_norm = 1;
  int threads = cpu_count();
  std::size_t validate_every = 0;  // steps; besides the end of each epoch
  train::Checkpoints checkpoints = {};
  train::Callbacks callbacks = {};  // event.record.validation_loss is set after a step, too, if there was a validation
};

// Trains a model of ids [batch, context] to logits [batch, context, vocab] in place. The mean loss over all of `validation` is taken without
// dropout; validation may be empty. The same seed gives the same bits, whatever the number of threads, and whether the run was
// stopped and resumed on the way. A warm step allocates nothing. Errors: those of Windows::create and train::run_fit.
[[nodiscard]] Result<train::History> run_pretrain(const train::ModelRef& model, const Tokens& tokens,
                                                  const Tokens& validation, const PretrainOptions& options) noexcept;
template <nn::Layer L>
[[nodiscard]] Result<train::History> pretrain(nn::Model<L>& model, const Tokens& tokens, const Tokens& validation,
                                              const PretrainOptions& options) noexcept {
  return run_pretrain(train::model_ref(model), tokens, validation, options);
}

struct LossOptions {
  std::int64_t context = 0;
  std::size_t batch = 16;
  int threads = cpu_count();
};
// The mean of -ln p of each next id, in windows one after the other; what is left over at the end of the last whole one is not
// counted. A text shorter than a window is a window of its own. Errors: invalid_size (fewer than two ids), those of the model, out_of_memory.
[[nodiscard]] Result<double> mean_loss(const train::ModelRef& model, const Tokens& tokens,
                                       const LossOptions& options) noexcept;

// `prompt` and up to how.max_tokens ids after it, for a look at a model that is being trained: without a cache, the last `context` ids
// anew for each. Ends before the id `end`. Errors: invalid_argument (an empty prompt), those of the model and of llm::Sampler, out_of_memory.
[[nodiscard]] Result<List<std::int32_t>> continue_ids(const train::ModelRef& model,
                                                      std::span<const std::int32_t> prompt, std::int64_t context,
                                                      const llm::GenerateOptions& how, std::int32_t end = -1) noexcept;

}  // namespace qorus::tune
