// Bodies of qorus.io:sealed.
module;
#include <zlib.h>

module qorus.io;
import qorus.std;

namespace qorus::io {
namespace {

constexpr const char* k_op = "sealed";
constexpr std::string_view k_trailer = "sealed.trailer", k_prefix = "crc32.", k_magic = "QSEALED1";
constexpr std::size_t k_trailer_bytes = 16;

struct Trailer {
  std::array<std::uint8_t, k_trailer_bytes> bytes{};
};

std::uint32_t crc_of(std::uint32_t crc, std::string_view text) noexcept {
  crc = static_cast<std::uint32_t>(::crc32_z(crc, reinterpret_cast<const Bytef*>(text.data()), text.size()));
  const Bytef zero = 0;
  return static_cast<std::uint32_t>(::crc32_z(crc, &zero, 1));
}

Trailer trailer_of(std::span<const TextPair> sorted, std::size_t tensors) noexcept {
  std::uint32_t crc = 0;
  for (const TextPair& pair : sorted) crc = crc_of(crc_of(crc, pair.key), pair.value);
  const auto count = static_cast<std::uint32_t>(tensors);
  Trailer trailer;
  std::memcpy(trailer.bytes.data(), k_magic.data(), k_magic.size());
  std::memcpy(trailer.bytes.data() + 8, &crc, 4);
  std::memcpy(trailer.bytes.data() + 12, &count, 4);
  return trailer;
}

// Eight hexadecimal digits.
std::array<char, 8> hexadecimal(std::uint32_t value) noexcept {
  std::array<char, 8> digits{};
  for (std::size_t i = 8; i-- > 0; value >>= 4) digits[i] = "0123456789abcdef"[value & 15];
  return digits;
}

tl::unexpected<Error> damaged(const char* text, std::string_view subject) noexcept {
  return fail(Errc::corrupt, k_op, text, subject);
}

// The bytes of a dense tensor.
std::span<const std::byte> bytes_of(const Tensor& tensor) noexcept {
  return {tensor.data(), tensor.numel() * size_of(tensor.dtype())};
}

// The name in a key of ours.
std::string_view name_in(std::string_view key) noexcept {
  key.remove_prefix(k_prefix.size());
  return key;
}

// The checksum that the metadata, sorted by key, has for a tensor; empty if it has none.
std::string_view checksum_in(const List<TextPair>& metadata, std::string_view name) noexcept {
  const auto* first = std::lower_bound(metadata.begin(), metadata.end(), k_prefix,
                                       [](const TextPair& pair, std::string_view prefix) { return pair.key < prefix; });
  const auto* found = std::lower_bound(first, metadata.end(), name, [](const TextPair& pair, std::string_view wanted) {
    return pair.key.starts_with(k_prefix) && name_in(pair.key) < wanted;
  });
  if (found == metadata.end() || !found->key.starts_with(k_prefix) || name_in(found->key) != name) return {};
  return found->value;
}

// What goes into the file besides the tensors: texts that stay where they are while the file is written.
struct Seal {
  List<char> keys;
  List<std::array<char, 8>> sums;
  List<TextPair> texts;  // the caller's and ours
};

Status compute(std::span<const NamedTensor> tensors, std::span<const TextPair> metadata, Seal& seal) noexcept {
  std::size_t letters = 0;
  for (const NamedTensor& named : tensors) letters += k_prefix.size() + named.name.size();
  if (auto room = seal.keys.reserve(letters); !room) return room;
  if (auto room = seal.sums.reserve(tensors.size()); !room) return room;
  for (const TextPair& pair : metadata) {
    if (pair.key.starts_with(k_prefix))
      return fail(Errc::invalid_argument, k_op, "this key is the format's own", pair.key);
    if (auto pushed = seal.texts.push(pair); !pushed) return pushed;
  }
  for (const NamedTensor& named : tensors) {
    if (named.name == k_trailer) return fail(Errc::invalid_argument, k_op, "this name is the format's own", named.name);
    if (auto good = named.tensor.check(k_op); !good) return fail(good.error().about(named.name));
    if (!named.tensor.contiguous())
      return fail(Errc::invalid_argument, k_op, "not contiguous: ops::contiguous first", named.name);
    const std::size_t begin = seal.keys.size();
    if (auto done = seal.keys.append(std::span(k_prefix.data(), k_prefix.size())); !done) return done;
    if (auto done = seal.keys.append(std::span(named.name.data(), named.name.size())); !done) return done;
    if (auto done = seal.sums.push(hexadecimal(crc32(bytes_of(named.tensor)))); !done) return done;
    const auto& sum = seal.sums.back();
    const TextPair pair{{seal.keys.data() + begin, seal.keys.size() - begin}, {sum.data(), sum.size()}};
    if (auto pushed = seal.texts.push(pair); !pushed) return pushed;
  }
  std::sort(seal.texts.begin(), seal.texts.end(), [](const TextPair& a, const TextPair& b) { return a.key < b.key; });
  return {};
}

}  // namespace

std::uint32_t crc32(std::span<const std::byte> bytes) noexcept {
  return static_cast<std::uint32_t>(::crc32_z(0, reinterpret_cast<const Bytef*>(bytes.data()), bytes.size()));
}

Status write_sealed(std::string_view path, std::span<const NamedTensor> tensors,
                    std::span<const TextPair> metadata) noexcept {
  Seal seal;
  if (auto done = compute(tensors, metadata, seal); !done) return done;
  const Trailer trailer = trailer_of(seal.texts.span(), tensors.size());
  List<NamedTensor> all;
  if (auto room = all.reserve(tensors.size() + 1); !room) return room;
  for (const NamedTensor& named : tensors) {
    if (auto pushed = all.push(named); !pushed) return pushed;
  }
  const Tensor last = Tensor::borrow(std::span<const std::uint8_t>(trailer.bytes), Shape{k_trailer_bytes});
  if (auto pushed = all.push({k_trailer, last}); !pushed) return pushed;
  return write_safetensors(path, all.span(), seal.texts.span());
}

Result<SafeTensors> read_sealed(std::string_view path) noexcept {
  auto file = read_safetensors(path);
  if (!file) return file;
  const List<TensorEntry>& entries = file->entries();
  if (entries.empty() || entries.back().name != k_trailer || entries.back().bytes != k_trailer_bytes)
    return damaged("no trailer: not such a file, or one that was never finished", path);
  auto stored = file->tensor(k_trailer);
  if (!stored) return fail(stored.error());
  const Trailer wanted = trailer_of(file->metadata().span(), entries.size() - 1);
  if (std::memcmp(stored->data(), wanted.bytes.data(), k_trailer_bytes) != 0)
    return damaged("the trailer does not fit the texts", path);
  for (const TensorEntry& entry : entries) {
    if (entry.name == k_trailer) continue;
    auto tensor = file->tensor(entry.name);
    if (!tensor) return fail(tensor.error());
    const auto sum = hexadecimal(crc32(bytes_of(*tensor)));
    if (auto there = file->whole(); !there) return fail(there.error().about(path));
    if (checksum_in(file->metadata(), entry.name) != std::string_view(sum.data(), sum.size()))
      return damaged("a tensor does not fit its checksum", entry.name);
  }
  return file;
}

}  // namespace qorus::io
