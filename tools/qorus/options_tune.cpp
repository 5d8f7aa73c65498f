#include "options_tune.h"

#include <string>

#include <CLI/CLI.hpp>

#include "options.h"

namespace {

const CLI::Validator k_named([](std::string& name) { return name.empty() ? "no name" : std::string(); }, "FILE");

void add_training(CLI::App& command, Options& options) {
  const auto count = [&](const char* name, int& value, const char* what, int most) {
    command.add_option(name, value, what)->check(CLI::Range(1, most))->type_name("N")->group("Training");
  };
  count("--epochs", options.epochs, "Passes over the data (default: 3)", 100000);
  count("--steps", options.tuning.steps, "Steps of the optimizer at most, in as many passes as that takes", 1 << 30);
  count("--batch", options.batch, "Rows per step (default: 4)", 4096);
  count("--accumulate", options.tuning.accumulate, "Batches whose gradients make one step (default: 1)", 4096);
  count("--context", options.context, "Tokens of a row (default: 512, or what the model has if that is less)", 1 << 20);
  command
      .add_option("--lr", options.learning_rate,
                  "AdamW's learning rate, after a warm-up falling along a cosine (default: 3e-4, with --full 5e-5)")
      ->check(CLI::PositiveNumber)
      ->type_name("R")
      ->group("Training");
  command
      .add_option("--validation", options.tuning.validation, "Share of the samples that is kept apart to measure with")
      ->check(CLI::Range(0.0, 0.9))
      ->type_name("SHARE")
      ->group("Training");
  command.add_option("--seed", options.seed, "Of the adapters' beginning, and of the order of rows")
      ->capture_default_str()
      ->type_name("N")
      ->group("Training");
  command
      .add_option("--checkpoints", options.tuning.checkpoints, "A folder from which the run goes on if it was ended")
      ->type_name("DIR")
      ->group("Training");
  count("--checkpoint-every", options.tuning.checkpoint_every, "Steps between checkpoints (default: 50)", 1 << 30);
  command.add_option("--sample", options.tuning.sample, "Continue this after each pass")
      ->type_name("TEXT")
      ->group("Training");
  count("--sample-tokens", options.tuning.sample_tokens, "Tokens of that (default: 48)", 4096);
  command.add_option("--report", options.tuning.report, "A page with the curves of the run")
      ->type_name("FILE.html")
      ->group("Training");
  command.add_option("--log", options.tuning.log, "The run as lines of JSON")
      ->type_name("FILE.jsonl")
      ->group("Training");
}

void add_finetune(CLI::App& app, Options& options) {
  CLI::App* tune =
      app.add_subcommand("finetune", "Train adapters of low rank (LoRA), or all weights, of a language model");
  tune->add_option("model", options.model, "A model that `qorus generate` opens; its file is only read")
      ->required()
      ->type_name("MODEL");
  tune->add_option(
          "--data", options.data,
          "FILE.jsonl with {\"prompt\", \"response\"} or {\"messages\"} on each line, a text, or a folder of such")
      ->required()
      ->check(k_named)
      ->type_name("PATH");
  tune->add_option("--out", options.out,
                   "FILE.gguf: an adapter as llama.cpp reads it (with --full: the model); otherwise PEFT's folder")
      ->required()
      ->check(k_named)
      ->type_name("PATH");
  CLI::Option* rank =
      tune->add_option("--lora", options.tuning.rank, "Rank of the adapters (default: 8)")->type_name("R");
  tune->add_flag("--full", options.tuning.full, "Train all weights instead: those of F32, F16 and BF16 files")
      ->excludes(rank);
  tune->add_flag("--recompute", options.tuning.recompute,
                 "Compute blocks again in the backward instead of keeping what they computed: more time, less memory");
  tune->add_flag("--bf16", options.tuning.bf16,
                 "Keep what the backward needs of the blocks, and AdamW's moments, in bf16: half their memory");
  tune->add_option("--alpha", options.tuning.alpha, "Adapters are scaled by alpha / rank (default: twice the rank)")
      ->check(CLI::PositiveNumber)
      ->type_name("A");
  tune->add_option("--targets", options.tuning.targets,
                   "Matrices with an adapter: q, k, v, o, gate, up, down, head, or all")
      ->capture_default_str()
      ->type_name("LIST");
  tune->add_option("--template", options.jinja,
                   "How a conversation is spelled: a file in Jinja, chatml, plain, or none: a prompt, its response and "
                   "the end (default: as the model says)")
      ->check(k_named)
      ->type_name("FILE");
  tune->add_option("--tokenizer", options.tokenizer, "The tokenizer's file, where none lies with the model")
      ->type_name("FILE");
  tune->add_option("--threads", options.threads, "Worker threads (default: every processor this process may use)")
      ->check(CLI::Range(1, 256))
      ->type_name("N");
  add_training(*tune, options);
  tune->callback([tune, &options] {
    options.command = Command::finetune;
    if (tune->count("--epochs") == 0) options.epochs = options.tuning.steps ? 0 : 3;
    if (tune->count("--batch") == 0) options.batch = 4;
    if (tune->count("--lr") == 0) options.learning_rate = options.tuning.full ? 5e-5 : 3e-4;
  });
}

void add_merge(CLI::App& app, Options& options) {
  CLI::App* merge = app.add_subcommand("merge", "Write a GGUF model with an adapter added to its weights");
  merge->add_option("model", options.model, "The GGUF file of the base")->required()->type_name("MODEL");
  merge->add_option("adapter", options.adapter, "A GGUF file, or PEFT's folder")->required()->type_name("ADAPTER");
  merge->add_option("out", options.out, "The file to write, as a whole or not at all")->required()->type_name("OUT");
  merge->add_option("--lora-scale", options.adapter_scale, "How much of the adapter")
      ->capture_default_str()
      ->type_name("X");
  CLI::Option* type =
      merge->add_option("--type", options.type, "Of the matrices that change (default: each keeps its own)");
  type->type_name("TYPE");
  merge->callback([type, &options] {
    options.command = Command::merge;
    if (type->count() == 0) options.type.clear();
  });
}

}  // namespace

void add_tune_commands(CLI::App& app, Options& options) {
  add_finetune(app, options);
  add_merge(app, options);
}
