// How a table is put together: each source file under scalar/, avx2/ and avx512/ exports exactly one constant of one of these
// part types (all else in it has internal linkage), and dispatch.cpp copies the parts into a Table.
#pragma once
#include "kernels/kernels.h"

namespace qorus::kernels {

struct GemmPart {
  decltype(Table::gemm_plan) plan;
  decltype(Table::gemm_task) task;
  decltype(Table::gemm_packed_size) packed_size;
  decltype(Table::gemm_pack) pack;
};

extern const GemmPart gemm_scalar, gemm_avx2, gemm_avx512;

}  // namespace qorus::kernels
