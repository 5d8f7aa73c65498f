// A GGUF file's tensors in another format, written as a new file.
module;
#include <cstddef>
#include <cstdint>
#include <string_view>
export module qorus.io:quantize;
import qorus.nn;

export namespace qorus::io {

struct QuantizeOptions {
  DType dtype = DType::q8_0;  // of every tensor that may change, or:
  // the type that a tensor shall have; called once for each.
  DType (*choose)(void* user, std::string_view tensor, const Shape& shape) = nullptr;
  // Called after each tensor; false ends it (invalid_argument, and no file is left).
  bool (*progress)(void* user, std::string_view tensor, std::size_t done, std::size_t tensors) = nullptr;
  void* user = nullptr;
  // Scales of q4_0 from the least error, each column as important as the others, instead of from the largest magnitude: slower, and nearer to the
  // original. What llama.cpp does where it has an importance matrix, and the same bytes as with one of ones.
  bool least_error = false;
  int threads = cpu_count();
};
struct Quantized {
  std::size_t tensors = 0, converted = 0;
  std::uint64_t bytes_before = 0, bytes_after = 0;  // of the tensors
};

// Reads `from`, writes `to`: metadata as it is but for "general.file_type" and "general.quantization_version"; every tensor of two extents and
// more in the chosen type, those of one extent and those whose rows are not whole blocks of it in f32 (or as they are, if they are f32, f16, bf16
// or whole numbers). Memory: 32 MiB and the tables, whatever the file's size. Errors: those of read_gguf and GgufWriter; unsupported (a
// type that cannot be made, with the tensor); out_of_memory.
[[nodiscard]] Result<Quantized> quantize(std::string_view from, std::string_view to,
                                         const QuantizeOptions& options = {}) noexcept;

}  // namespace qorus::io
