// Bodies of qorus.test.ops.
module;
#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>
#include <memory>
#include <numeric>
#include <random>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "tests/allocation_counter.h"
#include "tests/tolerances.h"
module qorus.test.ops;

namespace qorus_test {

using qorus::DType;
using qorus::Owned;
using qorus::Result;
using qorus::Shape;
using qorus::Tensor;
using qorus::Workspace;
namespace ops = qorus::ops;

std::size_t count_of(const Extents& dims) {
  return std::accumulate(dims.begin(), dims.end(), std::size_t{1},
                         [](std::size_t n, std::int64_t d) { return n * static_cast<std::size_t>(d); });
}

Array::Array(const Extents& shape, double value) : dims(shape), v(count_of(shape), value) {}

double& Array::at(const Extents& index) {
  std::size_t place = 0;
  const std::size_t extra = index.size() - dims.size();
  for (std::size_t d = 0; d < dims.size(); ++d) {
    place = place * static_cast<std::size_t>(dims[d]) + (dims[d] == 1 ? 0 : static_cast<std::size_t>(index[d + extra]));
  }
  return v[place];
}

void each_index(const Extents& dims, const std::function<void(const Extents&)>& f) {
  const std::size_t n = count_of(dims);
  Extents index(dims.size(), 0);
  for (std::size_t i = 0; i < n; ++i) {
    f(index);
    for (std::size_t d = dims.size(); d-- > 0;) {
      if (++index[d] < dims[d]) break;
      index[d] = 0;
    }
  }
}

Array build(const Extents& dims, const std::function<double(const Extents&)>& f) {
  Array y(dims);
  std::size_t i = 0;
  each_index(dims, [&](const Extents& index) { y.v[i++] = f(index); });
  return y;
}

Array map(const Array& x, const std::function<double(double)>& f) {
  Array y = x;
  for (double& value : y.v) value = f(value);
  return y;
}

Array zip(const Array& a, const Array& b, const std::function<double(double, double)>& f) {
  Extents dims(std::max(a.dims.size(), b.dims.size()), 1);
  for (const Array* x : {&a, &b}) {
    for (std::size_t d = 1; d <= x->dims.size(); ++d) {
      std::int64_t& extent = dims[dims.size() - d];
      if (x->dims[x->dims.size() - d] != 1) extent = x->dims[x->dims.size() - d];
    }
  }
  return build(dims, [&](const Extents& i) { return f(a.at(i), b.at(i)); });
}

Array reduce(const Array& x, Extents axes, bool keep, const std::function<double(const std::vector<double>&)>& f) {
  if (axes.empty()) {
    axes.resize(x.dims.size());
    std::iota(axes.begin(), axes.end(), 0);
  }
  Extents kept = x.dims, inside(x.dims.size(), 1), squeezed;
  for (std::int64_t axis : axes) {
    const auto d = static_cast<std::size_t>(axis < 0 ? axis + x.rank() : axis);
    inside[d] = x.dims[d];
    kept[d] = 1;
  }
  for (std::size_t d = 0; d < kept.size(); ++d) {
    if (std::none_of(axes.begin(), axes.end(),
                     [&](std::int64_t a) { return (a < 0 ? a + x.rank() : a) == static_cast<std::int64_t>(d); })) {
      squeezed.push_back(kept[d]);
    }
  }
  Array y = build(kept, [&](const Extents& outer) {
    std::vector<double> elements;
    each_index(inside, [&](const Extents& inner) {
      Extents index = outer;
      for (std::size_t d = 0; d < index.size(); ++d) index[d] += inner[d];
      elements.push_back(x.at(index));
    });
    return f(elements);
  });
  if (!keep) y.dims = squeezed;
  return y;
}

Input whole(const Extents& dims, double low, double high, DType dtype) { return {dims, low, high, dtype}; }

Workspace& workspace(int threads) {
  static std::array<std::unique_ptr<Workspace>, 4> all;
  auto& one = all[static_cast<std::size_t>(threads)];
  if (!one)
    one = std::make_unique<Workspace>(qorus::WorkspaceOptions{.scratch = std::size_t{1} << 30, .threads = threads});
  return *one;
}

Owned random_owned(const Shape& shape, unsigned seed, float low, float high) {
  auto owned = Owned::zeros(shape);
  std::minstd_rand random(seed);
  std::uniform_real_distribution<float> draw(low, high);
  if (!owned) return {};
  for (float& value : owned->fill<float>()) value = draw(random);
  return std::move(*owned);
}

namespace {

// How an operand lies in memory: the operation sees the same elements.
enum class View { dense, transposed, sliced, broadcast };
constexpr const char* k_view_names[] = {"dense", "transposed", "sliced", "broadcast"};

Shape shape_of(const Extents& dims) { return Shape(std::span<const std::int64_t>(dims)); }

// What is in memory (`base`), and which element of it each element of the operand is.
struct Prepared {
  Array logical;
  Owned base;
  std::vector<std::size_t> origin;
  DType dtype;
};

Extents base_dims(const Extents& dims, View view) {
  Extents base = dims;
  if (view == View::transposed) std::swap(base[base.size() - 1], base[base.size() - 2]);
  if (view == View::sliced) base.back() = 2 * base.back() + 1;
  if (view == View::broadcast) base.front() = std::min<std::int64_t>(1, base.front());
  return base;
}

bool applies(const Input& input, View view) {
  switch (view) {
    case View::dense: return true;
    case View::transposed: return input.dims.size() >= 2;
    case View::sliced: return !input.dims.empty();
    case View::broadcast:
      return !input.dims.empty() && input.dims.front() > 1 && input.dtype == DType::f32 && input.values.empty();
  }
  return false;
}

template <class T>
void fill(Owned& owned, const std::vector<double>& values) {
  std::transform(values.begin(), values.end(), owned.fill<T>().begin(),
                 [](double value) { return static_cast<T>(value); });
}

Prepared prepare(const Input& input, View wanted, std::minstd_rand& random) {
  const View view = applies(input, wanted) ? wanted : View::dense;
  const Extents dims = base_dims(input.dims, view);
  std::vector<double> values(count_of(dims));
  std::uniform_real_distribution<double> draw(input.low, input.high);
  for (double& value : values)
    value =
        input.dtype == DType::f32 ? static_cast<double>(static_cast<float>(draw(random))) : std::floor(draw(random));
  Prepared p{.logical = Array(input.dims), .dtype = input.dtype};
  p.base = std::move(Owned::zeros(shape_of(dims), input.dtype).value());
  std::size_t i = 0;
  each_index(input.dims, [&](const Extents& index) {
    Extents from = index;
    if (view == View::transposed) std::swap(from[from.size() - 1], from[from.size() - 2]);
    if (view == View::sliced) from.back() = 2 * from.back() + 1;
    if (view == View::broadcast) from.front() = 0;
    std::size_t place = 0;
    for (std::size_t d = 0; d < from.size(); ++d)
      place = place * static_cast<std::size_t>(dims[d]) + static_cast<std::size_t>(from[d]);
    if (!input.values.empty()) values[place] = input.values[i];
    p.logical.v[i++] = values[place];
    p.origin.push_back(place);
  });
  if (input.dtype == DType::f32) fill<float>(p.base, values);
  if (input.dtype == DType::i32) fill<std::int32_t>(p.base, values);
  if (input.dtype == DType::u8) fill<std::uint8_t>(p.base, values);
  if (input.dtype == DType::i8) fill<std::int8_t>(p.base, values);
  return p;
}

Result<Tensor> seen(const Result<Tensor>& base, const Input& input, View wanted) {
  switch (applies(input, wanted) ? wanted : View::dense) {
    case View::transposed: return ops::transpose(base);
    case View::sliced: return ops::slice(base, -1, 1, base ? base->dim(-1) : 0, 2);
    case View::broadcast: return ops::broadcast_to(base, shape_of(input.dims));
    case View::dense: break;
  }
  return base;
}

struct Outcome {
  std::string error;
  Extents dims;
  std::vector<double> values;
  std::vector<float> bits;                     // values and gradients as they came
  std::vector<std::vector<double>> gradients;  // of the bases, empty for whole numbers
};

void read(const Tensor& t, Outcome& out) {
  out.dims.assign(t.shape().extents().begin(), t.shape().extents().end());
  out.values.resize(t.numel());
  std::vector<float> floats(t.numel());
  if (t.dtype() == DType::f32) {
    if (!t.copy_to(std::span<float>(floats))) out.error = "cannot read the result";
  } else if (t.dtype() == DType::i32) {
    std::transform(t.i32(), t.i32() + t.numel(), floats.begin(), [](std::int32_t i) { return static_cast<float>(i); });
  } else {
    std::transform(t.u8(), t.u8() + t.numel(), floats.begin(), [](std::uint8_t i) { return static_cast<float>(i); });
  }
  std::copy(floats.begin(), floats.end(), out.values.begin());
  out.bits.insert(out.bits.end(), floats.begin(), floats.end());
}

// How a step takes its inputs, besides `same`: the first input serves as all f32 inputs of its shape.
struct Taken {
  bool again =
      false;  // each operand with a gradient is summed as well, after the operation, and the sum is added to the loss
  unsigned watched = ~0u;  // the inputs (bits) whose gradients are wanted
};

// One recorded step: inputs, operation, functional, backward. Nothing is allocated here unless `out` asks for the numbers.
std::string step(Workspace& ws, const Case& test, std::span<const Prepared> inputs, View view, const Tensor& functional,
                 bool same, Outcome* out, const Taken& taken = {}) {
  const auto wanted = [&](std::size_t i) { return test.inputs[i].differentiable() && (taken.watched >> i & 1u); };
  auto tape = ws.record();
  std::array<Tensor, 8> bases, operands;
  for (std::size_t i = 0; i < inputs.size(); ++i) {
    const bool again =
        same && i > 0 && test.inputs[i].dtype == DType::f32 && test.inputs[i].dims == test.inputs[0].dims;
    const bool floats = wanted(i) && test.differentiable;
    auto base = again ? Result<Tensor>(bases[0]) : floats ? tape.watch(inputs[i].base) : tape.input(inputs[i].base);
    auto operand = seen(base, test.inputs[i], view);
    if (!operand) return std::string("input: ") + operand.error().message().c_str();
    bases[i] = *base;
    operands[i] = *operand;
  }
  auto y = test.run(std::span<const Tensor>(operands.data(), inputs.size()));
  if (!y) return std::string("forward: ") + y.error().message().c_str();
  if (y->dtype() == DType::f16 || y->dtype() == DType::bf16) y = ops::cast(y, DType::f32);
  if (out) read(*y, *out);
  if (!test.differentiable) return {};
  auto loss = ops::sum(ops::mul(y, functional));
  for (std::size_t i = 0; i < inputs.size() && taken.again; ++i) {
    if (wanted(i)) loss = ops::add(loss, ops::sum(operands[i]));
  }
  if (!loss) return std::string("functional: ") + loss.error().message().c_str();
  auto gradients = qorus::backward(*loss);
  if (!gradients) return std::string("backward: ") + gradients.error().message().c_str();
  for (std::size_t i = 0; i < inputs.size(); ++i) {
    if (!wanted(i)) {
      if (out) out->gradients.emplace_back();
      continue;
    }
    auto g = gradients->of(bases[i]);
    if (!g) return std::string("gradient: ") + g.error().message().c_str();
    if (!out) continue;
    auto values = g->to_vector();
    if (!values) return "cannot read a gradient";
    out->bits.insert(out->bits.end(), values->begin(), values->end());
    out->gradients.emplace_back(values->begin(), values->end());
  }
  return {};
}

std::string text(const Extents& dims) {
  std::string s = "[";
  for (std::int64_t d : dims) s += (s.size() > 1 ? "," : "") + std::to_string(d);
  return s + "]";
}

// got within tolerance of want, relative to its own size and to the array's mean size.
std::string compare(const char* what, const std::vector<double>& got, const std::vector<double>& want,
                    double tolerance) {
  if (got.size() != want.size()) return std::string(what) + ": other sizes";
  double mean = 0;
  for (double w : want) mean += std::isfinite(w) ? std::fabs(w) / static_cast<double>(want.size()) : 0;
  for (std::size_t i = 0; i < got.size(); ++i) {
    if (got[i] == want[i] || (std::isnan(got[i]) && std::isnan(want[i]))) continue;
    if (std::fabs(got[i] - want[i]) <= tolerance * (std::fabs(want[i]) + mean) + k_op_floor) continue;
    return std::string(what) + ": element " + std::to_string(i) + " is " + std::to_string(got[i]) + ", should be " +
           std::to_string(want[i]) + " (mean size " + std::to_string(mean) + ")";
  }
  return {};
}

struct Expected {
  Array y;
  Array functional;
};

// d(functional . reference) / d(input i), element by element.
std::vector<double> central_differences(const Case& test, const Array& functional, std::vector<Array> logical,
                                        std::size_t i) {
  std::vector<double> slopes(logical[i].v.size());
  const auto value = [&] {
    const Array y = test.reference(logical);
    return std::inner_product(y.v.begin(), y.v.end(), functional.v.begin(), 0.0);
  };
  for (std::size_t e = 0; e < slopes.size(); ++e) {
    const double x = logical[i].v[e], h = 1e-6 * std::max(1.0, std::fabs(x));
    logical[i].v[e] = x + h;
    const double above = value();
    logical[i].v[e] = x - h;
    slopes[e] = (above - value()) / (2 * h);
    logical[i].v[e] = x;
  }
  return slopes;
}

// All that a run needs, prepared once.
struct Scene {
  std::vector<Prepared> inputs;
  std::vector<Array> logical;
  Array y, functional;
  Owned weights;
};

Scene stage(const Case& test, View view, bool same) {
  Scene scene;
  std::minstd_rand random(static_cast<unsigned>(std::hash<std::string>{}(test.name)) | 1u);
  for (const Input& input : test.inputs) scene.inputs.push_back(prepare(input, view, random));
  for (std::size_t i = 0; i < scene.inputs.size(); ++i) {
    const bool again = same && test.inputs[i].dtype == DType::f32 && test.inputs[i].dims == test.inputs[0].dims;
    scene.logical.push_back(scene.inputs[again ? 0 : i].logical);
  }
  scene.y = test.reference(scene.logical);
  scene.functional =
      map(scene.y, [&](double) { return static_cast<double>(std::uniform_real_distribution<float>(-1, 1)(random)); });
  scene.weights = std::move(Owned::zeros(shape_of(scene.y.dims)).value());
  fill<float>(scene.weights, scene.functional.v);
  return scene;
}

std::string values_of(const Case& test, View view, bool same) {
  const Scene scene = stage(test, view, same);
  Outcome got;
  const std::string where = std::string(same ? "used twice, " : "") + k_view_names[static_cast<int>(view)] + ": ";
  if (auto error = step(workspace(1), test, scene.inputs, view, scene.weights, same, &got); !error.empty())
    return where + error;
  if (!got.error.empty()) return where + got.error;
  if (got.dims != scene.y.dims) return where + "shape " + text(got.dims) + ", should be " + text(scene.y.dims);
  if (auto wrong = compare("forward", got.values, scene.y.v, k_op_forward * test.looser); !wrong.empty())
    return where + wrong;
  if (!test.differentiable) return {};
  std::vector<std::vector<double>> want(scene.inputs.size());
  for (std::size_t i = 0; i < scene.inputs.size(); ++i) {
    if (!test.inputs[i].differentiable()) continue;
    const bool again = same && test.inputs[i].dims == test.inputs[0].dims;
    std::vector<double>& sum = want[again ? 0 : i];
    sum.resize(scene.inputs[again ? 0 : i].base.tensor().numel());
    // With one operand used twice each place has its own share: the differences are taken place by place.
    const auto slopes = central_differences(test, scene.functional, scene.logical, i);
    for (std::size_t e = 0; e < slopes.size(); ++e) sum[scene.inputs[i].origin[e]] += slopes[e];
  }
  for (std::size_t i = 0; i < scene.inputs.size(); ++i) {
    if (!test.inputs[i].differentiable()) continue;
    const bool again = same && test.inputs[i].dims == test.inputs[0].dims;
    const std::string name = "gradient of input " + std::to_string(i);
    if (auto wrong = compare(name.c_str(), got.gradients[i], want[again ? 0 : i], k_op_gradient * test.looser);
        !wrong.empty())
      return where + wrong;
  }
  return {};
}

std::string same_bits(const Case& test, const std::vector<Prepared>& inputs, const Tensor& weights) {
  std::vector<float> first;
  for (const int threads : {1, 2, 3, 2, 1}) {
    Outcome got;
    if (auto error = step(workspace(threads), test, inputs, View::dense, weights, false, &got); !error.empty())
      return error;
    if (first.empty()) first = got.bits;
    if (first.size() != got.bits.size() ||
        (!first.empty() && std::memcmp(first.data(), got.bits.data(), first.size() * sizeof(float)) != 0)) {
      return "other bits with " + std::to_string(threads) + " workers, or in a second run";
    }
  }
  return {};
}

std::string no_allocation(const Case& test, const Scene& scene, View view) {
  if (!k_counts_allocations) return {};
  for (const int threads : {1, 2}) {
    std::string error;
    for (int run = 0; run < 2; ++run)
      error = step(workspace(threads), test, scene.inputs, view, scene.weights, false, nullptr);
    if (!error.empty()) return error;
    const auto count = allocations_of(
        [&] { error = step(workspace(threads), test, scene.inputs, view, scene.weights, false, nullptr); });
    if (count)
      return std::to_string(count) + " allocations in a warm step with " + std::to_string(threads) + " workers";
  }
  return {};
}

std::string same_plan(const Case& test, const Scene& scene, View view) {
  for (const int threads : {1, 2}) {
    Workspace real{{.scratch = std::size_t{1} << 28, .threads = threads}};
    Workspace plan = qorus::planning_workspace(threads);
    if (auto error = step(real, test, scene.inputs, view, scene.weights, false, nullptr); !error.empty()) return error;
    if (auto error = step(plan, test, scene.inputs, view, scene.weights, false, nullptr); !error.empty())
      return "planned: " + error;
    const auto ran = real.counters().high_water, planned = plan.counters().high_water;
    if (ran != planned) return "planned " + std::to_string(planned) + " bytes, used " + std::to_string(ran);
  }
  return {};
}

// Gradients are added where there are some already, and left out where none is wanted: nothing else becomes of the others.
std::string shares_gradients(const Case& test, const Scene& scene) {
  if (!test.differentiable) return {};
  Outcome plain, more;
  const auto run = [&](Outcome& out, const Taken& taken) {
    return step(workspace(1), test, scene.inputs, View::dense, scene.weights, false, &out, taken);
  };
  if (auto error = run(plain, {}); !error.empty()) return error;
  if (auto error = run(more, {.again = true}); !error.empty()) return "with sums: " + error;
  for (std::size_t i = 0; i < scene.inputs.size(); ++i) {
    if (!test.inputs[i].differentiable()) continue;
    std::vector<double> want = plain.gradients[i];
    for (double& g : want) ++g;
    const std::string name = "gradient of input " + std::to_string(i);
    if (auto wrong = compare((name + " and its sum").c_str(), more.gradients[i], want, k_op_gradient); !wrong.empty())
      return wrong;
    Outcome alone;
    if (auto error = run(alone, {.watched = 1u << i}); !error.empty()) return name + " alone: " + error;
    if (auto wrong = compare((name + " alone").c_str(), alone.gradients[i], plain.gradients[i], k_op_gradient);
        !wrong.empty())
      return wrong;
  }
  return {};
}

// With less scratch than it needs the step ends with an error that says so, wherever it runs out, and the next one is as if nothing had been.
std::string fails_without_room(const Case& test, const Scene& scene, View view, const Taken& taken) {
  constexpr std::size_t k_all = std::size_t{1} << 28, k_tries = 200, k_line = 64;
  Workspace plan = qorus::planning_workspace(1);
  if (auto error = step(plan, test, scene.inputs, view, scene.weights, false, nullptr, taken); !error.empty())
    return error;
  const std::size_t wanted = plan.counters().high_water;
  static Workspace ws{{.scratch = k_all, .threads = 1}};
  qorus::Arena& scratch = *ws.context().scratch;
  const std::size_t mark = scratch.mark(), stride = std::max(k_line, wanted / k_tries / k_line * k_line);
  for (std::size_t room = 0; room < wanted; room += stride) {
    if (auto rest = scratch.take(k_all - mark - room); !rest) return "no room to take";
    const auto error = step(ws, test, scene.inputs, view, scene.weights, false, nullptr, taken);
    scratch.shrink_to(mark);
    if (error.find("out of memory") == error.npos && error.find("too small") == error.npos)
      return "with " + std::to_string(room) + " of " + std::to_string(wanted) + " bytes: '" + error + "'";
  }
  return {};
}

bool could_be_used_twice(const Case& test) {
  return test.inputs.size() > 1 && test.inputs[0].dtype == DType::f32 && test.inputs[1].dtype == DType::f32 &&
         !test.repeats_kink && test.inputs[0].dims == test.inputs[1].dims && test.inputs[1].low <= test.inputs[0].low &&
         test.inputs[1].high >= test.inputs[0].high;
}

}  // namespace

std::string check_values(const Case& test) { return values_of(test, View::dense, false); }

std::string check(const Case& test) {
  for (const View view : {View::dense, View::transposed, View::sliced, View::broadcast}) {
    const bool any =
        std::any_of(test.inputs.begin(), test.inputs.end(), [&](const Input& input) { return applies(input, view); });
    if (!any || (view == View::broadcast && test.repeats_kink)) continue;
    if (auto wrong = values_of(test, view, false); !wrong.empty()) return wrong;
    const Scene scene = stage(test, view, false);
    if (auto wrong = no_allocation(test, scene, view); !wrong.empty()) return wrong;
    if (auto wrong = same_plan(test, scene, view); !wrong.empty()) return wrong;
  }
  if (could_be_used_twice(test)) {
    if (auto wrong = values_of(test, View::dense, true); !wrong.empty()) return wrong;
  }
  const Scene scene = stage(test, View::dense, false);
  if (auto wrong = fails_without_room(test, scene, View::dense, {}); !wrong.empty()) return wrong;
  const Scene sliced = stage(test, View::sliced, false);
  if (auto wrong = fails_without_room(test, sliced, View::sliced, {.again = test.differentiable}); !wrong.empty())
    return wrong;
  if (auto wrong = shares_gradients(test, scene); !wrong.empty()) return wrong;
  if (auto wrong = check_refusals(test); !wrong.empty()) return wrong;
  return same_bits(test, scene.inputs, scene.weights);
}

std::string check_bits(const Case& test) {
  std::minstd_rand random(7);
  std::vector<Prepared> inputs;
  for (const Input& input : test.inputs) inputs.push_back(prepare(input, View::dense, random));
  Owned weights;
  {
    auto frame = workspace(1).frame();
    std::array<Tensor, 8> operands;
    for (std::size_t i = 0; i < inputs.size(); ++i) operands[i] = frame.input(inputs[i].base).value();
    auto y = test.run(std::span<const Tensor>(operands.data(), inputs.size()));
    if (!y) return y.error().message().c_str();
    weights = random_owned(y->shape(), 3);
  }
  return same_bits(test, inputs, weights);
}

}  // namespace qorus_test
