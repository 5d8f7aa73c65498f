// Tensors in another element type, piece by piece, on their way to a file.
export module qorus.formats:recode;
import qorus.std;
import qorus.nn;
import qorus.io;

export namespace qorus::formats {

// Takes bytes one after the other.
struct Sink {
  void* self = nullptr;
  Status (*write)(void* self, std::span<const std::byte> bytes) = nullptr;
};

// Whether recode makes this type: all but i32, i8, u8 and iq4_xs.
[[nodiscard]] bool can_encode(DType dtype) noexcept;

// The elements of a contiguous tensor as `dtype`, in order, to the sink; as they are if they have that type. `importance`: empty, or for each
// column how much its errors count: of one matrix, or of each of those that a tensor of three extents holds. Block formats come out as
// ggml makes them, to the byte. Takes 8 MiB of the workspace at a time, and all of its threads; rows are whole blocks. Errors: unsupported
// (a type that cannot be made), invalid_size (rows that are no whole blocks; importance of another length), stale_tensor, out_of_memory, the sink's.
[[nodiscard]] Status recode(Workspace& workspace, const Tensor& tensor, DType dtype, std::span<const float> importance,
                            const Sink& sink) noexcept;

}  // namespace qorus::formats
