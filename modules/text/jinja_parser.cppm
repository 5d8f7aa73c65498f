// What turns a template's tokens into the tree of a program.
module qorus.text:jinja_parser;
import qorus.std;
import qorus.memory;
import qorus.trust;
import :jinja;

namespace qorus::text {

// Nesting is bounded, so that neither this nor running what it makes can exhaust the stack.
class Parser {
 public:
  Parser(std::span<const Token> tokens, JinjaProgram& program) noexcept : tokens_(tokens), program_(program) {}

  [[nodiscard]] Status run() noexcept {
    if (auto pushed = program_.nodes.push({}); !pushed) return pushed;
    auto body = statements({});
    if (!body) return fail(body.error());
    program_.body = *body;
    return kind() == TokenKind::end ? Status{} : Status(bad("a statement that ends nothing"));
  }

 private:
  static constexpr int k_deepest = limits::template_depth;
  // Counts how deep the parser is in itself.
  class Deeper {
   public:
    explicit Deeper(Parser& parser) noexcept : parser_(parser) { ++parser_.depth_; }
    ~Deeper() { --parser_.depth_; }
    Deeper(const Deeper&) = delete;
    Deeper& operator=(const Deeper&) = delete;
    [[nodiscard]] bool too_deep() const noexcept { return parser_.depth_ > k_deepest; }

   private:
    Parser& parser_;
  };

  [[nodiscard]] const Token& token() const noexcept { return tokens_[at_]; }
  [[nodiscard]] TokenKind kind() const noexcept { return token().kind; }
  [[nodiscard]] Dims place() const noexcept {
    return Dims{.extent = {static_cast<std::int64_t>(token().line)}, .rank = 1};
  }
  [[nodiscard]] tl::unexpected<Error> bad(const char* why) const noexcept {
    return tl::unexpected<Error>(fail(Errc::corrupt, "chat template", why, place()).value().about(token().text));
  }
  [[nodiscard]] tl::unexpected<Error> undone(std::string_view name) const noexcept {
    return tl::unexpected<Error>(
        fail(Errc::unsupported, "chat template", "a statement that is not done", place()).value().about(name));
  }
  void step() noexcept { at_ += kind() != TokenKind::end; }
  [[nodiscard]] bool is_op(std::string_view op) const noexcept { return kind() == TokenKind::op && token().text == op; }
  [[nodiscard]] bool is_name(std::string_view name) const noexcept {
    return kind() == TokenKind::name && token().text == name;
  }
  bool take_op(std::string_view op) noexcept {
    const bool here = is_op(op);
    if (here) step();
    return here;
  }
  bool take_name(std::string_view name) noexcept {
    const bool here = is_name(name);
    if (here) step();
    return here;
  }
  [[nodiscard]] Result<std::string_view> name() noexcept {
    if (kind() != TokenKind::name) return bad("a name is wanted");
    const std::string_view text = token().text;
    step();
    return text;
  }
  [[nodiscard]] Result<NodeId> make(Node node) noexcept {
    if (node.line == 0) node.line = token().line;
    if (auto pushed = program_.nodes.push(node); !pushed) return fail(pushed.error());
    return static_cast<NodeId>(program_.nodes.size() - 1);
  }
  [[nodiscard]] Result<NodeId> constant(const Value& value) noexcept {
    auto place = program_.store.array<Value>(1);
    if (!place) return fail(place.error());
    (*place)[0] = value;
    return make({.kind = NodeKind::constant, .value = place->data()});
  }
  [[nodiscard]] Node& node(NodeId id) noexcept { return program_.nodes[id]; }

  // A list of nodes under construction.
  struct Chain {
    NodeId first = 0, last = 0;
  };
  void append(Chain& chain, NodeId id) noexcept {
    if (chain.last) node(chain.last).next = id;
    if (!chain.first) chain.first = id;
    chain.last = id;
  }

  // Statements: jinja_parse.cpp.
  [[nodiscard]] Result<NodeId> statements(std::initializer_list<std::string_view> ends) noexcept;
  [[nodiscard]] Status close() noexcept;
  [[nodiscard]] Result<NodeId> closed(const Node& made) noexcept;
  [[nodiscard]] Result<NodeId> body(std::string_view end) noexcept;
  [[nodiscard]] Result<NodeId> statement() noexcept;
  [[nodiscard]] Result<NodeId> branch() noexcept;
  [[nodiscard]] Result<NodeId> loop() noexcept;
  [[nodiscard]] Result<NodeId> targets() noexcept;
  [[nodiscard]] Result<NodeId> set() noexcept;
  [[nodiscard]] Result<NodeId> macro() noexcept;
  [[nodiscard]] Result<NodeId> parameters() noexcept;
  [[nodiscard]] Result<NodeId> call_block() noexcept;

  // Expressions: jinja_expression.cpp.
  [[nodiscard]] Result<NodeId> tuple(bool conditions) noexcept;
  [[nodiscard]] Result<NodeId> expression() noexcept;
  template <class Next, class Find>
  [[nodiscard]] Result<NodeId> row(NodeKind of, Next&& next, Find&& find) noexcept;
  [[nodiscard]] int find_op(std::span<const std::pair<std::string_view, Op>> ops) const noexcept {
    for (const auto& op : ops) {
      if (is_op(op.first)) return static_cast<int>(op.second);
    }
    return -1;
  }
  [[nodiscard]] Result<NodeId> either() noexcept;
  [[nodiscard]] Result<NodeId> both() noexcept;
  [[nodiscard]] Result<NodeId> negated() noexcept;
  [[nodiscard]] Result<NodeId> compared() noexcept;
  [[nodiscard]] Result<NodeId> sum() noexcept;
  [[nodiscard]] Result<NodeId> joined() noexcept;
  [[nodiscard]] Result<NodeId> product() noexcept;
  [[nodiscard]] Result<NodeId> power() noexcept;
  [[nodiscard]] Result<NodeId> signed_value(bool filtered) noexcept;
  [[nodiscard]] Result<NodeId> primary() noexcept;
  [[nodiscard]] Result<NodeId> strings() noexcept;
  [[nodiscard]] Result<NodeId> number() noexcept;
  [[nodiscard]] Result<NodeId> bracketed() noexcept;
  [[nodiscard]] Result<NodeId> list() noexcept;
  [[nodiscard]] Result<NodeId> dictionary() noexcept;
  [[nodiscard]] Result<NodeId> postfix(NodeId value) noexcept;
  [[nodiscard]] Result<NodeId> subscript(NodeId base) noexcept;
  [[nodiscard]] Result<NodeId> arguments() noexcept;
  [[nodiscard]] Result<NodeId> called(NodeId callee) noexcept;
  [[nodiscard]] Result<NodeId> filters(NodeId value, bool begins) noexcept;
  [[nodiscard]] Result<NodeId> tested(NodeId value) noexcept;

  std::span<const Token> tokens_;
  JinjaProgram& program_;
  std::size_t at_ = 0;
  int depth_ = 0;
};

}  // namespace qorus::text
