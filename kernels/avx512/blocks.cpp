// AVX-512: the kernels of simd/blocks.h with this instruction set's vector.
#include "kernels/avx512/vec.h"
//
#include "kernels/simd/blocks.h"

namespace qorus::kernels {

extern constinit const BlocksPart blocks_avx512{dequantize, quantize};

}  // namespace qorus::kernels
