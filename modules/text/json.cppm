// JSON (RFC 8259, strictly) as a flat list of values, for files of half a million strings: one pass, no recursion, 40 bytes a value.
export module qorus.text:json;
import qorus.std;
import qorus.memory;
import qorus.trust;

export namespace qorus::text {

enum class JsonType : std::uint8_t { none, null, boolean, number, string, array, object };

struct JsonNode {
  std::string_view text;   // of a string what it means; of a number and a boolean as it stands
  std::uint32_t next = 0;  // the node after this value and all within it
  std::uint32_t size = 0;  // elements of an array, members of an object
  JsonType type = JsonType::none;
};

class JsonTree;

// A value of a tree, or none. Asked for what it is not, it gives none, 0 or false.
class JsonValue {
 public:
  JsonValue() noexcept = default;
  JsonValue(const JsonTree& tree, std::uint32_t index) noexcept : tree_(&tree), index_(index) {}

  [[nodiscard]] JsonType type() const noexcept;
  [[nodiscard]] bool is(JsonType wanted) const noexcept { return type() == wanted; }
  [[nodiscard]] explicit operator bool() const noexcept { return type() != JsonType::none; }
  [[nodiscard]] std::size_t size() const noexcept;
  [[nodiscard]] std::string_view string() const noexcept;  // empty if it is no string
  [[nodiscard]] std::int64_t integer(
      std::int64_t otherwise) const noexcept;  // also if it has a fraction or does not fit
  [[nodiscard]] double number(double otherwise) const noexcept;
  [[nodiscard]] bool fraction() const noexcept;  // a number with a fraction or an exponent: 1.0 and 1e3 are such
  [[nodiscard]] bool flag(bool otherwise) const noexcept;
  [[nodiscard]] JsonValue operator[](std::string_view key) const noexcept;  // the first member of this name
  // Calls visit(element) -> Status for each of an array; stops at an error.
  template <class F>
  [[nodiscard]] Status each(F&& visit) const noexcept;
  // Calls visit(key, value) -> Status for each member of an object.
  template <class F>
  [[nodiscard]] Status each_member(F&& visit) const noexcept;

 private:
  const JsonTree* tree_ = nullptr;
  std::uint32_t index_ = 0;
};

class JsonTree {
 public:
  // `text` must live as long as the tree. Errors: corrupt (not JSON, nested more than 64 deep), overflow (4 GiB), out_of_memory.
  [[nodiscard]] Status parse(std::string_view text) noexcept;
  [[nodiscard]] JsonValue root() const noexcept { return {*this, 0}; }
  [[nodiscard]] const JsonNode& node(std::uint32_t index) const noexcept { return nodes_[index]; }

 private:
  [[nodiscard]] Status value() noexcept;
  [[nodiscard]] Status string() noexcept;
  [[nodiscard]] Status escape(List<char>& out) noexcept;
  [[nodiscard]] Status scalar() noexcept;
  [[nodiscard]] Status push(JsonType type, std::string_view text) noexcept;
  [[nodiscard]] Status close() noexcept;
  [[nodiscard]] bool take(char c) noexcept;
  void skip_blanks() noexcept;

  static constexpr std::size_t k_deepest = limits::json_depth;
  std::string_view text_;
  std::size_t at_ = 0;
  List<JsonNode> nodes_;
  List<char> decoded_;  // strings with escapes; as long as the text at most, so that it never moves
  std::uint32_t open_[k_deepest] = {};
  std::size_t depth_ = 0;
};

template <class F>
Status JsonValue::each(F&& visit) const noexcept {
  if (!is(JsonType::array)) return {};
  const std::uint32_t end = tree_->node(index_).next;
  for (std::uint32_t i = index_ + 1; i < end; i = tree_->node(i).next) {
    if (auto ok = visit(JsonValue(*tree_, i)); !ok) return ok;
  }
  return {};
}

template <class F>
Status JsonValue::each_member(F&& visit) const noexcept {
  if (!is(JsonType::object)) return {};
  const std::uint32_t end = tree_->node(index_).next;
  for (std::uint32_t key = index_ + 1; key < end; key = tree_->node(key + 1).next) {
    if (auto ok = visit(tree_->node(key).text, JsonValue(*tree_, key + 1)); !ok) return ok;
  }
  return {};
}

}  // namespace qorus::text
