// One pass over a batch, and how much scratch it takes, found by running it over shapes only.
module qorus.train:plan;
import qorus.std;
import qorus.data;
import qorus.nn;
import :fit;

namespace qorus::train {

// What is planned: a training step (by the run's own forward if it has one), an evaluation (a loss, no training) or a prediction (neither).
struct Pass {
  const Loss* loss = nullptr;
  ForwardRef forward = {};
  bool training = false;
  bool bf16 = false;       // as FitOptions has it
  bool keeps = true;       // all gradients of a step, instead of having each update its parameter once it is whole
  std::size_t shards = 0;  // that each batch is cut into (metrics are taken after the backward then); 0: none
};
// The pass's forward on a batch.
[[nodiscard]] Result<Forward> compute(const ModelRef& model, const Loss& loss, const ForwardRef& forward, Tape& tape,
                                      const data::Batch& batch) noexcept;
// Has an open tape record nothing and drop nothing: for validation.
inline void only_observe(Tape& tape) noexcept {
  tape.context().record = nullptr;
  tape.context().training = false;
}
// Bytes of scratch for batches of so many examples and for the last one, which may be smaller (and take more: workers share more work with fewer
// rows out differently). Errors: those of the layers, the loss and the backward.
[[nodiscard]] Result<std::size_t> plan_scratch(const ModelRef& model, const data::Examples& examples, std::size_t batch,
                                               int threads, const Pass& pass) noexcept;

// run_evaluate on a workspace that is there, with scratch enough.
[[nodiscard]] Result<Evaluation> evaluate_on(Workspace& workspace, const ModelRef& model,
                                             const data::Examples& examples, const EvaluateOptions& options) noexcept;

}  // namespace qorus::train
