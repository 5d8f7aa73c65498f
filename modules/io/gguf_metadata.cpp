// The values of qorus.io:gguf's metadata: typed, and as a person reads them.
module qorus.io;
import qorus.std;
import :json;

namespace qorus::io {
namespace {

constexpr const char* k_op = "gguf";

template <class T>
T load(const std::byte* data, std::size_t i) noexcept {
  T value;
  std::memcpy(&value, data + i * sizeof value, sizeof value);
  return value;
}

bool is_integer(GgufType type) noexcept {
  return type <= GgufType::i32 || type == GgufType::u64 || type == GgufType::i64;
}
bool is_real(GgufType type) noexcept { return type == GgufType::f32 || type == GgufType::f64; }

// Calls f with element i as its own type. An integer, boolean or real.
template <class F>
auto visit(const GgufEntry& entry, std::size_t i, const F& f) noexcept {
  switch (entry.type) {
    case GgufType::u8:
    case GgufType::boolean: return f(load<std::uint8_t>(entry.data, i));
    case GgufType::i8: return f(+load<std::int8_t>(entry.data, i));
    case GgufType::u16: return f(load<std::uint16_t>(entry.data, i));
    case GgufType::i16: return f(load<std::int16_t>(entry.data, i));
    case GgufType::u32: return f(load<std::uint32_t>(entry.data, i));
    case GgufType::i32: return f(load<std::int32_t>(entry.data, i));
    case GgufType::u64: return f(load<std::uint64_t>(entry.data, i));
    case GgufType::i64: return f(load<std::int64_t>(entry.data, i));
    case GgufType::f32: return f(load<float>(entry.data, i));
    default: return f(load<double>(entry.data, i));
  }
}

// Element i as T, if it is an integer or boolean that fits.
template <class T>
bool to_integer(const GgufEntry& entry, std::size_t i, T& value) noexcept {
  return visit(entry, i, [&](auto number) {
    if constexpr (std::numeric_limits<decltype(number)>::is_integer) {
      if (!std::in_range<T>(number)) return false;
      value = static_cast<T>(number);
      return true;
    } else {
      return false;
    }
  });
}
// Element i as a float, if it is one, or a double within a float's range.
bool to_real(const GgufEntry& entry, std::size_t i, float& value) noexcept {
  if (entry.type == GgufType::f32) {
    value = load<float>(entry.data, i);
    return true;
  }
  const auto wide = load<double>(entry.data, i);
  if (std::isfinite(wide) && std::fabs(wide) > static_cast<double>(std::numeric_limits<float>::max())) return false;
  value = static_cast<float>(wide);
  return true;
}

tl::unexpected<Error> wrong_kind(std::string_view key, const char* text) noexcept {
  return fail(Errc::invalid_dtype, k_op, text, key);
}
tl::unexpected<Error> too_large(std::string_view key) noexcept {
  return fail(Errc::overflow, k_op, "a number does not fit the type that it is wanted as", key);
}

// `absent` where the result is not_found.
template <class T>
Result<T> with_default(Result<T> found, T absent) noexcept {
  if (!found && found.error().code == Errc::not_found) return absent;
  return found;
}

constexpr std::size_t k_shown_bytes = 60, k_shown_texts = 4, k_shown_numbers = 8;

// In quotes, at most so many bytes, whole letters; what a terminal might obey or what is no UTF-8 as a dot.
void put_text(Text& line, std::string_view text, std::size_t most) noexcept {
  const auto letter_goes_on = [](char c) { return (static_cast<unsigned char>(c) & 0xc0) == 0x80; };
  std::string_view shown = text.substr(0, most);
  if (shown.size() < text.size()) {
    while (!shown.empty() && letter_goes_on(text[shown.size()])) shown.remove_suffix(1);
  }
  line += "\"";
  const bool readable = is_utf8(shown);
  for (std::size_t i = 0; i < shown.size(); ++i) {
    const auto byte = static_cast<unsigned char>(shown[i]);
    if (byte == '\n' || byte == '\t') {
      line += byte == '\n' ? "\\n" : "\\t";
    } else if (is_control(shown.substr(i)) || (byte >= 0x80 && !readable)) {
      line += ".";
      i += byte == 0xc2 && readable ? 1 : 0;  // a letter of two bytes
    } else {
      line += shown.substr(i, 1);
    }
  }
  line += shown.size() < text.size() ? "…\"" : "\"";
}

void put_number(Text& line, const GgufEntry& entry, std::size_t i) noexcept {
  if (entry.type == GgufType::boolean) {
    line += load<std::uint8_t>(entry.data, i) ? "true" : "false";
    return;
  }
  char digits[40];
  const char* end = visit(entry, i, [&](auto number) -> const char* {
    if constexpr (std::numeric_limits<decltype(number)>::is_integer) {
      return std::to_chars(digits, std::end(digits), static_cast<std::common_type_t<decltype(number), int>>(number))
          .ptr;
    } else {
      return std::to_chars(digits, std::end(digits), number).ptr;
    }
  });
  line += std::string_view(digits, static_cast<std::size_t>(end - digits));
}

}  // namespace

std::string_view to_string(GgufType type) noexcept {
  constexpr std::string_view names[] = {"u8",   "i8",   "u16",   "i16", "u32", "i32", "f32",
                                        "bool", "text", "array", "u64", "i64", "f64"};
  return names[static_cast<int>(type)];
}

Text GgufEntry::preview() const noexcept {
  Text line;
  const bool is_text = type == GgufType::text;
  if (!array) {
    is_text ? put_text(line, text, k_shown_bytes) : put_number(line, *this, 0);
    return line;
  }
  const std::size_t shown = std::min(count, is_text ? k_shown_texts : k_shown_numbers);
  line += "[";
  for (std::size_t i = 0; i < shown; ++i) {
    if (i > 0) line += ", ";
    is_text ? put_text(line, texts[i], k_shown_bytes / 3) : put_number(line, *this, i);
  }
  line += shown < count ? ", …] of " : "] of ";
  line += static_cast<std::int64_t>(count);
  return line;
}

const GgufEntry* Gguf::metadata(std::string_view key) const noexcept {
  const auto* found =
      std::lower_bound(by_key_.begin(), by_key_.end(), key,
                       [&](std::uint32_t i, std::string_view wanted) { return metadata_[i].key < wanted; });
  return found == by_key_.end() || metadata_[*found].key != key ? nullptr : &metadata_[*found];
}

Result<const GgufEntry*> Gguf::wanted(std::string_view key, bool array) const noexcept {
  const GgufEntry* entry = metadata(key);
  if (!entry) return fail(Errc::not_found, k_op, "no metadata of this name", key);
  if (entry->array != array) return wrong_kind(key, array ? "an array is wanted" : "one value is wanted, not an array");
  return entry;
}

template <class T>
Result<T> Gguf::integer(std::string_view key) const noexcept {
  const auto entry = wanted(key, false);
  if (!entry) return fail(entry.error());
  if (!is_integer((*entry)->type)) return wrong_kind(key, "an integer is wanted");
  T value{};
  if (!to_integer(**entry, 0, value)) return too_large(key);
  return value;
}

Result<std::uint32_t> Gguf::u32(std::string_view key) const noexcept { return integer<std::uint32_t>(key); }
Result<std::int32_t> Gguf::i32(std::string_view key) const noexcept { return integer<std::int32_t>(key); }
Result<std::uint64_t> Gguf::u64(std::string_view key) const noexcept { return integer<std::uint64_t>(key); }
Result<std::int64_t> Gguf::i64(std::string_view key) const noexcept { return integer<std::int64_t>(key); }

Result<float> Gguf::f32(std::string_view key) const noexcept {
  const auto entry = wanted(key, false);
  if (!entry) return fail(entry.error());
  if (!is_real((*entry)->type)) return wrong_kind(key, "an f32 is wanted");
  float value = 0;
  if (!to_real(**entry, 0, value)) return too_large(key);
  return value;
}

Result<bool> Gguf::boolean(std::string_view key) const noexcept {
  const auto entry = wanted(key, false);
  if (!entry) return fail(entry.error());
  if ((*entry)->type != GgufType::boolean) return wrong_kind(key, "a bool is wanted");
  return load<std::uint8_t>((*entry)->data, 0) != 0;
}

Result<std::string_view> Gguf::text(std::string_view key) const noexcept {
  const auto entry = wanted(key, false);
  if (!entry) return fail(entry.error());
  if ((*entry)->type != GgufType::text) return wrong_kind(key, "a text is wanted");
  return (*entry)->text;
}

Result<std::uint32_t> Gguf::u32(std::string_view key, std::uint32_t absent) const noexcept {
  return with_default(u32(key), absent);
}
Result<std::int32_t> Gguf::i32(std::string_view key, std::int32_t absent) const noexcept {
  return with_default(i32(key), absent);
}
Result<float> Gguf::f32(std::string_view key, float absent) const noexcept { return with_default(f32(key), absent); }
Result<bool> Gguf::boolean(std::string_view key, bool absent) const noexcept {
  return with_default(boolean(key), absent);
}
Result<std::string_view> Gguf::text(std::string_view key, std::string_view absent) const noexcept {
  return with_default(text(key), absent);
}

Result<const List<std::string_view>*> Gguf::texts(std::string_view key) const noexcept {
  const auto entry = wanted(key, true);
  if (!entry) return fail(entry.error());
  if ((*entry)->type != GgufType::text) return wrong_kind(key, "an array of texts is wanted");
  return &(*entry)->texts;
}

Result<List<std::int32_t>> Gguf::integers(std::string_view key) const noexcept {
  const auto entry = wanted(key, true);
  if (!entry) return fail(entry.error());
  if (!is_integer((*entry)->type) && (*entry)->type != GgufType::boolean)
    return wrong_kind(key, "an array of integers is wanted");
  List<std::int32_t> list;
  if (auto ok = list.resize((*entry)->count); !ok) return fail(ok.error().about(key));
  for (std::size_t i = 0; i < list.size(); ++i) {
    if (!to_integer(**entry, i, list[i])) return too_large(key);
  }
  return list;
}

Result<List<float>> Gguf::reals(std::string_view key) const noexcept {
  const auto entry = wanted(key, true);
  if (!entry) return fail(entry.error());
  if (!is_real((*entry)->type)) return wrong_kind(key, "an array of f32 is wanted");
  List<float> list;
  if (auto ok = list.resize((*entry)->count); !ok) return fail(ok.error().about(key));
  for (std::size_t i = 0; i < list.size(); ++i) {
    if (!to_real(**entry, i, list[i])) return too_large(key);
  }
  return list;
}

}  // namespace qorus::io
