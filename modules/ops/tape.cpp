// Bodies of qorus.ops:tape.
module qorus.ops;
import qorus.std;
import :rules;
import :kept;
import :remade;
import :grad_state;

namespace qorus {
namespace {

constexpr float k_one = 1;

Result<std::uint32_t> record_node(Context& context, const Node& node, const void* saved,
                                  std::size_t saved_size) noexcept {
  TapeState& tape = state_of(context);
  auto slice = context.scratch->take(align_up(sizeof(Node), 16) + saved_size);
  if (!slice) return fail(slice.error());
  std::byte* copy = slice->data + align_up(sizeof(Node), 16);
  if (saved_size) std::memcpy(copy, saved, saved_size);
  auto* placed = new (slice->data) Node(node);
  placed->saved = copy;
  placed->previous = context.newest;
  placed->out_slot = tape.slots++;
  context.newest = placed;
  ++tape.nodes;
  return placed->out_slot;
}

void run_node(const Node& node, Grads& grads) noexcept { rule_of(node.rule).backward(node.saved, grads); }

}  // namespace

Status remake(Context& context, const Node& node, Renewal*& innermost) noexcept {
  auto& renewal = *static_cast<Renewal*>(const_cast<void*>(node.saved));
  Arena& arena = *renewal.arena;
  renewal.resumed = arena.far_mark();
  // Transient results may have lain before it.
  if (auto gap = arena.take_far(renewal.far_mark - renewal.resumed); !gap) return fail(gap.error());
  auto place = arena.take_far(renewal.made.bytes);
  if (!place) return fail(place.error());
  const Node& maker = *renewal.made.node;
  renewal.outer = std::exchange(innermost, &renewal);
  return rule_of(maker.rule).remake(maker.saved, context, reinterpret_cast<float*>(place->data));
}

// Backward from a result: `given` is dL/d(result), or null for 1; `taker` is whom parameters' gradients are handed over to, or null.
Result<Gradients> run_backward(const Tensor& result, const float* given, const GradTaker* taker) noexcept {
  Context* context = result.context();
  if (!context || !context->tape || !result.tracked()) {
    return fail(Errc::invalid_argument, "backward", "the loss depends on no parameter and no watched input of a tape");
  }
  if (!given && result.numel() != 1)
    return fail(Errc::invalid_argument, "backward", "the loss must have one element", result.shape().dims());
  TapeState& tape = state_of(*context);
  if (tape.ran) return fail(Errc::invalid_argument, "backward", "this tape was run before");
  tape.ran = true;
  GradState& state = tape.grads;
  if (tape.outer) {
    state.slabs = tape.outer->grads.slabs;
    state.leaves = tape.outer->grads.leaves;
  }
  state.slots = take_array<GradSlot>(*context, tape.slots);
  if (!state.slots) return fail(Errc::out_of_memory, "backward", "the workspace's scratch is too small");
  if (taker) {
    if (auto ready = hand_over_to(*context, state, *taker); !ready) return fail(ready.error());
  }
  Grads grads(*context, state);
  const GradRef start = result.grad_ref();
  const bool borrows = given && !start.leaf();
  if (borrows) {
    state.slots[start.slot].data = const_cast<float*>(given);  // only read: out_borrowed_ sees to it
  } else {
    const Into seed = grads.into(start);
    if (!seed) return fail(state.failure);
    if (!context->planning) std::memcpy(seed.data, given ? given : &k_one, result.numel() * sizeof(float));
  }
  context->record = nullptr;  // rules compute; they are not recorded
  const auto next = [&](const Node& done) {
    if (taker) hand_over(*context, state, done.out_slot);
    return before(done, state.remade);
  };
  for (Node* node = context->newest; node; node = next(*node)) {
    if (gives_up(*node)) {
      if (auto made = remake(*context, *node, state.remade); !made) return fail(made.error());
      continue;
    }
    if (stands_for_block(*node)) {
      auto memory = unfold(*context, *node);
      if (!memory) return fail(memory.error());
      state.unfolded = *memory;
      continue;
    }
    GradSlot& slot = state.slots[node->out_slot];
    grads.out_ = slot.data;
    grads.out_numel_ = node->out_numel;
    grads.out_given_away_ = false;
    grads.out_borrowed_ = borrows && node->out_slot == start.slot;
    if (node->rule.builtin == static_cast<std::uint16_t>(RuleId::watch) && !node->rule.custom) {
      slot.watched = true;
      if (grads.out_borrowed_) slot.data = grads.out_in_place();
      if (state.failure.code != Errc::ok) return fail(state.failure);
      continue;
    }
    if (!slot.data) continue;
    for (int i = 0; i < node->read_count; ++i) {
      if (!node->reads[i].alive()) return fail(Errc::stale_tensor, "backward", "an input of the computation is gone");
    }
    tape.in_rule = true;
    run_node(*node, grads);
    tape.in_rule = false;
    end_temporaries(*context, state);
    if (state.failure.code != Errc::ok) return fail(state.failure);
    slot.data = nullptr;
    if (!grads.out_given_away_ && !grads.out_borrowed_) give_back(state, grads.out_, grads.out_numel_);
  }
  if (tape.outer && state.updates)
    return fail(Errc::unsupported, "backward", "running statistics in a layer whose backward computes it again");
  if (taker) {
    if (auto done = hand_over_rest(*context, state); !done) return fail(done.error());
  }
  const bool completes = !context->planning && !tape.outer;
  for (const GradSlab* slab = state.slabs; slab && completes; slab = slab->next) complete(*slab);
  Gradients gradients;
  gradients.context_ = context;
  gradients.state_ = &state;
  gradients.scope_ = context->scope;
  return gradients;
}

Result<Gradients> backward(const Tensor& loss) noexcept {
  if (auto ok = loss.check(DType::f32, "backward"); !ok) return fail(ok.error());
  return run_backward(loss, nullptr, nullptr);
}

Result<const StateUpdate*> run_backward_each(const Tensor& loss, const GradTaker& taker) noexcept {
  if (auto ok = loss.check(DType::f32, "backward"); !ok) return fail(ok.error());
  auto done = run_backward(loss, nullptr, &taker);
  if (!done) return fail(done.error());
  return done->state_updates();
}

Result<Gradients> backward_from(const Tensor& result, const Tensor& gradient) noexcept {
  if (auto ok = result.check(DType::f32, "backward"); !ok) return fail(ok.error());
  if (auto ok = gradient.check(DType::f32, "backward"); !ok) return fail(ok.error());
  if (result.shape() != gradient.shape()) {
    return fail(Errc::invalid_size, "backward", "the gradient must have the result's shape", result.shape().dims(),
                gradient.shape().dims());
  }
  if (!gradient.contiguous()) {
    return fail(Errc::invalid_argument, "backward", "the gradient must be contiguous", gradient.shape().dims());
  }
  return run_backward(result, gradient.f32(), nullptr);
}

Tape Workspace::record() noexcept { return Tape(context()); }

Tape::Tape(Context& context) noexcept : scope_(context) {
  TapeState* const outer = static_cast<TapeState*>(context.tape);
  if (context.failure.code != Errc::ok || (outer && !outer->in_rule)) return;
  auto* state = take_array<TapeState>(context, 1);
  if (!state) return;
  state->outer = outer;
  state->frame = context.scope;
  state->arena = context.scratch;
  context.tape = state;
  context.newest = nullptr;
  context.record = record_node;
  context.note_read = note_read;
  context.run_kept = context.blocks && !outer ? run_kept : nullptr;
  context.training = recording_ = true;
}

Tape::~Tape() {
  if (!recording_) return;
  Context& context = scope_.context();
  context.tape = state_of(context).outer;
  context.record = nullptr;
  context.note_read = nullptr;
  context.run_kept = nullptr;
  context.training = context.tape != nullptr;
  if (context.blocks && !context.tape) context.blocks->shrink_to(0);
}

Result<Tensor> Tape::input(const Tensor& tensor) noexcept {
  auto placed = scope_.input(tensor);
  if (placed && !recording_) {
    return fail(Errc::invalid_argument, "record",
                "another tape records here, or the workspace's scratch is too small for one");
  }
  return placed;
}

Result<Tensor> Tape::watch(const Tensor& tensor) noexcept {
  auto placed = input(tensor);
  if (!placed) return placed;
  if (auto ok = tensor.check(DType::f32, "watch"); !ok) return fail(ok.error());
  if (!tensor.contiguous())
    return fail(Errc::invalid_argument, "watch", "needs a contiguous tensor", tensor.shape().dims());
  auto slot = record_node(context(), Node{.rule = rule(RuleId::watch), .out_numel = tensor.numel()}, nullptr, 0);
  if (!slot) return fail(slot.error());
  return placed->with_slot(*slot);
}

std::size_t Tape::size() const noexcept {
  return recording_ ? state_of(const_cast<Scope&>(scope_).context()).nodes : 0;
}

}  // namespace qorus
