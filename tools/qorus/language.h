// What the commands of language models share. Included after the standard headers: it imports.
#pragma once
#include <csignal>
#include <cstdint>
#include <string>
#include <string_view>

#include "options.h"

import qorus;
import qorus.llm;

inline int threads_given(const Options& options) { return options.threads > 0 ? options.threads : qorus::cpu_count(); }
// Opens options.model; says so on a terminal while it takes its time.
qorus::Result<qorus::llm::Model> open_model(const Options& options, bool lay_out = true);
// What --cache says.
inline qorus::DType cache_of(const Options& options) {
  return options.cache == "f16" ? qorus::DType::f16 : options.cache == "q8_0" ? qorus::DType::q8_0 : qorus::DType::f32;
}
// The content of a file, or of the standard input for "-".
qorus::Result<qorus::List<char>> read_input(const std::string& path);
// Ways to spell a conversation that models without a template are taught and asked by.
struct NamedTemplate {
  std::string_view name, jinja, stop;  // stop: what ends an answer, if no token of the model's does
};
const NamedTemplate* find_template(std::string_view name);  // null if there is none
// Numbers with blanks or commas between. Errors: invalid_argument (the word that is none), out_of_memory.
qorus::Result<qorus::List<std::int32_t>> parse_ids(std::string_view text);

// The standard output. A reader that went away is no error: there is only nothing more to do.
class Output {
 public:
  // Whether it goes on.
  bool write(std::string_view text) noexcept;
  // 0, or 1 after an error, which is reported.
  [[nodiscard]] int finish() noexcept;

 private:
  int error_ = 0;
};

// While one exists, the first Ctrl-C only sets a flag; the second ends the program.
class Interrupt {
 public:
  Interrupt() noexcept;
  ~Interrupt();
  Interrupt(const Interrupt&) = delete;
  Interrupt& operator=(const Interrupt&) = delete;
  [[nodiscard]] static bool asked() noexcept;
};
