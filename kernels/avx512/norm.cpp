// AVX-512: the kernels of simd/norm.h with this instruction set's vector.
#include "kernels/avx512/vec.h"
//
#include "kernels/simd/norm.h"

namespace qorus::kernels {

extern constinit const NormPart norm_avx512{layer_norm, rms_norm, moments, affine};
extern constinit const NormTraining norm_training_avx512{layer_norm_bwd, rms_norm_bwd, affine_sums, affine_bwd};

}  // namespace qorus::kernels
