// A model's parameters to and from files.
export module qorus.io:model;
import qorus.std;
import qorus.nn;
import :safetensors;

export namespace qorus::io {

// Writes every parameter under its name, f32. The file is replaced as a whole or not at all. Errors: those of write_safetensors.
[[nodiscard]] Status save(const nn::Parameters& model, std::string_view path,
                          std::span<const TextPair> metadata = {}) noexcept;

// Reads every parameter of the model by name; F32, F16 and BF16 are taken. All of the file is checked before the first parameter
// changes. Errors: those of read_safetensors; not_found (a parameter the file lacks, by name), invalid_argument (a tensor that the
// model lacks), invalid_size (both shapes), invalid_dtype, out_of_memory.
[[nodiscard]] Status load(std::string_view path, nn::Parameters& model) noexcept;

}  // namespace qorus::io
