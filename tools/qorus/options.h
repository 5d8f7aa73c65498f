// The command line as plain data. Filled by options.cpp, read by the commands.
#pragma once
#include <cstdint>
#include <string>

enum class Command { train, predict, inspect, tokenize, generate };

struct Options {
  Command command = Command::train;
  std::string set = "digits";  // digits or mnist
  std::string data;            // folder of MNIST's files
  std::string model;           // of predict and tokenize; the file of inspect
  std::string out;             // where train saves
  int epochs = 5;
  int batch = 64;
  int hidden = 256;
  double learning_rate = 2e-3;
  int threads = 0;  // 0: not given, as many as there are
  std::uint64_t seed = 7;
  int show = 5;            // digits drawn by predict
  std::string text, file;  // of tokenize: one of them
  std::string prompt;      // of generate
  int tokens = 128;
  double temperature = 0, top_p = 1;
  bool bos = false, special = false, decode = false;
};

// Reads the command line. Gives -1 if there is something to do, else the program's exit code: 0 (help, version) or 2 (usage).
int parse_options(int argc, char** argv, Options& options);

int train_command(const Options& options);
int predict_command(const Options& options);
int inspect_command(const Options& options);
int tokenize_command(const Options& options);
int generate_command(const Options& options);
