// The choice of tokens as the command line gives it. Included after "language.h".
#pragma once
#include <string_view>
#include <vector>

#include "language.h"

// The options borrow the lists: not copied, and moved only whole.
struct Sampling {
  std::vector<qorus::llm::LogitBias> bias;
  std::vector<std::string_view> stop;
  qorus::llm::GenerateOptions options;
};
// Errors: invalid_argument (a --bias that is none). `options` must outlive it.
qorus::Result<Sampling> sampling_of(const Options& options);
// Tokens per second, on the standard error stream.
void print_speed(const qorus::llm::Generated& done);
