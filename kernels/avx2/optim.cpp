// AVX2: the kernels of simd/optim.h with this instruction set's vector.
#include "kernels/avx2/vec.h"
//
#include "kernels/simd/optim.h"

namespace qorus::kernels {

extern constinit const OptimTraining optim_training_avx2{adam, sgd};

}  // namespace qorus::kernels
