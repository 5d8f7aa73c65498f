// Files that are not what they should be, more than a thousand, written by tests/hostile: each must give its own error. And small valid files
// of every format with every byte changed and cut at every length: an error or a valid file, in bounded memory and time.
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "tests/files.h"
#include "tests/reading.h"
#include "tests/testing.h"

using qorus_test::HeapPeak;
using qorus_test::k_counts_allocations;
using qorus_test::MadeFile;
using qorus_test::Outcome;
using qorus_test::read_as;

namespace {

constexpr std::size_t k_always = 16u << 20;  // bytes that a reader may take for whatever file
// What else it may: a table's categories are texts of 400 bytes, 65536 of them at most; a chat template has 64 MiB if its caller says no less.
std::size_t allowance(const std::string& reader) {
  return reader == "csv" ? 2 * k_always : reader == "chat" ? 4 * k_always : k_always;
}
constexpr double k_seconds = k_counts_allocations ? 1 : 20;

// Memory and processor time of one reading.
class Watch {
 public:
  Watch(const std::string& reader, std::size_t file_bytes, std::size_t more = 0)
      : most_(2 * file_bytes + allowance(reader) + more) {}
  [[nodiscard]] double seconds() const { return now() - start_; }
  [[nodiscard]] std::size_t heap() const { return peak_.bytes(); }
  [[nodiscard]] bool within() const { return seconds() < k_seconds && (!k_counts_allocations || heap() <= most_); }

 private:
  static double now() {
    timespec time{};
    ::clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &time);
    return static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_nsec) * 1e-9;
  }
  std::size_t most_;
  HeapPeak peak_;
  double start_ = now();
};

// Of a file in bytes; of a folder, of all its files.
std::size_t size_of(const std::string& path) {
  if (!std::filesystem::is_directory(path)) return std::filesystem::file_size(path);
  std::size_t sum = 0;
  for (const auto& entry : std::filesystem::recursive_directory_iterator(path))
    sum += entry.is_regular_file() ? entry.file_size() : 0;
  return sum;
}

}  // namespace

TEST(Hostile, EveryFileGivesItsOwnError) {
  const qorus_test::TemporaryFolder folder;
  const auto files = qorus_test::make_files(folder.path(), false);
  if (files.empty() && std::system("python3 -c ''") != 0) GTEST_SKIP() << "Python makes these files";
  ASSERT_FALSE(files.empty()) << "tests/hostile/make.py ended with an error";
  const char* only = std::getenv("QORUS_HOSTILE_ONLY");  // to try some of them
  std::map<std::string, int> count;
  int with_error = 0;
  for (const MadeFile& file : files) {
    const std::size_t bytes = size_of(file.path);
    if (!k_counts_allocations && bytes > k_always) continue;  // a sanitizer makes them slow
    if (only && file.name.find(only) == file.name.npos) continue;
    const bool unexamined = file.name == "cap/gzip_unexamined-at";  // past that cap nothing is taken before it is there
    const Watch watch(file.reader, bytes, unexamined ? 64u << 20 : 0);
    const Outcome outcome = read_as(file.reader, file.path);
    if (unexamined && k_counts_allocations) EXPECT_GE(watch.heap(), 64u << 20);
    const bool large_table = file.name.find("cap/csv_rows-p") == 0 ||
                             file.name == "cap/csv_rows-at";  // 8 bytes of memory for each field of 2 bytes
    EXPECT_TRUE(watch.within() || large_table)
        << file.name << ": " << watch.seconds() << " s, " << watch.heap() << " bytes of a file of " << bytes;
    EXPECT_FALSE(outcome.broken) << file.name;
    EXPECT_FALSE(outcome.is("out of memory")) << file.name;
    if (!file.code.empty()) EXPECT_STREQ(outcome.code, file.code.c_str()) << file.name << ": " << outcome.message;
    EXPECT_TRUE(outcome.says(file.message.c_str()))
        << file.name << " should say: " << file.message << "\n  but says: " << outcome.message;
    ++count[file.reader];
    with_error += !outcome.is("ok");
  }
  for (const auto& [reader, files_of_it] : count) std::printf("  %-16s %4d files\n", reader.c_str(), files_of_it);
  std::printf("  %d of them errors\n", with_error);
  if (!only) EXPECT_GE(with_error, 300);
}

namespace {

// A file in memory that a path leads to, changed in its place.
class Patient {
 public:
  explicit Patient(const std::string& valid) : valid_(valid), descriptor_(::memfd_create("damaged", MFD_CLOEXEC)) {
    heal(0);
  }
  ~Patient() { ::close(descriptor_); }
  Patient(const Patient&) = delete;
  Patient& operator=(const Patient&) = delete;
  [[nodiscard]] std::string path() const { return "/proc/self/fd/" + std::to_string(descriptor_); }
  void put(std::size_t at, char value) const { ASSERT_EQ(::pwrite(descriptor_, &value, 1, static_cast<off_t>(at)), 1); }
  void cut(std::size_t size) const { ASSERT_EQ(::ftruncate(descriptor_, static_cast<off_t>(size)), 0); }
  void heal(std::size_t from) const {
    const std::size_t rest = valid_.size() - from;
    ASSERT_EQ(::pwrite(descriptor_, valid_.data() + from, rest, static_cast<off_t>(from)), static_cast<ssize_t>(rest));
  }

 private:
  const std::string& valid_;
  int descriptor_;
};

struct Sweep {
  std::size_t readings = 0, valid = 0, heap = 0, length = 0;
  double seconds = 0;
};

// Every `stride`-th byte of the valid file.
Sweep sweep_of(const MadeFile& file, const std::string& valid, const std::string& weights, std::size_t stride) {
  const qorus_test::TemporaryFolder folder;
  const Patient patient(valid);
  std::string reader = file.reader, path = patient.path();
  if (reader == "config" || reader == "index") {  // parts of a folder
    const bool config = reader == "config";
    std::filesystem::create_symlink(path, folder / (config ? "config.json" : "model.safetensors.index.json"));
    std::filesystem::copy_file(weights, folder / (config ? "model.safetensors" : "one.safetensors"));
    if (!config) std::filesystem::copy_file(weights + ".config", folder / "config.json");
    reader = "folder";
    path = folder.path();
  }
  Sweep sweep{.length = valid.size()};
  const auto attempt = [&](const char* how, std::size_t at) {
    const Watch watch(reader, valid.size());
    const Outcome outcome = read_as(reader, path);
    EXPECT_TRUE(watch.within() && !outcome.broken && !outcome.is("out of memory"))
        << file.name << ", byte " << at << " " << how << ": " << watch.seconds() << " s, " << watch.heap() << " bytes; "
        << outcome.message;
    sweep.valid += outcome.is("ok");
    ++sweep.readings;
    sweep.heap = std::max(sweep.heap, watch.heap());
    sweep.seconds = std::max(sweep.seconds, watch.seconds());
  };
  for (std::size_t i = 0; i < valid.size(); i += stride) {
    const std::array<int, 4> values = {0, 255, valid[i] + 1, valid[i] - 1};
    for (const int value : values) {
      patient.put(i, static_cast<char>(value));
      attempt("changed", i);
    }
    patient.put(i, valid[i]);
  }
  for (std::size_t i = valid.size(); i-- > 0;) {
    if (i % stride != 0) continue;
    patient.cut(i);
    attempt("cut", i);
  }
  return sweep;
}

}  // namespace

// QORUS_TEST_STRIDE=1 takes every byte also of the models, whose files have long stretches of one kind.
TEST(Hostile, DamagedAnywhereIsAnErrorOrValid) {
  const qorus_test::TemporaryFolder folder;
  const auto files = qorus_test::make_files(folder.path(), true);
  if (files.empty()) GTEST_SKIP() << "Python makes these files";
  const std::string weights = files.back().path;
  const char* wish = std::getenv("QORUS_TEST_STRIDE");
  const std::size_t stride_of_models = wish ? static_cast<std::size_t>(std::atoi(wish)) : k_counts_allocations ? 5 : 31;
  rusage before{}, after{};
  ::getrusage(RUSAGE_SELF, &before);
  std::size_t readings = 0, longest = 0;
  for (const MadeFile& file : files) {
    const std::string valid = qorus_test::read_file(file.path);
    if (file.reader == "config") qorus_test::write_file(weights + ".config", valid);
  }
  for (const MadeFile& file : files) {
    if (file.reader.empty() || std::filesystem::is_directory(file.path)) continue;
    if (file.reader == "tokenizer" || file.reader == "vocabulary")
      continue;  // doors to readers that are here themselves
    const std::string valid = qorus_test::read_file(file.path);
    if (file.reader != "config" && file.reader != "index") {
      const Outcome outcome = read_as(file.reader, file.path);
      EXPECT_STREQ(outcome.code, "ok") << file.name << ": " << outcome.message;
    }
    const bool model = file.reader == "model" || file.reader == "tokenizer.bin";
    const std::size_t stride = wish || model ? stride_of_models : k_counts_allocations ? 1 : 3;
    const Sweep sweep = sweep_of(file, valid, weights, stride);
    std::printf("  %-18s %5zu bytes %6zu readings %6zu valid, heap %7zu bytes, %.4f s at most\n", file.name.c_str(),
                sweep.length, sweep.readings, sweep.valid, sweep.heap, sweep.seconds);
    readings += sweep.readings;
    longest = std::max(longest, sweep.length);
  }
  ::getrusage(RUSAGE_SELF, &after);
  const auto grown = static_cast<std::size_t>(after.ru_maxrss - before.ru_maxrss) * 1024;
  std::printf("  %zu readings; the process grew by %zu bytes at most\n", readings, grown);
  if (k_counts_allocations) EXPECT_LE(grown, 2 * longest + k_always);
}
