// Puts the training kernels of each instruction set together. A program that never trains does not link this file.
#include <cstring>

#include "kernels/parts.h"

namespace qorus::kernels {
namespace {

constexpr Training assemble(const UnaryTraining& unary, const SoftmaxTraining& softmax, const NormTraining& norm,
                            const CellTraining& cell, const OptimTraining& optim) {
  return {
      .unary_bwd = unary.unary_bwd,
      .softmax_bwd = softmax.softmax_bwd,
      .log_softmax_bwd = softmax.log_softmax_bwd,
      .cross_entropy_bwd = softmax.cross_entropy_bwd,
      .layer_norm_bwd = norm.layer_norm_bwd,
      .rms_norm_bwd = norm.rms_norm_bwd,
      .lstm_cell_bwd = cell.lstm_cell_bwd,
      .gru_cell_bwd = cell.gru_cell_bwd,
      .adam = optim.adam,
      .sgd = optim.sgd,
  };
}

}  // namespace

const Training& training(const Table& table) noexcept {
#if defined(__x86_64__)
  static const Training avx2 =
      assemble(unary_training_avx2, softmax_training_avx2, norm_training_avx2, cell_training_avx2, optim_training_avx2);
  static const Training avx512 = assemble(unary_training_avx512, softmax_training_avx512, norm_training_avx512,
                                          cell_training_avx512, optim_training_avx512);
  if (std::strcmp(table.isa, "avx2") == 0) return avx2;
  if (std::strcmp(table.isa, "avx512") == 0) return avx512;
#endif
  static const Training scalar = assemble(unary_training_scalar, softmax_training_scalar, norm_training_scalar,
                                          cell_training_scalar, optim_training_scalar);
  return scalar;
}

}  // namespace qorus::kernels
