// qorus.data: IDX files, raw and gzipped, whole, damaged and hostile; MNIST.
#include <sys/resource.h>
#include <zlib.h>

#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "tests/files.h"
#include "tests/testing.h"

import qorus.data;

using namespace qorus;
using qorus_test::sweep;
using qorus_test::TemporaryFolder;
using qorus_test::write_file;

namespace {

template <class U>
std::string big_endian(U value) {
  std::string bytes;
  for (int shift = 8 * static_cast<int>(sizeof(U)) - 8; shift >= 0; shift -= 8)
    bytes += static_cast<char>(value >> shift);
  return bytes;
}

std::string idx_header(int type, const std::vector<std::uint32_t>& extents) {
  std::string bytes{0, 0, static_cast<char>(type), static_cast<char>(extents.size())};
  for (const auto extent : extents) bytes += big_endian(extent);
  return bytes;
}

std::string gzip(const std::string& bytes) {
  z_stream stream{};
  EXPECT_EQ(deflateInit2(&stream, 9, Z_DEFLATED, 15 + 16, 9, Z_DEFAULT_STRATEGY), Z_OK);
  std::string packed(deflateBound(&stream, bytes.size()) + 32, '\0');
  stream.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(bytes.data()));
  stream.avail_in = static_cast<uInt>(bytes.size());
  stream.next_out = reinterpret_cast<Bytef*>(packed.data());
  stream.avail_out = static_cast<uInt>(packed.size());
  EXPECT_EQ(deflate(&stream, Z_FINISH), Z_STREAM_END);
  packed.resize(stream.total_out);
  deflateEnd(&stream);
  return packed;
}

// Three images of 2 x 2 bytes, and their labels.
std::string images() {
  return idx_header(8, {3, 2, 2}) + std::string("\x00\x01\x02\x03\x10\x20\x30\x40\xfc\xfd\xfe\xff", 12);
}
std::string labels() { return idx_header(8, {3}) + std::string("\x05\x00\x09", 3); }

class Idx : public testing::Test {
 protected:
  Result<Owned> read(const std::string& bytes) {
    write_file(folder / "file", bytes);
    return data::read_idx(folder / "file");
  }
  Result<data::Dataset> pair(const std::string& x, const std::string& y) {
    write_file(folder / "x", x);
    write_file(folder / "y", y);
    return data::idx(folder / "x", folder / "y");
  }
  TemporaryFolder folder;
};

}  // namespace

TEST_F(Idx, ReadsImagesAndLabels) {
  for (const bool packed : {false, true}) {
    const auto set = packed ? pair(gzip(images()), gzip(labels())) : pair(images(), labels());
    ASSERT_OK(set);
    EXPECT_EQ(set->size(), 3u);
    EXPECT_EQ(set->input_shape(), Shape({2, 2}));
    EXPECT_EQ(set->classes(), 10);
    EXPECT_EQ(set->inputs().dtype(), DType::u8);
    EXPECT_EQ(set->inputs().at<std::uint8_t>({2, 0, 1}).value(), 0xfd);
    EXPECT_EQ(set->targets().at<std::int32_t>({2}).value(), 9);
    EXPECT_FLOAT_EQ(set->encoding().scale, 1.0f / 255.0f);
  }
}

TEST_F(Idx, ReadsEveryElementType) {
  const auto i8 = read(idx_header(9, {2}) + std::string("\x80\x7f", 2));
  ASSERT_OK(i8);
  EXPECT_EQ(i8->tensor().to_vector<std::int32_t>().value(), (std::vector<std::int32_t>{-128, 127}));
  const auto i16 = read(idx_header(0x0b, {2}) + std::string("\x80\x01\x01\x00", 4));
  ASSERT_OK(i16);
  EXPECT_EQ(i16->tensor().to_vector<std::int32_t>().value(), (std::vector<std::int32_t>{-32767, 256}));
  const auto i32 = read(idx_header(0x0c, {1, 1}) + std::string("\xff\xff\xff\xfe", 4));
  ASSERT_OK(i32);
  EXPECT_EQ(i32->tensor().to_vector<std::int32_t>().value(), (std::vector<std::int32_t>{-2}));
  const auto f32 = read(gzip(idx_header(0x0d, {1}) + std::string("\x3f\xc0\x00\x00", 4)));
  ASSERT_OK(f32);
  EXPECT_EQ(f32->tensor().to_vector().value(), std::vector<float>{1.5f});
  const auto f64 = read(idx_header(0x0e, {1}) + std::string("\xc0\x02\x00\x00\x00\x00\x00\x00", 8));
  ASSERT_OK(f64);
  EXPECT_EQ(f64->tensor().to_vector().value(), std::vector<float>{-2.25f});
}

TEST_F(Idx, ReadsManyElementsAcrossItsChunks) {
  std::string bytes = idx_header(0x0b, {10001});
  for (int i = 0; i < 10001; ++i) bytes += big_endian(static_cast<std::uint16_t>(i));
  for (const auto& file : {bytes, gzip(bytes)}) {
    const auto made = read(file);
    ASSERT_OK(made);
    for (int i = 0; i < 10001; ++i) ASSERT_EQ(made->tensor().at<std::int32_t>({i}).value(), i);
  }
}

TEST_F(Idx, TakesRealTargets) {
  const auto set = pair(images(), idx_header(0x0d, {3, 1}) + std::string(12, '\0'));
  ASSERT_OK(set);
  EXPECT_EQ(set->targets().dtype(), DType::f32);
  EXPECT_EQ(set->classes(), 0);
}

TEST_F(Idx, NamesEachMistake) {
  EXPECT_FAILS(data::read_idx(folder / "nowhere"), Errc::not_found);
  EXPECT_FAILS_SAYING(data::read_idx(folder / "nowhere"), "/nowhere");
  EXPECT_FAILS(data::read_idx(folder.path()), Errc::io);
  const auto says = [&](const std::string& bytes, Errc code, const char* text) {
    const auto made = read(bytes);
    EXPECT_FAILS(made, code);
    EXPECT_FAILS_SAYING(made, text);
    EXPECT_FAILS_SAYING(made, "/file");
  };
  says("", Errc::corrupt, "fewer bytes than its header announces");
  says(images().substr(0, 15), Errc::corrupt, "fewer bytes than its header announces");
  says(images().substr(0, 20), Errc::corrupt, "fewer bytes than its header announces");
  says(images() + "x", Errc::corrupt, "bytes are left over after its data");
  says("PK" + images().substr(2), Errc::corrupt, "not an IDX file");
  says(idx_header(7, {1}) + "x", Errc::corrupt, "an element type that IDX does not have");
  says(idx_header(8, {}) + "x", Errc::unsupported, "1 to 6 dimensions");
  says(idx_header(8, {1, 1, 1, 1, 1, 1, 1}) + "x", Errc::unsupported, "1 to 6 dimensions");
  says(idx_header(8, {1, 1, 1, 1, 1, 1}) + "x" + "y", Errc::corrupt, "left over");
  says(idx_header(0x0e, {0xffffffff, 0xffffffff, 0xffffffff}) + "x", Errc::overflow,
       "more elements than can be addressed");
  says(idx_header(8, {0xffffffff}) + "x", Errc::corrupt, "fewer bytes than its header announces");
}

TEST_F(Idx, NamesEachMistakeOfGzip) {
  const auto says = [&](const std::string& bytes, const char* text) {
    const auto made = read(bytes);
    EXPECT_FAILS(made, Errc::corrupt);
    EXPECT_FAILS_SAYING(made, text);
  };
  const std::string whole = gzip(images());
  says(whole.substr(0, whole.size() - 1), "its gzip data is cut off");
  says(whole.substr(0, 12), "its gzip data is cut off");
  says(whole + "garbage", "left over after the end of its gzip data");
  says(whole + '\0', "left over after the end of its gzip data");
  says(gzip(images() + "x"), "bytes are left over after its data");
  says(gzip(images().substr(0, 20)), "fewer bytes than its header announces");
  std::string broken = whole;
  broken[whole.size() - 8] ^= 1;  // the check sum
  says(broken, "broken gzip data");
  says(gzip(images()) + gzip("more"), "bytes are left over after its data");
}

TEST_F(Idx, ReadsConcatenatedGzipMembers) {
  const std::string all = images();
  const auto made = read(gzip(all.substr(0, 7)) + gzip("") + gzip(all.substr(7, 10)) + gzip(all.substr(17)));
  ASSERT_OK(made);
  EXPECT_EQ(made->tensor().at<std::uint8_t>({2, 1, 1}).value(), 0xff);
}

TEST_F(Idx, TakesNoMemoryForWhatIsNotThere) {
  const auto peak = [] {  // of the process, in KiB
    rusage usage{};
    ::getrusage(RUSAGE_SELF, &usage);
    return usage.ru_maxrss;
  };
  // 2 GiB announced; 3 MiB are there, which gzip packs into a few kilobytes, so that the ratio alone would allow it.
  write_file(folder / "bomb", gzip(idx_header(8, {0x7fffffff}) + std::string(3 << 20, '\0')));
  const long before = peak();
  EXPECT_FAILS_SAYING(data::read_idx(folder / "bomb"), "fewer bytes than its header announces");
  EXPECT_LT(peak() - before, 64 * 1024);
  // 65 MiB that are really there are read after being counted.
  const auto real = read(gzip(idx_header(8, {65u << 20}) + std::string(65u << 20, '\1')));
  ASSERT_OK(real);
  EXPECT_EQ(real->tensor().at<std::uint8_t>({(65 << 20) - 1}).value(), 1);
}

TEST_F(Idx, RefusesImagesAndLabelsThatDoNotGoTogether) {
  const auto counts = pair(images(), idx_header(8, {2}) + "ab");
  EXPECT_FAILS(counts, Errc::invalid_size);
  EXPECT_FAILS_SAYING(counts, "[3,2,2] and [2]: as many labels as images");
  EXPECT_FAILS_SAYING(counts, "/y");
  EXPECT_FAILS(pair(idx_header(8, {0, 2, 2}), idx_header(8, {0})), Errc::invalid_size);
  EXPECT_FAILS(pair(images(), idx_header(8, {3, 1}) + "abc"), Errc::invalid_argument);
  const auto negative = pair(images(), idx_header(9, {3}) + std::string("\x01\xff\x01", 3));
  EXPECT_FAILS(negative, Errc::invalid_argument);
  EXPECT_FAILS_SAYING(negative, "a label is not in [0, classes)");
  EXPECT_FAILS(data::idx(folder / "x", folder / "nowhere"), Errc::not_found);
}

TEST_F(Idx, SurvivesEveryDamage) {
  int valid = 0, refused = 0;
  const auto attempt = [&](const Result<data::Dataset>& set) {
    if (!set) {
      ++refused;
      return;
    }
    ++valid;
    auto batches = *set | data::batch(2);
    for (auto const& [x, y] : batches) EXPECT_OK(x.check("use"));
    EXPECT_OK(batches.status());
  };
  sweep(images(), [&](const std::string& bytes) { attempt(pair(bytes, labels())); });
  sweep(labels(), [&](const std::string& bytes) { attempt(pair(images(), bytes)); });
  sweep(gzip(images()), [&](const std::string& bytes) { attempt(pair(bytes, labels())); });
  sweep(gzip(labels()), [&](const std::string& bytes) { attempt(pair(images(), bytes)); });
  sweep(idx_header(0x0b, {3, 1}) + "abcdef", [&](const std::string& bytes) { attempt(pair(bytes, labels())); });
  EXPECT_GT(valid, 50);
  EXPECT_GT(refused, 400);
}

TEST_F(Idx, SurvivesEveryFailingAllocation) {
  QORUS_NEEDS_ALLOCATION_COUNTER();
  ASSERT_OK(pair(gzip(images()), gzip(labels())));
  const std::string x = folder / "x", y = folder / "y";
  bool done = false;
  for (std::uint64_t k = 0; k < 50 && !done; ++k) {
    Error error;
    {
      const qorus_test::FailingAllocations failing(k);
      const auto set = data::idx(x, y);
      done = set.has_value();
      if (!done) error = set.error();
    }
    if (!done) EXPECT_EQ(error.code, Errc::out_of_memory) << error.message().c_str();
  }
  EXPECT_TRUE(done);
}

TEST_F(Idx, MnistFindsItsFiles) {
  const auto names = std::to_array<std::string>(
      {"train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"});
  for (int i = 0; i < 4; ++i) {
    EXPECT_FAILS(data::mnist(folder.path()), Errc::not_found);
    EXPECT_FAILS_SAYING(data::mnist(folder.path()), names[i]);
    const std::string bytes = i % 2 ? labels() : images();
    write_file(folder / (i < 2 ? names[i] : names[i] + ".gz"), i < 2 ? bytes : gzip(bytes));
  }
  const auto split = data::mnist(folder.path());
  ASSERT_OK(split);
  EXPECT_EQ(split->test.classes(), 10);
  write_file(folder / names[1], idx_header(8, {3}) + "\x01\x02\x0a");
  EXPECT_FAILS_SAYING(data::mnist(folder.path()), "a label is not below 10");
  write_file(folder / names[1], idx_header(9, {3}) + "\x01\x02\x03");
  EXPECT_FAILS_SAYING(data::mnist(folder.path()), "labels are bytes [n]");
  write_file(folder / names[0], idx_header(8, {3, 2}) + "abcdef");
  EXPECT_FAILS_SAYING(data::mnist(folder.path()), "images are bytes [n, height, width]");
  EXPECT_FAILS(data::mnist(std::string(5000, 'x')), Errc::invalid_argument);
}

TEST(Mnist, IsWhatItIs) {
  QORUS_NEEDS_DATA("mnist/train-images-idx3-ubyte.gz");
  const auto split = data::mnist(qorus_test::data_path("mnist"));
  ASSERT_OK(split);
  EXPECT_EQ(split->train.size(), 60000u);
  EXPECT_EQ(split->test.size(), 10000u);
  EXPECT_EQ(split->train.input_shape(), Shape({28, 28}));
  const auto first = [](const data::Dataset& set) {
    return std::vector<std::int32_t>(set.targets().i32(), set.targets().i32() + 10);
  };
  EXPECT_EQ(first(split->train), (std::vector<std::int32_t>{5, 0, 4, 1, 9, 2, 1, 3, 1, 4}));
  EXPECT_EQ(first(split->test), (std::vector<std::int32_t>{7, 2, 1, 0, 4, 1, 4, 9, 5, 9}));
  const auto raw = data::idx(qorus_test::data_path("mnist/t10k-first1000-images-idx3-ubyte"),
                             qorus_test::data_path("mnist/t10k-first1000-labels-idx1-ubyte"));
  ASSERT_OK(raw);
  EXPECT_EQ(std::string(reinterpret_cast<const char*>(raw->inputs().u8()), 784000),
            std::string(reinterpret_cast<const char*>(split->test.inputs().u8()), 784000));
}
