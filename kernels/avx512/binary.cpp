// AVX-512: the kernels of simd/binary.h with this instruction set's vector.
#include "kernels/avx512/vec.h"
//
#include "kernels/simd/binary.h"

namespace qorus::kernels {

extern constinit const BinaryPart binary_avx512{binary, compare, choose, axpy, fma_into, clamp};

}  // namespace qorus::kernels
