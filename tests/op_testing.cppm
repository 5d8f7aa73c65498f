// What the tests of operations share: plain double-precision arrays, and one check that puts an operation through everything an
// operation promises. A table entry names inputs, the operation, and a plain loop that defines it.
module;
#include <cstddef>
#include <cstdint>
#include <functional>
#include <random>
#include <span>
#include <string>
#include <utility>
#include <vector>
export module qorus.test.ops;
import qorus.ops;

export namespace qorus_test {

using Extents = std::vector<std::int64_t>;

// A dense array in double precision: what the references compute with.
struct Array {
  Extents dims;
  std::vector<double> v;

  Array() = default;
  explicit Array(const Extents& shape, double value = 0);
  Array(const Extents& shape, std::vector<double> values) : dims(shape), v(std::move(values)) {}
  [[nodiscard]] std::int64_t dim(int d) const {
    return dims[static_cast<std::size_t>(d < 0 ? d + static_cast<int>(dims.size()) : d)];
  }
  [[nodiscard]] int rank() const { return static_cast<int>(dims.size()); }
  // By index; extents of 1 (and missing leading ones) repeat.
  [[nodiscard]] double& at(const Extents& index);
  [[nodiscard]] double at(const Extents& index) const { return const_cast<Array*>(this)->at(index); }
};
[[nodiscard]] std::size_t count_of(const Extents& dims);
// Calls f with every index of the shape, in row-major order.
void each_index(const Extents& dims, const std::function<void(const Extents&)>& f);
// An array filled from its indices.
[[nodiscard]] Array build(const Extents& dims, const std::function<double(const Extents&)>& f);
[[nodiscard]] Array map(const Array& x, const std::function<double(double)>& f);
[[nodiscard]] Array zip(const Array& a, const Array& b, const std::function<double(double, double)>& f);  // broadcasts
// y[kept axes] = f of the elements along the reduced axes, in order. No axes: all of them.
[[nodiscard]] Array reduce(const Array& x, Extents axes, bool keep,
                           const std::function<double(const std::vector<double>&)>& f);

struct Input {
  Extents dims;
  double low = -2, high = 2;
  qorus::DType dtype = qorus::DType::f32;  // i32 and u8: whole numbers in [low, high)
  std::vector<double> values = {};         // instead of random ones
  bool constant = false;                   // f32, but without a gradient
  [[nodiscard]] bool differentiable() const { return dtype == qorus::DType::f32 && !constant; }
};
// Whole numbers in [low, high).
[[nodiscard]] Input whole(const Extents& dims, double low, double high, qorus::DType dtype = qorus::DType::i32);

using Operation = std::function<qorus::Result<qorus::Tensor>(std::span<const qorus::Tensor>)>;
using Reference = std::function<Array(const std::vector<Array>&)>;

struct Case {
  std::string name;
  std::vector<Input> inputs;
  Operation run;
  Reference reference;
  bool differentiable = true;
  bool repeats_kink = false;  // equal elements are a kink: no broadcast operands, no operand used twice
  double looser = 1;          // the tolerances times this, where the entry says why
};

// Forward against the reference; the gradient of a random linear functional of the output, of every f32 input, against central
// differences of the reference; both also through transposed, sliced and broadcast operands and with one operand used twice;
// the same bits with 1, 2 and 3 workers and from run to run; no allocation in a warm step with 1 and 2 workers; and the same
// high-water mark planned as run. Empty, or what is wrong.
[[nodiscard]] std::string check(const Case& test);

// Forward and gradient alone, of dense operands.
[[nodiscard]] std::string check_values(const Case& test);

// An operation on shapes too big for a reference: the same bits with 1, 2 and 3 workers and from run to run.
[[nodiscard]] std::string check_bits(const Case& test);

// A workspace for this many workers, kept for the process.
[[nodiscard]] qorus::Workspace& workspace(int threads);

// What `check` does as well: every operand in turn of another type, rank or size, gone, or of another workspace is refused, or taken as the
// plan has it. Empty, or what is wrong.
[[nodiscard]] std::string check_refusals(const Case& test);

// A tensor of equal elements (f32, i32 or u8; none are written of other types) in the workspace itself.
[[nodiscard]] qorus::Result<qorus::Tensor> make(qorus::Context& context, const qorus::Shape& shape,
                                                qorus::DType dtype = qorus::DType::f32, int value = 1);
[[nodiscard]] inline qorus::Result<qorus::Tensor> whole(qorus::Context& context, const qorus::Shape& shape, int value) {
  return make(context, shape, qorus::DType::i32, value);
}

// f32 values as an owner. The generator is seeded by `seed`.
[[nodiscard]] qorus::Owned random_owned(const qorus::Shape& shape, unsigned seed = 1, float low = -2, float high = 2);

}  // namespace qorus_test
