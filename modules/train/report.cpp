// Bodies of qorus.train:report.
module;
#include <cstdio>
module qorus.train;
import qorus.std;

namespace qorus {

int report(const Error& error) noexcept {
  std::fprintf(stderr, "error: %s\n", error.message().c_str());
  return 1;
}

int report(const train::History& history) noexcept {
  if (history.epochs.empty()) {
    std::puts("nothing was trained");
    return 0;
  }
  const train::EpochRecord& last = history.epochs[history.epochs.size() - 1];
  std::printf("%zu epochs, %zu steps in %.1f s: loss %.4f", history.epochs.size(), history.steps, history.seconds,
              last.loss);
  if (last.validation_loss >= 0) std::printf(", validation loss %.4f", last.validation_loss);
  if (last.validation_accuracy >= 0) std::printf(", validation accuracy %.2f %%", 100 * last.validation_accuracy);
  std::printf("%s\n", history.stopped_early ? " (stopped early)" : "");
  return 0;
}

}  // namespace qorus
