// qorus generate: a language model continues a text. Tokens per second at the end, on the standard error stream.
#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <string>
#include <string_view>

#include "options.h"

import qorus;
import qorus.llm;

using namespace qorus;

int generate_command(const Options& options) {
  auto model = llm::open(options.model);
  if (!model) return report(model);
  auto session = llm::Session::create(*model, {.threads = options.threads > 0 ? options.threads : cpu_count()});
  if (!session) return report(session);
  std::fputs(options.prompt.c_str(), stdout);
  const llm::GenerateOptions how{.max_tokens = options.tokens,
                                 .temperature = static_cast<float>(options.temperature),
                                 .top_p = static_cast<float>(options.top_p),
                                 .seed = options.seed};
  auto done = llm::generate(*session, options.prompt, how, [](std::string_view piece) {
    return std::fwrite(piece.data(), 1, piece.size(), stdout) == piece.size() &&
           std::fflush(stdout) == 0;  // a closed pipe ends it
  });
  if (!done) return report(done);
  std::putchar('\n');
  std::fprintf(stderr, "%zu tokens read, %.1f/s; %zu written, %.1f/s\n", done->prompt_tokens,
               static_cast<double>(done->prompt_tokens) / std::max(done->prompt_seconds, 1e-9), done->tokens,
               static_cast<double>(done->tokens) / std::max(done->seconds, 1e-9));
  return 0;
}
