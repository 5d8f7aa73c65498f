// The command line as plain data. Filled by options.cpp, read by the commands.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "options_text.h"
#include "options_tune.h"

enum class Command {
  train,
  predict,
  inspect,
  tokenize,
  generate,
  logits,
  perplexity,
  bench,
  quantize,
  diff,
  verify,
  chat,
  train_text,
  convert,
  finetune,
  merge
};

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
  std::string prompt;      // of generate; its file is `file`
  std::string tokenizer;   // of language models: a file, where it does not lie with the model
  int tokens = 128;
  double temperature = 0, top_p = 1, min_p = 0, typical_p = 1, mirostat_tau = 0, mirostat_eta = 0.1;
  double repetition_penalty = 1, frequency_penalty = 0, presence_penalty = 0;
  int top_k = 0, penalty_last = 64;
  std::vector<std::string> bias, stop;  // "ID=NUMBER"; texts that end a generation
  std::string cache = "f32";
  std::string ids, npy;                                        // of logits
  int context = 0;                                             // 0: as the model has it, or the command's own choice
  int prompt_tokens = 512, generate_tokens = 128, repeat = 3;  // of bench
  bool json = false;
  std::string type = "q8_0", type_as;  // of quantize; of verify
  std::vector<std::string> rules;      // of quantize: "PATTERN=TYPE"
  bool least_error = false, pure = false;
  std::string importance;      // of quantize: a file
  std::string to, shard_size;  // of convert: a format; "500MB"
  bool laid_out = false;
  bool bos = false, special = false, decode = false;
  std::string jinja, system;  // of chat: a file or a name; the first message
  TextTraining text_training;
  std::string adapter;  // to run a model with, or to merge into it: a GGUF file or PEFT's folder
  double adapter_scale = 1;
  Tuning tuning;
  int guess = 0;         // of generate and chat: tokens guessed ahead at most
  std::string draft;     // the model that guesses
  bool sampled = false;  // the command line says how tokens are chosen
};

// Reads the command line. Gives -1 if there is something to do, else the program's exit code: 0 (help, version) or 2 (usage).
int parse_options(int argc, char** argv, Options& options);

int train_command(const Options& options);
int predict_command(const Options& options);
int inspect_command(const Options& options);
int tokenize_command(const Options& options);
int generate_command(const Options& options);
int logits_command(const Options& options);
int perplexity_command(const Options& options);
int bench_command(const Options& options);
int quantize_command(const Options& options);
int diff_command(const Options& options);
int verify_command(const Options& options);
int chat_command(const Options& options);
int train_text_command(const Options& options);
int convert_command(const Options& options);
int finetune_command(const Options& options);
int merge_command(const Options& options);
