#include "options_files.h"

#include <string>
#include <vector>

const std::vector<std::string>& quantize_types() {
  static const std::vector<std::string> all{"f32",    "f16",    "bf16",   "q4_0",   "q4_1",   "q5_0",   "q5_1",
                                            "q8_0",   "iq4_nl", "q2_k",   "q3_k_s", "q3_k_m", "q3_k_l", "q4_k_s",
                                            "q4_k_m", "q5_k_s", "q5_k_m", "q6_k",   "q3_k",   "q4_k",   "q5_k"};
  return all;
}

namespace {

void add_quantize(CLI::App& app, Options& options) {
  CLI::App* quantize = app.add_subcommand("quantize", "Write a GGUF file with its tensors in another format");
  quantize->add_option("in", options.model, "The file to read")->required()->type_name("IN");
  quantize->add_option("out", options.out, "The file to write, as a whole or not at all")->required()->type_name("OUT");
  quantize
      ->add_option(
          "--type", options.type,
          "Of the matrices: f32, f16, bf16, q4_0, q4_1, q5_0, q5_1, q8_0, iq4_nl, q6_k, or a mixture: q2_k, q3_k_s, "
          "q3_k_m, "
          "q3_k_l, q4_k_s, q4_k_m, q5_k_s, q5_k_m. The output and some others get more bits, as llama.cpp has it")
      ->check(CLI::IsMember(quantize_types(), CLI::ignore_case))
      ->capture_default_str()
      ->type_name("TYPE");
  quantize
      ->add_option("--tensor", options.rules,
                   "PATTERN=TYPE: of tensors whose name fits, * standing for any characters; may be given again, the "
                   "first counts")
      ->type_name("RULE");
  quantize
      ->add_option("--imatrix", options.importance, "How much each column counts: a file of llama.cpp's llama-imatrix")
      ->type_name("FILE");
  quantize->add_flag("--pure", options.pure, "The same type for every matrix");
  quantize->add_flag("--least-error", options.least_error,
                     "Scales from the least error, every column alike, where --imatrix does not know a tensor");
  quantize->add_option("--threads", options.threads, "Worker threads (default: every processor this process may use)")
      ->check(CLI::Range(1, 256))
      ->type_name("N");
  quantize->callback([&options] { options.command = Command::quantize; });
}

void add_diff(CLI::App& app, Options& options) {
  CLI::App* diff =
      app.add_subcommand("diff", "Compare the tensors of two files (GGUF, .qorus, safetensors, npz), one by one");
  diff->add_option("a", options.model, "A file")->required()->type_name("A");
  diff->add_option("b", options.out, "Another")->required()->type_name("B");
  diff->callback([&options] { options.command = Command::diff; });
}

void add_verify(CLI::App& app, Options& options) {
  CLI::App* verify =
      app.add_subcommand("verify", "Check a file completely, without running it: exit 0, or 1 with what is wrong");
  verify->add_option("file", options.model, "The file, or a model's folder")->required()->type_name("FILE");
  verify->add_option("--as", options.type_as, "What it is to be (default: as its content and name say)")
      ->check(CLI::IsMember({"gguf", "safetensors", "qorus", "npy", "npz", "idx", "csv", "tokenizer", "sentencepiece",
                             "json", "jsonl", "checkpoint", "model"}))
      ->type_name("KIND");
  verify->callback([&options] { options.command = Command::verify; });
}

void add_convert(CLI::App& app, Options& options) {
  CLI::App* convert = app.add_subcommand("convert", "Write a model's file as a file of another format");
  convert
      ->add_option("in", options.model,
                   "A GGUF or .qorus file, a folder or file of safetensors, an npz archive, a checkpoint of llama2.c")
      ->required()
      ->type_name("IN");
  convert->add_option("out", options.out, "The file or folder to write")->required()->type_name("OUT");
  convert->add_option("--to", options.to, "The format (default: by the name of OUT; a folder is safetensors)")
      ->check(CLI::IsMember({"gguf", "safetensors", "qorus", "npz", "llama2c"}, CLI::ignore_case))
      ->type_name("FORMAT");
  convert->add_option("--type", options.type_as, "Of the matrices, as of `qorus quantize` (default: as they are)")
      ->check(CLI::IsMember(quantize_types(), CLI::ignore_case))
      ->type_name("TYPE");
  convert
      ->add_option("--shard-size", options.shard_size,
                   "Safetensors in a folder: files of at most so much, as in 500MB or 2GB")
      ->transform(CLI::AsSizeValue(false))
      ->type_name("SIZE");
  convert->add_flag(
      "--laid-out", options.laid_out,
      "Into .qorus: matrices a second time in the order of the products, so that opening it lays nothing out");
  convert->add_option("--threads", options.threads, "Worker threads (default: every processor this process may use)")
      ->check(CLI::Range(1, 256))
      ->type_name("N");
  convert->callback([&options] { options.command = Command::convert; });
}

}  // namespace

void add_file_commands(CLI::App& app, Options& options) {
  add_convert(app, options);
  add_quantize(app, options);
  add_diff(app, options);
  add_verify(app, options);
}
