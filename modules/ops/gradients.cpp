// Bodies of Grads and Gradients.
module;
#include "kernels/kernels.h"
module qorus.ops;
import qorus.std;
import :grad_state;
import :loops;

namespace qorus {
namespace {

bool unfolded(const GradState& state, const void* place) noexcept {
  const auto* const at = static_cast<const std::byte*>(place);
  return at >= state.unfolded.data() && at < state.unfolded.data() + state.unfolded.size();
}

}  // namespace

void Grads::reserve(const GradRef& parameter) noexcept {
  if (state_->failure.code == Errc::ok && parameter.leaf()) static_cast<void>(leaf_place(parameter));
}

LeafPlace Grads::leaf_place(const GradRef& parameter) noexcept {
  auto place = place_of(*context_, *state_, parameter);
  if (place) return *place;
  state_->failure = place.error();
  return {};
}

Into Grads::into(const GradRef& input) noexcept {
  if (!input || state_->failure.code != Errc::ok) return {};
  if (input.leaf()) {
    const LeafPlace place = leaf_place(input);
    return place.data ? Into{place.data, std::exchange(*place.written, true)} : Into{};
  }
  GradSlot& slot = state_->slots[input.slot];
  if (slot.data) return {slot.data, true};
  slot.data = take_gradient(*context_, *state_, input.numel);
  if (!slot.data) state_->failure = exhausted();
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
  const bool usable =
      !input.leaf() && !state_->slots[input.slot].data && !unfolded(*state_, spent) && fills_lines(input.numel);
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
  if (float* const free = take_temporary(*state_, count)) return free;
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

}  // namespace qorus
