// Times whole steps of the networks that bench/peers/torch_bench.py times: MODEL_train (forward, loss, backward, AdamW), MODEL_infer
// (forward alone, the same batch) and MODEL_infer1 (one example), each in a process of its own so that its peak memory is its own.
//
//   bench_steps [--threads N] [--seconds S] [MODEL ...]        models: mlp lenet resnet20
#include <sys/wait.h>
#include <unistd.h>

#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <span>
#include <string>
#include <vector>

#include "bench/timing.h"

import qorus.optim;

using namespace qorus;

namespace {

struct Settings {
  int threads = 1;
  double seconds = 2;
};

std::vector<float> noise(std::size_t n) {
  std::vector<float> values(n);
  std::uint32_t state = 1;
  for (float& value : values)
    value = static_cast<float>((state = state * 1664525u + 1013904223u) >> 8) / 8388608.0f - 1.0f;
  return values;
}

[[noreturn]] void give_up(const Error& error) {
  std::fprintf(stderr, "bench_steps: %s\n", error.message().c_str());
  _exit(1);
}

// One phase of one model on random data. A step that fails ends the program.
template <class Build>
void run_phase(const std::string& name, const std::string& phase, std::size_t batch, const Shape& example, int classes,
               const Settings& settings, const Build& build) {
  auto model = build();
  if (!model) give_up(model.error());
  if (phase == "infer1") batch = 1;
  const bool train = phase == "train";
  const Shape input = example.inserted(0, static_cast<std::int64_t>(batch));
  const std::vector<float> x = noise(input.numel());
  std::vector<std::int32_t> y(batch);
  for (std::size_t i = 0; i < batch; ++i) y[i] = static_cast<std::int32_t>(i) % classes;
  const Tensor xs = Tensor::borrow(std::span<const float>(x), input);
  const Tensor ys = Tensor::borrow(std::span<const std::int32_t>(y), {static_cast<std::int64_t>(batch)});
  if (auto packed = train ? Status() : model->pack(); !packed) give_up(packed.error());
  Optimizer optimizer = optim::adamw(*model);
  Workspace ws{{.scratch = 1_GiB, .threads = settings.threads}};
  const auto step = [&] {
    if (train) {
      auto tape = ws.record();
      auto done =
          (tape.input(xs) | *model | loss::cross_entropy(ys)).and_then(backward).and_then([&](const Gradients& g) {
            return optimizer.step(*model, g);
          });
      if (!done) give_up(done.error());
    } else {
      auto frame = ws.frame();
      auto out = frame.input(xs) | *model;
      if (!out) give_up(out.error());
    }
  };
  const auto samples = bench::time_step(settings.threads, step, settings.seconds);
  const std::string config = "\"batch\":" + std::to_string(batch) +
                             ",\"parameters\":" + std::to_string(model->parameter_count()) + ",\"isa\":\"" +
                             cpu_info().isa + "\"";
  bench::report((name + "_" + phase).c_str(), "0.1.0", config, settings.threads, samples, 1, "steps/s");
}

void run(const std::string& name, const std::string& phase, const Settings& settings) {
  if (name == "mlp") {
    run_phase(name, phase, 64, {784}, 10, settings, [] {
      return nn::build(nn::linear(512) | nn::relu() | nn::linear(256) | nn::relu() | nn::linear(10), {784},
                       init::kaiming(1));
    });
  } else if (name == "lenet") {
    run_phase(name, phase, 64, {1, 28, 28}, 10, settings,
              [] { return nn::build(nn::lenet(10), {1, 28, 28}, init::kaiming(1)); });
  } else if (name == "resnet20") {
    run_phase(name, phase, 32, {3, 32, 32}, 10, settings,
              [] { return nn::build(nn::resnet20(10), {3, 32, 32}, init::kaiming(1)); });
  } else {
    std::fprintf(stderr, "bench_steps: no model %s\n", name.c_str());
    _exit(2);
  }
}

}  // namespace

int main(int argc, char** argv) {
  Settings settings;
  std::vector<std::string> models;
  for (int i = 1; i < argc; ++i) {
    const std::string argument = argv[i];
    if (argument == "--threads" && i + 1 < argc) {
      settings.threads = std::atoi(argv[++i]);
    } else if (argument == "--seconds" && i + 1 < argc) {
      settings.seconds = std::atof(argv[++i]);
    } else if (argument[0] == '-') {
      std::fprintf(stderr, "usage: bench_steps [--threads N] [--seconds S] [MODEL ...]\n");
      return argument == "--help" ? 0 : 2;
    } else {
      models.push_back(argument);
    }
  }
  if (models.empty()) models = {"mlp"};
  int failed = 0;
  for (const auto& model : models) {
    for (const char* phase : {"train", "infer", "infer1"}) {
      const pid_t child = fork();
      if (child == 0) {
        run(model, phase, settings);
        std::fflush(stdout);
        _exit(0);
      }
      int status = 0;
      if (child < 0 || waitpid(child, &status, 0) < 0 || status != 0) failed = 1;
    }
  }
  return failed;
}
