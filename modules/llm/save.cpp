// Bodies of qorus.llm:session: a sequence in a file. The format: 8 bytes "QORUSKV1"; the model's fingerprint, the kind of cache, bytes
// of a position, the number of positions and a sum over all that follows, each 8 bytes, little-endian; the tokens as i32; the stretches of KvCache.
module qorus.llm;
import qorus.std;

namespace qorus::llm {
namespace {

constexpr std::string_view k_magic = "QORUSKV1";
struct Header {
  std::uint64_t fingerprint, dtype, bytes_per_position, positions, sum;
};
constexpr std::size_t k_header = 8 + sizeof(Header);

// Not against an attacker: what comes out of a damaged file is wrong numbers, no more. Eight bytes at a time, as the cache may be large.
class Sum {
 public:
  void add(std::span<const std::byte> bytes) noexcept {
    while (bytes.size() >= 8) {
      std::uint64_t word = 0;
      std::memcpy(&word, bytes.data(), 8);
      mix(word);
      bytes = bytes.subspan(8);
    }
    for (const std::byte b : bytes) mix(static_cast<std::uint64_t>(b) + 256);
  }
  [[nodiscard]] std::uint64_t value() const noexcept { return hash_; }

 private:
  void mix(std::uint64_t word) noexcept {
    hash_ = (hash_ ^ word) * 0x9e3779b97f4a7c15;
    hash_ ^= hash_ >> 29;
  }
  std::uint64_t hash_ = 0x51ed270b1f2a9d83;
};

}  // namespace

Status Session::save(std::string_view path, int sequence) noexcept {
  if (!has(sequence)) return fail(Errc::invalid_argument, "save", "no such sequence");
  const auto ids = std::as_bytes(tokens(sequence));
  const std::int64_t positions = position(sequence);
  Sum sum;
  sum.add(ids);
  auto done = cache_.each_stretch(sequence, positions, [&](const std::byte* data, std::size_t size) -> Status {
    sum.add({data, size});
    return {};
  });
  const Header header{model_->fingerprint(), static_cast<std::uint64_t>(cache_.dtype()), cache_.bytes_per_position(),
                      static_cast<std::uint64_t>(positions), sum.value()};
  auto file = AtomicFile::create(path);
  if (!file) return fail(file.error());
  if (done) done = file->write(k_magic);
  if (done) done = file->write(std::as_bytes(std::span(&header, 1)));
  if (done) done = file->write(ids);
  if (done) {
    done = cache_.each_stretch(sequence, positions, [&](const std::byte* data, std::size_t size) {
      return file->write(std::span(data, size));
    });
  }
  return done ? file->commit() : done;
}

Status Session::restore(std::string_view path, int sequence) noexcept {
  if (!has(sequence)) return fail(Errc::invalid_argument, "restore", "no such sequence");
  auto file = MappedFile::open(path);
  if (!file) return fail(file.error());
  auto bytes = file->bytes();
  const auto bad = [&](const char* why) { return fail(Errc::corrupt, "restore", why, path); };
  if (bytes.size() < k_header || std::memcmp(bytes.data(), k_magic.data(), 8) != 0) return bad("not a saved cache");
  Header header{};
  std::memcpy(&header, bytes.data() + 8, sizeof header);
  if (header.fingerprint != model_->fingerprint() || header.bytes_per_position != cache_.bytes_per_position() ||
      header.dtype != static_cast<std::uint64_t>(cache_.dtype()))
    return fail(Errc::invalid_argument, "restore", "saved from another model, or another kind of cache", path);
  if (header.positions > static_cast<std::uint64_t>(cache_.capacity()))
    return fail(Errc::invalid_argument, "restore", "more positions than the context has", path);
  const auto count = static_cast<std::size_t>(header.positions);
  bytes = bytes.subspan(k_header);
  if (bytes.size() != count * (sizeof(std::int32_t) + cache_.bytes_per_position()))
    return bad("of another length than it says");
  // The sum was made of the same stretches, not of the file as one.
  const std::size_t ids_bytes = count * sizeof(std::int32_t);
  Sum sum;
  sum.add(bytes.first(ids_bytes));
  auto left = bytes.subspan(ids_bytes);
  auto done = cache_.each_stretch(sequence, static_cast<std::int64_t>(count),
                                  [&](const std::byte*, std::size_t size) -> Status {
                                    sum.add(left.first(size));
                                    left = left.subspan(size);
                                    return {};
                                  });
  if (!done) return done;
  if (sum.value() != header.sum) return bad("damaged: its sum is another one");
  for (std::size_t i = 0; i < count; ++i) {
    std::int32_t id = 0;
    std::memcpy(&id, bytes.data() + i * sizeof id, sizeof id);
    if (id < 0 || id >= model_->config().vocab) return bad("a token outside the vocabulary");
  }
  std::memcpy(history_[static_cast<std::size_t>(sequence)].data(), bytes.data(), ids_bytes);
  left = bytes.subspan(ids_bytes);
  cache_.truncate(sequence, 0);
  done =
      cache_.each_stretch(sequence, static_cast<std::int64_t>(count), [&](std::byte* to, std::size_t size) -> Status {
        std::memcpy(to, left.data(), size);
        left = left.subspan(size);
        return {};
      });
  if (auto there = file->whole("restore", path); !there) return there;
  cache_.advance(sequence, static_cast<std::int64_t>(count));
  return done;
}

}  // namespace qorus::llm
