// Puts the tables together and picks the one in use. The only file here that knows which instruction sets exist.
#include <cstdlib>
#include <cstring>

#include "kernels/parts.h"

namespace qorus::kernels {
namespace {

// One table from the parts that the files of one instruction set export.
constexpr Table assemble(const char* isa, const UnaryPart& unary, const BinaryPart& binary, const CopyPart& copy,
                         const ReducePart& reduce, const SoftmaxPart& softmax, const NormPart& norm,
                         const RandomPart& random, const OptimPart& optim, const GemmPart& gemm) {
  return {
      .isa = isa,
      .unary = unary.unary,
      .unary_bwd = unary.unary_bwd,
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
      .reduce = reduce.reduce,
      .arg_reduce = reduce.arg_reduce,
      .softmax = softmax.softmax,
      .softmax_bwd = softmax.softmax_bwd,
      .log_softmax = softmax.log_softmax,
      .log_softmax_bwd = softmax.log_softmax_bwd,
      .cross_entropy = softmax.cross_entropy,
      .cross_entropy_bwd = softmax.cross_entropy_bwd,
      .layer_norm = norm.layer_norm,
      .layer_norm_bwd = norm.layer_norm_bwd,
      .rms_norm = norm.rms_norm,
      .rms_norm_bwd = norm.rms_norm_bwd,
      .random_bits = random.random_bits,
      .random_uniform = random.random_uniform,
      .dropout = random.dropout,
      .adam = optim.adam,
      .sgd = optim.sgd,
      .gemm_plan = gemm.plan,
      .gemm_task = gemm.task,
      .gemm_packed_size = gemm.packed_size,
      .gemm_pack = gemm.pack,
  };
}

const Table& scalar_table() {
  static const Table made = assemble("scalar", unary_scalar, binary_scalar, copy_scalar, reduce_scalar, softmax_scalar,
                                     norm_scalar, random_scalar, optim_scalar, gemm_scalar);
  return made;
}

const Table& choose() {
  const char* limit = std::getenv("QORUS_ISA");
  (void)limit;
  return scalar_table();
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
  return nullptr;
}

const Table& active() noexcept {
  static const Table& chosen = choose();
  return chosen;
}

}  // namespace qorus::kernels
