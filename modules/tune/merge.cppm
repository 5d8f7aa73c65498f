// Models as fine-tuning left them, in one file: the base with an adapter added, or with all its weights replaced.
export module qorus.tune:merge;
import qorus.std;
import qorus.llm;
import :tuner;

export namespace qorus::tune {

struct MergeOptions {
  // Of the matrices that change, and with `all` of the others, too. Not `given`: each keeps its own type; where that cannot be made, q8_0 is taken.
  DType dtype = DType::f32;
  bool given = false;
  float scale = 1;  // of the adapter
  int threads = cpu_count();
};
struct Merged {
  std::size_t tensors = 0, changed = 0;
  std::size_t others = 0;  // of the changed ones, how many have another type than in the base
};

// Writes base + scale alpha / rank b a as a GGUF file: metadata and the other tensors as they are in `base`, a GGUF file. The sum is made in f32 and
// rounded once. Memory: the adapter and 32 MiB. Errors: those of read_gguf, read_adapter, add_adapter and GgufWriter; unsupported (a base that is no
// GGUF file; a type that cannot be made), out_of_memory.
[[nodiscard]] Result<Merged> merge(std::string_view base, std::string_view adapter, std::string_view out,
                                   const MergeOptions& options = {}) noexcept;

// Writes a model of which all weights were trained, under the metadata of the GGUF file that it was opened from. Errors: as merge; invalid_argument (only
// adapters were trained).
[[nodiscard]] Result<Merged> write_tuned(const Tuner& tuner, std::string_view base, std::string_view out,
                                         const MergeOptions& options = {}) noexcept;

}  // namespace qorus::tune
