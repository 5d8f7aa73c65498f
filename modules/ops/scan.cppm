// Running sums.
export module qorus.ops:scan;
import qorus.tensor;
import :operand;

export namespace qorus::ops {

// How a running sum goes.
struct CumsumOptions {
  bool exclusive = false;  // element i is the sum of those before it, without itself
  bool reverse = false;    // from the end
};
// y[…, i, …] = sum over j <= i of x[…, j, …]. f32, added in double precision and rounded once.
// Errors: the operand's own, stale_tensor, no_workspace, invalid_dtype, invalid_argument (no such axis), out_of_memory.
[[nodiscard]] Result<Tensor> cumsum(const Operand& x, int axis = -1, const CumsumOptions& options = {}) noexcept;

}  // namespace qorus::ops
