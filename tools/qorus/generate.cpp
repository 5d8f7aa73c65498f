// qorus generate: a language model continues a text. Tokens per second at the end, on the standard error stream.
#include <algorithm>
#include <charconv>
#include <cstdint>
#include <cstdio>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "language.h"
#include "sampling.h"

using namespace qorus;

Result<Sampling> sampling_of(const Options& options) {
  Sampling made;
  for (const std::string& text : options.bias) {
    llm::LogitBias bias;
    const char* end = text.data() + text.size();
    const auto id = std::from_chars(text.data(), end, bias.id);
    if (id.ec == std::errc() && id.ptr != end && *id.ptr == '=') {
      const auto number = std::from_chars(id.ptr + 1, end, bias.add);
      if (number.ec == std::errc() && number.ptr == end) {
        made.bias.push_back(bias);
        continue;
      }
    }
    return fail(Errc::invalid_argument, "generate", "--bias takes ID=NUMBER", text);
  }
  made.stop.assign(options.stop.begin(), options.stop.end());
  const auto f32 = [](double x) { return static_cast<float>(x); };
  made.options = {.max_tokens = options.tokens,
                  .temperature = f32(options.temperature),
                  .top_k = options.top_k,
                  .top_p = f32(options.top_p),
                  .min_p = f32(options.min_p),
                  .typical_p = f32(options.typical_p),
                  .mirostat_tau = f32(options.mirostat_tau),
                  .mirostat_eta = f32(options.mirostat_eta),
                  .repetition_penalty = f32(options.repetition_penalty),
                  .frequency_penalty = f32(options.frequency_penalty),
                  .presence_penalty = f32(options.presence_penalty),
                  .penalty_last = options.penalty_last,
                  .seed = options.seed,
                  .bias = made.bias,
                  .stop = made.stop,
                  .special = options.special,
                  .guess = options.guess};
  return made;
}

Status Draft::open(const Options& options, const llm::Session& session, llm::GenerateOptions& how) {
  if (options.draft.empty() || options.guess == 0) return {};
  auto model = llm::open(options.draft, {.tokenizer = options.tokenizer});
  if (!model) return fail(model.error());
  model_ = std::move(*model);
  auto made =
      llm::Session::create(model_, {.context = std::min(session.position() + session.room(), model_.config().context),
                                    .threads = threads_given(options)});
  if (!made) return fail(made.error());
  how.draft = &session_.emplace(std::move(*made));
  return {};
}

void print_speed(const llm::Generated& done) {
  std::fprintf(stderr, "%zu tokens read, %.1f/s; %zu written, %.1f/s", done.prompt_tokens,
               static_cast<double>(done.prompt_tokens) / std::max(done.prompt_seconds, 1e-9), done.tokens,
               static_cast<double>(done.tokens) / std::max(done.seconds, 1e-9));
  if (done.guessed > 0) std::fprintf(stderr, "; %zu of %zu guesses were right", done.accepted, done.guessed);
  std::fputs("\n", stderr);
}

int generate_command(const Options& options) {
  auto how = sampling_of(options);
  if (!how) return report(how);
  List<char> content;
  if (!options.file.empty()) {
    auto read = read_input(options.file);
    if (!read) return report(read);
    content = std::move(*read);
  }
  const std::string_view prompt =
      options.file.empty() ? std::string_view(options.prompt) : std::string_view(content.data(), content.size());
  const Interrupt interrupt;
  auto model = open_model(options);
  if (!model) return report(model);
  auto session = llm::Session::create(
      *model, {.context = options.context, .cache = cache_of(options), .threads = threads_given(options)});
  if (!session) return report(session);
  Draft draft;
  if (auto opened = draft.open(options, *session, how->options); !opened) return report(opened);
  Output out;
  out.write(prompt);
  auto done = llm::generate(*session, prompt, how->options,
                            [&](std::string_view piece) { return out.write(piece) && !Interrupt::asked(); });
  if (!done) return report(done);
  out.write("\n");
  print_speed(*done);
  return out.finish();
}
