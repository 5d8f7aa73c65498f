// Bodies of qorus.text:tokenizer: special pieces are found first, the stretches between them go to the algorithm of the vocabulary.
module;
#include <cstdint>
module qorus.text;
import qorus.std;
import :model;
import :pieces;
import :unicode;

namespace qorus::text {
namespace {

constexpr std::uint8_t k_strip_left = 1, k_strip_right = 2;

bool blank(char c) noexcept { return c == ' ' || (c >= '\t' && c <= '\r'); }

class TextEncoder {
 public:
  TextEncoder(const Model& model, bool special, List<std::int32_t>& ids) noexcept
      : model_(model), ids_(ids), special_(special) {}

  [[nodiscard]] Status encode(std::string_view text) noexcept {
    if (model_.special.empty() || !(special_ || model_.has_user_defined))
      return plain(text.data(), text.data() + text.size(), {});
    const char *at = text.data(), *from = at, *const end = at + text.size();
    Place place;
    while (at != end) {
      std::int32_t id = -1;
      std::size_t size = 0;
      if (model_.special.begins(*at)) {
        model_.special.each_prefix(at, end, [&](std::int32_t found, std::size_t bytes) {
          if (!special_ && model_.kind(found) != PieceKind::user_defined) return;
          id = found;
          size = bytes;
        });
      }
      if (id < 0) {
        ++at;
        continue;
      }
      const unsigned strips = model_.strips.empty() ? 0u : model_.strips[static_cast<std::size_t>(id)];
      const char* to = at;
      while ((strips & k_strip_left) && to != from && blank(to[-1])) --to;
      const bool goes_on = model_.prefix_once && model_.kind(id) == PieceKind::user_defined;
      place.last = !goes_on;
      if (auto ok = plain(from, to, place); !ok) return ok;
      place = {!goes_on, true};
      if (auto ok = ids_.push(id); !ok) return ok;
      at += size;
      while ((strips & k_strip_right) && at != end && blank(*at)) ++at;
      from = at;
    }
    return plain(from, end, place);
  }

 private:
  [[nodiscard]] Status plain(const char* begin, const char* end, const Place& place) noexcept {
    if (begin == end && !(place.first && !place.last)) return {};
    std::string_view text(begin, static_cast<std::size_t>(end - begin));
    if (model_.algorithm == Algorithm::wordpiece) return encode_wordpiece(model_, text, scratch_, ids_);
    const auto ready = normalized(model_, text, place, scratch_);
    if (!ready) return fail(ready.error());
    if (ready->size() > INT32_MAX) return fail(Errc::overflow, "encode", "a text of 2 GiB or more");
    if (ready->empty()) return {};
    switch (model_.algorithm) {
      case Algorithm::byte_bpe: return encode_bytes(model_, *ready, scratch_, ids_);
      case Algorithm::unigram: return encode_unigram(model_, *ready, scratch_, ids_);
      default: return encode_chars(model_, *ready, scratch_, ids_);
    }
  }

  const Model& model_;
  List<std::int32_t>& ids_;
  bool special_;
  Scratch scratch_;
};

Status push_id(List<std::int32_t>& ids, bool wanted, std::int32_t id) noexcept {
  return wanted && id >= 0 ? ids.push(id) : Status{};
}

tl::unexpected<Error> empty_tokenizer(const char* op) noexcept {
  return fail(Errc::not_built, op, "a tokenizer without a vocabulary");
}

// Appends what one id means. `first`: nothing stands before it, so that a space that the model put there goes.
Status append_piece(const Model& model, std::int32_t id, bool special, bool& first, List<char>& text) noexcept {
  if (!model.has(id)) return fail(Errc::invalid_argument, "decode", "an id that the vocabulary does not have");
  if (model.kind(id) == PieceKind::control && !special) return {};
  std::string_view bytes = model.text[static_cast<std::size_t>(id)];
  const bool strips = model.space_prefix || model.algorithm == Algorithm::wordpiece;
  const bool plain = model.kind(id) != PieceKind::control;
  if (first && plain && strips && !model.space_suffix && bytes.starts_with(' ')) bytes.remove_prefix(1);
  if (plain) first = false;
  return text.append(std::span(bytes.data(), bytes.size()));
}

// Bytes at the end of a text that may begin a character.
std::size_t unfinished(std::span<const char> text) noexcept {
  const char* const end = text.data() + text.size();
  for (std::size_t back = std::min<std::size_t>(3, text.size()); back > 0; --back) {
    bool cut = false;
    (void)utf8_size(end - back, end, &cut);
    if (cut) return back;
  }
  return 0;
}

}  // namespace

Tokenizer::~Tokenizer() { delete model_; }

Status Tokenizer::encode(std::string_view text, const EncodeOptions& options, List<std::int32_t>& ids) const noexcept {
  if (!model_) return empty_tokenizer("encode");
  if (text.size() > INT32_MAX) return fail(Errc::overflow, "encode", "a text of 2 GiB or more");
  const std::size_t before = ids.size();
  auto done = push_id(ids, options.bos, model_->bos);
  if (done) done = TextEncoder(*model_, options.special, ids).encode(text);
  if (done) done = push_id(ids, options.eos, model_->eos);
  if (!done) (void)ids.resize(before);
  return done;
}

Result<List<std::int32_t>> Tokenizer::encode(std::string_view text, const EncodeOptions& options) const noexcept {
  List<std::int32_t> ids;
  if (auto ok = encode(text, options, ids); !ok) return fail(ok.error());
  return ids;
}

Status Tokenizer::decode(std::span<const std::int32_t> ids, const DecodeOptions& options,
                         List<char>& text) const noexcept {
  if (!model_) return empty_tokenizer("decode");
  const std::size_t before = text.size();
  bool first = !options.continues;
  for (const std::int32_t id : ids) {
    if (auto ok = append_piece(*model_, id, options.special, first, text); !ok) {
      (void)text.resize(before);
      return ok;
    }
  }
  return {};
}

Result<List<char>> Tokenizer::decode(std::span<const std::int32_t> ids, const DecodeOptions& options) const noexcept {
  List<char> text;
  if (auto ok = decode(ids, options, text); !ok) return fail(ok.error());
  return text;
}

std::size_t Tokenizer::size() const noexcept { return model_ ? model_->kinds.size() : 0; }
std::string_view Tokenizer::piece(std::int32_t id) const noexcept {
  return model_ && model_->has(id) ? model_->spelled[static_cast<std::size_t>(id)] : std::string_view();
}
std::int32_t Tokenizer::id_of(std::string_view piece) const noexcept {
  return model_ ? model_->by_spelling.find(model_->spelled, piece) : -1;
}
bool Tokenizer::is_control(std::int32_t id) const noexcept {
  return model_ && model_->has(id) && model_->kind(id) == PieceKind::control;
}
std::int32_t Tokenizer::bos() const noexcept { return model_ ? model_->bos : -1; }
std::int32_t Tokenizer::eos() const noexcept { return model_ ? model_->eos : -1; }
std::int32_t Tokenizer::unknown() const noexcept { return model_ ? model_->unknown : -1; }
bool Tokenizer::adds_bos() const noexcept { return model_ && model_->add_bos; }
bool Tokenizer::adds_eos() const noexcept { return model_ && model_->add_eos; }

Result<std::string_view> StreamDecoder::next(std::int32_t id) noexcept {
  const Model* model = tokenizer_->model_;
  if (!model) return empty_tokenizer("decode");
  const std::size_t waiting = bytes_.size() - given_;
  if (given_) std::memmove(bytes_.data(), bytes_.data() + given_, waiting);
  given_ = 0;
  if (auto ok = bytes_.resize(waiting); !ok) return fail(ok.error());
  bool first = !started_ && !options_.continues;
  if (auto ok = append_piece(*model, id, options_.special, first, bytes_); !ok) return fail(ok.error());
  started_ = started_ || !first;
  given_ = bytes_.size() - unfinished(bytes_.span());
  return std::string_view(bytes_.data(), given_);
}

std::string_view StreamDecoder::finish() noexcept {
  const std::string_view rest(bytes_.data() + given_, bytes_.size() - given_);
  given_ = bytes_.size();
  started_ = false;
  return rest;
}

}  // namespace qorus::text
