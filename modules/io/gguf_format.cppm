// What reading and writing GGUF share: the tensor formats by their numbers, and the widths of its numbers.
module qorus.io:gguf_format;
import qorus.std;
import qorus.tensor;

namespace qorus::io {

// A tensor format by its number in the file. No elements: a retired one; no name: none that we know.
struct Format {
  std::string_view name;
  std::uint16_t elements = 0, bytes = 0;  // of a block
  bool usable = false;
  DType dtype = DType::f32;
};
constexpr Format usable(std::string_view name, DType dtype) noexcept {
  return {name, static_cast<std::uint16_t>(block_size(dtype)), static_cast<std::uint16_t>(block_bytes(dtype)), true,
          dtype};
}
inline constexpr Format k_formats[] = {usable("F32", DType::f32),
                                       usable("F16", DType::f16),
                                       usable("Q4_0", DType::q4_0),
                                       usable("Q4_1", DType::q4_1),
                                       {"Q4_2"},
                                       {"Q4_3"},
                                       usable("Q5_0", DType::q5_0),
                                       usable("Q5_1", DType::q5_1),
                                       usable("Q8_0", DType::q8_0),
                                       {"Q8_1", 32, 36},
                                       usable("Q2_K", DType::q2_k),
                                       usable("Q3_K", DType::q3_k),
                                       usable("Q4_K", DType::q4_k),
                                       usable("Q5_K", DType::q5_k),
                                       usable("Q6_K", DType::q6_k),
                                       {"Q8_K", 256, 292},
                                       {"IQ2_XXS", 256, 66},
                                       {"IQ2_XS", 256, 74},
                                       {"IQ3_XXS", 256, 98},
                                       {"IQ1_S", 256, 50},
                                       usable("IQ4_NL", DType::iq4_nl),
                                       {"IQ3_S", 256, 110},
                                       {"IQ2_S", 256, 82},
                                       usable("IQ4_XS", DType::iq4_xs),
                                       usable("I8", DType::i8),
                                       {"I16", 1, 2},
                                       usable("I32", DType::i32),
                                       {"I64", 1, 8},
                                       {"F64", 1, 8},
                                       {"IQ1_M", 256, 56},
                                       usable("BF16", DType::bf16),
                                       {"Q4_0_4_4"},
                                       {"Q4_0_4_8"},
                                       {"Q4_0_8_8"},
                                       {"TQ1_0", 256, 54},
                                       {"TQ2_0", 256, 66},
                                       {"IQ4_NL_4_4"},
                                       {"IQ4_NL_4_8"},
                                       {"IQ4_NL_8_8"},
                                       {"MXFP4", 32, 17}};

// Bytes of a number, by GgufType; 0 for what is none.
inline constexpr std::uint8_t k_widths[] = {1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8};

}  // namespace qorus::io
