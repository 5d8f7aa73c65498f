// AVX-512: the kernels of simd/pool.h with this instruction set's vector.
#include "kernels/avx512/vec.h"
//
#include "kernels/simd/pool.h"

namespace qorus::kernels {

extern constinit const PoolPart pool_avx512{max_pool, avg_pool};
extern constinit const PoolTraining pool_training_avx512{max_pool_bwd, avg_pool_bwd};

}  // namespace qorus::kernels
