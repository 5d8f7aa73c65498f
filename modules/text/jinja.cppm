// Jinja templates inside: tokens, the tree of a program, values, and what runs it.
module qorus.text:jinja;
import qorus.std;
import qorus.memory;
import qorus.trust;
import :chat;
import :json;

namespace qorus::text {

enum class TokenKind : std::uint8_t {
  data,
  open_print,
  close_print,
  open_block,
  close_block,
  name,
  string,
  integer,
  real,
  op,
  end
};
struct Token {
  TokenKind kind = TokenKind::end;
  std::string_view text;  // as it stands; of a string what it means
  std::uint32_t line = 0;
};

// Memory in small pieces out of an arena; never freed singly.
class Store {
 public:
  [[nodiscard]] static Result<Store> create(std::size_t bytes) noexcept;
  // Errors: overflow (more than it was made for).
  [[nodiscard]] Result<std::byte*> take(std::size_t bytes) noexcept;
  template <class T>
  [[nodiscard]] Result<std::span<T>> array(std::size_t count) noexcept {
    static_assert(std::is_trivially_copyable_v<T> && alignof(T) <= 16);
    auto bytes = (Checked(count) * sizeof(T)).get("chat template");
    if (!bytes) return fail(bytes.error());
    auto place = take(*bytes);
    if (!place) return fail(place.error());
    auto* first = reinterpret_cast<T*>(*place);
    for (std::size_t i = 0; i < count; ++i) new (first + i) T();
    return std::span<T>(first, count);
  }
  [[nodiscard]] Result<std::string_view> text(std::string_view a, std::string_view b = {}) noexcept;

 private:
  Arena arena_;
  std::byte* next_ = nullptr;
  std::size_t left_ = 0;
};

enum class NodeKind : std::uint8_t {
  // Expressions. a, b, c are nodes; text a name.
  constant,
  name,
  list,
  tuple,
  dictionary,
  item,
  attribute,
  slice,
  call,
  keyword,
  filter,
  test,
  unary,
  binary,
  compare,
  both,
  either,
  choice,
  // Statements.
  output,
  data,
  branch,
  loop,
  assign,
  assign_block,
  macro,
  stop,
  next,
  group,
  filter_block,
  call_block,
};
using NodeId = std::uint32_t;  // 0: none
struct Value;
struct Node {
  NodeKind kind = NodeKind::constant;
  bool flag = false;    // test: negated; loop: recursive; assign: to an attribute
  std::uint8_t op = 0;  // unary, binary, compare: see Op
  std::uint32_t line = 0;
  NodeId a = 0, b = 0, c = 0;
  NodeId next = 0;  // in a list of nodes
  std::string_view text;
  const Value* value = nullptr;  // constant
};
enum class Op : std::uint8_t {
  add,
  subtract,
  multiply,
  divide,
  whole,
  modulo,
  power,
  join,
  equal,
  unequal,
  less,
  less_equal,
  greater,
  greater_equal,
  in,
  not_in,
  negate,
  plus,
  not_
};

struct JinjaProgram {
  Store store;
  List<Node> nodes;  // the first is no node
  NodeId body = 0;
};

enum class ValueKind : std::uint8_t {
  undefined,
  none,
  boolean,
  integer,
  real,
  text,
  list,
  dictionary,
  space,
  macro,
  function,
  method
};
struct Pair;
struct Value {
  ValueKind kind = ValueKind::undefined;
  bool tuple = false;       // of a list
  std::uint32_t count = 0;  // of elements or members; of a function which one; of a macro its node
  union {
    bool boolean;
    std::int64_t integer = 0;
    double real;
    const char* text;  // with `size`
    const Value* elements;
    const Pair* members;
    Value* space;       // a namespace: one dictionary, which is replaced
    const Value* self;  // of a method
  };
  std::size_t size = 0;  // of a text, or of a name

  [[nodiscard]] std::string_view view() const noexcept {
    return kind == ValueKind::text ? std::string_view(text, size) : std::string_view();
  }
  [[nodiscard]] bool is(ValueKind k) const noexcept { return kind == k; }
  [[nodiscard]] bool number() const noexcept {
    return kind == ValueKind::integer || kind == ValueKind::real || kind == ValueKind::boolean;
  }
  [[nodiscard]] double as_real() const noexcept {
    return kind == ValueKind::real      ? real
           : kind == ValueKind::boolean ? static_cast<double>(boolean)
                                        : static_cast<double>(integer);
  }
  [[nodiscard]] std::int64_t as_integer() const noexcept { return kind == ValueKind::boolean ? boolean : integer; }
  [[nodiscard]] std::span<const Value> list() const noexcept {
    return kind == ValueKind::list ? std::span<const Value>(elements, count) : std::span<const Value>();
  }
  [[nodiscard]] std::span<const Pair> pairs() const noexcept;
};
struct Pair {
  Value key, value;
};
inline std::span<const Pair> Value::pairs() const noexcept {
  if (kind == ValueKind::space) return space->pairs();
  return kind == ValueKind::dictionary ? std::span<const Pair>(members, count) : std::span<const Pair>();
}

[[nodiscard]] inline Value of(bool x) noexcept {
  Value v;
  v.kind = ValueKind::boolean;
  v.boolean = x;
  return v;
}
[[nodiscard]] inline Value of(std::int64_t x) noexcept {
  Value v;
  v.kind = ValueKind::integer;
  v.integer = x;
  return v;
}
[[nodiscard]] inline Value of(double x) noexcept {
  Value v;
  v.kind = ValueKind::real;
  v.real = x;
  return v;
}
[[nodiscard]] inline Value of(std::string_view x) noexcept {
  Value v;
  v.kind = ValueKind::text;
  v.text = x.data();
  v.size = x.size();
  return v;
}
[[nodiscard]] inline Value of(std::span<const Value> x) noexcept {
  Value v;
  v.kind = ValueKind::list;
  v.elements = x.data();
  v.count = static_cast<std::uint32_t>(x.size());
  return v;
}
[[nodiscard]] inline Value of(std::span<const Pair> x) noexcept {
  Value v;
  v.kind = ValueKind::dictionary;
  v.members = x.data();
  v.count = static_cast<std::uint32_t>(x.size());
  return v;
}
[[nodiscard]] inline Value nothing() noexcept {
  Value v;
  v.kind = ValueKind::none;
  return v;
}

[[nodiscard]] bool truth(const Value& v) noexcept;
// What is compared counts against `left`; when that is 0, nothing is the same.
[[nodiscard]] bool same(const Value& a, const Value& b, std::uint64_t& left) noexcept;
[[nodiscard]] const Value* member(const Value& v, std::string_view key) noexcept;
// -1, 0, 1; nothing if the two have no order.
[[nodiscard]] Result<int> order(const Value& a, const Value& b, std::uint64_t& left) noexcept;
struct JsonStyle {
  std::int64_t indent = -1;
  bool sorted = false, ascii = false;
  std::string_view comma, colon = ": ";  // without a comma: ", ", or "," where lines end
};
// Appends a value as Python prints it, or as json.dumps does; text within quotes if `quoted`.
[[nodiscard]] Status append_text(List<char>& out, const Value& v, bool quoted, int depth = 0) noexcept;
[[nodiscard]] Status append_json(List<char>& out, const Value& v, const JsonStyle& style, int depth = 0) noexcept;
inline constexpr int k_value_depth = limits::template_value_depth;  // nested deeper, a value is not printed or compared
// Printed; a value may hold the same one many times, and is as long all the same.
inline constexpr std::size_t k_longest_value = limits::template_value;

[[nodiscard]] Result<List<Token>> jinja_tokens(std::string_view source, Store& store) noexcept;
[[nodiscard]] Status jinja_parse(std::span<const Token> tokens, JinjaProgram& program) noexcept;
[[nodiscard]] Result<Value> value_of(const JsonValue& json, Store& store) noexcept;

// The arguments of a call: those in order, then those with a name.
struct Arguments {
  static constexpr std::size_t k_most = 16;
  Value values[k_most];
  std::string_view names[k_most];
  std::size_t count = 0, named = 0;
  [[nodiscard]] const Value* at(std::size_t index, std::string_view name = {}) const noexcept {
    if (index < count) return &values[index];
    for (std::size_t i = count; i < count + named; ++i) {
      if (!name.empty() && names[i] == name) return &values[i];
    }
    return nullptr;
  }
};

class Runner {
 public:
  Runner(const JinjaProgram& program, Store& store, const ChatOptions& options) noexcept
      : program_(program), store_(store), options_(options), left_(options.steps) {}
  [[nodiscard]] Status define(std::string_view name, const Value& value) noexcept { return assign(name, value); }
  [[nodiscard]] Status run(List<char>& out) noexcept;

 private:
  static constexpr int k_deepest = limits::template_calls;
  enum class Flow : std::uint8_t { on, stop, next };  // what break and continue ask for
  struct Variable {
    std::string_view name;
    Value value;
  };
  // jinja_run.cpp
  [[nodiscard]] Result<Flow> statements(NodeId first, List<char>& out) noexcept;
  [[nodiscard]] Result<Flow> statement(const Node& node, List<char>& out) noexcept;
  [[nodiscard]] Result<Flow> run_loop(const Node& node, List<char>& out) noexcept;
  [[nodiscard]] Result<Flow> run_pass(const Node& node, std::span<const Value> all, std::size_t index,
                                      List<char>& out) noexcept;
  [[nodiscard]] Status run_assign(const Node& node) noexcept;
  [[nodiscard]] Status assign_to(NodeId target, const Value& value) noexcept;
  [[nodiscard]] Status assign(std::string_view name, const Value& value) noexcept;
  [[nodiscard]] Result<Value> evaluate(NodeId id) noexcept;
  [[nodiscard]] Result<Value> evaluate_node(const Node& node) noexcept;
  [[nodiscard]] Result<Value> look_up(const Node& node) noexcept;
  [[nodiscard]] Result<Value> evaluate_list(const Node& node) noexcept;
  [[nodiscard]] Result<Value> evaluate_dictionary(const Node& node) noexcept;
  [[nodiscard]] Result<Value> evaluate_binary(const Node& node) noexcept;
  [[nodiscard]] Result<Value> evaluate_compare(const Node& node) noexcept;
  [[nodiscard]] Result<Value> evaluate_slice(const Node& node) noexcept;
  [[nodiscard]] Result<Value> arithmetic(const Node& node, const Value& a, const Value& b) noexcept;
  [[nodiscard]] Result<Value> item_of(const Node& node, const Value& base, const Value& key) noexcept;
  [[nodiscard]] Result<Value> attribute_of(const Node& node, const Value& base, std::string_view name) noexcept;
  [[nodiscard]] Result<Value> call_macro(const Node& node, const Value& callee, const Arguments& arguments,
                                         const Value* caller) noexcept;
  [[nodiscard]] Result<Arguments> arguments_of(NodeId first) noexcept;
  // jinja_call.cpp
  [[nodiscard]] Result<Value> call(const Node& node, const Value* caller = nullptr) noexcept;
  [[nodiscard]] Result<Value> call_function(const Node& node, std::uint32_t which, const Arguments& arguments) noexcept;
  [[nodiscard]] Result<Value> call_method(const Node& node, std::string_view name, const Value& self,
                                          const Arguments& arguments) noexcept;
  [[nodiscard]] Result<Value> text_method(const Node& node, std::string_view name, std::string_view self,
                                          const Arguments& arguments) noexcept;
  [[nodiscard]] Result<Value> filter(const Node& node, const Value& value, const Arguments& arguments) noexcept;
  [[nodiscard]] Result<Value> text_filter(const Node& node, std::string_view name, const Value& value,
                                          const Arguments& arguments) noexcept;
  [[nodiscard]] Result<Value> list_filter(const Node& node, std::string_view name, const Value& value,
                                          const Arguments& arguments) noexcept;
  [[nodiscard]] Result<Value> select(const Node& node, std::string_view name, std::span<const Value> values,
                                     const Arguments& arguments) noexcept;
  [[nodiscard]] Result<Value> map(const Node& node, std::span<const Value> values, const Arguments& arguments) noexcept;
  [[nodiscard]] Result<bool> test(const Node& node, std::string_view name, const Value& value,
                                  const Value* argument) noexcept;
  [[nodiscard]] Result<std::span<Value>> sorted(const Node& node, std::span<const Value> values, const Value* by,
                                                const Value* exact) noexcept;
  [[nodiscard]] Result<std::span<Value>> keys_of(const Node& node, std::span<const Value> values, const Value* by,
                                                 const Value* exact) noexcept;
  [[nodiscard]] Result<std::size_t> find(std::string_view text, std::string_view what, std::size_t from = 0) noexcept;
  [[nodiscard]] Result<Value> split(std::string_view text, const Arguments& arguments) noexcept;
  [[nodiscard]] Result<Value> cased(std::string_view text, std::string_view how) noexcept;
  [[nodiscard]] Result<Value> items_of(const Value& value) noexcept;
  [[nodiscard]] Result<std::span<const Value>> elements_of(const Node& node, const Value& value) noexcept;
  [[nodiscard]] Result<Value> printed(const Value& value) noexcept;

  [[nodiscard]] Status step(std::uint64_t count = 1) noexcept;
  [[nodiscard]] tl::unexpected<Error> wrong(const Node& node, const char* why,
                                            std::string_view about = {}) const noexcept;
  [[nodiscard]] tl::unexpected<Error> missing(const Node& node, const char* what, std::string_view name) const noexcept;
  [[nodiscard]] Result<Value> text(std::string_view a, std::string_view b = {}) noexcept;
  [[nodiscard]] Status put(List<char>& out, std::string_view text) noexcept;
  [[nodiscard]] const Node& at(NodeId id) const noexcept { return program_.nodes[id]; }

  const JinjaProgram& program_;
  Store& store_;
  const ChatOptions& options_;
  List<Variable> variables_;
  struct Range {
    std::uint32_t first = 0, last = 0;
  };
  std::size_t globals_ = 0;  // those of the whole template: the first
  std::size_t floor_ = 0;    // where the macro at work begins; what lies between is not seen
  Range outer_;              // what the body of a call block sees besides: the variables of where it stands
  std::size_t scope_ = 0;    // where the innermost loop's variables begin
  std::uint64_t left_;       // steps
  std::size_t written_ = 0;
  int depth_ = 0;
  bool in_scope_ = false;
  const Node* subject_ = nullptr;  // the constant that stands for the text of a filtered block
  Value subject_value_;
};

enum Function : std::uint32_t { k_range, k_namespace, k_dict, k_raise, k_now, k_cycle };

}  // namespace qorus::text
