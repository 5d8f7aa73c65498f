// qorus quantize: a GGUF file's tensors in another format.
#include <fnmatch.h>
#include <unistd.h>

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "options.h"

import qorus;

using namespace qorus;

namespace {

struct Plan {
  DType dtype = DType::q8_0;
  std::vector<std::pair<std::string, DType>> rules;
  bool terminal = false;
};

bool to_dtype(std::string_view name, DType& dtype) {
  for (const DType one : {DType::f32, DType::f16, DType::bf16, DType::q4_0, DType::q8_0}) {
    if (to_string(one) != name) continue;
    dtype = one;
    return true;
  }
  return false;
}

DType choose(void* user, std::string_view tensor, const Shape&) {
  const auto& plan = *static_cast<const Plan*>(user);
  for (const auto& [pattern, dtype] : plan.rules) {
    if (::fnmatch(pattern.c_str(), std::string(tensor).c_str(), 0) == 0) return dtype;
  }
  return plan.dtype;
}

bool progress(void* user, std::string_view tensor, std::size_t done, std::size_t tensors) {
  if (static_cast<const Plan*>(user)->terminal) {
    std::fprintf(stderr, "\r%zu of %zu: %.*s\x1b[K%s", done, tensors, static_cast<int>(tensor.size()), tensor.data(),
                 done == tensors ? "\r\x1b[K" : "");
    std::fflush(stderr);
  }
  return true;
}

}  // namespace

int quantize_command(const Options& options) {
  Plan plan{.terminal = ::isatty(STDERR_FILENO) == 1};
  to_dtype(options.type, plan.dtype);
  for (const std::string& rule : options.rules) {
    const auto equals = rule.rfind('=');
    DType dtype{};
    if (equals == rule.npos || !to_dtype(rule.substr(equals + 1), dtype)) {
      std::fprintf(stderr, "error: --tensor %s: PATTERN=TYPE with a type that can be made\n", rule.c_str());
      return 2;
    }
    plan.rules.emplace_back(rule.substr(0, equals), dtype);
  }
  const Stopwatch watch;
  const auto done = io::quantize(options.model, options.out,
                                 {.dtype = plan.dtype,
                                  .choose = choose,
                                  .progress = progress,
                                  .user = &plan,
                                  .least_error = options.least_error,
                                  .threads = options.threads > 0 ? options.threads : cpu_count()});
  if (!done) return report(done);
  std::printf("%zu of %zu tensors converted, %.1f to %.1f MB in %.2f s\n", done->converted, done->tensors,
              static_cast<double>(done->bytes_before) / 1e6, static_cast<double>(done->bytes_after) / 1e6,
              watch.seconds());
  return 0;
}
