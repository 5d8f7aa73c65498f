// The tree of a template, from its tokens: statements.
module qorus.text;
import qorus.std;
import :jinja;
import :jinja_parser;

namespace qorus::text {

// Up to a tag that begins with one of `ends`, whose name is left as the token at hand; or to the end of the template.
Result<NodeId> Parser::statements(std::initializer_list<std::string_view> ends) noexcept {
  const Deeper deeper(*this);
  if (deeper.too_deep()) return fail(Errc::overflow, "chat template", "nested too deep", place());
  Chain chain;
  while (kind() != TokenKind::end) {
    Result<NodeId> made = 0u;
    if (kind() == TokenKind::data) {
      made = make({.kind = NodeKind::data, .text = token().text});
      step();
    } else if (kind() == TokenKind::open_print) {
      step();
      auto value = tuple(true);
      if (!value) return value;
      made = make({.kind = NodeKind::output, .a = *value});
      if (kind() != TokenKind::close_print) return bad("an expression that does not end");
      step();
    } else {
      step();
      for (const std::string_view end : ends) {
        if (is_name(end)) return chain.first;
      }
      made = statement();
    }
    if (!made) return made;
    append(chain, *made);
  }
  if (ends.size() > 0) return bad("a statement without its end");
  return chain.first;
}

Status Parser::close() noexcept {
  if (kind() != TokenKind::close_block) return bad("more than the statement has");
  step();
  return {};
}

// A node, after the tag's end.
Result<NodeId> Parser::closed(const Node& made) noexcept {
  if (auto done = close(); !done) return fail(done.error());
  return make(made);
}

// The body up to {% end %}, which is stepped over.
Result<NodeId> Parser::body(std::string_view end) noexcept {
  if (auto done = close(); !done) return fail(done.error());
  auto list = statements({end});
  if (!list) return list;
  step();
  if (auto done = close(); !done) return fail(done.error());
  return list;
}

Result<NodeId> Parser::statement() noexcept {
  const std::uint32_t line = token().line;
  auto word = name();
  if (!word) return fail(word.error());
  if (*word == "if") return branch();
  if (*word == "for") return loop();
  if (*word == "set") return set();
  if (*word == "macro") return macro();
  if (*word == "call") return call_block();
  if (*word == "break") return closed({.kind = NodeKind::stop, .line = line});
  if (*word == "continue") return closed({.kind = NodeKind::next, .line = line});
  if (*word == "generation") {  // marks what the model says: of no meaning here
    auto list = body("endgeneration");
    return list ? make({.kind = NodeKind::group, .line = line, .a = *list}) : list;
  }
  if (*word == "filter") {
    auto subject = constant(Value{});
    if (!subject) return subject;
    auto filtered = filters(*subject, true);
    if (!filtered) return filtered;
    auto list = body("endfilter");
    return list ? make({.kind = NodeKind::filter_block, .line = line, .a = *filtered, .b = *list, .c = *subject})
                : list;
  }
  return undone(*word);
}

Result<NodeId> Parser::branch() noexcept {
  const Deeper deeper(*this);
  if (deeper.too_deep()) return fail(Errc::overflow, "chat template", "nested too deep", place());
  auto condition = tuple(true);
  if (!condition) return condition;
  if (auto done = close(); !done) return fail(done.error());
  auto then = statements({"elif", "else", "endif"});
  if (!then) return then;
  Result<NodeId> otherwise = 0u;
  if (take_name("elif")) {
    otherwise = branch();
    return otherwise ? make({.kind = NodeKind::branch, .a = *condition, .b = *then, .c = *otherwise}) : otherwise;
  }
  if (take_name("else")) {
    otherwise = body("endif");
    return otherwise ? make({.kind = NodeKind::branch, .a = *condition, .b = *then, .c = *otherwise}) : otherwise;
  }
  step();
  return closed({.kind = NodeKind::branch, .a = *condition, .b = *then});
}

// a: target, b: what is looped over; its list goes on with condition and else; c: body.
Result<NodeId> Parser::loop() noexcept {
  auto target = targets();
  if (!target) return target;
  if (!take_name("in")) return bad("a loop without in");
  auto over = tuple(false);
  if (!over) return over;
  Result<NodeId> condition = 0u, otherwise = 0u;
  if (take_name("if")) condition = expression();
  if (!condition) return condition;
  if (is_name("recursive")) return undone("recursive");
  if (auto done = close(); !done) return fail(done.error());
  auto list = statements({"else", "endfor"});
  if (!list) return list;
  if (take_name("else")) {
    otherwise = body("endfor");
    if (!otherwise) return otherwise;
  } else {
    step();
    if (auto done = close(); !done) return fail(done.error());
  }
  auto parts = make({.kind = NodeKind::group, .a = *over, .b = *condition, .c = *otherwise});
  return parts ? make({.kind = NodeKind::loop, .a = *target, .b = *parts, .c = *list}) : parts;
}

// A name, or several with commas, or a namespace's attribute.
Result<NodeId> Parser::targets() noexcept {
  Chain chain;
  const bool bracket = take_op("(");
  bool several = bracket;
  do {
    if (chain.first && !(kind() == TokenKind::name && !is_name("in"))) break;  // a comma at the end
    auto word = name();
    if (!word) return fail(word.error());
    auto made = make({.kind = NodeKind::name, .text = *word});
    if (!made) return made;
    if (take_op(".")) {
      auto attribute = name();
      if (!attribute) return fail(attribute.error());
      made = make({.kind = NodeKind::attribute, .a = *made, .text = *attribute});
      if (!made) return made;
    }
    append(chain, *made);
    several = several || is_op(",");
  } while (take_op(","));
  if (bracket && !take_op(")")) return bad("a bracket without its end");
  return several ? make({.kind = NodeKind::tuple, .a = chain.first}) : Result<NodeId>(chain.first);
}

Result<NodeId> Parser::set() noexcept {
  auto target = targets();
  if (!target) return target;
  if (take_op("=")) {
    auto value = tuple(true);
    return value ? closed({.kind = NodeKind::assign, .a = *target, .b = *value}) : value;
  }
  Result<NodeId> filtered = 0u, subject = 0u;
  if (is_op("|")) {
    subject = constant(Value{});
    if (!subject) return subject;
    filtered = filters(*subject, false);
    if (!filtered) return filtered;
  }
  auto list = body("endset");
  if (!list) return list;
  auto parts = make({.kind = NodeKind::group, .a = *filtered, .b = *subject});
  return parts ? make({.kind = NodeKind::assign_block, .a = *target, .b = *list, .c = *parts}) : parts;
}

// a: parameters, each a keyword whose a is its default, if it has one; b: body.
Result<NodeId> Parser::macro() noexcept {
  auto own = name();
  if (!own) return fail(own.error());
  if (!take_op("(")) return bad("a macro without parameters in brackets");
  auto given = parameters();
  if (!given) return given;
  auto list = body("endmacro");
  return list ? make({.kind = NodeKind::macro, .a = *given, .b = *list, .text = *own}) : list;
}

// Up to the bracket's end.
Result<NodeId> Parser::parameters() noexcept {
  Chain chain;
  while (!take_op(")")) {
    auto parameter = name();
    if (!parameter) return fail(parameter.error());
    Result<NodeId> otherwise = 0u;
    if (take_op("=")) otherwise = expression();
    if (!otherwise) return otherwise;
    auto made = make({.kind = NodeKind::keyword, .a = *otherwise, .text = *parameter});
    if (!made) return made;
    append(chain, *made);
    if (!take_op(",") && !is_op(")")) return bad("parameters that do not end");
  }
  return chain.first;
}

// {% call(parameters) macro(arguments) %}: a: the call; b: a macro of what stands there, which the called one knows as caller.
Result<NodeId> Parser::call_block() noexcept {
  Result<NodeId> given = 0u;
  if (take_op("(")) given = parameters();
  if (!given) return given;
  auto called = expression();
  if (!called) return called;
  if (node(*called).kind != NodeKind::call) return bad("a call block without a call");
  auto list = body("endcall");
  if (!list) return list;
  auto made = make({.kind = NodeKind::macro, .a = *given, .b = *list, .text = "caller"});
  return made ? make({.kind = NodeKind::call_block, .a = *called, .b = *made}) : made;
}

Status jinja_parse(std::span<const Token> tokens, JinjaProgram& program) noexcept {
  return Parser(tokens, program).run();
}

}  // namespace qorus::text
