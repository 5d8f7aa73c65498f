// AVX2: the kernels of simd/reduce.h with this instruction set's vector.
#include "kernels/avx2/vec.h"
//
#include "kernels/simd/reduce.h"

namespace qorus::kernels {

extern constinit const ReducePart reduce_avx2{reduce, arg_reduce};

}  // namespace qorus::kernels
