// AVX-512: the kernels of simd/conv*.h with this instruction set's vector.
#include "kernels/avx512/vec.h"
//
#include "kernels/parts.h"

namespace qorus::kernels {
namespace {
constexpr int k_conv_rows = 14;  // as in the matrix product: what the registers hold beside two vectors and a broadcast
}  // namespace
}  // namespace qorus::kernels

#include "kernels/simd/conv_tile.h"

#include "kernels/simd/conv_winograd.h"

#include "kernels/simd/conv.h"

#include "kernels/simd/conv_weight.h"

namespace qorus::kernels {

extern constinit const ConvPart conv_avx512{conv_plan, conv_task};
extern constinit const ConvTraining conv_training_avx512{conv_weight_plan, conv_weight_task};

}  // namespace qorus::kernels
