// qorus merge: an adapter made part of its base.
#include <cstdio>
#include <string_view>

#include "language.h"

import qorus.tune;

using namespace qorus;

int merge_command(const Options& options) {
  tune::MergeOptions how{.given = !options.type.empty(),
                         .scale = static_cast<float>(options.adapter_scale),
                         .threads = threads_given(options)};
  bool known = !how.given;
  for (int i = 0; i < k_dtype_count; ++i) {
    const auto dtype = static_cast<DType>(i);
    if (to_string(dtype) != std::string_view(options.type)) continue;
    how.dtype = dtype;
    known = true;
  }
  if (!known) {
    std::fprintf(stderr, "error: --type %s: not a type\n", options.type.c_str());
    return 2;
  }
  const auto done = tune::merge(options.model, options.adapter, options.out, how);
  if (!done) return report(done);
  std::printf("%zu of %zu tensors changed\n", done->changed, done->tensors);
  if (!how.given && done->others)
    std::printf("%zu of them have another type than in the base, which cannot be made\n", done->others);
  return 0;
}
