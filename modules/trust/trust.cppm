// What all readers of files share: how much of everything a file may have, and how what lies in a file is sorted.
export module qorus.trust;
import qorus.std;
import qorus.memory;

// The most that a file may have; more is an error, Errc::unsupported where nothing else is said. Far more than known files have, and little
// enough that no file makes us take memory or time out of proportion. SECURITY.md shows the table, tests/hostile tries each at its cap
// and one past it.
export namespace qorus::limits {

// GGUF
inline constexpr std::uint64_t gguf_entries = 16384;      // of metadata
inline constexpr std::uint64_t gguf_key = 65535;          // bytes
inline constexpr std::uint64_t gguf_text = 32_MiB;        // bytes of one string
inline constexpr std::uint64_t gguf_array = 1 << 24;      // elements
inline constexpr std::uint64_t gguf_tensors = 65536;      //
inline constexpr std::uint64_t gguf_name = 255;           // bytes
inline constexpr std::uint64_t gguf_dimensions = 4;       //
inline constexpr std::uint64_t gguf_alignment = 1 << 20;  // bytes
// safetensors and npy; tensors have k_max_rank dimensions and Shape::k_max_elements elements at most
inline constexpr std::uint64_t safetensors_header =
    100'000'000;  // bytes, as the reference implementation has it: Errc::corrupt
inline constexpr std::size_t safetensors_metadata = 65536;  // texts: Errc::corrupt
inline constexpr std::uint64_t npy_header = 65536;          // bytes
// tables and texts
inline constexpr std::size_t csv_columns = 4096, csv_rows = 10'000'000;
inline constexpr std::size_t csv_categories = 65536;  // of all columns together; a column that has more is a text
inline constexpr std::size_t text_bytes = std::size_t{1_GiB};
inline constexpr std::uint64_t gzip_unexamined = 64_MiB;  // what a gzipped file may announce; more is counted first
// tokenizers
inline constexpr std::size_t piece_bytes = 65536;
inline constexpr std::size_t vocabulary =
    std::numeric_limits<std::int32_t>::max() / 2;  // pieces, and merges: Errc::overflow
// language models: Errc::invalid_argument
inline constexpr std::int64_t model_size = 1 << 24;  // of any width, count of heads, or context
inline constexpr std::int64_t model_layers = 4096, model_experts = 4096, model_experts_used = 64;
inline constexpr std::size_t model_shards = 4096;         // Errc::corrupt
inline constexpr std::int64_t session_context = 1 << 20;  // positions
inline constexpr int session_sequences = 1024;
// JSON (Errc::corrupt), and layers written as JSON
inline constexpr std::size_t json_depth = 64;
inline constexpr std::ptrdiff_t layers_bytes = 1 << 20;
inline constexpr int layers_depth = 32;
inline constexpr std::size_t layers_values = 65536;
inline constexpr double layers = 65536;  // once repeats are made
// chat templates: Errc::overflow
inline constexpr std::size_t template_bytes = 1_MiB;
inline constexpr int template_depth = 200, template_calls = 500;  // of what is written, and of what runs
inline constexpr std::int64_t template_range = 100'000;           // numbers
inline constexpr std::size_t template_value = 16_MiB;             // bytes of one value when printed
inline constexpr int template_value_depth = 64;

}  // namespace qorus::limits

export namespace qorus {

// Sorts by what lies in a mapped file, names for instance. std::sort leaves the list where the order changes under it, as it may while somebody
// writes the file; this leaves some order. Of equal elements neither comes first.
template <class T, class Before>
void sort_mapped(T* begin, T* end, const Before& before) noexcept {
  std::make_heap(begin, end, before);
  std::sort_heap(begin, end, before);
}

}  // namespace qorus
