// qorus.io: safetensors, whole, damaged, hostile; saving on full disks and in wrong places.
#include <dirent.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include <csignal>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "tests/files.h"
#include "tests/testing.h"

import qorus.io;

using namespace qorus;
using qorus_test::read_file;
using qorus_test::sweep;
using qorus_test::TemporaryFolder;
using qorus_test::write_file;

namespace {

std::string safetensors(const std::string& header, const std::string& data) {
  const std::uint64_t length = header.size();
  return std::string(reinterpret_cast<const char*>(&length), 8) + header + data;
}

// As the reference implementation writes it (Python package safetensors 0.8.0, save_file with numpy arrays): "a" f32 [[1, 2, 3]],
// "b" i32 [7, -1], "h" f16 [0.5], "n" i64 [5], metadata {"format": "np"}.
std::string reference_file() {
  const std::string header =
      R"({"__metadata__":{"format":"np"},"n":{"dtype":"I64","shape":[1],"data_offsets":[0,8]},)"
      R"("a":{"dtype":"F32","shape":[1,3],"data_offsets":[8,20]},"b":{"dtype":"I32","shape":[2],"data_offsets":[20,28]},)"
      R"("h":{"dtype":"F16","shape":[1],"data_offsets":[28,30]}}     )";
  const char data[] = "\5\0\0\0\0\0\0\0\0\0\x80\x3f\0\0\0\x40\0\0\x40\x40\7\0\0\0\xff\xff\xff\xff\0\x38";
  return safetensors(header, std::string(data, 30));
}

class Safetensors : public testing::Test {
 protected:
  Result<io::SafeTensors> read(const std::string& bytes) {
    write_file(path, bytes);
    return io::read_safetensors(path);
  }
  // The header of a file with 8 bytes of data.
  Result<io::SafeTensors> read_header(const std::string& header) { return read(safetensors(header, "01234567")); }

  TemporaryFolder folder;
  std::string path = folder / "model.safetensors";
};

std::size_t files_in(const std::string& folder) {
  std::size_t count = 0;
  if (DIR* open = ::opendir(folder.c_str())) {
    while (const dirent* entry = ::readdir(open)) count += entry->d_name[0] != '.';
    ::closedir(open);
  }
  return count;
}

// While it lives, no file may grow beyond so many bytes: writing more fails as on a full disk.
class SmallDisk {
 public:
  explicit SmallDisk(rlim_t bytes) {
    old_handler_ = std::signal(SIGXFSZ, SIG_IGN);
    ::getrlimit(RLIMIT_FSIZE, &old_);
    const rlimit small{bytes, old_.rlim_max};
    ::setrlimit(RLIMIT_FSIZE, &small);
  }
  ~SmallDisk() {
    ::setrlimit(RLIMIT_FSIZE, &old_);
    std::signal(SIGXFSZ, old_handler_);
  }
  SmallDisk(const SmallDisk&) = delete;
  SmallDisk& operator=(const SmallDisk&) = delete;

 private:
  rlimit old_{};
  void (*old_handler_)(int) = nullptr;
};

}  // namespace

TEST_F(Safetensors, ReadsWhatTheReferenceWrites) {
  const auto file = read(reference_file());
  ASSERT_OK(file);
  ASSERT_EQ(file->entries().size(), 4u);
  EXPECT_EQ(file->entries()[0].name, "n");
  EXPECT_EQ(file->entries()[0].type, "I64");
  EXPECT_EQ(file->entries()[1].shape, Shape({1, 3}));
  EXPECT_EQ(file->entries()[1].bytes, 12u);
  EXPECT_EQ(reference_file().size(), 8u + 256u + 30u);
  const auto a = file->copy("a");
  ASSERT_OK(a);
  EXPECT_EQ(a->tensor().to_vector().value(), (std::vector<float>{1, 2, 3}));
  EXPECT_EQ(file->copy("b")->tensor().to_vector<std::int32_t>().value(), (std::vector<std::int32_t>{7, -1}));
  EXPECT_EQ(file->copy("h")->tensor().dtype(), DType::f16);
  EXPECT_EQ(file->text("format").value(), "np");
  EXPECT_EQ(file->metadata().size(), 1u);
  EXPECT_FAILS(file->tensor("n"), Errc::unsupported);
  EXPECT_FAILS(file->copy("n"), Errc::unsupported);
  EXPECT_FAILS(file->tensor("m"), Errc::not_found);
  EXPECT_FAILS(file->copy("m"), Errc::not_found);
  EXPECT_FAILS(file->text("m"), Errc::not_found);
  EXPECT_FAILS_SAYING(file->tensor("m"), "m: not found");
  EXPECT_EQ(file->find("m"), nullptr);
}

TEST_F(Safetensors, GivesViewsThatLiveAsLongAsTheFile) {
  const auto values = Owned::from<float>({1, 2, 3, 4}, {2, 2}).value();
  const io::NamedTensor one[] = {{"w", values}};
  ASSERT_OK(io::write_safetensors(path, one));
  std::optional<io::SafeTensors> file(io::read_safetensors(path).value());
  const Tensor view = file->tensor("w").value();
  EXPECT_EQ(reinterpret_cast<std::uintptr_t>(view.data()) % 64, 0u);
  EXPECT_EQ(view.data(), file->tensor("w")->data());
  io::SafeTensors moved = std::move(*file);
  EXPECT_EQ(view.to_vector().value(), (std::vector<float>{1, 2, 3, 4}));
  EXPECT_EQ(moved.entries()[0].name, "w");
  moved = io::SafeTensors();
  file.reset();
  EXPECT_FAILS(view.values<float>(), Errc::stale_tensor);
}

TEST_F(Safetensors, SaysWhichTensorIsMisaligned) {
  std::string header = R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},)"
                       R"("b":{"dtype":"F32","shape":[1],"data_offsets":[1,5]}})";
  header.resize((header.size() + 7) / 8 * 8, ' ');
  const auto file = read(safetensors(header, std::string("\7\0\0\x80\x3f", 5)));
  ASSERT_OK(file);
  EXPECT_OK(file->tensor("a"));
  EXPECT_FAILS(file->tensor("b"), Errc::misaligned);
  EXPECT_EQ(file->copy("b")->tensor().item().value(), 1.0f);
}

TEST_F(Safetensors, TakesWhatIsUnusualButValid) {
  EXPECT_OK(read(safetensors("{}", "")));
  EXPECT_OK(read(safetensors("{ }  \n\t\r", "")));
  const auto empty = read_header(
      R"({"e":{"dtype":"F32","shape":[0,3],"data_offsets":[8,8]},"s":{"shape":[],"data_offsets":[0,8],"dtype":"F64"}})");
  ASSERT_OK(empty);
  EXPECT_EQ(empty->tensor("e")->numel(), 0u);
  EXPECT_EQ(empty->find("s")->shape.rank(), 0);
  const auto odd = read_header(
      R"({"\u00e4\n\ud83d\ude00\"":{"dtype":"F4","shape":[16],"data_offsets":[0,8]},"__metadata__":{"\u0041":"\\"}})");
  ASSERT_OK(odd);
  EXPECT_EQ(odd->entries()[0].name, "ä\n😀\"");
  EXPECT_EQ(odd->text("A").value(), "\\");
}

TEST_F(Safetensors, NamesEachMistake) {
  const auto says = [&](const std::string& bytes, Errc code, const char* text) {
    const auto file = read(bytes);
    EXPECT_FAILS(file, code);
    EXPECT_FAILS_SAYING(file, text);
    EXPECT_FAILS_SAYING(file, "model.safetensors");
  };
  const auto number = [](std::uint64_t n) { return std::string(reinterpret_cast<const char*>(&n), 8); };
  EXPECT_FAILS(io::read_safetensors(folder / "nowhere"), Errc::not_found);
  EXPECT_FAILS(io::read_safetensors(folder.path()), Errc::io);
  says("", Errc::corrupt, "too short for a header");
  says("1234567", Errc::corrupt, "too short for a header");
  says(number(3) + "{}", Errc::corrupt, "ends within its header");
  says(number(100'000'001) + "{}", Errc::corrupt, "more than 100 MB");
  says(number(UINT64_MAX) + "{}", Errc::corrupt, "more than 100 MB");
  says(number(0), Errc::corrupt, "does not begin with {");
  says(safetensors(" {}", ""), Errc::corrupt, "does not begin with {");
  says(safetensors("{}", "x"), Errc::corrupt, "belong to no tensor");
  const auto header_says = [&](const std::string& header, Errc code, const char* text) {
    says(safetensors(header, "01234567"), code, text);
  };
  header_says(R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}})", Errc::corrupt, "belong to no tensor");
  header_says(R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}})", Errc::corrupt, "belong to no tensor");
  header_says(
      R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"b":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}})",
      Errc::corrupt, "share bytes");
  header_says(R"({"a":{"dtype":"F32","shape":[3],"data_offsets":[0,8]}})", Errc::corrupt, "not as many as its shape");
  header_says(R"({"a":{"dtype":"F32","shape":[3],"data_offsets":[0,12]}})", Errc::corrupt, "not inside the file");
  header_says(R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[8,0]}})", Errc::corrupt, "not inside the file");
  header_says(R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,18446744073709551616]}})", Errc::overflow,
              "does not fit");
  header_says(R"({"a":{"dtype":"F32","shape":[9223372036854775808],"data_offsets":[0,8]}})", Errc::overflow,
              "does not fit");
  header_says(R"({"a":{"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,8]}})", Errc::overflow,
              "more elements");
  header_says(R"({"a":{"dtype":"F32","shape":[1,1,1,1,1,1,2],"data_offsets":[0,8]}})", Errc::unsupported,
              "more than 6 dimensions");
  header_says(R"({"a":{"dtype":"Q4_0","shape":[2],"data_offsets":[0,8]}})", Errc::unsupported, "element type");
  header_says(R"({"a":{"dtype":"F4","shape":[15],"data_offsets":[0,8]}})", Errc::corrupt, "not as many");
  header_says(R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8,9]}})", Errc::corrupt, "a begin and an end");
  header_says(R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0]}})", Errc::corrupt, "a begin and an end");
  header_says(R"({"a":{"dtype":"F32","shape":[2]}})", Errc::corrupt, "lacks its dtype");
  header_says(R"({"a":{"dtype":"F32","shape":[2],"shape":[2],"data_offsets":[0,8]}})", Errc::corrupt, "a field twice");
  header_says(R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8],"more":1}})", Errc::corrupt, "nothing else");
  header_says(
      R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"a":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}})",
      Errc::corrupt, "the same name");
  header_says(
      R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"\u0061":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}})",
      Errc::corrupt, "the same name");
  header_says(R"({"__metadata__":{},"__metadata__":{}})", Errc::corrupt, "stands twice");
  header_says(R"({"__metadata__":{"a":"b","a":"b"}})", Errc::corrupt, "stands twice");
  header_says(R"({"__metadata__":{"a":1}})", Errc::corrupt, "expected a string");
  header_says(R"({"a":[]})", Errc::corrupt, "expected an object");
}

TEST_F(Safetensors, ReadsStrictJsonOnly) {
  const char* const broken[] = {"{",
                                "{}}",
                                "{,}",
                                R"({"a")",
                                R"({"a":})",
                                R"({"a":{}})",
                                R"({"a" {}})",
                                R"({a:{}})",
                                "{}x",
                                R"({"a":{"dtype":"F32",}})",
                                R"({"a":{"dtype":F32}})",
                                R"({"a":{"dtype":"F32" "shape":[]}})",
                                R"({"a":{"shape":[1,]}})",
                                R"({"a":{"shape":[,1]}})",
                                R"({"a":{"shape":[-1]}})",
                                R"({"a":{"shape":[01]}})",
                                R"({"a":{"shape":[1.0]}})",
                                R"({"a":{"shape":[1e3]}})",
                                R"({"a":{"shape":["1"]}})",
                                R"({"a":{"shape":[[1]]}})",
                                R"({"a":{"shape":{}}})",
                                R"({"a":{"shape":[0x1]}})",
                                R"({"\x":{}})",
                                R"({"\u12":{}})",
                                R"({"\u12g4":{}})",
                                R"({"\ud800":{}})",
                                R"({"\udc00":{}})",
                                R"({"\ud800\u0041":{}})",
                                R"({"\ud800\ud800":{}})",
                                "{\"\\",
                                "{\"\\u",
                                "{\"a\n\":{}}",
                                "{\"\xff\":{}}",
                                "{\"\xc0\xaf\":{}}",
                                "{\"\xed\xa0\x80\":{}}",
                                "{\"\xf5\x80\x80\x80\":{}}",
                                "{\"\xe2\x82\":{}}",
                                "{\"\xf0\x9f\x98",
                                "{\"a\":null}",
                                "{\"a\":true}"};
  for (const char* const header : broken) EXPECT_FAILS(read_header(header), Errc::corrupt) << header;
  std::string deep = "{\"a\":{\"shape\":";
  EXPECT_FAILS(read_header(deep.append(1'000'000, '[')), Errc::corrupt);
}

TEST_F(Safetensors, TakesTheMetadataUpToItsCap) {
  const auto with = [&](int count) {
    std::string header = "{\"__metadata__\":{";
    for (int i = 0; i < count; ++i) header += (i ? ",\"" : "\"") + std::to_string(i) + "\":\"\"";
    return read(safetensors(header + "}}", ""));
  };
  EXPECT_OK(with(65536));
  EXPECT_FAILS_SAYING(with(65537), "more than 65536");
}

TEST_F(Safetensors, WritesWhatItReads) {
  const auto wide = Owned::from<float>({1, 2, 3, 4, 5, 6}, {2, 3}).value();
  const auto bytes = Owned::from<std::uint8_t>({1, 2, 3}, {3}).value();
  const auto halves = Owned::zeros({1}, DType::bf16).value();
  const auto tokens = Owned::from<std::int32_t>({-5}, {}).value();
  const int axes[] = {1, 0};
  const Tensor turned = wide.tensor().seen_as(wide.tensor().layout().permuted(axes).value());
  const io::NamedTensor all[] = {{"bytes", bytes}, {"fc.weight", turned}, {"half", halves}, {"token\"\n", tokens}};
  const io::TextPair metadata[] = {{"epoch", "3"}, {"by", "qorus ä"}};
  ASSERT_OK(io::write_safetensors(path, all, metadata));
  const std::string first = read_file(path);
  ASSERT_OK(io::write_safetensors(path, all, metadata));
  EXPECT_EQ(read_file(path), first);
  EXPECT_EQ(files_in(folder.path()), 1u);
  std::uint64_t length = 0;
  std::memcpy(&length, first.data(), 8);
  EXPECT_EQ((length + 8) % 64, 0u);
  const auto file = io::read_safetensors(path);
  ASSERT_OK(file);
  EXPECT_EQ(file->entries()[0].name, "fc.weight");  // wide elements first, so that all are aligned
  EXPECT_EQ(file->tensor("fc.weight")->shape(), Shape({3, 2}));
  EXPECT_EQ(file->tensor("fc.weight")->to_vector().value(), (std::vector<float>{1, 4, 2, 5, 3, 6}));
  EXPECT_EQ(file->tensor("bytes")->to_vector<std::uint8_t>().value(), (std::vector<std::uint8_t>{1, 2, 3}));
  EXPECT_EQ(file->tensor("token\"\n")->item<std::int32_t>().value(), -5);
  EXPECT_OK(file->tensor("half"));
  EXPECT_EQ(file->text("by").value(), "qorus ä");
  ASSERT_OK(io::write_safetensors(path, {}));
  EXPECT_EQ(io::read_safetensors(path)->entries().size(), 0u);
}

TEST_F(Safetensors, RefusesToWriteWhatCannotBeRead) {
  const auto value = Owned::zeros({2}).value();
  const auto write = [&](const std::vector<io::NamedTensor>& tensors, std::vector<io::TextPair> metadata = {}) {
    return io::write_safetensors(path, tensors, metadata);
  };
  write_file(path, "old");
  EXPECT_FAILS(write({{"a", value}, {"b", value}, {"a", value}}), Errc::invalid_argument);
  EXPECT_FAILS(write({{"__metadata__", value}}), Errc::invalid_argument);
  EXPECT_FAILS(write({{"\xff", value}}), Errc::invalid_argument);
  EXPECT_FAILS(write({{"a", value}}, {{"k", "\xff"}}), Errc::invalid_argument);
  EXPECT_FAILS(write({{"a", Tensor()}}), Errc::invalid_size);
  const Tensor gone = Owned::zeros({2}).value().tensor();
  EXPECT_FAILS(write({{"weight", gone}}), Errc::stale_tensor);
  EXPECT_FAILS_SAYING(write({{"weight", gone}}), "weight");
  EXPECT_EQ(read_file(path), "old");
  EXPECT_EQ(files_in(folder.path()), 1u);
}

TEST_F(Safetensors, AFullDiskLeavesTheOldFile) {
  const auto old = Owned::from<float>({42}, {1}).value();
  const auto large = Owned::zeros({100'000}).value();
  const io::NamedTensor first[] = {{"a", old}}, second[] = {{"a", large}};
  ASSERT_OK(io::write_safetensors(path, first));
  const std::string before = read_file(path);
  for (const rlim_t room : {0, 4, 100, 5000, 399'999}) {
    Status done;
    {
      const SmallDisk disk(room);
      done = io::write_safetensors(path, second);
    }
    EXPECT_FAILS(done, Errc::io);
    EXPECT_FAILS_SAYING(done, "File too large");
    EXPECT_EQ(read_file(path), before);
    EXPECT_EQ(files_in(folder.path()), 1u);
  }
  ASSERT_OK(io::write_safetensors(path, second));
}

TEST_F(Safetensors, NamesAPlaceThatCannotBeWritten) {
  const auto value = Owned::zeros({1}).value();
  const io::NamedTensor one[] = {{"a", value}};
  EXPECT_FAILS(io::write_safetensors(folder / "no/such/file", one), Errc::not_found);
  EXPECT_FAILS(io::write_safetensors(folder.path(), one), Errc::io);
  write_file(folder / "plain", "");
  EXPECT_FAILS(io::write_safetensors(folder / "plain/file", one), Errc::io);
  EXPECT_FAILS(io::write_safetensors("", one), Errc::invalid_argument);
  if (::geteuid() != 0) {  // root may write anywhere
    ASSERT_EQ(::chmod(folder.path().c_str(), 0500), 0);
    EXPECT_FAILS(io::write_safetensors(path, one), Errc::io);
    ::chmod(folder.path().c_str(), 0700);
  }
}

TEST_F(Safetensors, SurvivesEveryDamage) {
  const auto attempt = [&](const std::string& bytes) {
    const auto file = read(bytes);
    if (!file) return;
    for (const auto& entry : file->entries()) {
      if (const auto tensor = file->tensor(entry.name))
        EXPECT_EQ(tensor->numel() * size_of(tensor->dtype()), entry.bytes);
      (void)file->copy(entry.name);
    }
  };
  sweep(reference_file(), attempt);
  sweep(
      safetensors(
          R"({"\u0061\n":{"dtype":"U8","shape":[2],"data_offsets":[0,2]},"__metadata__":{"k":"\ud83d\ude00"}} )", "xy"),
      attempt);
}

TEST_F(Safetensors, SurvivesEveryFailingAllocation) {
  QORUS_NEEDS_ALLOCATION_COUNTER();
  const auto value = Owned::zeros({2, 3}).value();
  const int axes[] = {1, 0};
  const io::NamedTensor all[] = {{"a\n", value},
                                 {"b", value.tensor().seen_as(value.tensor().layout().permuted(axes).value())}};
  const io::TextPair metadata[] = {{"k", "v"}};
  bool written = false, got = false;
  for (std::uint64_t k = 0; k < 60 && !(written && got); ++k) {
    const qorus_test::FailingAllocations failing(k);
    const auto done = io::write_safetensors(path, all, metadata);
    written = done.has_value();
    if (written) got = io::read_safetensors(path).has_value();
  }
  EXPECT_TRUE(written && got);
  for (std::uint64_t k = 0; k < 20; ++k) {
    Errc code = Errc::ok;
    {
      const qorus_test::FailingAllocations failing(k);
      if (const auto file = io::read_safetensors(path); !file) code = file.error().code;
    }
    EXPECT_TRUE(code == Errc::ok || code == Errc::out_of_memory);
  }
}

TEST(MnistCnn, HasTheExpectedTensors) {
  QORUS_NEEDS_DATA("models/mnist-cnn/mnist.safetensors");
  const auto file = io::read_safetensors(qorus_test::data_path("models/mnist-cnn/mnist.safetensors"));
  ASSERT_OK(file);
  EXPECT_EQ(file->copy("conv1.weight")->tensor().shape(), Shape({8, 1, 3, 3}));
  EXPECT_EQ(file->copy("conv3.weight")->tensor().shape(), Shape({24, 16, 3, 3}));
  EXPECT_EQ(file->copy("fc1.weight")->tensor().shape(), Shape({32, 11616}));
  EXPECT_EQ(file->copy("fc2.bias")->tensor().shape(), Shape({10}));
  EXPECT_EQ(file->entries().size(), 20u);
  EXPECT_EQ(file->copy("norm1.running_mean")->tensor().shape(), Shape({24}));
  EXPECT_FAILS(file->tensor("norm1.num_batches_tracked"), Errc::unsupported);  // I64
}
