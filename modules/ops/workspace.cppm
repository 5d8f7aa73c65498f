// Workspace: the arena, the workers and the random state of a computation; its frames; and the plan of how much it needs.
export module qorus.ops:workspace;
import qorus.std;
import qorus.tensor;

export namespace qorus {

struct WorkspaceOptions {
  std::size_t scratch = 1_GiB;  // of address space; memory is used as it is touched
  int threads = cpu_count();    // workers, the caller included
  std::uint64_t seed = 0;       // of dropout and other draws
  Executor executor = {};       // the host's own workers instead of threads of ours
  // Mixed precision: a tape keeps the insides of repeated blocks (nn::Repeat, a transformer's) in bf16 between their forward and their
  // backward, in about half the memory, beside that of one block. Values are computed, and go from block to block, in f32; gradients
  // are those of activations rounded to 8 bits. What a block has of integers, and of floats less than an eighth of its input or output
  // (statistics of rows), stays exact; so does all of a block with a maximum, a minimum or a max pool, which find elements by equality.
  bool bf16 = false;
};

struct WorkspaceState;

// A rewind scope for computing without gradients: `auto frame = ws.frame(); auto y = frame.input(x) | model;`
// All tensors made in it are stale when it ends. Warm, it allocates nothing.
class Scope {
 public:
  explicit Scope(Context& context) noexcept;
  ~Scope();
  Scope(const Scope&) = delete;
  Scope& operator=(const Scope&) = delete;

  // The tensor as an input here: the same memory, borrowed. Errors: stale_tensor, and why the workspace could not be made.
  [[nodiscard]] Result<Tensor> input(const Tensor& tensor) noexcept;
  [[nodiscard]] Context& context() noexcept { return *context_; }

 private:
  Context* context_;
  std::optional<Frame> frame_;
  Lifetime outer_;
  Node* outer_newest_;
};

// layer(x) in a frame of its own, of which the result alone is kept: the memory of what came between is used again by what follows. Under
// a tape, which needs all of it, just layer(x), or, in a workspace with bf16, the same with its insides rounded until the backward comes.
// What x itself takes is used again, too, if it lies at `spent` or above: where steps follow each other, free_memory() before the first.
// Errors: those of the layer.
using LayerCall = Result<Tensor> (*)(const void* layer, const Tensor& x) noexcept;
[[nodiscard]] Result<Tensor> in_own_frame(const Tensor& x, const void* layer, LayerCall call,
                                          const std::byte* spent = nullptr) noexcept;
template <class F>
[[nodiscard]] Result<Tensor> in_own_frame(const Tensor& x, const F& layer, const std::byte* spent = nullptr) noexcept {
  return in_own_frame(
      x, &layer, [](const void* f, const Tensor& y) noexcept { return Result<Tensor>((*static_cast<const F*>(f))(y)); },
      spent);
}
// Elements from which on a large result is computed again in the backward rather than kept: what the caches hold is sooner read.
inline constexpr std::size_t k_again_from = std::size_t(1) << 20;
// use(make(x)), of which a tape keeps less: if make ends in an operation that costs little (a norm, ops::gated, ops::attention of
// k_again_from elements or more), its result lies at the far end of the workspace's memory while `use` runs, is gone then, and the backward makes it
// again before it needs it. The same bits. `use` gives a result of its own. Errors: those of both; stale_tensor, later, for who keeps what
// `use` was given.
[[nodiscard]] Result<Tensor> rematerialize(const Tensor& x, const void* make, LayerCall make_call, const void* use,
                                           LayerCall use_call) noexcept;
template <class Make, class Use>
[[nodiscard]] Result<Tensor> rematerialize(const Tensor& x, const Make& make, const Use& use) noexcept {
  return rematerialize(
      x, &make,
      [](const void* f, const Tensor& t) noexcept { return Result<Tensor>((*static_cast<const Make*>(f))(t)); }, &use,
      [](const void* f, const Tensor& t) noexcept { return Result<Tensor>((*static_cast<const Use*>(f))(t)); });
}
// body(x), of which a tape keeps less: results that were asked to be transient (ops::LinearParts, Fresh::make_transient) are gone when it
// ends. What it gives is none of them; a rule that reads one finds it stale (backward then fails with stale_tensor). Errors: those of body.
[[nodiscard]] Result<Tensor> with_transients(const Tensor& x, const void* body, LayerCall call) noexcept;
template <class F>
[[nodiscard]] Result<Tensor> with_transients(const Tensor& x, const F& body) noexcept {
  return with_transients(
      x, &body, [](const void* f, const Tensor& t) noexcept { return Result<Tensor>((*static_cast<const F*>(f))(t)); });
}
// Whether what is computed of x is recorded; false if x is gone.
[[nodiscard]] bool recorded(const Tensor& x) noexcept;
// Where the memory of x's workspace begins that nobody has yet; null if there is none.
[[nodiscard]] const std::byte* free_memory(const Tensor& x) noexcept;

class Tape;

// Owns an arena and workers (threads that sleep when idle). Not thread-safe itself: one per thread of the host. Movable while no
// frame is open. What went wrong in making it (no memory, threads < 1) is told by status() and by every use.
class Workspace {
 public:
  Workspace() noexcept;
  explicit Workspace(const WorkspaceOptions& options) noexcept;
  Workspace(Workspace&&) noexcept;
  Workspace& operator=(Workspace&&) noexcept;
  ~Workspace();

  [[nodiscard]] Status status() const noexcept;
  [[nodiscard]] Scope frame() noexcept { return Scope(context()); }
  // A frame that records for backward. `auto tape = ws.record();`
  [[nodiscard]] Tape record() noexcept;
  [[nodiscard]] Context& context() noexcept;
  [[nodiscard]] ArenaCounters counters() const noexcept;
  [[nodiscard]] int threads() const noexcept;
  // The random state: how many values were drawn. Setting it (and the seed) continues an earlier run.
  [[nodiscard]] std::uint64_t draws() const noexcept;
  void set_draws(std::uint64_t seed, std::uint64_t draws) noexcept;

 private:
  std::unique_ptr<WorkspaceState> state_;
};

// A workspace that runs any code over shapes only: nothing is computed or read, and counters().high_water tells the bytes.
// `threads` is the number of workers to plan for: each has scratch of its own. bf16: as WorkspaceOptions has it.
[[nodiscard]] Workspace planning_workspace(int threads = 1, bool bf16 = false) noexcept;

}  // namespace qorus
