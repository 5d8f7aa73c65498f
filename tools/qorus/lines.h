// Lines typed by a person: edited and remembered on a terminal, read as they are elsewhere.
#pragma once
#include <string>

class Lines {
 public:
  Lines();
  ~Lines();
  Lines(const Lines&) = delete;
  Lines& operator=(const Lines&) = delete;
  // The next line, without its end; false at the end of the input.
  bool next(std::string& line);
  [[nodiscard]] bool terminal() const noexcept { return terminal_; }

 private:
  bool terminal_ = false;
  std::string history_;  // a file; empty: none
};
