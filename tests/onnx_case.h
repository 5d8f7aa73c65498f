// A test case of ONNX's backend suite as it lies in a folder: case.json and .npy files. Plain C++: imports nothing.
#pragma once
#include <cstddef>
#include <cstdint>
#include <map>
#include <string>
#include <vector>

namespace qorus_test {

// A JSON value, as much of it as the cases use.
struct Json {
  enum class Kind { null, boolean, number, text, list, object } kind = Kind::null;
  double number = 0;
  std::string text;
  std::vector<Json> list;
  std::map<std::string, Json> object;

  [[nodiscard]] const Json* find(const std::string& name) const;
};
// Null where the text is not JSON.
[[nodiscard]] Json parse_json(const std::string& text);

// An array of any element type, its elements as doubles.
struct OnnxValue {
  bool present = false;
  std::string dtype;  // as NumPy names it: float32, int64, bool, …
  std::vector<std::int64_t> dims;
  std::vector<double> v;
};
// Not present if it cannot be read.
[[nodiscard]] OnnxValue read_npy(const std::string& path);

struct OnnxCase {
  std::string name, op;
  std::int64_t opset = 0;
  double rtol = 0, atol = 0;
  Json attributes;
  std::vector<OnnxValue> inputs, outputs;

  [[nodiscard]] std::int64_t integer(const std::string& attribute, std::int64_t otherwise) const;
  [[nodiscard]] double number(const std::string& attribute, double otherwise) const;
  [[nodiscard]] std::string text(const std::string& attribute, const std::string& otherwise) const;
  // A list attribute; empty if it is not there.
  [[nodiscard]] std::vector<std::int64_t> integers(const std::string& attribute) const;
  [[nodiscard]] bool has(const std::string& attribute) const { return attributes.find(attribute) != nullptr; }
  [[nodiscard]] bool has_input(std::size_t i) const { return i < inputs.size() && inputs[i].present; }
  // An input as whole numbers, or a list attribute of that name (older versions of an operator), or nothing.
  [[nodiscard]] std::vector<std::int64_t> list(std::size_t input, const std::string& attribute) const;
};
// Empty name: the folder holds no case that can be read.
[[nodiscard]] OnnxCase read_onnx_case(const std::string& folder);
// Names of the folders under `root` that hold a case.json, in order.
[[nodiscard]] std::vector<std::string> onnx_case_names(const std::string& root);

}  // namespace qorus_test
