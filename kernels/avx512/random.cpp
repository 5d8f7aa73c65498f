// AVX-512: the kernels of simd/random.h with this instruction set's vector.
#include "kernels/avx512/vec.h"
//
#include "kernels/simd/random.h"

namespace qorus::kernels {

extern constinit const RandomPart random_avx512{random_bits, random_uniform, dropout};

}  // namespace qorus::kernels
