// Bodies of qorus.text:json.
module;
#include <cstdint>
module qorus.text;
import qorus.std;
import :json;
import :pieces;
import :unicode;

namespace qorus::text {
namespace {

tl::unexpected<Error> bad(const char* text) noexcept { return fail(Errc::corrupt, "json", text); }

// The four hexadecimal digits that `text` begins with, or -1.
int hex4(std::string_view text) noexcept {
  if (text.size() < 4) return -1;
  unsigned value = 0;
  const auto parsed = std::from_chars(text.data(), text.data() + 4, value, 16);
  return parsed.ec == std::errc() && parsed.ptr == text.data() + 4 ? static_cast<int>(value) : -1;
}

// The number that `text` begins with, by JSON's grammar; empty if there is none.
std::string_view number_of(std::string_view text) noexcept {
  std::size_t at = 0;
  const auto digits = [&] {
    const std::size_t begin = at;
    while (at < text.size() && text[at] >= '0' && text[at] <= '9') ++at;
    return at - begin;
  };
  const auto take = [&](std::string_view any) {
    const bool found = at < text.size() && any.find(text[at]) != any.npos;
    at += found;
    return found;
  };
  (void)take("-");
  const std::size_t begin = at, whole = digits();
  if (whole == 0 || (whole > 1 && text[begin] == '0')) return {};
  if (take(".") && digits() == 0) return {};
  if (take("eE")) {
    (void)take("+-");
    if (digits() == 0) return {};
  }
  return text.substr(0, at);
}

}  // namespace

JsonType JsonValue::type() const noexcept { return tree_ ? tree_->node(index_).type : JsonType::none; }
std::size_t JsonValue::size() const noexcept { return tree_ ? tree_->node(index_).size : 0; }
std::string_view JsonValue::string() const noexcept {
  return is(JsonType::string) ? tree_->node(index_).text : std::string_view();
}
bool JsonValue::flag(bool otherwise) const noexcept {
  return is(JsonType::boolean) ? tree_->node(index_).text == "true" : otherwise;
}
std::int64_t JsonValue::integer(std::int64_t otherwise) const noexcept {
  if (!is(JsonType::number)) return otherwise;
  const std::string_view text = tree_->node(index_).text;
  std::int64_t value = 0;
  const auto parsed = std::from_chars(text.data(), text.data() + text.size(), value);
  return parsed.ec == std::errc() && parsed.ptr == text.data() + text.size() ? value : otherwise;
}
double JsonValue::number(double otherwise) const noexcept {
  if (!is(JsonType::number)) return otherwise;
  const std::string_view text = tree_->node(index_).text;
  double value = 0;
  const auto parsed = std::from_chars(text.data(), text.data() + text.size(), value);
  return parsed.ec == std::errc() ? value : std::numeric_limits<double>::quiet_NaN();  // too large or small for any
}

bool JsonValue::fraction() const noexcept {
  return is(JsonType::number) && tree_->node(index_).text.find_first_of(".eE") != std::string_view::npos;
}

JsonValue JsonValue::operator[](std::string_view key) const noexcept {
  if (!is(JsonType::object)) return {};
  const std::uint32_t end = tree_->node(index_).next;
  for (std::uint32_t at = index_ + 1; at < end; at = tree_->node(at + 1).next) {
    if (tree_->node(at).text == key) return {*tree_, at + 1};
  }
  return {};
}

void JsonTree::skip_blanks() noexcept {
  while (at_ < text_.size() && (text_[at_] == ' ' || text_[at_] == '\n' || text_[at_] == '\r' || text_[at_] == '\t'))
    ++at_;
}

bool JsonTree::take(char c) noexcept {
  skip_blanks();
  if (at_ >= text_.size() || text_[at_] != c) return false;
  ++at_;
  return true;
}

Status JsonTree::push(JsonType type, std::string_view text) noexcept {
  return nodes_.push({text, static_cast<std::uint32_t>(nodes_.size() + 1), 0, type});
}

// An opened array or object ends with the nodes there are.
Status JsonTree::close() noexcept {
  nodes_[open_[--depth_]].next = static_cast<std::uint32_t>(nodes_.size());
  return {};
}

Status JsonTree::parse(std::string_view text) noexcept {
  if (text.size() >= UINT32_MAX) return fail(Errc::overflow, "json", "a text of 4 GiB or more");
  text_ = text;
  if (auto ok = value(); !ok) return ok;
  while (depth_ > 0) {
    JsonNode& parent = nodes_[open_[depth_ - 1]];
    const bool object = parent.type == JsonType::object;
    if (take(object ? '}' : ']')) {
      if (auto ok = close(); !ok) return ok;
      continue;
    }
    if (parent.size++ > 0 && !take(',')) return bad("expected a comma or a closing bracket");
    if (object) {
      skip_blanks();
      if (auto ok = string(); !ok) return ok;
      if (!take(':')) return bad("expected a colon");
    }
    if (auto ok = value(); !ok) return ok;
  }
  skip_blanks();
  return at_ == text_.size() ? Status{} : bad("something follows the end of the text");
}

Status JsonTree::value() noexcept {
  for (const char bracket : {'{', '['}) {
    if (!take(bracket)) continue;
    if (depth_ == k_deepest) return bad("nested more than 64 deep");
    open_[depth_++] = static_cast<std::uint32_t>(nodes_.size());
    return push(bracket == '{' ? JsonType::object : JsonType::array, {});
  }
  if (at_ < text_.size() && text_[at_] == '"') return string();
  return scalar();
}

Status JsonTree::scalar() noexcept {
  const std::string_view rest = part_of(text_, at_);
  for (const std::string_view word : {"true", "false", "null"}) {
    if (!rest.starts_with(word)) continue;
    at_ += word.size();
    return push(word == "null" ? JsonType::null : JsonType::boolean, word);
  }
  const std::string_view number = number_of(rest);
  if (number.empty()) return bad("expected a value");
  at_ += number.size();
  return push(JsonType::number, number);
}

Status JsonTree::string() noexcept {
  if (!take('"')) return bad("expected a string");
  const std::size_t begin = at_, decoded = decoded_.size();
  std::size_t plain = at_;  // all before is decoded, if anything is
  bool escaped = false;
  const auto keep = [&] { return decoded_.append({text_.data() + plain, at_ - plain}); };
  const char* const end = text_.data() + text_.size();
  while (at_ < text_.size() && text_[at_] != '"') {
    const auto byte = static_cast<std::uint8_t>(text_[at_]);
    if (byte == '\\') {
      if (!escaped) {
        if (auto ok = decoded_.reserve(text_.size()); !ok) return ok;
      }
      escaped = true;
      if (auto ok = keep(); !ok) return ok;
      if (auto ok = escape(decoded_); !ok) return ok;
      plain = at_;
      continue;
    }
    if (byte < 0x20) return bad("a control character in a string");
    const std::size_t size = byte < 0x80 ? 1 : utf8_size(text_.data() + at_, end);
    if (size == 0) return bad("a string is not UTF-8");
    at_ += size;
  }
  if (at_ >= text_.size()) return bad("a string does not end");
  std::string_view meaning = part_of(text_, begin, at_ - begin);
  if (escaped) {
    if (auto ok = keep(); !ok) return ok;
    meaning = {decoded_.data() + decoded, decoded_.size() - decoded};
  }
  ++at_;
  return push(JsonType::string, meaning);
}

Status JsonTree::escape(List<char>& out) noexcept {
  constexpr std::string_view letters = "\"\\/bfnrt", meanings = "\"\\/\b\f\n\r\t";
  const std::string_view rest = part_of(text_, at_ + 1);
  const std::size_t letter = rest.empty() ? letters.npos : letters.find(rest[0]);
  if (letter != letters.npos) {
    at_ += 2;
    return out.push(meanings[letter]);
  }
  const int unit = !rest.empty() && rest[0] == 'u' ? hex4(part_of(rest, 1)) : -1;
  if (unit < 0) return bad("an escape that JSON does not have");
  at_ += 6;
  if (unit < 0xd800 || unit > 0xdfff) return append_char(out, static_cast<std::uint32_t>(unit));
  const int low = part_of(text_, at_, 2) == "\\u" ? hex4(part_of(text_, at_ + 2)) : -1;
  if (unit > 0xdbff || low < 0xdc00 || low > 0xdfff) return bad("half a surrogate pair");
  at_ += 6;
  return append_char(
      out, 0x10000 + (static_cast<std::uint32_t>(unit - 0xd800) << 10) + static_cast<std::uint32_t>(low - 0xdc00));
}

}  // namespace qorus::text
