// Bodies of qorus.llm:session: generation, and the texts that stop it.
module qorus.llm;
import qorus.std;
import :guess;

namespace qorus::llm {
namespace {

// Hands text on, but holds back what could be the beginning of a stop text until that is decided.
class Speaker {
 public:
  Speaker(std::span<const std::string_view> stops, Say say, void* user) noexcept
      : stops_(stops), say_(say), user_(user) {}
  // So that no piece of a usual length allocates.
  [[nodiscard]] Status prepare() noexcept {
    std::size_t longest = 0;
    for (const std::string_view stop : stops_) longest = std::max(longest, stop.size());
    return stops_.empty() ? Status{} : held_.reserve(longest + 4096);
  }
  // Whether it goes on.
  [[nodiscard]] Result<bool> speak(std::string_view piece) noexcept {
    if (piece.empty()) return true;
    if (stops_.empty()) return give(piece);
    if (auto room = held_.append(std::span(piece.data(), piece.size())); !room) return fail(room.error());
    const std::string_view text(held_.data(), held_.size());
    std::size_t end = text.npos;
    for (const std::string_view stop : stops_) {
      if (!stop.empty()) end = std::min(end, text.find(stop));
    }
    const bool stopped = end != text.npos;
    if (!stopped) end = text.size() - undecided(text);
    const bool on = end == 0 || give({text.data(), end});
    std::copy(held_.begin() + end, held_.end(), held_.begin());
    if (auto cut = held_.resize(stopped ? 0 : held_.size() - end); !cut) return fail(cut.error());
    if (stopped && on) ending = Ending::stop;
    return on && !stopped;
  }
  void finish(std::string_view rest) noexcept {
    if (const auto on = speak(rest); on && *on && !held_.empty()) give({held_.data(), held_.size()});
  }

  Ending ending = Ending::length;

 private:
  bool give(std::string_view text) noexcept {
    const bool on = say_(user_, text);
    if (!on) ending = Ending::told;
    return on;
  }
  // Bytes at the end of the text that begin a stop text.
  [[nodiscard]] std::size_t undecided(std::string_view text) const noexcept {
    std::size_t most = 0;
    for (const std::string_view stop : stops_) {
      for (std::size_t n = std::min(stop.empty() ? 0 : stop.size() - 1, text.size()); n > most; --n) {
        if (text.ends_with(std::string_view(stop.data(), n))) most = n;
      }
    }
    return most;
  }

  std::span<const std::string_view> stops_;
  Say say_;
  void* user_;
  List<char> held_;
};

// The loop: choose, say, feed.
class Generation {
 public:
  Generation(Session& session, const GenerateOptions& options, Say say, void* user) noexcept
      : session_(session), options_(options), speaker_(options.stop, say, user) {}

  // The prompt is a text or ids.
  template <class Prompt>
  [[nodiscard]] Result<Generated> run(const Prompt& prompt) noexcept {
    if (auto ready = begin(prompt); !ready) return fail(ready.error());
    text::StreamDecoder decoder(session_.model().tokenizer(), {.continues = !prompt.empty()});
    Stopwatch watch;
    const std::int64_t begun = session_.position();
    const auto done = continue_with(decoder);
    session_.rewind(begun + kept_);  // guesses after the end go
    if (!done) return fail(done.error());
    if (speaker_.ending == Ending::length) speaker_.finish(decoder.finish());
    done_.seconds = watch.seconds();
    if (speaker_.ending != Ending::length) done_.ending = speaker_.ending;
    return done_;
  }

 private:
  [[nodiscard]] Status prepare() noexcept {
    if (session_.model().tokenizer().size() == 0)
      return fail(Errc::not_found, "generate", "the model came without a tokenizer");
    auto sampler = Sampler::create(options_, static_cast<std::size_t>(session_.model().config().vocab));
    if (!sampler) return fail(sampler.error());
    sampler_ = std::move(*sampler);
    auto guesser = Guesser::create(session_, options_);
    if (!guesser) return fail(guesser.error());
    guesser_ = std::move(*guesser);
    for (List<std::int32_t>* list : {&fed_, &chosen_}) {
      if (auto room = list->reserve(static_cast<std::size_t>(options_.guess) + 1); !room) return room;
    }
    return speaker_.prepare();
  }

  [[nodiscard]] Status begin(std::string_view prompt) noexcept {
    if (auto ready = prepare(); !ready) return ready;
    const text::Tokenizer& tokenizer = session_.model().tokenizer();
    const bool first = session_.position() == 0;
    auto ids = tokenizer.encode(
        prompt, {.bos = first && (tokenizer.adds_bos() || prompt.empty()), .special = options_.special});
    if (!ids) return fail(ids.error());
    history_ = std::move(*ids);
    if (auto room = make_room(); !room) return room;
    Stopwatch watch;
    return take(session_.feed(history_.span()), history_.size(), watch);
  }

  [[nodiscard]] Status begin(std::span<const std::int32_t> prompt) noexcept {
    if (auto ready = prepare(); !ready) return ready;
    if (auto kept = history_.append(prompt); !kept) return kept;
    if (auto room = make_room(); !room) return room;
    const auto known = session_.tokens();
    const auto here = std::mismatch(prompt.begin(), prompt.end(), known.begin(), known.end()).first - prompt.begin();
    Stopwatch watch;
    return take(session_.continue_as(prompt), prompt.size() - static_cast<std::size_t>(here), watch);
  }

  // For the tokens to come, so that none allocates.
  [[nodiscard]] Status make_room() noexcept {
    const auto most = std::min<std::int64_t>(options_.max_tokens, session_.room() + session_.position());
    return history_.reserve(history_.size() + static_cast<std::size_t>(most) + 1);
  }
  [[nodiscard]] Status take(const Result<std::span<const float>>& logits, std::size_t read,
                            const Stopwatch& watch) noexcept {
    if (!logits) return fail(logits.error());
    logits_ = *logits;
    if (auto ready = guesser_.begin(); !ready) return ready;
    done_.prompt_tokens = read;
    done_.prompt_seconds = watch.seconds();
    return {};
  }

  [[nodiscard]] Status continue_with(text::StreamDecoder& decoder) noexcept {
    const auto most = static_cast<std::size_t>(options_.max_tokens);
    while (done_.tokens < most) {
      const bool ahead = said_ < chosen_.size();
      const std::int32_t id = ahead ? chosen_[said_++] : sampler_.choose(logits_, history_.span());
      if (session_.model().ends_text(id)) {
        done_.ending = Ending::end_of_text;
        return {};
      }
      ++done_.tokens;
      auto piece = decoder.next(id);
      if (!piece) return fail(piece.error());
      auto on = speaker_.speak(*piece);
      if (!on) return fail(on.error());
      if (!*on || done_.tokens == most) return {};
      if (said_ == chosen_.size()) {  // otherwise it was guessed, and is there
        if (session_.room() == 0) {
          done_.ending = Ending::context;
          return {};
        }
        if (auto fed = feed(id, most - done_.tokens); !fed) return fed;
      }
      ++kept_;
    }
    return {};
  }

  // Feeds a token, and what may follow it, of which that stays which would have been chosen: `left` tokens are wanted after it.
  [[nodiscard]] Status feed(std::int32_t id, std::size_t left) noexcept {
    fed_.clear();
    chosen_.clear();
    said_ = 0;
    if (auto kept = history_.push(id); !kept) return kept;
    if (auto kept = fed_.push(id); !kept) return kept;
    const auto room = static_cast<std::size_t>(session_.room());
    if (auto guessed = guesser_.guess(std::min(left, room) - 1, fed_); !guessed) return guessed;
    if (fed_.size() == 1) {
      auto logits = session_.feed(fed_.span());
      if (logits) logits_ = *logits;
      return logits ? Status{} : Status(fail(logits.error()));
    }
    const std::int64_t before = session_.position();
    Status kept;
    bool right = true;  // so far
    auto fed = session_.feed(fed_.span(), [&](std::size_t row, std::span<const float> logits) {
      if (!right || !kept) return;
      const std::int32_t next = sampler_.choose(logits, history_.span());
      kept = chosen_.push(next);
      right = row + 1 < fed_.size() && fed_[row + 1] == next;
      if (right && kept) kept = history_.push(next);
    });
    if (!fed) return fail(fed.error());
    if (!kept) return kept;
    session_.rewind(before + static_cast<std::int64_t>(chosen_.size()));
    const std::size_t guessed = fed_.size() - 1, accepted = chosen_.size() - 1;
    guesser_.learn(guessed, accepted);
    done_.guessed += guessed;
    done_.accepted += accepted;
    return {};
  }

  Session& session_;
  const GenerateOptions& options_;
  Speaker speaker_;
  Sampler sampler_;
  Guesser guesser_;
  List<std::int32_t> history_;       // what the penalties look at
  List<std::int32_t> fed_, chosen_;  // lately: a token and guesses; what was chosen after each that was right
  std::size_t said_ = 0;             // of chosen_
  std::int64_t kept_ = 0;            // tokens after the prompt that were said and fed
  std::span<const float> logits_;
  Generated done_;
};

}  // namespace

Result<Generated> run_generate(Session& session, std::string_view prompt, const GenerateOptions& options, Say say,
                               void* user) noexcept {
  return Generation(session, options, say, user).run(prompt);
}

Result<Generated> run_generate(Session& session, std::span<const std::int32_t> prompt, const GenerateOptions& options,
                               Say say, void* user) noexcept {
  return Generation(session, options, say, user).run(prompt);
}

}  // namespace qorus::llm
