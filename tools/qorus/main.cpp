// The qorus program: one command each in a file of its own.
#include "options.h"

int main(int argc, char** argv) {
  Options options;
  if (const int code = parse_options(argc, argv, options); code >= 0) return code;
  switch (options.command) {
    case Command::train: return train_command(options);
    case Command::predict: return predict_command(options);
    case Command::inspect: return inspect_command(options);
    case Command::tokenize: return tokenize_command(options);
    case Command::generate: return generate_command(options);
  }
  return 2;
}
