// Which type each tensor of a model gets: one for all, or the mixtures that llama.cpp makes.
export module qorus.formats:scheme;
import qorus.std;
import qorus.tensor;
import qorus.io;

export namespace qorus::formats {

// What the rules ask of a model.
struct ModelFacts {
  std::int64_t layers = 0, heads = 0, kv_heads = 0, experts = 0;
  bool llama = false, has_output = false;  // of that architecture; with an output matrix of its own
  // What the metadata says, 0 where it says nothing.
  [[nodiscard]] static ModelFacts of(const io::Gguf& file) noexcept;
};

// A way to quantise, as llama.cpp names it.
struct Scheme {
  std::string_view name;
  DType dtype = DType::f32;     // of most matrices
  std::uint32_t file_type = 0;  // GGUF's number for it ("general.file_type")
  char size = 0;                // of a mixture: 's', 'm' or 'l'; 0: none

  // The type of a matrix, by llama.cpp's rules: embedding and output, values, and what leads back into the residual stream get more bits;
  // norms, routers and positions stay as they are `stored`. Rows that are no whole blocks get a format of 32 instead, or f16.
  [[nodiscard]] DType choose(const ModelFacts& model, std::string_view tensor, const Shape& shape, DType stored,
                             bool importance) const noexcept;
};

// "f32", "f16", "bf16", "q4_0", "q4_1", "q5_0", "q5_1", "q8_0", "iq4_nl", "q2_k", "q3_k_s", "q3_k_m", "q3_k_l", "q4_k_s", "q4_k_m", "q5_k_s",
// "q5_k_m", "q6_k"; "q3_k", "q4_k", "q5_k" are their middle ones. Null if it is none.
[[nodiscard]] const Scheme* scheme_of(std::string_view name) noexcept;
// GGUF's number for files that are mostly of a type.
[[nodiscard]] std::uint32_t file_type_of(DType dtype) noexcept;

}  // namespace qorus::formats
