// Bodies of qorus.ops:grad_state.
module qorus.ops;
import qorus.std;
import :grad_state;

namespace qorus {
namespace {

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

// The smallest piece of free memory of so many bytes or more, and of `most` at most, cut to that size; null if there is none.
std::byte* take_free(GradState& state, std::size_t bytes, std::size_t most) noexcept {
  FreeGrad** best = nullptr;
  for (FreeGrad** link = &state.free; *link; link = &(*link)->next) {
    const std::size_t size = (*link)->bytes;
    if (size >= bytes && size <= most && (!best || size < (*best)->bytes)) best = link;
  }
  if (!best) return nullptr;
  auto* const found = reinterpret_cast<std::byte*>(*best);
  const FreeGrad all = **best;
  *best = all.next;
  if (all.bytes > bytes) *best = new (found + bytes) FreeGrad{all.next, all.bytes - bytes};
  return found;
}

LeafUses* uses_of(TapeState& tape, const Block& block) noexcept {
  LeafUses* uses = tape.uses;
  while (uses && uses->block != &block) uses = uses->next;
  return uses;
}

// The leaf that a tensor of a block of parameters is, or is a part of; leaf_count if it is none that is trained.
std::uint32_t leaf_of(const Block& block, const Tensor& tensor) noexcept {
  const GradRef ref = tensor.grad_ref();
  if (ref.leaf()) return ref.slot & ~GradRef::k_leaf;
  if (!tensor.data() || !block.base || tensor.f32() < block.base) return block.leaf_count;
  const auto at = static_cast<std::size_t>(tensor.f32() - block.base);
  if (at >= block.floats) return block.leaf_count;
  const Leaf* const after = std::upper_bound(block.leaves, block.leaves + block.leaf_count, at,
                                             [](std::size_t place, const Leaf& leaf) { return place < leaf.offset; });
  return after == block.leaves ? block.leaf_count : static_cast<std::uint32_t>(after - block.leaves - 1);
}

void hand(const Context& context, GradState& state, std::uint32_t leaf) noexcept {
  LeafGrads& all = *state.leaves;
  LeafGrads::Place& place = all.places[leaf];
  const Leaf& own = all.taker->block->leaves[leaf];
  if (!context.planning) all.taker->take(all.taker->user, own, place.data);
  give_back(state, place.data, own.count);
  place = {.taken = true};
}

}  // namespace

float* take_gradient(Context& context, GradState& state, std::size_t numel) noexcept {
  const std::size_t bytes = gradient_bytes(numel);
  if (std::byte* const found = take_free(state, bytes, std::numeric_limits<std::size_t>::max()))
    return reinterpret_cast<float*>(found);
  auto slice = context.scratch->take(bytes);
  return slice ? reinterpret_cast<float*>(slice->data) : nullptr;
}

float* take_temporary(GradState& state, std::size_t numel) noexcept {
  const std::size_t bytes = k_alignment + gradient_bytes(numel);
  // A much larger piece is kept for the gradients that come.
  std::byte* const found = take_free(state, bytes, 4 * bytes);
  if (!found) return nullptr;
  state.temporaries = new (found) FreeGrad{state.temporaries, bytes};
  return reinterpret_cast<float*>(found + k_alignment);
}

void end_temporaries(Context& context, GradState& state) noexcept {
  while (FreeGrad* const piece = state.temporaries) {
    state.temporaries = piece->next;
    give_back(state, reinterpret_cast<float*>(piece), piece->bytes / sizeof(float));
  }
  if (state.last_temporary != state.first_temporary && context.scratch->mark() == state.last_temporary)
    context.scratch->shrink_to(state.first_temporary);
  state.first_temporary = state.last_temporary = 0;
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

bool fills_lines(std::size_t numel) noexcept { return gradient_bytes(numel) == numel * sizeof(float); }

Result<LeafPlace> place_of(Context& context, GradState& state, const GradRef& leaf) noexcept {
  const std::uint32_t index = leaf.slot & ~GradRef::k_leaf;
  if (!state.leaves) {
    GradSlab* slab = slab_for(context, state, *leaf.block);
    if (!slab) return fail(exhausted());
    return LeafPlace{slab->data + leaf.offset, &slab->written[index]};
  }
  LeafGrads& all = *state.leaves;
  if (leaf.block != all.taker->block) return LeafPlace{};
  LeafGrads::Place& place = all.places[index];
  const Leaf& own = leaf.block->leaves[index];
  if (place.taken)
    return fail(Errc::unsupported, "backward", "a rule adds to a parameter that is not among its operation's inputs");
  if (!place.data) {
    if (!state_of(context).outer) place.data = take_gradient(context, state, own.count);
    if (!place.data) return fail(exhausted());  // an inner tape's memory would end with it
    all.live[all.count++] = index;
  }
  return LeafPlace{place.data + (leaf.offset - own.offset), &place.written};
}

void note_read(Context& context, const Tensor& input) noexcept {
  TapeState& tape = state_of(context);
  const Block& block = *input.lifetime().block;
  LeafUses* uses = uses_of(tape, block);
  if (!uses && !tape.outer && !tape.uses_missed) {
    const bool stays = context.scratch == tape.arena && context.scope.block == tape.frame.block &&
                       context.scope.generation == tape.frame.generation;
    std::uint32_t* const first = stays ? take_array<std::uint32_t>(context, block.leaf_count) : nullptr;
    uses = first ? take_array<LeafUses>(context, 1) : nullptr;
    if (uses) tape.uses = &(*uses = {&block, first, tape.uses});
    tape.uses_missed = !uses;
  }
  const std::uint32_t leaf = uses ? leaf_of(block, input) : block.leaf_count;
  if (leaf < block.leaf_count && uses->first[leaf] == 0) uses->first[leaf] = tape.slots - 1;
}

Status hand_over_to(Context& context, GradState& state, const GradTaker& taker) noexcept {
  auto* all = take_array<LeafGrads>(context, 1);
  auto* places = take_array<LeafGrads::Place>(context, taker.block->leaf_count);
  auto* live = take_array<std::uint32_t>(context, taker.block->leaf_count);
  if (!all || !places || !live) return fail(exhausted());
  const LeafUses* const uses = uses_of(state_of(context), *taker.block);
  *all = {.taker = &taker, .places = places, .live = live, .first = uses ? uses->first : nullptr};
  state.leaves = all;
  return {};
}

void hand_over(const Context& context, GradState& state, std::uint32_t slot) noexcept {
  LeafGrads& all = *state.leaves;
  for (std::uint32_t i = all.first ? all.count : 0; i-- > 0;) {
    if (all.first[all.live[i]] < slot) continue;
    hand(context, state, all.live[i]);
    all.live[i] = all.live[--all.count];
  }
}

Status hand_over_rest(Context& context, GradState& state) noexcept {
  LeafGrads& all = *state.leaves;
  const Block& block = *all.taker->block;
  const auto reached = [](const LeafGrads::Place& place) { return place.data || place.taken; };
  if (std::none_of(all.places, all.places + block.leaf_count, reached))
    return fail(Errc::not_found, "backward", "the loss depends on no parameter of this model");
  for (; all.count > 0; --all.count) hand(context, state, all.live[all.count - 1]);
  for (std::uint32_t leaf = 0; leaf < block.leaf_count; ++leaf) {
    LeafGrads::Place& place = all.places[leaf];
    if (place.taken) continue;
    place.data = take_gradient(context, state, block.leaves[leaf].count);
    if (!place.data) return fail(exhausted());
    if (!context.planning) std::memset(place.data, 0, block.leaves[leaf].count * sizeof(float));
    hand(context, state, leaf);
  }
  return {};
}

}  // namespace qorus
