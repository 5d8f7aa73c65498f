// Bodies of qorus.llm:session: choosing tokens and speaking them.
module;
#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <numeric>
#include <span>
#include <string_view>

#include "kernels/kernels.h"
module qorus.llm;

namespace qorus::llm {
namespace {

// Chooses a token from logits. The draw of step i depends on the seed and on i alone.
class Sampler {
 public:
  explicit Sampler(const GenerateOptions& options) noexcept : options_(options) {}
  [[nodiscard]] Status prepare(std::size_t vocab) noexcept {
    if (options_.temperature == 0) return {};
    if (auto room = order_.resize(vocab); !room) return room;
    return probabilities_.resize(vocab);
  }

  [[nodiscard]] std::int32_t choose(std::span<const float> logits) noexcept {
    const auto best = std::max_element(logits.begin(), logits.end());
    if (options_.temperature == 0) return static_cast<std::int32_t>(best - logits.begin());
    for (std::size_t i = 0; i < logits.size(); ++i)
      probabilities_[i] = std::exp((logits[i] - *best) / options_.temperature);
    std::iota(order_.begin(), order_.end(), 0);
    std::size_t kept = logits.size();
    const double total = std::accumulate(probabilities_.begin(), probabilities_.end(), 0.0);
    double mass = total;
    if (options_.top_p < 1) {
      std::sort(order_.begin(), order_.end(), [&](std::int32_t a, std::int32_t b) { return more_likely(a, b); });
      for (kept = 0, mass = 0; kept < order_.size() && mass < total * static_cast<double>(options_.top_p); ++kept)
        mass += of(order_[kept]);
    }
    float draw = 0;
    kernels::active().random_uniform(&draw, 1, options_.seed, step_++);
    double left = static_cast<double>(draw) * mass;
    for (std::size_t i = 0; i + 1 < kept; ++i) {
      left -= of(order_[i]);
      if (left < 0) return order_[i];
    }
    return order_[kept ? kept - 1 : 0];
  }

 private:
  [[nodiscard]] float of(std::int32_t id) const noexcept { return probabilities_[static_cast<std::size_t>(id)]; }
  [[nodiscard]] bool more_likely(std::int32_t a, std::int32_t b) const noexcept {
    return of(a) != of(b) ? of(a) > of(b) : a < b;
  }

  GenerateOptions options_;
  List<std::int32_t> order_;
  List<float> probabilities_;
  std::uint64_t step_ = 0;
};

Status check(const GenerateOptions& o) noexcept {
  if (o.max_tokens < 0 || !(o.temperature >= 0) || !std::isfinite(o.temperature) || !(o.top_p > 0)) {
    return fail(Errc::invalid_argument, "generate",
                "max_tokens and temperature must not be negative, top_p must be positive");
  }
  return {};
}

}  // namespace

Result<Generated> run_generate(Session& session, std::string_view prompt, const GenerateOptions& options, Say say,
                               void* user) noexcept {
  if (auto good = check(options); !good) return fail(good.error());
  const text::Tokenizer& tokenizer = session.model().tokenizer();
  auto ids = tokenizer.encode(prompt, {.bos = session.position() == 0 && (tokenizer.adds_bos() || prompt.empty())});
  if (!ids) return fail(ids.error());
  Sampler sampler(options);
  if (auto room = sampler.prepare(static_cast<std::size_t>(session.model().config().vocab)); !room)
    return fail(room.error());
  Generated done{.prompt_tokens = ids->size()};
  Stopwatch watch;
  auto logits = session.feed(ids->span());
  if (!logits) return fail(logits.error());
  done.prompt_seconds = watch.seconds();
  watch.restart();
  text::StreamDecoder decoder(tokenizer, {.continues = !prompt.empty()});
  bool listening = true;
  while (listening && done.tokens < static_cast<std::size_t>(options.max_tokens)) {
    const std::int32_t id = sampler.choose(*logits);
    if (id == tokenizer.eos()) break;
    ++done.tokens;
    auto piece = decoder.next(id);
    if (!piece) return fail(piece.error());
    if (!piece->empty()) listening = say(user, *piece);
    if (!listening || done.tokens == static_cast<std::size_t>(options.max_tokens)) break;
    logits = session.feed({&id, 1});
    if (!logits && logits.error().code == Errc::invalid_argument) break;  // the context is full
    if (!logits) return fail(logits.error());
  }
  if (const std::string_view rest = decoder.finish(); listening && !rest.empty()) say(user, rest);
  done.seconds = watch.seconds();
  return done;
}

}  // namespace qorus::llm
