// qorus quantize: a GGUF file's tensors in another format.
#include <fnmatch.h>
#include <unistd.h>

#include <cctype>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "options.h"
#include "tensors.h"

import qorus;
import qorus.formats;

using namespace qorus;

namespace {

struct Plan {
  std::vector<std::pair<std::string, DType>> rules;
  bool pure = false;
  DType dtype = DType::q8_0;
  bool terminal = false;
};

bool to_dtype(std::string name, DType& dtype) {
  for (char& c : name) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  const formats::Scheme* scheme = formats::scheme_of(name);
  if (scheme) dtype = scheme->dtype;
  return scheme != nullptr;
}

DType choose(void* user, std::string_view tensor, const Shape&, DType usual) {
  const auto& plan = *static_cast<const Plan*>(user);
  for (const auto& [pattern, dtype] : plan.rules) {
    if (::fnmatch(pattern.c_str(), std::string(tensor).c_str(), 0) == 0) return dtype;
  }
  return plan.pure ? plan.dtype : usual;
}

bool progress(void* user, std::string_view tensor, std::size_t done, std::size_t tensors) {
  if (static_cast<const Plan*>(user)->terminal) show_progress(tensor, done, tensors);
  return true;
}

}  // namespace

int quantize_command(const Options& options) {
  Plan plan{.terminal = ::isatty(STDERR_FILENO) == 1};
  plan.pure = options.pure;
  to_dtype(options.type, plan.dtype);
  std::string type = options.type;
  for (char& c : type) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
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
  formats::Importance importance;
  if (!options.importance.empty()) {
    auto read = formats::Importance::open(options.importance);
    if (!read) return report(read);
    importance = std::move(*read);
  }
  const auto done = formats::quantize(options.model, options.out,
                                      {.dtype = plan.dtype,
                                       .scheme = formats::scheme_of(type),
                                       .choose = choose,
                                       .progress = progress,
                                       .user = &plan,
                                       .importance = options.importance.empty() ? nullptr : &importance,
                                       .least_error = options.least_error,
                                       .threads = options.threads > 0 ? options.threads : cpu_count()});
  if (!done) return report(done);
  std::printf("%zu of %zu tensors converted, %.1f to %.1f MB in %.2f s, at most %.1f MB resident\n", done->converted,
              done->tensors, static_cast<double>(done->bytes_before) / 1e6,
              static_cast<double>(done->bytes_after) / 1e6, watch.seconds(), peak_megabytes());
  return 0;
}
