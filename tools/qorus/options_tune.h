// The command line of fine-tuning as plain data, and what adds it. Filled by options_tune.cpp, read by the commands.
#pragma once
#include <string>

namespace CLI {
class App;
}
struct Options;

// Of finetune. What other commands have as well stands in Options.
struct Tuning {
  bool full = false, recompute = false, bf16 = false;
  int rank = 8;
  double alpha = 0;  // 0: twice the rank
  std::string targets = "q,v";
  int steps = 0, accumulate = 1, sample_tokens = 48, checkpoint_every = 50;  // steps 0: all epochs
  double validation = 0;
  std::string checkpoints, sample, report, log;
};

void add_tune_commands(CLI::App& app, Options& options);
