// AVX2: the kernels of simd/pool.h with this instruction set's vector.
#include "kernels/avx2/vec.h"
//
#include "kernels/simd/pool.h"

namespace qorus::kernels {

extern constinit const PoolPart pool_avx2{max_pool, avg_pool};
extern constinit const PoolTraining pool_training_avx2{max_pool_bwd, avg_pool_bwd};

}  // namespace qorus::kernels
