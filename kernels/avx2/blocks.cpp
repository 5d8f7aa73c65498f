// AVX2: the kernels of simd/blocks.h with this instruction set's vector.
#include "kernels/avx2/vec.h"
//
#include "kernels/simd/blocks.h"

namespace qorus::kernels {

extern constinit const BlocksPart blocks_avx2{dequantize, quantize};

}  // namespace qorus::kernels
