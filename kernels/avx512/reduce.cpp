// AVX-512: the kernels of simd/reduce.h with this instruction set's vector.
#include "kernels/avx512/vec.h"
//
#include "kernels/simd/reduce.h"

namespace qorus::kernels {

extern constinit const ReducePart reduce_avx512{reduce, arg_reduce};

}  // namespace qorus::kernels
