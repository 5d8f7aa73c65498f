// Bodies of qorus.llm:guess.
module qorus.llm;
import qorus.std;
import :guess;

namespace qorus::llm {
namespace {

// One guess at first, then three, seven, fifteen: rows go over packed weights by twos, fours, eights and sixteens (figures in bench/NOTES.md).
constexpr std::size_t k_first = 1;
constexpr std::size_t k_longest_pause = 16;
constexpr std::size_t k_shortest_match = 2, k_longest_match = 4, k_far = 16384;  // tokens

Status check_vocabulary(const Model& draft, const Model& model) noexcept {
  const text::Tokenizer &theirs = draft.tokenizer(), &ours = model.tokenizer();
  if (draft.config().vocab != model.config().vocab || theirs.size() != ours.size())
    return fail(Errc::invalid_argument, "generate", "the draft's vocabulary has another size than the model's",
                Dims{.extent = {draft.config().vocab, model.config().vocab}, .rank = 2});
  for (std::int32_t id = 0; id < static_cast<std::int32_t>(ours.size()); ++id) {
    if (theirs.piece(id) != ours.piece(id))
      return fail(Errc::invalid_argument, "generate", "the draft's vocabulary has another token than the model's",
                  Dims{.extent = {id}, .rank = 1});
  }
  return {};
}

std::int64_t positions_of(const Session& session) noexcept { return session.position() + session.room(); }

}  // namespace

Result<Guesser> Guesser::create(const Session& session, const GenerateOptions& options) noexcept {
  Guesser made;
  made.session_ = &session;
  made.limit_ = static_cast<std::size_t>(options.guess);
  made.most_ = std::min(made.limit_, k_first);
  if (made.limit_ == 0 || !options.draft) return made;
  made.draft_ = options.draft;
  if (made.draft_ == &session) return fail(Errc::invalid_argument, "generate", "the draft is the session itself");
  if (auto same = check_vocabulary(made.draft_->model(), session.model()); !same) return fail(same.error());
  const auto most = static_cast<std::size_t>(positions_of(*made.draft_));
  if (auto room = made.missing_.reserve(most); !room) return fail(room.error());
  return made;
}

Status Guesser::begin() noexcept {
  const auto text = session_->tokens();
  if (!draft_ || static_cast<std::int64_t>(text.size()) > positions_of(*draft_)) return {};
  const auto read = draft_->continue_as(text);
  return read ? Status{} : Status(fail(read.error()));
}

Status Guesser::guess(std::size_t most, List<std::int32_t>& ids) noexcept {
  if (pause_ > 0) {
    --pause_;
    return {};
  }
  most = std::min(most, most_);
  if (most == 0) return {};
  return draft_ ? ask_draft(most, ids) : look_up(most, ids);
}

// More after all came true, few after most did not; after none at all a pause, twice as long each time.
void Guesser::learn(std::size_t guessed, std::size_t accepted) noexcept {
  if (guessed == 0) return;
  if (accepted == guessed) most_ = std::min(limit_, std::max(most_, 2 * guessed + 1));
  if (2 * accepted < guessed) most_ = std::min(limit_, k_first);
  failures_ = accepted ? 0 : failures_ + 1;
  if (failures_ > 0) pause_ = std::min(k_longest_pause, (std::size_t{1} << std::min<std::size_t>(failures_, 8)) - 1);
}

// Of the last k_far tokens, those after the latest of the longest matches, and where these end, the guess itself, as a text that repeats itself
// does: s[i] = s[match + i].
Status Guesser::look_up(std::size_t most, List<std::int32_t>& ids) const noexcept {
  const auto text = session_->tokens();
  const std::size_t n = text.size(), first = n - std::min(n, k_far);
  std::size_t longest = k_shortest_match - 1, match = n;
  for (std::size_t end = n; end-- > first && longest < k_longest_match;) {
    if (text[end] != ids[0]) continue;
    std::size_t same = 1;
    while (same < k_longest_match && same <= end && text[end - same] == text[n - same]) ++same;
    if (same <= longest) continue;
    longest = same;
    match = end;
  }
  for (std::size_t i = match + 1; match < n && most > 0; ++i, --most) {
    const std::int32_t id = i < n ? text[i] : ids[i - n];
    if (session_->model().ends_text(id)) break;
    if (auto kept = ids.push(id); !kept) return kept;
  }
  return {};
}

Status Guesser::ask_draft(std::size_t most, List<std::int32_t>& ids) noexcept {
  const auto text = session_->tokens(), known = draft_->tokens();
  if (static_cast<std::int64_t>(text.size()) >= positions_of(*draft_)) return {};
  const auto same = std::mismatch(text.begin(), text.end(), known.begin(), known.end()).first - text.begin();
  draft_->rewind(same);
  missing_.clear();
  if (auto kept = missing_.append(text.subspan(static_cast<std::size_t>(same))); !kept) return kept;
  if (auto kept = missing_.push(ids[0]); !kept) return kept;
  auto logits = draft_->feed(missing_.span());
  for (;;) {
    if (!logits) return fail(logits.error());
    const auto id = static_cast<std::int32_t>(std::max_element(logits->begin(), logits->end()) - logits->begin());
    if (session_->model().ends_text(id)) return {};
    if (auto kept = ids.push(id); !kept) return kept;
    if (--most == 0 || draft_->room() == 0) return {};
    logits = draft_->feed({&id, 1});
  }
}

}  // namespace qorus::llm
