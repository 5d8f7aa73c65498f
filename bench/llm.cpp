// Times language models as bench/peers/llama_bench.py does: ppN, a prompt of N tokens at once, logits of the last; tgN, N tokens one by one.
// Each file in a process of its own, so that its peak memory is its own.
//
//   bench_llm [--threads N] [--rounds R] [--prompt 512] [--generate 128] [--depth 0] [--together N] [--cache f32] FILE ...   (GGUF or .qorus)
//     --depth N   generates after N tokens that the cache holds already (tgM@dN); --cache f32, f16 or q8_0
//     --together N   by turns with one by one, feeds the M tokens N at a time as well, logits of each (tgMxN): what guesses cost
//   bench_llm --open FILE ...   how long opening takes: of the file alone, and of the model with its tokenizer
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "bench/timing.h"

import qorus.llm;

using namespace qorus;

namespace {

struct Settings {
  int threads = 1, rounds = 3, prompt = 512, generate = 128, depth = 0, together = 0;
  DType cache = DType::f32;
  bool open = false;
};

[[noreturn]] void give_up(const Error& error) {
  std::fprintf(stderr, "bench_llm: %s\n", error.message().c_str());
  _exit(1);
}

std::optional<DType> cache_of(const std::string& name) {
  if (name == "f32") return DType::f32;
  if (name == "f16") return DType::f16;
  if (name == "q8_0") return DType::q8_0;
  return std::nullopt;
}

// Parameters, bytes of the weights that one token reads, and parameters of the layers' matrices, as a JSON object's members.
std::string sizes_of(const std::string& path) {
  auto weights = llm::Weights::open(path);
  if (!weights) give_up(weights.error());
  const io::Gguf* file = &weights->gguf();
  std::size_t read = 0, layers = 0, bytes = 0, all = 0;
  for (const io::TensorEntry& entry : file->entries()) {
    bytes += entry.bytes;
    all += entry.shape.numel();
    if (entry.name != "token_embd.weight" || !file->find("output.weight")) read += entry.bytes;
    if (entry.name.starts_with("blk.") && entry.shape.rank() == 2) layers += entry.shape.numel();
  }
  return "\"parameters\":" + std::to_string(all) + ",\"weight_bytes\":" + std::to_string(bytes) +
         ",\"read_bytes_per_token\":" + std::to_string(read) + ",\"layer_parameters\":" + std::to_string(layers);
}

// Of a file whose table and metadata the system has in memory.
template <class Open>
void time_opening(const char* item, const std::string& config, const Open& open) {
  std::vector<double> samples;
  for (int round = 0; round <= 20; ++round) {  // the first warms up
    const double start = bench::now(1);
    const auto opened = open();
    const double took = bench::now(1) - start;
    if (!opened) give_up(opened.error());
    if (round) samples.push_back(took);
  }
  std::sort(samples.begin(), samples.end());
  bench::report(item, "0.1.0", config, 1, samples, 1, "files/s");
}

void run(const std::string& path, const Settings& settings) {
  const std::string name(path, path.rfind('/') + 1), sizes = sizes_of(path);
  if (settings.open) {
    const std::string config = "\"model\":\"" + name + "\"," + sizes;
    time_opening("open_file", config, [&] { return llm::Weights::open(path); });
    time_opening("open_model", config, [&] { return llm::open(path); });
    return;
  }
  const double start = bench::now(2);
  auto model = llm::open(path);
  if (!model) give_up(model.error());
  const double opened = bench::now(2);
  auto session = llm::Session::create(*model, {.context = settings.prompt + settings.generate + settings.depth,
                                               .cache = settings.cache,
                                               .threads = settings.threads});
  if (!session) give_up(session.error());
  std::vector<std::int32_t> ids(
      static_cast<std::size_t>(std::max(settings.prompt, settings.depth + settings.generate)));
  for (std::size_t i = 0; i < ids.size(); ++i)
    ids[i] = static_cast<std::int32_t>((static_cast<std::int64_t>(i) * 7919 + 13) % model->config().vocab);
  const auto feed = [&](std::size_t first, std::size_t count) {
    if (auto fed = session->feed(std::span<const std::int32_t>(ids).subspan(first, count)); !fed) give_up(fed.error());
  };
  feed(0, 1);
  const double answered = bench::now(2);
  const std::string config = "\"model\":\"" + name + "\"," + sizes + ",\"open_s\":" + std::to_string(opened - start) +
                             ",\"first_token_s\":" + std::to_string(answered - opened) + ",\"isa\":\"" +
                             cpu_info().isa + "\"";
  std::vector<double> prompt, generate, together;
  for (int round = 0; round <= settings.rounds; ++round) {  // the first warms up
    session->rewind(0);
    double from = bench::now(settings.threads);
    feed(0, static_cast<std::size_t>(settings.prompt));
    if (round) prompt.push_back(bench::now(settings.threads) - from);
    for (const int step : {1, settings.together}) {
      if (step == 0) continue;
      session->rewind(0);
      if (settings.depth) feed(0, static_cast<std::size_t>(settings.depth));
      const int count = round ? settings.generate : std::min(4 * step, settings.generate);
      const auto all = std::span<const std::int32_t>(ids).subspan(static_cast<std::size_t>(settings.depth),
                                                                  static_cast<std::size_t>(count));
      from = bench::now(settings.threads);
      for (std::size_t i = 0, most = static_cast<std::size_t>(step); i < all.size(); i += most) {
        const auto some = all.subspan(i, std::min(most, all.size() - i));
        const auto fed = step == 1 ? session->feed(some) : session->feed(some, [](auto, auto) {});
        if (!fed) give_up(fed.error());
      }
      if (round) (step == 1 ? generate : together).push_back(bench::now(settings.threads) - from);
    }
  }
  std::sort(prompt.begin(), prompt.end());
  std::sort(generate.begin(), generate.end());
  bench::report(("pp" + std::to_string(settings.prompt)).c_str(), "0.1.0", config, settings.threads, prompt,
                settings.prompt, "tokens/s");
  const std::string depth = settings.depth ? "@d" + std::to_string(settings.depth) : "",
                    item = "tg" + std::to_string(settings.generate);
  bench::report((item + depth).c_str(), "0.1.0", config, settings.threads, generate, settings.generate, "tokens/s");
  if (together.empty()) return;
  std::sort(together.begin(), together.end());
  bench::report((item + "x" + std::to_string(settings.together) + depth).c_str(), "0.1.0", config, settings.threads,
                together, settings.generate, "tokens/s");
}

}  // namespace

int main(int argc, char** argv) {
  Settings settings;
  std::vector<std::string> files;
  for (int i = 1; i < argc; ++i) {
    const std::string argument = argv[i];
    int* number = argument == "--threads"    ? &settings.threads
                  : argument == "--rounds"   ? &settings.rounds
                  : argument == "--prompt"   ? &settings.prompt
                  : argument == "--generate" ? &settings.generate
                  : argument == "--depth"    ? &settings.depth
                  : argument == "--together" ? &settings.together
                                             : nullptr;
    if (argument == "--open") {
      settings.open = true;
    } else if (number && i + 1 < argc && std::atoi(argv[i + 1]) > 0) {
      *number = std::atoi(argv[++i]);
    } else if (const auto cache = cache_of(argument == "--cache" && i + 1 < argc ? argv[i + 1] : ""); cache) {
      settings.cache = *cache;
      ++i;
    } else if (argument[0] == '-') {
      std::fprintf(stderr,
                   "usage: bench_llm [--threads N] [--rounds R] [--prompt N] [--generate N] [--depth N] [--together N] "
                   "[--cache f32|f16|q8_0] [--open] FILE ...\n");
      return argument == "--help" ? 0 : 2;
    } else {
      files.push_back(argument);
    }
  }
  int failed = 0;
  for (const auto& file : files) {
    const pid_t child = fork();
    if (child == 0) {
      run(file, settings);
      std::fflush(stdout);
      _exit(0);
    }
    int status = 0;
    if (child < 0 || waitpid(child, &status, 0) < 0 || status != 0) failed = 1;
  }
  return failed;
}
