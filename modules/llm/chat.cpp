// Bodies of qorus.llm:chat.
module qorus.llm;
import qorus.std;

namespace qorus::llm {

Result<Conversation> Conversation::create(Session& session, std::string_view jinja) noexcept {
  const Model& model = session.model();
  if (model.tokenizer().size() == 0) return fail(Errc::not_found, "chat", "the model came without a tokenizer");
  if (jinja.empty()) jinja = model.chat_template();
  if (jinja.empty()) return fail(Errc::not_found, "chat", "the model came without a chat template");
  Conversation made(session);
  auto parsed = text::ChatTemplate::parse(jinja);
  if (!parsed) return fail(parsed.error());
  made.template_ = std::move(*parsed);
  return made;
}

Status Conversation::add(std::string_view role, std::string_view content) noexcept {
  Turn turn;
  if (auto ok = turn.role.append(std::span(role.data(), role.size())); !ok) return ok;
  if (auto ok = turn.content.append(std::span(content.data(), content.size())); !ok) return ok;
  return turns_.push(std::move(turn));
}

// The messages as the template spells them. A template may write the BOS itself; where it does not, the vocabulary's habit counts.
Result<List<std::int32_t>> Conversation::ids() const noexcept {
  const text::Tokenizer& tokenizer = session_->model().tokenizer();
  List<text::ChatMessage> messages;
  for (const Turn& turn : turns_.span()) {
    if (auto ok = messages.push(view(turn)); !ok) return fail(ok.error());
  }
  const auto spelled = [&](std::int32_t id) { return id < 0 ? std::string_view() : tokenizer.piece(id); };
  const std::string_view bos = spelled(tokenizer.bos());
  auto text = template_.render(messages.span(), {.bos = bos, .eos = spelled(tokenizer.eos())});
  if (!text) return fail(text.error());
  const std::string_view prompt(text->data(), text->size());
  const bool begun = !bos.empty() && prompt.starts_with(bos);
  return tokenizer.encode(prompt, {.bos = tokenizer.adds_bos() && !begun, .special = true});
}

Result<Generated> Conversation::run(const GenerateOptions& options, Say say, void* user) noexcept {
  auto prompt = ids();
  if (!prompt) return fail(prompt.error());
  struct Listener {
    Say say;
    void* user;
    List<char> answer;
    Status kept;
  } listener{say, user, {}, {}};
  auto done = run_generate(
      *session_, prompt->span(), options,
      [](void* place, std::string_view piece) {
        auto& to = *static_cast<Listener*>(place);
        to.kept = to.answer.append(std::span(piece.data(), piece.size()));
        return to.kept.has_value() && to.say(to.user, piece);
      },
      &listener);
  if (!done) return done;
  if (!listener.kept) return fail(listener.kept.error());
  auto added = add("assistant", {listener.answer.data(), listener.answer.size()});
  return added ? done : Result<Generated>(fail(added.error()));
}

}  // namespace qorus::llm
