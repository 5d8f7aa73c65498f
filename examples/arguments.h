// What the examples take: `--data DIR` (a folder of data sets; without it, text that the program holds) and `--quick` (a small budget,
// for tests). Textual: includes nothing of Qorus.
#pragma once
#include <cstdio>
#include <string>
#include <string_view>

#include "own_text.h"

struct Arguments {
  std::string data;
  bool quick = false;

  Arguments(int argc, char** argv) {
    for (int i = 1; i < argc; ++i) {
      const std::string_view word = argv[i];
      if (word == "--quick") quick = true;
      if (word == "--data" && i + 1 < argc) data = argv[++i];
    }
  }
  // Path of a file of the data folder; empty without one.
  [[nodiscard]] std::string file(const char* name) const { return data.empty() ? "" : data + "/" + name; }
};
