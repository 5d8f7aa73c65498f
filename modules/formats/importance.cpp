// Bodies of qorus.formats:importance.
module qorus.formats;
import qorus.std;
import qorus.trust;

namespace qorus::formats {
namespace {

constexpr const char* k_op = "importance";
constexpr std::string_view k_sums = ".in_sum2", k_counts = ".counts";

tl::unexpected<Error> corrupt(const char* text, std::string_view subject) noexcept {
  return fail(Errc::corrupt, k_op, text, subject);
}

// Little-endian words from bytes that may end too soon.
class Words {
 public:
  explicit Words(std::span<const std::byte> bytes) noexcept : rest_(bytes) {}
  [[nodiscard]] bool take(std::int32_t& value) noexcept {
    if (rest_.size() < sizeof value) return false;
    std::memcpy(&value, rest_.data(), sizeof value);
    rest_ = rest_.subspan(sizeof value);
    return true;
  }
  [[nodiscard]] bool take(std::size_t bytes, std::span<const std::byte>& part) noexcept {
    if (rest_.size() < bytes) return false;
    part = rest_.first(bytes);
    rest_ = rest_.subspan(bytes);
    return true;
  }

 private:
  std::span<const std::byte> rest_;
};

}  // namespace

Result<Importance> Importance::open(std::string_view path) noexcept {
  auto file = MappedFile::open(path);
  if (!file) return fail(file.error());
  const auto bytes = file->bytes();
  Importance made;
  const bool gguf = bytes.size() >= 4 && std::memcmp(bytes.data(), "GGUF", 4) == 0;
  if (auto done = gguf ? made.read_gguf(path) : made.read_dat(path, bytes); !done) return fail(done.error());
  if (auto done = made.finish(path); !done) return fail(done.error());
  if (auto there = file->whole(k_op, path); !there) return fail(there.error());
  return made;
}

// Makes room for a tensor's numbers, all 1.
Status Importance::add(std::string_view name, std::size_t count) noexcept {
  if (auto pushed = lines_.push({names_.size(), name.size(), values_.size(), count}); !pushed) return pushed;
  if (auto kept = names_.append(std::span(name.data(), name.size())); !kept) return kept;
  const std::size_t first = values_.size();
  if (auto room = values_.resize(first + count); !room) return room;
  std::fill(values_.begin() + first, values_.end(), 1.0f);
  return {};
}

Status Importance::read_gguf(std::string_view path) noexcept {
  auto file = io::read_gguf(path);
  if (!file) return fail(file.error());
  for (const io::TensorEntry& entry : file->entries()) {
    if (!entry.name.ends_with(k_sums)) continue;
    const std::string_view name(entry.name.data(), entry.name.size() - k_sums.size());
    Text counts_name;
    (counts_name += name) += k_counts;
    auto sums = file->tensor(entry.name), counts = file->tensor(counts_name.view());
    if (!sums || !counts) return fail(sums ? counts.error() : sums.error());
    if (sums->dtype() != DType::f32 || counts->dtype() != DType::f32 || sums->rank() < 1)
      return corrupt("sums and counts are f32", entry.name);
    const std::size_t matrices = counts->numel(), all = sums->numel(), first = values_.size();
    if (matrices == 0 || all % matrices != 0) return corrupt("sums are as many for each matrix", entry.name);
    if (auto added = add(name, all); !added) return added;
    for (std::size_t i = 0; i < all; ++i) {
      const float count = counts->f32()[i / (all / matrices)];
      if (count > 0) values_[first + i] = sums->f32()[i] / count;
    }
  }
  return lines_.empty() ? corrupt("no sums of squares in it", path) : Status();
}

// i32 entries; of each: i32 length, name, i32 calls, i32 count, so many f32, sums over the calls.
Status Importance::read_dat(std::string_view path, std::span<const std::byte> bytes) noexcept {
  constexpr std::int32_t k_most = 65536;  // tensors
  const auto bad = [&] { return corrupt("no importance matrix of llama.cpp", path); };
  Words words(bytes);
  std::int32_t entries = 0;
  if (!words.take(entries) || entries < 1 || entries > k_most) return bad();
  for (std::int32_t i = 0; i < entries; ++i) {
    std::int32_t letters = 0, calls = 0, count = 0;
    std::span<const std::byte> name, numbers;
    if (!words.take(letters) || letters < 1 || !words.take(static_cast<std::size_t>(letters), name)) return bad();
    if (!words.take(calls) || !words.take(count) || count < 1) return bad();
    if (!words.take(static_cast<std::size_t>(count) * sizeof(float), numbers)) return bad();
    const std::size_t first = values_.size();
    if (auto added = add({reinterpret_cast<const char*>(name.data()), name.size()}, static_cast<std::size_t>(count));
        !added)
      return added;
    std::memcpy(values_.data() + first, numbers.data(), numbers.size());
    for (std::size_t k = first; k < values_.size() && calls > 0; ++k) values_[k] /= static_cast<float>(calls);
  }
  return {};
}

Status Importance::finish(std::string_view path) noexcept {
  if (!std::all_of(values_.begin(), values_.end(), [](float x) { return x >= 0 && std::isfinite(x); }))
    return corrupt("importance is a number and not negative", path);
  sort_mapped(lines_.begin(), lines_.end(), [&](const Line& a, const Line& b) { return name_of(a) < name_of(b); });
  const auto* twice = std::adjacent_find(lines_.begin(), lines_.end(),
                                         [&](const Line& a, const Line& b) { return name_of(a) == name_of(b); });
  return twice == lines_.end() ? Status() : corrupt("a tensor stands twice", name_of(*twice));
}

std::span<const float> Importance::find(std::string_view tensor) const noexcept {
  const auto* found =
      std::lower_bound(lines_.begin(), lines_.end(), tensor,
                       [&](const Line& line, std::string_view wanted) { return name_of(line) < wanted; });
  if (found == lines_.end() || name_of(*found) != tensor) return {};
  return {values_.data() + found->first, found->count};
}

}  // namespace qorus::formats
