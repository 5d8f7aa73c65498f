// Puts the tables together and picks the one in use. The only file here that knows which instruction sets exist.
#include <cstdlib>
#include <cstring>

#include "kernels/parts.h"

namespace qorus::kernels {
namespace {

// One table from the parts that the files of one instruction set export.
constexpr Table assemble(const char* isa, const UnaryPart& unary, const BinaryPart& binary, const CopyPart& copy,
                         const BlocksPart& blocks, const PackedPart& packed, const ReducePart& reduce,
                         const SoftmaxPart& softmax, const NormPart& norm, const CellPart& cell,
                         const RandomPart& random, const GemmPart& gemm, const ConvPart& conv, const PoolPart& pool) {
  return {
      .isa = isa,
      .unary = unary.unary,
      .binary = binary.binary,
      .compare = binary.compare,
      .select = binary.select,
      .axpy = binary.axpy,
      .fma = binary.fma,
      .clamp = binary.clamp,
      .transpose = copy.transpose,
      .f16_to_f32 = copy.f16_to_f32,
      .f32_to_f16 = copy.f32_to_f16,
      .bf16_to_f32 = copy.bf16_to_f32,
      .f32_to_bf16 = copy.f32_to_bf16,
      .u8_to_f32 = copy.u8_to_f32,
      .dequantize = blocks.dequantize,
      .quantize = blocks.quantize,
      .pack_weights = packed.pack_weights,
      .pack_rows = packed.pack_rows,
      .packed_product = packed.product,
      .reduce = reduce.reduce,
      .arg_reduce = reduce.arg_reduce,
      .softmax = softmax.softmax,
      .log_softmax = softmax.log_softmax,
      .cross_entropy = softmax.cross_entropy,
      .layer_norm = norm.layer_norm,
      .rms_norm = norm.rms_norm,
      .lstm_cell = cell.lstm_cell,
      .gru_cell = cell.gru_cell,
      .moments = norm.moments,
      .affine = norm.affine,
      .max_pool = pool.max_pool,
      .avg_pool = pool.avg_pool,
      .random_bits = random.random_bits,
      .random_uniform = random.random_uniform,
      .dropout = random.dropout,
      .gemm_plan = gemm.plan,
      .gemm_task = gemm.task,
      .gemm_packed_size = gemm.packed_size,
      .gemm_pack = gemm.pack,
      .conv_plan = conv.plan,
      .conv_task = conv.task,
  };
}

const Table& scalar_table() {
  static const Table made =
      assemble("scalar", unary_scalar, binary_scalar, copy_scalar, blocks_scalar, packed_scalar, reduce_scalar,
               softmax_scalar, norm_scalar, cell_scalar, random_scalar, gemm_scalar, conv_scalar, pool_scalar);
  return made;
}

#if defined(__x86_64__)
const Table& avx2_table() {
  static const Table made = assemble("avx2", unary_avx2, binary_avx2, copy_avx2, blocks_avx2, packed_avx2, reduce_avx2,
                                     softmax_avx2, norm_avx2, cell_avx2, random_avx2, gemm_avx2, conv_avx2, pool_avx2);
  return made;
}
const Table& avx512_table() {
  // Sums of byte products are an extension of their own.
  static const Table made =
      assemble("avx512", unary_avx512, binary_avx512, copy_avx512, blocks_avx512,
               cpu_features().avx512_vnni ? packed_avx512 : packed_avx2, reduce_avx512, softmax_avx512, norm_avx512,
               cell_avx512, random_avx512, gemm_avx512, conv_avx512, pool_avx512);
  return made;
}
#endif

constexpr const char* k_slow_to_fast[] = {"scalar", "avx2", "avx512"};

// The fastest that runs here, up to and including the one that QORUS_ISA names; any other word there is as none.
const Table& choose() {
  const char* limit = std::getenv("QORUS_ISA");
  const Table* best = &scalar_table();
  const Table* highest = best;
  bool known = false;
  for (const char* isa : k_slow_to_fast) {
    if (const Table* found = table(isa)) highest = found;
    if (limit && std::strcmp(limit, isa) == 0) best = highest, known = true;
  }
  return known ? *best : *highest;
}

}  // namespace

CpuFeatures cpu_features() noexcept {
#if defined(__x86_64__)
  __builtin_cpu_init();  // these also ask whether the operating system saves the registers
  return {
      .avx2 = bool(__builtin_cpu_supports("avx2")),
      .fma = bool(__builtin_cpu_supports("fma")),
      .f16c = bool(__builtin_cpu_supports("f16c")),
      .avx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl"),
      .avx512_vnni = bool(__builtin_cpu_supports("avx512vnni")),
      .avx512_bf16 = bool(__builtin_cpu_supports("avx512bf16")),
  };
#else
  return {};
#endif
}

const Table* table(const char* isa) noexcept {
  if (std::strcmp(isa, "scalar") == 0) return &scalar_table();
#if defined(__x86_64__)
  const CpuFeatures cpu = cpu_features();
  const bool avx2 = cpu.avx2 && cpu.fma && cpu.f16c;
  if (avx2 && std::strcmp(isa, "avx2") == 0) return &avx2_table();
  if (avx2 && cpu.avx512 && std::strcmp(isa, "avx512") == 0) return &avx512_table();
#endif
  return nullptr;
}

const Table& active() noexcept {
  static const Table& chosen = choose();
  return chosen;
}

}  // namespace qorus::kernels
