// qorus chat: a conversation with a language model, line by line, and commands that begin with /.
#include <algorithm>
#include <cstddef>
#include <cstdio>
#include <string>
#include <string_view>
#include <utility>

#include "lines.h"

#include "language.h"
#include "sampling.h"

using namespace qorus;

namespace {

class Chat {
 public:
  Chat(llm::Conversation& conversation, const llm::GenerateOptions& options) noexcept
      : conversation_(conversation), options_(options) {}

  int run(const std::string& system) {
    if (!system.empty()) {
      if (auto done = set_system(system); !done) return report(done);
    }
    if (lines_.terminal())
      std::fputs("/help lists the commands; Ctrl-C ends an answer, Ctrl-D the conversation.\n", stderr);
    std::string line, text;
    bool good = true;
    while (!over_ && out_.write("") && lines_.next(line)) {
      const bool more = line.ends_with('\\');  // goes on in the next line
      if (more) line.back() = '\n';
      text += line;
      if (more) continue;
      auto done = take(text);
      text.clear();
      if (done) continue;
      good = report(done) == 0;
      if (!lines_.terminal()) break;  // nobody is there to mend it
      good = true;
    }
    if (total_.tokens > 0) print_speed(total_);
    const int written = out_.finish();
    return good ? written : 1;
  }

 private:
  struct ChatCommand {
    std::string_view name, takes, does;
    Status (Chat::*run)(const std::string& argument);
  };
  static const ChatCommand k_commands[10];

  Status take(const std::string& text) {
    if (text.empty()) return {};
    if (text.front() != '/') return ask(text);
    const std::string_view line = text;
    const std::size_t end = std::min(line.find(' '), line.size());
    const std::string_view name(line.data(), end);
    for (const ChatCommand& command : k_commands) {
      if (command.name != name) continue;
      const std::size_t begin = text.find_first_not_of(' ', end);
      const std::string argument = begin == text.npos ? "" : text.substr(begin);
      if (command.takes.empty() != argument.empty())
        return fail(Errc::invalid_argument, "chat",
                    command.takes.empty() ? "takes nothing" : "takes something: see /help", name);
      return (this->*command.run)(argument);
    }
    return fail(Errc::invalid_argument, "chat", "no such command; /help lists them", name);
  }

  Status ask(const std::string& text) {
    const std::size_t before = conversation_.size();
    if (auto added = conversation_.add("user", text); !added) return added;
    auto done = answer();
    if (!done) conversation_.forget(before);
    return done;
  }

  Status answer() {
    const Interrupt interrupt;
    auto done = conversation_.answer(options_,
                                     [&](std::string_view piece) { return out_.write(piece) && !Interrupt::asked(); });
    if (!done) return fail(done.error());
    out_.write("\n");
    total_.prompt_tokens += done->prompt_tokens;
    total_.tokens += done->tokens;
    total_.prompt_seconds += done->prompt_seconds;
    total_.seconds += done->seconds;
    total_.guessed += done->guessed;
    total_.accepted += done->accepted;
    if (done->ending == llm::Ending::context) std::fputs("the context is full: /reset begins anew\n", stderr);
    return {};
  }

  Status help(const std::string&) {
    for (const ChatCommand& c : k_commands)
      std::fprintf(stderr, "  %-12s %-5s %s\n", c.name.data(), c.takes.data(), c.does.data());
    return {};
  }
  Status reset(const std::string&) {
    conversation_.forget(has_system() ? 1 : 0);
    return {};
  }
  Status set_system(const std::string& text) {
    conversation_.forget();
    return conversation_.add("system", text);
  }
  Status regenerate(const std::string&) {
    const std::size_t count = conversation_.size();
    if (count < 2 || conversation_[count - 1].role != "assistant")
      return fail(Errc::invalid_argument, "chat", "there is no answer yet");
    ++options_.seed;  // another text, if tokens are drawn at all
    const std::string last(conversation_[count - 1].content);
    conversation_.forget(count - 1);
    auto done = answer();
    if (done) return done;
    auto kept = conversation_.add("assistant", last);
    return kept ? done : kept;
  }
  Status undo(const std::string&) {
    const std::size_t count = conversation_.size();
    if (count < 2 || conversation_[count - 1].role != "assistant")
      return fail(Errc::invalid_argument, "chat", "there is nothing to undo");
    conversation_.forget(count - 2);
    return {};
  }
  Status show(const std::string&) {
    for (std::size_t i = 0; i < conversation_.size(); ++i) {
      out_.write(conversation_[i].role);
      out_.write(": ");
      out_.write(conversation_[i].content);
      out_.write("\n");
    }
    return {};
  }
  Status save(const std::string& path) {
    List<char> json;
    const auto text = [&](std::string_view part) { return json.append({part.data(), part.size()}); };
    Status good = text("[");
    for (std::size_t i = 0; good && i < conversation_.size(); ++i) {
      good = text(i ? ",\n {\"role\": " : "\n {\"role\": ");
      if (good) good = io::append_json_string(json, conversation_[i].role);
      if (good) good = text(", \"content\": ");
      if (good) good = io::append_json_string(json, conversation_[i].content);
      if (good) good = text("}");
    }
    if (good) good = text("\n]\n");
    if (!good) return good;
    auto file = AtomicFile::create(path);
    if (!file) return fail(file.error());
    if (auto written = file->write(std::string_view(json.data(), json.size())); !written) return written;
    return file->commit();
  }
  Status load(const std::string& path) {
    auto file = MappedFile::open(path);
    if (!file) return fail(file.error());
    text::JsonTree tree;
    auto parsed = tree.parse({reinterpret_cast<const char*>(file->bytes().data()), file->bytes().size()});
    if (!parsed) return fail(parsed.error().about(path));
    const auto wrong = [&] {
      return fail(Errc::corrupt, "chat", "a list of messages, each with role and content, is wanted", path);
    };
    if (!tree.root().is(text::JsonType::array)) return wrong();
    auto good = tree.root().each([&](const text::JsonValue& message) -> Status {
      const bool both = message["role"].is(text::JsonType::string) && message["content"].is(text::JsonType::string);
      return both ? Status{} : Status(wrong());
    });
    if (!good) return good;
    conversation_.forget();
    return tree.root().each([&](const text::JsonValue& message) {
      return conversation_.add(message["role"].string(), message["content"].string());
    });
  }
  Status quit(const std::string&) {
    over_ = true;
    return {};
  }
  [[nodiscard]] bool has_system() const { return conversation_.size() > 0 && conversation_[0].role == "system"; }

  llm::Conversation& conversation_;
  llm::GenerateOptions options_;
  Lines lines_;
  Output out_;
  llm::Generated total_;
  bool over_ = false;
};

const Chat::ChatCommand Chat::k_commands[10] = {
    {"/help", "", "lists the commands", &Chat::help},
    {"/reset", "", "begins anew; what the model was told first stays", &Chat::reset},
    {"/system", "TEXT", "begins anew, with something else told first", &Chat::set_system},
    {"/regenerate", "", "answers the last message anew", &Chat::regenerate},
    {"/undo", "", "forgets the last message and its answer", &Chat::undo},
    {"/show", "", "prints the conversation", &Chat::show},
    {"/save", "FILE", "writes the conversation as JSON", &Chat::save},
    {"/load", "FILE", "goes on with one that was saved", &Chat::load},
    {"/quit", "", "ends; so do /exit and Ctrl-D", &Chat::quit},
    {"/exit", "", "the same", &Chat::quit},
};

// The command line's choice of tokens; where it says nothing, the model's own.
void choose_sampling(const Options& options, const llm::Model& model, llm::GenerateOptions& how) {
  if (options.sampled) return;
  llm::GenerateOptions chosen = model.suggested();
  if (chosen.temperature == 0) {
    chosen.temperature = 0.8F;
    chosen.top_p = 0.95F;
  }
  chosen.max_tokens = how.max_tokens;
  chosen.seed = how.seed;
  chosen.stop = how.stop;
  chosen.guess = how.guess;
  how = chosen;
}

}  // namespace

int chat_command(const Options& options) {
  auto how = sampling_of(options);
  if (!how) return report(how);
  auto model = open_model(options);
  if (!model) return report(model);
  const bool none = options.jinja.empty() && model->chat_template().empty();
  if (none) std::fputs("the model came without a chat template: --template plain is taken\n", stderr);
  const NamedTemplate* const named = find_template(none ? std::string_view("plain") : std::string_view(options.jinja));
  List<char> jinja;
  if (!named && !options.jinja.empty()) {
    auto read = read_input(options.jinja);
    if (!read) return report(read);
    jinja = std::move(*read);
  }
  if (named) how->stop.push_back(named->stop);
  how->options.stop = how->stop;
  choose_sampling(options, *model, how->options);
  auto session = llm::Session::create(
      *model, {.context = options.context, .cache = cache_of(options), .threads = threads_given(options)});
  if (!session) return report(session);
  Draft draft;
  if (auto opened = draft.open(options, *session, how->options); !opened) return report(opened);
  auto conversation =
      llm::Conversation::create(*session, named ? named->jinja : std::string_view(jinja.data(), jinja.size()));
  if (!conversation) return report(conversation);
  return Chat(*conversation, how->options).run(options.system);
}
