// Bodies of qorus.text:split: the scanners. Each is a function from the begin of a word to its end.
module qorus.text;
import qorus.std;
import :split;
import :letters;
import :unicode;

namespace qorus::text {
namespace {

// The end of the run of characters that `takes` accepts.
template <class F>
const char* run(const char* at, const char* end, F&& takes) noexcept {
  for (Char c = read(at, end); c.size && takes(c); c = read(at, end)) at += c.size;
  return at;
}
const char* run_of(const char* at, const char* end, unsigned classes) noexcept {
  return run(at, end, [classes](const Char& c) { return c.is(classes); });
}

bool other(const Char& c) noexcept { return c.size != 0 && !c.is(k_space | k_letter | k_number); }

// 's 't 'm 'd 're 've 'll at `at`, which is an apostrophe; 0 or the size.
std::size_t contraction(const char* at, const char* end, bool any_case) noexcept {
  const auto letter = [&](std::ptrdiff_t i) {
    const char c = end - at > i ? at[i] : '\0';
    return any_case && c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c;
  };
  const char a = letter(1), b = letter(2);
  if (a == 's' || a == 't' || a == 'm' || a == 'd') return 2;
  if ((a == 'r' && b == 'e') || (a == 'v' && b == 'e') || (a == 'l' && b == 'l')) return 3;
  return 0;
}

// \s+(?!\S)|\s+ at a blank: all blanks, less the last where a word follows that may want it.
const char* blanks(const char* at, const char* end) noexcept {
  const char *last = at, *next = at;
  for (Char c = read(next, end); c.is(k_space); c = read(next, end)) {
    last = next;
    next += c.size;
  }
  return next == end || last == at ? next : last;
}

// \s*[\r\n]+|\s+(?!\S)|\s+ at a blank: to the last newline among the blanks if there is one.
const char* lines_or_blanks(const char* at, const char* end) noexcept {
  const char *last = at, *next = at, *line = nullptr;
  for (Char c = read(next, end); c.is(k_space); c = read(next, end)) {
    last = next;
    next += c.size;
    if (c.newline()) line = next;
  }
  if (line) return line;
  return next == end || last == at ? next : last;
}

const char* newlines(const char* at, const char* end) noexcept {
  while (at != end && (*at == '\r' || *at == '\n')) ++at;
  return at;
}

const char* up_to(const char* at, const char* end, unsigned classes, int most) noexcept {
  for (Char c = read(at, end); most > 0 && c.is(classes); c = read(at, end), --most) at += c.size;
  return at;
}

// [upper]*[lower]+ (needs_lower) or [upper]+[lower]* at `at`; null if it does not match. The classes overlap, so that the first
// gives back what the second needs.
const char* cased(const char* at, const char* end, bool needs_lower) noexcept {
  const char *upper = at, *both_end = nullptr;
  for (Char c = read(upper, end); c.is(k_upper); c = read(upper, end)) {
    upper += c.size;
    if (c.is(k_lower)) both_end = upper;
  }
  const char* lower_end = run_of(upper, end, k_lower);
  if (!needs_lower) return upper == at ? nullptr : lower_end;
  return lower_end != upper ? lower_end : both_end;
}

const char* scan_cased(const char* at, const char* end, bool contractions, int digits) noexcept {
  const Char first = read(at, end);
  const char* word = nullptr;
  const bool leads = !first.newline() && !first.is(k_letter | k_number);
  for (const bool needs_lower : {true, false}) {
    if (!word && leads) word = cased(at + first.size, end, needs_lower);
    if (!word) word = cased(at, end, needs_lower);
  }
  if (word) return contractions && word != end && *word == '\'' ? word + contraction(word, end, true) : word;
  if (first.is(k_number)) return up_to(at, end, k_number, digits);
  const char* mark = at + (*at == ' ');
  if (other(read(mark, end))) {
    mark = run(mark, end, other);
    while (mark != end && (*mark == '\r' || *mark == '\n' || *mark == '/')) ++mark;
    return mark;
  }
  return lines_or_blanks(at, end);
}

// A match of deepseek3 at `at`, or `at` itself.
const char* match_deepseek3(const char* at, const char* end) noexcept {
  const auto latin = [](const Char& c) { return c.code < 128 && c.is(k_letter); };
  const auto letter = [](const Char& c) { return c.is(k_letter | k_mark); };
  const Char first = read(at, end), second = read(at + first.size, end);
  if (first.code < 128 && first.is(k_punct | k_symbol) && latin(second)) return run(at + 1, end, latin);
  if (!first.newline() && !first.is(k_letter | k_punct | k_symbol) && letter(second))
    return run(at + first.size, end, letter);
  if (letter(first)) return run(at, end, letter);
  const char* mark = at + (*at == ' ');
  if (read(mark, end).is(k_punct | k_symbol)) return newlines(run_of(mark, end, k_punct | k_symbol), end);
  return first.is(k_space) ? lines_or_blanks(at, end) : at;
}

// A run of characters, and a blank before it.
template <class F>
const char* match_spaced(const char* at, const char* end, F&& takes) noexcept {
  const Char first = read(at, end);
  const char* begin = first.is(k_space) ? at + first.size : at;
  const char* found = run(begin, end, takes);
  if (found != begin) return found;
  return run(at, end, takes);  // for a blank that the run itself takes
}

const char* match_bloom(const char* at, const char* end) noexcept {
  const auto takes = [](const Char& c) {
    constexpr std::uint32_t stops[] = {'(',    '|',    '.',    ',',    '!',   '?',   ')',
                                       0x2026, 0x3002, 0xff0c, 0x3001, 0x964, 0x6d4, 0x60c};
    return !c.is(k_space) && std::find(std::begin(stops), std::end(stops), c.code) == std::end(stops);
  };
  const char* begin = at + (*at == ' ');
  const char* found = run(begin, end, takes);
  return found == begin ? at : found;
}

// The match at `at`, or else the stretch up to the next one.
template <class F>
const char* match_or_gap(const char* at, const char* end, F&& match) noexcept {
  if (const char* found = match(at, end); found != at) return found;
  do {
    at += read(at, end).size;
  } while (at != end && match(at, end) == at);
  return at;
}
// The same for a run of characters, where a look at one is enough.
template <class F>
const char* run_or_gap(const char* at, const char* end, F&& takes) noexcept {
  const char* found = run(at, end, takes);
  return found != at ? found : run(at, end, [&](const Char& c) { return !takes(c); });
}

const char* scan_final_spaces(const char* at, const char* end) noexcept {
  const char *blank = nullptr, *next = at;  // where the blanks begin that go on to `next`
  for (Char c = read(next, end); c.size; c = read(next, end)) {
    if (!c.is(k_space))
      blank = nullptr;
    else if (!blank)
      blank = next;
    next += c.size;
  }
  return blank && blank != at ? blank : end;
}

bool deepseek_mark(const Char& c) noexcept {
  const auto in = [&](std::uint32_t low, std::uint32_t high) { return c.code >= low && c.code <= high; };
  return in('!', '/') || in(':', '~') || in(0xff01, 0xff0f) || in(0xff1a, 0xff5e) || in(0x2018, 0x201f) ||
         in(0x3000, 0x3002);
}
bool cjk(const Char& c) noexcept {
  const auto in = [&](std::uint32_t low, std::uint32_t high) { return c.code >= low && c.code <= high; };
  return in(0x4e00, 0x9fa5) || in(0x800, 0x4e00) || in(0xac00, 0xd7ff);
}
bool cjk3(const Char& c) noexcept {
  return (c.code >= 0x4e00 && c.code <= 0x9fa5) || (c.code >= 0x3040 && c.code <= 0x30ff);
}
bool falcon_mark(const Char& c) noexcept { return c.is(k_punct) || (c.code < 128 && c.is(k_symbol)); }

}  // namespace

const char* scan_gpt2(const char* at, const char* end) noexcept {
  if (*at == '\'') {
    if (const std::size_t size = contraction(at, end, false)) return at + size;
  }
  const char* word = at + (*at == ' ');
  const Char first = read(word, end);
  if (first.is(k_letter)) return run_of(word + first.size, end, k_letter);
  if (first.is(k_number)) return run_of(word + first.size, end, k_number);
  if (other(first)) return run(word + first.size, end, other);
  return blanks(at, end);
}

const char* scan_llama3(const char* at, const char* end, int digits) noexcept {
  if (*at == '\'') {
    if (const std::size_t size = contraction(at, end, true)) return at + size;
  }
  const Char first = read(at, end);
  if (first.is(k_letter)) return run_of(at + first.size, end, k_letter);
  if (first.is(k_number)) return up_to(at, end, k_number, digits);
  if (!first.newline()) {
    const Char second = read(at + first.size, end);
    if (second.is(k_letter)) return run_of(at + first.size + second.size, end, k_letter);
  }
  const char* mark = at + (*at == ' ');
  if (other(read(mark, end))) return newlines(run(mark, end, other), end);
  return lines_or_blanks(at, end);
}

const char* scan(Pattern pattern, const char* at, const char* end) noexcept {
  const auto number = [](const Char& c) { return c.is(k_number); };
  switch (pattern) {
    case Pattern::gpt2: return scan_gpt2(at, end);
    case Pattern::llama3: return scan_llama3(at, end, 3);
    case Pattern::qwen2: return scan_llama3(at, end, 1);
    case Pattern::gpt4o: return scan_cased(at, end, true, 3);
    case Pattern::tekken: return scan_cased(at, end, false, 1);
    case Pattern::deepseek3: return match_or_gap(at, end, match_deepseek3);
    case Pattern::bloom: return match_or_gap(at, end, match_bloom);
    case Pattern::number:
      return match_or_gap(at, end, [](const char* p, const char* e) { return up_to(p, e, k_number, 1); });
    case Pattern::numbers: return run_or_gap(at, end, number);
    case Pattern::numbers3:
      return match_or_gap(at, end, [](const char* p, const char* e) { return up_to(p, e, k_number, 3); });
    case Pattern::digits3:
      return match_or_gap(at, end, [](const char* p, const char* e) {
        const auto digit = [](char c) { return c >= '0' && c <= '9'; };
        return e - p >= 3 && digit(p[0]) && digit(p[1]) && digit(p[2]) ? p + 3 : p;
      });
    case Pattern::punctuation: return run_or_gap(at, end, falcon_mark);
    case Pattern::punctuation_old:
      return run_or_gap(at, end, [](const Char& c) { return falcon_mark(c) && c.code != '`'; });
    case Pattern::newline:
      return match_or_gap(at, end, [](const char* p, const char*) { return *p == '\n' || *p == '\r' ? p + 1 : p; });
    case Pattern::final_spaces: return scan_final_spaces(at, end);
    case Pattern::spaced_letters:
      return match_or_gap(at, end, [](const char* p, const char* e) {
        return match_spaced(p, e, [](const Char& c) { return c.is(k_letter); });
      });
    case Pattern::spaced_punctuation:
      return match_or_gap(at, end, [](const char* p, const char* e) {
        return match_spaced(p, e, [](const Char& c) { return c.is(k_punct); });
      });
    case Pattern::deepseek_letters:
      return match_or_gap(at, end, [](const char* p, const char* e) {
        return match_spaced(p, e, [](const Char& c) { return is_cased_letter(c.code); });
      });
    case Pattern::deepseek_marks:
      return match_or_gap(at, end, [](const char* p, const char* e) { return match_spaced(p, e, deepseek_mark); });
    case Pattern::cjk: return run_or_gap(at, end, cjk);
    case Pattern::cjk3: return run_or_gap(at, end, cjk3);
  }
  return end;
}

}  // namespace qorus::text
