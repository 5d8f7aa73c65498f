// What an operation refuses: every operand in turn of another type, rank or size, gone, or of another workspace.
module;
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <utility>
#include <vector>
module qorus.test.ops;

namespace qorus_test {

using qorus::DType;
using qorus::Errc;
using qorus::Owned;
using qorus::Result;
using qorus::Shape;
using qorus::Tensor;
using qorus::Workspace;
namespace ops = qorus::ops;

namespace {

// What stands for an operand that is given as it is.
struct Wrong {
  std::string what;
  Tensor tensor;
  bool other_type = false;
};

Shape shape_of(const Extents& dims) { return Shape(std::span<const std::int64_t>(dims)); }

Owned filled(const Input& input, const Extents& dims, DType dtype) {
  Owned memory = std::move(Owned::zeros(shape_of(dims), dtype).value());
  if (dtype == DType::f32) {  // within the range that the operation is tested in
    for (float& value : memory.fill<float>()) value = static_cast<float>((input.low + input.high) / 2);
  }
  return memory;
}

// Forward, and backward from the sum, with the operand at `place` replaced.
struct Answer {
  Errc code = Errc::ok;
  std::string text;           // the error, or the result's shape
  DType dtype = DType::q4_0;  // of the result; none has this one
};
Answer ask(Workspace& ws, const Case& test, std::span<const Owned> good, std::size_t place, const Wrong& wrong) {
  const auto failed = [](const qorus::Error& error) { return Answer{error.code, error.message().c_str()}; };
  auto tape = ws.record();
  std::array<Tensor, 8> operands;
  for (std::size_t i = 0; i < good.size(); ++i) {
    const Tensor& from = i == place ? wrong.tensor : good[i].tensor();
    const bool floats = from.dtype() == DType::f32 && test.inputs[i].differentiable() && test.differentiable;
    auto operand = !from.shape().valid() ? Result<Tensor>(from) : floats ? tape.watch(from) : tape.input(from);
    if (!operand) return failed(operand.error());
    operands[i] = *operand;
  }
  const auto y = test.run(std::span<const Tensor>(operands.data(), good.size()));
  if (!y) return failed(y.error());
  Answer answer{.text = "shape", .dtype = y->dtype()};
  for (const std::int64_t extent : y->shape().extents()) answer.text += " " + std::to_string(extent);
  if (y->dtype() != DType::f32 || !y->tracked()) return answer;
  const auto loss = ops::sum(y);
  if (!loss) return failed(loss.error());
  const auto gradients = qorus::backward(*loss);
  if (!gradients) return failed(gradients.error());
  for (std::size_t i = 0; i < good.size(); ++i) {
    if (!operands[i].tracked()) continue;
    const auto g = gradients->of(operands[i]);
    if (!g) return failed(g.error());
    if (g->shape() != operands[i].shape()) return {Errc::ok, "a gradient of another shape"};
  }
  return answer;
}

bool is_refusal(Errc code) {
  return code == Errc::invalid_size || code == Errc::invalid_dtype || code == Errc::invalid_argument ||
         code == Errc::unsupported;
}

// Refused, or as well as the plan has it: what the shapes allow is known from the shapes. Only a value that is no index may be found later.
std::string one(const Case& test, std::span<const Owned> good, std::size_t place, const Wrong& wrong) {
  static Workspace plan = qorus::planning_workspace(1);
  const std::string where = "input " + std::to_string(place) + ", " + wrong.what + ": ";
  const Answer planned = ask(plan, test, good, place, wrong), real = ask(workspace(1), test, good, place, wrong);
  if (real.code != Errc::ok && !is_refusal(real.code)) return where + real.text;
  if (real.text != planned.text && !(planned.code == Errc::ok && real.code == Errc::invalid_argument))
    return where + "'" + real.text + "', planned '" + planned.text + "'";
  // An operation that takes other types only moves elements: they come out as they went in.
  if (wrong.other_type && real.code != Errc::invalid_dtype && real.dtype != wrong.tensor.dtype())
    return where + "not refused: " + real.text;
  if (!wrong.tensor.shape().valid() && real.code == Errc::ok && test.inputs.size() == 1) return where + "not refused";
  return {};
}

std::string gone(const Case& test, std::span<const Owned> good) {
  for (std::size_t place = 0; place < good.size(); ++place) {
    Tensor stale;
    {
      auto frame = workspace(1).frame();
      stale = frame.input(good[place]).value();
    }
    auto tape = workspace(1).record();
    std::array<Tensor, 8> operands;
    for (std::size_t i = 0; i < good.size(); ++i) operands[i] = i == place ? stale : tape.input(good[i]).value();
    const auto y = test.run(std::span<const Tensor>(operands.data(), good.size()));
    if (y) return "input " + std::to_string(place) + " is gone, and nothing is said of it";
  }
  return {};
}

// Operands of two workspaces, of none, and of one, which then is that of all.
std::string homeless(const Case& test, std::span<const Owned> good) {
  auto one = workspace(1).frame(), two = workspace(2).frame();
  std::array<Tensor, 8> all, operands;
  const std::span<const Tensor> given(operands.data(), good.size());
  for (std::size_t i = 0; i < good.size(); ++i) {
    all[i] = one.input(good[i]).value();
    operands[i] = good[i].tensor();
  }
  const auto without = test.run(given);
  if (without ? without->context() != nullptr : without.error().code != Errc::no_workspace)
    return without ? "a result in no workspace" : std::string("no workspace: ") + without.error().message().c_str();
  const auto y = test.run(std::span<const Tensor>(all.data(), good.size()));
  if (!y) return y.error().message().c_str();
  for (std::size_t place = 0; place < good.size(); ++place) {
    const std::string where = "input " + std::to_string(place);
    std::array<Tensor, 8> mixed = all;
    mixed[place] = two.input(good[place]).value();
    const auto torn = test.run(std::span<const Tensor>(mixed.data(), good.size()));
    if (good.size() > 1 && (torn || torn.error().code != Errc::invalid_argument))
      return where + " of another workspace is not refused";
    operands[place] = all[place];
    const auto same = test.run(given);
    operands[place] = good[place].tensor();
    if (!same && place > 0 && same.error().code == Errc::no_workspace) continue;  // an option
    if (!same) return where + " alone in a workspace: " + same.error().message().c_str();
    if (same->shape() != y->shape() || same->dtype() != y->dtype())
      return where + " alone in a workspace: another shape";
    if (same->contiguous() && y->contiguous() &&
        std::memcmp(same->data(), y->data(), y->numel() * qorus::block_bytes(y->dtype())) != 0)
      return where + " alone in a workspace: other values";
  }
  return {};
}

}  // namespace

std::string check_refusals(const Case& test) {
  std::vector<Owned> good;
  for (const Input& input : test.inputs) good.push_back(filled(input, input.dims, input.dtype));
  if (auto wrong = gone(test, good); !wrong.empty()) return wrong;
  if (auto wrong = homeless(test, good); !wrong.empty()) return wrong;
  for (std::size_t place = 0; place < good.size(); ++place) {
    const Input& input = test.inputs[place];
    const auto with = [&](const std::string& what, const Extents& dims, DType dtype) {
      const Owned memory = filled(input, dims, dtype);
      return one(test, good, place, {what, memory.tensor(), dtype != input.dtype});
    };
    std::vector<std::pair<std::string, Extents>> shapes = {{"a scalar", {}}, {"an axis more", input.dims}};
    shapes.back().second.insert(shapes.back().second.begin(), 1);
    if (!input.dims.empty()) shapes.emplace_back("an axis less", Extents(input.dims.begin() + 1, input.dims.end()));
    for (std::size_t axis = 0; axis < input.dims.size(); ++axis) {
      for (const std::int64_t extent : {std::int64_t{0}, input.dims[axis] + 1}) {
        shapes.emplace_back("axis " + std::to_string(axis) + " of " + std::to_string(extent), input.dims);
        shapes.back().second[axis] = extent;
      }
    }
    for (const auto& [what, dims] : shapes) {
      if (dims.size() > qorus::k_max_rank) continue;
      if (auto wrong = with(what, dims, input.dtype); !wrong.empty()) return wrong;
    }
    const DType other = input.dtype == DType::f32 ? DType::i32 : DType::f32;
    if (auto wrong = with("another type", input.dims, other); !wrong.empty()) return wrong;
    if (auto wrong = one(test, good, place, {"no shape", Tensor()}); !wrong.empty()) return wrong;
  }
  return {};
}

Result<Tensor> make(qorus::Context& c, const Shape& shape, DType dtype, int value) {
  auto fresh = qorus::Fresh::make(c, shape, dtype);
  if (!fresh) return qorus::fail(fresh.error());
  for (std::size_t i = 0; i < shape.numel() && !c.planning; ++i) {
    if (dtype == DType::f32) fresh->f32()[i] = static_cast<float>(value);
    if (dtype == DType::i32) fresh->i32()[i] = value;
    if (dtype == DType::u8) fresh->u8()[i] = static_cast<std::uint8_t>(value);
  }
  return std::move(*fresh).freeze();
}

}  // namespace qorus_test
