// Runs the programs as a user does. QORUS_BIN is the folder they were built into.
#pragma once
#include <sys/wait.h>

#include <cstdlib>
#include <fstream>
#include <iterator>
#include <string>

#include "tests/testing.h"

namespace qorus_test {

struct Outcome {
  int code = -1;
  std::string out, err;
};

// Builds that look for other things leave the examples out.
#ifdef QORUS_HAS_EXAMPLES
#define QORUS_NEEDS_EXAMPLES() static_cast<void>(0)
#else
#define QORUS_NEEDS_EXAMPLES() GTEST_SKIP() << "the examples are not built here"
#endif

class ProgramTest : public testing::Test {
 protected:
  static std::string read_file(const std::string& path) {
    std::ifstream file(path, std::ios::binary);
    return {std::istreambuf_iterator<char>(file), {}};
  }
  Outcome run(const std::string& command, const std::string& settings = "") {
    return shell(settings + " " + QORUS_BIN "/" + command);
  }
  // Any line of the shell; what it prints is collected.
  Outcome shell(const std::string& line) {
    const std::string all = "{ " + line + "; } >" + folder / "out" + " 2>" + folder / "err" + " </dev/null";
    const int status = std::system(all.c_str());
    return {WIFEXITED(status) ? WEXITSTATUS(status) : 128, read_file(folder / "out"), read_file(folder / "err")};
  }
  TemporaryFolder folder;
};

}  // namespace qorus_test
