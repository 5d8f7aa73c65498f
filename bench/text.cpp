// Times tokenizers: MB of text encoded in a second on one thread, and MB of text decoded, of whole files in one call.
//
//   bench_text [--seconds S] VOCABULARY TEXT...        the vocabulary in any form that text::open reads
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <string_view>

#include "bench/timing.h"

import qorus.text;

using namespace qorus;

namespace {

[[noreturn]] void give_up(const Error& error) {
  std::fprintf(stderr, "bench_text: %s\n", error.message().c_str());
  std::exit(1);
}

std::string file_name(const std::string& path) { return path.substr(path.rfind('/') + 1); }

void run(const text::Tokenizer& tokenizer, const std::string& vocabulary, const std::string& path, double seconds) {
  const auto file = MappedFile::open(path);
  if (!file) give_up(file.error());
  const std::string_view text(reinterpret_cast<const char*>(file->bytes().data()), file->bytes().size());
  List<std::int32_t> ids;
  List<char> back;
  const auto encode = [&] {
    ids.clear();
    if (auto ok = tokenizer.encode(text, {}, ids); !ok) give_up(ok.error());
  };
  const auto decode = [&] {
    back.clear();
    if (auto ok = tokenizer.decode(ids.span(), {}, back); !ok) give_up(ok.error());
  };
  encode();
  const std::string config = "\"vocabulary\":\"" + file_name(vocabulary) + "\",\"text\":\"" + file_name(path) +
                             "\",\"bytes\":" + std::to_string(text.size()) + ",\"ids\":" + std::to_string(ids.size());
  const double megabytes = static_cast<double>(text.size()) * 1e-6;
  bench::report("encode", "0.1.0", config, 1, bench::time_step(1, encode, seconds), megabytes, "MB/s");
  bench::report("decode", "0.1.0", config, 1, bench::time_step(1, decode, seconds), megabytes, "MB/s");
}

}  // namespace

int main(int argc, char** argv) {
  double seconds = 2;
  int at = 1;
  if (at + 1 < argc && std::strcmp(argv[at], "--seconds") == 0) {
    seconds = std::atof(argv[at + 1]);
    at += 2;
  }
  if (argc - at < 2) {
    std::fprintf(stderr, "usage: bench_text [--seconds S] VOCABULARY TEXT...\n");
    return 2;
  }
  const std::string vocabulary = argv[at];
  const auto tokenizer = text::open(vocabulary);
  if (!tokenizer) give_up(tokenizer.error());
  for (++at; at < argc; ++at) run(*tokenizer, vocabulary, argv[at], seconds);
}
