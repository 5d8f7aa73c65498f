// Cases of ONNX' backend suite: every one whose operator the operations cover must pass with its own tolerance. What they do not
// cover is printed. $QORUS_TEST_DATA/onnx-cases holds them.
#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <map>
#include <set>
#include <span>
#include <string>
#include <vector>

#include "tests/onnx_case.h"
#include "tests/testing.h"

import qorus.ops;
import qorus.test.onnx;

using namespace qorus;
using namespace qorus_test;

namespace {

const OnnxTable& table() {
  static const OnnxTable all = [] {
    OnnxTable t;
    add_elementwise(t);
    add_reductions(t);
    add_structure(t);
    add_blocks(t);
    add_pictures(t);
    add_algebra(t);
    add_recurrent(t);
    return t;
  }();
  return all;
}

std::vector<double> elements(const Tensor& t) {
  std::vector<double> values(t.numel());
  const auto read = [&]<class T>(T) {
    std::vector<T> raw(t.numel());
    if (t.copy_to(std::span<T>(raw))) values.assign(raw.begin(), raw.end());
  };
  if (t.dtype() == DType::f32) read(0.0f);
  if (t.dtype() == DType::i32) read(std::int32_t{0});
  if (t.dtype() == DType::u8) read(std::uint8_t{0});
  return values;
}

// Rounded as the expected type has it.
void round_to(const std::string& dtype, std::vector<double>& values) {
  if (dtype != "float16") return;
  for (double& v : values) {
    int exponent = 0;
    const double fraction = std::frexp(v, &exponent);
    const int bits = exponent < -13 ? std::max(0, 11 + exponent + 13) : 11;
    v = std::ldexp(std::nearbyint(std::ldexp(fraction, bits)), exponent - bits);
  }
}

std::string compare(const Tensor& got, const OnnxValue& want, const OnnxCase& c) {
  const std::vector<std::int64_t> dims(got.shape().extents().begin(), got.shape().extents().end());
  if (want.dims.size() <= k_max_rank && dims != want.dims) return "another shape: " + std::string(to_string(got));
  std::vector<double> values = elements(got);
  round_to(want.dtype, values);
  if (values.size() != want.v.size()) return "another number of elements";
  const bool whole = want.dtype.find("int") != want.dtype.npos || want.dtype == "bool";
  for (std::size_t i = 0; i < values.size(); ++i) {
    const double g = values[i], w = want.v[i];
    if (g == w || (std::isnan(g) && std::isnan(w))) continue;
    if (!whole && std::fabs(g - w) <= c.atol + c.rtol * std::fabs(w)) continue;
    return "element " + std::to_string(i) + " is " + std::to_string(g) + ", should be " + std::to_string(w);
  }
  return {};
}

enum class Verdict { passed, failed, not_covered };

bool too_deep(const OnnxCase& c) {
  if (c.op == "SoftmaxCrossEntropyLoss" || c.op == "NegativeLogLikelihoodLoss") return false;
  for (const auto* list : {&c.inputs, &c.outputs}) {
    for (const OnnxValue& value : *list) {
      if (value.dims.size() > k_max_rank) return true;
    }
  }
  return false;
}

Verdict run(const OnnxCase& c, Workspace& ws, std::string& why) {
  const auto found = table().find(c.op);
  if (found == table().end() || too_deep(c)) {
    why = found == table().end() ? "operator " + c.op : "more than six extents";
    return Verdict::not_covered;
  }
  auto frame = ws.frame();
  Call call(c, frame);
  const Outputs outputs = found->second(call);
  for (std::size_t i = 0; i < c.outputs.size(); ++i) {
    if (!c.outputs[i].present && c.outputs[i].dtype.empty()) continue;
    const Result<Tensor>& output = i < outputs.size() ? outputs[i] : outputs.back();
    if (!output) {
      why = output.error().message().c_str();
      return output.error().code == Errc::unsupported ? Verdict::not_covered : Verdict::failed;
    }
    if (!c.outputs[i].present) {
      why = "a result of type " + c.outputs[i].dtype;
      return Verdict::not_covered;
    }
    if (i >= outputs.size()) {
      why = "output " + std::to_string(i) + " is missing";
      return Verdict::failed;
    }
    why = compare(*output, c.outputs[i], c);
    if (!why.empty()) return Verdict::failed;
  }
  return Verdict::passed;
}

TEST(Onnx, EveryCaseThatTheOperationsCover) {
  QORUS_NEEDS_DATA("onnx-cases");
  const std::string root = data_path("onnx-cases");
  Workspace ws{{.scratch = 256_MiB, .threads = 2}};
  std::map<std::string, int> missing;
  int passed = 0, failed = 0;
  for (const std::string& name : onnx_case_names(root)) {
    const OnnxCase c = read_onnx_case(root + "/" + name);
    ASSERT_FALSE(c.name.empty()) << name;
    std::string why;
    switch (run(c, ws, why)) {
      case Verdict::passed: ++passed; break;
      case Verdict::not_covered: ++missing[why]; break;
      case Verdict::failed:
        ++failed;
        ADD_FAILURE() << name << " (" << c.op << ", version " << c.opset << "): " << why;
        break;
    }
  }
  int uncovered = 0;
  for (const auto& [why, count] : missing) uncovered += count;
  std::printf("onnx cases: %d passed, %d failed, %d not covered:\n", passed, failed, uncovered);
  for (const auto& [why, count] : missing) std::printf("  %3d  %s\n", count, why.c_str());
  EXPECT_GT(passed, 0);
}

TEST(Onnx, TheJsonReaderReadsWhatTheCasesUse) {
  const Json json = parse_json(R"({"a": [1, -2.5e1, "x\"y"], "b": {"c": true, "d": null}, "e": []})");
  ASSERT_EQ(json.find("a")->list.size(), 3u);
  EXPECT_EQ(json.find("a")->list[1].number, -25);
  EXPECT_EQ(json.find("a")->list[2].text, "x\"y");
  EXPECT_EQ(json.find("b")->find("c")->number, 1);
  EXPECT_EQ(json.find("b")->find("d")->kind, Json::Kind::null);
  EXPECT_TRUE(json.find("e")->list.empty());
  EXPECT_EQ(parse_json("{\"a\": [1, ").find("a")->list.size(), 1u);
}

}  // namespace
