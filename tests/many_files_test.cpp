// Faults met while many small files of all kinds are read: whenever a reader looks whether its file is still whole, it finds it shorter; each allocation
// fails, in files so many and so different that whatever grows as it is read grows at every place.
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <string>

#include "tests/faulty_files.h"
#include "tests/reading.h"
#include "tests/testing.h"

using qorus_test::read_as;

TEST(ManyFiles, EveryLookMayFindAFileShorter) {
  QORUS_NEEDS_FAULTY_FILES();
  const qorus_test::TemporaryFolder folder;
  const auto files = qorus_test::make_files(folder.path(), true);
  if (files.empty()) GTEST_SKIP() << "Python makes these files";
  std::size_t looks = 0, errors = 0;
  for (const auto& file : files) {
    if (file.reader.empty() || file.reader == "config" || file.reader == "index") continue;
    bool reached = true;
    for (std::uint64_t look = 0; reached; ++look) {
      const qorus_test::ShorterFile shorter(look);
      const auto outcome = read_as(file.reader, file.path);
      reached = shorter.reached();
      EXPECT_TRUE(!outcome.broken && !outcome.is("out of memory") && (reached || outcome.is("ok")))
          << file.name << ", look " << look << ": " << outcome.message;
      looks += reached;
      errors += outcome.says("the file shrank");
    }
  }
  std::printf("  %zu looks at files, %zu times an error that says so\n", looks, errors);
  EXPECT_GT(errors, files.size());
}

// Also where it is about to say something else: an error, or that the file shrank.
TEST(ManyFiles, EveryLookMayFindABrokenFileShorter) {
  QORUS_NEEDS_FAULTY_FILES();
  const qorus_test::TemporaryFolder folder;
  for (const auto& file : qorus_test::make_small_files(folder.path())) {
    if (file.code == "ok" || (file.reader != "idx" && file.reader != "npz")) continue;
    if (file.name.find("bomb") != file.name.npos) continue;
    for (std::uint64_t look = 0; look < 3; ++look) {
      const qorus_test::ShorterFile shorter(look);
      const auto outcome = read_as(file.reader, file.path);
      EXPECT_FALSE(outcome.is("ok") && !shorter.reached()) << file.name;
    }
  }
}

TEST(ManyFiles, EveryAllocationOfManyFilesMayFail) {
  QORUS_NEEDS_ALLOCATION_COUNTER();
  const qorus_test::TemporaryFolder folder;
  const auto files = qorus_test::make_small_files(folder.path());
  std::size_t readings = 0;
  for (const auto& file : files) {
    const bool fails = file.name.find("rope") != file.name.npos || file.name.find("freqs") != file.name.npos ||
                       file.name.find("word-long") != file.name.npos;
    if ((file.code != "ok" && !fails) || file.name.find("/large") != file.name.npos) continue;
    if (file.name.find("/ranks-gpt2") != file.name.npos) continue;  // of 50,000 pieces
    const auto whole = read_as(file.reader, file.path);
    bool reached = true;
    for (std::uint64_t k = 0; reached && k < (file.reader == "chat" ? 12 : 400); ++k) {
      qorus_test::Outcome outcome;
      {
        const qorus_test::FailingAllocations failing(k, 1);
        outcome = read_as(file.reader, file.path);
        reached = failing.reached();
      }
      EXPECT_TRUE(outcome.is("out of memory") || outcome.is(whole.code))
          << file.name << ", allocation " << k << ": " << outcome.message;
      readings += reached;
    }
  }
  std::printf("  %zu allocations failed\n", readings);
}
