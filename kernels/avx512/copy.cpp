// AVX-512: the kernels of simd/copy.h with this instruction set's vector.
#include "kernels/avx512/vec.h"
//
#include "kernels/simd/copy.h"

namespace qorus::kernels {

extern constinit const CopyPart copy_avx512{transpose, f16_to_f32, f32_to_f16, bf16_to_f32, f32_to_bf16, u8_to_f32};

}  // namespace qorus::kernels
