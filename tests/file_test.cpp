// qorus.memory:file: what is mapped is what was written; a save leaves the old file or the new one, whatever goes wrong.
#include "tests/testing.h"

#include <dirent.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstddef>
#include <cstdint>
#include <fstream>
#include <iterator>
#include <string>
#include <string_view>
#include <utility>

import qorus.memory;

using namespace qorus;
using qorus_test::TemporaryFolder;

namespace {

void put(const std::string& path, const std::string& content) { std::ofstream(path, std::ios::binary) << content; }
std::string get(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}
std::string text(const MappedFile& file) {
  return {reinterpret_cast<const char*>(file.bytes().data()), file.bytes().size()};
}
// How many entries a folder has.
int entries(const std::string& folder) {
  int count = 0;
  DIR* open = ::opendir(folder.c_str());
  while (open && ::readdir(open)) ++count;
  if (open) ::closedir(open);
  return count - 2;
}
// Files of this process may not grow beyond this, while it lives: a full disk for one process.
class FileSizeLimit {
 public:
  explicit FileSizeLimit(rlim_t bytes) {
    ::getrlimit(RLIMIT_FSIZE, &before_);
    handler_ = std::signal(SIGXFSZ, SIG_IGN);
    const rlimit limit{bytes, before_.rlim_max};
    ::setrlimit(RLIMIT_FSIZE, &limit);
  }
  ~FileSizeLimit() {
    ::setrlimit(RLIMIT_FSIZE, &before_);
    std::signal(SIGXFSZ, handler_);
  }
  FileSizeLimit(const FileSizeLimit&) = delete;
  FileSizeLimit& operator=(const FileSizeLimit&) = delete;

 private:
  rlimit before_{};
  void (*handler_)(int) = nullptr;
};
// While it lives, root is nobody in particular, so that permissions count.
class Unprivileged {
 public:
  Unprivileged() { failed_ = root_ && ::seteuid(65534) != 0; }
  ~Unprivileged() {
    if (root_ && ::seteuid(0) != 0) ADD_FAILURE() << "cannot become root again";
  }
  Unprivileged(const Unprivileged&) = delete;
  Unprivileged& operator=(const Unprivileged&) = delete;
  [[nodiscard]] bool failed() const { return failed_; }

 private:
  bool root_ = ::geteuid() == 0, failed_ = false;
};
// Open descriptors of this process.
int descriptors() { return entries("/proc/self/fd"); }

// --- MappedFile -------------------------------------------------------------------------------------------------------------

TEST(MappedFile, ShowsTheFile) {
  const TemporaryFolder folder;
  std::string content(100'000, '\0');
  for (std::size_t i = 0; i < content.size(); ++i) content[i] = static_cast<char>(i * 7);
  put(folder / "data", content);
  auto file = MappedFile::open(folder / "data");
  ASSERT_OK(file);
  EXPECT_EQ(text(*file), content);
  EXPECT_EQ(reinterpret_cast<std::uintptr_t>(file->bytes().data()) % k_alignment, 0u);
}

TEST(MappedFile, OfNoBytesIsValid) {
  const TemporaryFolder folder;
  put(folder / "empty", "");
  auto file = MappedFile::open(folder / "empty");
  ASSERT_OK(file);
  EXPECT_TRUE(file->bytes().empty());
  EXPECT_TRUE(file->lifetime().alive());
}

TEST(MappedFile, EndsItsLifetimeWithItsOwner) {
  const TemporaryFolder folder;
  put(folder / "data", "12345");
  MappedFile outer;
  EXPECT_TRUE(outer.bytes().empty());
  Lifetime life;
  {
    auto file = MappedFile::open(folder / "data");
    ASSERT_OK(file);
    life = file->lifetime();
    outer = std::move(*file);
  }
  EXPECT_TRUE(life.alive());
  EXPECT_EQ(text(outer), "12345");
  outer = MappedFile();
  EXPECT_FALSE(life.alive());
}

TEST(MappedFile, SurvivesItsNameBeingReplaced) {
  const TemporaryFolder folder;
  put(folder / "data", "old");
  auto file = MappedFile::open(folder / "data");
  ASSERT_OK(file);
  auto save = AtomicFile::create(folder / "data");
  ASSERT_OK(save);
  ASSERT_OK(save->write("brand new"));
  ASSERT_OK(save->commit());
  EXPECT_EQ(text(*file), "old");
  EXPECT_EQ(get(folder / "data"), "brand new");
}

TEST(MappedFile, NamesWhatIsWrong) {
  const TemporaryFolder folder;
  EXPECT_FAILS(MappedFile::open(folder / "absent"), Errc::not_found);
  EXPECT_FAILS_SAYING(MappedFile::open(folder / "absent"), "absent: not found: cannot read: No such file or directory");
  EXPECT_FAILS(MappedFile::open(folder.path()), Errc::io);
  EXPECT_FAILS_SAYING(MappedFile::open(folder.path()), "not a regular file");
  EXPECT_FAILS(MappedFile::open("/dev/null"), Errc::io);
  EXPECT_FAILS(MappedFile::open(""), Errc::invalid_argument);
  EXPECT_FAILS(MappedFile::open(std::string("a\0b", 3)), Errc::invalid_argument);
  EXPECT_FAILS(MappedFile::open(std::string(5000, 'x')), Errc::invalid_argument);
  EXPECT_FAILS(MappedFile::open(std::string(k_max_path, 'x')), Errc::io);  // one name that long
  ASSERT_EQ(::mkfifo((folder / "pipe").c_str(), 0600), 0);
  EXPECT_FAILS(MappedFile::open(folder / "pipe"), Errc::io);  // and does not wait for a writer
}

TEST(MappedFile, RespectsPermissions) {
  const TemporaryFolder folder;
  put(folder / "secret", "x");
  ::chmod((folder / "secret").c_str(), 0);
  ::chmod(folder.path().c_str(), 0755);
  const Unprivileged nobody;
  if (nobody.failed()) GTEST_SKIP() << "root may read everything";
  EXPECT_FAILS(MappedFile::open(folder / "secret"), Errc::io);
  EXPECT_FAILS_SAYING(MappedFile::open(folder / "secret"), "Permission denied");
}

TEST(MappedFile, LeaksNoDescriptor) {
  const TemporaryFolder folder;
  put(folder / "data", "x");
  const int before = descriptors();
  for (int i = 0; i < 10; ++i) {
    (void)MappedFile::open(folder / "data");
    (void)MappedFile::open(folder.path());
  }
  EXPECT_EQ(descriptors(), before);
}

// --- AtomicFile -------------------------------------------------------------------------------------------------------------

TEST(AtomicFile, AppearsOnlyWhenCommitted) {
  const TemporaryFolder folder;
  {
    auto file = AtomicFile::create(folder / "out");
    ASSERT_OK(file);
    const std::byte raw[] = {std::byte{0}, std::byte{255}};
    ASSERT_OK(file->write("hello "));
    ASSERT_OK(file->write(raw));
    ASSERT_OK(file->write(std::string_view()));
    EXPECT_EQ(::access((folder / "out").c_str(), F_OK), -1);
    ASSERT_OK(file->commit());
    EXPECT_EQ(get(folder / "out"), std::string("hello \0\xFF", 8));
  }
  EXPECT_EQ(get(folder / "out"), std::string("hello \0\xFF", 8));
  EXPECT_EQ(entries(folder.path()), 1);
}

TEST(AtomicFile, AbandonedLeavesTheOldFileAndNothingElse) {
  const TemporaryFolder folder;
  put(folder / "out", "old");
  {
    auto file = AtomicFile::create(folder / "out");
    ASSERT_OK(file);
    ASSERT_OK(file->write("half of the n"));
    AtomicFile moved = std::move(*file);
    ASSERT_OK(moved.write("ew"));
    EXPECT_EQ(get(folder / "out"), "old");
  }
  EXPECT_EQ(get(folder / "out"), "old");
  EXPECT_EQ(entries(folder.path()), 1);
}

TEST(AtomicFile, ReplacesTheOldFileWhole) {
  const TemporaryFolder folder;
  put(folder / "out", std::string(10'000, 'o'));
  auto file = AtomicFile::create(folder / "out");
  ASSERT_OK(file);
  ASSERT_OK(file->write("new"));
  ASSERT_OK(file->commit());
  EXPECT_EQ(get(folder / "out"), "new");
  EXPECT_FAILS(file->commit(), Errc::invalid_argument);
  EXPECT_FAILS(file->write("more"), Errc::io);
  EXPECT_EQ(get(folder / "out"), "new");
}

TEST(AtomicFile, WorksInTheCurrentFolder) {
  const TemporaryFolder folder;
  char before[4096];
  ASSERT_NE(::getcwd(before, sizeof before), nullptr);
  ASSERT_EQ(::chdir(folder.path().c_str()), 0);
  auto file = AtomicFile::create("plain-name");
  Status written = file ? file->write("x") : Status(fail(file.error()));
  Status committed = file ? file->commit() : Status(fail(file.error()));
  ASSERT_EQ(::chdir(before), 0);
  EXPECT_OK(written);
  EXPECT_OK(committed);
  EXPECT_EQ(get(folder / "plain-name"), "x");
}

TEST(AtomicFile, TwoWritersOfOneNameDoNotMix) {
  const TemporaryFolder folder;
  auto a = AtomicFile::create(folder / "out"), b = AtomicFile::create(folder / "out");
  ASSERT_OK(a);
  ASSERT_OK(b);
  ASSERT_OK(a->write("aaaa"));
  ASSERT_OK(b->write("bb"));
  ASSERT_OK(a->commit());
  EXPECT_EQ(get(folder / "out"), "aaaa");
  ASSERT_OK(b->commit());
  EXPECT_EQ(get(folder / "out"), "bb");
  EXPECT_EQ(entries(folder.path()), 1);
}

TEST(AtomicFile, OnAFullDiskLeavesTheOldFile) {
  const TemporaryFolder folder;
  put(folder / "out", "old");
  Status first, second, commit;
  {
    auto file = AtomicFile::create(folder / "out");
    ASSERT_OK(file);
    const std::string big(1 << 20, 'n');
    {
      const FileSizeLimit full(100'000);
      first = file->write(big);
    }
    second = file->write("but a little fits again");
    commit = file->commit();  // of a file with a hole in its middle
  }
  EXPECT_FAILS(first, Errc::io);
  EXPECT_FAILS_SAYING(first, "out: input/output error: cannot write: File too large");
  EXPECT_FAILS(commit, Errc::io);
  EXPECT_EQ(get(folder / "out"), "old");
  EXPECT_EQ(entries(folder.path()), 1);
}

TEST(AtomicFile, SaysThatTheDeviceIsFull) {
  // The kernel's own full device, by way of a descriptor: the message a full disk gives.
  EXPECT_FAILS_SAYING(Status(fail_system(ENOSPC, "save", "cannot write", "out")), "No space left on device");
  EXPECT_FAILS_SAYING(AtomicFile::create("/dev/full"), "is a device or a pipe");  // and replaces no device by a file
  EXPECT_FAILS(AtomicFile::create("/dev/null"), Errc::io);
}

TEST(AtomicFile, NamesWhatIsWrong) {
  const TemporaryFolder folder;
  EXPECT_FAILS(AtomicFile::create(folder / "no/such/folder/out"), Errc::not_found);
  EXPECT_FAILS_SAYING(AtomicFile::create(folder / "no/out"), "cannot create a file in this folder");
  EXPECT_FAILS_SAYING(AtomicFile::create(folder.path()), "is a folder");
  put(folder / "file", "x");
  EXPECT_FAILS(AtomicFile::create(folder / "file/out"), Errc::io);
  EXPECT_FAILS(AtomicFile::create(""), Errc::invalid_argument);
  EXPECT_FAILS(AtomicFile::create(std::string("a\0b", 3)), Errc::invalid_argument);
  EXPECT_FAILS(AtomicFile::create(std::string(5000, 'x')), Errc::invalid_argument);
  EXPECT_EQ(entries(folder.path()), 1);
}

TEST(AtomicFile, RefusesAFolderThatMayNotBeWritten) {
  EXPECT_FAILS(AtomicFile::create("/proc/out"), Errc::not_found);  // not even root
  const TemporaryFolder folder;
  put(folder / "out", "old");
  ::chmod(folder.path().c_str(), 0555);
  {
    const Unprivileged nobody;
    if (nobody.failed()) GTEST_SKIP() << "root may write everywhere else";
    EXPECT_FAILS(AtomicFile::create(folder / "out"), Errc::io);
    EXPECT_FAILS_SAYING(AtomicFile::create(folder / "out"), "cannot create a file in this folder: Permission denied");
  }
  ::chmod(folder.path().c_str(), 0755);
  EXPECT_EQ(get(folder / "out"), "old");
}

TEST(AtomicFile, CommitThatCannotRenameCleansUp) {
  const TemporaryFolder folder;
  {
    auto file = AtomicFile::create(folder / "out");
    ASSERT_OK(file);
    ASSERT_OK(file->write("x"));
    ASSERT_EQ(::mkdir((folder / "out").c_str(), 0700), 0);  // a folder takes the name meanwhile
    EXPECT_FAILS(file->commit(), Errc::io);
  }
  EXPECT_EQ(entries(folder.path()), 1);
}

TEST(AtomicFile, LeaksNoDescriptor) {
  const TemporaryFolder folder;
  const int before = descriptors();
  for (int i = 0; i < 5; ++i) {
    auto file = AtomicFile::create(folder / "out");
    ASSERT_OK(file);
    if (i % 2) ASSERT_OK(file->commit());
  }
  EXPECT_EQ(descriptors(), before);
}

}  // namespace
