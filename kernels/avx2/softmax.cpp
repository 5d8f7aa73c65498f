// AVX2: the kernels of simd/softmax.h with this instruction set's vector.
#include "kernels/avx2/vec.h"
//
#include "kernels/simd/softmax.h"

namespace qorus::kernels {

extern constinit const SoftmaxPart softmax_avx2{softmax, log_softmax, cross_entropy};
extern constinit const SoftmaxTraining softmax_training_avx2{softmax_bwd, log_softmax_bwd, cross_entropy_bwd};

}  // namespace qorus::kernels
