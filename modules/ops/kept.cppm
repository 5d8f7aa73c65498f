// Blocks whose insides a tape keeps in bf16: what tape.cpp knows of them. Bodies in kept.cpp.
module qorus.ops:kept;
import qorus.std;
import qorus.tensor;
import :tape;

namespace qorus {

// Context::run_kept. Errors: those of the layer, out_of_memory.
[[nodiscard]] Result<Tensor> run_kept(Context& context, const Tensor& x, const void* layer,
                                      Result<Tensor> (*call)(const void* layer, const Tensor& x) noexcept) noexcept;

// Whether the node stands for a block: the nodes before it are that block's own, and have to be unfolded first.
[[nodiscard]] bool stands_for_block(const Node& node) noexcept;
// Puts a block's memory, its nodes in it, back where it was, and says where. Another block's, unfolded before, is gone.
// Errors: out_of_memory.
[[nodiscard]] Result<std::span<const std::byte>> unfold(Context& context, const Node& node) noexcept;

}  // namespace qorus
