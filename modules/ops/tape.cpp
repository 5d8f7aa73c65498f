// Bodies of qorus.ops:tape.
module;
#include "kernels/kernels.h"
module qorus.ops;
import qorus.std;
import :rules;
import :kept;
import :remade;
import :loops;

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

struct GradState {
  GradSlot* slots = nullptr;
  GradSlab* slabs = nullptr;
  FreeGrad* free = nullptr;
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
      nullptr;  // the tape in one of whose rules this one records: parameters' gradients go to that one's slabs
  GradState grads;
};

namespace {

constexpr float k_one = 1;

TapeState& state_of(const Context& context) noexcept { return *static_cast<TapeState*>(context.tape); }

template <class T>
T* take_array(Context& context, std::size_t count) noexcept {
  auto slice = context.scratch->take(count * sizeof(T));
  if (!slice) return nullptr;
  return new (slice->data) T[count]();
}

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

GradSlab* slab_for(Context& context, GradState& state, const Block& block) noexcept {
  for (GradSlab* slab = state.slabs; slab; slab = slab->next) {
    if (slab->block == &block) return slab;
  }
  if (state_of(context).outer) return nullptr;  // it would end with the inner tape
  auto* slab = take_array<GradSlab>(context, 1);
  auto data = context.scratch->take(block.floats * sizeof(float));
  bool* written = take_array<bool>(context, block.leaf_count);
  if (!slab || !data || !written) return nullptr;
  *slab = {.block = &block,
           .generation = block.generation.load(std::memory_order_relaxed),
           .data = reinterpret_cast<float*>(data->data),
           .written = written,
           .next = state.slabs};
  state.slabs = slab;
  return slab;
}

// What a gradient takes: as much as the arena gives, so that neighbours in it are neighbours here.
std::size_t gradient_bytes(std::size_t numel) noexcept { return align_up(numel * sizeof(float), k_alignment); }

// From the smallest piece of free memory that is large enough, or from the arena.
float* take_gradient(Context& context, GradState& state, std::size_t numel) noexcept {
  const std::size_t bytes = gradient_bytes(numel);
  FreeGrad** best = nullptr;
  for (FreeGrad** link = &state.free; *link; link = &(*link)->next) {
    if ((*link)->bytes >= bytes && (!best || (*link)->bytes < (*best)->bytes)) best = link;
  }
  if (!best) {
    auto slice = context.scratch->take(bytes);
    return slice ? reinterpret_cast<float*>(slice->data) : nullptr;
  }
  FreeGrad* const found = *best;
  const FreeGrad all = *found;
  *best = all.next;
  if (all.bytes > bytes) {
    *best = new (reinterpret_cast<std::byte*>(found) + bytes) FreeGrad{all.next, all.bytes - bytes};
  }
  return reinterpret_cast<float*>(found);
}

void give_back(GradState& state, float* data, std::size_t numel) noexcept {
  if (numel == 0) return;
  const auto end = [](FreeGrad* piece) { return reinterpret_cast<std::byte*>(piece) + piece->bytes; };
  FreeGrad *before = nullptr, *after = state.free;
  while (after && reinterpret_cast<float*>(after) < data) before = std::exchange(after, after->next);
  auto* piece = new (data) FreeGrad{after, gradient_bytes(numel)};
  (before ? before->next : state.free) = piece;
  if (after && end(piece) == reinterpret_cast<std::byte*>(after)) *piece = {after->next, piece->bytes + after->bytes};
  if (before && end(before) == reinterpret_cast<std::byte*>(piece))
    *before = {piece->next, before->bytes + piece->bytes};
}

// Parameters that the loss does not depend on have gradient zero, and so has the padding between parameters.
void complete(const GradSlab& slab) noexcept {
  const Block& block = *slab.block;
  std::size_t end = 0;
  for (std::uint32_t i = 0; i < block.leaf_count; ++i) {
    const Leaf& leaf = block.leaves[i];
    std::memset(slab.data + end, 0, (leaf.offset - end) * sizeof(float));
    if (!slab.written[i]) std::memset(slab.data + leaf.offset, 0, leaf.count * sizeof(float));
    end = leaf.offset + leaf.count;
  }
  std::memset(slab.data + end, 0, (block.floats - end) * sizeof(float));
}

Error exhausted() noexcept {
  return {
      .code = Errc::out_of_memory, .op = "backward", .text = "the workspace's scratch is too small for the gradients"};
}

bool unfolded(const GradState& state, const void* place) noexcept {
  const auto* const at = static_cast<const std::byte*>(place);
  return at >= state.unfolded.data() && at < state.unfolded.data() + state.unfolded.size();
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
  if (!context.planning) rule_of(maker.rule).remake(maker.saved, context, reinterpret_cast<float*>(place->data));
  renewal.outer = std::exchange(innermost, &renewal);
  return {};
}

Into Grads::into(const GradRef& input) noexcept {
  if (!input || state_->failure.code != Errc::ok) return {};
  const auto none_left = [&]() -> Into {
    state_->failure = exhausted();
    return {};
  };
  if (input.leaf()) {
    GradSlab* slab = slab_for(*context_, *state_, *input.block);
    if (!slab) return none_left();
    bool& written = slab->written[input.slot & ~GradRef::k_leaf];
    return {slab->data + input.offset, std::exchange(written, true)};
  }
  GradSlot& slot = state_->slots[input.slot];
  if (slot.data) return {slot.data, true};
  slot.data = take_gradient(*context_, *state_, input.numel);
  if (!slot.data) return none_left();
  return {slot.data, false};
}

Into Grads::into_out(const GradRef& input) noexcept {
  if (!input || state_->failure.code != Errc::ok) return {};
  const bool reusable = !input.leaf() && !out_given_away_ && !out_borrowed_ && input.numel == out_numel_ &&
                        !state_->slots[input.slot].data;
  if (!reusable) return into(input);
  out_given_away_ = true;
  return {state_->slots[input.slot].data = out_, false};
}

Into Grads::into_spent(const GradRef& input, const float* spent) noexcept {
  if (!input || state_->failure.code != Errc::ok) return {};
  // An unfolded block's memory will be another's before all of that block's gradients are read; and what ends within a line is not all that
  // a gradient takes.
  const bool usable = !input.leaf() && !state_->slots[input.slot].data && !unfolded(*state_, spent) &&
                      gradient_bytes(input.numel) == input.numel * sizeof(float);
  if (!usable) return into(input);
  return {state_->slots[input.slot].data = const_cast<float*>(spent), false};
}

void Grads::pass(const GradRef& input) noexcept {
  const Into to = into_out(input);
  if (!to || to.data == out_) {
    if (to && to.accumulate) {  // the input appears twice and has the output's memory already
      parallel_elements(*context_, out_numel_, [&](std::size_t begin, std::size_t end) {
        kernels::active().axpy(1, out_ + begin, to.data + begin, end - begin);
      });
    }
    return;
  }
  parallel_elements(*context_, out_numel_, [&](std::size_t begin, std::size_t end) {
    if (to.accumulate) {
      kernels::active().axpy(1, out_ + begin, to.data + begin, end - begin);
    } else {
      std::memcpy(to.data + begin, out_ + begin, (end - begin) * sizeof(float));
    }
  });
}

void Grads::give(const GradRef& input, const float* slope) noexcept {
  const Into to = into_spent(input, slope);
  if (!to) return;
  parallel_elements(*context_, input.numel, [&](std::size_t begin, std::size_t end) {
    if (to.accumulate) {
      kernels::active().axpy(*out_, slope + begin, to.data + begin, end - begin);
    } else {
      kernels::active().unary(kernels::Unary::mul, slope + begin, to.data + begin, end - begin, *out_);
    }
  });
}

float* Grads::out_in_place() noexcept {
  if (!out_borrowed_) return out_;
  float* copy = take_gradient(*context_, *state_, out_numel_);
  if (!copy) {
    state_->failure = exhausted();
    return nullptr;
  }
  if (!context_->planning) std::memcpy(copy, out_, out_numel_ * sizeof(float));
  out_borrowed_ = false;
  return out_ = copy;
}

void Grads::update_state(const StateUpdate& update) noexcept {
  auto* placed = take_array<StateUpdate>(*context_, 1);
  if (!placed) return settle(fail(Errc::out_of_memory, "backward", "the workspace's scratch is too small"));
  *placed = update;
  if (unfolded(*state_, update.value)) {
    auto* copy = take_array<float>(*context_, update.count);  // the next block's memory will be there
    if (!copy) return settle(fail(Errc::out_of_memory, "backward", "the workspace's scratch is too small"));
    if (!context_->planning) std::copy_n(update.value, update.count, copy);
    placed->value = copy;
  }
  placed->next = std::exchange(state_->updates, placed);
}

void Grads::settle(const Status& status) noexcept {
  if (!status && state_->failure.code == Errc::ok) state_->failure = status.error();
}

float* Grads::temporary(std::size_t count) noexcept {
  const std::size_t mark = context_->scratch->mark();
  auto slice = context_->scratch->take(count * sizeof(float));
  if (!slice) {
    state_->failure = slice.error();
    return nullptr;
  }
  // A gradient taken since the last temporary must stay: only what lies above it can be given back.
  if (state_->first_temporary == state_->last_temporary || mark != state_->last_temporary)
    state_->first_temporary = mark;
  state_->last_temporary = context_->scratch->mark();
  return reinterpret_cast<float*>(slice->data);
}

// Backward from a result: `given` is dL/d(result), or null for 1.
Result<Gradients> run_backward(const Tensor& result, const float* given) noexcept {
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
  if (tape.outer) state.slabs = tape.outer->grads.slabs;
  state.slots = take_array<GradSlot>(*context, tape.slots);
  if (!state.slots) return fail(Errc::out_of_memory, "backward", "the workspace's scratch is too small");
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
  for (Node* node = context->newest; node; node = before(*node, state.remade)) {
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
    if (state.last_temporary != state.first_temporary && context->scratch->mark() == state.last_temporary) {
      context->scratch->shrink_to(state.first_temporary);
    }
    state.first_temporary = state.last_temporary = 0;
    if (state.failure.code != Errc::ok) return fail(state.failure);
    slot.data = nullptr;
    if (!grads.out_given_away_ && !grads.out_borrowed_) give_back(state, grads.out_, grads.out_numel_);
  }
  if (tape.outer && state.updates)
    return fail(Errc::unsupported, "backward", "running statistics in a layer whose backward computes it again");
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
  return run_backward(loss, nullptr);
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
  return run_backward(result, gradient.f32());
}

Result<Tensor> Gradients::of(const Tensor& tensor) const noexcept {
  if (!scope_.alive()) return fail(Errc::stale_tensor, "gradients", "used after their tape ended");
  if (auto ok = tensor.check(DType::f32, "gradients"); !ok) return fail(ok.error());
  const GradRef ref = tensor.grad_ref();
  if (!ref)
    return fail(Errc::invalid_argument, "gradients", "neither a parameter nor a watched input", tensor.shape().dims());
  const float* data = nullptr;
  if (ref.leaf()) {
    for (const GradSlab* slab = state_->slabs; slab; slab = slab->next) {
      if (slab->block == ref.block) data = slab->data + ref.offset;
    }
  } else if (!state_->slots[ref.slot].watched) {
    return fail(Errc::invalid_argument, "gradients", "an intermediate result's gradient is not kept: watch the input",
                tensor.shape().dims());
  } else {
    data = state_->slots[ref.slot].data;
  }
  if (data) {
    return Tensor(reinterpret_cast<const std::byte*>(data), DType::f32, Layout::dense(tensor.shape()), scope_)
        .in(*context_);
  }
  auto zeros = Fresh::make(*context_, tensor.shape());
  if (!zeros) return fail(zeros.error());
  if (!context_->planning) std::memset(zeros->f32(), 0, tensor.numel() * sizeof(float));
  return std::move(*zeros).freeze();
}

const StateUpdate* Gradients::state_updates() const noexcept { return scope_.alive() ? state_->updates : nullptr; }

Result<std::span<const float>> Gradients::slab(const Block& block) const noexcept {
  if (!scope_.alive()) return fail(Errc::stale_tensor, "gradients", "used after their tape ended");
  for (const GradSlab* slab = state_->slabs; slab; slab = slab->next) {
    if (slab->block == &block) return std::span<const float>(slab->data, block.floats);
  }
  return fail(Errc::not_found, "gradients", "the loss depends on no parameter of this model");
}

Result<float> Gradients::norm() const noexcept {
  if (!scope_.alive()) return fail(Errc::stale_tensor, "gradients", "used after their tape ended");
  double total = 0;
  for (const GradSlab* slab = state_->slabs; slab; slab = slab->next) {
    auto part = sum_of_squares(*context_, slab->data, slab->block->floats);
    if (!part) return fail(part.error());
    total += static_cast<double>(*part);
  }
  return static_cast<float>(std::sqrt(total)) * scale;
}

Result<Gradients> clip_norm(const Gradients& gradients, float most) noexcept {
  if (!(most > 0)) return fail(Errc::invalid_argument, "clip_norm", "the largest norm must be positive");
  auto norm = gradients.norm();
  if (!norm) return fail(norm.error());
  if (!std::isfinite(*norm)) return fail(Errc::diverged, "clip_norm", "a gradient is not finite");
  Gradients clipped = gradients;
  if (*norm > most) clipped.scale *= most / *norm;
  return clipped;
}

Result<Gradients> clip_value(const Gradients& gradients, float most) noexcept {
  if (!(most > 0)) return fail(Errc::invalid_argument, "clip_value", "the largest value must be positive");
  Gradients clipped = gradients;
  clipped.limit = most;
  return clipped;
}

Tape Workspace::record() noexcept { return Tape(context()); }

Tape::Tape(Context& context) noexcept : scope_(context) {
  TapeState* const outer = static_cast<TapeState*>(context.tape);
  if (context.failure.code != Errc::ok || (outer && !outer->in_rule)) return;
  auto* state = take_array<TapeState>(context, 1);
  if (!state) return;
  state->outer = outer;
  context.tape = state;
  context.newest = nullptr;
  context.record = record_node;
  context.run_kept = context.blocks && !outer ? run_kept : nullptr;
  context.training = recording_ = true;
}

Tape::~Tape() {
  if (!recording_) return;
  Context& context = scope_.context();
  context.tape = state_of(context).outer;
  context.record = nullptr;
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
