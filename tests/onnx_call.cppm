// How ONNX' operators are put to Qorus' operations: a call with its inputs as tensors, and tables from an operator's name to what
// computes it.
module;
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
  Call(const OnnxCase& test, qorus::Context& context, qorus::Scope* frame, qorus::Tape* tape)
      : c(test), context_(&context), frame_(frame), tape_(tape) {}

  const OnnxCase& c;
  // Input i as floats, as i32, as truth values.
  [[nodiscard]] qorus::Result<qorus::Tensor> in(std::size_t i) { return from(i, qorus::DType::f32); }
  [[nodiscard]] qorus::Result<qorus::Tensor> index(std::size_t i) { return from(i, qorus::DType::i32); }
  [[nodiscard]] qorus::Result<qorus::Tensor> mask(std::size_t i) { return from(i, qorus::DType::u8); }
  // Input i as floats under another shape (for more than six extents).
  [[nodiscard]] qorus::Result<qorus::Tensor> make(const std::vector<std::int64_t>& dims,
                                                  const std::vector<double>& values,
                                                  qorus::DType dtype = qorus::DType::f32);
  [[nodiscard]] const std::vector<std::int64_t>& dims(std::size_t i) const { return c.inputs[i].dims; }
  [[nodiscard]] int rank(std::size_t i) const { return static_cast<int>(c.inputs[i].dims.size()); }
  // The whole numbers 0 … n-1.
  [[nodiscard]] qorus::Result<qorus::Tensor> counting(std::int64_t n, std::int64_t first = 0, std::int64_t step = 1);
  [[nodiscard]] qorus::Context& context() const { return *context_; }

 private:
  [[nodiscard]] qorus::Result<qorus::Tensor> from(std::size_t i, qorus::DType dtype);
  qorus::Context* context_;
  qorus::Scope* frame_;
  qorus::Tape* tape_;
  std::deque<qorus::Owned> made_;
};

using OnnxMapping = std::function<Outputs(Call&)>;
using OnnxTable = std::map<std::string, OnnxMapping>;

// What an operator or a variant of it gives that the operations do not cover.
[[nodiscard]] Outputs not_covered(const char* why);

void add_elementwise(OnnxTable& table);
void add_reductions(OnnxTable& table);
void add_structure(OnnxTable& table);

}  // namespace qorus_test
