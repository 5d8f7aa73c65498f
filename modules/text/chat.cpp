// Bodies of qorus.text:chat.
module qorus.text;
import qorus.std;
import qorus.trust;
import :jinja;

namespace qorus::text {

ChatTemplate::~ChatTemplate() { delete program_; }

Result<ChatTemplate> ChatTemplate::parse(std::string_view source) noexcept {
  if (source.size() > limits::template_bytes) return fail(Errc::overflow, "chat template", "more than 1 MiB");
  ChatTemplate made;
  made.program_ = new (std::nothrow) JinjaProgram;
  if (!made.program_) return fail(Errc::out_of_memory, "chat template", "the system has no more memory");
  JinjaProgram& program = *made.program_;
  auto store = Store::create(source.size() * 100 + 1_MiB);
  if (!store) return fail(store.error());
  program.store = std::move(*store);
  // Tokens and nodes point into a copy, whose lines end in \n.
  auto own = program.store.array<char>(source.size());
  if (!own) return fail(own.error());
  std::size_t size = 0;
  for (std::size_t i = 0; i < source.size(); ++i) {
    if (source[i] == '\n' && i > 0 && source[i - 1] == '\r') continue;
    (*own)[size++] = source[i] == '\r' ? '\n' : source[i];
  }
  auto tokens = jinja_tokens({own->data(), size}, program.store);
  if (!tokens) return fail(tokens.error());
  if (auto parsed = jinja_parse(tokens->span(), program); !parsed) return fail(parsed.error());
  return made;
}

namespace {

// The variables that every template may have.
Status define(Runner& runner, const ChatOptions& options) noexcept {
  const std::pair<std::string_view, Value> names[] = {{"add_generation_prompt", of(options.add_generation_prompt)},
                                                      {"bos_token", of(options.bos)},
                                                      {"eos_token", of(options.eos)}};
  Status done;
  for (const auto& name : names) {
    if (done) done = runner.define(name.first, name.second);
  }
  return done;
}

Result<List<char>> run(Runner& runner) noexcept {
  List<char> out;
  if (auto done = runner.run(out); !done) return fail(done.error());
  return out;
}

}  // namespace

Result<List<char>> ChatTemplate::render(std::span<const ChatMessage> messages,
                                        const ChatOptions& options) const noexcept {
  if (!program_) return fail(Errc::not_built, "chat template", "an empty one: ChatTemplate::parse first");
  auto store = Store::create(options.memory);
  if (!store) return fail(store.error());
  auto list = store->array<Value>(messages.size());
  if (!list) return fail(list.error());
  for (std::size_t i = 0; i < messages.size(); ++i) {
    auto members = store->array<Pair>(2);
    if (!members) return fail(members.error());
    (*members)[0] = {of(std::string_view("role")), of(messages[i].role)};
    (*members)[1] = {of(std::string_view("content")), of(messages[i].content)};
    (*list)[i] = of(std::span<const Pair>(*members));
  }
  Runner runner(*program_, *store, options);
  auto done = define(runner, options);
  if (done) done = runner.define("messages", of(std::span<const Value>(*list)));
  if (!done) return fail(done.error());
  return run(runner);
}

Result<List<char>> ChatTemplate::render(std::string_view variables, const ChatOptions& options) const noexcept {
  if (!program_) return fail(Errc::not_built, "chat template", "an empty one: ChatTemplate::parse first");
  auto store = Store::create(options.memory);
  if (!store) return fail(store.error());
  JsonTree tree;
  if (auto parsed = tree.parse(variables); !parsed) return fail(parsed.error());
  if (!tree.root().is(JsonType::object))
    return fail(Errc::corrupt, "chat template", "the variables are an object of JSON");
  Runner runner(*program_, *store, options);
  if (auto done = define(runner, options); !done) return fail(done.error());
  auto done = tree.root().each_member([&](std::string_view key, const JsonValue& json) -> Status {
    auto name = store->text(key);
    if (!name) return fail(name.error());
    auto value = value_of(json, *store);
    return value ? runner.define(*name, *value) : Status(fail(value.error()));
  });
  if (!done) return fail(done.error());
  return run(runner);
}

}  // namespace qorus::text
