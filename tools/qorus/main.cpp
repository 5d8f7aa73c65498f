// The qorus program: one command each in a file of its own.
#include <csignal>

#include "options.h"

int main(int argc, char** argv) {
  std::signal(SIGPIPE, SIG_IGN);  // a reader that went away is no error: the writing commands see it and end
  Options options;
  if (const int code = parse_options(argc, argv, options); code >= 0) return code;
  switch (options.command) {
    case Command::train: return train_command(options);
    case Command::predict: return predict_command(options);
    case Command::inspect: return inspect_command(options);
    case Command::tokenize: return tokenize_command(options);
    case Command::generate: return generate_command(options);
    case Command::logits: return logits_command(options);
    case Command::perplexity: return perplexity_command(options);
    case Command::bench: return bench_command(options);
    case Command::quantize: return quantize_command(options);
    case Command::diff: return diff_command(options);
    case Command::verify: return verify_command(options);
    case Command::chat: return chat_command(options);
    case Command::train_text: return train_text_command(options);
    case Command::convert: return convert_command(options);
    case Command::finetune: return finetune_command(options);
    case Command::merge: return merge_command(options);
  }
  return 2;
}
