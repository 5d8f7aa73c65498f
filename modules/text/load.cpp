// Bodies of qorus.text:load: the formats that are no JSON.
module qorus.text;
import qorus.std;
import qorus.formats;
import qorus.io;
import :gguf;
import :load;
import :pieces;
import :tokenizer;

namespace qorus::text {
namespace {

std::string_view text_of(std::span<const std::byte> bytes) noexcept {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

tl::unexpected<Error> corrupt(const char* op, const char* text) noexcept { return fail(Errc::corrupt, op, text); }

// Fields of a protobuf message (https://protobuf.dev/programming-guides/encoding), one after the other.
class Fields {
 public:
  explicit Fields(std::string_view bytes) noexcept : rest_(bytes) {}

  struct Field {
    std::uint64_t number = 0, value = 0;  // the value of a varint, or the bits of a fixed one
    unsigned wire = 0;                    // 0 varint, 1 eight bytes, 2 bytes, 5 four bytes
    std::string_view bytes;
  };
  [[nodiscard]] bool done() const noexcept { return rest_.empty(); }
  [[nodiscard]] Result<Field> next() noexcept {
    Field field;
    std::uint64_t tag = 0;
    if (!varint(tag)) return bad();
    field.number = tag >> 3;
    field.wire = tag & 7;
    switch (field.wire) {
      case 0: return varint(field.value) ? Result<Field>(field) : bad();
      case 1: return fixed(field, 8);
      case 5: return fixed(field, 4);
      case 2: break;
      default: return bad();
    }
    std::uint64_t size = 0;
    if (!varint(size) || size > rest_.size()) return bad();
    field.bytes = rest_.substr(0, static_cast<std::size_t>(size));
    rest_.remove_prefix(static_cast<std::size_t>(size));
    return field;
  }

 private:
  [[nodiscard]] static tl::unexpected<Error> bad() noexcept {
    return corrupt("from_sentencepiece", "not a protobuf message");
  }
  [[nodiscard]] bool varint(std::uint64_t& value) noexcept {
    for (unsigned shift = 0; shift < 64 && !rest_.empty(); shift += 7) {
      const auto byte = static_cast<std::uint8_t>(rest_[0]);
      rest_.remove_prefix(1);
      value |= std::uint64_t{byte & 127u} << shift;
      if (byte < 128) return true;
    }
    return false;
  }
  [[nodiscard]] Result<Field> fixed(Field& field, std::size_t size) noexcept {
    if (rest_.size() < size) return bad();
    std::memcpy(&field.value, rest_.data(), size);
    rest_.remove_prefix(size);
    return field;
  }

  std::string_view rest_;
};

// sentencepiece_model.proto: ModelProto.
class SentencePieceReader {
 public:
  [[nodiscard]] Result<Tokenizer> read(std::string_view bytes, const VocabularyVisitor* visitor = nullptr) noexcept {
    spec_.algorithm = Algorithm::unigram;
    spec_.unknown = 0;
    spec_.bos = 1;
    spec_.eos = 2;
    spec_.space_prefix = spec_.prefix_once = spec_.squeeze_spaces = true;
    for (Fields fields(bytes); !fields.done();) {
      const auto field = fields.next();
      if (!field) return fail(field.error());
      if (field->wire != 2) continue;
      auto ok = field->number == 1   ? read_piece(field->bytes)
                : field->number == 2 ? read_trainer(field->bytes)
                : field->number == 3 ? read_normalizer(field->bytes)
                                     : Status{};
      if (!ok) return fail(ok.error());
    }
    spec_.pieces = pieces_.span();
    spec_.scores = scores_.span();
    spec_.kinds = kinds_.span();
    for (std::int64_t* id : {&spec_.bos, &spec_.eos, &spec_.unknown}) {
      if (*id >= static_cast<std::int64_t>(pieces_.size())) *id = -1;
    }
    spec_.add_bos = spec_.bos >= 0;
    if (pieces_.empty()) return corrupt("from_sentencepiece", "no SentencePiece model: it has no pieces");
    return make_or_show(spec_, visitor);
  }

 private:
  [[nodiscard]] Status read_piece(std::string_view bytes) noexcept {
    std::string_view piece;
    float score = 0;
    std::int32_t kind = 1;
    for (Fields fields(bytes); !fields.done();) {
      const auto field = fields.next();
      if (!field) return fail(field.error());
      if (field->number == 1 && field->wire == 2) piece = field->bytes;
      if (field->number == 2 && field->wire == 5)
        score = std::bit_cast<float>(static_cast<std::uint32_t>(field->value));
      if (field->number == 3 && field->wire == 0) {
        if (field->value < 1 || field->value > 6)
          return corrupt("from_sentencepiece", "a piece of a kind that is not known");
        kind = static_cast<std::int32_t>(field->value);
      }
    }
    if (auto ok = pieces_.push(piece); !ok) return ok;
    if (auto ok = scores_.push(score); !ok) return ok;
    return kinds_.push(kind);
  }

  [[nodiscard]] Status read_trainer(std::string_view bytes) noexcept {
    for (Fields fields(bytes); !fields.done();) {
      const auto field = fields.next();
      if (!field) return fail(field.error());
      if (field->wire != 0) continue;
      const auto id = static_cast<std::int64_t>(field->value);  // a negative one is sign-extended
      switch (field->number) {
        case 3:
          if (field->value != 1 && field->value != 2)
            return fail(Errc::unsupported, "from_sentencepiece", "a model that is neither BPE nor unigram");
          spec_.algorithm = field->value == 2 ? Algorithm::char_bpe : Algorithm::unigram;
          break;
        case 24: spec_.space_suffix = field->value != 0; break;
        case 40: spec_.unknown = id; break;
        case 41: spec_.bos = id; break;
        case 42: spec_.eos = id; break;
        default: break;
      }
    }
    return {};
  }

  [[nodiscard]] Status read_normalizer(std::string_view bytes) noexcept {
    for (Fields fields(bytes); !fields.done();) {
      const auto field = fields.next();
      if (!field) return fail(field.error());
      if (field->number == 2 && field->wire == 2)
        spec_.character_map = std::as_bytes(std::span(field->bytes.data(), field->bytes.size()));
      if (field->wire != 0) continue;
      if (field->number == 3) spec_.space_prefix = field->value != 0;
      if (field->number == 4) spec_.squeeze_spaces = field->value != 0;
      if (field->number == 5) spec_.space_marker = field->value != 0;
    }
    return {};
  }

  VocabularySpec spec_;
  List<std::string_view> pieces_;
  List<float> scores_;
  List<std::int32_t> kinds_;
};

// The value of a base64 digit, or -1.
int base64_digit(char c) noexcept {
  if (c >= 'A' && c <= 'Z') return c - 'A';
  if (c >= 'a' && c <= 'z') return c - 'a' + 26;
  if (c >= '0' && c <= '9') return c - '0' + 52;
  return c == '+' ? 62 : c == '/' ? 63 : -1;
}

}  // namespace

Result<Tokenizer> from_sentencepiece(std::span<const std::byte> bytes) noexcept {
  return SentencePieceReader().read(text_of(bytes));
}

namespace {

// i32 longest piece, then for each piece f32 score, i32 size, bytes. Ids 0, 1, 2 are unknown, BOS and EOS; 3 to 258 the bytes.
Result<Tokenizer> read_llama2c(std::span<const std::byte> bytes, const VocabularyVisitor* visitor) noexcept {
  constexpr const char* op = "from_llama2c";
  constexpr std::int32_t k_first_byte = 3, k_first_piece = k_first_byte + 256;
  std::string_view rest = text_of(bytes);
  List<std::string_view> pieces;
  List<float> scores;
  List<std::int32_t> kinds;
  if (rest.size() < 4) return corrupt(op, "too short for a header");
  rest.remove_prefix(4);
  while (!rest.empty()) {
    float score = 0;
    std::int32_t size = 0;
    if (rest.size() < 8) return corrupt(op, "the file ends within a piece");
    std::memcpy(&score, rest.data(), 4);
    std::memcpy(&size, rest.data() + 4, 4);
    rest.remove_prefix(8);
    if (size < 0 || static_cast<std::size_t>(size) > rest.size())
      return corrupt(op, "a piece that is not inside the file");
    const auto id = static_cast<std::int32_t>(pieces.size());
    const PieceKind kind = id == 0              ? PieceKind::unknown
                           : id < k_first_byte  ? PieceKind::control
                           : id < k_first_piece ? PieceKind::byte
                                                : PieceKind::normal;
    if (auto ok = pieces.push(rest.substr(0, static_cast<std::size_t>(size))); !ok) return fail(ok.error());
    if (auto ok = scores.push(score); !ok) return fail(ok.error());
    if (auto ok = kinds.push(static_cast<std::int32_t>(kind)); !ok) return fail(ok.error());
    rest.remove_prefix(static_cast<std::size_t>(size));
  }
  if (pieces.size() < k_first_piece) return corrupt(op, "fewer pieces than 256 bytes and three special ones");
  return make_or_show({.algorithm = Algorithm::char_bpe,
                       .pieces = pieces.span(),
                       .scores = scores.span(),
                       .kinds = kinds.span(),
                       .bos = 1,
                       .eos = 2,
                       .unknown = 0,
                       .add_bos = true,
                       .space_prefix = true,
                       .space_marker = false},
                      visitor);
}

}  // namespace

Result<Tokenizer> from_llama2c(std::span<const std::byte> bytes) noexcept { return read_llama2c(bytes, nullptr); }

Result<Tokenizer> make_or_show(const VocabularySpec& spec, const VocabularyVisitor* visitor) noexcept {
  if (!visitor) return Tokenizer::create(spec);
  const Status shown = visitor->visit(visitor->user, spec);
  return shown ? Result<Tokenizer>(Tokenizer()) : fail(shown.error());
}

namespace {

// Lines of base64, a space and a rank, which is the id.
Result<Tokenizer> read_tiktoken(std::string_view text, std::string_view pre_tokenizer,
                                const VocabularyVisitor* visitor) noexcept {
  constexpr const char* op = "from_tiktoken";
  List<char> bytes;
  List<std::size_t> ends;
  if (auto ok = bytes.reserve(text.size()); !ok) return fail(ok.error());
  while (!text.empty()) {
    const std::string_view line = text.substr(0, text.find('\n'));
    text.remove_prefix(line.size() == text.size() ? line.size() : line.size() + 1);
    std::size_t at = 0;
    std::uint32_t bits = 0, held = 0;
    for (; at < line.size() && base64_digit(line[at]) >= 0; ++at) {
      bits = bits << 6 | static_cast<std::uint32_t>(base64_digit(line[at]));
      held += 6;
      if (held < 8) continue;
      held -= 8;
      if (auto ok = bytes.push(static_cast<char>(bits >> held & 255)); !ok) return fail(ok.error());
    }
    while (at < line.size() && line[at] == '=') ++at;
    std::size_t rank = 0, digits = 0;
    for (++at; at < line.size() && line[at] >= '0' && line[at] <= '9' && digits < 9; ++at, ++digits)
      rank = rank * 10 + static_cast<std::size_t>(line[at] - '0');
    at += at < line.size() && line[at] == '\r';
    if (digits == 0 || rank != ends.size() || at != line.size())
      return corrupt(op, "expected lines of base64 and ranks from 0 on");
    if (auto ok = ends.push(bytes.size()); !ok) return fail(ok.error());
  }
  List<std::string_view> pieces;
  List<float> scores;
  for (std::size_t i = 0; i < ends.size(); ++i) {
    const std::size_t begin = i ? ends[i - 1] : 0;
    if (auto ok = pieces.push({bytes.data() + begin, ends[i] - begin}); !ok) return fail(ok.error());
    if (auto ok = scores.push(-static_cast<float>(i)); !ok) return fail(ok.error());
  }
  if (visitor) {
    if (auto shown = show_ranks(pieces.span(), pre_tokenizer, *visitor); !shown) return fail(shown.error());
    return Tokenizer();
  }
  return Tokenizer::create({.pieces = pieces.span(),
                            .scores = scores.span(),
                            .pre_tokenizer = pre_tokenizer,
                            .raw_bytes = true,
                            .whole_words = true});
}

// The pre-tokenizers of rank files that are known, by their number of ranks: it is in the programs that come with them.
constexpr struct {
  std::size_t ranks;
  std::string_view pre_tokenizer;
} k_rank_files[] = {{50256, "gpt-2"},       // r50k_base
                    {50280, "gpt-2"},       // p50k_base
                    {100256, "cl100k"},     // cl100k_base
                    {199998, "o200k"},      // o200k_base
                    {128000, "llama-bpe"},  // Llama 3
                    {151643, "qwen2"}};     // Qwen

// Whether a file begins with a line of base64, a space and a 0.
bool is_rank_file(std::string_view text) noexcept {
  std::size_t at = 0;
  while (at < text.size() && (base64_digit(text[at]) >= 0 || text[at] == '=')) ++at;
  return at >= 4 && at % 4 == 0 &&
         (part_of(text, at, 3) == " 0\n" || part_of(text, at, 3) == " 0\r" || part_of(text, at) == " 0");
}

Result<Tokenizer> from_known_tiktoken(std::string_view text, const VocabularyVisitor* visitor = nullptr) noexcept {
  const auto lines = static_cast<std::size_t>(std::count(text.begin(), text.end(), '\n')) + !text.ends_with('\n');
  for (const auto& known : k_rank_files) {
    if (known.ranks == lines) return read_tiktoken(text, known.pre_tokenizer, visitor);
  }
  return fail(Errc::unsupported, "open", "a rank file of tiktoken that is not known: its pre-tokenizer is not in it",
              Dims{.extent = {static_cast<std::int64_t>(lines)}, .rank = 1});
}

}  // namespace

Result<Tokenizer> from_tiktoken(std::string_view text, std::string_view pre_tokenizer) noexcept {
  return read_tiktoken(text, pre_tokenizer, nullptr);
}

Result<Tokenizer> open(std::string_view path) noexcept {
  auto file = MappedFile::open(path);
  if (!file) return fail(file.error());
  const auto named = [&](Result<Tokenizer> made) -> Result<Tokenizer> {
    if (auto there = file->whole("open", path); !there) return fail(there.error());
    if (made || made.error().subject[0]) return made;
    return fail(made.error().about(path));
  };
  const auto bytes = file->bytes();
  const std::string_view text = text_of(bytes);
  const std::size_t begin = text.find_first_not_of(" \t\r\n");
  // A .model begins with a piece: field 1, a message. A llama2.c file begins with a length that is some dozens.
  if (text.starts_with("GGUF")) {
    auto gguf = io::read_gguf(path);
    if (!gguf) return fail(gguf.error());
    auto made = named(from_gguf(*gguf));
    if (auto there = gguf->whole(); !there) return fail(there.error().about(path));
    return made;
  }
  if (formats::is_native(bytes)) {
    auto native = formats::read_native(path);
    return native ? named(from_gguf(native->gguf)) : fail(native.error());
  }
  if (begin != text.npos && text[begin] == '{') return named(from_json(text));
  if (is_rank_file(text)) return named(from_known_tiktoken(text));
  const bool small_number = text.size() >= 4 && part_of(text, 1, 3) == std::string_view("\0\0\0", 3);
  if (text.starts_with('\n') && !small_number) return named(from_sentencepiece(bytes));
  return named(from_llama2c(bytes));
}

Status read_vocabulary(std::string_view path, const VocabularyVisitor& visitor) noexcept {
  auto file = MappedFile::open(path);
  if (!file) return fail(file.error());
  const auto bytes = file->bytes();
  const std::string_view text = text_of(bytes);
  const std::size_t begin = text.find_first_not_of(" \t\r\n");
  const bool small_number = text.size() >= 4 && part_of(text, 1, 3) == std::string_view("\0\0\0", 3);
  if (begin != text.npos && text[begin] == '{') return visit_json(text, visitor);
  const bool pieces = text.starts_with('\n') && !small_number;
  const auto shown = is_rank_file(text) ? from_known_tiktoken(text, &visitor)
                     : pieces           ? SentencePieceReader().read(text, &visitor)
                                        : read_llama2c(bytes, &visitor);
  return shown ? Status() : fail(shown.error().about(path));
}

}  // namespace qorus::text
