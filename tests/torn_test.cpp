// Files that shrink while they are mapped: what is gone reads as zeros and is an error, and the host's own faults stay its own.
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <atomic>
#include <csignal>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <span>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

#include "tests/faulty_files.h"
#include "tests/files.h"
#include "tests/reading.h"
#include "tests/testing.h"

import qorus.llm;

using namespace qorus;
using qorus_test::read_file;
using qorus_test::TemporaryFolder;
using qorus_test::write_file;

extern "C" int __llvm_profile_write_file()
    __attribute__((weak));  // NOLINT: clang's name; there where tools/coverage links this

namespace {

constexpr std::size_t k_page = 4096;

// Ends a process of a test, whose counts are kept.
[[noreturn]] void leave(int code) {
  if (__llvm_profile_write_file) __llvm_profile_write_file();
  ::_exit(code);
}

void cut(const std::string& path, std::size_t size) {
  ASSERT_EQ(::truncate(path.c_str(), static_cast<off_t>(size)), 0);
}

// A page of a file that is not there any more, without Qorus.
volatile char* missing_page() {
  char name[] = "/tmp/qorus-torn-XXXXXX";
  const int file = ::mkstemp(name);
  ::unlink(name);
  if (::ftruncate(file, k_page) != 0) ::_exit(1);
  void* place = ::mmap(nullptr, k_page, PROT_READ, MAP_PRIVATE, file, 0);
  if (::ftruncate(file, 0) != 0) ::_exit(1);
  return static_cast<volatile char*>(place);
}
void touch(volatile const char* place) { static_cast<void>(*place); }
void touch(const MappedFile& file, std::size_t at) {
  touch(reinterpret_cast<volatile const char*>(file.bytes().data()) + at);
}

// Cuts a file when a third piece of text comes.
struct Cut {
  const std::string& path;
  std::size_t left;
  int pieces = 0;
  static bool say(void* user, std::string_view) {
    auto& self = *static_cast<Cut*>(user);
    if (++self.pieces == 3) cut(self.path, self.left);
    return true;
  }
};

}  // namespace

TEST(Torn, WhatIsGoneReadsAsZerosAndIsAnError) {
  const TemporaryFolder folder;
  const std::string path = folder / "file", other = folder / "other";
  write_file(path, std::string(10 * k_page + 7, 'x'));
  write_file(other, std::string(3 * k_page, 'y'));
  auto file = MappedFile::open(path), sound = MappedFile::open(other);
  ASSERT_OK(file);
  ASSERT_OK(sound);
  const Lifetime before = file->lifetime();
  ASSERT_OK(file->whole("read", path));
  cut(path, 3 * k_page + 5);
  EXPECT_EQ(file->bytes()[3 * k_page + 4], std::byte{'x'});
  EXPECT_EQ(file->bytes()[8 * k_page], std::byte{0});
  EXPECT_EQ(file->bytes()[5 * k_page], std::byte{0});
  EXPECT_EQ(file->bytes()[10 * k_page + 6], std::byte{0});
  EXPECT_EQ(file->bytes()[0], std::byte{'x'});
  EXPECT_FALSE(before.alive());
  EXPECT_FAILS(file->whole("read", path), Errc::io);
  EXPECT_FAILS_SAYING(file->whole("read", path), "file: input/output error: the file shrank");
  MappedFile moved = std::move(*file);
  EXPECT_FAILS(moved.whole("read", path), Errc::io);
  EXPECT_OK(sound->whole("read", other));
  EXPECT_TRUE(sound->lifetime().alive());
  moved = MappedFile();
  write_file(path, std::string(2 * k_page, 'z'));
  for (int i = 0; i < 3; ++i) {  // its block is used again, and is as new
    auto again = MappedFile::open(path);
    ASSERT_OK(again);
    EXPECT_OK(again->whole("read", path));
  }
}

// Within its last page no fault tells of it; the length does.
TEST(Torn, ByOneByteIsAnError) {
  const TemporaryFolder folder;
  for (const std::size_t size : {std::size_t{1}, std::size_t{100}, k_page, k_page + 1, 3 * k_page - 1}) {
    write_file(folder / "file", std::string(size, 'x'));
    auto file = MappedFile::open(folder / "file");
    ASSERT_OK(file);
    ASSERT_OK(file->whole("read", {}));
    cut(folder / "file", size - 1);
    EXPECT_FAILS(file->whole("read", {}), Errc::io) << size;
    EXPECT_FAILS(file->whole("read", {}), Errc::io) << size;
  }
  write_file(folder / "file", "longer");
  auto file = MappedFile::open(folder / "file");
  ASSERT_OK(file);
  cut(folder / "file", 100);  // a file that grows keeps what it had
  EXPECT_OK(file->whole("read", {}));
  const auto none = MappedFile();
  EXPECT_OK(none.whole("read", {}));
}

TEST(Torn, ManyFilesAreWatchedAtOnce) {
  const TemporaryFolder folder;
  std::vector<MappedFile> files;
  for (int i = 0; i < 200; ++i) {  // more than one table of them
    const std::string path = folder / std::to_string(i);
    write_file(path, std::string(2 * k_page, 'x'));
    auto file = MappedFile::open(path);
    ASSERT_OK(file);
    files.push_back(std::move(*file));
    if (i % 3 == 0) files[files.size() / 2] = MappedFile();
  }
  for (int i = 0; i < 200; i += 7) cut(folder / std::to_string(i), 0);
  for (int i = 0; i < 200; ++i) {
    const MappedFile& file = files[static_cast<std::size_t>(i)];
    if (file.bytes().empty()) continue;
    touch(file, k_page);
    EXPECT_EQ(file.whole("read", {}).has_value(), i % 7 != 0) << i;
  }
}

TEST(Torn, ReadersSayIt) {
  const TemporaryFolder folder;
  const std::string path = folder / "w.safetensors";
  const auto values = Owned::zeros({5000});
  ASSERT_OK(values);
  const io::NamedTensor all[] = {{"w", *values}};
  ASSERT_OK(io::write_safetensors(path, all));
  const std::size_t size = read_file(path).size();
  for (const std::size_t left : {size - 1, size / 2, std::size_t{100}, std::size_t{0}}) {
    ASSERT_OK(io::write_safetensors(path, all));
    auto file = io::read_safetensors(path);
    ASSERT_OK(file);
    auto tensor = file->tensor("w");
    ASSERT_OK(tensor);
    ASSERT_OK(tensor->check("use"));
    cut(path, left);
    EXPECT_FAILS(file->copy("w"), Errc::io) << left;
    EXPECT_FAILS(file->tensor("w"), Errc::io) << left;
    EXPECT_FAILS(file->whole(), Errc::io) << left;
    EXPECT_FAILS(tensor->check("use"), Errc::stale_tensor) << left;
  }
}

// Another type of as many letters stands in the header.
TEST(Torn, AHeaderChangedInItsPlaceIsAnError) {
  const TemporaryFolder folder;
  const std::string path = folder / "w.safetensors";
  const auto values = Owned::zeros({50});
  ASSERT_OK(values);
  const io::NamedTensor all[] = {{"w", *values}};
  const io::TextPair texts[] = {{"k", "v"}};
  ASSERT_OK(io::write_safetensors(path, all, texts));
#ifndef QORUS_TEST_SANITIZED
  {
    const auto once = io::read_safetensors(path);
    const qorus_test::ShorterFile shorter(1);  // after the copy was made
    EXPECT_FAILS(once->copy("w"), Errc::io);
  }
#endif
  const auto file = io::read_safetensors(path);
  ASSERT_OK(file);
  EXPECT_FAILS(file->text("a"), Errc::not_found);
  EXPECT_FAILS(file->text("z"), Errc::not_found);
  const auto type = static_cast<off_t>(read_file(path).find("F32"));
  const int descriptor = ::open(path.c_str(), O_RDWR | O_CLOEXEC);
  for (const auto& [letters, code] : {std::pair{"F16", Errc::io}, std::pair{"F99", Errc::unsupported}}) {
    ASSERT_EQ(::pwrite(descriptor, letters, 3, type), 3);
    EXPECT_FAILS(file->tensor("w"), code);
    EXPECT_FAILS(file->copy("w"), code);
  }
  ::close(descriptor);
}

// While another thread cuts the files and makes them whole again, every reader gives an error or what was there.
TEST(Torn, ReadersSurviveIt) {
  const TemporaryFolder folder;
  const auto files = qorus_test::make_files(folder.path(), true);
  if (files.empty()) GTEST_SKIP() << "Python makes these files";
  int refused = 0, torn = 0;
  for (const qorus_test::MadeFile& file : files) {
    if (file.reader.empty() || file.reader == "config" || file.reader == "index") continue;
    const std::string content = read_file(file.path);
    if (content.empty()) break;  // a folder; after it come doors to what was read before
    std::atomic<bool> done{false};
    std::thread other([&] {
      std::size_t random = 1;
      const int descriptor = ::open(file.path.c_str(), O_RDWR | O_CLOEXEC);
      while (!done) {
        random = random * 6364136223846793005u + 1442695040888963407u;
        if (::ftruncate(descriptor, static_cast<off_t>((random >> 33) % content.size())) != 0) break;
        if (::pwrite(descriptor, content.data(), content.size(), 0) < 0) break;
      }
      ::close(descriptor);
    });
    for (int i = 0; i < 150;
         ++i) {  // what was opened whole may be refused when it is used: no crash is all that can be asked for
      const auto outcome = qorus_test::read_as(file.reader, file.path);
      refused += !outcome.is("ok");
      torn += outcome.says("the file shrank");
    }
    done = true;
    other.join();
  }
  std::printf("  %d readings of changing files refused, %d as shrunk\n", refused, torn);
  EXPECT_GT(refused, 0);
}

TEST(Torn, AModelThatIsGeneratingSaysIt) {
  QORUS_NEEDS_DATA("models/stories260K");
  const TemporaryFolder folder;
  write_file(folder / "tok512.bin", read_file(qorus_test::data_path("models/stories260K/tok512.bin")));
  for (const char* name : {"stories260K-F32.gguf", "stories260K.bin"}) {
    const std::string path = folder / name,
                      content = read_file(qorus_test::data_path(std::string("models/stories260K/") + name));
    for (const std::size_t left : {content.size() - 1, content.size() / 2, std::size_t{k_page}, std::size_t{0}}) {
      write_file(path, content);
      auto model = llm::open(path);
      ASSERT_OK(model);
      auto session = llm::Session::create(*model, {.context = 64, .threads = 2});
      ASSERT_OK(session);
      const std::int32_t ids[] = {1, 403, 407};
      ASSERT_OK(session->feed(ids));
      Cut later{path, left};
      const auto generated =
          llm::run_generate(*session, std::span<const std::int32_t>(ids), {.max_tokens = 20}, &Cut::say, &later);
      EXPECT_FAILS(generated, Errc::io) << left;
      EXPECT_FAILS_SAYING(generated, "the file shrank") << left;
      EXPECT_FAILS(session->feed({ids, 1}), Errc::io) << left;
    }
  }
}

// --- the host's own faults: in processes of their own, before which nothing was mapped ---

class TornDeathTest : public testing::Test {
 protected:
  void SetUp() override {
#ifdef QORUS_TEST_SANITIZED
    GTEST_SKIP() << "a sanitizer has a handler of its own";
#endif
    GTEST_FLAG_SET(death_test_style, "threadsafe");
    write_file(folder / "file", std::string(4 * k_page, 'x'));
  }
  // Opens the file and cuts it.
  MappedFile torn() const {
    auto file = MappedFile::open(folder / "file");
    if (!file || ::truncate((folder / "file").c_str(), 0) != 0) ::_exit(1);
    return std::move(*file);
  }
  TemporaryFolder folder;
};

TEST_F(TornDeathTest, WithoutAHandlerEndAsBefore) {
  EXPECT_EXIT(
      {
        const MappedFile file = torn();
        touch(file, k_page);
        touch(missing_page());
      },
      testing::KilledBySignal(SIGBUS), "");
  EXPECT_EXIT(
      {
        const MappedFile file = torn();
        ::kill(::getpid(), SIGBUS);
        ::_exit(0);
      },
      testing::KilledBySignal(SIGBUS), "");
}

TEST_F(TornDeathTest, GoToTheHandlerThatWasThere) {
  EXPECT_EXIT(
      {
        std::signal(SIGBUS, [](int) { leave(42); });
        const MappedFile file = torn();
        touch(file, k_page);
        touch(missing_page());
      },
      testing::ExitedWithCode(42), "");
  EXPECT_EXIT(
      {
        volatile char* const after = missing_page();  // at a higher address than what is mapped next
        struct sigaction action{};
        action.sa_flags = SA_SIGINFO;
        action.sa_sigaction = [](int, siginfo_t* info, void*) { leave(info->si_code == BUS_ADRERR ? 43 : 1); };
        ::sigaction(SIGBUS, &action, nullptr);
        const MappedFile file = torn();
        touch(file, k_page);
        touch(after);
      },
      testing::ExitedWithCode(43), "");
  EXPECT_EXIT(
      {
        std::signal(SIGBUS, SIG_IGN);
        const MappedFile file = torn();
        ::kill(::getpid(), SIGBUS);
        touch(file, k_page);
        leave(44);
      },
      testing::ExitedWithCode(44), "");
}

// In a process that has none to spare: for the record of a lifetime, and for another table of files.
TEST_F(TornDeathTest, NoMemoryToKeepTrackOfFiles) {
  EXPECT_EXIT(
      {
        std::vector<Block*> records;
        std::vector<MappedFile> files;
        records.reserve(100000);
        files.reserve(900);
        const std::string path = folder / "file";
        int code = 46;
        const auto take = [&] {
          const auto record = acquire_block();
          if (record) records.push_back(*record);
          return record.has_value() && records.size() < records.capacity();
        };
        const auto give_back = [&] {
          for (Block* record : records) release_block(record);
          records.clear();
        };
        while (records.size() < 3300 && take()) {  // for all the files that one table can watch, and more
        }
        give_back();
        {
          const qorus_test::FailingAllocations failing;
          while (take()) {  // until there are none
          }
          const auto none = MappedFile::open(path);
          if (none || none.error().code != Errc::out_of_memory) code = 1;
          give_back();
          for (bool more = true; more;) {
            auto file = MappedFile::open(path);
            more = file.has_value() && files.size() < files.capacity();
            if (more) files.push_back(std::move(*file));
            if (!file && file.error().code != Errc::out_of_memory) code = 2;
          }
        }
        leave(code);
      },
      testing::ExitedWithCode(46), "");
}

TEST_F(TornDeathTest, AreAllTheHostsIfItSaysSo) {
  EXPECT_EXIT(
      {
        ::setenv("QORUS_SIGBUS", "host", 1);
        const MappedFile file = torn();
        if (__llvm_profile_write_file) __llvm_profile_write_file();
        touch(file, k_page);
      },
      testing::KilledBySignal(SIGBUS), "");
  EXPECT_EXIT(
      {
        ::setenv("QORUS_SIGBUS", "ours", 1);
        const MappedFile file = torn();
        touch(file, k_page);
        leave(45);
      },
      testing::ExitedWithCode(45), "");
}
