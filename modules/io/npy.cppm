// npy, the array files of NumPy (https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html).
module;
#include <string_view>
export module qorus.io:npy;
import qorus.tensor;

export namespace qorus::io {

// One array, in row-major order whatever the file's: f2, f4, i4, i1, u1 as they are; f8 becomes f32; bool becomes u8; i2 and
// u2 become i32, and so do i8, u4 and u8 where all numbers fit. Versions 1 to 3, little-endian. Errors, with the file's name:
// not_found, io, corrupt (not npy, a broken header, fewer or more bytes than the shape needs), unsupported (another type, big
// endian, more than 6 dimensions), overflow (too many elements, a number outside i32), out_of_memory.
[[nodiscard]] Result<Owned> read_npy(std::string_view path) noexcept;

// Any tensor but a bf16 one, version 1, row-major; the file is replaced as a whole or not at all (AtomicFile). Allocates a copy
// of a tensor that is not contiguous. Errors: invalid_dtype, stale_tensor, invalid_size, not_found (no such folder), io.
[[nodiscard]] Status write_npy(std::string_view path, const Tensor& tensor) noexcept;

}  // namespace qorus::io
