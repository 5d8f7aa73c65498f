// AVX-512: the kernels of simd/optim.h with this instruction set's vector.
#include "kernels/avx512/vec.h"
//
#include "kernels/simd/optim.h"

namespace qorus::kernels {

extern constinit const OptimTraining optim_training_avx512{adam, sgd};

}  // namespace qorus::kernels
