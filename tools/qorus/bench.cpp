// qorus bench: how fast a language model reads a prompt and writes tokens, on this machine, now.
#include <sys/resource.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <span>
#include <string>
#include <vector>

#include "language.h"

using namespace qorus;

namespace {

struct Figures {
  double open_s = 0, first_token_s = 0;
  std::vector<double> prompt_s, generate_s;
};

double median(std::vector<double> values) {
  if (values.empty()) return 0;
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

// Any tokens will do: how long they take does not depend on which they are.
Result<List<std::int32_t>> some_tokens(int count, std::int64_t vocab) {
  List<std::int32_t> ids;
  for (std::int64_t i = 0; i < count; ++i) {
    if (auto ok = ids.push(static_cast<std::int32_t>((i * 7919 + 13) % vocab)); !ok) return fail(ok.error());
  }
  return ids;
}

Status round(llm::Session& session, std::span<const std::int32_t> prompt, int tokens, Figures& figures) {
  session.rewind(0);
  Stopwatch watch;
  if (auto fed = session.feed(prompt); !fed) return fail(fed.error());
  figures.prompt_s.push_back(watch.seconds());
  watch.restart();
  for (int i = 0; i < tokens; ++i) {
    if (auto fed = session.feed(prompt.subspan(static_cast<std::size_t>(i) % prompt.size(), 1)); !fed)
      return fail(fed.error());
  }
  if (tokens > 0) figures.generate_s.push_back(watch.seconds());
  return {};
}

Result<Figures> measure(const Options& options) {
  Figures figures;
  Stopwatch watch;
  auto model = open_model(options);
  if (!model) return fail(model.error());
  figures.open_s = watch.seconds();
  auto session = llm::Session::create(*model, {.context = options.prompt_tokens + options.generate_tokens,
                                               .cache = cache_of(options),
                                               .threads = threads_given(options)});
  if (!session) return fail(session.error());
  auto prompt = some_tokens(options.prompt_tokens, model->config().vocab);
  if (!prompt) return fail(prompt.error());
  if (auto fed = session->feed(prompt->span().first(1)); !fed) return fail(fed.error());
  figures.first_token_s = watch.seconds();
  Figures warm;
  if (auto done = round(*session, prompt->span(), std::min(options.generate_tokens, 2), warm); !done)
    return fail(done.error());
  for (int i = 0; i < options.repeat; ++i) {
    if (auto done = round(*session, prompt->span(), options.generate_tokens, figures); !done) return fail(done.error());
  }
  return figures;
}

}  // namespace

int bench_command(const Options& options) {
  const auto figures = measure(options);
  if (!figures) return report(figures);
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  const double prompt_s = median(figures->prompt_s), generate_s = median(figures->generate_s);
  const double prompt_rate = options.prompt_tokens / std::max(prompt_s, 1e-12),
               rate = options.generate_tokens ? options.generate_tokens / std::max(generate_s, 1e-12) : 0;
  const double megabytes = static_cast<double>(usage.ru_maxrss) / 1024;
  const int threads = threads_given(options);
  char text[600];
  if (options.json) {
    std::snprintf(
        text, sizeof text,
        "{\"threads\": %d, \"isa\": \"%s\", \"rounds\": %d, \"prompt_tokens\": %d, \"prompt_s\": %.6f, "
        "\"prompt_tokens_per_s\": %.2f, \"generated_tokens\": %d, \"generate_s\": %.6f, "
        "\"generate_tokens_per_s\": %.2f, \"open_s\": %.6f, \"first_token_s\": %.6f, \"peak_rss_mb\": %.1f}\n",
        threads, cpu_info().isa, options.repeat, options.prompt_tokens, prompt_s, prompt_rate, options.generate_tokens,
        generate_s, rate, figures->open_s, figures->first_token_s, megabytes);
  } else {
    std::snprintf(text, sizeof text,
                  "%d threads, %s kernels, median of %d rounds\nprompt    %6d tokens  %10.1f/s\ngenerated %6d tokens  "
                  "%10.1f/s\nopened in %.1f ms, first token after %.1f ms, at most %.1f MB resident\n",
                  threads, cpu_info().isa, options.repeat, options.prompt_tokens, prompt_rate, options.generate_tokens,
                  rate, figures->open_s * 1e3, figures->first_token_s * 1e3, megabytes);
  }
  Output out;
  out.write(text);
  return out.finish();
}
