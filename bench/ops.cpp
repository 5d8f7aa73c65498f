// Times single operations through the library's own interface, forward and, through a tape, backward: one JSON line for each that
// bench/peers/torch_bench.py times, of the same name, sizes and counting; and what a fork and join of the workers costs.
//
//   bench_ops [--threads N] [--seconds S] [ITEM ...]
#include <atomic>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "bench/timing.h"

import qorus.optim;

using namespace qorus;

namespace {

struct Settings {
  int threads = 1;
  double seconds = 2;
  std::vector<std::string> items;
};

[[noreturn]] void give_up(const Error& error) {
  std::fprintf(stderr, "bench_ops: %s\n", error.message().c_str());
  std::exit(1);
}

// Numbers of a normal distribution's shape: the mean of twelve even ones.
Owned normal(const Shape& shape) {
  auto owned = Owned::zeros(shape);
  if (!owned) give_up(owned.error());
  std::uint32_t state = 1;
  for (float& value : owned->fill<float>()) {
    value = -6;
    for (int i = 0; i < 12; ++i)
      value += static_cast<float>((state = state * 1664525u + 1013904223u) >> 8) / 16777216.0f;
  }
  return std::move(*owned);
}

struct Measured {
  const Settings& settings;
  void operator()(const std::string& item, const std::string& config, double amount, const char* unit,
                  const std::function<void()>& step) const {
    bool wanted = settings.items.empty();
    for (const auto& name : settings.items) wanted = wanted || item == name || item == name + "_train";
    if (!wanted) return;
    bench::report(item.c_str(), "0.1.0", config, settings.threads,
                  bench::time_step(settings.threads, step, settings.seconds), amount, unit);
  }
};

void check(const Status& status) {
  if (!status) give_up(status.error());
}
template <class T>
void check(const Result<T>& result) {
  if (!result) give_up(result.error());
}

void arrays(const Settings& settings, const Measured& show) {
  const Shape shape{4096, 1024};
  const Owned x = normal(shape), y = normal(shape);
  const Owned weight = normal({1024});
  Workspace ws{{.scratch = 1_GiB, .threads = settings.threads}};
  check(ws.status());
  using Op = std::function<Result<Tensor>(const Tensor&)>;
  const struct {
    const char* name;
    Op op;
    double passes;
  } items[] = {{"add", [&](const Tensor& a) { return ops::add(a, y.tensor()); }, 3},
               {"softmax", [](const Tensor& a) { return ops::softmax(a); }, 2},
               {"layernorm", [&](const Tensor& a) { return ops::layer_norm(a, weight.tensor(), weight.tensor()); }, 2},
               {"rmsnorm", [&](const Tensor& a) { return ops::rms_norm(a, weight.tensor()); }, 2},
               {"gelu", [](const Tensor& a) { return ops::gelu(a); }, 2},
               {"gelu_tanh", [](const Tensor& a) { return ops::gelu_tanh(a); }, 2},
               {"silu", [](const Tensor& a) { return ops::silu(a); }, 2}};
  const std::string config = "\"shape\":[4096,1024]";
  const double gigabytes = 4e-9 * static_cast<double>(x.tensor().numel());
  for (const auto& item : items) {
    show(item.name, config, item.passes * gigabytes, "GB/s", [&] {
      auto frame = ws.frame();
      check(item.op(frame.input(x).value()));
    });
    if (item.passes == 3) continue;
    show(std::string(item.name) + "_train", config, (item.passes + 3) * gigabytes, "GB/s", [&] {
      auto tape = ws.record();
      auto leaf = tape.watch(x);
      check(leaf);
      auto out = item.op(*leaf);
      check(out);
      check(backward_from(*out, y));
    });
  }
}

void entropy(const Settings& settings, const Measured& show) {
  const Owned logits = normal({2048, 32000});
  std::vector<std::int32_t> targets(2048);
  for (std::size_t i = 0; i < targets.size(); ++i) targets[i] = static_cast<std::int32_t>(i * 7919 % 32000);
  const Tensor labels = Tensor::borrow(std::span<const std::int32_t>(targets), {2048});
  Workspace ws{{.scratch = 1_GiB, .threads = settings.threads}};
  const double gigabytes = 4e-9 * static_cast<double>(logits.tensor().numel());
  show("cross_entropy", "\"shape\":[2048,32000]", gigabytes, "GB/s of logits", [&] {
    auto frame = ws.frame();
    check(ops::cross_entropy(frame.input(logits), frame.input(labels)));
  });
  show("cross_entropy_train", "\"shape\":[2048,32000]", 2 * gigabytes, "GB/s of logits and gradient", [&] {
    auto tape = ws.record();
    auto loss = ops::cross_entropy(tape.watch(logits), tape.input(labels));
    check(loss);
    check(backward(*loss));
  });
}

// What it costs that every worker takes a task and all are waited for: the tasks end when each has begun. A million divided by the rate
// is in microseconds.
void fork_join(const Settings& settings, const Measured& show) {
  constexpr int k_times = 1000;
  Workspace ws{{.scratch = 1_MiB, .threads = settings.threads}};
  auto frame = ws.frame();
  show("fork_join", "\"tasks\":" + std::to_string(settings.threads), k_times, "times/s", [&] {
    for (int i = 0; i < k_times; ++i) {
      std::atomic<int> begun{0};
      parallel(frame.context(), static_cast<std::uint32_t>(settings.threads), [&](std::uint32_t, int) {
        ++begun;
        while (begun < settings.threads) continue;
      });
    }
  });
}

// Ten million parameters; the gradients are those of one backward, used again and again.
void adamw(const Settings& settings, const Measured& show) {
  auto model = nn::build(nn::repeat(9, nn::linear(1024)) | nn::linear(540), {1024}, init::kaiming(1));
  check(model);
  Optimizer optimizer = optim::adamw(*model, {.lr = 1e-4f});
  const Owned x = normal({1, 1024});
  Workspace ws{{.scratch = 1_GiB, .threads = settings.threads}};
  auto tape = ws.record();
  auto out = tape.input(x) | *model;
  check(out);
  auto gradients = backward(ops::sum(*out).value());
  check(gradients);
  const auto count = static_cast<double>(model->parameter_count());
  show("adamw_fused", "\"parameters\":" + std::to_string(model->parameter_count()), 28e-9 * count, "GB/s",
       [&] { check(optimizer.step(*model, *gradients)); });
}

}  // namespace

int main(int argc, char** argv) {
  Settings settings;
  for (int i = 1; i < argc; ++i) {
    const std::string argument = argv[i];
    if (argument == "--threads" && i + 1 < argc) {
      settings.threads = std::atoi(argv[++i]);
    } else if (argument == "--seconds" && i + 1 < argc) {
      settings.seconds = std::atof(argv[++i]);
    } else if (argument[0] == '-') {
      std::fprintf(stderr, "usage: bench_ops [--threads N] [--seconds S] [ITEM ...]\n");
      return argument == "--help" ? 0 : 2;
    } else {
      settings.items.push_back(argument);
    }
  }
  const Measured show{settings};
  arrays(settings, show);
  entropy(settings, show);
  adamw(settings, show);
  fork_join(settings, show);
}
