// Every documented error of the operations is produced, with its shapes, and nothing is lost by it.
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <initializer_list>
#include <limits>
#include <span>
#include <string>
#include <vector>

#include "tests/testing.h"

import qorus.ops;
import qorus.test.ops;

using namespace qorus;
using namespace qorus_test;

namespace {

using Made = std::function<Result<Tensor>(const Tensor&)>;

struct Entry {
  const char* name;
  Made f;
};

// Every operation, given a [2,3] f32 tensor that it can work with.
const std::vector<Entry>& operations() {
  static const std::int32_t index[] = {0, 1};
  static const std::int32_t places[] = {0, 1, 0, 1, 0, 1};
  static const Tensor i2 = Tensor::borrow(std::span<const std::int32_t>(index), {2}),
                      i23 = Tensor::borrow(std::span<const std::int32_t>(places), {2, 3});
  static const std::uint8_t truths[] = {1, 0, 1};
  static const Tensor mask = Tensor::borrow(std::span<const std::uint8_t>(truths), {3});
  static const std::vector<Entry> all = {
      {"add", [](const Tensor& x) { return ops::add(x, x); }},
      {"add_relu", [](const Tensor& x) { return ops::add_relu(x, x); }},
      {"pow", [](const Tensor& x) { return ops::pow(x, x); }},
      {"maximum", [](const Tensor& x) { return ops::maximum(x, 1.0f); }},
      {"less", [](const Tensor& x) { return ops::less(x, x); }},
      {"where", [](const Tensor& x) { return ops::where(mask, x, x); }},
      {"exp", [](const Tensor& x) { return ops::exp(x); }},
      {"clamp", [](const Tensor& x) { return ops::clamp(x, 0, 1); }},
      {"sum", [](const Tensor& x) { return ops::sum(x); }},
      {"mean", [](const Tensor& x) { return ops::mean(x, 1); }},
      {"variance", [](const Tensor& x) { return ops::variance(x, 1); }},
      {"argmax", [](const Tensor& x) { return ops::argmax(x); }},
      {"softmax", [](const Tensor& x) { return ops::softmax(x); }},
      {"log_softmax", [](const Tensor& x) { return ops::log_softmax(x, 0); }},
      {"cross_entropy", [](const Tensor& x) { return ops::cross_entropy(x, i2); }},
      {"linear_cross_entropy", [](const Tensor& x) { return ops::linear_cross_entropy(x, x, i2); }},
      {"nll", [](const Tensor& x) { return ops::nll(x, i2); }},
      {"mse", [](const Tensor& x) { return ops::mse(x, x); }},
      {"huber", [](const Tensor& x) { return ops::huber(x, x); }},
      {"bce_with_logits", [](const Tensor& x) { return ops::bce_with_logits(x, x); }},
      {"matmul", [](const Tensor& x) { return ops::matmul(x, ops::transpose(x)); }},
      {"linear", [](const Tensor& x) { return ops::linear(x, x); }},
      {"gated", [](const Tensor& x) { return ops::gated(x, x, Activation::silu); }},
      {"gated_linear", [](const Tensor& x) { return ops::gated_linear(x, x, x, {}); }},
      {"activated_linear", [](const Tensor& x) { return ops::activated_linear(x, x, {}); }},
      {"activate", [](const Tensor& x) { return ops::activate(x, Activation::silu); }},
      {"pad", [](const Tensor& x) { return ops::pad(x, {{0, 1, 1}}); }},
      {"gather", [](const Tensor& x) { return ops::gather(x, i23, 0); }},
      {"scatter_add", [](const Tensor& x) { return ops::scatter_add(x, i23, x, 0); }},
      {"dropout", [](const Tensor& x) { return ops::dropout(x, 0.5f); }},
      {"cumsum", [](const Tensor& x) { return ops::cumsum(x); }},
  };
  return all;
}

// Those that take elements of any type.
const std::vector<Entry>& any_type() {
  static const std::int32_t index[] = {0, 1};
  static const Tensor i2 = Tensor::borrow(std::span<const std::int32_t>(index), {2});
  static const std::vector<Entry> all = {
      {"contiguous", [](const Tensor& x) { return ops::contiguous(ops::transpose(x)); }},
      {"concat", [](const Tensor& x) { return ops::concat({x, x}); }},
      {"stack", [](const Tensor& x) { return ops::stack({x, x}); }},
      {"take", [](const Tensor& x) { return ops::take(x, i2); }},
      {"cast", [](const Tensor& x) { return ops::cast(ops::cast(x, DType::f16), DType::i8); }},
      {"tile", [](const Tensor& x) { return ops::tile(x, {2, 2}); }},
      {"repeat", [](const Tensor& x) { return ops::repeat(x, 2, 0); }},
      {"pad edge", [](const Tensor& x) { return ops::pad(x, {{0, 1, 1}}, ops::PadMode::edge); }},
  };
  return all;
}

const std::vector<Entry>& views() {
  static const std::vector<Entry> all = {
      {"reshape", [](const Tensor& x) { return ops::reshape(x, {6}); }},
      {"flatten", [](const Tensor& x) { return ops::flatten(x); }},
      {"transpose", [](const Tensor& x) { return ops::transpose(x); }},
      {"permute", [](const Tensor& x) { return ops::permute(x, {1, 0}); }},
      {"slice", [](const Tensor& x) { return ops::slice(x, 0, 0, 1); }},
      {"select", [](const Tensor& x) { return ops::select(x, 0, 0); }},
      {"broadcast_to", [](const Tensor& x) { return ops::broadcast_to(x, {2, 2, 3}); }},
      {"unsqueeze", [](const Tensor& x) { return ops::unsqueeze(x, 0); }},
      {"detach", [](const Tensor& x) { return ops::detach(x); }},
      {"split",
       [](const Tensor& x) { return ops::split<3>(x, 1).transform([](const auto& parts) { return parts[2]; }); }},
  };
  return all;
}

template <class F>
void each(std::initializer_list<const std::vector<Entry>*> lists, const F& f) {
  for (const auto* list : lists) {
    for (const Entry& entry : *list) {
      SCOPED_TRACE(entry.name);
      f(entry);
    }
  }
}

TEST(Errors, NoneForAGoodOperand) {
  const Owned x = random_owned({2, 3});
  auto tape = workspace(1).record();
  each({&operations(), &any_type(), &views()}, [&](const Entry& e) { EXPECT_OK(e.f(tape.watch(x).value())); });
}

TEST(Errors, ATensorAfterItsFrame) {
  const Owned x = random_owned({2, 3});
  Tensor kept, copied;
  {
    auto frame = workspace(1).frame();
    kept = frame.input(x).value();
    copied = ops::exp(kept).value();
  }
  each({&operations(), &any_type(), &views()}, [&](const Entry& e) {
    EXPECT_FAILS(e.f(kept), Errc::stale_tensor);
    EXPECT_FAILS(e.f(copied), Errc::stale_tensor);
  });
  auto again = workspace(1).frame();  // the memory is in use again: still stale
  auto other = ops::exp(again.input(x));
  EXPECT_FAILS(ops::add(copied, other), Errc::stale_tensor);
}

TEST(Errors, ATensorAfterItsOwnerIsGone) {
  auto frame = workspace(1).frame();
  Tensor kept;
  {
    const Owned x = random_owned({2, 3});
    kept = frame.input(x).value();
  }
  each({&operations(), &any_type(), &views()}, [&](const Entry& e) { EXPECT_FAILS(e.f(kept), Errc::stale_tensor); });
}

TEST(Errors, ATensorAfterItsWorkspaceIsGone) {
  const Owned x = random_owned({2, 3});
  Tensor kept;
  {
    Workspace ws{{.scratch = 1_MiB, .threads = 1}};
    auto frame = ws.frame();
    kept = ops::exp(frame.input(x)).value();
  }
  each({&operations(), &any_type(), &views()}, [&](const Entry& e) { EXPECT_FAILS(e.f(kept), Errc::stale_tensor); });
}

TEST(Errors, NoWorkspace) {
  const Owned x = random_owned({2, 3});
  each({&operations(), &any_type()}, [&](const Entry& e) { EXPECT_FAILS(e.f(x), Errc::no_workspace); });
  each({&views()}, [&](const Entry& e) { EXPECT_OK(e.f(x)); });
}

TEST(Errors, TwoWorkspaces) {
  const Owned x = random_owned({2, 3});
  auto one = workspace(1).frame(), two = workspace(2).frame();
  auto a = one.input(x), b = two.input(x);
  EXPECT_FAILS_SAYING(ops::add(a, b), "two workspaces");
  EXPECT_FAILS(ops::linear(a, b), Errc::invalid_argument);
  EXPECT_FAILS(ops::concat({a, b}), Errc::invalid_argument);
  EXPECT_FAILS(ops::mse(a, b), Errc::invalid_argument);
}

TEST(Errors, AnotherElementType) {
  const std::int32_t values[] = {0, 1, 0, 1, 1, 0};
  auto frame = workspace(1).frame();
  auto x = frame.input(Tensor::borrow(std::span<const std::int32_t>(values), {2, 3})).value();
  each({&operations()}, [&](const Entry& e) { EXPECT_FAILS(e.f(x), Errc::invalid_dtype); });
  each({&any_type(), &views()}, [&](const Entry& e) { EXPECT_OK(e.f(x)); });
  const Owned floats = random_owned({2, 3}), target = random_owned({2});
  auto f = frame.input(floats);
  EXPECT_FAILS(ops::take(f, f), Errc::invalid_dtype);
  EXPECT_FAILS(ops::gather(f, f, 0), Errc::invalid_dtype);
  EXPECT_FAILS(ops::one_hot(f, 3), Errc::invalid_dtype);
  EXPECT_FAILS(ops::cross_entropy(f, frame.input(target)), Errc::invalid_dtype);
  EXPECT_FAILS(ops::where(f, f, f), Errc::invalid_dtype);
  EXPECT_FAILS(ops::concat({f, x}), Errc::invalid_dtype);
  // Also of an operand that came without a workspace.
  const std::uint8_t one = 1;
  EXPECT_FAILS(ops::where(frame.input(Tensor::borrow(std::span<const std::uint8_t>(&one, 1), {})),
                          Tensor::borrow(std::span<const std::int32_t>(values), {6}), floats.tensor()),
               Errc::invalid_dtype);
}

TEST(Errors, AnInvalidShape) {
  const float values[] = {1, 2, 3};
  auto frame = workspace(1).frame();
  const Tensor wrong = Tensor::borrow(std::span<const float>(values), {2, 2});
  EXPECT_FAILS(frame.input(wrong), Errc::invalid_size);
  EXPECT_FAILS(frame.input(Tensor()), Errc::invalid_size);
  EXPECT_FAILS(ops::add(frame.input(Tensor::borrow(std::span<const float>(values), {3})), wrong), Errc::invalid_size);
}

// Shapes that do not go together: the error names both.
TEST(Errors, ShapesThatDoNotFit) {
  const Owned a23 = random_owned({2, 3}), a24 = random_owned({2, 4}), a5 = random_owned({5}), scalar = random_owned({});
  auto frame = workspace(1).frame();
  auto x = frame.input(a23), y = frame.input(a24), v = frame.input(a5), s = frame.input(scalar);
  EXPECT_FAILS_SAYING(ops::add(x, y), "add: invalid size: [2,3] and [2,4]");
  EXPECT_FAILS_SAYING(x * y, "mul: invalid size: [2,3] and [2,4]");
  EXPECT_FAILS_SAYING(ops::where(ops::less(x, x), x, y), "[2,3] and [2,4]");
  EXPECT_FAILS_SAYING(ops::matmul(x, y), "matmul: invalid size: [2,3] and [2,4]");
  EXPECT_FAILS(ops::matmul(x, s), Errc::invalid_size);
  EXPECT_FAILS_SAYING(ops::linear(x, y), "linear: invalid size: [2,3] and [2,4]");
  EXPECT_FAILS_SAYING(ops::linear(x, x, v), "[5] and [2,3]");
  EXPECT_FAILS_SAYING(ops::mse(x, y), "mse: invalid size: [2,3] and [2,4]");
  EXPECT_FAILS_SAYING(ops::concat({x, y}), "concat: invalid size: [2,3] and [2,4]");
  EXPECT_FAILS_SAYING(ops::stack({x, y}), "stack: invalid size: [2,3] and [2,4]");
  EXPECT_FAILS_SAYING(ops::broadcast_to(x, {2, 4}), "[2,3] and [2,4]");
  EXPECT_FAILS_SAYING(ops::reshape(x, {4, 2}), "[6] and [4,2]");
  EXPECT_FAILS_SAYING(ops::split(x, 1, {1, 1}), "split: invalid size: [2,3] and [1,1]");
  EXPECT_FAILS(ops::split<2>(x, 1), Errc::invalid_size);
  EXPECT_FAILS(ops::squeeze(x, 0), Errc::invalid_size);
  EXPECT_FAILS(ops::tile(x, {2}), Errc::invalid_size);
  EXPECT_FAILS(ops::tile(x, {-1, 1}), Errc::invalid_size);
  EXPECT_FAILS(ops::tile(x, {std::int64_t{1} << 46, 4}), Errc::invalid_size);
  EXPECT_FAILS(ops::repeat(x, -1, 0), Errc::invalid_size);
  const std::int32_t index[] = {0, 1, 0};
  const Tensor i3 = Tensor::borrow(std::span<const std::int32_t>(index), {3}),
               i31 = Tensor::borrow(std::span<const std::int32_t>(index), {3, 1});
  EXPECT_FAILS_SAYING(ops::cross_entropy(x, i3), "cross_entropy: invalid size: [2,3] and [3]");
  EXPECT_FAILS_SAYING(ops::nll(x, i3), "nll: invalid size: [2,3] and [3]");
  EXPECT_FAILS_SAYING(ops::gather(x, i3, 0), "gather: invalid size: [2,3] and [3]");
  EXPECT_FAILS_SAYING(ops::gather(x, i31, 1), "gather: invalid size: [2,3] and [3,1]");
  EXPECT_FAILS_SAYING(ops::scatter_add(x, i31, x, 0), "[3,1] and [2,3]");
  auto deep = ops::reshape(x, {1, 1, 1, 1, 2, 3});
  EXPECT_FAILS(ops::unsqueeze(deep, 0), Errc::invalid_size);
  EXPECT_FAILS(ops::stack({deep, deep}), Errc::invalid_size);
  EXPECT_FAILS(ops::take(deep, i31, 4), Errc::invalid_size);
}

TEST(Errors, ArgumentsThatMakeNoSense) {
  const Owned a = random_owned({2, 3});
  auto frame = workspace(1).frame();
  auto x = frame.input(a);
  EXPECT_FAILS(ops::sum(x, 2), Errc::invalid_argument);
  EXPECT_FAILS(ops::sum(x, {0, 0}), Errc::invalid_argument);
  EXPECT_FAILS(ops::sum(x, {0, -2}), Errc::invalid_argument);
  EXPECT_FAILS(ops::mean(x, {0, 1, 2, 3, 4, 5, 6, 7}), Errc::invalid_argument);
  EXPECT_FAILS(ops::argmax(x, 2), Errc::invalid_argument);
  EXPECT_FAILS(ops::softmax(x, -3), Errc::invalid_argument);
  EXPECT_FAILS(ops::clamp(x, 1, 0), Errc::invalid_argument);
  EXPECT_FAILS(ops::clamp(x, NAN, 0), Errc::invalid_argument);
  EXPECT_FAILS(ops::transpose(x, 0, 2), Errc::invalid_argument);
  EXPECT_FAILS(ops::permute(x, {0, 0}), Errc::invalid_argument);
  EXPECT_FAILS(ops::permute(x, {0}), Errc::invalid_argument);
  EXPECT_FAILS(ops::slice(x, 0, 1, 3), Errc::invalid_argument);
  EXPECT_FAILS(ops::slice(x, 0, 0, 1, 0), Errc::invalid_argument);
  EXPECT_FAILS(ops::select(x, 0, 2), Errc::invalid_argument);
  EXPECT_FAILS(ops::flatten(x, 1, 0), Errc::invalid_argument);
  EXPECT_FAILS(ops::concat(std::span<const Tensor>(), 0), Errc::invalid_argument);
  EXPECT_FAILS(ops::concat({x, x}, 2), Errc::invalid_argument);
  EXPECT_FAILS(ops::cumsum(x, 2), Errc::invalid_argument);
  EXPECT_FAILS(ops::huber(x, x, 0), Errc::invalid_argument);
  EXPECT_FAILS(ops::pad(x, {{0, -1, 0}}), Errc::invalid_argument);
  EXPECT_FAILS(ops::pad(x, {{0, 1, 0}, {-2, 1, 0}}), Errc::invalid_argument);
  EXPECT_FAILS(ops::pad(x, {{0, 2, 0}}, ops::PadMode::reflect), Errc::invalid_argument);
  EXPECT_FAILS(ops::pad(x, {{0, std::numeric_limits<std::int64_t>::max(), 0}}), Errc::invalid_argument);
  const std::int32_t class_of[] = {0, 3}, below[] = {-1, 0};
  const Tensor high = Tensor::borrow(std::span<const std::int32_t>(class_of), {2}),
               low = Tensor::borrow(std::span<const std::int32_t>(below), {2});
  for (const Tensor& wrong : {high, low}) {
    EXPECT_FAILS(ops::cross_entropy(x, wrong), Errc::invalid_argument);
    EXPECT_FAILS(ops::nll(x, wrong), Errc::invalid_argument);
  }
  EXPECT_FAILS(ops::cross_entropy(x, low, {.label_smoothing = 2, .ignore_index = -1}), Errc::invalid_argument);
  EXPECT_FAILS_SAYING(ops::take(x, high), "take: invalid argument: [2] and [2]");
  EXPECT_FAILS(ops::one_hot(frame.input(high), 3), Errc::invalid_argument);
  EXPECT_FAILS(ops::one_hot(frame.input(high), -1), Errc::invalid_argument);
  EXPECT_FAILS(ops::gather(ops::select(x, 0, 0), high, 0), Errc::invalid_argument);
}

// An error in an operand is the operation's own, through any chain.
TEST(Errors, TheFirstOneFlowsThrough) {
  const Owned a = random_owned({2, 3}), b = random_owned({2, 4});
  auto frame = workspace(1).frame();
  auto x = frame.input(a);
  auto broken = ops::add(x, frame.input(b));
  each({&operations(), &any_type(), &views()},
       [&](const Entry& e) { EXPECT_FAILS_SAYING(broken.and_then(e.f), "add: invalid size"); });
  EXPECT_FAILS_SAYING(ops::softmax(ops::exp(broken) * x), "add: invalid size");
  EXPECT_FAILS_SAYING(ops::mse(x, broken), "add: invalid size");
}

// An arena of any size: the step succeeds or says out_of_memory, forward or backward, and the workspace works on.
TEST(Errors, AnArenaTooSmallForwardAndBackward) {
  const Owned x = random_owned({33, 40}), w = random_owned({20, 40}), b = random_owned({20});
  const std::int32_t one = 1;
  bool failed_forward = false, failed_backward = false, passed = false;
  for (std::size_t bytes = 4096; bytes < 1_MiB; bytes += 2048) {
    Workspace ws{{.scratch = bytes, .threads = 1}};
    ASSERT_OK(ws.status());
    {
      auto tape = ws.record();
      auto y = ops::linear(tape.watch(x), tape.watch(w), tape.watch(b), Activation::gelu);
      auto picked = ops::take(ops::concat({ops::softmax(y), ops::cumsum(y)}, 1),
                              Tensor::borrow(std::span<const std::int32_t>(&one, 1), {1}), 1);
      auto loss = ops::mean(picked * ops::variance(y, 0, 0, true));
      if (!loss) {
        EXPECT_EQ(loss.error().code, Errc::out_of_memory) << bytes << ": " << loss.error().message().c_str();
        failed_forward = true;
        continue;
      }
      auto g = backward(*loss);
      if (!g) EXPECT_EQ(g.error().code, Errc::out_of_memory) << bytes << ": " << g.error().message().c_str();
      (g ? passed : failed_backward) = true;
    }
    EXPECT_EQ(ws.counters().in_use, 0u);
    auto frame = ws.frame();
    EXPECT_OK(ops::exp(frame.input(b)));
  }
  EXPECT_TRUE(failed_forward && failed_backward && passed);
}

}  // namespace
