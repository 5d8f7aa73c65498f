// What a backward works with: slots, memory of gradients, and when a parameter's gradient is whole. Bodies in grad_state.cpp.
module qorus.ops:grad_state;
import qorus.std;
import qorus.tensor;
import :tape;
import :remade;

namespace qorus {

// The gradients of one block of parameters.
struct GradSlab {
  const Block* block = nullptr;
  std::uint64_t generation = 0;
  float* data = nullptr;
  bool* written = nullptr;  // by leaf
  GradSlab* next = nullptr;
};

// Memory of dead gradients, kept for the next ones: in the order of addresses, none next to another.
struct FreeGrad {
  FreeGrad* next;
  std::size_t bytes;
};

struct GradSlot {
  float* data = nullptr;
  bool watched = false;
};

// The gradients of one block of parameters where each is handed over as soon as it is whole (backward_each).
struct LeafGrads {
  struct Place {
    float* data = nullptr;
    bool written = false, taken = false;
  };
  const GradTaker* taker = nullptr;
  Place* places = nullptr;               // by leaf
  std::uint32_t* live = nullptr;         // leaves whose place has memory,
  std::uint32_t count = 0;               // so many
  const std::uint32_t* first = nullptr;  // as LeafUses has it; null: not known
};

// Where a recording first reads each parameter of a block: no rule of a node before that reads it or adds to its gradient.
struct LeafUses {
  const Block* block = nullptr;
  std::uint32_t* first = nullptr;  // by leaf: the slot of that node; 0: none
  LeafUses* next = nullptr;
};

struct GradState {
  GradSlot* slots = nullptr;
  GradSlab* slabs = nullptr;
  LeafGrads* leaves = nullptr;  // in place of slabs
  FreeGrad* free = nullptr;
  FreeGrad* temporaries = nullptr;  // of the rule that runs, taken from free memory: each begins a line further on
  const StateUpdate* updates = nullptr;
  std::size_t first_temporary = 0, last_temporary = 0;  // arena marks; equal when there is none
  std::span<const std::byte> unfolded;                  // the block's memory whose nodes are run
  Renewal* remade = nullptr;                            // the last results that were made again and are still needed
  Error failure;
};

struct TapeState {
  std::uint32_t slots = 1;  // slot 0 means "not tracked"
  std::uint32_t nodes = 0;
  bool ran = false;
  bool in_rule = false;  // while its backward runs a rule
  TapeState* outer =
      nullptr;     // the tape in one of whose rules this one records: parameters' gradients go to that one's slabs
  Lifetime frame;  // the tape's own, in
  const Arena* arena = nullptr;  // this arena: what is taken there stays
  LeafUses* uses = nullptr;
  bool uses_missed = false;  // a block was read first where nothing can be kept of it
  GradState grads;
};

[[nodiscard]] inline TapeState& state_of(const Context& context) noexcept {
  return *static_cast<TapeState*>(context.tape);
}

template <class T>
[[nodiscard]] T* take_array(Context& context, std::size_t count) noexcept {
  auto slice = context.scratch->take(count * sizeof(T));
  if (!slice) return nullptr;
  return new (slice->data) T[count]();
}

// From the smallest piece of free memory that is large enough, or from the arena; null if there is none.
[[nodiscard]] float* take_gradient(Context& context, GradState& state, std::size_t numel) noexcept;
void give_back(GradState& state, float* data, std::size_t numel) noexcept;
// From free memory alone, until end_temporaries; null if no piece fits.
[[nodiscard]] float* take_temporary(GradState& state, std::size_t numel) noexcept;
// Gives back what a rule took until it returned.
void end_temporaries(Context& context, GradState& state) noexcept;
// Whether a gradient of so many elements takes no more than they do: memory of that size can become one.
[[nodiscard]] bool fills_lines(std::size_t numel) noexcept;
// The error of a gradient that had no room.
[[nodiscard]] Error exhausted() noexcept;

// Where a parameter's gradient is, with whether something was written there yet; neither if it is not wanted. Errors: exhausted();
// unsupported (it was handed over before).
struct LeafPlace {
  float* data = nullptr;
  bool* written = nullptr;
};
[[nodiscard]] Result<LeafPlace> place_of(Context& context, GradState& state, const GradRef& leaf) noexcept;
// Zeros where nothing was written: parameters that the loss does not depend on, and the padding between parameters.
void complete(const GradSlab& slab) noexcept;

// Context::note_read. A tape's own, of what is recorded outside of any rule.
void note_read(Context& context, const Tensor& input) noexcept;
// Has the backward hand gradients over to the taker. Errors: exhausted().
[[nodiscard]] Status hand_over_to(Context& context, GradState& state, const GradTaker& taker) noexcept;
// Hands over what is whole once the node of this slot, and all after it, were run.
void hand_over(const Context& context, GradState& state, std::uint32_t slot) noexcept;
// Hands over all that is left, as zeros what the loss does not depend on. Errors: not_found (it depends on none of them), exhausted().
[[nodiscard]] Status hand_over_rest(Context& context, GradState& state) noexcept;

}  // namespace qorus
