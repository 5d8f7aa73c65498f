// qorus train: data, network, fit, evaluation, and the file.
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <string>

#include "digits.h"

import qorus;

using namespace qorus;

namespace {

template <class L>
int finish(const nn::Model<L>& model, const Options& options) {
  if (options.out.empty()) return 0;
  if (auto saved = io::save(model, options.out); !saved) return report(saved);
  std::printf("saved %zu parameters to %s\n", model.parameter_count(), options.out.c_str());
  return 0;
}

}  // namespace

int train_command(const Options& options) {
  auto digits = digits_data(options);
  if (!digits) return report(digits);
  const CpuInfo cpu = cpu_info();
  std::fprintf(stderr, "%zu training and %zu test images, %d threads, %s kernels\n", digits->train.size(),
               digits->test.size(), threads_of(options), cpu.isa);
  auto done = train::fit(digits_network(options.hidden), *digits,
                         {.optimizer = optim::adamw({.lr = static_cast<float>(options.learning_rate)}),
                          .schedule = schedule::cosine(),
                          .epochs = options.epochs,
                          .batch = static_cast<std::size_t>(options.batch),
                          .seed = options.seed,
                          .threads = threads_of(options),
                          .callbacks = {train::progress()}});
  if (!done) return report(done);
  if (const int code = report(done); code != 0) return code;
  return finish(done->model, options);
}
