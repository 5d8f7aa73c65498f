// Bodies of qorus.text:split: which patterns go by which name.
module qorus.text;
import qorus.std;
import :load;
import :split;

namespace qorus::text {
namespace {

struct Named {
  std::string_view name;
  std::initializer_list<Pattern> patterns;
};

using enum Pattern;
constexpr auto k_digits_gpt2 = {number, gpt2};
constexpr auto k_falcon = {punctuation, gpt2, digits3};
constexpr auto k_deepseek_llm = {newline, deepseek_letters, deepseek_marks, final_spaces, cjk, numbers};
constexpr auto k_deepseek_coder = {newline, spaced_letters, spaced_punctuation, cjk, number};
constexpr auto k_deepseek3 = {numbers3, cjk3, deepseek3};
constexpr auto k_default = {punctuation_old, gpt2, numbers, digits3};
constexpr auto k_bloom_digits = {bloom, number};
constexpr auto k_gpt2 = {gpt2};
constexpr auto k_llama3 = {llama3};
constexpr auto k_qwen2 = {qwen2};
constexpr auto k_gpt4o = {gpt4o};
constexpr auto k_tekken = {tekken};
constexpr auto k_bloom = {bloom};

// The names of tokenizer.ggml.pre, as llama.cpp's converter writes them.
constexpr Named k_names[] = {
    {"default", k_default},
    {"gpt-2", k_gpt2},
    {"gpt2", k_gpt2},
    {"phi-2", k_gpt2},
    {"jina-es", k_gpt2},
    {"jina-de", k_gpt2},
    {"jina-v1-en", k_gpt2},
    {"jina-v2-es", k_gpt2},
    {"jina-v2-de", k_gpt2},
    {"jina-v2-code", k_gpt2},
    {"gigachat", k_gpt2},
    {"roberta-bpe", k_gpt2},
    {"mpt", k_gpt2},
    {"olmo", k_gpt2},
    {"jais", k_gpt2},
    {"trillion", k_gpt2},
    {"granite-docling", k_gpt2},
    {"llama3", k_llama3},
    {"llama-v3", k_llama3},
    {"llama-bpe", k_llama3},
    {"falcon3", k_llama3},
    {"falcon-h1", k_llama3},
    {"pixtral", k_llama3},
    {"midm-2.0", k_llama3},
    {"lfm2", k_llama3},
    {"dbrx", k_llama3},
    {"smaug-bpe", k_llama3},
    {"chatglm-bpe", k_llama3},
    {"glm4", k_llama3},
    {"cl100k", k_llama3},
    {"qwen2", k_qwen2},
    {"stablelm2", k_qwen2},
    {"deepseek-r1-qwen", k_qwen2},
    {"megrez", k_qwen2},
    {"hunyuan", k_qwen2},
    {"solar-open", k_qwen2},
    {"grok-2", k_qwen2},
    {"gpt-4o", k_gpt4o},
    {"llama4", k_gpt4o},
    {"o200k", k_gpt4o},
    {"minimax-m2", k_gpt4o},
    {"tekken", k_tekken},
    {"falcon", k_falcon},
    {"starcoder", k_digits_gpt2},
    {"refact", k_digits_gpt2},
    {"command-r", k_digits_gpt2},
    {"smollm", k_digits_gpt2},
    {"codeshell", k_digits_gpt2},
    {"exaone", k_digits_gpt2},
    {"minerva-7b", k_digits_gpt2},
    {"mellum", k_digits_gpt2},
    {"deepseek-llm", k_deepseek_llm},
    {"deepseek-coder", k_deepseek_coder},
    {"deepseek-v3", k_deepseek3},
    {"hunyuan-dense", k_deepseek3},
    {"bloom", k_bloom},
    {"poro-chat", k_bloom},
    {"gpt3-finnish", k_bloom},
    {"viking", k_bloom_digits},
};

struct Expression {
  std::string_view text;
  Pattern pattern;
};
#define QORUS_LINES_OR_BLANKS R"(|\s*[\r\n]+|\s+(?!\S)|\s+)"
#define QORUS_UPPER R"([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}])"
#define QORUS_LOWER R"([\p{Ll}\p{Lm}\p{Lo}\p{M}])"
#define QORUS_SUFFIX R"((?i:'s|'t|'re|'ve|'m|'ll|'d)?)"
// As tokenizer.json files write them, newlines in their escaped form.
constexpr Expression k_expressions[] = {
    {R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)", gpt2},
    {R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S))", gpt2},
    {R"('(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)", gpt2},
    {R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*)" QORUS_LINES_OR_BLANKS,
     llama3},
    {R"('(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+)",
     llama3},
    {R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*)" QORUS_LINES_OR_BLANKS,
     qwen2},
    {R"('(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+)",
     qwen2},
    {QORUS_UPPER "*" QORUS_LOWER "+" QORUS_SUFFIX "|" QORUS_UPPER "+" QORUS_LOWER "*" QORUS_SUFFIX
                 R"(|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*)" QORUS_LINES_OR_BLANKS,
     gpt4o},
    {QORUS_UPPER "*" QORUS_LOWER "+|" QORUS_UPPER "+" QORUS_LOWER
                 R"(*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*)" QORUS_LINES_OR_BLANKS,
     tekken},
    {R"([!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*)" QORUS_LINES_OR_BLANKS,
     deepseek3},
    {R"( ?[^(\s|.,!?…。，、।۔،)]+)", bloom},
    {R"( ?[^(\s|[.,!?…。，、।۔،])]+)", bloom},
    {R"(\p{N})", number},
    {R"(\d)", number},
    {R"(\p{N}+)", numbers},
    {R"(\p{N}{1,3})", numbers3},
    {R"([0-9][0-9][0-9])", digits3},
    {R"([\r\n])", newline},
    {R"(\s+$)", final_spaces},
    {R"(\s?\p{L}+)", spaced_letters},
    {R"(\s?\p{P}+)", spaced_punctuation},
    {R"(\s?[!-/:-~！-／：-～‘-‟　-。]+)", deepseek_marks},
    {R"([一-龥ࠀ-一가-퟿]+)", cjk},
    {R"([一-龥぀-ゟ゠-ヿ]+)", cjk3},
};
#undef QORUS_LINES_OR_BLANKS
#undef QORUS_UPPER
#undef QORUS_LOWER
#undef QORUS_SUFFIX

// Whether an expression, its newlines perhaps unescaped, is this one.
bool same(std::string_view expression, std::string_view known) noexcept {
  for (const char c : expression) {
    const std::string_view wanted = c == '\n' ? "\\n" : c == '\r' ? "\\r" : std::string_view(&c, 1);
    if (!known.starts_with(wanted)) return false;
    known.remove_prefix(wanted.size());
  }
  return known.empty();
}

}  // namespace

Status Splitter::add(Pattern pattern) noexcept {
  if (count == k_most) return fail(Errc::unsupported, "tokenizer", "a pre-tokenizer of more than 8 steps");
  patterns[count++] = pattern;
  keeps_words = keeps_words && pattern != gpt4o && pattern != tekken;
  return {};
}

Result<Splitter> splitter_of(std::string_view names) noexcept {
  Splitter splitter;
  while (!names.empty()) {
    const std::string_view name = names.substr(0, names.find(','));
    names.remove_prefix(name.size() == names.size() ? name.size() : name.size() + 1);
    const Named* found = nullptr;
    for (const Named& known : k_names) {
      if (known.name == name) found = &known;
    }
    if (!found) return fail(Errc::unsupported, "tokenizer", "a pre-tokenizer that is not known", name);
    for (const Pattern pattern : found->patterns) {
      if (auto ok = splitter.add(pattern); !ok) return fail(ok.error());
    }
  }
  return splitter;
}

std::string_view name_of(const Splitter& splitter, bool whole_words) noexcept {
  if (splitter.count == 1 && splitter.patterns[0] == llama3) return whole_words ? "llama-bpe" : "smaug-bpe";
  for (const Named& known : k_names) {
    if (std::equal(known.patterns.begin(), known.patterns.end(), splitter.patterns.begin(),
                   splitter.patterns.begin() + splitter.count))
      return known.name;
  }
  return {};
}

Result<List<std::string_view>> expressions_of(std::string_view pre_tokenizer) noexcept {
  const auto splitter = splitter_of(pre_tokenizer);
  if (!splitter) return fail(splitter.error());
  List<std::string_view> all;
  for (std::size_t i = 0; i < splitter->count; ++i) {
    const Expression* found = nullptr;
    for (const Expression& known : k_expressions) {
      if (!found && known.pattern == splitter->patterns[i]) found = &known;
    }
    if (!found) return fail(Errc::unsupported, "tokenizer", "a pre-tokenizer without an expression", pre_tokenizer);
    if (auto kept = all.push(found->text); !kept) return fail(kept.error());
  }
  return all;
}

Result<Pattern> pattern_of_expression(std::string_view expression) noexcept {
  for (const Expression& known : k_expressions) {
    if (same(expression, known.text)) return known.pattern;
  }
  // The list of DeepSeek's letters is long: its begin says enough.
  if (expression.starts_with(R"(\s?[A-Za-zµÀ-ÖØ-öø-ƺƼ-ƿǄ-ʓʕ-ʯͰ-ͳͶͷ)")) return deepseek_letters;
  return fail(Errc::unsupported, "tokenizer", "a pre-tokenizer's expression that is not known", expression);
}

}  // namespace qorus::text
