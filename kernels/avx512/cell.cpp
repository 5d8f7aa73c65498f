// AVX-512: the kernels of simd/cell.h with this instruction set's vector.
#include "kernels/avx512/vec.h"
//
#include "kernels/simd/cell.h"

namespace qorus::kernels {

extern constinit const CellPart cell_avx512{lstm_cell, gru_cell};
extern constinit const CellTraining cell_training_avx512{lstm_cell_bwd, gru_cell_bwd};

}  // namespace qorus::kernels
