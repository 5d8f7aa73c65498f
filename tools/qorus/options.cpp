#include <string>

#include "options.h"

#include <CLI/CLI.hpp>

#include "options_files.h"
#include "options_llm.h"
#include "options_tune.h"

void add_train_text(CLI::App& train, Options& options);

namespace {

void add_run_options(CLI::App& command, Options& options) {
  command.add_option("--data", options.data, "Folder with MNIST's four IDX files, raw or .gz")->type_name("DIR");
  command.add_option("--threads", options.threads, "Worker threads (default: every processor this process may use)")
      ->check(CLI::Range(1, 256))
      ->type_name("N");
  command.add_option("--seed", options.seed, "Seed of the drawn digits, the initial weights and the order of examples")
      ->capture_default_str()
      ->type_name("N");
}

void add_train(CLI::App& app, Options& options) {
  CLI::App* train =
      app.add_subcommand("train", "Train a classifier of digits, or a language model (train text --help)");
  CLI::Option* set = train->add_option("set", options.set, "digits (drawn by Qorus itself), mnist, or text")
                         ->check(CLI::IsMember({"digits", "mnist"}));
  add_run_options(*train, options);
  train->add_option("--epochs", options.epochs, "Passes over the training data")
      ->check(CLI::Range(1, 100000))
      ->capture_default_str()
      ->type_name("N");
  train->add_option("--batch", options.batch, "Examples per step")
      ->check(CLI::Range(1, 1000000))
      ->capture_default_str()
      ->type_name("N");
  train->add_option("--hidden", options.hidden, "Width of the hidden layer")
      ->check(CLI::Range(1, 65536))
      ->capture_default_str()
      ->type_name("N");
  train->add_option("--lr", options.learning_rate, "AdamW's learning rate, which falls to 0 along a cosine")
      ->check(CLI::PositiveNumber)
      ->capture_default_str()
      ->type_name("R");
  train->add_option("--out", options.out, "Save the parameters as safetensors")->type_name("FILE");
  add_train_text(*train, options);
  train->callback([&options, train, set] {
    if (train->got_subcommand("text")) return;
    if (set->empty()) throw CLI::RequiredError("set: digits, mnist or text");
    options.command = Command::train;
  });
}

void add_predict(CLI::App& app, Options& options) {
  CLI::App* predict =
      app.add_subcommand("predict", "Load a trained classifier, measure it on test digits and show some");
  predict->add_option("model", options.model, "File that `qorus train --out` wrote")->required()->type_name("FILE");
  predict->add_option("--set", options.set, "digits or mnist")
      ->check(CLI::IsMember({"digits", "mnist"}))
      ->capture_default_str();
  add_run_options(*predict, options);
  predict->add_option("--show", options.show, "How many digits to draw")
      ->check(CLI::Range(0, 1000))
      ->capture_default_str()
      ->type_name("N");
  predict->callback([&options] { options.command = Command::predict; });
}

void add_inspect(CLI::App& app, Options& options) {
  CLI::App* inspect =
      app.add_subcommand("inspect", "List what a safetensors or GGUF file holds, and what a language model takes");
  inspect->add_option("file", options.model, "The file, or a folder with safetensors")->required()->type_name("FILE");
  inspect->callback([&options] { options.command = Command::inspect; });
}

void add_tokenize(CLI::App& app, Options& options) {
  CLI::App* tokenize =
      app.add_subcommand("tokenize", "Print the ids of a text by a model's vocabulary, or the text of ids");
  tokenize
      ->add_option("model", options.model,
                   "GGUF, tokenizer.json, SentencePiece .model, tiktoken's ranks, or llama2.c's tokenizer.bin")
      ->required()
      ->type_name("FILE");
  CLI::Option_group* input = tokenize->add_option_group("input", "One of these");
  input->add_option("--text", options.text, "The text itself")->type_name("TEXT");
  input->add_option("--file", options.file, "A file with the text; - is the standard input")
      ->check(CLI::Validator([](std::string& name) { return name.empty() ? "no name" : std::string(); }, "FILE"))
      ->type_name("FILE");
  input->require_option(1);
  tokenize->add_flag("--bos", options.bos, "Begin with the vocabulary's BOS");
  tokenize->add_flag("--special", options.special,
                     "Take control pieces that the text spells out for what they are; with --decode, show them");
  tokenize->add_flag("--decode", options.decode,
                     "The text holds ids, with blanks or commas between: print what they mean, to the byte");
  tokenize->callback([&options] { options.command = Command::tokenize; });
}

}  // namespace

int parse_options(int argc, char** argv, Options& options) {
  CLI::App app("Qorus: deep learning for modern C++", "qorus");
  app.set_version_flag("--version", "qorus " QORUS_VERSION);
  app.require_subcommand(1);
  app.footer(
      "Results go to the standard output, progress and errors to the standard error stream.\nExit codes: 0 done, 1 "
      "failed, 2 wrong usage.");
  add_train(app, options);
  add_predict(app, options);
  add_inspect(app, options);
  add_tokenize(app, options);
  add_llm_commands(app, options);
  add_file_commands(app, options);
  add_tune_commands(app, options);
  try {
    app.parse(argc, argv);
  } catch (const CLI::Success& success) {
    return app.exit(success);
  } catch (const CLI::ParseError& error) {
    app.exit(error);
    return 2;
  }
  return -1;
}
