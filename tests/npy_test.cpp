// qorus.io: npy files and npz archives, every type and order, damaged and hostile.
#include <zlib.h>

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
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

template <class... T>
std::string bytes_of(T... values) {
  std::string bytes;
  (bytes.append(reinterpret_cast<const char*>(&values), sizeof values), ...);
  return bytes;
}

std::string npy(const std::string& header, const std::string& data, char major = 1) {
  std::string bytes = std::string("\x93NUMPY") + major + '\0';
  const auto length = static_cast<std::uint32_t>(header.size());
  bytes += std::string(reinterpret_cast<const char*>(&length), major == 1 ? 2 : 4);
  return bytes + header + data;
}
std::string literal(const std::string& type, const std::string& shape, const std::string& order = "False") {
  return "{'descr': '" + type + "', 'fortran_order': " + order + ", 'shape': " + shape + ", }\n";
}

class Npy : public testing::Test {
 protected:
  Result<Owned> read(const std::string& bytes) {
    write_file(path, bytes);
    return io::read_npy(path);
  }
  TemporaryFolder folder;
  std::string path = folder / "array.npy";
};

}  // namespace

TEST_F(Npy, ReadsColumnMajorArraysOfEveryRank) {
  for (const std::vector<std::size_t>& dims : std::vector<std::vector<std::size_t>>{
           {}, {5}, {2, 3}, {2, 3, 4}, {2, 3, 1, 4}, {3, 2, 2, 1, 2}, {2, 1, 3, 2, 2, 3}}) {
    std::string shape = "(", data;
    std::size_t count = 1;
    for (const std::size_t d : dims) shape += std::to_string(d) + ",", count *= d;
    for (std::size_t i = 0; i < count; ++i) data += bytes_of(static_cast<float>(i));
    std::vector<float> wanted(count);
    for (std::size_t i = 0; i < count; ++i) {
      std::size_t rest = i, place = 0;  // of element i, the last index fastest, where the first is fastest
      for (std::size_t d = dims.size(), step = count; d-- > 0; rest /= dims[d])
        place += rest % dims[d] * (step /= dims[d]);
      wanted[i] = static_cast<float>(place);
    }
    const auto array = read(npy(literal("<f4", shape + ")", "True"), data));
    ASSERT_OK(array);
    EXPECT_EQ(array->tensor().to_vector().value(), wanted) << shape;
  }
}

TEST_F(Npy, ReadsEveryType) {
  using I32 = std::vector<std::int32_t>;
  const auto ints = [&](const char* type, const std::string& data) {
    return read(npy(literal(type, "(2,)"), data))->tensor().to_vector<std::int32_t>().value();
  };
  EXPECT_EQ(read(npy(literal("<f4", "(2,)"), bytes_of(1.5f, -2.0f)))->tensor().to_vector().value(),
            (std::vector<float>{1.5f, -2.0f}));
  EXPECT_EQ(read(npy(literal("<f8", "(2,)"), bytes_of(0.1, 1e300)))->tensor().to_vector().value(),
            (std::vector<float>{0.1f, INFINITY}));
  EXPECT_EQ(ints("<i4", bytes_of(7, -7)), (I32{7, -7}));
  EXPECT_EQ(ints("=i4", bytes_of(7, -7)), (I32{7, -7}));
  EXPECT_EQ(ints("<i2", bytes_of(std::int16_t{-3}, std::int16_t{4})), (I32{-3, 4}));
  EXPECT_EQ(ints("<u2", bytes_of(std::uint16_t{65535}, std::uint16_t{4})), (I32{65535, 4}));
  EXPECT_EQ(ints("<u4", bytes_of(1u, 2u)), (I32{1, 2}));
  EXPECT_EQ(ints("<i8", bytes_of(std::int64_t{INT32_MIN}, std::int64_t{INT32_MAX})), (I32{INT32_MIN, INT32_MAX}));
  EXPECT_EQ(ints("<u8", bytes_of(std::uint64_t{1}, std::uint64_t{2})), (I32{1, 2}));
  EXPECT_EQ(read(npy(literal("|b1", "(2,)"), "\x01\x02"))->tensor().to_vector<std::uint8_t>().value(),
            (std::vector<std::uint8_t>{1, 1}));
  EXPECT_EQ(read(npy(literal("|u1", "(2,)"), "\x01\xff"))->tensor().to_vector<std::uint8_t>().value(),
            (std::vector<std::uint8_t>{1, 255}));
  EXPECT_EQ(read(npy(literal("<i1", "(2,)"), "\x01\xff"))->tensor().to_vector<std::int8_t>().value(),
            (std::vector<std::int8_t>{1, -1}));
  EXPECT_EQ(read(npy(literal("<f2", "(2,)"), "1234"))->tensor().dtype(), DType::f16);
  EXPECT_FAILS(read(npy(literal("<i8", "(1,)"), bytes_of(std::int64_t{1} << 31))), Errc::overflow);
  EXPECT_FAILS(read(npy(literal("<u4", "(1,)"), bytes_of(0x80000000u))), Errc::overflow);
}

TEST_F(Npy, ReadsBothOrdersAndAllShapes) {
  const std::string six = bytes_of(1.f, 2.f, 3.f, 4.f, 5.f, 6.f);
  const auto c = read(npy(literal("<f4", "(2, 3)"), six)), f = read(npy(literal("<f4", "(2, 3)", "True"), six));
  ASSERT_TRUE(c && f);
  EXPECT_EQ(c->tensor().to_vector().value(), (std::vector<float>{1, 2, 3, 4, 5, 6}));
  EXPECT_EQ(f->tensor().to_vector().value(), (std::vector<float>{1, 3, 5, 2, 4, 6}));
  EXPECT_EQ(f->tensor().shape(), Shape({2, 3}));
  EXPECT_TRUE(f->tensor().contiguous());
  const auto wide = read(npy(literal("<f8", "(1, 2, 2)", "True"), bytes_of(1., 2., 3., 4.)));
  ASSERT_OK(wide);
  EXPECT_EQ(wide->tensor().to_vector().value(), (std::vector<float>{1, 3, 2, 4}));
  EXPECT_EQ(read(npy(literal("<f4", "()"), bytes_of(2.5f)))->tensor().item().value(), 2.5f);
  EXPECT_EQ(read(npy(literal("<f4", "(0, 3)", "True"), ""))->tensor().shape(), Shape({0, 3}));
  EXPECT_EQ(read(npy(literal("<f4", "(1,1,1,1,1,1)", "True"), bytes_of(2.5f)))->tensor().rank(), 6);
  for (const char major : {2, 3}) EXPECT_OK(read(npy(literal("<f4", "(1)"), bytes_of(2.5f), major)));
  EXPECT_OK(read(npy(R"({"shape":(1,),"descr":"<f4","fortran_order":False})", bytes_of(2.5f))));
}

TEST_F(Npy, NamesEachMistake) {
  EXPECT_FAILS(io::read_npy(folder / "nowhere"), Errc::not_found);
  const auto says = [&](const std::string& bytes, Errc code, const char* text) {
    const auto made = read(bytes);
    EXPECT_FAILS(made, code);
    EXPECT_FAILS_SAYING(made, text);
    EXPECT_FAILS_SAYING(made, "array.npy");
  };
  const std::string four = bytes_of(1.0f);
  says("", Errc::corrupt, "not an npy file");
  says("PK\3\4 and more of it", Errc::corrupt, "not an npy file");
  says(npy(literal("<f4", "(1,)"), four, 4), Errc::unsupported, "versions 1 to 3");
  says(npy(literal("<f4", "(1,)"), four).substr(0, 40), Errc::corrupt, "within its header");
  says(npy(literal("<f4", "(1,)"), four, 2).substr(0, 11), Errc::corrupt, "within its header");
  says(npy(std::string(65537, ' '), "", 2), Errc::unsupported, "more than 64 KiB");
  says(npy(literal("<f4", "(1,)"), "123"), Errc::corrupt, "fewer bytes");
  says(npy(literal("<f4", "(1,)"), "12345"), Errc::corrupt, "more bytes");
  says(npy(literal(">f4", "(1,)"), four), Errc::unsupported, "big-endian");
  says(npy(literal("<c8", "(1,)"), four), Errc::unsupported, "element type");
  says(npy(literal("<4", "(1,)"), four), Errc::unsupported, "element type");
  says(npy(literal("|O", "(1,)"), four), Errc::unsupported, "element type");
  says(npy(literal("f", "(1,)"), four), Errc::corrupt, "element type");
  says(npy("{'descr': [('x', '<f4')], 'fortran_order': False, 'shape': (1,), }", four), Errc::unsupported, "records");
  says(npy(literal("<f4", "(1,1,1,1,1,1,1)"), four), Errc::unsupported, "more than 6");
  says(npy(literal("<f4", "(99999999999999999999,)"), four), Errc::overflow, "does not fit");
  says(npy(literal("<f4", "(9223372036854775808,)"), four), Errc::overflow, "does not fit");
  says(npy(literal("<f4", "(4294967296, 4294967296)"), four), Errc::overflow, "more elements");
  for (const char* const shape : {"", "1", "(1", "(1 1)", "(,)", "(-1,)", "(1.0,)", "('1',)", "(1,,)", "[1]"}) {
    EXPECT_FAILS(read(npy(literal("<f4", shape), four)), Errc::corrupt) << shape;
  }
  for (const char* const header :
       {"", "[]", "{", "{}", "{'descr': '<f4'}", "{'descr' '<f4'}", "{'descr: '<f4'}", "{'what': 1}",
        "{'descr': '<f4', 'descr': '<f4', 'fortran_order': False, 'shape': (1,)}",
        "{'descr': '<f4' 'fortran_order': False, 'shape': (1,)}", "{'descr': '<f4', 'fortran_order': 0, 'shape': (1,)}",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (1,)} x"}) {
    EXPECT_FAILS(read(npy(header, four)), Errc::corrupt) << header;
  }
}

TEST_F(Npy, WritesWhatItReads) {
  const auto floats = Owned::from<float>({1, 2, 3, 4, 5, 6}, {2, 3}).value();
  ASSERT_OK(io::write_npy(path, floats));
  const std::string bytes = read_file(path);
  EXPECT_EQ(bytes.size(), 128u + 24u);
  EXPECT_EQ(bytes.substr(10, 59), "{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }");
  EXPECT_EQ(io::read_npy(path)->tensor().to_vector().value(), floats.tensor().to_vector().value());
  const int axes[] = {1, 0};
  ASSERT_OK(io::write_npy(path, floats.tensor().seen_as(floats.tensor().layout().permuted(axes).value())));
  EXPECT_EQ(io::read_npy(path)->tensor().to_vector().value(), (std::vector<float>{1, 4, 2, 5, 3, 6}));
  for (const DType type : {DType::f16, DType::i32, DType::i8, DType::u8}) {
    for (const Shape& shape : {Shape{}, Shape{3}, Shape{0, 2}, Shape{1, 2, 1, 2, 1, 2}}) {
      ASSERT_OK(io::write_npy(path, Owned::zeros(shape, type).value()));
      const auto back = io::read_npy(path);
      ASSERT_OK(back);
      EXPECT_EQ(back->tensor().shape(), shape);
      EXPECT_EQ(back->tensor().dtype(), type);
    }
  }
  EXPECT_FAILS(io::write_npy(path, Owned::zeros({1}, DType::bf16).value()), Errc::invalid_dtype);
  EXPECT_FAILS(io::write_npy(path, Tensor()), Errc::invalid_size);
  EXPECT_FAILS(io::write_npy(folder / "no/file", floats), Errc::not_found);
}

TEST_F(Npy, SurvivesEveryDamage) {
  const auto attempt = [&](const std::string& bytes) {
    if (const auto made = read(bytes)) EXPECT_TRUE(made->tensor().contiguous());
  };
  sweep(npy(literal("<f4", "(1, 2)"), "12345678"), attempt);
  sweep(npy(literal("<i8", "(2, 1)", "True"), bytes_of(std::int64_t{1}, std::int64_t{2}), 2), attempt);
}

TEST(NpyOfOthers, AreRead) {
  QORUS_NEEDS_DATA("quant-blocks/source.npy");
  const auto made = io::read_npy(qorus_test::data_path("quant-blocks/source.npy"));
  ASSERT_OK(made);
  EXPECT_EQ(made->tensor().shape(), Shape({64, 512}));
}

namespace {

// A zip file as numpy.savez and savez_compressed write it.
std::string deflated(const std::string& bytes) {
  std::string out(bytes.size() + 64, '\0');
  z_stream stream{};
  deflateInit2(&stream, 9, Z_DEFLATED, -15, 8, Z_DEFAULT_STRATEGY);
  stream.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(bytes.data()));
  stream.avail_in = static_cast<uInt>(bytes.size());
  stream.next_out = reinterpret_cast<Bytef*>(out.data());
  stream.avail_out = static_cast<uInt>(out.size());
  EXPECT_EQ(deflate(&stream, Z_FINISH), Z_STREAM_END);
  out.resize(out.size() - stream.avail_out);
  deflateEnd(&stream);
  return out;
}
struct Entry {
  std::string name, content;
  bool deflates = false, wide = false;  // wide: sizes and place in a zip64 field
};
std::string zip(const std::vector<Entry>& entries, bool wide_end = false, std::uint16_t flags = 0) {
  using U16 = std::uint16_t;
  using U32 = std::uint32_t;
  using U64 = std::uint64_t;
  std::string file, directory;
  for (const Entry& e : entries) {
    const std::string packed = e.deflates ? deflated(e.content) : e.content;
    const U32 crc = static_cast<U32>(
        crc32(0, reinterpret_cast<const Bytef*>(e.content.data()), static_cast<uInt>(e.content.size())));
    const auto sizes = [&] {
      return e.wide ? bytes_of(U32{UINT32_MAX}, U32{UINT32_MAX})
                    : bytes_of(static_cast<U32>(packed.size()), static_cast<U32>(e.content.size()));
    };
    const U16 name = static_cast<U16>(e.name.size()), method = e.deflates ? 8 : 0;
    const std::string extra = e.wide ? bytes_of(U16{7}, U16{1}, 'x') + bytes_of(U16{1}, U16{24}, U64{e.content.size()},
                                                                                U64{packed.size()}, U64{file.size()})
                                     : "";
    directory += bytes_of(U32{0x02014b50}, U16{45}, U16{45}, flags, method, U32{0}, crc) + sizes() +
                 bytes_of(name, static_cast<U16>(extra.size()), U16{0}, U16{0}, U16{0}, U32{0},
                          e.wide ? U32{UINT32_MAX} : static_cast<U32>(file.size())) +
                 e.name + extra;
    file += bytes_of(U32{0x04034b50}, U16{45}, flags, method, U32{0}, crc) + sizes() + bytes_of(name, U16{3}) + e.name +
            "ext" + packed;
  }
  const U64 begin = file.size(), count = entries.size();
  file += directory;
  if (wide_end) {
    const U64 at = file.size();
    file += bytes_of(U32{0x06064b50}, U64{44}, U16{45}, U16{45}, U32{0}, U32{0}, count, count, U64{directory.size()},
                     begin);
    file += bytes_of(U32{0x07064b50}, U32{0}, at, U32{1});
    return file + bytes_of(U32{0x06054b50}, U16{0}, U16{0}, U16{UINT16_MAX}, U16{UINT16_MAX}, U32{UINT32_MAX},
                           U32{UINT32_MAX}, U16{0});
  }
  return file +
         bytes_of(U32{0x06054b50}, U16{0}, U16{0}, static_cast<U16>(count), static_cast<U16>(count),
                  static_cast<U32>(directory.size()), static_cast<U32>(begin), U16{4}) +
         "note";
}
std::string floats(int n) {
  std::string data;
  for (int i = 0; i < n; ++i) data += bytes_of(0.5f * static_cast<float>(i % 7));
  return npy(literal("<f4", "(" + std::to_string(n) + ",)"), data);
}

}  // namespace

TEST_F(Npy, ArchivesOfArrays) {
  const std::vector<Entry> entries{
      {"x.npy", floats(9)},
      {"y.npy", npy(literal("<i8", "(2, 1)"), bytes_of(std::int64_t{3}, std::int64_t{-4})), true},
      {"deep/z.npy", floats(100), true, true},
      {"w.npy", floats(3), false, true}};
  for (const bool wide_end : {false, true}) {
    write_file(path, zip(entries, wide_end));
    const auto npz = io::Npz::open(path);
    ASSERT_OK(npz);
    ASSERT_EQ(npz->size(), 4u);
    EXPECT_EQ(npz->name(2), "deep/z");
    EXPECT_EQ(npz->read("x")->tensor().shape(), (Shape{9}));
    EXPECT_EQ(npz->read("y")->tensor().to_vector<std::int32_t>().value(), (std::vector<std::int32_t>{3, -4}));
    EXPECT_EQ(npz->read("deep/z")->tensor().to_vector().value()[99], 0.5f * (99 % 7));
    EXPECT_EQ(npz->read("w")->tensor().to_vector().value(), (std::vector<float>{0, 0.5f, 1}));
    EXPECT_FAILS_SAYING(npz->read("v"), "v");
  }
  write_file(path, zip({{"x.npy", floats(9)}}, false, 1));
  EXPECT_FAILS(io::Npz::open(path)->read("x"), Errc::unsupported);  // encrypted
  std::string bomb = zip({{"x.npy", floats(500), true}});
  const auto central = bomb.find("PK\x01\x02");
  bomb.replace(central + 24, 4, bytes_of(std::uint32_t{0xfffffff0}));  // says that it unpacks to 4 GiB
  write_file(path, bomb);
  EXPECT_FAILS_SAYING(io::Npz::open(path)->read("x"), "another size than it says");
  EXPECT_FAILS(io::Npz::open(folder / "none.npz"), Errc::not_found);
}

TEST_F(Npy, AnyBytesOfAnArchive) {
  const std::string good = zip({{"x.npy", floats(9)}, {"y.npy", floats(40), true, true}}, true);
  const auto look = [&](const std::string& bytes) {
    write_file(path, bytes);
    const auto npz = io::Npz::open(path);
    if (!npz) return;
    for (std::size_t i = 0; i < npz->size() && i < 9; ++i) static_cast<void>(npz->read(npz->name(i)));
  };
  for (std::size_t at = 0; at < good.size(); ++at) {
    for (const int change : {1, 255, 128}) {
      std::string damaged = good;
      damaged[at] = static_cast<char>(damaged[at] + change);
      look(damaged);
    }
    look(good.substr(0, at));
  }
}

TEST_F(Npy, MappedArraysAreUsedWhereTheyLie) {
  write_file(path, npy(literal("<f4", "(3, 2)") + std::string(3, ' '), bytes_of(1.0f, 2.0f, 3.0f, 4.0f, 5.0f, 6.0f)));
  ASSERT_OK(io::write_npy(path, io::read_npy(path)->tensor()));  // as NumPy aligns it
  Tensor kept;
  {
    const auto mapped = io::MappedNpy::open(path);
    ASSERT_OK(mapped);
    EXPECT_EQ(mapped->tensor().to_vector().value(), (std::vector<float>{1, 2, 3, 4, 5, 6}));
    EXPECT_EQ(mapped->tensor().shape(), (Shape{3, 2}));
    kept = mapped->tensor();
  }
  EXPECT_FAILS(kept.check("use"), Errc::stale_tensor);
  write_file(path, npy(literal("<f8", "(1,)"), bytes_of(1.0)));
  EXPECT_FAILS(io::MappedNpy::open(path), Errc::unsupported);
  write_file(path, npy(literal("<f4", "(1, 1)", "True"), bytes_of(1.0f)));
  EXPECT_FAILS(io::MappedNpy::open(path), Errc::unsupported);
}

// numpy.savez_compressed(path, x=[[1, 2, 3], [4, 5, 6]]) as Python's zipfile writes it.
TEST_F(Npy, ArchivesOfOthers) {
  const std::string_view hex =
      "504b03042d0000000800000021007c9cdea2ffffffffffffffff05001400782e6e70790100100098000000000000005800000000000000"
      "9bec17ea1b10c9c850c650ad9e925a9c5ca46ea5a06e9366a2aea3a09e965f54529498179f5f94920a12774bcc294e058a17672416a402"
      "f91a463a0ac69a3a0ab50a64032e0686067b060606072002e206205e00c4071c00504b01022d032d0000000800000021007c9cdea25800"
      "000098000000050000000000000000000000800100000000782e6e7079504b05060000000001000100330000008f0000000000";
  std::string bytes;
  for (std::size_t i = 0; i < hex.size(); i += 2)
    bytes += static_cast<char>(std::stoi(std::string(hex.substr(i, 2)), nullptr, 16));
  write_file(path, bytes);
  const auto npz = io::Npz::open(path);
  ASSERT_OK(npz);
  EXPECT_EQ(npz->name(0), "x");
  EXPECT_EQ(npz->read("x")->tensor().to_vector().value(), (std::vector<float>{1, 2, 3, 4, 5, 6}));
}
