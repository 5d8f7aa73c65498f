// The tree of a template, from its tokens: expressions.
module qorus.text;
import qorus.std;
import :jinja;
import :jinja_parser;

namespace qorus::text {

// One expression, or several with commas. With conditions or without: `in x if y` of a loop.
Result<NodeId> Parser::tuple(bool conditions) noexcept {
  auto first = conditions ? expression() : either();
  if (!first || !is_op(",")) return first;
  Chain chain;
  append(chain, *first);
  while (take_op(",")) {
    if (kind() == TokenKind::close_block || kind() == TokenKind::close_print || is_op(")")) break;
    auto more = conditions ? expression() : either();
    if (!more) return more;
    append(chain, *more);
  }
  return make({.kind = NodeKind::tuple, .a = chain.first});
}

Result<NodeId> Parser::expression() noexcept {
  const Deeper deeper(*this);
  if (deeper.too_deep()) return fail(Errc::overflow, "chat template", "nested too deep", place());
  auto value = either();
  for (int count = 0; value && take_name("if"); ++count) {
    if (count > k_deepest) return fail(Errc::overflow, "chat template", "nested too deep", place());
    auto condition = either();
    if (!condition) return condition;
    Result<NodeId> otherwise = 0u;
    if (take_name("else")) otherwise = expression();
    if (!otherwise) return otherwise;
    value = make({.kind = NodeKind::choice, .a = *condition, .b = *value, .c = *otherwise});
  }
  return value;
}

// Operators of one rank, from the left. A long row of them is nested in the tree: so many at most.
template <class Next, class Find>
Result<NodeId> Parser::row(NodeKind of, Next&& next, Find&& find) noexcept {
  auto left = next();
  for (int count = 0; left; ++count) {
    const int op = find();
    if (op < 0) break;
    if (count == k_deepest) return fail(Errc::overflow, "chat template", "too many operators in a row", place());
    step();
    auto right = next();
    if (!right) return right;
    left = make({.kind = of, .op = static_cast<std::uint8_t>(op), .a = *left, .b = *right});
  }
  return left;
}

Result<NodeId> Parser::either() noexcept {
  return row(NodeKind::either, [&] { return both(); }, [&] { return is_name("or") ? 0 : -1; });
}

Result<NodeId> Parser::both() noexcept {
  return row(NodeKind::both, [&] { return negated(); }, [&] { return is_name("and") ? 0 : -1; });
}

Result<NodeId> Parser::negated() noexcept {
  const Deeper deeper(*this);
  if (deeper.too_deep()) return fail(Errc::overflow, "chat template", "nested too deep", place());
  if (!take_name("not")) return compared();
  auto value = negated();
  return value ? make({.kind = NodeKind::unary, .op = static_cast<std::uint8_t>(Op::not_), .a = *value}) : value;
}

// a op b op c … is a list of comparisons: a: the first value; b: the others, each a compare node with its value as a.
Result<NodeId> Parser::compared() noexcept {
  auto left = sum();
  Chain chain;
  while (left) {
    static constexpr std::pair<std::string_view, Op> ops[] = {{"==", Op::equal},      {"!=", Op::unequal},
                                                              {"<", Op::less},        {">", Op::greater},
                                                              {"<=", Op::less_equal}, {">=", Op::greater_equal}};
    int op = find_op(ops);
    if (is_name("in")) op = static_cast<int>(Op::in);
    if (is_name("not") && tokens_[at_ + 1].text == "in" && tokens_[at_ + 1].kind == TokenKind::name) {  // one ends all
      op = static_cast<int>(Op::not_in);
      step();
    }
    if (op < 0) break;
    step();
    auto right = sum();
    if (!right) return right;
    auto made = make({.kind = NodeKind::compare, .op = static_cast<std::uint8_t>(op), .a = *right});
    if (!made) return made;
    append(chain, *made);
  }
  if (!left || !chain.first) return left;
  return make({.kind = NodeKind::compare, .a = *left, .b = chain.first});
}

Result<NodeId> Parser::sum() noexcept {
  static constexpr std::pair<std::string_view, Op> ops[] = {{"+", Op::add}, {"-", Op::subtract}};
  return row(NodeKind::binary, [&] { return joined(); }, [&] { return find_op(ops); });
}

Result<NodeId> Parser::joined() noexcept {
  static constexpr std::pair<std::string_view, Op> ops[] = {{"~", Op::join}};
  return row(NodeKind::binary, [&] { return product(); }, [&] { return find_op(ops); });
}

Result<NodeId> Parser::product() noexcept {
  static constexpr std::pair<std::string_view, Op> ops[] = {
      {"*", Op::multiply}, {"/", Op::divide}, {"//", Op::whole}, {"%", Op::modulo}};
  return row(NodeKind::binary, [&] { return power(); }, [&] { return find_op(ops); });
}

Result<NodeId> Parser::power() noexcept {
  static constexpr std::pair<std::string_view, Op> ops[] = {{"**", Op::power}};
  return row(NodeKind::binary, [&] { return signed_value(true); }, [&] { return find_op(ops); });
}

Result<NodeId> Parser::signed_value(bool filtered) noexcept {
  const Deeper deeper(*this);
  if (deeper.too_deep()) return fail(Errc::overflow, "chat template", "nested too deep", place());
  Result<NodeId> value = 0u;
  const bool minus = is_op("-");
  if (minus || is_op("+")) {
    step();
    value = signed_value(false);
    const Op op = minus ? Op::negate : Op::plus;
    if (value) value = make({.kind = NodeKind::unary, .op = static_cast<std::uint8_t>(op), .a = *value});
  } else {
    value = primary();
  }
  if (value) value = postfix(*value);
  if (value && filtered) return filters(*value, false);
  return value;
}

Result<NodeId> Parser::primary() noexcept {
  const Token t = token();
  if (t.kind == TokenKind::name) {
    step();
    if (t.text == "true" || t.text == "True") return constant(of(true));
    if (t.text == "false" || t.text == "False") return constant(of(false));
    if (t.text == "none" || t.text == "None") return constant(nothing());
    return make({.kind = NodeKind::name, .text = t.text});
  }
  if (t.kind == TokenKind::string) return strings();
  if (t.kind == TokenKind::integer || t.kind == TokenKind::real) return number();
  if (take_op("(")) return bracketed();
  if (take_op("[")) return list();
  if (take_op("{")) return dictionary();
  return bad("an expression is wanted");
}

// Neighbours are one.
Result<NodeId> Parser::strings() noexcept {
  std::string_view all = token().text;
  step();
  while (kind() == TokenKind::string) {
    auto joined = program_.store.text(all, token().text);
    if (!joined) return fail(joined.error());
    all = *joined;
    step();
  }
  return constant(of(all));
}

Result<NodeId> Parser::number() noexcept {
  char digits[64];
  std::size_t size = 0;
  for (const char c : token().text) {
    if (c == '_') continue;
    if (size == sizeof digits) return bad("a number of too many digits");
    digits[size++] = c;
  }
  const char* end = digits + size;
  const bool real = kind() == TokenKind::real;
  std::int64_t integer = 0;
  double value = 0;
  const auto parsed = real ? std::from_chars(digits, end, value) : std::from_chars(digits, end, integer);
  if (parsed.ec != std::errc()) return bad("a number that does not fit");
  step();
  return constant(real ? of(value) : of(integer));
}

Result<NodeId> Parser::bracketed() noexcept {
  if (take_op(")")) return make({.kind = NodeKind::tuple});
  auto value = tuple(true);
  if (value && !take_op(")")) return bad("a bracket without its end");
  return value;
}

Result<NodeId> Parser::list() noexcept {
  Chain chain;
  while (!take_op("]")) {
    auto value = expression();
    if (!value) return value;
    append(chain, *value);
    if (!take_op(",") && !is_op("]")) return bad("a list that does not end");
  }
  return make({.kind = NodeKind::list, .a = chain.first});
}

// Each member a keyword node: a: key, b: value.
Result<NodeId> Parser::dictionary() noexcept {
  Chain chain;
  while (!take_op("}")) {
    auto key = expression();
    if (!key) return key;
    if (!take_op(":")) return bad("a member without a value");
    auto value = expression();
    if (!value) return value;
    auto made = make({.kind = NodeKind::keyword, .a = *key, .b = *value});
    if (!made) return made;
    append(chain, *made);
    if (!take_op(",") && !is_op("}")) return bad("a dictionary that does not end");
  }
  return make({.kind = NodeKind::dictionary, .a = chain.first});
}

Result<NodeId> Parser::postfix(NodeId value) noexcept {
  Result<NodeId> made = value;
  for (int count = 0; made; ++count) {
    if (count > k_deepest) return fail(Errc::overflow, "chat template", "nested too deep", place());
    if (take_op(".")) {
      if (kind() != TokenKind::name && kind() != TokenKind::integer) return bad("a name is wanted");
      const std::string_view text = token().text;
      const bool index = kind() == TokenKind::integer;
      auto key = index ? number() : Result<NodeId>(0u);
      if (!key) return key;
      if (!index) step();
      made = index ? make({.kind = NodeKind::item, .a = *made, .b = *key})
                   : make({.kind = NodeKind::attribute, .a = *made, .text = text});
    } else if (take_op("[")) {
      made = subscript(*made);
    } else if (is_op("(")) {
      made = called(*made);
    } else {
      break;
    }
  }
  return made;
}

// x[i], x[a:b:c]; of a slice, b is a list of three nodes, each a group whose a is the bound or 0.
Result<NodeId> Parser::subscript(NodeId base) noexcept {
  NodeId bounds[3] = {};
  int colons = 0;
  while (!take_op("]")) {
    if (take_op(":")) {
      if (++colons > 2) return bad("a slice of more than three parts");
      continue;
    }
    auto value = expression();
    if (!value) return value;
    bounds[colons] = *value;
    if (!is_op(":") && !is_op("]")) return bad("an index that does not end");
  }
  if (colons == 0) {
    if (!bounds[0]) return bad("an index is wanted");
    return make({.kind = NodeKind::item, .a = base, .b = bounds[0]});
  }
  auto rest = make({.kind = NodeKind::group, .a = bounds[0], .b = bounds[1], .c = bounds[2]});
  return rest ? make({.kind = NodeKind::slice, .a = base, .b = *rest}) : rest;
}

// ( … ): keyword nodes, with a name or without; the flag says that a list stands for its elements.
Result<NodeId> Parser::arguments() noexcept {
  Chain chain;
  step();
  while (!take_op(")")) {
    if (is_op("**")) return undone("arguments from a dictionary");
    const bool several = take_op("*");
    std::string_view key;
    if (kind() == TokenKind::name && tokens_[at_ + 1].kind == TokenKind::op && tokens_[at_ + 1].text == "=") {
      key = token().text;
      step();
      step();
    }
    auto value = expression();
    if (!value) return value;
    auto made = make({.kind = NodeKind::keyword, .flag = several, .a = *value, .text = key});
    if (!made) return made;
    append(chain, *made);
    if (!take_op(",") && !is_op(")")) return bad("arguments that do not end");
  }
  return chain.first;
}

Result<NodeId> Parser::called(NodeId callee) noexcept {
  auto given = arguments();
  return given ? make({.kind = NodeKind::call, .a = callee, .b = *given}) : given;
}

// | filter and `is` test, one after the other.
Result<NodeId> Parser::filters(NodeId value, bool begins) noexcept {
  Result<NodeId> made = value;
  for (int count = 0; made; ++count) {
    if (count > k_deepest) return fail(Errc::overflow, "chat template", "nested too deep", place());
    if (begins || take_op("|")) {
      begins = false;
      auto which = name();
      if (!which) return fail(which.error());
      Result<NodeId> given = 0u;
      if (is_op("(")) given = arguments();
      if (!given) return given;
      made = make({.kind = NodeKind::filter, .a = *made, .b = *given, .text = *which});
    } else if (take_name("is")) {
      made = tested(*made);
    } else if (is_op("(")) {
      made = called(*made);
    } else {
      break;
    }
  }
  return made;
}

Result<NodeId> Parser::tested(NodeId value) noexcept {
  const bool negate = take_name("not");
  auto which = name();
  if (!which) return fail(which.error());
  Result<NodeId> given = 0u;
  const bool word = kind() == TokenKind::name && !is_name("else") && !is_name("or") && !is_name("and") &&
                    !is_name("is") && !is_name("if") && !is_name("in") && !is_name("not");
  if (is_op("(")) {
    given = arguments();
  } else if (word || kind() == TokenKind::string || kind() == TokenKind::integer || kind() == TokenKind::real ||
             is_op("[") || is_op("{")) {
    given = primary();
    if (given) given = postfix(*given);
    if (given) given = make({.kind = NodeKind::keyword, .a = *given});
  }
  if (!given) return given;
  return make({.kind = NodeKind::test, .flag = negate, .a = value, .b = *given, .text = *which});
}

}  // namespace qorus::text
