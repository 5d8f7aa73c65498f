// Where the tests' data sets and reference values are, and how a test that needs them skips when they are not there.
#pragma once
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <cstdlib>
#include <string>

namespace qorus_test {

// A path inside the data folder: that of the environment variable QORUS_TEST_DATA, else the one the build was given.
inline std::string data_path(const std::string& name) {
  const char* folder = std::getenv("QORUS_TEST_DATA");
  return std::string(folder && *folder ? folder : QORUS_TEST_DATA) + "/" + name;
}
inline bool exists(const std::string& path) {
  struct stat facts{};
  return ::stat(path.c_str(), &facts) == 0;
}

}  // namespace qorus_test

// Skips the test it stands in, saying so, unless the data folder holds `name`.
#define QORUS_NEEDS_DATA(name) \
  if (!qorus_test::exists(qorus_test::data_path(name))) GTEST_SKIP() << "needs " << qorus_test::data_path(name)
