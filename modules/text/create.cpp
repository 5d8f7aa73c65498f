// Tokenizer::create: a vocabulary is checked and indexed. Nothing of the spec is trusted; after this all of it is.
module qorus.text;
import qorus.std;
import qorus.trust;
import :model;
import :pieces;
import :split;
import :tokenizer;
import :unicode;

namespace qorus::text {
namespace {

constexpr std::string_view k_marker = "\xe2\x96\x81";  // U+2581

tl::unexpected<Error> corrupt(const char* text, std::string_view subject = {}) noexcept {
  return fail(Errc::corrupt, "tokenizer", text, subject);
}

// Byte-level vocabularies spell a byte as a printable character (GPT-2's bytes_to_unicode): itself, or one from U+0100 on.
constexpr std::size_t k_alphabet = 324;  // all such characters are below
constexpr std::array<std::int16_t, k_alphabet> k_byte_of = [] {
  std::array<std::int16_t, k_alphabet> bytes{};
  for (auto& byte : bytes) byte = -1;
  std::size_t next = 256;
  for (std::size_t b = 0; b < 256; ++b) {
    const bool printable = (b >= '!' && b <= '~') || (b >= 0xa1 && b <= 0xac) || b >= 0xae;
    bytes[printable ? b : next++] = static_cast<std::int16_t>(b);
  }
  return bytes;
}();

// The byte that a piece like <0x0A> stands for, or -1.
int byte_of_name(std::string_view piece) noexcept {
  if (piece.size() != 6 || !piece.starts_with("<0x") || piece[5] != '>') return -1;
  int value = 0;
  for (const char c : part_of(piece, 3, 2)) {
    const int digit = c >= '0' && c <= '9'   ? c - '0'
                      : c >= 'A' && c <= 'F' ? c - 'A' + 10
                      : c >= 'a' && c <= 'f' ? c - 'a' + 10
                                             : -1;
    if (digit < 0) return -1;
    value = value * 16 + digit;
  }
  return value;
}

class Builder {
 public:
  Builder(const VocabularySpec& spec, const Splitter& splitter, Model& model) noexcept : spec_(spec), m_(model) {
    m_.splitter = splitter;
  }

  [[nodiscard]] Status build() noexcept {
    m_.byte_ids.fill(-1);
    using Step = Status (Builder::*)();
    for (const Step step :
         {&Builder::copy_settings, &Builder::copy_pieces, &Builder::index_pieces, &Builder::read_scores,
          &Builder::read_merges, &Builder::index_special, &Builder::index_dictionary, &Builder::index_joins}) {
      if (auto ok = (this->*step)(); !ok) return ok;
    }
    return {};
  }

 private:
  [[nodiscard]] bool bpe() const noexcept {
    return spec_.algorithm == Algorithm::byte_bpe || spec_.algorithm == Algorithm::char_bpe;
  }

  [[nodiscard]] Status copy_settings() noexcept {
    m_.algorithm = spec_.algorithm;
    m_.add_bos = spec_.add_bos;
    m_.add_eos = spec_.add_eos;
    m_.space_prefix = spec_.space_prefix;
    m_.prefix_once = spec_.prefix_once;
    m_.space_suffix = spec_.space_suffix;
    m_.squeeze_spaces = spec_.squeeze_spaces;
    m_.space_marker = spec_.space_marker;
    m_.whole_words = spec_.whole_words && spec_.algorithm == Algorithm::byte_bpe;
    m_.fuse_unknown = spec_.fuse_unknown;
    m_.compose = spec_.compose;
    m_.lower_case = spec_.lower_case;
    const std::size_t count = spec_.pieces.size();
    if (count == 0) return corrupt("a vocabulary without pieces");
    if (count > limits::vocabulary) return fail(Errc::overflow, "tokenizer", "more pieces than ids can number");
    if (!spec_.scores.empty() && spec_.scores.size() != count) return corrupt("not as many scores as pieces");
    if (!spec_.kinds.empty() && spec_.kinds.size() != count) return corrupt("not as many kinds as pieces");
    const struct {
      std::int64_t from;
      std::int32_t& to;
    } ids[] = {{spec_.bos, m_.bos}, {spec_.eos, m_.eos}, {spec_.unknown, m_.unknown}};
    for (const auto& id : ids) {
      if (id.from >= static_cast<std::int64_t>(count)) return corrupt("a special id beyond the vocabulary");
      id.to = id.from < 0 ? -1 : static_cast<std::int32_t>(id.from);
    }
    m_.by_scores = bpe() && spec_.merges.empty();
    return m_.character_map.load(spec_.character_map);
  }

  [[nodiscard]] Status copy_pieces() noexcept {
    std::size_t total = 0;  // at most 2^30 pieces of 2^16 bytes
    for (const std::string_view piece : spec_.pieces) {
      if (piece.size() > limits::piece_bytes)
        return fail(Errc::unsupported, "tokenizer", "a piece of more than 64 KiB", piece);
      total += piece.size();
    }
    const std::size_t count = spec_.pieces.size();
    for (Pieces* pieces : {&m_.spelled, &m_.text}) {
      if (auto ok = pieces->reserve(count, total); !ok) return ok;
    }
    if (auto ok = m_.kinds.reserve(count); !ok) return ok;
    for (std::size_t i = 0; i < count; ++i) {
      if (auto ok = copy_piece(i); !ok) return ok;
    }
    return {};
  }

  [[nodiscard]] Status copy_piece(std::size_t i) noexcept {
    const std::string_view piece = spec_.pieces[i];
    const std::int32_t number = spec_.kinds.empty() || spec_.kinds[i] == 0 ? 1 : spec_.kinds[i];
    if (number < 1 || number > 6) return corrupt("a piece of a kind that is not known", piece);
    const auto kind = static_cast<PieceKind>(number);
    if (auto ok = m_.kinds.push(kind); !ok) return ok;
    if (auto ok = m_.spelled.add(piece); !ok) return ok;
    m_.has_user_defined = m_.has_user_defined || kind == PieceKind::user_defined;
    meaning_.clear();
    if (kind == PieceKind::control || kind == PieceKind::unknown) return m_.text.add(piece);
    if (kind == PieceKind::byte) {
      const int byte = byte_of_name(piece);
      if (byte < 0) return corrupt("a piece for a byte that is not spelled like <0x0A>", piece);
      m_.byte_ids[static_cast<std::size_t>(byte)] = static_cast<std::int32_t>(i);
      const char c = static_cast<char>(byte);
      return m_.text.add({&c, 1});
    }
    bool plain = true;
    switch (spec_.algorithm) {
      case Algorithm::byte_bpe:
        if (kind == PieceKind::user_defined) break;
        if (auto ok = spec_.raw_bytes ? as_it_is(piece, plain) : from_alphabet(piece, plain); !ok) return ok;
        break;
      case Algorithm::wordpiece:
        plain = !piece.starts_with(k_marker);
        if (!plain) {
          if (auto ok = spaces_for_markers(part_of(piece, 0, k_marker.size())); !ok) return ok;
          const auto rest = part_of(piece, k_marker.size());
          if (auto ok = meaning_.append(std::span(rest.data(), rest.size())); !ok) return ok;
        }
        break;
      default:
        plain = !spec_.space_marker || piece.find(k_marker) == piece.npos;
        if (!plain) {
          if (auto ok = spaces_for_markers(piece); !ok) return ok;
        }
    }
    if (plain) return m_.text.add(piece);
    if (spec_.algorithm == Algorithm::byte_bpe && meaning_.size() == 1)
      m_.byte_ids[static_cast<std::uint8_t>(meaning_[0])] = static_cast<std::int32_t>(i);
    return m_.text.add({meaning_.data(), meaning_.size()});
  }

  // The bytes that a piece of a byte-level vocabulary spells, in meaning_; `plain` if it is spelled with anything else.
  [[nodiscard]] Status from_alphabet(std::string_view piece, bool& plain) noexcept {
    const char *at = piece.data(), *const end = at + piece.size();
    plain = at == end;
    while (at != end) {
      const Char c = read(at, end);
      if (c.code >= k_alphabet || k_byte_of[c.code] < 0) {
        plain = true;
        return {};
      }
      if (auto ok = meaning_.push(static_cast<char>(k_byte_of[c.code])); !ok) return ok;
      at += c.size;
    }
    return {};
  }

  [[nodiscard]] Status as_it_is(std::string_view piece, bool& plain) noexcept {
    plain = false;
    return meaning_.append(std::span(piece.data(), piece.size()));
  }

  [[nodiscard]] Status spaces_for_markers(std::string_view piece) noexcept {
    while (!piece.empty()) {
      const bool marker = piece.starts_with(k_marker);
      if (auto ok = meaning_.push(marker ? ' ' : piece[0]); !ok) return ok;
      piece.remove_prefix(marker ? k_marker.size() : 1);
    }
    return {};
  }

  [[nodiscard]] Status index_pieces() noexcept {
    const std::size_t count = m_.kinds.size();
    const bool by_text = m_.whole_words || m_.by_scores || m_.algorithm == Algorithm::char_bpe;
    if (auto ok = m_.by_spelling.reserve(count); !ok) return ok;
    if (by_text) {
      if (auto ok = m_.by_text.reserve(count); !ok) return ok;
    }
    for (std::size_t i = 0; i < count; ++i) {
      const auto id = static_cast<std::int32_t>(i);
      if (m_.spelled[i].empty()) continue;
      const auto before = m_.by_spelling.add(m_.spelled, id);
      if (!before) return fail(before.error());
      if (*before >= 0) return corrupt("a piece stands twice", m_.spelled[i]);
      if (!by_text || m_.kind(id) != PieceKind::normal) continue;
      if (auto ok = m_.by_text.add(m_.text, id); !ok) return fail(ok.error());
    }
    return {};
  }

  [[nodiscard]] Status read_scores() noexcept {
    const std::size_t count = m_.kinds.size();
    for (std::size_t i = 0; i < spec_.scores.size(); ++i) {
      if (!std::isfinite(spec_.scores[i])) return corrupt("a score that is not finite", m_.spelled[i]);
    }
    if (m_.algorithm == Algorithm::unigram) {
      if (auto ok = m_.scores.resize(count); !ok) return ok;
      double least = 0;
      for (std::size_t i = 0; i < spec_.scores.size(); ++i) {
        const bool normal = m_.kinds[i] == PieceKind::normal;
        m_.scores[i] = normal ? static_cast<double>(spec_.scores[i]) : 0;
        least = std::min(least, m_.scores[i]);
      }
      m_.unknown_score = least - 10;
    }
    if (!m_.by_scores) return {};
    if (auto ok = m_.ranks.resize(count); !ok) return ok;
    for (std::size_t i = 0; i < spec_.scores.size();
         ++i) {  // the same order, falling, as an unsigned number below UINT32_MAX
      const auto bits = std::bit_cast<std::uint32_t>(spec_.scores[i] + 0.0f);
      m_.ranks[i] = bits >> 31 ? bits : ~bits & 0x7fffffff;
    }
    return {};
  }

  [[nodiscard]] Status read_merges() noexcept {
    if (!bpe()) return {};
    if (spec_.merges.size() > limits::vocabulary)
      return fail(Errc::overflow, "tokenizer", "more merges than a table can have");
    if (spec_.merges.empty()) return {};
    if (auto ok = m_.merges.reserve(spec_.merges.size()); !ok) return ok;
    for (std::size_t i = 0; i < spec_.merges.size(); ++i) {
      if (auto ok = read_merge(spec_.merges[i], static_cast<std::uint32_t>(i)); !ok) return ok;
    }
    return {};
  }

  // "left right": the first space that has a piece on either side (pieces may contain spaces).
  [[nodiscard]] Status read_merge(std::string_view merge, std::uint32_t rank) noexcept {
    constexpr int k_most_tries = 8;
    if (merge.size() > 2 * limits::piece_bytes) return corrupt("a merge that is too long", merge);
    std::size_t space = merge.find(' ', 1);
    for (int tries = 0; tries < k_most_tries && space != merge.npos; ++tries, space = merge.find(' ', space + 1)) {
      const std::string_view left = merge.substr(0, space), right = part_of(merge, space + 1);
      const std::int32_t left_id = m_.by_spelling.find(m_.spelled, left),
                         right_id = m_.by_spelling.find(m_.spelled, right);
      if (left_id < 0 || right_id < 0) continue;
      meaning_.clear();
      if (auto ok = meaning_.append(std::span(left.data(), left.size())); !ok) return ok;
      if (auto ok = meaning_.append(std::span(right.data(), right.size())); !ok) return ok;
      const std::int32_t both = m_.by_spelling.find(m_.spelled, {meaning_.data(), meaning_.size()});
      if (both < 0) continue;
      return m_.merges.add(left_id, right_id, {rank, both});
    }
    return corrupt("a merge of pieces, or into a piece, that the vocabulary does not have", merge);
  }

  [[nodiscard]] Status index_special() noexcept {
    List<std::int32_t> ids;
    for (std::size_t i = 0; i < m_.kinds.size(); ++i) {
      const PieceKind kind = m_.kinds[i];
      if (kind != PieceKind::control && kind != PieceKind::unknown && kind != PieceKind::user_defined) continue;
      if (auto ok = ids.push(static_cast<std::int32_t>(i)); !ok) return ok;
    }
    if (auto ok = m_.special.build(m_.text, ids.span()); !ok) return ok;
    for (const auto& [list, bit] : {std::pair{spec_.strip_left, 1}, std::pair{spec_.strip_right, 2}}) {
      if (list.empty()) continue;
      if (auto ok = m_.strips.resize(m_.kinds.size()); !ok) return ok;
      for (const std::int32_t id : list) {
        if (!m_.has(id)) return corrupt("a special id beyond the vocabulary");
        m_.strips[static_cast<std::size_t>(id)] |= static_cast<std::uint8_t>(bit);
      }
    }
    return {};
  }

  [[nodiscard]] Status index_dictionary() noexcept {
    if (m_.algorithm != Algorithm::unigram && m_.algorithm != Algorithm::wordpiece) return {};
    List<std::int32_t> ids;
    for (std::size_t i = 0; i < m_.kinds.size(); ++i) {
      if (m_.kinds[i] != PieceKind::normal) continue;
      if (auto ok = ids.push(static_cast<std::int32_t>(i)); !ok) return ok;
    }
    return m_.dictionary.build(m_.algorithm == Algorithm::unigram ? m_.text : m_.spelled, ids.span());
  }

  // Which bytes may stand beside each other in what merges make.
  [[nodiscard]] Status index_joins() noexcept {
    if (m_.algorithm != Algorithm::char_bpe) return {};
    if (auto ok = m_.joins.resize(256 * 4); !ok) return ok;
    for (std::size_t i = 0; i < m_.kinds.size(); ++i) {
      if (m_.by_scores && m_.kinds[i] != PieceKind::normal) continue;
      const std::string_view text = m_.text[i];
      for (std::size_t at = 1; at < text.size(); ++at) {
        const auto left = static_cast<std::uint8_t>(text[at - 1]), right = static_cast<std::uint8_t>(text[at]);
        m_.joins[left * 4u + right / 64u] |= std::uint64_t{1} << (right % 64u);
      }
    }
    return {};
  }

  const VocabularySpec& spec_;
  Model& m_;
  List<char> meaning_;
};

}  // namespace

Result<Tokenizer> Maker::make(const VocabularySpec& spec, const Splitter& splitter) noexcept {
  Tokenizer made;
  made.model_ = new (std::nothrow) Model;
  if (!made.model_) return fail(Errc::out_of_memory, "tokenizer", "the system has no more memory");
  if (auto ok = Builder(spec, splitter, *made.model_).build(); !ok) return fail(ok.error());
  return made;
}

Result<Tokenizer> Tokenizer::create(const VocabularySpec& spec) noexcept {
  if (spec.algorithm != Algorithm::byte_bpe) return Maker::make(spec, {});
  const auto splitter = splitter_of(spec.pre_tokenizer);
  return splitter ? Maker::make(spec, *splitter) : fail(splitter.error());
}

}  // namespace qorus::text
