// AVX2: the kernels of simd/norm.h with this instruction set's vector.
#include "kernels/avx2/vec.h"
//
#include "kernels/simd/norm.h"

namespace qorus::kernels {

extern constinit const NormPart norm_avx2{layer_norm, rms_norm, moments, affine};
extern constinit const NormTraining norm_training_avx2{layer_norm_bwd, rms_norm_bwd, affine_sums, affine_bwd};

}  // namespace qorus::kernels
