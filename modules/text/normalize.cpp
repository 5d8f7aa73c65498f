// Text as a vocabulary wants it before it is cut: SentencePiece's character map, Unicode's form NFC, spaces.
module qorus.text;
import qorus.std;
import :model;
import :unicode;

namespace qorus::text {
namespace {

constexpr std::string_view k_marker = "\xe2\x96\x81";  // U+2581, how SentencePiece spells a space

// Collects a text with its spaces as the model wants them.
class Spacer {
 public:
  Spacer(const Model& model, const Place& place, List<char>& out) noexcept : model_(model), place_(place), out_(out) {}

  [[nodiscard]] Status add(std::string_view text) noexcept {
    while (!text.empty()) {
      std::size_t taken = 1;
      bool space = text[0] == ' ';
      if (model_.space_marker && text.starts_with(k_marker)) {
        space = true;
        taken = k_marker.size();
      }
      if (auto ok = space ? add_space() : add_byte(text[0]); !ok) return ok;
      text.remove_prefix(taken);
    }
    return {};
  }
  [[nodiscard]] Status finish() noexcept {
    if (!place_.last) {  // a piece follows: it comes after the spaces, and after the prefix
      if (auto ok = begin(); !ok) return ok;
      return waiting_ ? out_.push(' ') : Status{};
    }
    const bool suffix = model_.space_prefix && model_.space_suffix && !out_.empty();
    return suffix ? out_.push(' ') : Status{};
  }

 private:
  [[nodiscard]] Status begin() noexcept {
    if (out_.empty() && place_.first && model_.space_prefix && !model_.space_suffix) return out_.push(' ');
    return {};
  }
  [[nodiscard]] Status add_space() noexcept {
    if (!model_.squeeze_spaces) {
      if (auto ok = begin(); !ok) return ok;
      return out_.push(' ');
    }
    waiting_ = !out_.empty() || !place_.first;
    return {};
  }
  [[nodiscard]] Status add_byte(char byte) noexcept {
    if (auto ok = begin(); !ok) return ok;
    if (waiting_) {
      waiting_ = false;
      if (auto ok = out_.push(' '); !ok) return ok;
    }
    return out_.push(byte);
  }

  const Model& model_;
  Place place_;
  List<char>& out_;
  bool waiting_ = false;  // a space that comes only if something follows
};

Result<std::string_view> spaced(const Model& model, std::string_view text, const Place& place,
                                Scratch& scratch) noexcept {
  List<char>& out = scratch.text;
  out.clear();
  if (auto ok = out.reserve(text.size() + text.size() / 8 + 16); !ok) return fail(ok.error());
  Spacer spacer(model, place, out);
  const char *at = text.data(), *const end = at + text.size();
  while (!model.character_map.empty() && at != end) {
    const auto found = model.character_map.find(at, end);
    const std::size_t plain = read(at, end).size;
    const std::size_t size = found.size ? found.size : plain;
    if (auto ok = spacer.add(found.size ? found.text : std::string_view(at, plain)); !ok) return fail(ok.error());
    at += size;
  }
  if (auto ok = spacer.add({at, static_cast<std::size_t>(end - at)}); !ok) return fail(ok.error());
  if (auto ok = spacer.finish(); !ok) return fail(ok.error());
  return std::string_view(out.data(), out.size());
}

}  // namespace

Status CharacterMap::load(std::span<const std::byte> blob) noexcept {
  if (blob.empty()) return {};
  std::uint32_t bytes = 0;
  if (blob.size() < sizeof bytes) return fail(Errc::corrupt, "tokenizer", "a character map that is cut short");
  std::memcpy(&bytes, blob.data(), sizeof bytes);
  blob = blob.subspan(sizeof bytes);
  if (bytes > blob.size() || bytes % 4 != 0 || bytes == 0)
    return fail(Errc::corrupt, "tokenizer", "a character map of a wrong size");
  if (auto ok = units_.resize(bytes / 4); !ok) return ok;
  std::memcpy(units_.data(), blob.data(), bytes);
  const auto texts = blob.subspan(bytes);
  if (auto ok = texts_.append({reinterpret_cast<const char*>(texts.data()), texts.size()}); !ok) return ok;
  return texts_.push('\0');
}

CharacterMap::Found CharacterMap::find(const char* at, const char* end) const noexcept {
  // A unit: bits 0-7 and 31 its label, bit 8 whether a value follows, bits 10-30 the way to its children, by 8 bits more if bit 9.
  const auto way = [](std::uint32_t unit) { return static_cast<std::size_t>(unit >> 10) << ((unit & 512) >> 6); };
  Found found;
  std::size_t node = way(units_[0]);
  for (const char* next = at; next != end; ++next) {
    const auto byte = static_cast<std::uint8_t>(*next);
    node ^= byte;
    if (node >= units_.size() || (units_[node] & 0x800000ff) != byte) break;
    const bool leaf = units_[node] >> 8 & 1;
    node ^= way(units_[node]);
    if (node >= units_.size()) break;
    const std::size_t value = units_[node] & 0x7fffffff;
    if (leaf && value < texts_.size()) {
      found = {static_cast<std::size_t>(next + 1 - at), std::string_view(texts_.data() + value)};
    }
  }
  return found;
}

Result<std::string_view> normalized(const Model& model, std::string_view text, const Place& place,
                                    Scratch& scratch) noexcept {
  if (model.compose) {
    scratch.part.clear();
    if (auto ok = normalize(text, Form::nfc, scratch.part); !ok) return fail(ok.error());
    text = {scratch.part.data(), scratch.part.size()};
  }
  if (model.algorithm != Algorithm::byte_bpe) return spaced(model, text, place, scratch);
  if (!model.space_prefix || text.starts_with(' ')) return text;
  scratch.text.clear();
  if (auto ok = scratch.text.push(' '); !ok) return fail(ok.error());
  if (auto ok = scratch.text.append(std::span(text.data(), text.size())); !ok) return fail(ok.error());
  return std::string_view(scratch.text.data(), scratch.text.size());
}

}  // namespace qorus::text
