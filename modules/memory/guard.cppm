// Mapped files that shrink: reading what is gone raises SIGBUS, which would end the host. Here the fault becomes a mark on the file's block.
// What is gone of a page that is still there in part raises nothing and reads as zeros: who wants to know asks for the file's size again.
module qorus.memory:guard;
import qorus.std;
import :error;
import :block;

namespace qorus {

// Of a block's generation: its file lost bytes. Lifetimes from before are over; the bit goes when the block is released.
inline constexpr std::uint64_t k_torn = std::uint64_t{1} << 63;

// From now to unwatch(), a page of the mapping that cannot be read is replaced by zeros, and the block marked torn. Takes the descriptor,
// which unwatch() closes. The first call takes the
// process's handler of SIGBUS, which hands all faults elsewhere on to the one before it, or to the system; not where the environment has
// QORUS_SIGBUS=host. Allocates for every 64 files. Errors: out_of_memory. Thread-safe.
[[nodiscard]] Status watch(const std::byte* begin, std::size_t size, Block* block, int descriptor) noexcept;
void unwatch(const std::byte* begin) noexcept;
// Whether all bytes of the watched mapping that begins here could be read, and its file is as long as it was.
[[nodiscard]] bool mapping_is_whole(const std::byte* begin) noexcept;

}  // namespace qorus
