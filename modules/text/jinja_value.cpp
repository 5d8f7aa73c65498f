// Values of templates: truth, equality, order, and how they are written, as Python has them.
module;
#include <cstdint>
#include <cstdio>
module qorus.text;
import qorus.std;
import :jinja;
import :pieces;
import :unicode;

namespace qorus::text {
namespace {

Status add(List<char>& out, std::string_view text) noexcept { return out.append(std::span(text.data(), text.size())); }

// The shortest digits that mean the number, as Python writes it.
Status append_real(List<char>& out, double x) noexcept {
  if (std::isnan(x)) return add(out, "nan");
  if (std::isinf(x)) return add(out, x < 0 ? "-inf" : "inf");
  char digits[40];
  const double size = std::abs(x);
  const bool plain = size == 0 || (size >= 1e-4 && size < 1e16);
  const auto made = std::to_chars(digits, digits + sizeof digits, x,
                                  plain ? std::chars_format::fixed : std::chars_format::scientific);
  const std::string_view text(digits, static_cast<std::size_t>(made.ptr - digits));
  if (auto done = add(out, text); !done) return done;
  return plain && text.find('.') == text.npos ? add(out, ".0") : Status{};
}

Status append_integer(List<char>& out, std::int64_t x) noexcept {
  char digits[24];
  return add(out, {digits, static_cast<std::size_t>(std::to_chars(digits, digits + sizeof digits, x).ptr - digits)});
}

// A text within quotes, as Python's repr.
Status append_quoted(List<char>& out, std::string_view text) noexcept {
  const char quote = text.find('\'') != text.npos && text.find('"') == text.npos ? '"' : '\'';
  Status status = out.push(quote);
  for (const char c : text) {
    if (!status) return status;
    if (c == '\n')
      status = add(out, "\\n");
    else if (c == '\r')
      status = add(out, "\\r");
    else if (c == '\t')
      status = add(out, "\\t");
    else if (c == '\\')
      status = add(out, "\\\\");
    else if (c == quote)
      status = add(out, "\\'");
    else
      status = out.push(c);
  }
  return status ? out.push(quote) : status;
}

Status append_escape(List<char>& out, std::uint32_t code) noexcept {
  char hex[8];
  std::snprintf(hex, sizeof hex, "\\u%04x", code & 0xffff);
  return add(out, hex);
}

Status append_json_text(List<char>& out, std::string_view text, bool ascii) noexcept {
  Status status = out.push('"');
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (!status) return status;
    const char c = text[i];
    const auto code = static_cast<std::uint8_t>(c);
    const Char wide = ascii && code >= 128 ? read(text.data() + i, text.data() + text.size()) : Char{};
    constexpr std::string_view escaped = "\"\\\n\r\t\b\f", names = "\"\\nrtbf";
    const std::size_t found = escaped.find(c);
    if (found != escaped.npos) {
      status = out.push('\\');
      if (status) status = out.push(names[found]);
    } else if (code < 32) {
      status = append_escape(out, code);
    } else if (wide.size > 0 && wide.code != k_no_char) {  // as UTF-16
      const std::uint32_t high = wide.code - 0x10000;
      if (wide.code > 0xffff) status = append_escape(out, 0xd800 + (high >> 10));
      if (status) status = append_escape(out, wide.code > 0xffff ? 0xdc00 + (high & 0x3ff) : wide.code);
      i += wide.size - 1u;
    } else {
      status = out.push(c);
    }
  }
  return status ? out.push('"') : status;
}

Status too_deep() noexcept {
  return fail(Errc::overflow, "chat template", "a value nested too deep, or too long to print");
}

Status new_line(List<char>& out, const JsonStyle& style, int depth) noexcept {
  if (style.indent < 0) return {};
  if (auto done = out.push('\n'); !done) return done;
  for (std::int64_t i = 0; i < style.indent * depth; ++i) {
    if (auto done = out.push(' '); !done) return done;
  }
  return {};
}

bool same_at(const Value& a, const Value& b, int depth, std::uint64_t& left) noexcept {
  if (depth > k_value_depth || left == 0) return false;
  --left;
  if (a.number() && b.number()) {
    if (a.is(ValueKind::real) || b.is(ValueKind::real)) return a.as_real() == b.as_real();
    return a.as_integer() == b.as_integer();
  }
  if (a.kind != b.kind) return false;
  switch (a.kind) {
    case ValueKind::none:
    case ValueKind::undefined: return true;
    case ValueKind::text: return a.view() == b.view();
    case ValueKind::list:
      return std::equal(a.list().begin(), a.list().end(), b.list().begin(), b.list().end(),
                        [&](const Value& x, const Value& y) { return same_at(x, y, depth + 1, left); });
    case ValueKind::dictionary:
      return a.count == b.count && std::all_of(a.pairs().begin(), a.pairs().end(), [&](const Pair& p) {
               const Value* other = member(b, p.key.view());
               return other && same_at(p.value, *other, depth + 1, left);
             });
    case ValueKind::space: return a.space == b.space;
    default: return a.count == b.count;
  }
}

}  // namespace

bool truth(const Value& v) noexcept {
  switch (v.kind) {
    case ValueKind::undefined:
    case ValueKind::none: return false;
    case ValueKind::boolean: return v.boolean;
    case ValueKind::integer: return v.integer != 0;
    case ValueKind::real: return v.real != 0;
    case ValueKind::text: return v.size != 0;
    case ValueKind::list:
    case ValueKind::dictionary: return v.count != 0;
    default: return true;
  }
}

bool same(const Value& a, const Value& b, std::uint64_t& left) noexcept { return same_at(a, b, 0, left); }

const Value* member(const Value& v, std::string_view key) noexcept {
  for (const Pair& pair : v.pairs()) {
    if (pair.key.view() == key) return &pair.value;
  }
  return nullptr;
}

Result<int> order(const Value& a, const Value& b, std::uint64_t& left) noexcept {
  if (a.number() && b.number()) {
    if (a.is(ValueKind::real) || b.is(ValueKind::real))
      return (a.as_real() > b.as_real()) - (a.as_real() < b.as_real());
    return (a.as_integer() > b.as_integer()) - (a.as_integer() < b.as_integer());
  }
  if (a.is(ValueKind::text) && b.is(ValueKind::text)) {
    const int sign = a.view().compare(b.view());
    return (sign > 0) - (sign < 0);
  }
  if (a.is(ValueKind::list) && b.is(ValueKind::list)) {
    for (std::size_t i = 0; i < std::min(a.count, b.count); ++i) {
      if (same(a.elements[i], b.elements[i], left)) continue;
      if (a.elements[i].is(ValueKind::list)) break;  // no deeper
      return order(a.elements[i], b.elements[i], left);
    }
    return (a.count > b.count) - (a.count < b.count);
  }
  return fail(Errc::invalid_argument, "chat template", "values that have no order");
}

Status append_text(List<char>& out, const Value& v, bool quoted, int depth) noexcept {
  if (depth > k_value_depth || out.size() > k_longest_value) return too_deep();
  switch (v.kind) {
    case ValueKind::undefined: return {};
    case ValueKind::none: return add(out, "None");
    case ValueKind::boolean: return add(out, v.boolean ? "True" : "False");
    case ValueKind::integer: return append_integer(out, v.integer);
    case ValueKind::real: return append_real(out, v.real);
    case ValueKind::text: return quoted ? append_quoted(out, v.view()) : add(out, v.view());
    case ValueKind::list:
    case ValueKind::dictionary: break;
    default: return add(out, "<object>");
  }
  const bool list = v.is(ValueKind::list);
  Status status = out.push(list ? (v.tuple ? '(' : '[') : '{');
  for (std::size_t i = 0; i < v.count && status; ++i) {
    if (i) status = add(out, ", ");
    if (!list && status) status = append_text(out, v.members[i].key, true, depth + 1);
    if (!list && status) status = add(out, ": ");
    if (status) status = append_text(out, list ? v.elements[i] : v.members[i].value, true, depth + 1);
  }
  if (v.tuple && v.count == 1 && status) status = out.push(',');
  return status ? out.push(list ? (v.tuple ? ')' : ']') : '}') : status;
}

Status append_json(List<char>& out, const Value& v, const JsonStyle& style, int depth) noexcept {
  if (depth > k_value_depth || out.size() > k_longest_value) return too_deep();
  switch (v.kind) {
    case ValueKind::none: return add(out, "null");
    case ValueKind::boolean: return add(out, v.boolean ? "true" : "false");
    case ValueKind::integer: return append_integer(out, v.integer);
    case ValueKind::real: return append_real(out, v.real);
    case ValueKind::text: return append_json_text(out, v.view(), style.ascii);
    case ValueKind::list:
    case ValueKind::dictionary: break;
    default: return fail(Errc::invalid_argument, "chat template", "tojson of what JSON does not have");
  }
  const bool list = v.is(ValueKind::list);
  List<std::uint32_t> turn;  // the order of members, if it is another than theirs
  Status status;
  if (!list && style.sorted) {
    for (std::uint32_t i = 0; i < v.count && status; ++i) status = turn.push(i);
    if (!status) return status;
    std::sort(turn.begin(), turn.end(),
              [&](std::uint32_t a, std::uint32_t b) { return v.members[a].key.view() < v.members[b].key.view(); });
  }
  const auto member = [&](std::size_t i) -> const auto& { return v.members[turn.empty() ? i : turn[i]]; };
  status = out.push(list ? '[' : '{');
  for (std::size_t i = 0; i < v.count && status; ++i) {
    if (i) status = add(out, !style.comma.empty() ? style.comma : style.indent < 0 ? ", " : ",");
    if (status) status = new_line(out, style, depth + 1);
    if (!list && status) status = append_json_text(out, member(i).key.view(), style.ascii);
    if (!list && status) status = add(out, style.colon);
    if (status) status = append_json(out, list ? v.elements[i] : member(i).value, style, depth + 1);
  }
  if (v.count && status) status = new_line(out, style, depth);
  return status ? out.push(list ? ']' : '}') : status;
}

Result<Value> value_of(const JsonValue& json, Store& store) noexcept {
  switch (json.type()) {
    case JsonType::null: return nothing();
    case JsonType::boolean: return of(json.flag(false));
    case JsonType::string: {
      auto text = store.text(json.string());
      return text ? Result<Value>(of(*text)) : fail(text.error());
    }
    case JsonType::number: {
      const std::int64_t integer = json.integer(INT64_MIN);
      const double real = json.number(0);
      const bool whole = integer != INT64_MIN && static_cast<double>(integer) == real && !json.fraction();
      return whole ? of(integer) : of(real);
    }
    case JsonType::array: {
      auto all = store.array<Value>(json.size());
      if (!all) return fail(all.error());
      std::size_t i = 0;
      auto done = json.each([&](const JsonValue& element) -> Status {  // as deep as the JSON reader allows
        auto made = value_of(element, store);
        if (!made) return fail(made.error());
        (*all)[i++] = *made;
        return {};
      });
      return done ? Result<Value>(of(std::span<const Value>(*all))) : fail(done.error());
    }
    case JsonType::object: {
      auto all = store.array<Pair>(json.size());
      if (!all) return fail(all.error());
      std::size_t i = 0;
      auto done = json.each_member([&](std::string_view key, const JsonValue& element) -> Status {
        auto name = store.text(key);
        if (!name) return fail(name.error());
        auto made = value_of(element, store);
        if (!made) return fail(made.error());
        (*all)[i++] = {of(*name), *made};
        return {};
      });
      return done ? Result<Value>(of(std::span<const Pair>(*all))) : fail(done.error());
    }
    default: return Value{};
  }
}

}  // namespace qorus::text
