// Puts the training kernels of each instruction set together. A program that never trains does not link this file.
#include <cstring>

#include "kernels/parts.h"

namespace qorus::kernels {
namespace {

constexpr Training assemble(const UnaryTraining& unary, const SoftmaxTraining& softmax, const NormTraining& norm,
                            const CellTraining& cell, const OptimTraining& optim, const ConvTraining& conv,
                            const PoolTraining& pool) {
  return {
      .unary_bwd = unary.unary_bwd,
      .softmax_bwd = softmax.softmax_bwd,
      .log_softmax_bwd = softmax.log_softmax_bwd,
      .cross_entropy_bwd = softmax.cross_entropy_bwd,
      .layer_norm_bwd = norm.layer_norm_bwd,
      .rms_norm_bwd = norm.rms_norm_bwd,
      .lstm_cell_bwd = cell.lstm_cell_bwd,
      .gru_cell_bwd = cell.gru_cell_bwd,
      .affine_sums = norm.affine_sums,
      .affine_bwd = norm.affine_bwd,
      .max_pool_bwd = pool.max_pool_bwd,
      .avg_pool_bwd = pool.avg_pool_bwd,
      .adam = optim.adam,
      .sgd = optim.sgd,
      .conv_weight_plan = conv.weight_plan,
      .conv_weight_task = conv.weight_task,
  };
}

}  // namespace

const Training& training(const Table& table) noexcept {
#if defined(__x86_64__)
  static const Training avx2 =
      assemble(unary_training_avx2, softmax_training_avx2, norm_training_avx2, cell_training_avx2, optim_training_avx2,
               conv_training_avx2, pool_training_avx2);
  static const Training avx512 =
      assemble(unary_training_avx512, softmax_training_avx512, norm_training_avx512, cell_training_avx512,
               optim_training_avx512, conv_training_avx512, pool_training_avx512);
  if (std::strcmp(table.isa, "avx2") == 0) return avx2;
  if (std::strcmp(table.isa, "avx512") == 0) return avx512;
#endif
  static const Training scalar =
      assemble(unary_training_scalar, softmax_training_scalar, norm_training_scalar, cell_training_scalar,
               optim_training_scalar, conv_training_scalar, pool_training_scalar);
  return scalar;
}

}  // namespace qorus::kernels
