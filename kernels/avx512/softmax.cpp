// AVX-512: the kernels of simd/softmax.h with this instruction set's vector.
#include "kernels/avx512/vec.h"
//
#include "kernels/simd/softmax.h"

namespace qorus::kernels {

extern constinit const SoftmaxPart softmax_avx512{softmax, log_softmax, cross_entropy};
extern constinit const SoftmaxTraining softmax_training_avx512{softmax_bwd, log_softmax_bwd, cross_entropy_bwd};

}  // namespace qorus::kernels
