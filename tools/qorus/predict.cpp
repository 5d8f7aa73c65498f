// qorus predict: a saved classifier on the test digits; its accuracy, and some digits as pictures.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <string>

#include "digits.h"

import qorus;

using namespace qorus;

namespace {

// The network whose hidden width the file's first weight tells, with the file's parameters.
Result<nn::Model<decltype(digits_network(1))>> load_model(const std::string& path, const Shape& image) {
  auto file = io::read_safetensors(path);
  if (!file) return fail(file.error());
  const io::TensorEntry* first = file->find("1.weight");
  if (!first || first->shape.rank() != 2)
    return fail(Errc::unsupported, "predict", "not a classifier that qorus train wrote", path);
  auto model = nn::build(digits_network(first->shape[0]), image, init::zeros());
  if (!model) return model;
  if (auto loaded = io::load(path, *model); !loaded) return fail(loaded.error());
  return model;
}

}  // namespace

int predict_command(const Options& options) {
  auto digits = digits_data(options);
  if (!digits) return report(digits);
  auto model = load_model(options.model, digits->test.input_shape());
  if (!model) return report(model);
  const auto count = std::min<std::size_t>(static_cast<std::size_t>(options.show), digits->test.size());
  if (count > 0) {
    auto outputs = train::predict(*model, digits->test | data::take(count), {.threads = threads_of(options)});
    if (!outputs) return report(outputs);
    const Tensor logits = *outputs;
    for (std::size_t i = 0; i < count; ++i) {
      auto example = digits->test.example(i);
      if (!example) return report(example);
      std::int64_t best = 0;
      for (std::int64_t c = 1; c < logits.dim(1); ++c) {
        if (*logits.at<float>({static_cast<std::int64_t>(i), c}) >
            *logits.at<float>({static_cast<std::int64_t>(i), best}))
          best = c;
      }
      std::printf("%s\nprediction %d, label %d\n\n", data::to_text(example->input).c_str(), static_cast<int>(best),
                  *example->target.item<std::int32_t>());
    }
  }
  auto measured = train::evaluate(*model, digits->test, {.threads = threads_of(options)});
  if (!measured) return report(measured);
  std::printf("test accuracy %.2f %% on %zu digits\n", 100 * measured->accuracy, measured->examples);
  return 0;
}
