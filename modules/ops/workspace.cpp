// Bodies of qorus.ops:workspace.
module qorus.ops;
import qorus.std;
import :pool;

namespace qorus {

struct WorkspaceState {
  Context context;
  Arena arena, blocks;
  Pool pool;
};

namespace {

// What a workspace refers to that could not even allocate its state. Never changed.
Context& no_memory() noexcept {
  static Context context{
      .failure = {.code = Errc::out_of_memory, .op = "Workspace", .text = "the system has no more memory"}};
  return context;
}

Status prepare(WorkspaceState& state, const WorkspaceOptions& options) noexcept {
  auto arena = Arena::create(options.scratch);
  if (!arena) return fail(arena.error());
  state.arena = std::move(*arena);
  state.arena.prefer_huge_pages(true);
  state.context.scratch = &state.arena;
  state.context.seed = options.seed;
  if (options.bf16) {
    auto blocks = Arena::create(options.scratch);
    if (!blocks) return fail(blocks.error());
    state.blocks = std::move(*blocks);
    state.blocks.prefer_huge_pages(true);
    state.context.blocks = &state.blocks;
  }
  if (options.executor.run) {
    if (options.executor.width < 1)
      return fail(Errc::invalid_argument, "Workspace", "an executor needs at least one worker");
    state.context.executor = options.executor;
    return {};
  }
  if (auto started = state.pool.start(options.threads); !started) return started;
  state.context.executor = state.pool.executor();
  return {};
}

}  // namespace

Workspace::Workspace() noexcept : Workspace(WorkspaceOptions{}) {}

Workspace::Workspace(const WorkspaceOptions& options) noexcept : state_(new(std::nothrow) WorkspaceState) {
  if (!state_) return;
  if (auto ready = prepare(*state_, options); !ready) state_->context.failure = ready.error();
}

Workspace::Workspace(Workspace&&) noexcept = default;
Workspace& Workspace::operator=(Workspace&&) noexcept = default;
Workspace::~Workspace() = default;

Status Workspace::status() const noexcept {
  const Error& failure = state_ ? state_->context.failure : no_memory().failure;
  if (failure.code != Errc::ok) return fail(failure);
  return {};
}

Context& Workspace::context() noexcept { return state_ ? state_->context : no_memory(); }
ArenaCounters Workspace::counters() const noexcept {
  if (!state_) return {};
  ArenaCounters counters = state_->arena.counters();
  const ArenaCounters& blocks = state_->blocks.counters();
  counters.in_use += blocks.in_use;
  counters.high_water += blocks.high_water;
  return counters;
}
int Workspace::threads() const noexcept { return state_ ? state_->context.executor.width : 0; }
std::uint64_t Workspace::draws() const noexcept { return state_ ? state_->context.draws : 0; }
void Workspace::set_draws(std::uint64_t seed, std::uint64_t draws) noexcept {
  if (!state_) return;
  state_->context.seed = seed;
  state_->context.draws = draws;
}

Workspace planning_workspace(int threads, bool bf16) noexcept {
  // Address space only: nothing but the tape's nodes is ever touched. Where the system limits even that, less may do.
  std::size_t scratch = 4096_GiB;
  Workspace workspace{{.scratch = scratch, .threads = 1, .bf16 = bf16}};
  while (!workspace.status() && scratch > 1_GiB)
    workspace = Workspace{{.scratch = scratch /= 4, .threads = 1, .bf16 = bf16}};
  if (workspace.status()) {
    workspace.context().planning = true;
    workspace.context().scratch->prefer_huge_pages(false);
    if (bf16) workspace.context().blocks->prefer_huge_pages(false);
    workspace.context().executor.width = threads < 1 ? 1 : threads;
  }
  return workspace;
}

Scope::Scope(Context& context) noexcept : context_(&context), outer_(context.scope), outer_newest_(context.newest) {
  if (context.failure.code != Errc::ok) return;
  frame_.emplace(*context.scratch);
  if (auto mark = context.scratch->take(0)) context.scope = mark->lifetime;
}

Scope::~Scope() {
  if (!frame_) return;
  context_->scope = outer_;
  context_->newest = outer_newest_;  // what was recorded inside is stale, and its memory is about to be used again
  if (!context_->made) return;
  frame_.reset();
  if (auto mark = context_->scratch->take(0)) context_->made->drop_from(mark->data);
}

bool recorded(const Tensor& x) noexcept { return x.alive() && x.context() && x.context()->record; }

const std::byte* free_memory(const Tensor& x) noexcept {
  Context* context = x.alive() ? x.context() : nullptr;
  if (!context) return nullptr;
  auto start = context->scratch->take(0);
  return start ? start->data : nullptr;
}

Result<Tensor> in_own_frame(const Tensor& x, const void* layer, LayerCall call, const std::byte* spent) noexcept {
  Context* context = x.check("frame") ? x.context() : nullptr;
  if (context && context->record && context->run_kept && !context->made)
    return context->run_kept(*context, x, layer, call);
  if (!context || context->record) return call(layer, x);
  Arena& scratch = *context->scratch;
  const std::size_t before = scratch.mark(), x_bytes = align_up(row_bytes(x.dtype(), x.numel()));
  Result<Tensor> y = x;
  bool own = false;
  {
    Scope frame(*context);
    y = call(layer, x.in(*context));
    if (y && !y->contiguous()) y = ops::contiguous(*y);
    if (!y) return y;
    const Lifetime& scope = context->scope;
    own = y->lifetime().block == scope.block && y->lifetime().generation == scope.generation;
  }
  if (!own) return y->in(*context);
  // The result lies where the frame was, and nobody has written over it since. It goes to where the frame began, or, if that is spent, x.
  auto start = scratch.take(0);
  if (!start) return fail(start.error());
  if (spent && x.data() >= spent && x.data() + x_bytes == start->data) {
    scratch.shrink_to(before - x_bytes);
    start = scratch.take(0);
    if (!start) return fail(start.error());
  }
  if (!context->planning) {
    const std::size_t bytes = row_bytes(y->dtype(), y->numel()), mark = scratch.mark();
    auto all = scratch.take(static_cast<std::size_t>(y->data() + bytes - start->data));  // so that it may be touched
    if (!all) return fail(all.error());
    std::memmove(start->data, y->data(), bytes);
    scratch.shrink_to(mark);
  }
  auto kept = Fresh::make(*context, y->shape(), y->dtype());  // where it was moved to
  if (!kept) return fail(kept.error());
  return std::move(*kept).freeze();
}

Result<Tensor> Scope::input(const Tensor& tensor) noexcept {
  if (context_->failure.code != Errc::ok) return fail(context_->failure);
  if (auto ok = tensor.check("input"); !ok) return fail(ok.error());
  return tensor.in(*context_);
}

}  // namespace qorus
