// A conversation: messages, spelled by the model's chat template, and its answers.
export module qorus.llm:chat;
import qorus.std;
import qorus.memory;
import qorus.text;
import :sampler;
import :session;

export namespace qorus::llm {

// Borrows the session, whose first sequence becomes the conversation; it must outlive it. Of what the session has read already, only what
// changed is read anew.
class Conversation {
 public:
  // `jinja`: a chat template; empty: the one that came with the model. Errors: not_found (it came without one, or without a
  // tokenizer), those of ChatTemplate::parse.
  [[nodiscard]] static Result<Conversation> create(Session& session, std::string_view jinja = {}) noexcept;

  [[nodiscard]] std::size_t size() const noexcept { return turns_.size(); }
  [[nodiscard]] text::ChatMessage operator[](std::size_t index) const noexcept { return view(turns_[index]); }
  // Errors: out_of_memory.
  [[nodiscard]] Status add(std::string_view role, std::string_view content) noexcept;
  void forget(std::size_t from = 0) noexcept {
    (void)turns_.resize(from < size() ? from : size());
  }  // fewer: cannot fail

  // The model's answer to the messages so far: handed piece by piece to say(piece), as generate does, and added as a message of the
  // assistant's, however it ended. Errors: those of ChatTemplate::render and of generate; the messages are as they were then.
  template <class F>
  [[nodiscard]] Result<Generated> answer(const GenerateOptions& options, F&& say) noexcept {
    return run(
        options,
        [](void* user, std::string_view piece) {
          return bool((*static_cast<std::remove_reference_t<F>*>(user))(piece));
        },
        &say);
  }

 private:
  struct Turn {
    List<char> role, content;
  };
  explicit Conversation(Session& session) noexcept : session_(&session) {}
  [[nodiscard]] static text::ChatMessage view(const Turn& turn) noexcept {
    return {{turn.role.data(), turn.role.size()}, {turn.content.data(), turn.content.size()}};
  }
  [[nodiscard]] Result<List<std::int32_t>> ids() const noexcept;
  [[nodiscard]] Result<Generated> run(const GenerateOptions& options, Say say, void* user) noexcept;

  Session* session_;
  text::ChatTemplate template_;
  List<Turn> turns_;
};

}  // namespace qorus::llm
