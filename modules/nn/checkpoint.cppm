// checkpoint: a layer that trades time for memory.
export module qorus.nn:checkpoint;
import qorus.std;
import qorus.ops;
import :param;
import :layers;
import :description;

export namespace qorus::nn {

// A layer whose type is forgotten, as the tape remembers it. The layer must stay where it is until the tape ends.
struct Body {
  const void* self = nullptr;
  Result<Tensor> (*call)(const void* self, const Tensor& x) noexcept = nullptr;
  void (*each_param)(const void* self, void* user, void (*see)(void* user, const Param& param)) noexcept = nullptr;
};
template <Layer L>
[[nodiscard]] Body body_of(const L& layer) noexcept {
  return {&layer, [](const void* self, const Tensor& x) noexcept { return (*static_cast<const L*>(self))(x); },
          [](const void* self, void* user, void (*see)(void*, const Param&)) noexcept {
            visit(*static_cast<const L*>(self), [&](std::string_view, const Param& param) { see(user, param); });
          }};
}
// What checkpoint does, as a function: for layers that have their blocks computed so where they are told to (TransformerOptions). Null:
// they are not, and a program that never asks for it links none of it.
using Recompute = Result<Tensor> (*)(const Tensor& x, const Body& body) noexcept;
[[nodiscard]] Result<Tensor> recompute(const Tensor& x, const Body& body) noexcept;

// The layer itself, except in training: there it keeps only its input for the backward, which computes the layer once more (Chen et al.,
// Training Deep Nets with Sublinear Memory Cost, 2016). For a third more time, n such blocks take the memory of n inputs and of one block's
// insides. Values and gradients are the same bits (where nothing else reads x; otherwise x's gradient is the same sum in another order);
// dropout draws the same numbers twice. Inside a block that is kept in bf16 (WorkspaceOptions::bf16) it is the layer itself. Parameters keep
// their names. Errors: those of the layer; unsupported (a layer with running statistics, which would move twice).
template <Layer L>
struct Checkpoint {
  L body;
  [[nodiscard]] Result<Tensor> operator()(const Tensor& x) const noexcept { return recompute(x, body_of(body)); }
  [[nodiscard]] Status expand_parts() noexcept { return expand(body); }
  void visit_params(Path& path, const ParamVisitor& visitor) const noexcept {
    visit(const_cast<L&>(body), path, visitor);  // as Frozen does
  }
  void describe(Writer& out) const noexcept { describe_inside(body, out); }
};
template <Layer L>
[[nodiscard]] Checkpoint<L> checkpoint(L layer) noexcept {
  return {std::move(layer)};
}

}  // namespace qorus::nn
