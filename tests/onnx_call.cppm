// How ONNX' operators are put to Qorus' operations: a call with its inputs as tensors, and tables from an operator's name to what
// computes it.
module;
#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "tests/onnx_case.h"
export module qorus.test.onnx;
import qorus.ops;

export namespace qorus_test {

using Outputs = std::vector<qorus::Result<qorus::Tensor>>;

// One case on its way: what it makes lives as long as the call.
class Call {
 public:
  Call(const OnnxCase& test, qorus::Scope& frame) : c(test), frame_(&frame) {}

  const OnnxCase& c;
  // Input i as floats, as i32, as truth values.
  [[nodiscard]] qorus::Result<qorus::Tensor> in(std::size_t i) { return from(i, qorus::DType::f32); }
  [[nodiscard]] qorus::Result<qorus::Tensor> index(std::size_t i) { return from(i, qorus::DType::i32); }
  [[nodiscard]] qorus::Result<qorus::Tensor> mask(std::size_t i) { return from(i, qorus::DType::u8); }
  // A tensor of any numbers.
  [[nodiscard]] qorus::Result<qorus::Tensor> make(const std::vector<std::int64_t>& dims,
                                                  const std::vector<double>& values,
                                                  qorus::DType dtype = qorus::DType::f32);
  [[nodiscard]] const std::vector<std::int64_t>& dims(std::size_t i) const { return c.inputs[i].dims; }
  [[nodiscard]] int rank(std::size_t i) const { return static_cast<int>(c.inputs[i].dims.size()); }
  // The whole numbers 0 … n-1.
  [[nodiscard]] qorus::Result<qorus::Tensor> counting(std::int64_t n, std::int64_t first = 0, std::int64_t step = 1);

 private:
  [[nodiscard]] qorus::Result<qorus::Tensor> from(std::size_t i, qorus::DType dtype);
  qorus::Scope* frame_;
  std::deque<qorus::Owned> made_;
};

using OnnxMapping = std::function<Outputs(Call&)>;
using OnnxTable = std::map<std::string, OnnxMapping>;

// What an operator or a variant of it gives that the operations do not cover.
[[nodiscard]] Outputs not_covered(const char* why);

void add_elementwise(OnnxTable& table);
void add_reductions(OnnxTable& table);
void add_structure(OnnxTable& table);
void add_blocks(OnnxTable& table);
void add_pictures(OnnxTable& table);
void add_algebra(OnnxTable& table);
void add_recurrent(OnnxTable& table);

}  // namespace qorus_test
