// qorus perplexity: exp of the mean of -ln p(token | those before it in its window). The text is cut into windows that do not overlap,
// each begun with the BOS where the model has one; of a whole window the second half counts, which has seen the first: as
// llama.cpp does it. A text of less than a window is one window, all of which counts.
#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <span>
#include <string>

#include "language.h"

using namespace qorus;

namespace {

// -ln softmax(logits)[id]
double surprise(std::span<const float> logits, std::int32_t id) {
  const auto largest = static_cast<double>(*std::max_element(logits.begin(), logits.end()));
  double sum = 0;
  for (const float x : logits) sum += std::exp(static_cast<double>(x) - largest);
  return largest + std::log(sum) - static_cast<double>(logits[static_cast<std::size_t>(id)]);
}

struct Score {
  double sum = 0, squares = 0;
  std::size_t tokens = 0;
};

Result<Score> measure(const Options& options) {
  auto content = read_input(options.file);
  if (!content) return fail(content.error());
  auto model = open_model(options);
  if (!model) return fail(model.error());
  const text::Tokenizer& tokenizer = model->tokenizer();
  auto ids = tokenizer.encode({content->data(), content->size()}, {.bos = tokenizer.adds_bos()});
  if (!ids) return fail(ids.error());
  const std::int64_t usual = std::min<std::int64_t>(model->config().context, 512);
  const auto window = static_cast<std::size_t>(options.context ? options.context : usual);
  if (ids->size() < 2)
    return fail(Errc::invalid_argument, "perplexity", "the text has less than two tokens", options.file);
  auto session =
      llm::Session::create(*model, {.context = static_cast<std::int64_t>(window), .threads = threads_given(options)});
  if (!session) return fail(session.error());
  const bool whole = ids->size() >= window;
  const std::size_t windows = whole ? ids->size() / window : 1;
  Score score;
  const Interrupt interrupt;
  for (std::size_t w = 0; w < windows && !Interrupt::asked(); ++w) {
    const auto piece = ids->span().subspan(w * window, whole ? window : ids->size());
    if (tokenizer.adds_bos()) piece[0] = tokenizer.bos();
    const std::size_t first = whole ? window / 2 : 0;
    session->rewind(0);
    auto fed = session->feed(piece, [&](std::size_t row, std::span<const float> logits) {
      if (row < first || row + 1 >= piece.size()) return;
      const double s = surprise(logits, piece[row + 1]);
      score.sum += s;
      score.squares += s * s;
      ++score.tokens;
    });
    if (!fed) return fail(fed.error());
    if (score.tokens)
      std::fprintf(stderr, "window %zu of %zu: %.4f\n", w + 1, windows,
                   std::exp(score.sum / static_cast<double>(score.tokens)));
  }
  if (!score.tokens) return fail(Errc::invalid_argument, "perplexity", "no token could be measured", options.file);
  return score;
}

}  // namespace

int perplexity_command(const Options& options) {
  const auto score = measure(options);
  if (!score) return report(score);
  const auto n = static_cast<double>(score->tokens);
  const double mean = score->sum / n, variance = std::max(score->squares / n - mean * mean, 0.0);
  char line[160];
  std::snprintf(line, sizeof line, "perplexity %.4f +- %.4f, %.6f nats per token, %zu tokens\n", std::exp(mean),
                std::exp(mean) * std::sqrt(variance / std::max(n - 1, 1.0)), mean, score->tokens);
  Output out;
  out.write(line);
  return out.finish();
}
