// How a table is put together: each source file under scalar/, avx2/ and avx512/ exports one constant of one of these
// part types, and a second one if some of it is for training alone (all else in it has internal linkage); dispatch.cpp copies
// the parts into a Table, training.cpp the others into a Training.
#pragma once
#include "kernels/kernels.h"

namespace qorus::kernels {

struct UnaryPart {
  decltype(Table::unary) unary;
};
struct UnaryTraining {
  decltype(Training::unary_bwd) unary_bwd;
};
struct BinaryPart {
  decltype(Table::binary) binary;
  decltype(Table::compare) compare;
  decltype(Table::select) select;
  decltype(Table::axpy) axpy;
  decltype(Table::fma) fma;
  decltype(Table::clamp) clamp;
};
struct CopyPart {
  decltype(Table::transpose) transpose;
  decltype(Table::f16_to_f32) f16_to_f32;
  decltype(Table::f32_to_f16) f32_to_f16;
  decltype(Table::bf16_to_f32) bf16_to_f32;
  decltype(Table::f32_to_bf16) f32_to_bf16;
  decltype(Table::u8_to_f32) u8_to_f32;
};
struct BlocksPart {
  decltype(Table::dequantize) dequantize;
  decltype(Table::quantize) quantize;
};
struct PackedPart {
  decltype(Table::pack_weights) pack_weights;
  decltype(Table::pack_rows) pack_rows;
  decltype(Table::packed_product) product;
};
struct ReducePart {
  decltype(Table::reduce) reduce;
  decltype(Table::arg_reduce) arg_reduce;
};
struct SoftmaxPart {
  decltype(Table::softmax) softmax;
  decltype(Table::log_softmax) log_softmax;
  decltype(Table::cross_entropy) cross_entropy;
};
struct SoftmaxTraining {
  decltype(Training::softmax_bwd) softmax_bwd;
  decltype(Training::log_softmax_bwd) log_softmax_bwd;
  decltype(Training::cross_entropy_bwd) cross_entropy_bwd;
};
struct NormPart {
  decltype(Table::layer_norm) layer_norm;
  decltype(Table::rms_norm) rms_norm;
  decltype(Table::moments) moments;
  decltype(Table::affine) affine;
};
struct NormTraining {
  decltype(Training::layer_norm_bwd) layer_norm_bwd;
  decltype(Training::rms_norm_bwd) rms_norm_bwd;
  decltype(Training::affine_sums) affine_sums;
  decltype(Training::affine_bwd) affine_bwd;
};
struct PoolPart {
  decltype(Table::max_pool) max_pool;
  decltype(Table::avg_pool) avg_pool;
};
struct PoolTraining {
  decltype(Training::max_pool_bwd) max_pool_bwd;
  decltype(Training::avg_pool_bwd) avg_pool_bwd;
};
struct CellPart {
  decltype(Table::lstm_cell) lstm_cell;
  decltype(Table::gru_cell) gru_cell;
};
struct CellTraining {
  decltype(Training::lstm_cell_bwd) lstm_cell_bwd;
  decltype(Training::gru_cell_bwd) gru_cell_bwd;
};
struct RandomPart {
  decltype(Table::random_bits) random_bits;
  decltype(Table::random_uniform) random_uniform;
  decltype(Table::dropout) dropout;
};
struct OptimTraining {
  decltype(Training::adam) adam;
  decltype(Training::sgd) sgd;
};
struct GemmPart {
  decltype(Table::gemm_plan) plan;
  decltype(Table::gemm_task) task;
  decltype(Table::gemm_packed_size) packed_size;
  decltype(Table::gemm_pack) pack;
};
struct ConvPart {
  decltype(Table::conv_plan) plan;
  decltype(Table::conv_task) task;
};
struct ConvTraining {
  decltype(Training::conv_weight_plan) weight_plan;
  decltype(Training::conv_weight_task) weight_task;
};

extern const UnaryPart unary_scalar, unary_avx2, unary_avx512;
extern const UnaryTraining unary_training_scalar, unary_training_avx2, unary_training_avx512;
extern const BinaryPart binary_scalar, binary_avx2, binary_avx512;
extern const CopyPart copy_scalar, copy_avx2, copy_avx512;
extern const BlocksPart blocks_scalar, blocks_avx2, blocks_avx512;
extern const PackedPart packed_scalar, packed_avx2, packed_avx512;
extern const ReducePart reduce_scalar, reduce_avx2, reduce_avx512;
extern const SoftmaxPart softmax_scalar, softmax_avx2, softmax_avx512;
extern const SoftmaxTraining softmax_training_scalar, softmax_training_avx2, softmax_training_avx512;
extern const NormPart norm_scalar, norm_avx2, norm_avx512;
extern const NormTraining norm_training_scalar, norm_training_avx2, norm_training_avx512;
extern const CellPart cell_scalar, cell_avx2, cell_avx512;
extern const CellTraining cell_training_scalar, cell_training_avx2, cell_training_avx512;
extern const RandomPart random_scalar, random_avx2, random_avx512;
extern const OptimTraining optim_training_scalar, optim_training_avx2, optim_training_avx512;
extern const GemmPart gemm_scalar, gemm_avx2, gemm_avx512;
extern const PoolPart pool_scalar, pool_avx2, pool_avx512;
extern const PoolTraining pool_training_scalar, pool_training_avx2, pool_training_avx512;
extern const ConvPart conv_scalar, conv_avx2, conv_avx512;
extern const ConvTraining conv_training_scalar, conv_training_avx2, conv_training_avx512;

}  // namespace qorus::kernels
