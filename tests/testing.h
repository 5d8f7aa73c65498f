// What every test that imports modules wants besides GoogleTest: short assertions on results, and a folder to write to.
// The results come from modules, so all of it is templates or macros: include first, import last.
#pragma once
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdlib>
#include <string>

#include "tests/allocation_counter.h"
#include "tests/test_data.h"

// The result holds a value; otherwise its message is shown. ASSERT_OK leaves the test.
#define EXPECT_OK(result) EXPECT_PRED_FORMAT1(qorus_test::is_ok, result)
#define ASSERT_OK(result) ASSERT_PRED_FORMAT1(qorus_test::is_ok, result)
// The result failed with this code.
#define EXPECT_FAILS(result, wanted) EXPECT_PRED_FORMAT2(qorus_test::fails_with, result, wanted)
// The result failed, and its message contains this text.
#define EXPECT_FAILS_SAYING(result, text) EXPECT_PRED_FORMAT2(qorus_test::fails_saying, result, text)
// Skips the test it stands in where allocations cannot be counted.
#define QORUS_NEEDS_ALLOCATION_COUNTER() \
  if (!qorus_test::k_counts_allocations) GTEST_SKIP() << "a sanitizer has its own malloc"

namespace qorus_test {

template <class R>
testing::AssertionResult is_ok(const char* expression, const R& result) {
  if (result.has_value()) return testing::AssertionSuccess();
  return testing::AssertionFailure() << expression << " failed: " << result.error().message().c_str();
}
template <class R, class Code>
testing::AssertionResult fails_with(const char* expression, const char* code, const R& result, Code wanted) {
  if (result.has_value()) return testing::AssertionFailure() << expression << " should fail with " << code;
  if (result.error().code == wanted) return testing::AssertionSuccess();
  return testing::AssertionFailure() << expression << " should fail with " << code
                                     << " but says: " << result.error().message().c_str();
}
template <class R>
testing::AssertionResult fails_saying(const char* expression, const char*, const R& result, const std::string& text) {
  if (result.has_value()) return testing::AssertionFailure() << expression << " should fail, saying: " << text;
  const std::string message = result.error().message().c_str();
  if (message.find(text) != message.npos) return testing::AssertionSuccess();
  return testing::AssertionFailure() << expression << " should say: " << text << "\n  but says: " << message;
}

// A folder of its own, removed with all that is in it.
class TemporaryFolder {
 public:
  TemporaryFolder() {
    const char* root = std::getenv("TMPDIR");
    path_ = std::string(root && *root ? root : "/tmp") + "/qorus-test-XXXXXX";
    if (!::mkdtemp(path_.data())) ADD_FAILURE() << "cannot make a folder " << path_;
  }
  ~TemporaryFolder() {
    if (std::system(("rm -rf '" + path_ + "'").c_str()) != 0) ADD_FAILURE() << "cannot remove " << path_;
  }
  TemporaryFolder(const TemporaryFolder&) = delete;
  TemporaryFolder& operator=(const TemporaryFolder&) = delete;
  [[nodiscard]] const std::string& path() const { return path_; }
  [[nodiscard]] std::string operator/(const std::string& name) const { return path_ + "/" + name; }

 private:
  std::string path_;
};

}  // namespace qorus_test
