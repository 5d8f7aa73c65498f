#include "options_files.h"

namespace {

void add_quantize(CLI::App& app, Options& options) {
  CLI::App* quantize = app.add_subcommand("quantize", "Write a GGUF file with its tensors in another format");
  quantize->add_option("in", options.model, "The file to read")->required()->type_name("IN");
  quantize->add_option("out", options.out, "The file to write, as a whole or not at all")->required()->type_name("OUT");
  quantize->add_option("--type", options.type, "Of all matrices: f32, f16, bf16, q4_0 or q8_0")
      ->check(CLI::IsMember({"f32", "f16", "bf16", "q4_0", "q8_0"}, CLI::ignore_case))
      ->capture_default_str()
      ->type_name("TYPE");
  quantize
      ->add_option("--tensor", options.rules,
                   "PATTERN=TYPE: of tensors whose name fits, * standing for any characters; may be given again, the "
                   "first counts")
      ->type_name("RULE");
  quantize->add_flag("--least-error", options.least_error,
                     "Scales of q4_0 from the least error instead of the largest magnitude");
  quantize->add_option("--threads", options.threads, "Worker threads (default: every processor this process may use)")
      ->check(CLI::Range(1, 256))
      ->type_name("N");
  quantize->callback([&options] { options.command = Command::quantize; });
}

void add_diff(CLI::App& app, Options& options) {
  CLI::App* diff = app.add_subcommand("diff", "Compare the tensors of two GGUF or safetensors files, one by one");
  diff->add_option("a", options.model, "A file")->required()->type_name("A");
  diff->add_option("b", options.out, "Another")->required()->type_name("B");
  diff->callback([&options] { options.command = Command::diff; });
}

void add_verify(CLI::App& app, Options& options) {
  CLI::App* verify =
      app.add_subcommand("verify", "Check a file completely, without running it: exit 0, or 1 with what is wrong");
  verify->add_option("file", options.model, "The file, or a model's folder")->required()->type_name("FILE");
  verify->add_option("--as", options.type_as, "What it is to be (default: as its content and name say)")
      ->check(CLI::IsMember({"gguf", "safetensors", "checkpoint", "npy", "idx", "tokenizer", "model"}))
      ->type_name("KIND");
  verify->callback([&options] { options.command = Command::verify; });
}

}  // namespace

void add_file_commands(CLI::App& app, Options& options) {
  add_quantize(app, options);
  add_diff(app, options);
  add_verify(app, options);
}
