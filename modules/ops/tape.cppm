// Reverse-mode differentiation: Tape records, backward walks it, Gradients holds what came out.
export module qorus.ops:tape;
import qorus.std;
import qorus.tensor;
import :workspace;

export namespace qorus {

// Where a rule writes dL/d(input): data[0 .. numel) is added to if accumulate, else overwritten. False: nothing is wanted.
struct Into {
  float* data = nullptr;
  bool accumulate = false;
  explicit operator bool() const noexcept { return data != nullptr; }
  [[nodiscard]] Into from(std::size_t first) const noexcept { return data ? Into{data + first, accumulate} : Into{}; }
};

// What a training step is to change in a model beside its parameters: place[i] becomes keep place[i] + add value[i].
struct StateUpdate {
  const float* place = nullptr;
  const float* value = nullptr;
  std::size_t count = 0;
  float keep = 1, add = 0;
  const StateUpdate* next = nullptr;
};

struct GradState;
struct LeafPlace;
class Gradients;
class Grads;

// Whom backward_each hands the gradients of a block of parameters over to.
struct GradTaker {
  const Block* block = nullptr;
  void* user = nullptr;
  void (*take)(void* user, const Leaf& leaf, const float* gradient) noexcept = nullptr;
};

// One backward rule of an operation: a name for printing and testing, and the function that adds dL/d(inputs), given
// dL/d(output), with what the forward saved. A layer with a kernel of its own defines one and records `custom_rule(it)`.
struct Rule {
  const char* name;
  void (*backward)(const void* saved, Grads& grads) noexcept;
  // Makes the operation's result again, the same bits; null: it cannot (see Fresh::make_remade). Planned as well as run.
  Status (*remake)(const void* saved, const Context& context, float* result) noexcept = nullptr;
};
[[nodiscard]] inline RuleRef custom_rule(const Rule& rule) noexcept { return {.custom = &rule}; }

// What a backward rule works with: the gradient of its node's output, and places for those of its inputs.
class Grads {
 public:
  Grads(Context& context, GradState& state) noexcept : context_(&context), state_(&state) {}

  // dL/d(output of the node at hand), dense. Never null inside a rule.
  [[nodiscard]] const float* out() const noexcept { return out_; }
  // The place for dL/d(input). Empty if the input wants none or memory ran out (then backward ends with that error).
  [[nodiscard]] Into into(const GradRef& input) noexcept;
  // Makes a parameter's place, without writing there: for a rule that records in a tape of its own, which cannot.
  void reserve(const GradRef& parameter) noexcept;
  // As into; but if nothing was written there yet and the sizes agree, it is the output's own memory, which is not needed after
  // this node: for rules that work element by element and read out()[i] before they write data[i]. Once per node.
  [[nodiscard]] Into into_out(const GradRef& input) noexcept;
  // The same; but if nothing was written there yet it is `spent`, dense memory of the input's size on the tape whose values no rule
  // reads once this one has written there.
  [[nodiscard]] Into into_spent(const GradRef& input, const float* spent) noexcept;
  // Adds the output's gradient to the input's as it is (same element count); costs nothing where the memory can be handed over.
  void pass(const GradRef& input) noexcept;
  // Adds out()[0] times `slope` to the input's: of a loss, one number, whose slopes by that input the forward has made. Their memory may
  // become the gradient's.
  void give(const GradRef& input, const float* slope) noexcept;
  // The output's gradient, to be overwritten: it is not needed after this node. Not after into_out or pass. Null if memory ran
  // out (it may have to be copied first: then out() is the copy).
  [[nodiscard]] float* out_in_place() noexcept;
  // Has the optimizer's step change a model's state. The values stay as they are until the tape ends.
  void update_state(const StateUpdate& update) noexcept;
  // Keeps the first error of what a rule ran; backward ends with it.
  void settle(const Status& status) noexcept;
  // Uninitialised floats that live until the rule returns. Null if memory ran out.
  [[nodiscard]] float* temporary(std::size_t count) noexcept;
  [[nodiscard]] Context& context() const noexcept { return *context_; }

 private:
  friend Result<Gradients> run_backward(const Tensor& result, const float* given, const GradTaker* taker) noexcept;
  // A parameter's; no data if it wants no gradient or none could be had.
  [[nodiscard]] LeafPlace leaf_place(const GradRef& parameter) noexcept;
  Context* context_;
  GradState* state_;
  float* out_ = nullptr;
  std::size_t out_numel_ = 0;
  bool out_given_away_ = false;
  bool out_borrowed_ = false;  // the caller's memory: only read
};

// The gradients of a tape's parameters and watched inputs. A handle: valid while the tape is.
class Gradients {
 public:
  // dL/d(parameter or watched input), a tensor of its shape; zeros if the loss does not depend on it.
  // Errors: stale_tensor, invalid_argument (an intermediate result: its gradient is not kept; watch it).
  [[nodiscard]] Result<Tensor> of(const Tensor& tensor) const noexcept;
  // All gradients of a block of parameters, laid out as the block is; padding is zero. Errors: stale_tensor, not_found.
  [[nodiscard]] Result<std::span<const float>> slab(const Block& block) const noexcept;
  // sqrt(sum of squares) over all parameters; the scale included. Errors: stale_tensor, out_of_memory.
  [[nodiscard]] Result<float> norm() const noexcept;

  // What the step is to change beside parameters, in the order of the forward pass; null if nothing. For optimizers.
  [[nodiscard]] const StateUpdate* state_updates() const noexcept;

  [[nodiscard]] Context& context() const noexcept { return *context_; }  // only while the tape is open

  // What an optimizer multiplies each gradient by, and then limits it to.
  float scale = 1;
  float limit = std::numeric_limits<float>::infinity();

 private:
  friend Result<Gradients> run_backward(const Tensor& result, const float* given, const GradTaker* taker) noexcept;
  Context* context_ = nullptr;
  GradState* state_ = nullptr;
  Lifetime scope_;
};

// Runs the tape backwards from a scalar loss. The tape may be run once. Allocates in the workspace only.
// Errors: stale_tensor (an input of the computation is gone), invalid_argument (not a recorded scalar; run before), out_of_memory.
[[nodiscard]] Result<Gradients> backward(const Tensor& loss) noexcept;
// The same from a result of any shape, given dL/d(result) of that shape: f32 and contiguous, read in place. Errors: also
// invalid_size, invalid_dtype, invalid_argument (not contiguous).
[[nodiscard]] Result<Gradients> backward_from(const Tensor& result, const Tensor& gradient) noexcept;

// Runs the tape backwards from a scalar loss and calls take(leaf, gradient) once for each parameter of the block, as soon as no rule is left
// that reads it or adds to its gradient: dL/d(parameter), leaf.count floats, zeros if the loss does not depend on it. What was taken need not
// last, so that the backward has memory for a few gradients instead of all; and take may overwrite the parameter. Other blocks' parameters get
// no gradients. Gives what the step is to change beside parameters (as Gradients::state_updates). The same bits as backward's.
// Errors: those of backward; not_found (the loss depends on no parameter of the block: nothing was taken). After any other some gradients
// may have been taken.
[[nodiscard]] Result<const StateUpdate*> run_backward_each(const Tensor& loss, const GradTaker& taker) noexcept;
template <class F>
[[nodiscard]] Result<const StateUpdate*> backward_each(const Tensor& loss, const Block& block, F&& take) noexcept {
  const GradTaker taker{&block, const_cast<void*>(static_cast<const void*>(&take)),
                        [](void* user, const Leaf& leaf, const float* gradient) noexcept {
                          (*static_cast<std::remove_reference_t<F>*>(user))(leaf, gradient);
                        }};
  return run_backward_each(loss, taker);
}

// Gradients whose norm is at most `most`: scaled by most / norm where it is larger. Nothing is written: the scale goes along.
// Errors: diverged (the norm is not finite), invalid_argument, and the gradients' own.
[[nodiscard]] Result<Gradients> clip_norm(const Gradients& gradients, float most) noexcept;
// Gradients of which each element is limited to [-most, most]. Errors: invalid_argument.
[[nodiscard]] Result<Gradients> clip_value(const Gradients& gradients, float most) noexcept;

// A frame that records: every operation on a tensor that depends on a parameter or a watched input is remembered, with the little
// that its backward needs. Ends, and rewinds, at the brace.
class Tape {
 public:
  explicit Tape(Context& context) noexcept;
  ~Tape();
  Tape(const Tape&) = delete;
  Tape& operator=(const Tape&) = delete;

  // An input, without a gradient of its own. Errors: those of Scope::input; invalid_argument inside another recording.
  [[nodiscard]] Result<Tensor> input(const Tensor& tensor) noexcept;
  // An input whose gradient is wanted. f32, and contiguous. Errors: as input; invalid_dtype.
  [[nodiscard]] Result<Tensor> watch(const Tensor& tensor) noexcept;
  // How many operations were recorded, and their rules' names in order, for tests and for the curious.
  [[nodiscard]] std::size_t size() const noexcept;
  [[nodiscard]] Context& context() noexcept { return scope_.context(); }

 private:
  Scope scope_;
  bool recording_ = false;
};

}  // namespace qorus
