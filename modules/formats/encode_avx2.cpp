// The encoders for AVX2.
#include "encode_blocks.h"

namespace qorus::formats {

extern constinit const Encode k_encode_avx2 = encode;

}  // namespace qorus::formats
