// Chat templates: how a model wants a conversation spelled, as a program in Jinja that comes with it. What published templates use of
// that language is done (https://jinja.palletsprojects.com/templates), as transformers sets it up: trim_blocks and lstrip_blocks on, nothing
// escaped, values immutable, raise_exception and strftime_now there. A template is a program from outside: its steps, its memory and its
// text are bounded, and all else that the language has is an error value that names it.
export module qorus.text:chat;
import qorus.std;
import qorus.memory;

namespace qorus::text {
struct JinjaProgram;
}

export namespace qorus::text {

struct ChatMessage {
  std::string_view role, content;  // "system", "user", "assistant"
};

struct ChatOptions {
  bool add_generation_prompt = true;  // ends with what begins the model's answer
  std::string_view bos, eos;          // spelled out, for bos_token and eos_token
  std::int64_t now = -1;              // seconds since 1970, for strftime_now; negative: the clock's
  std::uint64_t steps = 10'000'000;   // at most: evaluated parts of expressions and statements
  std::size_t memory = 64_MiB;        // at most, of values and text together
};

// A template ready for use. Movable; const functions may be called from several threads at once.
class ChatTemplate {
 public:
  ChatTemplate() noexcept = default;
  // Errors: corrupt (not a template; the subject says near what, the first extent in which line), unsupported (a statement, filter or
  // such that is not done, by name), overflow (more than 1 MiB, nested more than 100 deep), out_of_memory.
  [[nodiscard]] static Result<ChatTemplate> parse(std::string_view source) noexcept;
  ChatTemplate(ChatTemplate&& other) noexcept : program_(std::exchange(other.program_, nullptr)) {}
  ChatTemplate& operator=(ChatTemplate&& other) noexcept {
    std::swap(program_, other.program_);
    return *this;
  }
  ChatTemplate(const ChatTemplate&) = delete;
  ChatTemplate& operator=(const ChatTemplate&) = delete;
  ~ChatTemplate();

  // The text of a conversation. Errors: invalid_argument (the template refused it: the subject is what it says; or it did what its values do
  // not have, with the line), unsupported (by name), overflow (too many steps, too much memory or text), out_of_memory, not_built.
  [[nodiscard]] Result<List<char>> render(std::span<const ChatMessage> messages,
                                          const ChatOptions& options = {}) const noexcept;
  // The same with any variables: the members of a JSON object, as in {"messages": […], "tools": […]}. Errors: also corrupt (not JSON,
  // or not an object).
  [[nodiscard]] Result<List<char>> render(std::string_view variables, const ChatOptions& options = {}) const noexcept;

 private:
  JinjaProgram* program_ = nullptr;
};

}  // namespace qorus::text
