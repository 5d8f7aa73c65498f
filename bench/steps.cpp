// Times whole steps of the networks that bench/peers/torch_bench.py times: MODEL_train (forward, loss, backward, AdamW), MODEL_infer
// (forward alone, the same batch) and MODEL_infer1 (one example), each in a process of its own so that its peak memory is its own.
//
//   bench_steps [--threads N] [--seconds S] [--phases train,infer,infer1] [MODEL ...]   models: mlp lenet resnet20 gpt_nano gpt_micro llama_block lstm
#include <sys/wait.h>
#include <unistd.h>

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
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

std::vector<std::int32_t> numbers(std::size_t n, int below) {
  std::vector<std::int32_t> values(n);
  std::uint32_t state = 7;
  for (auto& value : values) value = static_cast<std::int32_t>((state = state * 1664525u + 1013904223u) >> 8) % below;
  return values;
}

// One phase of one model on random data: floats to one class of each example, or (`ids`) numbers below `classes` to as many. A step that fails ends the program.
template <class Build>
void run_phase(const std::string& name, const std::string& phase, std::size_t batch, const Shape& example, int classes,
               const Settings& settings, const Build& build, bool ids = false) {
  auto model = build();
  if (!model) give_up(model.error());
  if (phase == "infer1") batch = 1;
  const bool train = phase == "train";
  const Shape input = example.inserted(0, static_cast<std::int64_t>(batch));
  const std::vector<float> x = noise(ids ? 0 : input.numel());
  const std::vector<std::int32_t> tokens = numbers(ids ? input.numel() : 0, classes),
                                  y = numbers(ids ? input.numel() : batch, classes);
  const Tensor xs = ids ? Tensor::borrow(std::span<const std::int32_t>(tokens), input)
                        : Tensor::borrow(std::span<const float>(x), input);
  const Tensor ys =
      Tensor::borrow(std::span<const std::int32_t>(y), ids ? input : Shape{static_cast<std::int64_t>(batch)});
  Workspace ws{{.scratch = 1_GiB, .threads = settings.threads}};
  const std::string config = "\"batch\":" + std::to_string(batch) +
                             ",\"parameters\":" + std::to_string(model->parameter_count()) + ",\"isa\":\"" +
                             cpu_info().isa + "\"";
  const auto time = [&](const auto& step) {
    const auto samples = bench::time_step(settings.threads, step, settings.seconds);
    bench::report((name + "_" + phase).c_str(), "0.1.0", config, settings.threads, samples, 1, "steps/s");
  };
  if (!train) {
    const auto packed = nn::packed(std::move(*model));
    if (!packed) give_up(packed.error());
    return time([&] {
      auto frame = ws.frame();
      auto out = frame.input(xs) | *packed;
      if (!out) give_up(out.error());
    });
  }
  Optimizer optimizer = optim::adamw(*model);
  time([&] {
    auto tape = ws.record();
    auto done = (tape.input(xs) | (*model | loss::cross_entropy(ys))).and_then([&](const Tensor& loss) {
      return optimizer.step(*model, loss);
    });
    if (!done) give_up(done.error());
  });
}

// A model of sequences of `context` ids below `vocab`.
template <class L>
void run_sequences(const std::string& name, const std::string& phase, std::size_t batch, std::int64_t context,
                   int vocab, const Settings& settings, const L& layers) {
  const auto build = [&] { return nn::build(layers, {context}, init::normal(1), {.input = DType::i32}); };
  run_phase(name, phase, batch, {context}, vocab, settings, build, true);
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
  } else if (name == "gpt_nano") {
    run_sequences(name, phase, 12, 256, 65, settings,
                  nn::gpt({.vocab = 65, .context = 256, .d_model = 384, .heads = 6, .layers = 6}));
  } else if (name == "gpt_micro") {
    run_sequences(name, phase, 12, 64, 65, settings,
                  nn::gpt({.vocab = 65, .context = 64, .d_model = 128, .heads = 4, .layers = 4}));
  } else if (name == "llama_block") {
    run_sequences(name, phase, 8, 256, 4096, settings,
                  nn::llama({.vocab = 4096,
                             .context = 256,
                             .d_model = 256,
                             .heads = 8,
                             .layers = 4,
                             .block = {.attention = {.kv_heads = 4}, .d_ff = 704}}));
  } else if (name == "lstm") {
    run_sequences(name, phase, 32, 64, 65, settings,
                  nn::embedding(65, 256) | nn::lstm(256, {.layers = 2}) | nn::linear(65));
  } else {
    std::fprintf(stderr, "bench_steps: no model %s\n", name.c_str());
    _exit(2);
  }
}

}  // namespace

int main(int argc, char** argv) {
  Settings settings;
  std::vector<std::string> models;
  std::string phases = "train,infer,infer1";
  for (int i = 1; i < argc; ++i) {
    const std::string argument = argv[i];
    if (argument == "--threads" && i + 1 < argc) {
      settings.threads = std::atoi(argv[++i]);
    } else if (argument == "--seconds" && i + 1 < argc) {
      settings.seconds = std::atof(argv[++i]);
    } else if (argument == "--phases" && i + 1 < argc) {
      phases = argv[++i];
    } else if (argument[0] == '-') {
      std::fprintf(stderr,
                   "usage: bench_steps [--threads N] [--seconds S] [--phases train,infer,infer1] [MODEL ...]\n");
      return argument == "--help" ? 0 : 2;
    } else {
      models.push_back(argument);
    }
  }
  if (models.empty()) models = {"mlp"};
  int failed = 0;
  for (const auto& model : models) {
    for (const char* phase : {"train", "infer", "infer1"}) {
      if (("," + phases + ",").find("," + std::string(phase) + ",") == std::string::npos) continue;
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
