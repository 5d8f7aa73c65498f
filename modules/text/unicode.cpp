// Bodies of qorus.text:unicode.
module;
#include <utf8proc.h>

module qorus.text;
import qorus.std;
import :unicode;

namespace qorus::text {
namespace {

constexpr std::uint8_t class_of(utf8proc_category_t category) noexcept {
  switch (category) {
    case UTF8PROC_CATEGORY_LU:
    case UTF8PROC_CATEGORY_LT: return k_letter | k_upper;
    case UTF8PROC_CATEGORY_LL: return k_letter | k_lower;
    case UTF8PROC_CATEGORY_LM:
    case UTF8PROC_CATEGORY_LO: return k_letter | k_upper | k_lower;
    case UTF8PROC_CATEGORY_MN:
    case UTF8PROC_CATEGORY_MC:
    case UTF8PROC_CATEGORY_ME: return k_mark | k_upper | k_lower;
    case UTF8PROC_CATEGORY_ND:
    case UTF8PROC_CATEGORY_NL:
    case UTF8PROC_CATEGORY_NO: return k_number;
    case UTF8PROC_CATEGORY_PC:
    case UTF8PROC_CATEGORY_PD:
    case UTF8PROC_CATEGORY_PS:
    case UTF8PROC_CATEGORY_PE:
    case UTF8PROC_CATEGORY_PI:
    case UTF8PROC_CATEGORY_PF:
    case UTF8PROC_CATEGORY_PO: return k_punct;
    case UTF8PROC_CATEGORY_SM:
    case UTF8PROC_CATEGORY_SC:
    case UTF8PROC_CATEGORY_SK:
    case UTF8PROC_CATEGORY_SO: return k_symbol;
    case UTF8PROC_CATEGORY_ZS:
    case UTF8PROC_CATEGORY_ZL:
    case UTF8PROC_CATEGORY_ZP: return k_space;
    default: return 0;
  }
}

utf8proc_option_t options_of(Form form) noexcept {
  const int compose = form == Form::nfc || form == Form::nfkc ? UTF8PROC_COMPOSE : UTF8PROC_DECOMPOSE;
  const int compatible = form == Form::nfkc || form == Form::nfkd ? UTF8PROC_COMPAT : 0;
  return static_cast<utf8proc_option_t>(UTF8PROC_STABLE | compose | compatible);
}

// The text is UTF-8.
Status normalize_valid(std::string_view text, Form form, List<char>& out) noexcept {
  utf8proc_uint8_t* made = nullptr;
  const auto size = utf8proc_map(reinterpret_cast<const utf8proc_uint8_t*>(text.data()),
                                 static_cast<utf8proc_ssize_t>(text.size()), &made, options_of(form));
  if (size < 0) return fail(Errc::out_of_memory, "normalize", utf8proc_errmsg(size));
  auto added = out.append({reinterpret_cast<const char*>(made), static_cast<std::size_t>(size)});
  std::free(made);
  return added;
}

}  // namespace

std::uint8_t classify(std::uint32_t code) noexcept {
  if (code < 128) return k_ascii[code];
  if (code == 0x85) return k_space;
  return class_of(utf8proc_category(static_cast<utf8proc_int32_t>(code)));
}

std::size_t utf8_size(const char* at, const char* end, bool* cut) noexcept {
  const auto left = static_cast<std::size_t>(end - at);
  const auto byte = [&](std::size_t i) { return static_cast<std::uint8_t>(at[i]); };
  if (cut) *cut = false;
  if (left == 0) return 0;
  const unsigned first = byte(0);
  if (first < 0x80) return 1;
  const std::size_t size = first < 0xc2 ? 0 : first < 0xe0 ? 2 : first < 0xf0 ? 3 : first < 0xf5 ? 4 : 0;
  if (size == 0) return 0;
  const unsigned low = first == 0xe0 ? 0xa0 : first == 0xf0 ? 0x90 : 0x80;
  const unsigned high = first == 0xed ? 0x9f : first == 0xf4 ? 0x8f : 0xbf;
  for (std::size_t i = 1; i < size; ++i) {
    if (i == left) {
      if (cut) *cut = true;
      return 0;
    }
    if (i == 1 ? byte(1) < low || byte(1) > high : (byte(i) & 0xc0) != 0x80) return 0;
  }
  return size;
}

Char read_wide(const char* at, const char* end) noexcept {
  const std::size_t size = utf8_size(at, end);
  const auto byte = [&](std::size_t i) { return std::uint32_t{static_cast<std::uint8_t>(at[i])}; };
  const auto tail = [&](std::size_t i) { return byte(i) & 63; };
  std::uint32_t code;
  switch (size) {
    case 0: return {k_no_char, 1, 0};
    case 1: code = byte(0); break;
    case 2: code = (byte(0) & 31) << 6 | tail(1); break;
    case 3: code = (byte(0) & 15) << 12 | tail(1) << 6 | tail(2); break;
    default: code = (byte(0) & 7) << 18 | tail(1) << 12 | tail(2) << 6 | tail(3); break;
  }
  return {code, static_cast<std::uint8_t>(size), classify(code)};
}

Status append_char(List<char>& out, std::uint32_t code) noexcept {
  utf8proc_uint8_t bytes[4];
  const auto size = utf8proc_encode_char(static_cast<utf8proc_int32_t>(code), bytes);
  return out.append({reinterpret_cast<const char*>(bytes), static_cast<std::size_t>(size)});
}

Status normalize(std::string_view text, Form form, List<char>& out) noexcept {
  const char *at = text.data(), *const end = at + text.size();
  while (at != end) {
    const char* valid = at;
    bool ascii = true;
    while (const std::size_t size = utf8_size(valid, end)) {
      ascii = ascii && size == 1;
      valid += size;
    }
    const std::string_view part(at, static_cast<std::size_t>(valid - at));
    auto added = ascii ? out.append(std::span(part.data(), part.size())) : normalize_valid(part, form, out);
    if (!added) return added;
    at = valid;
    if (at == end) break;
    if (auto ok = out.push(*at++); !ok) return ok;
  }
  return {};
}

std::uint32_t lower(std::uint32_t code) noexcept {
  if (code < 128) return code >= 'A' && code <= 'Z' ? code + 32 : code;
  return static_cast<std::uint32_t>(utf8proc_tolower(static_cast<utf8proc_int32_t>(code)));
}

std::uint32_t upper(std::uint32_t code) noexcept {
  if (code < 128) return code >= 'a' && code <= 'z' ? code - 32 : code;
  return static_cast<std::uint32_t>(utf8proc_toupper(static_cast<utf8proc_int32_t>(code)));
}

Status lower(std::string_view text, List<char>& out) noexcept {
  const char *at = text.data(), *const end = at + text.size();
  while (at != end) {
    const Char c = read(at, end);
    auto added = c.code == k_no_char ? out.push(*at) : append_char(out, lower(c.code));
    if (!added) return added;
    at += c.size;
  }
  return {};
}

}  // namespace qorus::text
