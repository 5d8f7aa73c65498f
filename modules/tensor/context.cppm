// What a tensor carries along: the place where results go, the workers that fill it, and, while a tape records, the way to
// append a node. Plain data; the workspace owns it. The tape's own types are here because a tensor names its slot.
export module qorus.tensor:context;
import qorus.std;
import qorus.memory;

export namespace qorus {

// Spreads `tasks` calls of task(user, index, worker) over its workers and returns when all are done. worker < width.
// A host may bring its own: results do not depend on it.
struct Executor {
  void* self = nullptr;
  int width = 1;
  void (*run)(void* self, std::uint32_t tasks, void (*task)(void* user, std::uint32_t index, int worker),
              void* user) = nullptr;
};

// Names a backward rule: one of the library's own by number (so that a program which never calls backward links none of
// them), or any other by the address of its Rule, which is defined where the tape is.
struct RuleRef {
  std::uint16_t builtin = 0;
  const void* custom = nullptr;
};

// One operation on the tape. Bump-allocated, chained backwards; what the rule saved follows it in memory.
struct Node {
  Node* previous = nullptr;
  RuleRef rule;
  std::uint32_t out_slot = 0;
  std::size_t out_numel = 0;
  const void* saved = nullptr;
  static constexpr int k_max_reads = 8;
  Lifetime reads[k_max_reads];  // of the inputs that live elsewhere than in the tape's own frame
  std::uint8_t read_count = 0;
};

class Tensor;

// A result that a tape gives up once it was used, and that its rule makes again in the backward (rematerialize).
struct Remade {
  Node* node = nullptr;        // that made it
  std::byte* place = nullptr;  // at the far end of the arena
  std::size_t bytes = 0;
};

// The results that were made while a block runs whose insides a tape keeps in bf16 (WorkspaceOptions::bf16), by address. Those beyond so
// many are kept as they are.
struct MadeResults {
  struct Piece {
    std::byte* data;
    std::size_t bytes;
    bool floats;
  };
  static constexpr std::uint32_t k_most = 256;
  Piece pieces[k_most];
  std::uint32_t count = 0;

  inline void add(std::byte* data, std::size_t bytes, bool floats) noexcept {
    if (count < k_most) pieces[count++] = {data, bytes, floats};
  }
  // Memory from this place on was given back.
  inline void drop_from(const std::byte* place) noexcept {
    while (count > 0 && pieces[count - 1].data >= place) --count;
  }
};

// The environment of a computation. One thread at a time.
struct Context {
  Arena* scratch = nullptr;
  Executor executor;
  Lifetime scope;           // of the innermost frame: what an input's tensor lives by
  bool planning = false;    // shapes only: nothing is read, written or computed
  bool training = false;    // a tape records: dropout drops
  Error failure;            // why the workspace could not be made; code ok if it could
  std::uint64_t seed = 0;   // of the counter-based generator
  std::uint64_t draws = 0;  // how far its counter has come: the random state

  // Appends a copy of the node and of what its rule saved; gives its output's slot. Null without a tape.
  Result<std::uint32_t> (*record)(Context& context, const Node& node, const void* saved,
                                  std::size_t saved_size) noexcept = nullptr;
  // Told, after a node was recorded, of each input of it that is memory of parameters (Block::leaves). Null without a tape.
  void (*note_read)(Context& context, const Tensor& input) noexcept = nullptr;
  void* tape = nullptr;      // the recording's state
  Node* newest = nullptr;    // its last node; a frame inside a recording takes its own nodes away when it ends
  Remade* remade = nullptr;  // wanted: the next result that can be made again
  bool transients = false;   // results may be transient (with_transients)

  // Where blocks (layers that run in frames of their own where nothing is recorded) run on a tape that keeps their insides in bf16, one
  // after the other at the same place. Null: they run where all does, and are kept as they are.
  Arena* blocks = nullptr;
  MadeResults* made = nullptr;  // of the block that runs; null between them
  // Runs a block so: y = call(layer, x). Set by a tape.
  Result<Tensor> (*run_kept)(Context& context, const Tensor& x, const void* layer,
                             Result<Tensor> (*call)(const void* layer, const Tensor& x) noexcept) noexcept = nullptr;

  // Learns the shape of a parameter that is not bound yet, during nn::build; null otherwise.
  Status (*declare)(void* builder, const void* parameter, const Dims& shape) noexcept = nullptr;
  void* builder = nullptr;

  // Whether memory ends with the innermost frame, or, at the arena's far end, is there again when a rule reads it.
  [[nodiscard]] bool holds(const Lifetime& life) const noexcept {
    return life.block == scope.block || life.block == scratch->far_block();
  }

  // `count` counter values of the generator, no other draw's.
  [[nodiscard]] std::uint64_t draw(std::uint64_t count) noexcept {
    const std::uint64_t first = draws;
    draws += (count + 3) & ~std::uint64_t{3};
    return first;
  }
};

// Runs f(index, worker) for every index below tasks, on all workers. Does nothing while planning.
template <class F>
void parallel(const Context& context, std::uint32_t tasks, F&& f) {
  if (context.planning) return;
  if (tasks <= 1 || context.executor.width <= 1) {
    for (std::uint32_t i = 0; i < tasks; ++i) f(i, 0);
    return;
  }
  using Plain = std::remove_reference_t<F>;
  context.executor.run(
      context.executor.self, tasks,
      [](void* user, std::uint32_t index, int worker) { (*static_cast<Plain*>(user))(index, worker); },
      const_cast<void*>(static_cast<const void*>(&f)));
}

// Cuts n elements into pieces of `grain` (the last one shorter) and runs f(begin, end) for each, on all workers. The cut
// depends on n and grain alone.
template <class F>
void parallel_chunks(const Context& context, std::size_t n, std::size_t grain, F&& f) {
  if (n == 0) return;
  const std::size_t pieces = (n + grain - 1) / grain;
  parallel(context, static_cast<std::uint32_t>(pieces), [&](std::uint32_t i, int) {
    const std::size_t begin = i * grain;
    f(begin, begin + grain < n ? begin + grain : n);
  });
}

}  // namespace qorus
