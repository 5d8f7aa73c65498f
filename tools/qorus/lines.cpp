#include "lines.h"

#include <unistd.h>

#include <clocale>
#include <cstdio>
#include <cstdlib>
#include <string>

#include <editline/readline.h>

namespace {

constexpr int k_remembered = 1000;  // lines
constexpr char k_prompt[] = "> ";

std::string history_file() {
  if (const char* file = std::getenv("QORUS_HISTORY")) return file;
  const char* home = std::getenv("HOME");
  return home ? std::string(home) + "/.qorus_history" : std::string();
}

// One line of the standard input, of any length.
bool read_line(std::string& line) {
  line.clear();
  int c;
  while ((c = std::getchar()) != EOF && c != '\n') line.push_back(static_cast<char>(c));
  if (!line.empty() && line.back() == '\r') line.pop_back();
  return c != EOF || !line.empty();
}

}  // namespace

Lines::Lines() : terminal_(isatty(STDIN_FILENO) && isatty(STDOUT_FILENO)) {
  if (!terminal_) return;
  std::setlocale(LC_CTYPE, "");  // characters of more than one byte
  char name[] = "qorus";
  rl_readline_name = name;
  using_history();
  history_ = history_file();
  if (!history_.empty()) (void)read_history(history_.c_str());  // there may be none yet
  stifle_history(k_remembered);
}

Lines::~Lines() {
  if (terminal_ && !history_.empty()) (void)write_history(history_.c_str());
}

bool Lines::next(std::string& line) {
  if (!terminal_) return read_line(line);
  char* const typed = readline(k_prompt);
  if (!typed) {
    std::putchar('\n');
    return false;
  }
  line = typed;
  std::free(typed);  // NOLINT(cppcoreguidelines-no-malloc): as readline gives it
  if (!line.empty()) add_history(line.c_str());
  return true;
}
