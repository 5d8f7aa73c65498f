// The choice of tokens as the command line gives it. Included after "language.h".
#pragma once
#include <optional>
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

// The model that --draft names, and its session. Stays where it is: `how` and the session point into it.
class Draft {
 public:
  Draft() = default;
  Draft(const Draft&) = delete;
  Draft& operator=(const Draft&) = delete;
  // Makes it the one that guesses for `session`, if there is one. Errors: those of llm::open and Session::create.
  qorus::Status open(const Options& options, const qorus::llm::Session& session, qorus::llm::GenerateOptions& how);

 private:
  qorus::llm::Model model_;
  std::optional<qorus::llm::Session> session_;
};
// Tokens per second, and how many guesses were right, on the standard error stream.
void print_speed(const qorus::llm::Generated& done);
