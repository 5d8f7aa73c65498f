// AVX-512: the kernels of simd/unary.h with this instruction set's vector.
#include "kernels/avx512/vec.h"
//
#include "kernels/simd/unary.h"

namespace qorus::kernels {

extern constinit const UnaryPart unary_avx512{unary};
extern constinit const UnaryTraining unary_training_avx512{unary_bwd};

}  // namespace qorus::kernels
