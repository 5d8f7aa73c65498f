// AVX2: the kernels of simd/unary.h with this instruction set's vector.
#include "kernels/avx2/vec.h"
//
#include "kernels/simd/unary.h"

namespace qorus::kernels {

extern constinit const UnaryPart unary_avx2{unary};
extern constinit const UnaryTraining unary_training_avx2{unary_bwd};

}  // namespace qorus::kernels
