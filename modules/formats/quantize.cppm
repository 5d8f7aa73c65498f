// A GGUF file's tensors in another format, written as a new file.
export module qorus.formats:quantize;
import qorus.std;
import qorus.nn;
import :importance;
import :scheme;

export namespace qorus::formats {

struct QuantizeOptions {
  DType dtype = DType::q8_0;       // of every tensor that may change, or:
  const Scheme* scheme = nullptr;  // what llama.cpp would give each
  // The type that a tensor shall have, instead of `usual`; called once for each that may change.
  DType (*choose)(void* user, std::string_view tensor, const Shape& shape, DType usual) = nullptr;
  // Called after each tensor; false ends it (invalid_argument, and no file is left).
  bool (*progress)(void* user, std::string_view tensor, std::size_t done, std::size_t tensors) = nullptr;
  void* user = nullptr;
  // How much each column counts; tensors that it does not know are quantised without. Not owned.
  const Importance* importance = nullptr;
  // Scales from the least error, each column as important as the others: what llama.cpp does with an importance matrix of ones. Slower, and
  // nearer to the original.
  bool least_error = false;
  int threads = cpu_count();
};
struct Quantized {
  std::size_t tensors = 0, converted = 0;
  std::uint64_t bytes_before = 0, bytes_after = 0;  // of the tensors
};

// Reads `from`, writes `to`: metadata as it is but for "general.file_type" and "general.quantization_version"; every tensor of two extents and
// more in the chosen type, those of one extent and those whose rows are not whole blocks of it in f32 (or as they are, if they are f32, f16, bf16
// or whole numbers). Tensors come out as llama.cpp makes them, to the byte. Memory: 32 MiB and the tables, whatever the file's size. Errors: those of read_gguf and GgufWriter; unsupported (a
// type that cannot be made, with the tensor); invalid_size (importance of another length); out_of_memory.
[[nodiscard]] Result<Quantized> quantize(std::string_view from, std::string_view to,
                                         const QuantizeOptions& options = {}) noexcept;

}  // namespace qorus::formats
