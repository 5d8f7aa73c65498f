// Bodies of qorus.ops:kept. A block runs in an arena of its own, where the one before ran. What it leaves there is folded into the
// workspace's arena: its larger floats become bf16, all else (nodes, integers, statistics) is copied as it is. A node that stands for the
// block on the tape has the block's own nodes before it; they are there again once the block is unfolded, at the same addresses, so that
// no pointer in them has to change.
module;
#include "kernels/kernels.h"
module qorus.ops;
import qorus.std;
import :kept;
import :rules;

namespace qorus {
namespace {

constexpr std::size_t k_piece = 65536;  // floats per task
constexpr std::size_t k_small = 8;      // floats that are fewer than the block's input or output by so much stay exact

using Piece = MadeResults::Piece;
using Call = Result<Tensor> (*)(const void* layer, const Tensor& x) noexcept;

// A block's memory, and what it became.
struct Folded {
  std::byte* memory;
  std::size_t bytes;
  std::byte* folded;    // in the workspace's arena
  const Piece* pieces;  // results in that memory, by address
  std::uint32_t count;
  std::size_t least;         // bytes from which floats are rounded
  const std::byte* own;      // the block's result, if it is one of the pieces,
  const std::byte* outside;  // and where it is kept in f32
};

void backward_none(const void* /*saved*/, Grads& /*grads*/) noexcept {}
constexpr Rule k_kept{"kept", backward_none};

// Calls exact(place, place in the fold, bytes), rounded(floats, place in the fold, count) and result(place, bytes) for the parts of a block's
// memory in their order, and gives the bytes of the fold. While planning, results have no elements: nodes alone are exact parts.
template <class Exact, class Rounded, class IsResult>
std::size_t walk(const Folded& f, bool planning, Exact&& exact, Rounded&& rounded, IsResult&& result) noexcept {
  std::byte* at = f.memory;
  std::size_t to = 0;
  const auto as_it_is = [&](std::byte* end, bool skip) {
    const auto bytes = static_cast<std::size_t>(end - at);
    if (bytes > 0 && !skip) exact(at, to, bytes);
    to += align_up(bytes, 16);
    at = end;
  };
  for (std::uint32_t i = 0; i < f.count; ++i) {
    const Piece& piece = f.pieces[i];
    as_it_is(piece.data, false);
    if (piece.data == f.own) {
      if (!planning) result(piece.data, piece.bytes);
      at += piece.bytes;
    } else if (piece.floats && piece.bytes >= f.least) {
      if (!planning) rounded(reinterpret_cast<float*>(piece.data), to, piece.bytes / sizeof(float));
      to += align_up(piece.bytes / 2, 16);
      at += piece.bytes;
    } else {
      as_it_is(piece.data + piece.bytes, planning);
    }
  }
  as_it_is(f.memory + f.bytes, false);
  return to;
}

// A rule of these finds an element by comparing it with the result: both would have to be rounded, or none.
bool may_be_rounded(const Node* last, const Node* before) noexcept {
  for (const Node* node = last; node != before; node = node->previous) {
    const auto is = [&](RuleId id) { return !node->rule.custom && node->rule.builtin == rule(id).builtin; };
    if (is(RuleId::max_pool) || is(RuleId::extreme)) return false;
  }
  return true;
}

Status fold(Context& context, Folded& f, const MadeResults& made) noexcept {
  const auto nothing = [](auto*, auto...) {};
  f.pieces = made.pieces;
  f.count = made.count;
  const std::size_t bytes = walk(f, true, nothing, nothing, nothing);
  auto place = context.scratch->take(bytes + f.count * sizeof(Piece));
  if (!place) return fail(place.error());
  f.folded = place->data;
  walk(
      f, context.planning,
      [&](const std::byte* from, std::size_t to, std::size_t count) { std::memcpy(f.folded + to, from, count); },
      [&](const float* from, std::size_t to, std::size_t count) {
        auto* out = reinterpret_cast<std::uint16_t*>(f.folded + to);
        parallel_chunks(context, count, k_piece, [&](std::size_t first, std::size_t last) {
          kernels::active().f32_to_bf16(from + first, out + first, last - first);
        });
      },
      nothing);
  std::memcpy(f.folded + bytes, made.pieces, f.count * sizeof(Piece));
  f.pieces = reinterpret_cast<const Piece*>(f.folded + bytes);
  return {};
}

// What a block gave, in the workspace's arena. y lies in the block's memory, or elsewhere.
Result<Tensor> keep_result(Context& context, const Tensor& y, const MadeResults& made, Folded& f) noexcept {
  const std::size_t bytes = row_bytes(y.dtype(), y.numel());
  if (y.data() < f.memory || y.data() >= f.memory + f.bytes) return y;
  auto kept = Fresh::make(context, y.shape(), y.dtype());
  if (!kept) return fail(kept.error());
  if (!context.planning) std::memcpy(kept->data(), y.data(), bytes);
  const bool whole = std::any_of(made.pieces, made.pieces + made.count,
                                 [&](const Piece& p) { return p.data == y.data() && p.bytes == bytes; });
  f.own = whole ? y.data() : nullptr;
  f.outside = kept->data();
  return std::move(*kept).freeze().with_slot(y.tracked() ? y.grad_ref().slot : 0);
}

}  // namespace

bool stands_for_block(const Node& node) noexcept { return node.rule.custom == &k_kept; }

Result<Tensor> run_kept(Context& context, const Tensor& x, const void* layer, Call call) noexcept {
  Arena& scratch = *context.scratch;
  Arena& blocks = *context.blocks;
  blocks.shrink_to(0);
  auto start = blocks.take(0);
  if (!start) return fail(start.error());
  Node* const before = context.newest;
  Node* last = before;
  MadeResults made;
  Folded f{.memory = start->data};
  Result<Tensor> result = x;
  {
    context.scratch = &blocks;
    const Scope frame(context);
    context.made = &made;
    auto y = call(layer, x.in(context));
    if (y && !y->contiguous()) y = ops::contiguous(*y);
    context.made = nullptr;
    context.scratch = &scratch;
    if (!y) return y;
    last = context.newest;
    f.bytes = blocks.mark();
    blocks.shrink_to(0);  // and taken again in one piece, with what lies between its parts
    if (auto whole = blocks.take(f.bytes); !whole) return fail(whole.error());
    f.least = std::numeric_limits<std::size_t>::max();
    if (may_be_rounded(last, before)) f.least = std::max(x.numel(), y->numel()) * sizeof(float) / k_small;
    result = keep_result(context, *y, made, f);
    Status done = result && last != before ? fold(context, f, made) : Status{};
    if (!done) result = fail(done.error());
  }
  if (!result) return result;
  result = result->in(context);
  if (last == before) return result;
  context.newest = last;
  auto node = context.record(context, Node{.rule = custom_rule(k_kept)}, &f, sizeof f);
  if (!node) return fail(node.error());
  return result;
}

Result<std::span<const std::byte>> unfold(Context& context, const Node& node) noexcept {
  const Folded& f = *static_cast<const Folded*>(node.saved);
  context.blocks->shrink_to(0);
  auto memory = context.blocks->take(f.bytes);
  if (!memory) return fail(memory.error());
  walk(
      f, context.planning,
      [&](std::byte* to, std::size_t from, std::size_t count) { std::memcpy(to, f.folded + from, count); },
      [&](float* to, std::size_t from, std::size_t count) {
        const auto* in = reinterpret_cast<const std::uint16_t*>(f.folded + from);
        parallel_chunks(context, count, k_piece, [&](std::size_t first, std::size_t last) {
          kernels::active().bf16_to_f32(in + first, to + first, last - first);
        });
      },
      [&](std::byte* to, std::size_t count) { std::memcpy(to, f.outside, count); });
  return std::span<const std::byte>(memory->data, f.bytes);
}

}  // namespace qorus
