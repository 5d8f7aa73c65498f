// How much scratch one pass over a batch takes, found by running it over shapes only.
module;
#include <cstddef>
module qorus.train:plan;
import qorus.data;
import qorus.nn;
import :fit;

namespace qorus::train {

// What is planned: a training step (by the run's own forward if it has one), an evaluation (a loss, no training) or a prediction (neither).
struct Pass {
  const Loss* loss = nullptr;
  ForwardRef forward = {};
  bool training = false;
};
// Bytes of scratch. Errors: those of the layers, the loss and the backward.
[[nodiscard]] Result<std::size_t> plan_scratch(const ModelRef& model, const data::Examples& examples, std::size_t batch,
                                               int threads, const Pass& pass) noexcept;

}  // namespace qorus::train
