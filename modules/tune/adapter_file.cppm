// Adapters in files: as llama.cpp reads them, and as PEFT does.
export module qorus.tune:adapter_file;
import qorus.std;
import qorus.llm;
import :tuner;

export namespace qorus::tune {

// Writes the adapters of a tuner, f32. To a path that ends in .gguf: GGUF, with the rows of queries and keys in the order that GGUF files of the
// architecture have; where such files hold several matrices in one (attn_qkv), so does the adapter, with a rank as large as all together.
// To any other: a folder, made if it is missing, with PEFT's adapter_config.json and adapter_model.safetensors; `base` is what it names as
// its base model. The files are replaced as a whole or not at all. Errors: invalid_argument (all weights were trained), unsupported (PEFT, where
// the model's files hold several matrices in one), those of GgufWriter and write_safetensors; out_of_memory.
[[nodiscard]] Status write_adapter(const Tuner& tuner, std::string_view path, std::string_view base = {}) noexcept;

}  // namespace qorus::tune
