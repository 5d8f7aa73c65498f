// The encoders for every processor's instructions.
#include "encode_blocks.h"

namespace qorus::formats {

extern constinit const Encode k_encode_plain = encode;

}  // namespace qorus::formats
