// Bodies of qorus.text:gguf.
module;
#include <cstdint>
module qorus.text;
import qorus.std;
import qorus.io;
import :gguf;
import :tokenizer;

namespace qorus::text {
namespace {

constexpr const char* k_op = "from_gguf";

// What a kind of model takes for granted. Ids beyond the vocabulary are none.
struct Defaults {
  std::string_view model;
  Algorithm algorithm;
  std::int64_t bos, eos, unknown;
  bool add_bos, add_eos, space_prefix;
};
constexpr Defaults k_defaults[] = {
    {"gpt2", Algorithm::byte_bpe, 11, 11, -1, false, false, false},
    {"llama", Algorithm::char_bpe, 1, 2, 0, true, false, true},
    {"t5", Algorithm::unigram, -1, 1, 2, false, true, true},
    {"bert", Algorithm::wordpiece, 101, 102, 100, true, true, false},
};

// Pre-tokenizers of models in which a word that is a piece is not merged, and which begin with a BOS.
constexpr std::string_view k_whole_words[] = {"llama3",  "llama-v3", "llama-bpe", "falcon3", "falcon-h1",
                                              "pixtral", "midm-2.0", "lfm2",      "tekken",  "llama4"};

class GgufVocabulary {
 public:
  explicit GgufVocabulary(const io::Gguf& file) noexcept : file_(file) {}

  [[nodiscard]] Result<Tokenizer> read() noexcept {
    using Step = Status (GgufVocabulary::*)();
    for (const Step step : {&GgufVocabulary::read_model, &GgufVocabulary::read_pieces, &GgufVocabulary::read_ids,
                            &GgufVocabulary::read_flags}) {
      if (auto ok = (this->*step)(); !ok) return fail(ok.error());
    }
    return Tokenizer::create(spec_);
  }

 private:
  [[nodiscard]] Status read_model() noexcept {
    const auto model = file_.text("tokenizer.ggml.model");
    if (!model) return fail(model.error());
    const auto* found = std::find_if(std::begin(k_defaults), std::end(k_defaults),
                                     [&](const Defaults& d) { return d.model == *model; });
    if (found == std::end(k_defaults))
      return fail(Errc::unsupported, k_op, "a kind of vocabulary that is not known", *model);
    const auto pre = file_.text("tokenizer.ggml.pre", "default");
    if (!pre) return fail(pre.error());
    const bool whole = found->algorithm == Algorithm::byte_bpe &&
                       std::find(std::begin(k_whole_words), std::end(k_whole_words), *pre) != std::end(k_whole_words);
    spec_.algorithm = found->algorithm;
    spec_.pre_tokenizer = *pre;
    spec_.bos = found->bos;
    spec_.eos = found->eos;
    spec_.unknown = found->unknown;
    spec_.add_bos = found->add_bos || whole;
    spec_.add_eos = found->add_eos;
    spec_.space_prefix = found->space_prefix;
    spec_.whole_words = whole;
    return {};
  }

  [[nodiscard]] Status read_pieces() noexcept {
    const auto pieces = file_.texts("tokenizer.ggml.tokens");
    if (!pieces) return fail(pieces.error());
    spec_.pieces = (*pieces)->span();
    if (file_.metadata("tokenizer.ggml.scores")) {
      auto scores = file_.reals("tokenizer.ggml.scores");
      if (!scores) return fail(scores.error());
      scores_ = std::move(*scores);
      spec_.scores = scores_.span();
    }
    if (file_.metadata("tokenizer.ggml.token_type")) {
      auto kinds = file_.integers("tokenizer.ggml.token_type");
      if (!kinds) return fail(kinds.error());
      kinds_ = std::move(*kinds);
      spec_.kinds = kinds_.span();
    }
    if (spec_.algorithm != Algorithm::byte_bpe) return {};
    const auto merges = file_.texts("tokenizer.ggml.merges");
    if (!merges) return fail(merges.error());
    spec_.merges = (*merges)->span();
    return {};
  }

  [[nodiscard]] Status read_ids() noexcept {
    const auto count = static_cast<std::int64_t>(spec_.pieces.size());
    const struct {
      std::string_view key;
      std::int64_t& id;
    } ids[] = {
        {"tokenizer.ggml.bos_token_id", spec_.bos},
        {"tokenizer.ggml.cls_token_id", spec_.bos},
        {"tokenizer.ggml.eos_token_id", spec_.eos},
        {"tokenizer.ggml.seperator_token_id", spec_.eos},  // spelled so in the format
        {"tokenizer.ggml.unknown_token_id", spec_.unknown},
    };
    for (const auto& id : ids) {
      if (id.id >= count) id.id = -1;  // what a kind of model takes for granted
    }
    for (const auto& id : ids) {
      const bool bert = spec_.algorithm == Algorithm::wordpiece;
      const bool berts = id.key.find("cls_") != id.key.npos || id.key.find("sep") != id.key.npos;
      if (!file_.metadata(id.key) || (berts && !bert)) continue;
      const auto value = file_.u32(id.key);
      if (!value) return fail(value.error());
      id.id = *value == UINT32_MAX ? -1 : static_cast<std::int64_t>(*value);  // how some files say "none"
    }
    return {};
  }

  [[nodiscard]] Status read_flags() noexcept {
    const struct {
      std::string_view key;
      bool& flag;
    } flags[] = {
        {"tokenizer.ggml.add_bos_token", spec_.add_bos},
        {"tokenizer.ggml.add_eos_token", spec_.add_eos},
        {"tokenizer.ggml.add_space_prefix", spec_.space_prefix},
        {"tokenizer.ggml.remove_extra_whitespaces", spec_.squeeze_spaces},
    };
    for (const auto& flag : flags) {
      const auto value = file_.boolean(flag.key, flag.flag);
      if (!value) return fail(value.error());
      flag.flag = *value;
    }
    if (spec_.algorithm == Algorithm::char_bpe) spec_.squeeze_spaces = false;  // as llama.cpp has it: for unigram only
    const io::GgufEntry* map = file_.metadata("tokenizer.ggml.precompiled_charsmap");
    if (!map || spec_.algorithm != Algorithm::unigram) return {};
    if (!map->array || (map->type != io::GgufType::u8 && map->type != io::GgufType::i8))
      return fail(Errc::invalid_dtype, k_op, "expected an array of bytes", map->key);
    spec_.character_map = {map->data, map->count};
    return {};
  }

  const io::Gguf& file_;
  VocabularySpec spec_;
  List<float> scores_;
  List<std::int32_t> kinds_;
};

}  // namespace

Result<Tokenizer> from_gguf(const io::Gguf& file) noexcept { return GgufVocabulary(file).read(); }

Status put_vocabulary(io::GgufWriter& writer, const VocabularySpec& spec) noexcept {
  const auto* model = std::find_if(std::begin(k_defaults), std::end(k_defaults),
                                   [&](const Defaults& d) { return d.algorithm == spec.algorithm; });
  if (model == std::end(k_defaults) || spec.raw_bytes || !spec.character_map.empty() || spec.space_suffix ||
      spec.prefix_once || spec.compose || !spec.strip_left.empty() || !spec.strip_right.empty())
    return fail(Errc::unsupported, "put_vocabulary", "a setting that GGUF has no key for");
  Status done = writer.put_text("tokenizer.ggml.model", model->model);
  const auto put = [&](const char* key, auto value) {
    if (done) done = writer.put(key, value);
  };
  if (done && spec.algorithm == Algorithm::byte_bpe) {
    done = writer.put_text("tokenizer.ggml.pre", spec.pre_tokenizer.empty() ? "default" : spec.pre_tokenizer);
    put("tokenizer.ggml.merges", spec.merges);  // none, too: readers want the key
  }
  put("tokenizer.ggml.tokens", spec.pieces);
  if (!spec.scores.empty()) put("tokenizer.ggml.scores", spec.scores);
  if (!spec.kinds.empty()) put("tokenizer.ggml.token_type", spec.kinds);
  const std::pair<const char*, std::int64_t> ids[] = {{"tokenizer.ggml.bos_token_id", spec.bos},
                                                      {"tokenizer.ggml.eos_token_id", spec.eos},
                                                      {"tokenizer.ggml.unknown_token_id", spec.unknown}};
  for (const auto& [key, id] : ids) {
    if (id >= 0) put(key, static_cast<std::uint32_t>(id));
  }
  const std::pair<const char*, bool> flags[] = {{"tokenizer.ggml.add_bos_token", spec.add_bos},
                                                {"tokenizer.ggml.add_eos_token", spec.add_eos},
                                                {"tokenizer.ggml.add_space_prefix", spec.space_prefix},
                                                {"tokenizer.ggml.remove_extra_whitespaces", spec.squeeze_spaces}};
  for (const auto& [key, flag] : flags) {
    if (done) done = writer.put_bool(key, flag);
  }
  return done;
}

Status put_vocabulary(io::GgufWriter& writer, const io::Gguf& from) noexcept {
  if (!from.metadata("tokenizer.ggml.tokens"))
    return fail(Errc::not_found, "put_vocabulary", "the file has no vocabulary", "tokenizer.ggml.tokens");
  for (const io::GgufEntry& entry : from.metadata()) {
    if (!entry.key.starts_with("tokenizer.")) continue;
    if (auto done = writer.put(entry); !done) return done;
  }
  return {};
}

}  // namespace qorus::text
