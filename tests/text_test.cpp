// qorus.text on small vocabularies made here: each algorithm, special pieces, decoding by pieces, texts that are hard, vocabularies that lie.
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "tests/testing.h"

import qorus.text;

using namespace qorus;
using text::PieceKind;
using Ids = std::vector<std::int32_t>;

namespace {

// A vocabulary that owns its texts.
struct Vocabulary {
  std::vector<std::string> pieces, merges;
  std::vector<float> scores;
  std::vector<std::int32_t> kinds;
  text::VocabularySpec spec;

  void add(const std::string& piece, PieceKind kind = PieceKind::normal, float score = 0) {
    pieces.push_back(piece);
    kinds.push_back(static_cast<std::int32_t>(kind));
    scores.push_back(score);
  }
  Result<text::Tokenizer> create() {
    const std::vector<std::string_view> piece_views(pieces.begin(), pieces.end()),
        merge_views(merges.begin(), merges.end());
    spec.pieces = piece_views;
    spec.merges = merge_views;
    spec.kinds = kinds;
    spec.scores = scores;
    return text::Tokenizer::create(spec);
  }
};

std::string utf8(unsigned code) {
  if (code < 0x80) return {static_cast<char>(code)};
  return {static_cast<char>(0xc0 | code >> 6), static_cast<char>(0x80 | (code & 63))};
}
// How byte-level vocabularies spell bytes.
std::string spelled(const std::string& bytes) {
  std::string made;
  for (const char c : bytes) {
    const auto b = static_cast<unsigned char>(c);
    if ((b >= 33 && b <= 126) || (b >= 161 && b != 173))
      made += utf8(b);
    else
      made += utf8(256 + (b < 33 ? b : b < 161 ? b - 127 + 33 : 67));
  }
  return made;
}

// All 256 bytes, and what the merges make: "l o", "lo w", ...
Vocabulary byte_vocabulary(const std::vector<std::pair<std::string, std::string>>& merges) {
  Vocabulary v;
  for (int b = 0; b < 256; ++b) v.add(spelled({static_cast<char>(b)}));
  for (const auto& [left, right] : merges) {
    v.add(spelled(left + right));
    v.merges.push_back(spelled(left) + " " + spelled(right));
  }
  v.spec.pre_tokenizer = "gpt-2";
  return v;
}
Vocabulary english() {
  return byte_vocabulary(
      {{"l", "o"}, {"lo", "w"}, {" ", "low"}, {"a", "a"}, {"aa", "aa"}, {" ", " "}, {"  ", "  "}, {"e", "r"}});
}
// Characters with scores and bytes to fall back on.
Vocabulary characters() {
  Vocabulary v;
  v.spec.algorithm = text::Algorithm::char_bpe;
  v.spec.space_prefix = true;
  v.spec.unknown = 0;
  v.spec.bos = 1;
  v.spec.eos = 2;
  v.add("<unk>", PieceKind::unknown);
  v.add("<s>", PieceKind::control);
  v.add("</s>", PieceKind::control);
  char name[8];
  for (int b = 0; b < 256; ++b) {
    std::snprintf(name, sizeof name, "<0x%02X>", b);
    v.add(name, PieceKind::byte);
  }
  float score = 0;
  for (const char* piece : {"▁a", "ab", "▁ab", "▁▁", "aa", "▁", "a", "b", "c", "é"})
    v.add(piece, PieceKind::normal, score -= 1);
  return v;
}

Ids encode(const Result<text::Tokenizer>& tokenizer, std::string_view text, const text::EncodeOptions& options = {}) {
  const auto ids = tokenizer->encode(text, options);
  EXPECT_OK(ids);
  return ids ? Ids(ids->begin(), ids->end()) : Ids();
}
std::string decode(const Result<text::Tokenizer>& tokenizer, const Ids& ids, const text::DecodeOptions& options = {}) {
  const auto made = tokenizer->decode(ids, options);
  EXPECT_OK(made);
  return made ? std::string(made->begin(), made->end()) : std::string();
}
std::vector<std::string> pieces(const Result<text::Tokenizer>& tokenizer, std::string_view text) {
  std::vector<std::string> made;
  for (const auto id : encode(tokenizer, text)) made.emplace_back(tokenizer->piece(id));
  return made;
}
using Pieces = std::vector<std::string>;

std::string random_bytes(std::size_t size, std::uint32_t seed) {
  std::string made;
  for (std::size_t i = 0; i < size; ++i) {
    seed = seed * 1664525 + 1013904223;
    made += static_cast<char>(seed >> 24);
  }
  return made;
}
double seconds_of(const auto& work) {
  const auto start = std::chrono::steady_clock::now();
  work();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

}  // namespace

TEST(Text, MergesInTheOrderOfTheirRanks) {
  const auto tokenizer = english().create();
  ASSERT_OK(tokenizer);
  EXPECT_EQ(pieces(tokenizer, "low lower aaaaa"), (Pieces{"low", "Ġlow", "er", "Ġ", "aaaa", "a"}));
  EXPECT_EQ(encode(tokenizer, ""), Ids{});
  EXPECT_EQ(tokenizer->id_of("Ġlow"), 258);
  EXPECT_EQ(tokenizer->id_of("none"), -1);
  EXPECT_EQ(tokenizer->piece(-1), "");
  EXPECT_EQ(tokenizer->piece(1 << 30), "");
}

TEST(Text, AnyBytesComeBack) {
  const auto bytes = english().create();
  const auto chars = characters().create();
  ASSERT_OK(bytes);
  ASSERT_OK(chars);
  for (std::uint32_t seed = 0; seed < 50; ++seed) {
    const std::string text = random_bytes(seed * 37, seed);
    EXPECT_EQ(decode(bytes, encode(bytes, text)), text);
    EXPECT_EQ(decode(chars, encode(chars, text)), text);
  }
  for (const std::string text :
       {"\xff\xfe", "a\xc3", "\xe2\x82", "\xf0\x9f\x98", "\xc0\x80", "\xed\xa0\x80", "caf\xc3\xa9 \xc3\x28"}) {
    EXPECT_EQ(decode(bytes, encode(bytes, text)), text);
    EXPECT_EQ(decode(chars, encode(chars, text)), text);
  }
}

// The way through the heap and the way of short words are the same: a word of 64 bytes and one of 65 begin alike.
TEST(Text, LongWordsMergeLikeShortOnes) {
  const auto tokenizer = english().create();
  ASSERT_OK(tokenizer);
  for (std::size_t size = 1; size < 200; ++size) {
    Ids expected(size / 4, tokenizer->id_of("aaaa"));
    if (size % 4 >= 2) expected.push_back(tokenizer->id_of("aa"));
    if (size % 2) expected.push_back(tokenizer->id_of("a"));
    EXPECT_EQ(encode(tokenizer, std::string(size, 'a')), expected) << size;
  }
}

TEST(Text, HardTextsTakeLinearTime) {
  const auto bytes = english().create();
  const auto chars = characters().create();
  ASSERT_OK(bytes);
  ASSERT_OK(chars);
  const std::string spaces(100000, ' '), letters(1000000, 'a'), both = "x" + spaces + "x", lines(300000, '\n');
  std::string mixed;
  for (int i = 0; i < 100000; ++i) mixed += " \n\t ";
  std::string apostrophes(500000, '\''), wide;
  for (int i = 0; i < 200000; ++i) wide += "\xcc\x81";
  for (const std::string& text : {spaces, letters, both, lines, mixed, apostrophes, wide}) {
    for (const auto* tokenizer : {&bytes, &chars}) {
      Ids ids;
      EXPECT_LT(seconds_of([&] { ids = encode(*tokenizer, text); }), 10.0) << text.substr(0, 8);
      EXPECT_EQ(decode(*tokenizer, ids), text);
    }
  }
}

TEST(Text, EveryPreTokenizerKeepsAllAndIsLinear) {
  const char* names[] = {"default",   "gpt-2", "llama-bpe",    "qwen2",          "gpt-4o",      "tekken", "falcon",
                         "starcoder", "bloom", "deepseek-llm", "deepseek-coder", "deepseek-v3", "viking"};
  std::string letters(300000, 'a'), capitals(300000, 'A'), digits(300000, '7'), spaces(300000, ' '), mixed;
  for (int i = 0; i < 60000; ++i)
    mixed +=
        "\xe3\x81\x82"
        "A\xcc\x81 .";
  for (const char* name : names) {
    SCOPED_TRACE(name);
    Vocabulary v = english();
    v.spec.pre_tokenizer = name;
    const auto tokenizer = v.create();
    ASSERT_OK(tokenizer);
    for (const std::string& text : {letters, capitals, digits, spaces, spaces + "x", mixed, random_bytes(100000, 9)}) {
      Ids ids;
      EXPECT_LT(seconds_of([&] { ids = encode(tokenizer, text); }), 10.0);
      EXPECT_EQ(decode(tokenizer, ids), text);
    }
  }
  Vocabulary unknown = english();
  unknown.spec.pre_tokenizer = "no-such";
  EXPECT_FAILS_SAYING(unknown.create(), "no-such");
}

// Words as the patterns cut them: with a vocabulary in which every word is one piece, ids are words.
TEST(Text, PreTokenizersCutAsTheirExpressionsDo) {
  const struct {
    const char* name;
    const char* text;
    Pieces words;
  } cases[] = {
      {"gpt-2",
       "I'll GO'LL 123 a1  b\n\nc ",
       {"I", "'ll", " GO", "'", "LL", " 123", " a", "1", " ", " b", "\n", "\n", "c", " "}},
      {"llama-bpe",
       "GO'LL 12345 .b\r\n\n  x!?\n",
       {"GO", "'LL", " ", "123", "45", " .", "b", "\r\n\n", " ", " x", "!?\n"}},
      {"qwen2", "a12 (b)", {"a", "1", "2", " (", "b", ")"}},
      {"starcoder", "a12 34", {"a", "1", "2", " ", "3", "4"}},
      {"falcon", "a+b 12345 x", {"a", "+", "b", " ", "123", "45", " x"}},
      {"gpt-4o", "HelloWorld ABCdef IT's", {"Hello", "World", " ABCdef", " IT's"}},
      {"tekken", "HelloWorld 12", {"Hello", "World", " ", "1", "2"}},
      {"deepseek-coder", "a b, c 12\nd", {"a", " b", ",", " c", " ", "1", "2", "\n", "d"}},
      {"deepseek-v3", "x=.get 1234", {"x", "=.", "get", " ", "123", "4"}},
      {"bloom", "a b, c", {"a", " b", ",", " c"}},
  };
  for (const auto& one : cases) {
    SCOPED_TRACE(one.name);
    Vocabulary v = byte_vocabulary({});
    std::string joined;
    for (const std::string& word : one.words) {
      joined += word;
      bool known = false;
      for (const std::string& piece : v.pieces) known = known || piece == spelled(word);
      if (!known) v.add(spelled(word));
    }
    EXPECT_EQ(joined, one.text);
    v.merges.push_back("a b");
    bool ab = false;
    for (const std::string& piece : v.pieces) ab = ab || piece == "ab";
    if (!ab) v.add("ab");
    v.spec.pre_tokenizer = one.name;
    v.spec.whole_words = true;
    const auto tokenizer = v.create();
    ASSERT_OK(tokenizer);
    Pieces found;
    for (const auto id : encode(tokenizer, one.text)) found.push_back(decode(tokenizer, {id}));
    EXPECT_EQ(found, one.words);
  }
}

TEST(Text, CharactersMergeByScoreAndFallBackOnBytes) {
  const auto tokenizer = characters().create();
  ASSERT_OK(tokenizer);
  EXPECT_EQ(pieces(tokenizer, "ab"), (Pieces{"▁ab"}));  // by way of ▁a, whose score is above that of ab
  EXPECT_EQ(pieces(tokenizer, "cab"), (Pieces{"▁", "c", "ab"}));
  EXPECT_EQ(pieces(tokenizer, "é€"), (Pieces{"▁", "é", "<0xE2>", "<0x82>", "<0xAC>"}));
  EXPECT_EQ(encode(tokenizer, "", {.bos = true, .eos = true}), (Ids{1, 2}));
  EXPECT_EQ(decode(tokenizer, encode(tokenizer, " a  b", {.bos = true})), " a  b");
  EXPECT_EQ(decode(tokenizer, {tokenizer->id_of("▁a")}, {.continues = true}), " a");
  // Control pieces in the text are text, unless asked for; then a prefix follows them as at the begin.
  EXPECT_EQ(decode(tokenizer, encode(tokenizer, "<s>a")), "<s>a");
  EXPECT_EQ(encode(tokenizer, "<s>a", {.special = true}), (Ids{1, tokenizer->id_of("▁a")}));
  EXPECT_EQ(decode(tokenizer, {1}, {.special = true}), "<s>");
  EXPECT_EQ(decode(tokenizer, {1}), "");
}

TEST(Text, WithoutBytesNeighboursAreOneUnknownPiece) {
  Vocabulary v = characters();
  for (auto& kind : v.kinds)
    kind = kind == static_cast<int>(PieceKind::byte) ? static_cast<int>(PieceKind::unused) : kind;
  const auto tokenizer = v.create();
  ASSERT_OK(tokenizer);
  EXPECT_EQ(pieces(tokenizer, "a€xyz"), (Pieces{"▁a", "<unk>"}));
  v.spec.unknown = -1;
  const auto strict = v.create();
  ASSERT_OK(strict);
  List<std::int32_t> ids;
  ASSERT_OK(ids.push(7));
  EXPECT_FAILS(strict->encode("a€", {}, ids), Errc::invalid_argument);
  EXPECT_EQ(ids.size(), 1u);
}

TEST(Text, UserDefinedPiecesAreAlwaysFoundTheLongestFirst) {
  Vocabulary v = english();
  v.add("<|x|>", PieceKind::control);
  v.add("<tool>", PieceKind::user_defined);
  v.add("<tool>s", PieceKind::user_defined);
  const std::int32_t strip[] = {static_cast<std::int32_t>(v.pieces.size() - 3)};
  v.spec.strip_left = v.spec.strip_right = strip;
  const auto tokenizer = v.create();
  ASSERT_OK(tokenizer);
  EXPECT_EQ(pieces(tokenizer, "a<tool>s<tool>b"), (Pieces{"a", "<tool>s", "<tool>", "b"}));
  EXPECT_EQ(encode(tokenizer, "<|x|>").size(), 5u);
  EXPECT_EQ(encode(tokenizer, "a  <|x|>\nb", {.special = true}), (Ids{'a' - 0, strip[0], 'b' - 0}));
  EXPECT_TRUE(tokenizer->is_control(strip[0]));
}

// As SentencePiece has it: the text goes on after such a piece, with no prefix of its own and with its spaces.
TEST(Text, APrefixMayComeOnce) {
  Vocabulary v = characters();
  v.add("<x>", PieceKind::user_defined);
  v.spec.prefix_once = v.spec.squeeze_spaces = true;
  const auto tokenizer = v.create();
  ASSERT_OK(tokenizer);
  EXPECT_EQ(pieces(tokenizer, "a<x>a"), (Pieces{"▁a", "<x>", "a"}));
  EXPECT_EQ(pieces(tokenizer, "<x>"), (Pieces{"▁", "<x>"}));
  EXPECT_EQ(pieces(tokenizer, "  a  <x>  b <x> "), (Pieces{"▁a", "▁", "<x>", "▁", "b", "▁", "<x>"}));
  v.spec.prefix_once = v.spec.squeeze_spaces = false;
  const auto each = v.create();
  ASSERT_OK(each);
  EXPECT_EQ(pieces(each, "a<x>a"), (Pieces{"▁a", "<x>", "▁a"}));
}

TEST(Text, UnigramTakesTheMostProbablePath) {
  Vocabulary v;
  v.spec = {.algorithm = text::Algorithm::unigram, .unknown = 0, .space_prefix = true, .squeeze_spaces = true};
  v.add("<unk>", PieceKind::unknown);
  v.add("▁", PieceKind::normal, -3);
  v.add("▁ab", PieceKind::normal, -2.5f);
  v.add("a", PieceKind::normal, -4);
  v.add("b", PieceKind::normal, -4);
  v.add("abab", PieceKind::normal, -3);
  const auto tokenizer = v.create();
  ASSERT_OK(tokenizer);
  EXPECT_EQ(pieces(tokenizer, "ab"), (Pieces{"▁ab"}));
  EXPECT_EQ(pieces(tokenizer, "  abab  ab "), (Pieces{"▁", "abab", "▁ab"}));
  EXPECT_EQ(pieces(tokenizer, "abxyé"), (Pieces{"▁ab", "<unk>"}));
  EXPECT_EQ(encode(tokenizer, "   "), Ids{});
  std::string text(300000, 'b');
  EXPECT_LT(seconds_of([&] { (void)encode(tokenizer, text); }), 10.0);
}

TEST(Text, WordPieceTakesTheLongestPieceFirst) {
  Vocabulary v;
  v.spec = {.algorithm = text::Algorithm::wordpiece, .bos = 1, .eos = 2, .unknown = 0};
  v.add("[UNK]", PieceKind::unknown);
  v.add("[CLS]", PieceKind::control);
  v.add("[SEP]", PieceKind::control);
  for (const char* piece : {"▁un", "aff", "▁affable", "able", "▁,", "▁cafe", "▁我"}) v.add(piece);
  const auto tokenizer = v.create();
  ASSERT_OK(tokenizer);
  EXPECT_EQ(pieces(tokenizer, "UNaffable,affable"), (Pieces{"▁un", "aff", "able", "▁,", "▁affable"}));
  EXPECT_EQ(pieces(tokenizer, "Café 我我 unx"), (Pieces{"▁cafe", "▁我", "▁我", "[UNK]"}));
  EXPECT_EQ(encode(tokenizer, "", {.bos = true, .eos = true}), (Ids{1, 2}));
  EXPECT_EQ(decode(tokenizer, encode(tokenizer, "unaffable cafe")), "unaffable cafe");
}

TEST(Text, StreamsNeverSplitACharacter) {
  const auto tokenizer = english().create();
  ASSERT_OK(tokenizer);
  const std::string text = "a€😀é low\xff z\xe2\x82";
  text::StreamDecoder stream(*tokenizer);
  std::vector<std::string> parts;
  for (const auto id : encode(tokenizer, text)) {
    const auto part = stream.next(id);
    ASSERT_OK(part);
    if (!part->empty()) parts.emplace_back(*part);
  }
  const std::string_view rest = stream.finish();
  EXPECT_EQ(parts, (std::vector<std::string>{"a", "€", "😀", "é", " low", "\xff", " ", "z"}));
  EXPECT_EQ(rest, "\xe2\x82");
  // Every byte string, byte by byte: all of it comes, and each part ends with a whole character.
  for (std::uint32_t seed = 0; seed < 200; ++seed) {
    const std::string bytes = random_bytes(40, seed);
    std::string joined;
    for (const auto id : encode(tokenizer, bytes)) joined += *stream.next(id);
    joined += stream.finish();
    EXPECT_EQ(joined, bytes);
  }
  EXPECT_FAILS(stream.next(99999), Errc::invalid_argument);
}

TEST(Text, WarmStreamsAllocateNothing) {
  QORUS_NEEDS_ALLOCATION_COUNTER();
  const auto tokenizer = english().create();
  ASSERT_OK(tokenizer);
  const Ids ids = encode(tokenizer, "low lower low lower");
  text::StreamDecoder stream(*tokenizer);
  std::size_t size = 0;
  for (const auto id : ids) size += stream.next(id)->size();
  const auto before = qorus_test::allocations();
  for (const auto id : ids) size += stream.next(id)->size();
  EXPECT_EQ(qorus_test::allocations(), before);
  EXPECT_EQ(size, 38u);
}

TEST(Text, BadIdsAndEmptyTokenizers) {
  const auto tokenizer = english().create();
  ASSERT_OK(tokenizer);
  List<char> out;
  ASSERT_OK(out.push('x'));
  for (const std::int32_t id : {-1, 264, INT32_MAX, INT32_MIN}) {
    EXPECT_FAILS(tokenizer->decode(Ids{97, id}, {}, out), Errc::invalid_argument);
    EXPECT_EQ(out.size(), 1u);
  }
  const text::Tokenizer empty;
  EXPECT_FAILS(empty.encode("a"), Errc::not_built);
  EXPECT_FAILS(empty.decode(Ids{1}), Errc::not_built);
  EXPECT_FAILS(text::StreamDecoder(empty).next(0), Errc::not_built);
  EXPECT_EQ(empty.size(), 0u);
  EXPECT_EQ(empty.bos(), -1);
}

TEST(Text, VocabulariesThatLie) {
  const auto fails = [](Errc code, const auto& damage) {
    for (Vocabulary v : {english(), characters()}) {
      damage(v);
      EXPECT_FAILS(v.create(), code);
    }
  };
  fails(Errc::corrupt, [](Vocabulary& v) { v.pieces[8] = v.pieces[7]; });
  fails(Errc::corrupt, [](Vocabulary& v) { v.merges = {"a zzz"}; });
  fails(Errc::corrupt, [](Vocabulary& v) { v.merges = {"ab"}; });
  fails(Errc::corrupt, [](Vocabulary& v) { v.merges = {""}; });
  fails(Errc::corrupt, [](Vocabulary& v) { v.merges = {"c b"}; });
  fails(Errc::corrupt, [](Vocabulary& v) { v.merges = {std::string(300000, ' ')}; });
  fails(Errc::corrupt, [](Vocabulary& v) { v.kinds[3] = 7; });
  fails(Errc::corrupt, [](Vocabulary& v) { v.kinds[3] = -1; });
  fails(Errc::corrupt, [](Vocabulary& v) { v.kinds.pop_back(); });
  fails(Errc::corrupt, [](Vocabulary& v) { v.scores.pop_back(); });
  fails(Errc::corrupt, [](Vocabulary& v) { v.scores[3] = __builtin_nanf(""); });
  fails(Errc::corrupt, [](Vocabulary& v) { v.spec.bos = 100000; });
  fails(Errc::corrupt, [](Vocabulary& v) { v.spec.unknown = INT64_MAX; });
  fails(Errc::corrupt, [](Vocabulary& v) { v.pieces.clear(), v.kinds.clear(), v.scores.clear(); });
  fails(Errc::corrupt,
        [](Vocabulary& v) { v.kinds[200] = static_cast<int>(PieceKind::byte), v.pieces[200] = "<0xZZ>"; });
  fails(Errc::unsupported, [](Vocabulary& v) { v.pieces[3] = std::string(70000, 'x'); });
  static constexpr std::int32_t beyond[] = {-1};
  fails(Errc::corrupt, [](Vocabulary& v) { v.spec.strip_left = beyond; });
  const std::byte map[] = {std::byte{255}, std::byte{255}, std::byte{0}, std::byte{0}, std::byte{1}};
  fails(Errc::corrupt, [&](Vocabulary& v) { v.spec.character_map = map; });
  fails(Errc::corrupt, [&](Vocabulary& v) { v.spec.character_map = std::span(map).first(2); });
}
