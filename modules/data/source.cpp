// Bodies of qorus.data:source, over zlib's inflate.
module;
#include <zlib.h>

module qorus.data;
import qorus.std;
import qorus.trust;
import :source;

namespace qorus::data {
namespace {

constexpr int k_gzip_only = 15 + 16;                      // zlib's windowBits: the largest window, a gzip header
constexpr std::size_t k_max_step = std::size_t{1} << 30;  // zlib counts in 32 bits
constexpr std::uint64_t k_max_ratio = 1040;               // deflate packs at most 1032 to 1
constexpr const char* k_short = "fewer bytes than its header announces";

bool is_gzip(std::span<const std::byte> bytes) noexcept {
  return bytes.size() >= 2 && bytes[0] == std::byte{0x1f} && bytes[1] == std::byte{0x8b};
}

z_stream* stream_of(void* opaque) noexcept { return static_cast<z_stream*>(opaque); }

}  // namespace

Source::Source(Source&& other) noexcept { *this = std::move(other); }
Source& Source::operator=(Source&& other) noexcept {
  std::swap(file_, other.file_);
  std::swap(path_, other.path_);
  std::swap(used_, other.used_);
  std::swap(given_, other.given_);
  std::swap(stream_, other.stream_);
  std::swap(member_done_, other.member_done_);
  return *this;
}
Source::~Source() { close(); }

void Source::close() noexcept {
  if (!stream_) return;
  inflateEnd(stream_of(stream_));
  delete stream_of(std::exchange(stream_, nullptr));
}

tl::unexpected<Error> Source::corrupt(const char* text) const noexcept {
  if (auto there = file_.whole("idx", path()); !there) return fail(there.error());
  return fail(Errc::corrupt, "idx", text, path());
}

Result<Source> Source::open(std::string_view path) noexcept {
  auto file = MappedFile::open(path);
  if (!file) return fail(file.error());
  Source source;
  source.file_ = std::move(*file);
  source.path_ += path;
  if (is_gzip(source.file_.bytes())) {
    if (auto ok = source.restart(); !ok) return fail(ok.error());
  }
  return source;
}

Status Source::restart() noexcept {
  close();
  used_ = 0;
  given_ = 0;
  member_done_ = false;
  auto* stream = new (std::nothrow) z_stream{};
  if (!stream || inflateInit2(stream, k_gzip_only) != Z_OK) {
    delete stream;
    return fail(Errc::out_of_memory, "idx", "no memory to unpack gzip", path());
  }
  stream_ = stream;
  return {};
}

Result<std::size_t> Source::inflate_some(std::span<std::byte> out) noexcept {
  z_stream* stream = stream_of(stream_);
  const auto bytes = file_.bytes();
  while (true) {
    if (member_done_) {  // another member, or the end
      if (used_ == bytes.size()) return 0;
      if (!is_gzip(bytes.subspan(used_))) return corrupt("bytes are left over after the end of its gzip data");
      if (inflateReset(stream) != Z_OK) return corrupt("broken gzip data");
      member_done_ = false;
    }
    const auto in = static_cast<uInt>(std::min(bytes.size() - used_, k_max_step));
    const auto room = static_cast<uInt>(std::min(out.size(), k_max_step));
    stream->next_in = reinterpret_cast<Bytef*>(const_cast<std::byte*>(bytes.data() + used_));
    stream->avail_in = in;
    stream->next_out = reinterpret_cast<Bytef*>(out.data());
    stream->avail_out = room;
    const int state = inflate(stream, Z_NO_FLUSH);
    used_ += in - stream->avail_in;
    const std::size_t made = room - stream->avail_out;
    if (state == Z_STREAM_END) {
      member_done_ = true;
    } else if (state == Z_MEM_ERROR) {
      return fail(Errc::out_of_memory, "idx", "no memory to unpack gzip", path());
    } else if (state != Z_OK && state != Z_BUF_ERROR) {
      return corrupt("broken gzip data");
    } else if (made == 0 && used_ == bytes.size()) {
      return corrupt("its gzip data is cut off");
    }
    if (made) return made;
  }
}

Status Source::read(std::span<std::byte> out) noexcept {
  if (!stream_) {
    const auto rest = file_.bytes().subspan(used_);
    if (rest.size() < out.size()) return corrupt(k_short);
    if (!out.empty()) std::memcpy(out.data(), rest.data(), out.size());
    used_ += out.size();
    return {};
  }
  while (!out.empty()) {
    const auto made = inflate_some(out);
    if (!made) return fail(made.error());
    if (*made == 0) return corrupt(k_short);
    out = out.subspan(*made);
    given_ += *made;
  }
  return {};
}

Status Source::finish() noexcept {
  if (auto there = file_.whole("idx", path()); !there) return there;
  if (!stream_) return used_ == file_.bytes().size() ? Status{} : corrupt("bytes are left over after its data");
  std::byte more{};
  const auto made = inflate_some({&more, 1});
  if (!made) return fail(made.error());
  if (auto there = file_.whole("idx", path()); !there) return there;
  return *made == 0 ? Status{} : corrupt("bytes are left over after its data");
}

Status Source::expect(std::uint64_t bytes) noexcept {
  if (!stream_) return file_.bytes().size() - used_ >= bytes ? Status{} : corrupt(k_short);
  if (bytes / k_max_ratio > file_.bytes().size()) return corrupt(k_short);
  if (bytes <= limits::gzip_unexamined) return {};
  const std::uint64_t place = given_;
  std::byte window[16384];
  std::uint64_t there = 0;
  while (there < bytes) {
    const auto made = inflate_some(window);
    if (!made) return fail(made.error());
    if (*made == 0) return corrupt(k_short);
    there += *made;
  }
  if (auto ok = restart(); !ok) return ok;
  while (given_ < place) {  // back to where it was: a header's length
    if (auto ok = read({window, static_cast<std::size_t>(std::min<std::uint64_t>(place - given_, sizeof window))}); !ok)
      return ok;
  }
  return {};
}

}  // namespace qorus::data
