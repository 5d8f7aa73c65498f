// tokenizer.json of Hugging Face's tokenizers, read into a VocabularySpec. What the file asks for and this does not do
// is an error that names it, never a wrong id.
module;
#include <cmath>
module qorus.text;
import qorus.std;
import :json;
import :load;
import :model;
import :split;
import :pieces;
import :tokenizer;

namespace qorus::text {
namespace {

constexpr const char* k_op = "from_json";

tl::unexpected<Error> corrupt(const char* text, std::string_view subject = {}) noexcept {
  return fail(Errc::corrupt, k_op, text, subject);
}
tl::unexpected<Error> unsupported(const char* text, std::string_view subject = {}) noexcept {
  return fail(Errc::unsupported, k_op, text, subject);
}

class JsonReader {
 public:
  [[nodiscard]] Result<Tokenizer> read(std::string_view text, const VocabularyVisitor* visitor = nullptr) noexcept {
    if (auto ok = tree_.parse(text); !ok) return fail(ok.error());
    root_ = tree_.root();
    model_ = root_["model"];
    if (!model_.is(JsonType::object)) return corrupt("no tokenizer.json: it has no model");
    using Step = Status (JsonReader::*)();
    for (const Step step :
         {&JsonReader::read_algorithm, &JsonReader::read_pieces, &JsonReader::read_added, &JsonReader::read_merges,
          &JsonReader::read_normalizers, &JsonReader::read_pre_tokenizers, &JsonReader::find_ends}) {
      if (auto ok = (this->*step)(); !ok) return fail(ok.error());
    }
    spec_.pieces = pieces_.span();
    spec_.scores = scores_.span();
    spec_.kinds = kinds_.span();
    spec_.merges = merges_.span();
    spec_.strip_left = strip_left_.span();
    spec_.strip_right = strip_right_.span();
    if (!visitor) return Maker::make(spec_, splitter_);
    spec_.pre_tokenizer = name_of(splitter_, spec_.whole_words);
    return make_or_show(spec_, visitor);
  }

 private:
  [[nodiscard]] Status read_algorithm() noexcept {
    const std::string_view type = model_["type"].string();
    const JsonValue vocabulary = model_["vocab"], merges = model_["merges"];
    for (const char* key : {"continuing_subword_prefix", "end_of_word_suffix"}) {
      const std::string_view affix = model_[key].string();
      if (merges && !affix.empty()) return unsupported("a BPE with affixes", affix);
    }
    if (type == "Unigram" || (type.empty() && vocabulary.is(JsonType::array))) {
      spec_.algorithm = Algorithm::unigram;
    } else if (type == "BPE" || (type.empty() && merges)) {
      spec_.algorithm =
          mentions_bytes("pre_tokenizer") || mentions_bytes("decoder") ? Algorithm::byte_bpe : Algorithm::char_bpe;
    } else if (type == "WordPiece" || type.empty()) {
      spec_.algorithm = Algorithm::wordpiece;
      const std::string_view prefix = model_["continuing_subword_prefix"].string();
      if (!prefix.empty() && prefix != "##") return unsupported("a WordPiece with another prefix than ##", prefix);
    } else {
      return unsupported("a model that is not known", type);
    }
    spec_.fuse_unknown = spec_.algorithm == Algorithm::unigram || model_["fuse_unk"].flag(false);
    spec_.whole_words = model_["ignore_merges"].flag(false);
    return {};
  }

  // Whether a step, or one of its sequence, is ByteLevel.
  [[nodiscard]] bool mentions_bytes(const char* key) const noexcept {
    bool found = false;
    (void)each_step(root_[key], key, [&](const JsonValue& step) {
      found = found || step["type"].string() == "ByteLevel";
      return Status{};
    });
    return found;
  }

  // Calls visit for a step, or for each of a Sequence, which may not nest.
  template <class F>
  static Status each_step(const JsonValue& step, std::string_view list, F&& visit) noexcept {
    if (!step || step.is(JsonType::null)) return {};
    if (!step.is(JsonType::object)) return corrupt("a step that is no object");
    if (step["type"].string() != "Sequence") return visit(step);
    const char* const name = list == "pre_tokenizer" ? "pretokenizers" : list == "decoder" ? "decoders" : "normalizers";
    return step[name].each([&](const JsonValue& one) -> Status {
      if (one["type"].string() == "Sequence") return unsupported("a sequence within a sequence");
      return visit(one);
    });
  }

  // Puts a piece where its id says.
  [[nodiscard]] Status place(const JsonValue& id, std::string_view piece, std::int32_t kind) noexcept {
    const std::int64_t value = id.integer(-1);
    if (value < 0) return corrupt("a piece without an id", piece);
    if (static_cast<std::uint64_t>(value) >= most_) return corrupt("an id far beyond the number of pieces", piece);
    const auto at = static_cast<std::size_t>(value);
    while (pieces_.size() <= at) {
      if (auto ok = pieces_.push({}); !ok) return ok;
      if (auto ok = kinds_.push(static_cast<std::int32_t>(PieceKind::unused)); !ok) return ok;
    }
    if (pieces_[at].data() && pieces_[at] != piece) return corrupt("an id stands twice", piece);
    pieces_[at] = piece;
    kinds_[at] = kind;
    return {};
  }

  [[nodiscard]] Status read_pieces() noexcept {
    const JsonValue vocabulary = model_["vocab"];
    most_ = 4 * (vocabulary.size() + root_["added_tokens"].size()) + 1024;  // some vocabularies have gaps
    if (spec_.algorithm == Algorithm::unigram) return read_scored(vocabulary);
    if (!vocabulary.is(JsonType::object)) return corrupt("a vocabulary that is no object");
    const bool byte_pieces = model_["byte_fallback"].flag(false);
    auto placed = vocabulary.each_member([&](std::string_view piece, const JsonValue& id) -> Status {
      if (spec_.algorithm == Algorithm::wordpiece) {
        const auto marked = marked_word(piece);
        if (!marked) return fail(marked.error());
        piece = *marked;
      }
      return place(id, piece, kind_of(piece, byte_pieces));
    });
    if (!placed) return placed;
    return find_unknown(model_["unk_token"].string());
  }

  [[nodiscard]] Status find_unknown(std::string_view piece) noexcept {
    for (std::size_t i = 0; !piece.empty() && i < pieces_.size(); ++i) {
      if (pieces_[i] == piece) spec_.unknown = static_cast<std::int64_t>(i);
    }
    return {};
  }

  // Unigram: an array of pieces with their scores.
  [[nodiscard]] Status read_scored(const JsonValue& vocabulary) noexcept {
    if (!vocabulary.is(JsonType::array)) return corrupt("a vocabulary that is no array");
    const bool byte_pieces = model_["byte_fallback"].flag(false);
    auto read = vocabulary.each([&](const JsonValue& entry) -> Status {
      std::string_view piece;
      double score = NAN;
      (void)entry.each([&](const JsonValue& part) {
        if (part.is(JsonType::string)) piece = part.string();
        if (part.is(JsonType::number)) score = part.number(NAN);
        return Status{};
      });
      if (auto ok = pieces_.push(piece); !ok) return ok;
      if (auto ok = scores_.push(static_cast<float>(score)); !ok) return ok;
      return kinds_.push(kind_of(piece, byte_pieces));
    });
    spec_.unknown = model_["unk_id"].integer(-1);
    return read;
  }

  // Normal, or of a byte where the model has such pieces.
  [[nodiscard]] static std::int32_t kind_of(std::string_view piece, bool byte_pieces) noexcept {
    const bool byte = byte_pieces && piece.size() == 6 && piece.starts_with("<0x") && piece.ends_with('>');
    return static_cast<std::int32_t>(byte ? PieceKind::byte : PieceKind::normal);
  }

  // WordPiece: "##s" and "word" as "s" and U+2581 "word"; "[CLS]" stays.
  [[nodiscard]] Result<std::string_view> marked_word(std::string_view piece) noexcept {
    if (piece.starts_with("##")) return part_of(piece, 2);
    if (piece.starts_with('[') && piece.ends_with(']') && piece.size() > 2) return piece;
    constexpr std::string_view marker = "\xe2\x96\x81";
    return joined(marker, "", piece);
  }

  // A text of its own, which lives as long as this reader.
  [[nodiscard]] Result<std::string_view> joined(std::string_view a, std::string_view b, std::string_view c) noexcept {
    List<char> text;
    for (const std::string_view part : {a, b, c}) {
      if (auto ok = text.append(std::span(part.data(), part.size())); !ok) return fail(ok.error());
    }
    const std::string_view view(text.data(), text.size());
    if (auto ok = texts_.push(std::move(text)); !ok) return fail(ok.error());
    return view;
  }

  [[nodiscard]] Status read_added() noexcept {
    return root_["added_tokens"].each([&](const JsonValue& token) -> Status {
      const JsonValue content = token["content"], id = token["id"];
      if (!content.is(JsonType::string)) return corrupt("an added token without content");
      const auto kind = token["special"].flag(false) ? PieceKind::control : PieceKind::user_defined;
      if (auto ok = place(id, content.string(), static_cast<std::int32_t>(kind)); !ok) return ok;
      while (!scores_.empty() && scores_.size() < pieces_.size()) {
        if (auto ok = scores_.push(0); !ok) return ok;
      }
      const auto number = static_cast<std::int32_t>(id.integer(-1));
      if (token["lstrip"].flag(false)) {
        if (auto ok = strip_left_.push(number); !ok) return ok;
      }
      return token["rstrip"].flag(false) ? strip_right_.push(number) : Status{};
    });
  }

  // Strings "left right", or pairs.
  [[nodiscard]] Status read_merges() noexcept {
    return model_["merges"].each([&](const JsonValue& merge) -> Status {
      if (merge.is(JsonType::string)) return merges_.push(merge.string());
      std::string_view parts[2];
      std::size_t count = 0;
      (void)merge.each([&](const JsonValue& part) {
        if (count < 2) parts[count++] = part.string();
        return Status{};
      });
      const auto pair = joined(parts[0], " ", parts[1]);
      return pair ? merges_.push(*pair) : Status(fail(pair.error()));
    });
  }

  [[nodiscard]] Status read_normalizers() noexcept {
    return each_step(root_["normalizer"], "normalizer", [this](const JsonValue& step) -> Status {
      constexpr std::string_view marker = "\xe2\x96\x81";
      const std::string_view type = step["type"].string();
      if (type == "NFC") {
        spec_.compose = true;
      } else if (type == "Prepend" && step["prepend"].string() == marker) {
        spec_.space_prefix = true;
      } else if (type == "Replace" && step["content"].string() == marker && step["pattern"]["String"].string() == " ") {
        spec_.space_marker = true;
      } else if (type == "BertNormalizer") {
        spec_.lower_case = step["lowercase"].flag(true);
      } else {
        return unsupported("a normalizer that is not known", type);
      }
      return {};
    });
  }

  [[nodiscard]] Status read_pre_tokenizers() noexcept {
    return each_step(root_["pre_tokenizer"], "pre_tokenizer", [this](const JsonValue& step) -> Status {
      const std::string_view type = step["type"].string();
      if (type == "ByteLevel") {
        spec_.space_prefix = spec_.space_prefix || step["add_prefix_space"].flag(true);
        return step["use_regex"].flag(true) ? splitter_.add(Pattern::gpt2) : Status{};
      }
      if (type == "Digits")
        return splitter_.add(step["individual_digits"].flag(false) ? Pattern::number : Pattern::numbers);
      if (type == "Punctuation" && step["behavior"].string() == "Contiguous")
        return splitter_.add(Pattern::punctuation);
      if (type == "Split") return read_split(step);
      if (type == "BertPreTokenizer" && spec_.algorithm == Algorithm::wordpiece) return {};
      if (type == "Metaspace" && spec_.algorithm != Algorithm::byte_bpe) {
        const std::string_view scheme = step["prepend_scheme"].string();
        spec_.space_prefix = scheme.empty() ? step["add_prefix_space"].flag(true) : scheme != "never";
        spec_.prefix_once = scheme == "first";
        return {};
      }
      return unsupported("a pre-tokenizer that is not known", type);
    });
  }

  [[nodiscard]] Status read_split(const JsonValue& step) noexcept {
    const JsonValue pattern = step["pattern"];
    const std::string_view behavior = step["behavior"].string(), expression = pattern["Regex"].string();
    // Where spaces are spelled otherwise before, splitting at spaces is nothing.
    if (spec_.algorithm == Algorithm::char_bpe && pattern["String"].string() == " ") return {};
    const bool keeps_all = behavior == "Isolated" || (behavior == "Removed" && step["invert"].flag(false));
    if (expression.empty() || !keeps_all) return unsupported("a Split that is not known", behavior);
    const auto known = pattern_of_expression(expression);
    return known ? splitter_.add(*known) : fail(known.error());
  }

  // BOS and EOS: what the template puts before and after a text, or else what usually goes by such a name.
  [[nodiscard]] Status find_ends() noexcept {
    JsonValue post = root_["post_processor"];
    (void)post["processors"].each([&](const JsonValue& step) {
      if (step["type"].string() == "TemplateProcessing") post = step;
      return Status{};
    });
    bool after = false;
    (void)post["single"].each([&](const JsonValue& part) {
      after = after || part["Sequence"];
      if (const JsonValue special = part["SpecialToken"]) {
        const std::int64_t id = id_of(special["id"].string());
        (after ? spec_.eos : spec_.bos) = id;
        (after ? spec_.add_eos : spec_.add_bos) = id >= 0;
      }
      return Status{};
    });
    for (const char* name : {"<s>", "<|begin_of_text|>", "<bos>", "<|startoftext|>", "<|endoftext|>", "[CLS]"}) {
      if (spec_.bos < 0) spec_.bos = id_of(name);
    }
    for (const char* name : {"</s>", "<|end_of_text|>", "<eos>", "<|endoftext|>", "[SEP]"}) {
      if (spec_.eos < 0) spec_.eos = id_of(name);
    }
    return {};
  }

  [[nodiscard]] std::int64_t id_of(std::string_view piece) const noexcept {
    for (std::size_t i = 0; i < pieces_.size(); ++i) {
      if (pieces_[i] == piece && kinds_[i] != static_cast<std::int32_t>(PieceKind::normal))
        return static_cast<std::int64_t>(i);
    }
    return -1;
  }

  JsonTree tree_;
  JsonValue root_, model_;
  std::uint64_t most_ = 0;
  VocabularySpec spec_;
  Splitter splitter_;
  List<std::string_view> pieces_, merges_;
  List<float> scores_;
  List<std::int32_t> kinds_, strip_left_, strip_right_;
  List<List<char>> texts_;
};

}  // namespace

Result<Tokenizer> from_json(std::string_view text) noexcept { return JsonReader().read(text); }

Status visit_json(std::string_view text, const VocabularyVisitor& visitor) noexcept {
  const auto shown = JsonReader().read(text, &visitor);
  return shown ? Status() : fail(shown.error());
}

}  // namespace qorus::text
