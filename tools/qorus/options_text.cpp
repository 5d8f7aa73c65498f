#include <cstdint>

#include "options_text.h"

#include <CLI/CLI.hpp>

#include "options_files.h"

namespace {

void add_model(CLI::App& text, TextTraining& t) {
  const auto number = [&](const char* name, int& value, const char* what, int least, int most) {
    text.add_option(name, value, what)
        ->check(CLI::Range(least, most))
        ->capture_default_str()
        ->type_name("N")
        ->group("Model");
  };
  text.add_option("--tokenizer", t.tokenizer,
                  "bytes, chars, bpe or bpe:N (trained on the text, N pieces, 2048 if not said), or a file to take it "
                  "from: GGUF, tokenizer.json, a .model of SentencePiece, ranks of tiktoken, tokenizer.bin of llama2.c")
      ->capture_default_str()
      ->type_name("KIND")
      ->group("Model");
  number("--layers", t.layers, "Blocks", 1, 1024);
  number("--heads", t.heads, "Heads of queries", 1, 1024);
  number("--kv-heads", t.kv_heads, "Heads of keys and values; 0: as many", 0, 1024);
  number("--width", t.width, "Numbers of a token between the blocks", 2, 65536);
  number("--feed-forward", t.feed_forward, "Width of the feed-forward layers; 0: 8/3 of the width, rounded up to 32", 0,
         1 << 20);
  number("--context", t.context, "Tokens that it sees at most", 1, 1 << 20);
  text.add_flag("--tied", t.tied, "The head has the embeddings' weights")->group("Model");
}

void add_training(CLI::App& text, TextTraining& t) {
  const auto number = [&](const char* name, auto& value, const char* what, auto least, auto most) {
    text.add_option(name, value, what)
        ->check(CLI::Range(least, most))
        ->capture_default_str()
        ->type_name("N")
        ->group("Training");
  };
  number("--steps", t.steps, "Steps of the optimizer at most; with neither steps nor epochs 2000", 0L, 100000000L);
  number("--epochs", t.epochs, "Passes over the text; 0: as many as the steps take", 0, 1 << 24);
  number("--batch", t.batch, "Windows of a step", 1, 1 << 20);
  number("--accumulate", t.accumulate, "Batches whose gradients make one step", 1, 1 << 20);
  number("--shards", t.shards,
         "Parts of a batch, computed side by side: faster on several threads if the model is small", 1, 32);
  text.add_option("--lr", t.learning_rate,
                  "AdamW's largest learning rate: up to it in 2 % of the steps, along a cosine down to a tenth")
      ->check(CLI::PositiveNumber)
      ->capture_default_str()
      ->type_name("R")
      ->group("Training");
  text.add_flag("--bf16", t.bf16,
                "Keep what the backward pass needs of the blocks, and AdamW's moments, in bf16: half their memory")
      ->group("Training");
  number("--decay", t.decay, "Weight decay of the matrices", 0.0, 1000.0);
  number("--dropout", t.dropout, "Share of numbers that are dropped", 0.0, 0.99);
  number("--seed", t.seed, "Of the initial weights and the order of the windows", std::uint64_t{0}, UINT64_MAX);
  number("--threads", t.threads, "Worker threads; 0: every processor this process may use", 0, 256);
}

void add_files(CLI::App& text, TextTraining& t) {
  text.add_option("--data", t.data, "A file of text, or a folder: all files in it, in the order of their names")
      ->required()
      ->type_name("FILE|DIR");
  text.add_option("--out", t.out, "The GGUF file to write")->required()->type_name("FILE");
  text.add_option("--type", t.type, "Of its matrices: f32, or any that qorus quantize makes")
      ->check(CLI::IsMember(quantize_types(), CLI::ignore_case))
      ->capture_default_str()
      ->type_name("TYPE");
  text.add_option("--name", t.name, "The model's name in the file")->type_name("TEXT");
  text.add_option("--checkpoints", t.checkpoints,
                  "Folder to go on from after an end of any kind; made if it is missing")
      ->type_name("DIR");
  text.add_option("--checkpoint-every", t.checkpoint_every, "Steps between checkpoints")
      ->check(CLI::Range(1, 1 << 30))
      ->capture_default_str()
      ->type_name("N");
  text.add_option("--validation", t.validation, "Share of the text, at its end, that is not learnt from")
      ->check(CLI::Range(0.0, 0.99))
      ->capture_default_str()
      ->type_name("SHARE");
  text.add_option("--validate-every", t.validate_every, "Steps between validations; 0: only after each pass")
      ->check(CLI::Range(0, 1 << 30))
      ->capture_default_str()
      ->type_name("N");
  text.add_option("--sample", t.sample, "Tokens of a sample after each validation")
      ->check(CLI::Range(0, 1 << 20))
      ->capture_default_str()
      ->type_name("N");
  text.add_option("--report", t.report, "Write a page with the curves of the run")->type_name("FILE");
}

}  // namespace

void add_train_text(CLI::App& train, Options& options) {
  CLI::App* text = train.add_subcommand(
      "text", "Train a language model of Llama's kind on text, and write it as GGUF for qorus generate and llama.cpp");
  TextTraining& t = options.text_training;
  add_files(*text, t);
  add_model(*text, t);
  add_training(*text, t);
  text->callback([&options] { options.command = Command::train_text; });
}
