// Results that a tape gives up and makes again (rematerialize): what tape.cpp knows of them. Bodies there and in remade.cpp.
export module qorus.ops:remade;
import qorus.std;
import qorus.tensor;

namespace qorus {

// A result that was given up.
struct Renewal {
  Remade made;
  Arena* arena;
  std::size_t far_mark;      // before it was made
  std::size_t resumed = 0;   // before it was made again
  Renewal* outer = nullptr;  // one that was made again before and is still needed
};

// Whether the node says that a result was given up there: nodes before it read that result.
[[nodiscard]] bool gives_up(const Node& node) noexcept;
// Makes the result again that such a node gave up, where it was. Errors: out_of_memory.
[[nodiscard]] Status remake(Context& context, const Node& node, Renewal*& innermost) noexcept;
// The node before this one, which was run: if it has made the innermost result, that is no longer needed.
[[nodiscard]] Node* before(const Node& node, Renewal*& innermost) noexcept;

}  // namespace qorus
